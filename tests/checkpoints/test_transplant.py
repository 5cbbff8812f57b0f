"""Trunk transplant: the filled network computes the donor's function, and trains from there."""

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from donors import CIFAR, POSTACT, PREACT, cifar_resnetv2, small_resnetv2, small_resnext
from helpers import images, lived_in
from timm.models import load_pretrained

from timm_resattn import ResAttn
from timm_resattn.checkpoints.transplant import donor_kind, transplant_trunk


@pytest.fixture(scope="module")
def preact_donor():
    return small_resnetv2()


@pytest.fixture(scope="module")
def postact_donor():
    return small_resnext()


@pytest.fixture(scope="module")
def cifar_donor():
    return cifar_resnetv2()


def transplanted(donor, **model_args):
    torch.manual_seed(4)
    model = ResAttn(**model_args)
    model.load_state_dict(transplant_trunk(donor.state_dict(), model))
    return model.eval()


@torch.no_grad()
def error(model, donor, size, **kwargs):
    """Largest difference of the logits by the donor's largest logit."""
    x = images(size, **kwargs).to(next(donor.parameters()).dtype)
    wanted = donor(x)
    assert wanted.std(0).max() > 1e-3 * wanted.abs().max()  # the donor tells images apart
    return ((model(x) - wanted).abs().max() / wanted.abs().max()).item()


def check(model, donor, sizes=(64, 97)):
    """Equal in single precision, and in double precision so that nothing hides behind rounding."""
    for size in sizes:
        assert error(model, donor, size) < 1e-5
    donor = copy.deepcopy(donor).double()
    model = copy.deepcopy(model).double()
    model.load_state_dict(transplant_trunk(donor.state_dict(), model))
    for size in sizes:
        assert error(model, donor, size) < 1e-10


# --- the donor's function -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model_args",
    [
        dict(),
        dict(depths=(1, 2, 3, 1), mask_pools=(3, 2, 1, 1)),
        dict(attn_residual=False),
        dict(attn_residual=False, depths=(2, 3, 3, 0)),
        dict(attn_act="channel", depths=(2, 1, 1, 0)),
        dict(attn_act="spatial"),
        dict(attn_act="spatial", attn_residual=False),
        dict(pre_units=0, trunk_units=1, depths=(2, 2, 1, 0)),
        dict(pre_units=2, trunk_units=3, mask_units=2, mask_up_units=2),
        dict(double_skip=True),
        dict(mask_type="local_conv"),
        dict(mask_type="local_conv", attn_act="channel"),
        dict(mask_type="none", depths=(1, 2, 1, 0)),
        dict(depths=(0, 0, 1, 0), closing_units=(1, 3, 0, 1), mask_pools=(0, 0, 1, 0)),
        dict(drop_path_rate=0.1, drop_rate=0.1),
        dict(global_pool="fast"),
    ],
    ids=str,
)
def test_preact_logits_equal_the_donors(preact_donor, model_args):
    check(transplanted(preact_donor, **{**PREACT, **model_args}), preact_donor)


@pytest.mark.parametrize(
    "model_args",
    [
        dict(),
        dict(attn_residual=False),
        dict(attn_act="channel"),
        dict(attn_act="spatial"),
        dict(pre_units=0, trunk_units=1, depths=(2, 2, 1, 1)),
        dict(double_skip=True),
        dict(mask_type="local_conv"),
        dict(mask_type="none"),
        dict(depths=(0, 0, 0, 0), closing_units=(1, 2, 5, 1)),
    ],
    ids=str,
)
def test_postact_logits_equal_the_donors(postact_donor, model_args):
    check(transplanted(postact_donor, **{**POSTACT, **model_args}), postact_donor)


@pytest.mark.parametrize(
    "model_args",
    [
        dict(),
        dict(depths=(2, 2, 2)),
        dict(attn_residual=False),
        dict(attn_act="channel"),
        dict(pool_mode="ceil"),
        dict(trunk_units=4, pre_units=2, mask_units=3),
    ],
    ids=str,
)
def test_cifar_logits_equal_the_donors(cifar_donor, model_args):
    check(transplanted(cifar_donor, **{**CIFAR, **model_args}), cifar_donor, sizes=(32, 45))


def test_plain_resnet_donor():
    donor = small_resnext(cardinality=1, base_width=64)
    model_args = dict(POSTACT, groups=1, bottle_ratio=0.25)
    check(transplanted(donor, **model_args), donor, sizes=(96,))


def test_first_units_without_projection_carry_the_stems_shift_on():
    donor = small_resnetv2(stem_chs=32)
    donor.stages[0].blocks[0].downsample = None  # timm's always project
    check(transplanted(donor, **dict(PREACT, stem_chs=32)), donor)
    donor = small_resnext(channels=(16, 32, 64, 128))
    assert donor.layer1[0].downsample is None
    check(transplanted(donor, **dict(POSTACT, widths=(64, 128, 256, 512))), donor)


def test_output_stride():
    donor = small_resnetv2(output_stride=8)
    check(transplanted(donor, **PREACT, output_stride=8), donor, sizes=(96,))


def test_unused_channels():
    donor = copy.deepcopy(small_resnetv2())
    with torch.no_grad():  # maps of zeros throughout: every variance of the stream near or below epsilon
        donor.stem.conv.weight[:4] = 0.0
        for stage in donor.stages:
            for block in stage.blocks:
                block.conv3.weight[:8] *= 1e-4
                if block.downsample is not None:
                    block.downsample.conv.weight[:8] *= 1e-4
    donor = lived_in(donor)
    assert donor.stages[1].blocks[1].norm1.running_var.min() < 1e-5
    for attn_residual in (True, False):
        check(transplanted(donor, **PREACT, attn_residual=attn_residual), donor)


def test_maps_are_the_donors_by_the_modules_factor(preact_donor, postact_donor):
    x = images(96)
    with torch.no_grad():
        wanted = preact_donor.forward_intermediates(x, intermediates_only=True)
        model = transplanted(preact_donor, **dict(PREACT, depths=(1, 2, 3, 0)))
        maps = model.forward_intermediates(x, intermediates_only=True)
        for k, ours, theirs in zip((1, 2, 3, 0), maps[1:], wanted[1:], strict=True):
            torch.testing.assert_close(ours, 1.5**k * theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item())
        difference = maps[0] - wanted[0]  # the stem's is shifted, by a constant per channel
        assert (difference.amax((0, 2, 3)) - difference.amin((0, 2, 3))).max() < 1e-4
        torch.testing.assert_close(model.forward_features(x), preact_donor.forward_features(x), rtol=1e-4, atol=1e-4)
        model = transplanted(postact_donor, **POSTACT, attn_residual=False)
        maps = model.forward_intermediates(x, intermediates_only=True)
        wanted = postact_donor.forward_intermediates(x, intermediates_only=True)
        for k, ours, theirs in zip((0, 1, 2, 1, 1), maps, wanted, strict=True):
            torch.testing.assert_close(ours, 0.5**k * theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item())


@pytest.mark.parametrize(
    ("attn_act", "attn_residual", "factor"),
    [("mixed", True, 1.5), ("mixed", False, 0.5), ("spatial", True, 1.5), ("channel", True, 1 + 64**-0.5)],
)
def test_masks_are_constant(preact_donor, attn_act, attn_residual, factor):
    model = transplanted(preact_donor, **PREACT, attn_act=attn_act, attn_residual=attn_residual)
    masks = []
    model.stages[1].blocks[1].mask.register_forward_hook(lambda module, args, mask: masks.append(mask))
    with torch.no_grad():
        model(images(96))
        model(torch.zeros(1, 3, 64, 64))
    for mask in masks:
        torch.testing.assert_close(mask, torch.full_like(mask, factor - attn_residual), rtol=1e-5, atol=0)


def test_units_left_over_are_the_identity(preact_donor, postact_donor):
    for donor, model_args in ((preact_donor, PREACT), (postact_donor, POSTACT)):
        block = transplanted(donor, **model_args).stages[1].blocks[1]
        units = [*block.trunk, *block.post]
        x = torch.rand(2, model_args["widths"][1], 8, 8)
        for unit in units[1:]:
            assert torch.equal(unit(x), x)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("donor_name", "name"),
    [
        ("resnetv2_50", "resattn92"),
        ("resnetv2_50", "resattn128"),
        ("resnetv2_50", "resattn164"),
        ("resnetv2_101", "resattn200"),
        ("resnetv2_101", "resattn236"),
        ("resnext50_32x4d", "resattnext92_32x4d"),
    ],
)
def test_imagenet_pairs(donor_name, name):
    torch.manual_seed(5)
    donor = lived_in(timm.create_model(donor_name), size=96, batch=4)
    model = timm.create_model(name).eval()
    model.load_state_dict(transplant_trunk(donor.state_dict(), model))
    for size in (224, 161):
        assert error(model, donor, size, batch=2, seed=7) < 1e-4


# --- what comes back ----------------------------------------------------------------------------------------


def test_result_is_complete_and_nothing_is_modified(preact_donor):
    donor = preact_donor.state_dict()
    donor_before = copy.deepcopy(donor)
    model = ResAttn(**PREACT)
    model_before = copy.deepcopy(model.state_dict())
    new = transplant_trunk(donor, model)
    for state_dict, before in ((donor, donor_before), (model.state_dict(), model_before)):
        assert list(state_dict) == list(before)
        assert all(torch.equal(state_dict[name], before[name]) for name in before)
    assert list(new) == list(model.state_dict())
    own = {name for name in new if torch.equal(new[name], model_before[name])}
    assert own.issuperset(name for name in new if ".mask.pyramid." in name)
    with torch.no_grad():  # and the result is the caller's: masks don't follow the model
        model.stages[0].blocks[1].mask.tail.conv1.weight.zero_()
    assert new["stages.0.blocks.1.mask.tail.conv1.weight"].abs().max() > 0


def test_donors_types_are_kept(preact_donor):
    donor = {name: t.bfloat16() if t.is_floating_point() else t for name, t in preact_donor.state_dict().items()}
    model = ResAttn(**PREACT)
    new = transplant_trunk(donor, model)
    assert new["stages.0.blocks.1.pre.0.norm1.weight"].dtype == torch.bfloat16
    assert new["stem.norm.bias"].dtype == torch.bfloat16
    assert new["stages.0.blocks.1.mask.tail.conv2.weight"].dtype == torch.float32
    model.load_state_dict(new)


def test_old_donors_have_no_batch_counters(preact_donor):
    donor = {k: v for k, v in preact_donor.state_dict().items() if not k.endswith("num_batches_tracked")}
    model = ResAttn(**PREACT).eval()
    model.load_state_dict(transplant_trunk(donor, model))
    assert error(model, preact_donor, 96) < 1e-5


@pytest.mark.parametrize("kind", ["preact", "postact"])
def test_timm_adapts_input_and_classifier(kind, preact_donor, postact_donor):
    donor, model_args = (preact_donor, PREACT) if kind == "preact" else (postact_donor, POSTACT)
    donor_classifier, donor_stem = ("head.fc", "stem.conv") if kind == "preact" else ("fc", "conv1")
    cfg = dict(num_classes=10, input_size=(3, 96, 96), state_dict=donor.state_dict())
    model = ResAttn(**dict(model_args, num_classes=7, in_chans=1)).eval()
    fresh = copy.deepcopy(model.head.fc.weight)
    load_pretrained(
        model,
        dict(cfg, classifier="head.fc", first_conv="stem.conv"),
        num_classes=7,
        in_chans=1,
        filter_fn=transplant_trunk,
    )
    assert torch.equal(model.head.fc.weight, fresh)

    grey = (small_resnetv2(in_chans=1) if kind == "preact" else small_resnext(in_chans=1)).eval()
    load_pretrained(grey, dict(cfg, classifier=donor_classifier, first_conv=donor_stem), num_classes=10, in_chans=1)
    x = images(96, in_chans=1)
    with torch.no_grad():
        scale = 1.0 if kind == "preact" else 1.5  # no norm takes the last module's factor back
        wanted = scale * grey.forward_features(x)
        torch.testing.assert_close(model.forward_features(x), wanted, rtol=1e-4, atol=1e-5 * wanted.abs().max().item())


def test_no_classifier(preact_donor):
    model = ResAttn(**dict(PREACT, num_classes=0)).eval()
    new = transplant_trunk(preact_donor.state_dict(), model)
    model.load_state_dict(new)  # strict: the donor's classifier is left out
    backbone = {k: v for k, v in preact_donor.state_dict().items() if not k.startswith("head.")}
    assert transplant_trunk(backbone, model).keys() == new.keys()
    # a classifier that the donor lacks is not the model's own, random one
    assert not {"head.fc.weight", "head.fc.bias"} & transplant_trunk(backbone, ResAttn(**PREACT)).keys()
    x = images(96)
    with torch.no_grad():
        wanted = preact_donor.forward_head(preact_donor.forward_features(x), pre_logits=True)
        torch.testing.assert_close(model(x), wanted, rtol=1e-4, atol=1e-5)


def test_donor_kind(preact_donor, postact_donor):
    assert donor_kind(preact_donor.state_dict()) == "resnetv2"
    assert donor_kind(postact_donor.state_dict()) == "resnet"
    for other in (
        ResAttn(**PREACT),
        ResAttn(**POSTACT),
        ResAttn(**CIFAR),
        timm.create_model("convnext_atto"),
    ):
        assert donor_kind(other.state_dict()) is None
    assert donor_kind({}) is None


# --- training -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "model_args"),
    [
        ("preact", dict(depths=(1, 2, 1, 0))),
        ("preact", dict(attn_residual=False)),
        ("preact", dict(attn_act="channel")),
        ("preact", dict(attn_act="spatial")),
        ("preact", dict(mask_type="local_conv")),
        ("preact", dict(double_skip=True)),
        ("postact", dict()),
        ("postact", dict(attn_act="channel")),
    ],
)
def test_training_starts_at_the_donor_and_reaches_everything(kind, model_args, preact_donor, postact_donor):
    donor, base_args = (preact_donor, PREACT) if kind == "preact" else (postact_donor, POSTACT)
    model = transplanted(donor, **{**base_args, **model_args}).train()
    donor = copy.deepcopy(donor).train()
    x, target = images(96, batch=8), torch.arange(8)

    def loss_of(network):
        return F.cross_entropy(network(x), target)

    def reached(named_parameters):
        grads = {name: param.grad for name, param in named_parameters}
        assert all(torch.isfinite(grad).all() for grad in grads.values())
        largest = max(grad.abs().max() for grad in grads.values())
        return {name for name, grad in grads.items() if grad.abs().max() > 1e-5 * largest}

    donor_loss, loss = loss_of(donor), loss_of(model)
    torch.testing.assert_close(loss, donor_loss, rtol=1e-5, atol=0)
    loss.backward()
    assert max(param.grad.abs().max() for param in model.parameters()) < 1e4
    masks = [(name, param) for name, param in model.named_parameters() if ".mask." in name]
    assert reached(masks) == {name for name, _ in masks if name.endswith("tail.conv2.weight")}

    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    optimizer.step()
    optimizer.zero_grad()
    second_loss = loss_of(model)
    second_loss.backward()
    assert second_loss < 1.5 * loss
    for name, param in model.named_parameters():  # masks, units left over, stem, trunk
        assert torch.isfinite(param.grad).all(), name
        assert param.grad.abs().max() > 0, name


def test_statistics_stay_consistent_while_training(preact_donor):
    """Running statistics that follow a constant batch leave the function where the donor's would be."""
    model = transplanted(preact_donor, **dict(PREACT, depths=(1, 2, 1, 0))).train()
    donor = copy.deepcopy(preact_donor).train()
    x = images(64, batch=4, seed=11)
    with torch.no_grad():
        for _ in range(40):
            model(x)
            donor(x)
    assert error(model.eval(), donor.eval(), 64, batch=4, seed=11) < 1e-2


# --- refusals -----------------------------------------------------------------------------------------------


def test_torchvisions_resnet():
    from torchvision.models import resnet50

    donor = lived_in(resnet50(num_classes=5), batch=4)
    model = timm.create_model("resattn50_postact", num_classes=5).eval()
    model.load_state_dict(transplant_trunk(donor.state_dict(), model))
    assert error(model, donor, 64) < 1e-4
