"""A network's ONNX model in int8, for ONNX Runtime and OpenVINO, by ONNX Runtime's own tools."""

import tempfile
from pathlib import Path
from typing import Any, Dict, Optional

import numpy as np
import torch

__all__ = ["quantize"]

OPERATORS = ("Conv", "Gemm", "ReduceMean", "MaxPool", "Resize", "Relu", "Add", "Sigmoid", "Mul")


class _Batches:
    """ONNX Runtime's reader of calibration data."""

    def __init__(self, name: str, images: torch.Tensor, batch_size: int) -> None:
        count = -(-len(images) // batch_size) * batch_size  # whole batches; the last one begins anew
        self.batches = iter(images[torch.arange(count) % len(images)].split(batch_size))
        self.name = name

    def get_next(self) -> Optional[Dict[str, Any]]:
        batch = next(self.batches, None)
        return None if batch is None else {self.name: batch.numpy()}


def _norms_as_convolutions(model: Any) -> None:
    """Make batch norms depthwise 1x1 convolutions, which have a kernel in int8: after a sum they can't be folded."""
    from onnx import helper, numpy_helper

    values = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "BatchNormalization":
            continue
        scale, shift, mean, var = (numpy_helper.to_array(values[name]) for name in node.input[1:5])
        eps = next((attribute.f for attribute in node.attribute if attribute.name == "epsilon"), 1e-5)
        weight = scale / np.sqrt(var + np.float32(eps))
        inputs = {
            f"{node.output[0]}.weight": weight.reshape(-1, 1, 1, 1),
            f"{node.output[0]}.bias": shift - mean * weight,
        }
        model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in inputs.items())
        convolution = helper.make_node(
            "Conv", [node.input[0], *inputs], [node.output[0]], name=node.name, group=len(weight), kernel_shape=[1, 1]
        )
        node.CopyFrom(convolution)
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def quantize(model: Any, images: torch.Tensor) -> Any:
    """An `onnx.ModelProto` in int8: weights by channel, activations by tensor.

    Args:
        model: The float32 model, its norms folded; it is changed.
        images: ``(N, in_chans, H, W)``, such as it will see; they choose the ranges of the activations.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    _norms_as_convolutions(model)
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
