"""The layers of a network or engine with the types that they compute in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from export.errors import ExportError
from runtime.bundle.engine_layers import Layer, multiplies, parse_inspection

if TYPE_CHECKING:  # TensorRT for RTX has the same interface; tests compare the names we use
    import tensorrt


def io_types(network: tensorrt.INetworkDefinition) -> dict[str, str]:
    """Type and shape of each input and output, by name."""
    ports = [network.get_input(index) for index in range(network.num_inputs)]
    ports += [network.get_output(index) for index in range(network.num_outputs)]
    return {port.name: f"{_name_of(port.dtype)} {_sides(port.shape)}" for port in ports}


def _sides(shape: tensorrt.Dims) -> str:
    return "x".join(str(shape[axis]) for axis in range(len(shape)))


def typed_layers(network: tensorrt.INetworkDefinition) -> list[Layer]:
    """The layers of a strongly typed network, each with the type that it computes in."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    makers = {
        layer.get_output(out).name: _name_of(layer.type)
        for layer in layers
        for out in range(layer.num_outputs)
    }
    return [
        Layer((layer.name,), _name_of(layer.type), _type_of(layer, makers))
        for layer in layers
        if layer.num_outputs
    ]


def _type_of(layer: tensorrt.ILayer, makers: Mapping[str, str]) -> str:
    """INT8 of a layer that multiplies what a dequantisation feeds it: the builder fuses the two."""
    if multiplies(_name_of(layer.type)) and makers.get(layer.get_input(0).name) == "DEQUANTIZE":
        return "INT8"
    return _name_of(layer.get_output(0).dtype)


def _name_of(value: Any) -> str:
    return str(value).rpartition(".")[2]


def inspected_layers(trt: Any, messages: Any, engine: bytes) -> list[Layer]:
    """The layers of a built engine, as its inspector tells them; needs the GPU that it is for.

    Raises:
        ExportError: the engine does not load, or keeps no information.
    """
    loader: tensorrt.Runtime = trt.Runtime(messages)
    loaded = loader.deserialize_cuda_engine(engine)
    if loaded is None:
        raise ExportError(f"the engine that was just built does not load: {messages.reason()}")
    inspector = loaded.create_engine_inspector()
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    try:
        return parse_inspection(text)
    except ValueError as error:
        raise ExportError(str(error)) from None
