"""Which contenders are measured together, at which batch and input size: the parts of `benchmarks.speed` as data.

A part is a list of groups; the contenders of a group are timed in turn, in one process. On a CPU the groups of the
allocator as it comes are the first ones: `timm_resattn.optimize.retain_freed_memory` can't be taken back.
"""

import re
from dataclasses import dataclass, replace

import timm

from benchmarks.speed.contenders import PYTORCHCV, Contender

DEFAULT, RETAINED, CUDA = "default", "retained", "cuda"
PARTS = ("main", "int8", "train", "alternatives")
ALTERNATIVES = ("resnetv2_50", "resnet101", "resnet152", "resnet200", "resnetv2_101")


@dataclass(frozen=True)
class Group:
    """Contenders that are timed in turn.

    Attributes:
        contenders: What is timed.
        batch_size: Images at a time.
        img_size: Their side.
        allocator: `DEFAULT`; `RETAINED`, freed memory stays with the process; `CUDA`, torch's own.
    """

    contenders: tuple[Contender, ...]
    batch_size: int
    img_size: int
    allocator: str

    def only(self, *texts: str) -> "Group":
        """The group's contenders with one of ``texts`` in their names."""
        return replace(self, contenders=tuple(c for c in self.contenders if any(text in c.name for text in texts)))


def port_of(model: str) -> str | None:
    """pytorchcv's network of the same depth, if there is one."""
    match = re.fullmatch(r"resattn(\d+)(_dskip)?", model)
    return f"{PYTORCHCV}resattnet{match[1]}" if match else None


def convolutions_of(network: str) -> str:
    """The network of ours that has the same convolutions: its floor is this network's."""
    return network.replace(f"{PYTORCHCV}resattnet", "resattn").removesuffix("_dskip")


def _plain(model: str, device: str) -> list[Contender]:
    """The floor, and what needs nothing but torch as everyone uses it."""
    port, half = port_of(model), "autocast" if device == "cuda" else "bfloat16"
    networks = [*([port] if port else []), model]
    return [
        Contender(model, "convolutions"),
        *(Contender(network, layout=layout) for network in networks for layout in ("contiguous", "channels_last")),
        Contender(model, "folded"),
        Contender(model, "convolutions", dtype="bfloat16"),
        *(Contender(network, dtype=half) for network in networks),
        Contender(model, "folded", dtype=half),
    ]


def _fast(model: str, device: str) -> list[Contender]:
    """The optimised paths, compilers and other runtimes."""
    port, both = port_of(model), ("float32", "bfloat16")
    contenders = [
        *(Contender(port, "compiled", dtype=dtype) for dtype in both if port),
        *(Contender(model, "optimized", dtype=dtype) for dtype in both),
    ]
    if device == "cuda":
        return contenders
    return [
        *contenders,
        *(Contender(model, "aotinductor", dtype=dtype) for dtype in both),
        Contender(model, "onnxruntime", "contiguous"),
        *(Contender(model, "openvino", "contiguous", dtype) for dtype in both),
    ]


def runtimes(model: str) -> tuple[Contender, ...]:
    """The runtimes that compute in int8 too, on a CPU, in each type that they know."""
    known = {"onnxruntime": ("float32", "int8"), "openvino": ("float32", "bfloat16", "int8")}
    return tuple(Contender(model, path, "contiguous", dtype) for path, dtypes in known.items() for dtype in dtypes)


def training(model: str, device: str) -> tuple[Contender, ...]:
    """pytorchcv's network, ours of its topology, and the authors' one."""
    port, twin = port_of(model), f"{model}_dskip"
    contenders = []
    if port:
        contenders += [Contender(port, layout="contiguous"), Contender(port), Contender(port, dtype="autocast")]
    networks = (twin, model) if timm.is_model(twin) else (model,)
    for network in networks:
        contenders += [
            Contender(network, layout="contiguous"),
            Contender(network),
            Contender(network, "checkpointing"),
            Contender(network, dtype="autocast"),
            Contender(network, "checkpointing", dtype="autocast"),
        ]
    dtypes = ("float32", "autocast") if device == "cuda" else ("float32",)  # a CPU takes minutes to compile each
    compiled = (*([port] if port else []), networks[0])
    return (*contenders, *(Contender(network, "compiled", dtype=dtype) for network in compiled for dtype in dtypes))


def inference_memory(model: str) -> tuple[Contender, ...]:
    """What `benchmarks.speed.memory` runs without gradients."""
    port = port_of(model)
    return (
        *(Contender(port, layout=layout) for layout in ("contiguous", "channels_last") if port),
        *(Contender(model, layout=layout) for layout in ("contiguous", "channels_last")),
        Contender(model, dtype="bfloat16"),
        Contender(model, "folded"),
        Contender(model, "folded", dtype="bfloat16"),
        Contender(model, "optimized"),
    )


def plan(part: str, model: str, batch_size: int, img_size: int, device: str) -> list[Group]:
    """The groups of a part.

    Args:
        part: One of `PARTS`.
        model: The network, but for the part ``alternatives``.
        batch_size: Images at a time.
        img_size: Their side.
        device: ``"cpu"`` or ``"cuda"``.
    """
    both = (CUDA,) if device == "cuda" else (DEFAULT, RETAINED)
    last = both[-1]
    if part == "main":
        plain, fast = tuple(_plain(model, device)), tuple(_fast(model, device))
        return [
            Group((*plain, *(fast if kind == last else ())), batch_size, img_size, kind) for kind in both
        ]  # fmt: skip
    if part == "int8":
        return [Group(runtimes(model), batch_size, img_size, last)]
    if part == "train":
        return [Group(training(model, device), batch_size, img_size, kind) for kind in both]
    ours = ("resattn50", "resattn56", "resattn92")
    others = (f"{PYTORCHCV}resattnet56", f"{PYTORCHCV}resattnet92", *ALTERNATIVES)
    half = "autocast" if device == "cuda" else "bfloat16"
    contenders = [Contender(others[0], layout="contiguous")]
    contenders += [Contender(network, dtype=dtype) for network in (*ours, *others) for dtype in ("float32", half)]
    dtypes = ("float32", "bfloat16")
    fastest = "optimized" if device == "cuda" else "folded"  # on a CPU compiling each takes longer than measuring it
    contenders += [Contender(network, fastest, dtype=dtype) for network in ours for dtype in dtypes]
    if device == "cuda":
        contenders += [Contender(network, "compiled", dtype=dtype) for network in others for dtype in dtypes]
    return [Group(tuple(contenders), batch_size, img_size, last)]
