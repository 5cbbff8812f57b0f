"""A network made fast for inference: folded, channels_last, and compiled or fused.

fast = timm_resattn.optimize_for_inference(model, dtype=torch.bfloat16)
logits = fast(images)
"""

import copy
import ctypes
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any, Callable, Dict, Tuple

import torch
from timm.utils import reparameterize_model
from torch import nn

from .checks import check_choice
from .fold import fold_norm
from .fused import can_fuse, fuse

__all__ = ["OptimizedModel", "optimize_for_inference", "retain_freed_memory"]

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

Compiler = Callable[[nn.Module, torch.Tensor, bool], Callable[[torch.Tensor], Any]]


def retain_freed_memory() -> bool:
    """Let this process keep the memory that it frees, as the GPU's allocator does, instead of handing it back.

    glibc returns each large feature map to the kernel when it is freed and faults its pages in again, zeroed, for the
    next one, which costs more than computing a ReLU. The setting (``mallopt``) is the whole process's and lasts; the
    process stays at the size of its greatest need. Worth it in training on a CPU, too.

    Returns:
        Whether it took effect: on Linux with glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # from malloc.h
    settings = ((mmap_threshold, 1 << 30), (trim_threshold, (1 << 31) - 1), (top_pad, 1 << 26))
    accepted = [mallopt(parameter, size) == 1 for parameter, size in settings]
    return all(accepted)


def _compile_for_cpu(model: nn.Module, x: torch.Tensor, any_batch: bool) -> Callable[[torch.Tensor], Any]:
    """AOTInductor's program for images like ``x``: less overhead between operators than torch.compile's."""
    if not hasattr(torch._inductor, "aoti_load_package"):
        raise RuntimeError("compiling for a CPU needs torch 2.6")
    batch = {0: torch.export.Dim("batch", min=2, max=1 << 16)} if any_batch else None
    exported = torch.export.export(model, (x,), dynamic_shapes=(batch,) if batch else None, strict=False)
    with tempfile.TemporaryDirectory() as folder, torch._inductor.config.patch(freezing=True):
        path = torch._inductor.aoti_compile_and_package(exported, package_path=str(Path(folder) / "model.pt2"))
        return torch._inductor.aoti_load_package(path)


def _compile_for_gpu(model: nn.Module, x: torch.Tensor, any_batch: bool) -> Callable[[torch.Tensor], Any]:
    """torch.compile's program, autotuned, in CUDA graphs; compiles when it is first run."""
    options: Any = {"freezing": True, "max_autotune": True, "triton.cudagraphs": not any_batch}
    return torch.compile(model, fullgraph=True, dynamic=any_batch, options=options)


class OptimizedModel(nn.Module):
    """What `optimize_for_inference` returns: takes images of any type and memory format, computes no gradients.

    Shape: as the network; floating-point results are of ``dtype``.

    Args:
        model: The folded network.
        dtype: Type that it computes in.
        compiler: Makes a program for images of one size, or None. The first batch size of an image size is compiled
            for itself, the second for all from two up.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype, compiler: Any = None) -> None:
        super().__init__()
        self.model = model
        self.dtype = dtype
        self.compiler = compiler
        self.programs: Dict[Tuple[int, ...], Callable[[torch.Tensor], Any]] = {}
        if compiler is None:
            self._fuse()

    def _fuse(self) -> None:
        if next(self.model.parameters()).device.type == "cpu" and can_fuse(self.dtype):
            self.model = fuse(self.model)

    def __getstate__(self) -> Dict[str, Any]:
        return {**self.__dict__, "programs": {}}  # compiled code can be neither copied nor saved

    def train(self, mode: bool = True) -> "OptimizedModel":
        """Refuse training mode."""
        if mode:
            raise RuntimeError("A model optimised for inference can't be trained: train the model it was made from.")
        return super().train(mode)

    def _program(self, x: torch.Tensor) -> Callable[[torch.Tensor], Any]:
        """The program for ``x``, compiled if there is none yet."""
        size = tuple(x.shape[2:])
        program = self.programs.get(tuple(x.shape)) or (self.programs.get(size) if len(x) > 1 else None)
        if program is not None:
            return program
        any_batch = len(x) > 1 and any(shape[0] > 1 and shape[2:] == size for shape in self.programs if len(shape) == 4)
        program = self.compiler(self.model, x, any_batch)
        self.programs[size if any_batch else tuple(x.shape)] = program
        return program

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> Any:
        x = x.to(dtype=self.dtype, memory_format=torch.channels_last)
        if self.compiler is None:
            return self.model(x)
        try:
            return self._program(x)(x)
        except (ValueError, torch.OutOfMemoryError):  # the input's fault
            raise
        except Exception as error:  # compilers fail in many ways
            reason = " ".join(str(error).split())[:200]
            warnings.warn(f"Could not compile, running without ({type(error).__name__}: {reason}).", stacklevel=2)
            self.compiler = None
            self._fuse()
            return self.model(x)


def optimize_for_inference(
    model: nn.Module, dtype: torch.dtype = torch.float32, compile: bool = True, retain_memory: bool = True
) -> OptimizedModel:
    """A copy of a network that computes the same faster.

    Norms are folded and memory is laid out channels_last. With ``compile``, weights are frozen and the network is
    compiled at the first image (CPU: AOTInductor; CUDA: torch.compile, autotuned, in CUDA graphs): once for every
    image size, and once more when its batch size first changes. Each program holds the weights once more. Without, or
    where nothing can be compiled (with a warning), a CPU runs oneDNN's fused convolutions, ready at once and nearly as
    fast; other devices run the folded network.

    Args:
        model: A network of this package, from ``timm.create_model``, with or without ``features_only``; it is left
            as it is.
        dtype: ``torch.float32``, ``torch.bfloat16`` or ``torch.float16``.
        compile: Whether to compile.
        retain_memory: Call `retain_freed_memory`, which holds for the whole process, if the model is on a CPU.

    Returns:
        A module without gradients: images ``(B, in_chans, H, W)`` of any type and memory format to what ``model``
        returns, in ``dtype``.

    Raises:
        TypeError: ``model`` is not a module.
        ValueError: Another argument is not what it may be.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module; got {type(model).__name__}.")
    check_choice("dtype", dtype, DTYPES)
    check_choice("compile", compile, (True, False))
    check_choice("retain_memory", retain_memory, (True, False))
    if isinstance(model, OptimizedModel):
        raise ValueError("model must be the network itself; it is optimised already.")
    model = copy.deepcopy(model).eval().requires_grad_(False)
    model = reparameterize_model(model, inplace=True)
    if hasattr(model, "stem_conv") and hasattr(model, "stem_norm"):  # features_only lays the stem's layers open
        fold_norm(model, "stem_conv", "stem_norm")
    model = model.to(dtype=dtype).to(memory_format=torch.channels_last)
    on_cpu = next(model.parameters()).device.type == "cpu"
    if on_cpu and retain_memory:
        retain_freed_memory()
    compiler: Any = None
    if compile:
        compiler = _compile_for_cpu if on_cpu else _compile_for_gpu
    return OptimizedModel(model, dtype, compiler).eval()
