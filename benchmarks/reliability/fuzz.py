"""Networks under random options on random images: each computes what it must, or says why not.

A case is right if its results are finite and of the right shapes, come again bit for bit, and agree with those of the
other memory format, of each image alone, of the folded network and of double precision; in training, if gradients are
finite, reach every parameter, come again, and are the same with and without gradient checkpointing.
"""

import copy
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import timm
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from timm.utils import reparameterize_model
from torch import nn

import timm_resattn  # noqa: F401  registers the models
from benchmarks.reliability.children import in_child
from benchmarks.reliability.tally import OUTCOMES, Tally, WrongError

# Widths of 8 are left out: torch 2.14 writes beyond its memory in the backward pass, in channels_last on a CPU, of a
# 1x1 convolution with stride 2 that reads 8 channels, as `nn.Conv2d(8, 16, 1, 2)` on 66x52 pixels shows by itself.
CASES = 2000
TOGETHER = 25
# type of the parameters, of autocast, and how far results may be from double precision and from each other
PRECISIONS: dict[str, tuple[torch.dtype, torch.dtype | None, float]] = {
    "float32": (torch.float32, None, 1e-3),
    "float64": (torch.float64, None, 1e-9),
    "bfloat16": (torch.bfloat16, None, 0.5),
    "float16": (torch.float16, None, 0.1),
    "autocast bfloat16": (torch.float32, torch.bfloat16, 0.5),
    "autocast float16": (torch.float32, torch.float16, 0.1),
}
LARGEST: dict[str, float] = {}  # differences seen, by precision
# in half precision a random network may amplify any rounding: results may be so many times as far away as those of
# double precision that is rounded after each layer
AMPLIFIED = 3.0
DEFAULTS: dict[str, Any] = dict(
    mask_type="encoder_decoder", pool_mode="pad", groups=1, bottle_ratio=0.25, in_chans=3, num_classes=5,
    global_pool="avg", output_stride=32, norm_layer="batchnorm2d",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One network, and what it is asked for; ``out_indices`` are those of ``features_only``."""

    name: str
    options: dict[str, Any]
    batch: int
    height: int
    width: int
    precision: str
    channels_last: bool
    training: bool
    out_indices: tuple[int, ...] | None
    checkpointing: bool
    folded: bool

    @property
    def kind(self) -> str:
        """The row that it is counted in."""
        return f"{'logits' if self.out_indices is None else 'feature maps'}, {'training' if self.training else 'eval'}"

    @property
    def given(self) -> dict[str, Any]:
        """All options, the name's and the defaults too."""
        unit_type = "inception" if "inception" in self.name else "preact"
        if "next" in self.name or "postact" in self.name:
            unit_type = "postact"
        stem_type = "cifar" if self.name.endswith("cifar") else "imagenet"
        named = dict(unit_type=unit_type, stem_type=stem_type, double_skip="dskip" in self.name)
        return {**DEFAULTS, **named, **self.options}


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any network of the family, narrow and shallow, under any options, also such as do not go together."""
    name = draw(st.sampled_from(timm.list_models(module="resattn")))
    stages = 3 if name.endswith("cifar") else 4
    depths: list[int] = []
    for depth in draw(st.lists(st.integers(0, 2), min_size=stages, max_size=stages)):
        depths.append(min(depth, 3 - sum(depths)))
    mask_pools = [draw(st.integers(1, most)) for most in (3, 3, 2, 1)[:stages]]
    if draw(st.integers(0, 15)) == 0:
        mask_pools[draw(st.integers(0, stages - 1))] = 0
    options = dict(
        depths=tuple(depths),
        widths=(16, 16, 16, 16)[:stages] if draw(st.booleans()) else (16, 32, 32, 48)[:stages],
        mask_pools=tuple(mask_pools),
        closing_units=tuple(draw(st.lists(st.integers(0, 1), min_size=stages, max_size=stages))),
        stem_chs=draw(st.sampled_from([8, 16])),
        num_classes=draw(st.integers(0, 5)),
    )
    if "next" in name:
        options |= dict(groups=4, bottle_ratio=0.5)
    if "inception" in name:
        options |= dict(bottle_ratio=0.25)
    more = dict(
        pre_units=st.integers(0, 2),
        trunk_units=st.integers(0, 2),
        mask_units=st.integers(0, 2),
        mask_up_units=st.integers(0, 2),
        attn_act=st.sampled_from(["mixed", "channel", "spatial"]),
        attn_residual=st.booleans(),
        mask_type=st.sampled_from(["encoder_decoder", "encoder_decoder", "local_conv", "none"]),
        double_skip=st.booleans(),
        pool_mode=st.sampled_from(["pad", "ceil"]),
        unit_type=st.sampled_from(["preact", "postact", "inception"]),
        stem_type=st.sampled_from(["imagenet", "cifar"]),
        groups=st.sampled_from([1, 2, 4]),
        bottle_ratio=st.sampled_from([0.25, 0.5, 1.0]),
        in_chans=st.integers(1, 4),
        global_pool=st.sampled_from(["avg", "max", "avgmax", "catavgmax"]),
        output_stride=st.sampled_from([8, 16, 32]),
        drop_rate=st.sampled_from([0.0, 0.3]),
        drop_path_rate=st.sampled_from([0.0, 0.3]),
        norm_layer=st.sampled_from(["batchnorm2d", "groupnorm", "layernorm2d"]),
        act_layer=st.sampled_from(["relu", "silu", "gelu", "hardswish"]),
        zero_init_last=st.booleans(),
    )
    for option in draw(st.lists(st.sampled_from(sorted(more)), max_size=6, unique=True)):
        options[option] = draw(more[option])
    out_indices = draw(st.none() | st.lists(st.integers(0, stages), min_size=1, max_size=3, unique=True).map(sorted))
    size = st.integers(1, 72) | st.integers(33, 72)
    return Case(
        name,
        options,
        batch=draw(st.integers(1, 3)),
        height=draw(size),
        width=draw(size),
        precision=draw(st.sampled_from(["float32", *PRECISIONS])),
        channels_last=draw(st.booleans()),
        training=draw(st.booleans()),
        out_indices=None if out_indices is None else tuple(out_indices),
        checkpointing=draw(st.booleans()),
        folded=draw(st.booleans()),
    )


def sides(case: Case, side: int) -> list[int] | None:
    """Sides of the stem's map and of each stage's that is needed; None if a pooling on the way has too little."""
    given = case.given
    imagenet = given["stem_type"] == "imagenet"
    needed = len(given["depths"]) if case.out_indices is None else max(case.out_indices)

    def pooled(size: int) -> int:
        return (size + 1) // 2 if given["pool_mode"] == "pad" else size // 2

    size = (side + 1) // 2 if imagenet else side
    found, reduction = [size], 1
    if imagenet and needed:
        size, reduction = pooled(size), 4
    for stage in range(needed):
        if stage and reduction * 2 <= given["output_stride"]:
            size, reduction = (size + 1) // 2, reduction * 2
        if size < 1:
            return None
        if given["depths"][stage] and given["mask_type"] == "encoder_decoder":
            mask_size = size
            for _ in range(given["mask_pools"][stage]):
                if mask_size < 2:
                    return None
                mask_size = pooled(mask_size)
        found.append(size)
    return found


def causes(case: Case) -> Iterator[str]:
    """Patterns of the sentences of which one must be said, as the case can't be computed."""
    given = case.given
    modules = [pools for depth, pools in zip(given["depths"], given["mask_pools"], strict=True) if depth]
    if given["double_skip"] and given["mask_type"] != "encoder_decoder":
        yield "double_skip=True needs mask_type='encoder_decoder'"
    if given["mask_type"] != "none" and 0 in modules:
        yield "mask_pools must be at least 1 where depths is not 0"
    if given["unit_type"] == "inception" and given["groups"] > 1:
        yield "groups must be 1 with unit_type 'inception'"
    elif any(int(chs * given["bottle_ratio"]) % given["groups"] for chs in given["widths"]):
        yield "channels must be divisible by groups"
    if sides(case, case.height) is None or sides(case, case.width) is None:
        yield "Input image too small"
        if case.out_indices is not None:  # only the masks look at the size there, not the stem's pooling
            yield "Output size is too small"


def excuses(case: Case) -> Iterator[str]:
    """Patterns of the sentences that torch may say, depending on what the layers see."""
    if case.training and case.batch == 1:
        yield "Expected more than 1 value per channel when training"


def build(case: Case) -> nn.Module:
    """The network with statistics of images of its own size or the least, in its type and memory format."""
    torch.manual_seed(1)
    asked = dict(case.options)
    if case.out_indices is not None:
        asked |= dict(features_only=True, out_indices=case.out_indices)
    model = timm.create_model(case.name, **asked)
    least = 40 if case.given["pool_mode"] == "pad" else 64  # holds for all that `cases` draws
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0, 0.2)
        norm.momentum = None  # the plain average
    with torch.no_grad():
        model.train()(torch.randn(4, case.given["in_chans"], least, least))
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()


def outputs(model: nn.Module, x: torch.Tensor, autocast: torch.dtype | None) -> list[torch.Tensor]:
    """Logits, or the feature maps."""
    with torch.autocast("cpu", autocast) if autocast else nullcontext():
        result = model(x)
    return [result] if isinstance(result, torch.Tensor) else list(result)


def differ(found: list[torch.Tensor], wanted: list[torch.Tensor], case: Case) -> float:
    """Largest difference of two lists of tensors, by the norm of the second or, if more, of a least value an element.

    In half precision a few logits may all be near 0, where what they are sums of is not.
    """
    least = 1e-3 if case.precision in ("float32", "float64") else 0.1
    return max(
        ((a.double() - b.double()).norm() / max(b.double().norm(), least * b.numel() ** 0.5)).item()
        for a, b in zip(found, wanted, strict=True)
    )


def need(holds: bool, what: str) -> None:
    """Raise a `WrongError` unless it holds."""
    if not holds:
        raise WrongError(what)


def allowed(case: Case, model: nn.Module, x: torch.Tensor, exact: list[torch.Tensor]) -> float:
    """How far results may be from each other."""
    dtype, autocast, bound = PRECISIONS[case.precision]
    half = autocast or dtype
    if half in (torch.float32, torch.float64):
        return bound
    rounded = copy.deepcopy(model).to(half).double()
    for module in rounded.modules():
        if not [*module.children()]:
            module.register_forward_hook(lambda module, args, output: output.to(half).double())
    return max(bound, AMPLIFIED * differ(outputs(rounded, x.to(half).double(), None), exact, case))


def agree(found: list[torch.Tensor], wanted: list[torch.Tensor], case: Case, what: str, most: float) -> None:
    """Raise a `WrongError` where two results are further apart than they may be."""
    error = differ(found, wanted, case)
    LARGEST[case.precision] = max(LARGEST.get(case.precision, 0.0), error)
    need(error <= most, f"{what}: {error:.2g} apart, where {most:.2g} may be")


def wanted_shapes(case: Case) -> list[tuple[int, ...]]:
    """Shapes of what the case asks for, by its options alone."""
    given = case.given
    if case.out_indices is None:
        pooled = given["widths"][-1] * (2 if given["global_pool"] == "catavgmax" else 1)
        return [(case.batch, given["num_classes"] or pooled)]
    heights, widths = sides(case, case.height), sides(case, case.width)
    assert heights is not None
    assert widths is not None
    chs = (given["stem_chs"], *given["widths"])
    return [(case.batch, chs[i], heights[i], widths[i]) for i in case.out_indices]


def evaluate(case: Case, model: nn.Module, x: torch.Tensor) -> None:
    """What holds in evaluation mode."""
    autocast = PRECISIONS[case.precision][1]
    exact = outputs(copy.deepcopy(model).double(), x.double(), None)
    most = allowed(case, model, x, exact)
    model = model.to(x.dtype)
    if case.folded:
        model = reparameterize_model(model)
    if case.checkpointing and hasattr(model, "set_grad_checkpointing"):
        model.set_grad_checkpointing()
    layouts = [torch.channels_last, torch.contiguous_format]
    layout, other = layouts if case.channels_last else layouts[::-1]
    model, x = model.to(memory_format=layout), x.to(memory_format=layout)
    found = outputs(model, x, autocast)
    need([tuple(y.shape) for y in found] == wanted_shapes(case), f"shapes: {[tuple(y.shape) for y in found]}")
    need(all(bool(y.isfinite().all()) for y in found), "not finite")
    need(all(map(torch.equal, found, outputs(model, x, autocast))), "another result at the second call")
    agree(found, exact, case, "double precision, not folded", most)
    alone = [outputs(model, image[None].contiguous(memory_format=layout), autocast) for image in x]
    agree(found, [torch.cat(maps) for maps in zip(*alone, strict=True)], case, "each image alone", most)
    flipped = outputs(model.to(memory_format=other), x.contiguous(memory_format=other), autocast)
    agree(found, flipped, case, "the other memory format", most)


def train(case: Case, model: nn.Module, x: torch.Tensor) -> None:
    """What holds in training mode."""
    _, autocast, bound = PRECISIONS[case.precision]
    model = model.to(x.dtype)
    if case.folded:
        model = reparameterize_model(model)
    if case.channels_last:
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)

    def step(checkpointing: bool) -> tuple[list[torch.Tensor], ...]:
        twin = copy.deepcopy(model).train()
        if hasattr(twin, "set_grad_checkpointing"):
            twin.set_grad_checkpointing(checkpointing)
        torch.manual_seed(2)
        found = outputs(twin, x, autocast)
        sum(y.float().square().mean() for y in found).backward()
        lacking = [name for name, parameter in twin.named_parameters() if parameter.grad is None]
        need(not lacking, f"no gradient: {', '.join(lacking[:5])}")
        return found, [parameter.grad for parameter in twin.parameters()], list(twin.buffers())

    found, grads, buffers = step(case.checkpointing)
    need([tuple(y.shape) for y in found] == wanted_shapes(case), f"shapes: {[tuple(y.shape) for y in found]}")
    need(all(bool(tensor.isfinite().all()) for tensor in (*found, *grads, *buffers)), "not finite")
    for name, checkpointing, exact in (("again", case.checkpointing, True), ("ckpt", not case.checkpointing, False)):
        for what, first, second in zip(
            ("outputs", "gradients", "buffers"), (found, grads, buffers), step(checkpointing), strict=True
        ):
            if exact:
                need(all(map(torch.equal, first, second)), f"other {what} at the second call")
            elif first and not (what == "buffers" and case.out_indices is not None):
                # with features_only timm checkpoints whole stages, which counts their batches twice
                agree(first, second, case, f"{what} with and without checkpointing ({name})", bound)


def check(case: Case) -> str:
    """``computed`` or ``refused``; a `WrongError` or the error itself if it is neither as it must be."""
    must = list(causes(case))
    try:
        model = build(case)
        torch.manual_seed(3)
        x = torch.randn(case.batch, case.given["in_chans"], case.height, case.width)
        x = x.to(PRECISIONS[case.precision][0])
        if case.training:
            train(case, model, x)
        else:
            with torch.no_grad():
                evaluate(case, model, x)
    except WrongError:
        raise
    except Exception as error:
        if any(re.search(pattern, str(error)) for pattern in (*must, *excuses(case))):
            return "refused"
        raise
    need(not must, f"computed, where it should say: {' or '.join(must)}")
    return "computed"


def drawn(count: int, first_seed: int) -> list[Case]:
    """So many cases."""
    found: list[Case] = []

    @seed(first_seed)
    @settings(
        max_examples=count, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(cases())
    def one(case: Case) -> None:
        found.append(case)

    one()
    return found


def run(tally: Tally, count: int, first_seed: int) -> dict[str, Any]:
    """Try so many cases, `TOGETHER` in a child process, which a crash ends; the next one goes on after it."""
    left, largest = drawn(count, first_seed), dict.fromkeys(PRECISIONS, 0.0)

    def work(tell: Callable[[Any], None]) -> None:
        for case in left[:TOGETHER]:
            single = Tally()
            LARGEST.clear()
            single.try_(case.kind, case, lambda case=case: check(case))
            [outcome] = [name for name in OUTCOMES if single.kinds[case.kind][name]]
            tell([outcome, single.failures[0]["why"] if single.failures else "", LARGEST])

    while left:
        told, code = in_child(work, seconds=3600)
        for case, (outcome, why, differences) in zip(left, told, strict=False):
            tally.add(case.kind, outcome, case, why)
            largest |= {precision: max(largest[precision], error) for precision, error in differences.items()}
        left = left[len(told) :]
        if code and left:
            tally.add(left[0].kind, "crashed", left[0], f"exit code {code}")
            left = left[1:]
    return {"largest differences": {precision: float(f"{error:.2g}") for precision, error in largest.items()}}
