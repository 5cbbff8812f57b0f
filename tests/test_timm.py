"""At home in timm: what its own test file (test_timm_suite.py) does not ask."""

import copy

import pytest
import timm
import torch
from helpers import TINY_ARGS, live_in, relative_error, tiny
from packaging.version import parse
from timm.layers import convert_sync_batchnorm, freeze_batch_norm_2d
from timm.models import load_state_dict
from timm.optim import param_groups_layer_decay

UNIT_TYPES = {
    "preact": dict(),
    "postact": dict(unit_type="postact", groups=4, bottle_ratio=0.5),
    "inception": dict(unit_type="inception", bottle_ratio=0.25),
    "dskip": dict(double_skip=True),
    "bare": dict(mask_type="none"),
    "local": dict(mask_type="local_conv"),
}
FEATURE_CLASSES = (None, "dict", "hook", "getter", "fx")


@pytest.fixture(params=UNIT_TYPES, name="unit_args")
def _unit_args(request):
    return UNIT_TYPES[request.param]


def _features(feature_cls, **kwargs):
    if feature_cls is not None:
        kwargs["feature_cls"] = feature_cls
    return timm.create_model("resattn56_cifar", features_only=True, **{**TINY_ARGS, **kwargs}).eval()


@pytest.mark.parametrize("out_indices", [None, (0, 2), (-1,), (-2, -1), (1,)])
def test_feature_extractors_agree(unit_args, out_indices):
    torch.manual_seed(1)
    model = tiny(**unit_args).eval()
    x = torch.randn(2, 3, 21, 18)
    indices = [0, 1, 2] if out_indices is None else [i % 3 for i in out_indices]
    expected = model.forward_intermediates(x, intermediates_only=True, indices=indices)
    kwargs = dict(unit_args) if out_indices is None else dict(unit_args, out_indices=out_indices)
    for feature_cls in FEATURE_CLASSES:
        torch.manual_seed(1)  # the same initial weights
        backbone = _features(feature_cls, **kwargs)
        maps = backbone(x)
        maps = list(maps.values()) if isinstance(maps, dict) else maps
        assert len(maps) == len(expected)
        for fmap, like in zip(maps, expected, strict=True):
            assert torch.allclose(fmap, like, atol=1e-5)
        assert backbone.feature_info.channels() == [m.shape[1] for m in expected]
        assert backbone.feature_info.reduction() == [[1, 1, 2][i] for i in indices]


@pytest.mark.parametrize(
    "name", ["resattn50", "resattn101_postact", "resattn56", "resattnext56_32x4d", "resattn92_dskip"]
)
def test_backbone_reductions(name):
    backbone = timm.create_model(name, features_only=True, device="meta")
    assert backbone.feature_info.reduction() == [2, 4, 8, 16, 32]
    assert backbone.feature_info.channels() == [64, 256, 512, 1024, 2048]
    maps = backbone(torch.empty(1, 3, 224, 160, device="meta"))
    assert [tuple(m.shape[-2:]) for m in maps] == [(224 // r, 160 // r) for r in (2, 4, 8, 16, 32)]


def test_forward_intermediates_returns_forward_features(unit_args):
    model = tiny(**unit_args).eval()
    x = torch.randn(2, 3, 16, 16)
    features, maps = model.forward_intermediates(x)
    assert torch.equal(features, model.forward_features(x))
    assert [m.shape[1] for m in maps] == [8, 16, 32]
    normed = model.forward_intermediates(x, norm=True, intermediates_only=True)[-1]
    assert torch.equal(normed, features)


@pytest.mark.parametrize("last", [0, 1, 2])
def test_pruning_leaves_no_unused_parameter(unit_args, last):
    model = tiny(**unit_args)
    model.prune_intermediate_layers([last], prune_norm=True)
    model.forward_intermediates(torch.randn(2, 3, 16, 16), indices=[last], intermediates_only=True)[0].sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_classifier_after_pruning():
    model = tiny()
    model.prune_intermediate_layers([1])
    model.reset_classifier(3, "avg")
    assert model(torch.randn(2, 3, 16, 16)).shape == (2, 3)


def test_reset_classifier():
    model = tiny()
    x = torch.randn(2, 3, 16, 16)
    model.reset_classifier(7, "catavgmax")
    assert model.num_classes == 7 and model.head_hidden_size == 64 and model(x).shape == (2, 7)
    model.reset_classifier(0)
    assert model(x).shape == (2, 64)
    model.reset_classifier(0, "")
    assert model(x).shape == (2, 32, 8, 8)
    model.reset_classifier(3)  # timm's tests ask that this builds
    assert model.forward_head(model.forward_features(x), pre_logits=True).shape == (2, 32, 8, 8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_reaches_every_parameter(unit_args, dtype):
    for mask_args in (dict(), dict(mask_type="local_conv", double_skip=False)):
        model = tiny(**{**unit_args, **mask_args}, dtype=dtype).eval()
        assert {t.dtype for t in model.state_dict().values() if t.is_floating_point()} == {dtype}
        assert model(torch.randn(1, 3, 16, 16, dtype=dtype)).dtype == dtype
        model.reset_classifier(3)
        assert model.get_classifier().weight.dtype == dtype


def test_meta_device_reaches_every_tensor(unit_args):
    for mask_args in (dict(), dict(mask_type="local_conv", double_skip=False)):
        assert all(t.is_meta for t in tiny(**{**unit_args, **mask_args}, device="meta").state_dict().values())


def test_meta_model_comes_to_life(unit_args):
    model = tiny(**unit_args, device="meta").to_empty(device="cpu")
    for tensor in model.state_dict().values():
        tensor.fill_(77)
    twin = tiny(**unit_args)
    for net in (model, twin):
        torch.manual_seed(1)
        net.init_weights()
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), twin.state_dict().values(), strict=True))


def test_gradient_checkpointing_changes_nothing_but_memory(unit_args):
    model = tiny(**unit_args).train()
    twin = copy.deepcopy(model)
    twin.set_grad_checkpointing()
    x = torch.randn(4, 3, 16, 16)
    for net in (model, twin):
        net(x).square().sum().backward()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, rtol=1e-4, atol=1e-5)
    for (name, a), b in zip(model.named_buffers(), twin.buffers(), strict=True):
        assert torch.equal(a, b), f"{name}: recomputing must not count a batch twice"
    assert all(norm.momentum == 0.1 for norm in twin.modules() if isinstance(norm, torch.nn.BatchNorm2d))
    twin.set_grad_checkpointing(False)
    assert not any(getattr(module, "grad_checkpointing", False) for module in twin.modules())


def test_layer_decay_groups_follow_the_depth():
    model = timm.create_model("resattn92", device="meta")
    groups = param_groups_layer_decay(model, weight_decay=0.05, layer_decay=0.9)
    scales = {}
    names = {id(p): n for n, p in model.named_parameters()}
    for group in groups:
        for p in group["params"]:
            scales[names[id(p)]] = group["lr_scale"]
    # stem, 4 + (1 + 2 + 3) + 2 blocks, then final norm with the head: 14 depths
    assert len({round(s, 9) for s in scales.values()}) == 14
    assert scales["head.fc.weight"] == 1.0
    blocks = [
        scales[f"stages.{s}.blocks.{b}.{u}conv1.weight"] for s, b, u in ((0, 0, ""), (0, 1, "pre.0."), (3, 2, ""))
    ]
    assert scales["stem.conv.weight"] < blocks[0] < blocks[1] < blocks[2] < 1.0
    module = {n: s for n, s in scales.items() if n.startswith("stages.2.blocks.3.")}
    assert len({s for n, s in module.items() if ".mask." not in n}) == 1  # a module's trunk is one layer
    assert {s for n, s in scales.items() if ".mask." in n} == {1.0}  # masks may be fresh, as the head
    decayed = {names[id(p)] for group in groups if group["weight_decay"] > 0 for p in group["params"]}
    assert decayed == {n for n, p in model.named_parameters() if p.ndim > 1}


def test_sync_batch_norm_and_freezing(unit_args):
    model = live_in(tiny(**unit_args))
    x = torch.randn(2, 3, 16, 16)
    expected = model(x)
    count = sum(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
    synced = convert_sync_batchnorm(copy.deepcopy(model))
    assert sum(isinstance(m, torch.nn.SyncBatchNorm) for m in synced.modules()) == count
    assert synced.state_dict().keys() == model.state_dict().keys()
    frozen = freeze_batch_norm_2d(copy.deepcopy(model)).train()
    assert torch.allclose(frozen(x), expected, atol=1e-5)


def test_torchscript(unit_args):
    model = live_in(tiny(**unit_args))
    scripted = torch.jit.script(model)
    for size in ((16, 16), (21, 18)):
        x = torch.randn(2, 3, *size)
        assert torch.allclose(scripted(x), model(x), atol=1e-5)


@pytest.mark.filterwarnings("error::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_trace_without_warnings():
    model = live_in(tiny())
    x = torch.randn(2, 3, 16, 16)
    assert torch.allclose(torch.jit.trace(model, x)(x), model(x), atol=1e-5)


def test_fx(unit_args):
    model = live_in(tiny(**unit_args))
    traced = torch.fx.symbolic_trace(model)
    for size in ((16, 16), (21, 18)):
        x = torch.randn(2, 3, *size)
        assert torch.equal(traced(x), model(x))


COMPILED = {**UNIT_TYPES, "channel": dict(attn_act="channel"), "spatial": dict(attn_act="spatial", attn_residual=False)}


@pytest.mark.parametrize("options", COMPILED)
def test_compile_without_graph_break(options):
    torch._dynamo.reset()
    model = tiny(**COMPILED[options]).eval()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for size in ((16, 16), (21, 18)):  # the second size makes it dynamic
        x = torch.randn(2, 3, *size)
        assert torch.allclose(compiled(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_training_step(checkpointing):
    torch._dynamo.reset()
    model = tiny().train()
    twin = copy.deepcopy(model)
    twin.set_grad_checkpointing(checkpointing)
    x = torch.randn(4, 3, 16, 16)
    for net in (model, torch.compile(twin, backend="aot_eager", fullgraph=True)):
        net(x).square().sum().backward()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, rtol=1e-3, atol=1e-4 * p.grad.abs().max().item() + 1e-6)
    if checkpointing and parse(torch.__version__) < parse("2.14"):
        return  # torch 2.5 counts a recomputed batch twice in compiled code, 2.14 does not
    for (name, a), b in zip(model.named_buffers(), twin.buffers(), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6), name


def test_export_with_dynamic_shapes(unit_args):
    model = live_in(tiny(**unit_args))
    batch, height, width = (torch.export.Dim(n, min=lo, max=256) for n, lo in (("b", 2), ("h", 8), ("w", 8)))
    shapes = ({0: batch, 2: height, 3: width},)
    try:
        exported = torch.export.export(model, (torch.randn(3, 3, 24, 32),), dynamic_shapes=shapes)
    except torch._dynamo.exc.UserError as error:
        if parse(torch.__version__) >= parse("2.14") or "Ne(Mod(" not in str(error):
            raise
        pytest.skip(f"torch {torch.__version__} exports even and odd sizes of an interpolated map apart")
    for shape in ((2, 3, 17, 40), (4, 3, 32, 9)):
        x = torch.randn(shape)
        assert relative_error(exported.module()(x), model(x)) < 1e-5


def test_save_for_hf_round_trip(tmp_path):
    model = timm.create_model("resattn56_cifar", attn_act="spatial", num_classes=7, mask_type="local_conv").eval()
    live_in(model)
    timm.models.save_for_hf(
        model,
        str(tmp_path),
        model_args=dict(attn_act="spatial", mask_type="local_conv"),
        safe_serialization=True,
    )
    assert (tmp_path / "model.safetensors").is_file()
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(again(x), model(x))


def test_checkpoint_of_train_py_loads(tmp_path):
    """train.py: weights under "state_dict", the EMA preferred, with the prefix of DistributedDataParallel."""
    model, ema = live_in(tiny(), 1), live_in(tiny(), 2)
    path = tmp_path / "model_best.pth.tar"
    torch.save(
        {
            "epoch": 3,
            "arch": "resattn56_cifar",
            "state_dict": {f"module.{k}": v for k, v in model.state_dict().items()},
            "state_dict_ema": ema.state_dict(),
        },
        path,
    )
    assert load_state_dict(str(path)).keys() == model.state_dict().keys()
    x = torch.randn(2, 3, 16, 16)
    for kwargs in (
        dict(checkpoint_path=str(path)),
        dict(pretrained=True, pretrained_cfg_overlay=dict(file=str(path), num_classes=5)),
    ):
        loaded = timm.create_model("resattn56_cifar", **TINY_ARGS, **kwargs).eval()
        assert torch.equal(loaded(x), ema(x))


def test_other_channels_and_classes():
    model = timm.create_model("resattn56_cifar", in_chans=1, num_classes=0).eval()
    assert model(torch.randn(1, 1, 32, 32)).shape == (1, 256)


def test_data_configuration():
    config = timm.data.resolve_model_data_config(timm.create_model("resattn92_cifar", device="meta"))
    assert config["input_size"] == (3, 32, 32) and config["crop_pct"] == 1.0
    config = timm.data.resolve_model_data_config(timm.create_model("resattn_inception56", device="meta"))
    assert config["input_size"] == (3, 299, 299)
