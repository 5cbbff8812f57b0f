"""A network becomes a file to deploy: ONNX, in float32 or int8, torch.export's program or AOTInductor's package.

The file is run and compared with the network before it gets its name, and tells what its images must be.
"""

import importlib
import io
import json
import logging
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from timm.data import resolve_model_data_config
from torch import nn

from .files import check_target, written_whole
from .fold import folded_copy

__all__ = ["SUFFIXES", "export"]

SUFFIXES = (".onnx", ".pt2")
IMAGES, LOGITS = "images", "logits"  # names of input and output in ONNX
METADATA = "metadata.json"  # its name in a .pt2 file
# greatest relative errors of the logits
TOLERANCE = 1e-3
INT8_TOLERANCE = 0.5

Run = Callable[[torch.Tensor], torch.Tensor]
Progress = Callable[[str], object]


def _metadata(model: nn.Module, config: Dict[str, Any], labels: Optional[Sequence[str]]) -> Dict[str, str]:
    """What a file tells: text, or JSON where it is no text."""
    cfg: Any = getattr(model, "pretrained_cfg", None) or {}
    name = ".".join(filter(None, (cfg.get("architecture"), cfg.get("tag"))))
    told = {"model": name or type(model).__name__, **config, "labels": labels}
    return {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in told.items() if value is not None
    }


@contextmanager
def _step(what: str, progress: Progress) -> Iterator[None]:
    """Say what is done; exporters and runtimes fail in many ways, which become a `RuntimeError`."""
    progress(what)
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # of dynamic sizes and of quantising, for their developers
    try:
        yield
    except (ImportError, MemoryError, OSError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise RuntimeError(f"{what} failed ({type(error).__name__}: {reason}).") from error
    finally:
        logging.disable(before)


def _exported(model: nn.Module, images: torch.Tensor, dynamic: bool) -> torch.export.ExportedProgram:
    sizes = dict.fromkeys((0, 2, 3), torch.export.Dim.AUTO) if dynamic else None
    return torch.export.export(model, (images,), dynamic_shapes=(sizes,) if sizes else None, strict=False)


def _write_pt2(program: torch.export.ExportedProgram, path: Path, metadata: Dict[str, str]) -> Run:
    content = io.BytesIO()  # torch's own writing of files ends the process where the disk is full
    torch.export.save(program, content, extra_files={METADATA: json.dumps(metadata)})
    path.write_bytes(content.getbuffer())
    return torch.export.load(path).module()


def _write_package(program: torch.export.ExportedProgram, path: Path, metadata: Dict[str, str]) -> Run:
    configs = {"freezing": True, "aot_inductor.metadata": metadata}
    with tempfile.TemporaryDirectory() as folder:  # not to ``path``: as above
        package = str(Path(folder, path.name))
        torch._inductor.aoti_compile_and_package(program, package_path=package, inductor_configs=configs)
        shutil.copyfile(package, path)
    return torch._inductor.aoti_load_package(str(path))


def _write_onnx(
    program: torch.export.ExportedProgram, path: Path, metadata: Dict[str, str], pictures: Optional[torch.Tensor]
) -> Run:
    import onnx

    names: Any = dict(input_names=[IMAGES], output_names=[LOGITS])
    exported: Any = torch.onnx.export(program, dynamo=True, verbose=False, **names)
    model = exported.model_proto
    if pictures is not None:
        from .quantize import quantize

        model = quantize(model, pictures)
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return run_onnx(path)


def run_onnx(model: Union[Path, bytes], threads: int = 0) -> Run:
    """An ONNX file or model in ONNX Runtime, on a CPU, as a function from images to logits."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    source = str(model) if isinstance(model, Path) else model
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: torch.from_numpy(session.run(None, {name: images.numpy()})[0])


def _compare(run: Run, model: nn.Module, images: torch.Tensor, shapes: Sequence[Tuple[int, ...]]) -> float:
    """The greatest relative error of ``run`` over batches of these ``shapes``, made from ``images``."""
    errors = []
    for batch, height, width in shapes:
        resized = F.interpolate(images, size=(height, width), mode="bilinear", antialias=True)
        chosen = resized[torch.arange(-batch, 0) % len(images)]
        with torch.no_grad():
            wanted, found = model(chosen), run(chosen)
        errors.append(((found - wanted).norm() / wanted.norm()).item())
    return max(errors)


def export(
    model: nn.Module,
    path: Union[str, Path],
    dynamic: bool = False,
    batch_size: int = 1,
    img_size: Optional[int] = None,
    compile: bool = False,
    pictures: Optional[torch.Tensor] = None,
    labels: Optional[Sequence[str]] = None,
    progress: Progress = lambda line: None,
) -> float:
    """Write a network, its norms folded, as a file that takes images ``(B, in_chans, H, W)`` and gives logits.

    The file holds what `_metadata` tells: the model's name, what timm's ``resolve_model_data_config`` gives, and the
    labels; in ONNX as its metadata, in ``.pt2`` in the extra file ``metadata.json``, in AOTInductor's package as its
    metadata.

    Args:
        model: A network in evaluation mode, in float32 on the CPU; it is left as it is.
        path: The file; ``.onnx`` or ``.pt2``.
        dynamic: Any batch and image size, not ``batch_size`` and ``img_size`` alone.
        batch_size: Images at a time.
        img_size: Their side, if not the model's own.
        compile: AOTInductor's package, for this kind of machine, in ``.pt2``.
        pictures: Images ``(N, in_chans, H, W)`` as the network takes them, to choose the ranges of int8 by: the
            network in int8, in ``.onnx``.
        labels: Names of the classes, in order.
        progress: Is told each step.

    Returns:
        The greatest relative error of its logits, over another batch and, if ``dynamic``, other batch sizes and odd
        image sizes.

    Raises:
        ValueError: The path, or the mix of arguments, is not what it may be.
        ModuleNotFoundError: A package of the extra ``export`` is not installed.
        OSError: The file can't be written.
        RuntimeError: A step failed, or the file does not compute what the network computes. Nothing is written.
    """
    path = check_target(path, SUFFIXES)
    if compile and path.suffix.lower() != ".pt2":
        raise ValueError("only a .pt2 file can be compiled.")
    if pictures is not None and path.suffix.lower() != ".onnx":
        raise ValueError("only an .onnx file can be int8.")
    if path.suffix.lower() == ".onnx":
        for package in ("onnx", "onnxruntime", "onnxscript"):
            importlib.import_module(package)
    config = resolve_model_data_config(model, {"img_size": img_size})
    metadata = _metadata(model, config, labels)
    channels, height, width = config["input_size"]
    images = torch.randn(batch_size + 1, channels, height, width, generator=torch.Generator().manual_seed(0))

    with written_whole(path) as partial:
        with _step("exporting", progress):
            # 2: a size of 1 is taken for one that never changes
            example = images[:1].repeat(max(batch_size, 2 if dynamic else 1), 1, 1, 1)
            program = _exported(folded_copy(model), example, dynamic)
        with _step("compiling" if compile else "quantising" if pictures is not None else "writing", progress):
            if path.suffix.lower() == ".onnx":
                run = _write_onnx(program, partial, metadata, pictures)
            else:
                run = (_write_package if compile else _write_pt2)(program, partial, metadata)
        with _step("comparing", progress):
            shapes = [(batch_size, height, width)]
            if dynamic:
                shapes = [(1, height, width), (batch_size + 1, height | 1, (width + 9) | 1)]
            error = _compare(run, model, images if pictures is None else pictures, shapes)
            allowed = TOLERANCE if pictures is None else INT8_TOLERANCE
            if not error <= allowed:
                raise ArithmeticError(f"the logits differ by {error:.2g} of their size, over {allowed:g}")
    return error
