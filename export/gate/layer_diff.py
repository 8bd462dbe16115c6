"""The first layer at which a graph differs from the torch model that it was exported from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from export.graph.ort_session import look_inside

# Of a layer's largest value: sums in another order differ by far less.
_TOLERANCE = 1e-2


def first_diverging(
    graph: onnx.ModelProto, network: nn.Module, run: Callable[[], object], image: np.ndarray
) -> str | None:
    """The first layer whose output differs by more than ``_TOLERANCE``.

    Nodes are named by the modules that they come from, so that a module's output can be compared
    with that of its last node; where the exporter has merged layers, it is the last of them.

    Args:
        graph: in single precision, its nodes named ``module.path/Operator``.
        network: the modules that the names speak of.
        run: calls the torch model on ``image``.
        image: (H, W, 3) uint8.

    Returns:
        the module's path; None when no layer differs, or none can be compared.
    """
    expected = _outputs(network, run)
    tensors = {
        node.name.rpartition("/")[0]: node.output[0]
        for node in graph.graph.node
        if node.name.rpartition("/")[0] in expected
    }
    found: dict[str, np.ndarray] = {}
    for values in look_inside(graph, [image], list(tensors.values())):
        found |= values
    for module, tensor in tensors.items():
        if _differs(expected[module], found[tensor]):
            return module
    return None


def _outputs(network: nn.Module, run: Callable[[], object]) -> dict[str, np.ndarray]:
    """The output of every module of a network, in order."""
    outputs: dict[str, np.ndarray] = {}

    def note(name: str):
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                outputs[name] = output.detach().numpy().copy()

        return hook

    hooks = [m.register_forward_hook(note(name)) for name, m in network.named_modules() if name]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in hooks:
            handle.remove()
    return outputs


def _differs(expected: np.ndarray, found: np.ndarray) -> bool:
    if expected.shape != found.shape:
        return False  # the exporter wrote this part in another way
    near = np.abs(expected - found).max() <= _TOLERANCE * np.abs(expected).max()
    return not near  # NaN is near nothing
