"""Store and compute the graph in half precision."""

from __future__ import annotations

import onnx

from export.errors import ExportError


def to_fp16(graph: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that computes in fp16; the uint8 input and output stay as they are.

    ONNX Runtime's own converter is used: its twin in onnxconverter-common still breaks Resize and
    Cast (microsoft/onnxconverter-common#208, #272, #320).

    Raises:
        ExportError: the converted graph is not valid ONNX.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    converted = convert_float_to_float16(copy, keep_io_types=True)
    try:
        onnx.checker.check_model(converted, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the fp16 graph is not valid ONNX: {error}") from None
    return converted
