"""Folded, fused and compiled networks compute what the plain network computes."""

import copy
import pickle
import subprocess
import sys
import warnings
from functools import partial

import pytest
import timm
import torch
from helpers import live_in, relative_error, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import FrozenBatchNormAct2d, freeze_batch_norm_2d
from timm.utils import reparameterize_model
from torch import nn

import timm_resattn
from timm_resattn import fused, optimize_for_inference
from timm_resattn.fold import fold_norm
from timm_resattn.optimize import retain_freed_memory

OPTIONS = {
    "preact": {},
    "postact": dict(unit_type="postact"),
    "resnext": dict(unit_type="postact", groups=4, bottle_ratio=0.5),
    "inception": dict(unit_type="inception"),
    "double_skip": dict(double_skip=True, mask_pools=(3, 2)),
    "double_skip_postact": dict(double_skip=True, unit_type="postact"),
    "local_conv": dict(mask_type="local_conv"),
    "no_mask": dict(mask_type="none"),
    "channel": dict(attn_act="channel"),
    "spatial": dict(attn_act="spatial"),
    "nal": dict(attn_residual=False),
    "ceil": dict(pool_mode="ceil"),
    "imagenet_stem": dict(stem_type="imagenet"),
    "postact_imagenet_stem": dict(stem_type="imagenet", unit_type="postact"),
    "no_pre_units": dict(pre_units=0),
    "many_units": dict(pre_units=2, trunk_units=3, mask_units=2, mask_up_units=2),
    "first_unit_without_projection": dict(widths=(16, 16), stem_chs=16, output_stride=8),
    "dilated": dict(depths=(1, 1, 1, 1), widths=(8, 16, 16, 16), closing_units=(0, 0, 0, 1), mask_pools=(1,) * 4)
    | dict(stem_type="imagenet", output_stride=8),
    "silu": dict(act_layer="silu"),
    "layer_norm": dict(norm_layer="layernorm2d"),
    "layer_norm_postact": dict(norm_layer="layernorm2d", unit_type="postact"),
    "drop_path": dict(drop_path_rate=0.2),
}
ODD = (3, 3, 45, 37)


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7))


def fine_tuned(**options) -> nn.Module:
    """A tiny network after random running statistics and three steps of training, in evaluation mode."""
    torch.manual_seed(1)
    model = live_in(tiny(**options)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(3):
        optimizer.zero_grad()
        model(images(4, 3, 40, 40) + step).logsumexp(1).sum().backward()
        optimizer.step()
    return model.eval()


def foldable_norms(model: nn.Module) -> int:
    """Batch norms that stand behind a convolution, by their places in the architecture."""
    behind = ("norm2", "norm3", "stem.norm", "branch", "downsample.norm")
    count = 0
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            parent = model.get_submodule(name.rpartition(".")[0])
            postact_first = name.endswith("norm1") and not getattr(parent, "preact", True)
            inception_last = name.endswith(".norm") and "blocks" in name
            count += any(part in name for part in behind) or postact_first or inception_last
    return count


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_folded_network_is_the_network(options):
    model = fine_tuned(**options)
    folded = reparameterize_model(model)
    x = images(*ODD)
    with torch.no_grad():
        assert relative_error(folded(x), model(x)) < 1e-5
    assert foldable_norms(folded) == 0
    if "norm_layer" not in options:
        assert foldable_norms(model) > 0


@pytest.mark.parametrize("fast", [reparameterize_model, partial(optimize_for_inference, compile=False)])
def test_frozen_norms_fold_too(fast):
    model = fine_tuned()
    with torch.no_grad():
        expected = model(images(*ODD))
        folded = fast(freeze_batch_norm_2d(model))
        assert relative_error(folded(images(*ODD)), expected) < 1e-5
    kinds = [name for name, m in folded.named_modules() if isinstance(m, FrozenBatchNormAct2d)]
    assert kinds, "the first norm of each unit stays"
    assert not any(name.endswith(("norm2", "norm3")) for name in kinds)


@pytest.mark.parametrize("unit_type", ["preact", "postact", "inception"])
def test_folding_twice_changes_nothing(unit_type):
    once = reparameterize_model(fine_tuned(unit_type=unit_type))
    twice = reparameterize_model(once)
    assert once.state_dict().keys() == twice.state_dict().keys()
    assert all(torch.equal(value, twice.state_dict()[name]) for name, value in once.state_dict().items())
    assert torch.equal(once(images(*ODD)), twice(images(*ODD)))


@pytest.mark.parametrize("unit_type", ["preact", "postact", "inception"])
def test_folding_refuses_training_mode(unit_type):
    model = tiny(unit_type=unit_type, stem_type="imagenet").train()
    names = ("stem", "stages.0.blocks.0", "stages.0.blocks.1.mask.tail")
    for module in map(model.get_submodule, names):
        with pytest.raises(RuntimeError, match=r"evaluation mode: call \.eval\(\) first\.$"):
            module.reparameterize()
    assert foldable_norms(model) > 0
    with pytest.raises(RuntimeError, match="evaluation mode"):
        reparameterize_model(model)


def test_folded_network_can_be_trained():
    folded = reparameterize_model(fine_tuned())
    folded(images(*ODD)).sum().backward()
    assert all(p.grad is not None for p in folded.parameters())


def test_folding_in_half_precision_rounds_once():
    conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
    norm = live_in(nn.Sequential(nn.BatchNorm2d(8)))[0]
    parent = nn.Module()
    parent.conv, parent.norm = conv.bfloat16(), norm.bfloat16()
    exact = copy.deepcopy(parent).float()
    fold_norm(parent, "conv", "norm")
    fold_norm(exact, "conv", "norm")
    assert torch.equal(parent.conv.weight, exact.conv.weight.bfloat16())
    assert torch.equal(parent.conv.bias, exact.conv.bias.bfloat16())


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_fused_network_is_the_network(options):
    model = fine_tuned(**options)
    before = copy.deepcopy(model.state_dict())
    fast = optimize_for_inference(model, compile=False, retain_memory=False)
    x = images(*ODD)
    given_x = x.clone()
    with torch.no_grad():
        expected = model(x)
    for batch in (x, x.contiguous(memory_format=torch.channels_last), x.double(), x[:1], x):
        assert relative_error(fast(batch), expected[: len(batch)]) < 1e-5
    assert torch.equal(x, given_x)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_fused_network_in_bfloat16(options):
    if not fused.can_fuse(torch.bfloat16):
        pytest.skip("this CPU has no fused bfloat16 convolutions")
    model = fine_tuned(**options)
    fast = optimize_for_inference(model, torch.bfloat16, compile=False, retain_memory=False)
    with torch.no_grad():
        expected = model(images(*ODD))
    logits = fast(images(*ODD))
    assert logits.dtype == torch.bfloat16
    assert relative_error(logits.float(), expected) < 5e-2


@settings(max_examples=25, deadline=None)
@given(
    unit_type=st.sampled_from(["preact", "postact", "inception"]),
    mask=st.sampled_from([{}, {"double_skip": True}, {"mask_type": "local_conv"}, {"mask_type": "none"}]),
    attn_act=st.sampled_from(["mixed", "channel", "spatial"]),
    attn_residual=st.booleans(),
    pool_mode=st.sampled_from(["pad", "ceil"]),
    pre_units=st.integers(0, 2),
    mask_pools=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    height=st.integers(17, 50),
    width=st.integers(17, 50),
    batch=st.integers(1, 3),
)
def test_any_fused_network_is_the_network(mask, height, width, batch, **options):
    torch.manual_seed(0)
    model = live_in(tiny(**mask, **options))
    fast = optimize_for_inference(model, compile=False, retain_memory=False)
    x = images(batch, 3, height, width)
    with torch.no_grad():
        assert relative_error(fast(x), model(x)) < 1e-5


@pytest.mark.parametrize("name", ["resattn56", "resattnext56_32x4d", "resattn_inception56", "resattn56_dskip"])
def test_fused_features_are_the_features(name):
    """In-place sums must leave the maps that a caller holds alone."""
    small = dict(widths=(64, 64, 128, 128), output_stride=8)
    if name == "resattn_inception56":
        small["bottle_ratio"] = 0.125
    model = live_in(timm.create_model(name, features_only=True, **small))
    fast = optimize_for_inference(model, compile=False, retain_memory=False)
    x = images(2, 3, 65, 97)
    with torch.no_grad():
        expected = model(x)
    maps = fast(x)
    assert [m.shape for m in maps] == [m.shape for m in expected]
    assert all(relative_error(a, b) < 1e-5 for a, b in zip(maps, expected, strict=True))
    assert foldable_norms(fast) == 0


def test_forward_intermediates_of_a_fused_network():
    model = fine_tuned(widths=(16, 16), stem_chs=16, output_stride=8)
    fast = optimize_for_inference(model, compile=False, retain_memory=False)
    with torch.no_grad():
        _, expected = model.forward_intermediates(images(*ODD))
        _, maps = fast.model.forward_intermediates(images(*ODD).contiguous(memory_format=torch.channels_last))
    assert all(relative_error(a, b) < 1e-5 for a, b in zip(maps, expected, strict=True))


def test_fused_network_copies_pickles_and_follows_its_weights():
    fast = optimize_for_inference(fine_tuned(), compile=False, retain_memory=False)
    logits = fast(images(*ODD))
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert torch.equal(other(images(*ODD)), logits)
    weights = {name: value * 1.5 for name, value in fast.state_dict().items()}
    fast.load_state_dict(weights)
    assert relative_error(fast(images(*ODD)), logits) > 0.1


COMPILED = {
    "preact": dict(attn_act="spatial", attn_residual=False, pool_mode="ceil"),
    "postact": dict(unit_type="postact", groups=4, bottle_ratio=0.5, attn_act="channel", double_skip=True),
    "inception": dict(unit_type="inception", stem_type="imagenet"),
}


@pytest.mark.slow
@pytest.mark.parametrize("options", COMPILED.values(), ids=COMPILED)
def test_compiled_network_is_the_network(options):
    model = fine_tuned(**options)
    fast = optimize_for_inference(model, retain_memory=False)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("error", message="Could not compile")
        for batch in (3, 2, 4):
            x = images(batch, 3, 45, 37)
            assert relative_error(fast(x), model(x)) < 1e-4
            assert relative_error(fast(x.contiguous(memory_format=torch.channels_last)), model(x)) < 1e-4
    assert set(fast.programs) == {(3, 3, 45, 37), (45, 37)}


@pytest.mark.slow
def test_compiled_network_in_bfloat16():
    model = fine_tuned()
    fast = optimize_for_inference(model, torch.bfloat16, retain_memory=False)
    with torch.no_grad():
        assert relative_error(fast(images(*ODD)).float(), model(images(*ODD))) < 5e-2


def test_compiles_twice_an_image_size_and_once_for_single_images(monkeypatch):
    compiled = []

    def compiler(model, x, any_batch):
        compiled.append((tuple(x.shape), any_batch))
        return model

    monkeypatch.setattr("timm_resattn.optimize._compile_for_cpu", compiler)
    fast = optimize_for_inference(tiny(), retain_memory=False)
    for batch in (2, 2, 3, 4, 2, 5, 1, 1):
        fast(images(batch, 3, 32, 32))
    fast(images(4, 3, 40, 32))
    expected = [((2, 3, 32, 32), False), ((3, 3, 32, 32), True), ((1, 3, 32, 32), False), ((4, 3, 40, 32), False)]
    assert compiled == expected


def check_fallback(fast: nn.Module, model: nn.Module) -> None:
    """One warning at the first call, the network's logits at each."""
    with torch.no_grad():
        expected = model(images(*ODD))
    with pytest.warns(UserWarning, match="Could not compile, running without"):
        assert relative_error(fast(images(*ODD)), expected) < 1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert relative_error(fast(images(*ODD)), expected) < 1e-5


@pytest.mark.slow
def test_without_a_compiler_one_warning_and_the_same_logits():
    model = fine_tuned()
    fast = optimize_for_inference(model, retain_memory=False)
    with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
        check_fallback(fast, model)
    assert isinstance(fast.model.stages[0].blocks[0], fused.FusedPreActUnit)


@pytest.mark.parametrize("fusable", [True, False])
def test_without_a_compiler_fused_if_possible(monkeypatch, fusable):
    def fail(*args):
        raise OSError("no compiler")

    monkeypatch.setattr("timm_resattn.optimize._compile_for_cpu", fail)
    monkeypatch.setattr("timm_resattn.optimize.can_fuse", lambda dtype: fusable)
    model = fine_tuned()
    fast = optimize_for_inference(model, retain_memory=False)
    check_fallback(fast, model)
    assert isinstance(fast.model.stages[0].blocks[0], fused.FusedPreActUnit) == fusable


@pytest.mark.parametrize("compile", [True, False])
def test_too_small_an_image_says_so(compile):
    fast = optimize_for_inference(tiny(mask_pools=(3, 2)), compile=compile, retain_memory=False)
    with pytest.raises(ValueError, match="Input image too small"):
        fast(images(2, 3, 4, 4))


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, r"model must be a torch\.nn\.Module; got str", ("resattn56",)),
        (ValueError, r"dtype must be one of torch\.float32, torch\.bfloat16, torch\.float16", (tiny(), torch.int8)),
        (ValueError, r"compile must be one of True, False; got 'max'", (tiny(), torch.float32, "max")),
    ],
)
def test_wrong_arguments(error, message, arguments):
    with pytest.raises(error, match=message):
        optimize_for_inference(*arguments)


def test_optimised_network_refuses_training_and_a_second_time():
    fast = optimize_for_inference(tiny(), compile=False, retain_memory=False)
    assert not fast.training
    with pytest.raises(RuntimeError, match="train the model it was made from"):
        fast.train()
    with pytest.raises(ValueError, match="optimised already"):
        optimize_for_inference(fast)


def test_freed_memory_is_retained():
    """The resident size stays up after a large tensor is freed; in a process of its own, as the setting lasts."""
    if not sys.platform.startswith("linux"):
        pytest.skip("Linux only")
    code = """
import torch
from timm_resattn.optimize import retain_freed_memory
def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) // 1024
def growth():
    before = resident(); torch.ones(50, 1024, 1024); return resident() - before
default = growth()
print(default < 100, retain_freed_memory(), growth() > 150)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    if out[1] == "False":
        pytest.skip("this C library has no mallopt")
    assert out == ["True", "True", "True"]


def test_retaining_memory_elsewhere_does_nothing(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert retain_freed_memory() is False


def test_launcher_folds_for_the_scripts(tmp_path):
    """timm's validate.py and benchmark.py fold with --reparam before they call eval(), onnx_export.py too."""
    script = tmp_path / "script.py"
    script.write_text(
        "import timm\n"
        "from timm.utils import reparameterize_model\n"
        "from timm.utils.model import reparameterize_model as same\n"
        "for fold in (reparameterize_model, same):\n"
        "    model = fold(timm.create_model('resattn56_cifar'))\n"
        "    print(sum('norm2' in name for name, _ in model.named_parameters()), model.training)\n"
    )
    command = [sys.executable, "-m", "timm_resattn", "run", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "False"] * 2


def test_public_name():
    assert timm_resattn.optimize_for_inference is optimize_for_inference
