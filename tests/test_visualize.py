import contextlib

import pytest
import timm
import torch
from helpers import TINY_ARGS, live_in, noise, tiny

from timm_resattn import AttentionModule
from timm_resattn.visualize import (
    capture_masks,
    overlay,
    plot_attention,
    plot_masks,
    ranked_channel,
    record_attention,
    reduce_mask,
    save_figure,
)

NAMES = ["stages.0.blocks.1", "stages.1.blocks.1"]


def test_captured_mask_is_the_one_in_the_formula():
    model = tiny().eval()
    module = model.get_submodule(NAMES[0])
    features = {}
    module.pre.register_forward_hook(lambda m, args, output: features.update(x=output))
    module.register_forward_hook(lambda m, args, output: features.update(y=output))
    with capture_masks(model) as masks, torch.no_grad():
        model(torch.rand(2, 3, 16, 16))
        trunk = module.trunk(features["x"])
        expected = module.post((1 + masks[NAMES[0]]) * trunk)
    torch.testing.assert_close(features["y"], expected)
    assert list(masks) == NAMES
    assert [tuple(m.shape) for m in masks.values()] == [(2, 16, 16, 16), (2, 32, 8, 8)]
    assert not any(m.requires_grad for m in masks.values())


def test_capture_keeps_the_last_forward_pass_and_removes_its_hooks_after_an_error():
    model = tiny()
    with contextlib.suppress(KeyError), capture_masks(model) as masks:
        model(torch.rand(2, 3, 16, 16))
        model(torch.rand(3, 3, 32, 32))
        raise KeyError
    assert masks[NAMES[0]].shape == (3, 16, 32, 32)
    assert not any(m._forward_hooks for m in model.modules())
    model(torch.rand(2, 3, 16, 16))
    assert len(masks[NAMES[0]]) == 3


def test_capture_works_on_feature_extractors_and_local_convolutions():
    kwargs = dict(TINY_ARGS, features_only=True)
    del kwargs["num_classes"]
    extractor = timm.create_model("resattn56_cifar", **kwargs)
    with capture_masks(extractor) as masks:
        extractor(torch.rand(1, 3, 16, 16))
    assert [m.shape[1] for m in masks.values()] == [16, 32]
    model = tiny(mask_type="local_conv", depths=(2, 1))
    with capture_masks(model) as masks:
        model(torch.rand(1, 3, 16, 16))
    assert len(masks) == 3


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_capture_under_gradient_checkpointing(checkpointing, training):
    model = tiny().train(training)
    x = torch.rand(2, 3, 16, 16)
    with capture_masks(model) as wanted:
        model(x)
    model.set_grad_checkpointing(checkpointing)
    with capture_masks(model) as masks:
        model(x)
    assert list(masks) == NAMES
    assert all(torch.equal(masks[name], wanted[name]) for name in NAMES)


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="this torch compiles within the block too")
@pytest.mark.parametrize("in_place", [False, True])
def test_capture_after_compiling(in_place):
    torch.compiler.reset()
    model = tiny().eval()
    x = torch.rand(2, 3, 16, 16)
    if in_place:
        model.compile(backend="eager")
        network = model
    else:
        network = torch.compile(model, backend="eager")
    with torch.inference_mode():
        network(x)
        with capture_masks(model) as masks, capture_masks(network) as again:
            network(x)
        assert list(masks) == NAMES
        assert [name.removeprefix("_orig_mod.") for name in again] == NAMES
        assert torch._dynamo.eval_frame._stance.stance == "default"
        torch.compiler.reset()


def test_nothing_recorded_is_said():
    with pytest.raises(RuntimeError, match="No mask was recorded"), capture_masks(tiny()):
        pass


@pytest.mark.parametrize(
    ("make_model", "message"),
    [
        (lambda: tiny(mask_type="none"), "mask_type='none'"),
        (lambda: timm.create_model("resnet18"), "this ResNet has no AttentionModule"),
    ],
)
def test_capture_without_masks_says_why(make_model, message):
    with pytest.raises(ValueError, match=message), capture_masks(make_model()):
        pass


@pytest.mark.parametrize("options", [{}, dict(attn_residual=False), dict(mask_type="local_conv"), dict(pre_units=0)])
def test_a_record_is_what_the_forward_pass_computes(options):
    model = live_in(tiny(**options))
    x = noise(2, 3, 16, 16)
    record = record_attention(model, x)
    with capture_masks(model) as masks, torch.no_grad():
        logits = model(x)
    assert torch.equal(record.logits, logits) and torch.equal(record.classes, logits.argmax(1))
    assert list(record.masks) == list(masks) == NAMES
    for name, mask in masks.items():
        assert torch.equal(record.masks[name], mask)
        weight = mask if model.get_submodule(name).attn_residual is False else 1 + mask
        torch.testing.assert_close(record.products[name], weight * record.trunks[name])
    assert not any(t.requires_grad for d in (record.masks, record.gradients, record.effects) for t in d.values())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("frozen", [False, True])
def test_effects_are_derivatives_of_the_logit(frozen):
    """Against a difference of the logit when one value of a mask is changed."""
    model = live_in(tiny()).double().requires_grad_(not frozen)
    x, name, at = noise(1, 3, 16, 16).double(), NAMES[1], (0, 5, 2, 3)
    with torch.inference_mode():
        record = record_attention(model, x, torch.tensor([3]))

    def logit(step):
        def change(module, args, output):
            output = output.clone()
            output[at] += step
            return output

        handle = model.get_submodule(name).mask.register_forward_hook(change)
        with torch.no_grad():
            result = model(x)[0, 3].item()
        handle.remove()
        return result

    slope = (logit(1e-5) - logit(-1e-5)) / 2e-5
    assert record.gradients[name][at].item() == pytest.approx(slope, rel=1e-5)
    assert record.effects[name][at].item() == pytest.approx(slope * record.masks[name][at].item(), rel=1e-5)


def test_a_record_of_one_image_is_that_of_the_batch():
    model = live_in(tiny())
    x = noise(3, 3, 16, 16)
    together, alone = record_attention(model, x), record_attention(model, x[1:2])
    for name in NAMES:
        torch.testing.assert_close(together.effects[name][1:2], alone.effects[name], rtol=1e-4, atol=1e-7)


def test_a_record_refuses_training_mode_and_classes_that_are_not_there():
    with pytest.raises(ValueError, match="evaluation mode"):
        record_attention(tiny().train(), noise(1, 3, 16, 16))
    with pytest.raises(RuntimeError, match="out of bounds"):
        record_attention(tiny().eval(), noise(1, 3, 16, 16), torch.tensor([5]))


def test_reductions_follow_their_formulas():
    mask = torch.rand(2, 5, 4, 6)
    mask[0, 3] *= 9  # varies most
    mask[0, 1] *= 4
    mask[1, 2] *= 9
    mask[1, 4] *= 4
    for how, expected in {
        "mean": mask.mean(1),
        "varied": torch.stack([mask[0, 3], mask[1, 2]]),
        "varied:1": torch.stack([mask[0, 3], mask[1, 2]]),
        "varied:2": torch.stack([mask[0, 1], mask[1, 4]]),
        "channel:0": mask[:, 0],
        "channel:4": mask[:, 4],
    }.items():
        torch.testing.assert_close(reduce_mask(mask, how), expected, msg=how)
    assert ranked_channel(mask, "varied:2").tolist() == [1, 4]
    assert ranked_channel(mask, "channel:4").tolist() == [4, 4]
    assert ranked_channel(mask, "mean") is None


@pytest.mark.parametrize("how", ["mean", "varied", "varied:3", "channel:1", "pca"])
def test_no_reduction_depends_on_the_other_images(how):
    mask = torch.rand(3, 5, 4, 6) * torch.tensor([1.0, 5.0, 0.1]).view(3, 1, 1, 1)
    for index in range(3):
        torch.testing.assert_close(reduce_mask(mask, how)[index], reduce_mask(mask[index : index + 1], how)[0])


def test_principal_colors_tell_kinds_of_positions_apart():
    kinds = torch.randint(3, (1, 8, 8))
    mask = torch.rand(3, 64)[kinds].movedim(-1, 1)
    colors = reduce_mask(mask, "pca")
    assert colors.shape == (1, 8, 8, 3) and colors.min() >= 0 and colors.max() <= 1
    of_kind = [colors[kinds == kind] for kind in range(3)]
    assert all(c.std(0).max() < 1e-3 for c in of_kind)
    assert min((of_kind[a][0] - of_kind[b][0]).norm() for a, b in [(0, 1), (0, 2), (1, 2)]) > 0.2


@pytest.mark.parametrize("how", ["mean", "varied", "channel:1", "pca"])
def test_reductions_of_a_constant_mask_and_of_other_types_are_finite(how):
    assert reduce_mask(torch.full((1, 2, 3, 3), 0.5, dtype=torch.bfloat16), how).isfinite().all()


@pytest.mark.parametrize(
    "how", ["median", "varied:0", "varied:5", "channel:4", "channel:x", "channel", "mean:1", "", 3, None]
)
def test_unknown_reductions_are_refused(how):
    with pytest.raises(ValueError, match=r"must be (one of 'mean', 'varied'|[01] to [34] here)"):
        reduce_mask(torch.rand(1, 4, 3, 3), how)
    with pytest.raises(ValueError, match=r"\(B, C, h, w\)"):
        reduce_mask(torch.rand(4, 3, 3))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_reductions_refuse_what_is_not_finite(value):
    mask = torch.rand(1, 4, 3, 3)
    mask[0, 2, 1, 1] = value
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        reduce_mask(mask)


def test_overlay_blends_image_and_color():
    pytest.importorskip("matplotlib")
    image, heat = torch.rand(3, 16, 20), torch.rand(4, 5)
    torch.testing.assert_close(torch.from_numpy(overlay(image, heat, alpha=0)), image.movedim(0, 2))
    picture = overlay(image[:1], heat)
    assert picture.shape == (16, 20, 3) and picture.min() >= 0 and picture.max() <= 1
    colors = overlay(image, torch.tensor([0.0, 1.0]).view(1, 2, 1).expand(1, 2, 3), alpha=1)
    assert colors[0, 0, 0] == 0 and colors[0, -1, 0] == 1  # aligned corners


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (dict(image=torch.rand(2, 8, 8)), "an image must be of shape"),
        (dict(image=torch.randn(3, 8, 8) * 9), r"values in \[0, 1\]"),
    ],
)
def test_overlay_refuses(changed, message):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match=message):
        overlay(**{**dict(image=torch.rand(3, 8, 8), heat=torch.rand(4, 4)), **changed})


@pytest.mark.parametrize("images_along", ["rows", "columns"])
def test_plot_masks_draws_the_grid_and_saves_it(tmp_path, images_along):
    pytest.importorskip("matplotlib")
    from PIL import Image

    images = torch.rand(3, 3, 16, 16)
    masks = {"a": torch.rand(3, 4, 8, 8), "b": torch.rand(3, 6, 4, 4)}
    path = tmp_path / "grid.png"
    figure = plot_masks(
        images, masks, ["mean", "pca"], ["x", "y", "z"], "caption", path=path, images_along=images_along
    )
    assert len(figure.axes) == 3 * (1 + 2 * 2) + 1  # and a bar
    texts = [axes.get_title() + axes.get_ylabel() for axes in figure.axes]
    assert all(any(text in t for t in texts) for text in ("x", "z", "input", "a\n8x8, mean", "b\n4x4, pca"))
    assert [p.name for p in tmp_path.iterdir()] == ["grid.png"]
    with Image.open(path) as picture:
        width, height = picture.size
    assert (width > height) == (images_along == "rows")


def panels(figure):
    return [axes.images[0].get_array() for axes in figure.axes if axes.images]


def test_a_panel_does_not_depend_on_the_other_images_and_names_its_channel():
    pytest.importorskip("matplotlib")
    model = live_in(tiny())
    images, hows = torch.rand(3, 3, 16, 16), ["effect", "varied", "mean", "pca"]
    record = record_attention(model, images)
    together = plot_masks(images, record, hows)
    alone = plot_masks(images[1:2], record_attention(model, images[1:2]), hows)
    columns = 1 + 2 * len(hows)
    for grouped, single in zip(panels(together)[columns : 2 * columns], panels(alone), strict=True):
        assert abs(grouped - single).max() < 1e-4
    channel = ranked_channel(record.masks[NAMES[0]][1:2], "varied").item()
    assert [t.get_text() for t in alone.axes[2].texts] == [f"channel {channel}"]
    assert len(alone.axes) == columns + 1  # and the bar


def test_values_are_drawn_on_one_scale():
    """Not stretched: a flat mask is flat, and the same value has the same colour in every panel."""
    pytest.importorskip("matplotlib")
    masks = {"flat": torch.full((1, 4, 4, 4), 0.5), "steep": torch.zeros(1, 4, 4, 4)}
    masks["flat"][0, :, 0, 0] += 1e-3
    masks["steep"][0, :, 0, 0] = 0.5
    _, flat, steep = panels(plot_masks(torch.rand(1, 1, 4, 4), masks, alpha=1.0))
    assert abs(flat - flat[3, 3]).max() < 0.02
    assert abs(steep[0, 0] - flat[3, 3]).max() < 0.02 and abs(steep[3, 3] - flat[3, 3]).max() > 0.3


def test_effects_are_relative_to_the_strongest_places_of_the_image():
    matplotlib = pytest.importorskip("matplotlib")
    model = live_in(tiny())
    images = torch.rand(1, 3, 16, 16)
    record = record_attention(model, images)
    drawn = panels(plot_masks(images, record, alpha=1.0))[1:]
    density = [e.clamp(min=0).sum(1)[0] * e.shape[2] * e.shape[3] for e in record.effects.values()]
    limit = max(d.quantile(0.98) for d in density)
    for panel, values in zip(drawn, density, strict=True):
        corner = (values[0, 0] / limit).clamp(max=1).item()  # aligned corners: a corner's colour is that of its value
        assert abs(panel[0, 0] - matplotlib.colormaps["inferno"](corner)[:3]).max() < 1e-3


@pytest.mark.parametrize("channels", [None, [0, 7]])
def test_figure_1_draws_trunk_mask_and_product(channels, tmp_path):
    pytest.importorskip("matplotlib")
    model = live_in(tiny())
    images = torch.rand(2, 3, 16, 16)
    record = record_attention(model, images)
    figure = plot_attention(images, record, channels, ["x", "y"], path=tmp_path / "figure.png")
    drawn = [axes for axes in figure.axes if axes.images and axes.get_ylabel() == ""]
    name = NAMES[0]
    channel = channels[0] if channels else record.effects[name][0].sum((1, 2)).argmax().item()
    wanted = [tensors[name][0, channel] for tensors in (record.trunks, record.masks, record.products)]
    for axes, values in zip(drawn, wanted, strict=False):
        torch.testing.assert_close(torch.from_numpy(axes.images[0].get_array().data), values)
    assert f"x\n{name}\nchannel {channel}" in [axes.get_ylabel() for axes in figure.axes]
    assert (tmp_path / "figure.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (dict(how="effect"), "needs what record_attention returns"),
        (dict(images=torch.rand(3, 16, 16)), "images must be of shape"),
        (dict(images=torch.rand(2, 3, 0, 16)), "images must be of shape .*, not empty"),
        (dict(masks={}), "must not be empty"),
        (dict(images=torch.rand(3, 3, 16, 16)), "a mask for each of the 3 images; got 2"),
        (dict(images_along="diagonal"), "'rows', 'columns'"),
        (dict(how="median"), "how must be one of"),
        (dict(path="masks.xyz"), "suffix must be one of .*png"),
        (dict(path="no_such_folder/masks.png"), "does not exist"),
    ],
)
def test_plot_masks_refuses(changed, message):
    pytest.importorskip("matplotlib")
    arguments = dict(images=torch.rand(2, 3, 16, 16), masks={"a": torch.rand(2, 4, 8, 8)})
    with pytest.raises(ValueError, match=message):
        plot_masks(**{**arguments, **changed})


def test_a_figure_is_saved_whole_or_not_at_all(tmp_path, monkeypatch):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    path = tmp_path / "figure.png"
    path.write_text("old")
    savefig, fails = figure.savefig, False

    def watch(*args, **kwargs):
        savefig(*args, **kwargs)
        assert path.read_text() == "old"  # until the new one is complete
        if fails:
            raise OSError("disk full")

    monkeypatch.setattr(figure, "savefig", watch)
    fails = True
    with pytest.raises(OSError, match="disk full"):
        save_figure(figure, path)
    assert [p.name for p in tmp_path.iterdir()] == ["figure.png"] and path.read_text() == "old"
    fails = False
    save_figure(figure, path)
    assert [p.name for p in tmp_path.iterdir()] == ["figure.png"] and path.read_bytes().startswith(b"\x89PNG")


def test_every_attention_module_of_the_family_is_found():
    model = timm.create_model("resattn92", device="meta")
    assert sum(isinstance(m, AttentionModule) for m in model.modules()) == 6
    with capture_masks(model) as masks, torch.inference_mode():
        model(torch.empty(1, 3, 224, 224, device="meta"))
    assert [tuple(m.shape[1:]) for m in masks.values()] == [
        (256, 56, 56), (512, 28, 28), (512, 28, 28), (1024, 14, 14), (1024, 14, 14), (1024, 14, 14)
    ]  # fmt: skip


def test_a_channel_that_a_module_lacks():
    pytest.importorskip("matplotlib")
    record = record_attention(tiny().eval(), torch.rand(1, 3, 16, 16))
    with pytest.raises(IndexError):
        plot_attention(torch.rand(1, 3, 16, 16), record, [16])
