"""A network's ONNX model in int8, for ONNX Runtime and OpenVINO, by ONNX Runtime's own tools."""

import tempfile
from pathlib import Path
from typing import Any, Dict, Optional

import torch

__all__ = ["quantize"]

OPERATORS = ("Conv", "MaxPool", "Add", "Mul", "Sigmoid", "Resize", "Relu")


class _Batches:
    """ONNX Runtime's reader of calibration data."""

    def __init__(self, name: str, images: torch.Tensor, batch_size: int) -> None:
        count = -(-len(images) // batch_size) * batch_size  # whole batches; the last one begins anew
        self.batches = iter(images[torch.arange(count) % len(images)].split(batch_size))
        self.name = name

    def get_next(self) -> Optional[Dict[str, Any]]:
        batch = next(self.batches, None)
        return None if batch is None else {self.name: batch.numpy()}


def quantize(model: Any, images: torch.Tensor) -> Any:
    """An `onnx.ModelProto` with its convolutions in int8: weights by channel, activations of eight bits by tensor.

    Args:
        model: The float32 model, its norms folded.
        images: ``(N, in_chans, H, W)``, such as it will see; they choose the ranges of the activations.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    add_pre_process_metadata(model)  # the exporter has done what the tool would warn of
    inputs = model.graph.input[0]
    batch_size = inputs.type.tensor_type.shape.dim[0].dim_value or 8
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        quantize_static(
            model,
            path,
            _Batches(inputs.name, images, batch_size),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*OPERATORS],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(path)
