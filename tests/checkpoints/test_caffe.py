"""It is the authors' network: `from_caffe` and the models against a straight-line reading of their definitions."""

import pytest
import timm
import torch
from caffe_oracle import caffe_forward, random_blobs
from helpers import relative_error

import timm_resattn  # noqa: F401
from timm_resattn.checkpoints import from_caffe

CAFFE_NAMES = {
    "resattn56": "Attention-56",
    "resattn92": "Attention-92",
    "resattnext56_32x4d": "AttentionNeXt-56",
    "resattnext92_32x4d": "AttentionNeXt-92",
}


@pytest.mark.parametrize("size", [160, 224])
@pytest.mark.parametrize("name", CAFFE_NAMES)
def test_model_is_the_authors_graph(name, size):
    blobs = random_blobs(CAFFE_NAMES[name], seed=1)
    model = timm.create_model(name, pool_mode="ceil").eval()
    model.load_state_dict(from_caffe(blobs), strict=True)
    x = torch.randn(2, 3, size, size)
    capture: dict = {}
    with torch.inference_mode():
        expected = caffe_forward(CAFFE_NAMES[name], blobs, x, capture)
        masks = []
        hook = model.stages[0].blocks[1].mask.register_forward_hook(lambda m, args, out: masks.append(out))
        actual = model(x)
        hook.remove()
    assert relative_error(actual, expected) < 1e-5
    # the comparison can see an error: logits depend on the image, masks vary and do not saturate
    assert relative_error(expected[:1], expected[1:]) > 0.05
    mask = capture["AttentionA_1/mask"]
    assert relative_error(masks[0], mask) < 1e-5
    assert mask.std() > 0.02 and 0.05 < mask.mean() < 0.95


@pytest.mark.parametrize("kwargs", [dict(pool_mode="pad"), dict(double_skip=True), dict(attn_residual=False)])
def test_oracle_tells_other_networks_apart(kwargs):
    blobs = random_blobs("Attention-56", seed=1)
    model = timm.create_model("resattn56", **{"pool_mode": "ceil", **kwargs}).eval()
    model.load_state_dict(from_caffe(blobs), strict=True)
    x = torch.randn(1, 3, 160, 160)
    with torch.inference_mode():
        assert relative_error(model(x), caffe_forward("Attention-56", blobs, x)) > 1e-3


def test_from_caffe_keeps_every_value():
    blobs = random_blobs("AttentionNeXt-56", seed=2)
    state_dict = from_caffe(blobs)
    values = sum(blob.double().sum() for layer in blobs.values() for blob in layer)
    converted = sum(v.double().sum() for v in state_dict.values())
    assert converted == pytest.approx(values.item(), rel=1e-12)


def test_from_caffe_accepts_caffe_shaped_norm_blobs():
    blobs = random_blobs("Attention-56", seed=2)
    expected = from_caffe(blobs)
    for shape in ((1, -1), (1, -1, 1, 1)):
        shaped = {k: [b.reshape(shape) for b in v] if k.endswith("/bn") else v for k, v in blobs.items()}
        assert all(torch.equal(v, expected[k]) for k, v in from_caffe(shaped).items())


def test_from_caffe_reads_the_forks_inverse_standard_deviation():
    blobs = random_blobs("Attention-56", seed=2)
    forked = {k: [*v[:3], (v[3] + 1e-5) ** -0.5] if k.endswith("/bn") else v for k, v in blobs.items()}
    expected = from_caffe(blobs)
    for name, value in from_caffe(forked, inverse_std=True).items():
        assert torch.allclose(value, expected[name], rtol=1e-5, atol=1e-7)


def test_from_caffe_lists_everything_wrong_at_once():
    blobs = random_blobs("Attention-92", seed=0)
    del blobs["AttentionB_2/mask/linear_1"]
    del blobs["conv1/bn"]
    blobs["fc8"] = [torch.zeros(1)]
    blobs["classifier"] = [torch.zeros(10, 2048), torch.zeros(10)]
    blobs["pre_res_1/bn"] = blobs["pre_res_1/bn"][:2]
    with pytest.raises(ValueError, match="resattn92") as error:
        from_caffe(blobs)
    message = str(error.value)
    for part in (
        "missing: conv1/bn.weight, conv1/bn.bias, conv1/bn.running_mean, conv1/bn.running_var, ",
        "AttentionB_2/mask/linear_1.weight",
        "pre_res_1/bn.running_mean",
        "unexpected: fc8.weight",
        "classifier.weight (10, 2048) instead of (1000, 2048)",
        "classifier.bias (10,) instead of (1000,)",
    ):
        assert part in message


def test_from_caffe_refuses_nothing_at_all():
    with pytest.raises(ValueError, match=r"missing: conv1\.weight"):
        from_caffe({})
