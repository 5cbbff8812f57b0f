"""A network made fast for inference: folded, channels_last, and compiled.

fast = timm_resattn.optimize_for_inference(model, dtype=torch.bfloat16)
logits = fast(images)
"""

import ctypes
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, Optional, Tuple

import torch
from torch import nn
from torch.utils._pytree import tree_map

from .fold import folded_copy

__all__ = ["OptimizedModel", "optimize_for_inference", "retain_freed_memory"]

Program = Callable[[torch.Tensor], Any]


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


def _compile_for_cpu(model: nn.Module, x: torch.Tensor, any_batch: bool) -> Program:
    """AOTInductor's program for images like ``x``: less overhead between operators than torch.compile's."""
    if not hasattr(torch._inductor, "aoti_load_package"):
        raise RuntimeError("compiling for a CPU needs torch 2.6")
    batch = {0: torch.export.Dim("batch", min=2, max=1 << 16)} if any_batch else None
    exported = torch.export.export(model, (x,), dynamic_shapes=(batch,) if batch else None, strict=False)
    with tempfile.TemporaryDirectory() as folder, torch._inductor.config.patch(freezing=True):
        path = torch._inductor.aoti_compile_and_package(exported, package_path=str(Path(folder) / "model.pt2"))
        return torch._inductor.aoti_load_package(path)


def _without_recompile_limit() -> ContextManager[Any]:
    """Within, torch.compile takes the same network for as many image sizes as there are, and not for eight."""
    config: Any = torch._dynamo.config
    name = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"  # the latter torch 2.5's
    return config.patch({name: sys.maxsize, f"accumulated_{name}": sys.maxsize})


def _compile_for_gpu(model: nn.Module, x: torch.Tensor, any_batch: bool) -> Program:
    """torch.compile's program, autotuned, in CUDA graphs; compiles when it is first run."""
    options: Any = {"max_autotune": True, "triton.cudagraphs": not any_batch}
    program = torch.compile(model, fullgraph=True, dynamic=any_batch, options=options)

    def run(x: torch.Tensor) -> Any:
        with _without_recompile_limit():
            return tree_map(torch.clone, program(x))  # a graph writes each result over the one before

    return run


class OptimizedModel(nn.Module):
    """What `optimize_for_inference` returns: takes images of any type and memory format, computes no gradients.

    Shape: as the network; floating-point results are of the type of its weights.

    Args:
        model: The folded network.
        compile: Whether to compile. The first batch size of an image size is compiled for itself, the second for all
            from two up.
    """

    def __init__(self, model: nn.Module, compile: bool) -> None:
        super().__init__()
        self.model = model
        self.compile_programs = compile
        self.programs: Dict[Tuple[int, ...], Program] = {}
        self.made_for: Optional[Tuple[torch.device, torch.dtype]] = None  # the programs

    def __getstate__(self) -> Dict[str, Any]:
        return {**self.__dict__, "programs": {}}  # compiled code can be neither copied nor saved

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.programs.clear()  # they hold the weights
        super()._load_from_state_dict(*args, **kwargs)

    def train(self, mode: bool = True) -> "OptimizedModel":
        """Refuse training mode."""
        if mode:
            raise RuntimeError("A model optimised for inference can't be trained: train the model it was made from.")
        return super().train(mode)

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> Any:
        weight = next(self.model.parameters())
        x = x.to(dtype=weight.dtype, memory_format=torch.channels_last)
        if not self.compile_programs:
            return self.model(x)
        if self.made_for != (weight.device, weight.dtype):
            self.programs.clear()
            self.made_for = weight.device, weight.dtype
        shape, size = tuple(x.shape), tuple(x.shape[2:])
        program = self.programs.get(shape) or (self.programs.get(size) if len(x) > 1 else None)
        if program is not None:
            return program(x)
        any_batch = len(x) > 1 and any(seen[0] > 1 and seen[2:] == size for seen in self.programs if len(seen) == 4)
        compiler = _compile_for_cpu if weight.device.type == "cpu" else _compile_for_gpu
        try:
            program = compiler(self.model, x, any_batch)
            result = program(x)
        except (ValueError, torch.OutOfMemoryError):  # the input's fault
            raise
        except Exception as error:  # compilers fail in many ways
            reason = " ".join(str(error).split())[:200]
            warnings.warn(
                f"Could not compile for {shape}, running it without ({type(error).__name__}: {reason}).", stacklevel=2
            )
            program, any_batch = self.model, False
            result = program(x)
        self.programs[size if any_batch else shape] = program
        return result


def optimize_for_inference(
    model: nn.Module, dtype: torch.dtype = torch.float32, compile: bool = True
) -> OptimizedModel:
    """A copy of a network that computes the same faster.

    Norms are folded and memory is laid out channels_last. With ``compile`` the network is compiled at the first
    image: once for every image size, and once more when its batch size first changes. On a CPU AOTInductor does it,
    with frozen weights, which each program holds once more: those that are loaded into the copy have it compiled anew,
    other changes of its parameters go unseen. On a GPU torch.compile does it, autotuned, in CUDA graphs. What can't be
    compiled runs without, with a warning. On a CPU `retain_freed_memory` makes all of it faster still.

    Args:
        model: A network of this package, from ``timm.create_model``, with or without ``features_only``; it is left
            as it is.
        dtype: ``torch.float32``, ``torch.bfloat16`` or ``torch.float16``.
        compile: Whether to compile.

    Returns:
        A module without gradients: images ``(B, in_chans, H, W)`` of any type and memory format to what ``model``
        returns, in ``dtype``.

    Raises:
        TypeError: ``model`` is no network, or optimised already.
    """
    if not isinstance(model, nn.Module) or isinstance(model, OptimizedModel) or next(model.parameters(), None) is None:
        raise TypeError(f"model must be a network from timm.create_model; got {type(model).__name__}.")
    model = folded_copy(model).to(dtype=dtype).to(memory_format=torch.channels_last)
    return OptimizedModel(model, compile).eval()
