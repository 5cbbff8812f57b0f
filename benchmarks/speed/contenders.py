"""What is measured: networks and the ways to run them, as data, and how each is made ready.

A contender is a network (timm's name, or ``pytorchcv:NAME``), a way to run it (a key of `PATHS` for inference, of
`TRAINING_PATHS` for training), a memory layout and a number type: ``float32``, ``bfloat16`` (the weights too),
``autocast`` (bfloat16 by autocast, weights in float32) or ``int8`` (convolutions, calibrated with the batch).
"""

import argparse
import copy
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.utils.model import reparameterize_model
from torch import nn

from benchmarks.common.packages import MissingPackageError, require
from benchmarks.speed.floor import ConvFloor
from timm_resattn.export import run_onnx
from timm_resattn.optimize import optimize_for_inference
from timm_resattn.quantize import quantize

PYTORCHCV = "pytorchcv:"
Forward = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Contender:
    """A network and a way to run it; see the module for the values."""

    network: str
    path: str = "eager"
    layout: str = "channels_last"
    dtype: str = "float32"

    @property
    def name(self) -> str:
        """How the command line and the results call it."""
        return "/".join((self.network, self.path, self.layout, self.dtype))

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout as torch knows it."""
        return torch.channels_last if self.layout == "channels_last" else torch.contiguous_format


def check_options(args: argparse.Namespace, **least: int) -> None:
    """Raise a `ValueError` where an option can't be met: the numbers by their least, ``device``, ``out``, ``model``."""
    for name, bound in least.items():
        value = getattr(args, name)
        if value is not None and value < bound:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {bound}; got {value}")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: no GPU is there")
    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f"--out {args.out} is no folder")
    with torch.device("meta"):
        create_network(args.model)


def create_network(name: str) -> nn.Module:
    """A network with random weights, the same ones each time.

    Raises:
        ValueError: There is no such network.
        MissingPackageError: pytorchcv is not installed.
    """
    torch.manual_seed(0)
    try:
        if name.startswith(PYTORCHCV):
            require("pytorchcv")
            from pytorchcv.model_provider import get_model

            return get_model(name.removeprefix(PYTORCHCV))
        return timm.create_model(name)
    except (RuntimeError, ValueError) as error:
        if isinstance(error, MissingPackageError):
            raise
        raise ValueError(f"there is no network {name!r}: {error}") from error


def live_in(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """Batch norms as after training: random scales and shifts, statistics of ``images``; returns the model in eval.

    With fresh norms signals grow with depth until masks saturate, and a wrong folding shows little. Scales well under
    one keep rounding errors from growing with depth, which they don't in a trained network either.
    """
    generator = torch.Generator().manual_seed(3)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
        norm.weight.data *= 0.2 + 0.2 * torch.rand(norm.num_features, generator=generator)
        norm.bias.data += 0.3 * torch.randn(norm.num_features, generator=generator)
    with torch.no_grad():
        model.train()(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()


def copy_for(contender: Contender, model: nn.Module) -> nn.Module:
    """A copy in the layout of the contender, and in its type if that is the weights' too."""
    dtype = torch.bfloat16 if contender.dtype == "bfloat16" else torch.float32
    return copy.deepcopy(model).to(dtype=dtype, memory_format=contender.memory_format)


def autocast_for(contender: Contender, device: str) -> AbstractContextManager:
    """Autocast to bfloat16 if the contender is run so."""
    return torch.autocast(device, torch.bfloat16) if contender.dtype == "autocast" else nullcontext()


def images_for(contender: Contender, images: torch.Tensor) -> torch.Tensor:
    """The batch in the contender's layout and type; OpenVINO takes float32 and converts by itself."""
    dtype = torch.bfloat16 if contender.dtype == "bfloat16" and contender.path != "openvino" else torch.float32
    return images.to(dtype=dtype, memory_format=contender.memory_format)


def _convolutions(contender: Contender, model: nn.Module, images: torch.Tensor) -> Forward:
    return ConvFloor(copy_for(contender, model), images)


def _eager(contender: Contender, model: nn.Module, images: torch.Tensor) -> Forward:
    return copy_for(contender, model)


def _folded(contender: Contender, model: nn.Module, images: torch.Tensor) -> Forward:
    return copy_for(contender, reparameterize_model(model))


def _compiled(contender: Contender, model: nn.Module, images: torch.Tensor) -> Forward:
    return torch.compile(copy_for(contender, model), options={"freezing": True})


def _optimized(contender: Contender, model: nn.Module, images: torch.Tensor) -> Forward:
    return optimize_for_inference(model, dtype=images.dtype)


def _aotinductor(contender: Contender, model: nn.Module, images: torch.Tensor) -> Forward:
    exported = torch.export.export(copy_for(contender, reparameterize_model(model)), (images,))
    with tempfile.TemporaryDirectory() as folder:
        package = torch._inductor.aoti_compile_and_package(
            exported, package_path=str(Path(folder) / "network.pt2"), inductor_configs={"freezing": True}
        )
        return torch._inductor.aoti_load_package(package)


@lru_cache(maxsize=1)
def onnx_of(model: nn.Module, shape: tuple[int, ...]) -> bytes:
    """The folded network as an ONNX model for images of ``shape``; the last one is kept."""
    for package in ("onnx", "onnxscript"):
        require(package)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        example = torch.zeros(shape)
        torch.onnx.export(
            reparameterize_model(model), (example,), path, dynamo=True, external_data=False, verbose=False
        )
        return path.read_bytes()


def quantized(exported: bytes, pictures: torch.Tensor) -> bytes:
    """An ONNX model in int8, as ``timm-resattn export --int8`` writes it, calibrated with ``pictures``."""
    import onnx

    return quantize(onnx.load_from_string(exported), pictures).SerializeToString()


def in_openvino(exported: bytes, dtype: str, batches: Sequence[torch.Tensor] = ()) -> Forward:
    """An ONNX model in OpenVINO, quantised by NNCF if there are ``batches`` to calibrate with."""
    import openvino

    core = openvino.Core()
    model = core.read_model(exported)
    if batches:
        require("nncf")
        import nncf

        model = nncf.quantize(model, nncf.Dataset([batch.numpy() for batch in batches]))
    hints = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if dtype == "bfloat16" else "f32",
    }
    compiled = core.compile_model(model, "CPU", hints)
    return lambda images: torch.from_numpy(compiled(images.numpy())[0])


def _onnxruntime(contender: Contender, model: nn.Module, images: torch.Tensor) -> Forward:
    require("onnxruntime")
    exported = onnx_of(model, tuple(images.shape))
    return run_onnx(quantized(exported, images) if contender.dtype == "int8" else exported, torch.get_num_threads())


def _openvino(contender: Contender, model: nn.Module, images: torch.Tensor) -> Forward:
    require("openvino")
    exported = onnx_of(model, tuple(images.shape))
    return in_openvino(exported, contender.dtype, [images] if contender.dtype == "int8" else ())


PATHS: dict[str, Callable[[Contender, nn.Module, torch.Tensor], Forward]] = {
    "convolutions": _convolutions,
    "eager": _eager,
    "folded": _folded,
    "optimized": _optimized,
    "compiled": _compiled,
    "aotinductor": _aotinductor,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}


def build(contender: Contender, model: nn.Module, images: torch.Tensor) -> Forward:
    """Make a contender ready for inference.

    Args:
        contender: Its ``path`` is one of `PATHS`.
        model: The plain network in eval, float32, contiguous; it stays as it is.
        images: A batch like those that will follow, as `images_for` gives it.

    Returns:
        A function from images, as `images_for` gives them, to logits.

    Raises:
        MissingPackageError: A package that it needs is not installed.
    """
    run = PATHS[contender.path](contender, model, images)

    def forward(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), autocast_for(contender, images.device.type):
            return run(images)

    return forward


TRAINING_PATHS = ("eager", "checkpointing", "compiled")


class TrainingStep:
    """Forward, cross-entropy, backward, SGD with momentum; a call returns the loss.

    Args:
        contender: Its ``path`` is one of `TRAINING_PATHS`: ``checkpointing`` recomputes each unit and module in
            backward.
        model: The network in float32, contiguous; it stays as it is.
        images: The batch of every step; its labels are random.
    """

    def __init__(self, contender: Contender, model: nn.Module, images: torch.Tensor) -> None:
        with torch.no_grad():
            classes = model.eval()(images[:1]).shape[1]
        self.contender = contender
        self.model: Any = copy_for(contender, model).train()
        if contender.path == "checkpointing":
            self.model.set_grad_checkpointing()
        self.network = torch.compile(self.model) if contender.path == "compiled" else self.model
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3, momentum=0.9)
        self.images = images_for(contender, images)
        generator = torch.Generator().manual_seed(0)
        self.labels = torch.randint(classes, (len(images),), generator=generator).to(images.device)

    def loss(self) -> torch.Tensor:
        """The forward part."""
        with autocast_for(self.contender, self.images.device.type):
            return F.cross_entropy(self.network(self.images), self.labels)

    def __call__(self) -> torch.Tensor:
        loss = self.loss()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()
