"""An optimised network computes what the network computes."""

import copy
import pickle
import subprocess
import sys
import warnings

import pytest
import timm
import torch
from helpers import ODD, OPTIONS, fine_tuned, live_in, noise, relative_error, tiny
from torch import nn

from timm_resattn import optimize_for_inference
from timm_resattn.optimize import _compile_for_gpu, retain_freed_memory


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_optimised_network_is_the_network(options):
    model = fine_tuned(**options)
    before = copy.deepcopy(model.state_dict())
    fast = optimize_for_inference(model, compile=False)
    x = noise(*ODD)
    given_x = x.clone()
    with torch.no_grad():
        expected = model(x)
    for batch in (x, x.contiguous(memory_format=torch.channels_last), x.double(), x[:1]):
        assert relative_error(fast(batch), expected[: len(batch)]) < 1e-5
    assert torch.equal(x, given_x)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_made_in_inference_mode():
    model = fine_tuned()
    with torch.inference_mode():
        fast = optimize_for_inference(model, compile=False)
        assert relative_error(fast(noise(*ODD)), model(noise(*ODD))) < 1e-5
    assert relative_error(fast(noise(*ODD)), model(noise(*ODD)).detach()) < 1e-5


def test_optimised_network_in_bfloat16():
    model = fine_tuned()
    fast = optimize_for_inference(model, torch.bfloat16, compile=False)
    logits = fast(noise(*ODD))
    assert logits.dtype == torch.bfloat16
    assert relative_error(logits.float(), model(noise(*ODD)).detach()) < 5e-2


def test_optimised_network_in_float16():
    model = fine_tuned()
    logits = optimize_for_inference(model, torch.float16, compile=False)(noise(*ODD))
    assert logits.dtype == torch.float16
    assert relative_error(logits.float(), model(noise(*ODD)).detach()) < 1e-2


@pytest.mark.parametrize("feature_cls", ["list", "hook", "fx", "getter", "dict"])
@pytest.mark.parametrize("name", ["resattn56", "resattnext56_32x4d", "resattn_inception56", "resattn56_dskip"])
def test_features_are_the_features(name, feature_cls):
    small = dict(widths=(64, 64, 128, 128), output_stride=8)
    if name == "resattn_inception56":
        small["bottle_ratio"] = 0.125
    model = live_in(timm.create_model(name, features_only=True, feature_cls=feature_cls, **small))
    fast = optimize_for_inference(model, compile=False)
    x = noise(2, 3, 65, 97)
    with torch.no_grad():
        expected, maps = model(x), fast(x)
    assert isinstance(maps, type(expected))
    if isinstance(maps, dict):
        assert maps.keys() == expected.keys()
        maps, expected = maps.values(), expected.values()
    assert len(maps) == 5
    assert all(relative_error(a, b) < 1e-5 for a, b in zip(maps, expected, strict=True))


def test_optimised_network_copies_pickles_and_follows_its_weights():
    fast = optimize_for_inference(fine_tuned(), compile=False)
    logits = fast(noise(*ODD))
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert torch.equal(other(noise(*ODD)), logits)
    fast.load_state_dict({name: value * 1.5 for name, value in fast.state_dict().items()})
    assert relative_error(fast(noise(*ODD)), logits) > 0.1


COMPILED = {
    "preact": dict(attn_act="spatial", attn_residual=False, pool_mode="ceil"),
    "postact": dict(unit_type="postact", groups=4, bottle_ratio=0.5, attn_act="channel", double_skip=True),
    "inception": dict(unit_type="inception", stem_type="imagenet"),
}


@pytest.mark.slow
@pytest.mark.parametrize("options", COMPILED.values(), ids=COMPILED)
def test_compiled_network_is_the_network(options):
    model = fine_tuned(**options)
    fast = optimize_for_inference(model)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("error", message="Could not compile")
        for batch in (3, 2, 4):
            x = noise(batch, 3, 45, 37)
            assert relative_error(fast(x), model(x)) < 1e-4
            assert relative_error(fast(x.contiguous(memory_format=torch.channels_last)), model(x)) < 1e-4
    assert set(fast.programs) == {(3, 3, 45, 37), (45, 37)}


@pytest.mark.slow
def test_compiled_network_in_bfloat16():
    model = fine_tuned()
    fast = optimize_for_inference(model, torch.bfloat16)
    with torch.no_grad():
        assert relative_error(fast(noise(*ODD)).float(), model(noise(*ODD))) < 5e-2


def test_compiles_twice_an_image_size_and_once_for_single_noise(monkeypatch):
    compiled = []

    def compiler(model, x, any_batch):
        compiled.append((tuple(x.shape), any_batch))
        return model

    monkeypatch.setattr("timm_resattn.optimize._compile_for_cpu", compiler)
    fast = optimize_for_inference(tiny())
    for batch in (2, 2, 3, 4, 2, 5, 1, 1):
        fast(noise(batch, 3, 32, 32))
    fast(noise(4, 3, 40, 32))
    expected = [((2, 3, 32, 32), False), ((3, 3, 32, 32), True), ((1, 3, 32, 32), False), ((4, 3, 40, 32), False)]
    assert compiled == expected


def test_compiled_network_follows_its_weights(monkeypatch):
    """Loaded by itself, within another module, and in another type."""
    monkeypatch.setattr("timm_resattn.optimize._compile_for_cpu", lambda model, *_: copy.deepcopy(model))
    fast = optimize_for_inference(fine_tuned())
    outer = nn.Sequential(fast, nn.Identity())
    for module, factor in ((fast, 1.5), (outer, 0.5)):
        logits = module(noise(*ODD))
        module.load_state_dict({name: value * factor for name, value in module.state_dict().items()})
        assert relative_error(module(noise(*ODD)), logits) > 0.1
        assert torch.equal(fast(noise(*ODD)), fast.model(noise(*ODD)))
    assert fast.double()(noise(*ODD)).dtype == torch.float64


def test_a_gpus_compiler_takes_any_number_of_sizes(monkeypatch):
    """torch.compile alone stops after eight of one network."""
    compile = torch.compile
    monkeypatch.setattr("timm_resattn.optimize._compile_for_cpu", _compile_for_gpu)
    monkeypatch.setattr("torch.compile", lambda model, fullgraph, dynamic, **_: compile(
        model, fullgraph=fullgraph, dynamic=dynamic, backend="eager"
    ))  # fmt: skip
    torch.compiler.reset()
    fast = optimize_for_inference(tiny(depths=(1, 0)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for size in (*range(20, 30), 20):
            fast(noise(1, 3, size, 24))
        with torch.inference_mode():  # compiles once more
            fast(noise(1, 3, 20, 24))
    torch.compiler.reset()
    assert len(fast.programs) == 10


@pytest.mark.parametrize("features_only", [False, True])
def test_a_gpus_results_outlive_the_next_call(monkeypatch, features_only):
    """CUDA graphs write each call's results over those of the call before."""

    def torch_compile(model, **_):
        memory = model(torch.zeros(ODD))
        tensors = memory if features_only else [memory]

        def program(x):
            found = model(x)
            for tensor, value in zip(tensors, found if features_only else [found], strict=True):
                tensor.copy_(value)
            return memory

        return program

    monkeypatch.setattr("torch.compile", torch_compile)
    model = timm.create_model("resattn56_cifar", features_only=features_only).eval().requires_grad_(False)
    program = _compile_for_gpu(model, noise(*ODD), any_batch=False)
    x = noise(*ODD)
    first, second = program(x), program(x + 1)
    if not features_only:
        first, second = [first], [second]
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def check_fallback(fast: nn.Module, model: nn.Module) -> None:
    """One warning at the first call, the network's logits at each."""
    with torch.no_grad():
        expected = model(noise(*ODD))
    with pytest.warns(UserWarning, match="Could not compile for .*, running it without"):
        assert relative_error(fast(noise(*ODD)), expected) < 1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert relative_error(fast(noise(*ODD)), expected) < 1e-5


@pytest.mark.slow
def test_without_a_compiler_one_warning_and_the_same_logits():
    model = fine_tuned()
    fast = optimize_for_inference(model)
    with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
        check_fallback(fast, model)


def test_a_failure_is_of_one_image_size(monkeypatch):
    """What fails for one size is compiled for the next."""

    def compiler(model, x, any_batch):
        if x.shape[-1] == ODD[-1]:
            raise OSError("no compiler")
        return lambda x: model(x) + 1

    monkeypatch.setattr("timm_resattn.optimize._compile_for_cpu", compiler)
    model = fine_tuned()
    fast = optimize_for_inference(model)
    check_fallback(fast, model)
    x = noise(2, 3, 32, 32)
    assert relative_error(fast(x), model(x) + 1) < 1e-5


@pytest.mark.parametrize("compile", [True, False])
def test_too_small_an_image_says_so(compile):
    fast = optimize_for_inference(tiny(mask_pools=(3, 2)), compile=compile)
    with pytest.raises(ValueError, match="Input image too small"):
        fast(noise(2, 3, 4, 4))


@pytest.mark.parametrize("what", ["resattn56", nn.Identity(), optimize_for_inference(tiny(), compile=False)])
def test_what_is_no_network_is_refused(what):
    with pytest.raises(TypeError, match=f"must be a network from timm.create_model; got {type(what).__name__}"):
        optimize_for_inference(what)


def test_optimised_network_refuses_training():
    fast = optimize_for_inference(tiny(), compile=False)
    assert not fast.training
    with pytest.raises(RuntimeError, match="train the model it was made from"):
        fast.train()


GROWTH = """
import torch
from timm_resattn import retain_freed_memory
def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) // 1024
def growth():
    before = resident(); torch.ones(50, 1024, 1024); return resident() - before
"""


@pytest.mark.parametrize("launcher", [(), ("-m", "timm_resattn", "run")], ids=["called", "by timm-resattn"])
def test_freed_memory_is_retained(tmp_path, launcher):
    """The resident size stays up after a large tensor is freed; in a process of its own, as the setting lasts."""
    if not sys.platform.startswith("linux"):
        pytest.skip("Linux only")
    (tmp_path / "script.py").write_text(GROWTH + "print(growth(), retain_freed_memory(), growth())")
    command = [sys.executable, *launcher, "script.py"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    before, took_effect, after = process.stdout.split()
    if took_effect == "False":
        pytest.skip("this C library has no mallopt")
    assert int(before) > 150 if launcher else int(before) < 100 and int(after) > 150


def test_retaining_memory_elsewhere_does_nothing(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert retain_freed_memory() is False
