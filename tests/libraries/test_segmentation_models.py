"""segmentation_models_pytorch with ``tu-NAME`` encoders."""

import pytest
import torch

import timm_resattn  # noqa: F401  registers the networks

smp = pytest.importorskip("segmentation_models_pytorch")

# the same layers as by default, a fraction of the channels
NARROW = dict(widths=(16, 32, 48, 64), stem_chs=8)


def images(height, width):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["resattn56", "resattnext50_32x4d"])
@pytest.mark.parametrize("architecture", ["Unet", "FPN", "DeepLabV3Plus"])
def test_forward_and_backward(architecture, name):
    kwargs = NARROW if name == "resattn56" else dict(widths=(64, 64, 128, 128))
    model = smp.create_model(architecture, f"tu-{name}", encoder_weights=None, classes=3, **kwargs).train()
    x = images(64, 96)
    logits = model(x)
    assert logits.shape == (2, 3, 64, 96)
    logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_odd_sizes():
    """Unet alone takes them."""
    model = smp.Unet("tu-resattn56", encoder_weights=None, classes=3, **NARROW)
    assert model(images(67, 93)).shape == (2, 3, 67, 93)


def test_networks_for_cifar_are_refused():
    """Their maps have strides 1, 1, 2, 4."""
    with pytest.raises(ValueError, match="downsampling pattern"):
        smp.Unet("tu-resattn56_cifar", encoder_weights=None)
