"""grad-cam's maps of a stage and of a mask, at odd sizes."""

import pytest
import timm
import torch

import timm_resattn  # noqa: F401  registers the networks

pytorch_grad_cam = pytest.importorskip("pytorch_grad_cam")


@pytest.fixture(scope="module", name="model")
def _model():
    return timm.create_model("resattn56_cifar", pretrained=True).eval()


@pytest.mark.parametrize("method", ["GradCAM", "GradCAMPlusPlus", "HiResCAM", "EigenCAM", "LayerCAM"])
@pytest.mark.parametrize("layer", ["stages.2", "stages.1.blocks.1.mask", "stages.0.blocks.1.trunk"])
def test_map_of_a_layer(model, layer, method):
    x = torch.randn(2, 3, 37, 51)
    with getattr(pytorch_grad_cam, method)(model=model, target_layers=[model.get_submodule(layer)]) as cam:
        maps = cam(input_tensor=x, targets=None)  # of the most likely class
    assert maps.shape == (2, 37, 51)
    assert 0 <= maps.min() < maps.max() <= 1
