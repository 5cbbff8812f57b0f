"""How much memory a call takes: above what the process held before, and for backward."""

import ctypes
import gc
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def can_measure(device: str) -> bool:
    """Whether the peak of this process can be read: on Linux, or on a GPU."""
    return device == "cuda" or (STATUS.exists() and CLEAR_REFS.exists())


def _status(field: str) -> int:
    """A field of the process's status, in bytes."""
    match = re.search(rf"^{field}:\s*(\d+) kB", STATUS.read_text(), re.MULTILINE)
    assert match is not None
    return 1024 * int(match[1])


def _hand_back() -> None:
    """Free what nothing refers to, and give freed memory back to the kernel."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def peak_above(call: Callable[[], object], device: str = "cpu") -> int:
    """Bytes that the process (on a GPU: torch's allocator) holds at most during ``call`` above those before it.

    What an earlier call freed is handed back first, so that nothing hides in it. Call it once before, or what is
    allocated once and stays (an optimiser's state, prepared kernels) counts too.
    """
    if device == "cuda":
        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    _hand_back()
    CLEAR_REFS.write_text("5")  # the peak starts anew
    before = _status("VmRSS")
    call()
    return _status("VmHWM") - before


def saved_for_backward(forward: Callable[[], torch.Tensor], own: Iterable[torch.Tensor] = ()) -> int:
    """Bytes that autograd keeps for the backward pass of ``forward``, each storage once.

    Exact and the same on any machine, but blind to what kernels need while they run.

    Args:
        forward: Computes what backward starts from.
        own: Tensors that are there anyway: parameters, buffers, the batch.
    """
    sizes: dict[int, int] = {}
    known = {tensor.untyped_storage().data_ptr() for tensor in own}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = forward()
    total = sum(sizes.values())
    del out
    return total
