"""The networks on a ResNet's trunk: they hold their donor's units, all of them, and compute its function."""

import pytest
import timm
import torch
from donors import WIDTHS, WIDTHS_BY_4
from helpers import images, lived_in

import timm_resattn
from timm_resattn import AttentionModule, transplant_trunk

# name: donor, and what makes both narrow
RESNET = dict(channels=WIDTHS_BY_4, num_classes=10)
MEMBERS = {
    "resattn50": ("resnetv2_50", dict(channels=WIDTHS, stem_chs=16, num_classes=10), dict(stem_chs=16)),
    "resattn101": ("resnetv2_101", dict(channels=WIDTHS, stem_chs=16, num_classes=10), dict(stem_chs=16)),
    "resattn50_postact": ("resnet50", RESNET, {}),
    "resattn101_postact": ("resnet101", RESNET, {}),
    "resattnext50_32x4d": ("resnext50_32x4d", dict(RESNET, cardinality=4, base_width=32), dict(groups=4)),
    "resattnext101_32x4d": ("resnext101_32x4d", dict(RESNET, cardinality=4, base_width=32), dict(groups=4)),
    "resattnext101_32x8d": ("resnext101_32x8d", dict(RESNET, cardinality=4, base_width=64), dict(groups=4)),
}


def check(name, narrow, sizes):
    """In single and double precision, which leaves rounding little to hide; masks and all of the trunk are in use."""
    donor_name, donor_args, model_args = MEMBERS[name]
    torch.manual_seed(5)
    donor = lived_in(timm.create_model(donor_name, **(donor_args if narrow else {})), batch=4)
    model_args = dict(model_args, widths=WIDTHS, num_classes=10) if narrow else {}
    model = timm.create_model(name, **model_args).eval()
    for dtype, bound in ((torch.float32, 5e-5), (torch.float64, 1e-10)):
        donor, model = donor.to(dtype), model.to(dtype)
        model.load_state_dict(transplant_trunk(donor.state_dict(), model))
        for size in sizes:
            x = images(size).to(dtype)
            with torch.no_grad():
                logits, wanted = model(x), donor(x)
            assert wanted.std(0).max() > 1e-3 * wanted.abs().max()  # the donor tells images apart
            assert (logits - wanted).abs().max() < bound * wanted.abs().max()


@pytest.mark.parametrize("name", MEMBERS)
def test_narrow_networks_compute_their_donors_function(name):
    check(name, narrow=True, sizes=(64, 97))


@pytest.mark.slow
@pytest.mark.parametrize("name", MEMBERS)
def test_networks_compute_their_donors_function(name):
    check(name, narrow=False, sizes=(160, 224))


@pytest.mark.parametrize("name", MEMBERS)
def test_the_trunk_is_the_donors_unit_by_unit(name):
    """No unit is left over: without masks it has the donor's parameters, and a norm after a pre-activation stem."""
    bare = timm.create_model(name, mask_type="none", device="meta")
    donor = timm.create_model(MEMBERS[name][0])
    ours, theirs = (sum(p.numel() for p in m.parameters()) for m in (bare, donor))
    assert ours - theirs == (128 if MEMBERS[name][0].startswith("resnetv2") else 0)
    masks = [m.mask for m in timm.create_model(name, device="meta").modules() if isinstance(m, AttentionModule)]
    assert len(masks) == (4 if "50" in name else 5) and all(masks)


@pytest.mark.parametrize("name", MEMBERS)
def test_weights(name):
    """Tags and licences are the donor's; the default's allows commercial use."""
    tags = list(timm_resattn.resattn.default_cfgs[name].tags)
    assert timm.get_pretrained_cfg(name).tag == tags[0] and not tags[0].startswith("fb_")
    for tag in tags:
        cfg, donor = (timm.get_pretrained_cfg(f"{n}.{tag}") for n in (name, MEMBERS[name][0]))
        assert cfg.hf_hub_id == f"timm/{MEMBERS[name][0]}.{tag}"
        assert cfg.license == donor.license
        assert ("-nc-" in cfg.license) == tag.startswith("fb_")
