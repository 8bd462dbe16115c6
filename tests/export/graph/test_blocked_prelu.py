from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from export.graph.blocked_prelu import with_blocked_prelu
from export.graph.deploy import DeployModel
from export.graph.ort_session import GraphSession
from export.graph.to_onnx import export_graph
from sfda_edge.models import ModelSpec


class Network(nn.Module):
    """Two PReLUs of channels, on the result of a convolution and of a sum, and one for all."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.PReLU(16))
        self.second = nn.PReLU(16)
        self.third = nn.PReLU()
        self.head = nn.Conv2d(16, 3, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.first(images)
        return self.head(self.third(self.second(x + 0.5 * x.roll(1, 1)) - 1))


@pytest.fixture
def deployed(three_classes):
    """Slopes below 0, between 0 and 1, and above 1."""
    torch.manual_seed(0)
    network = Network().eval()
    for layer in (network.first[1], network.second):
        nn.init.uniform_(layer.weight, -2, 3)
    return DeployModel(network, ModelSpec("user_network:build", three_classes, (32, 64))).eval()


def ops(graph):
    return Counter(node.op_type for node in graph.graph.node)


def test_the_graph_computes_the_same(deployed):
    graph = export_graph(deployed, torch.zeros(1, 32, 64, 3, dtype=torch.uint8))
    assert ops(graph)["PRelu"] == 3
    found = with_blocked_prelu(graph)
    onnx.checker.check_model(found, full_check=True)
    assert ops(found)["PRelu"] == 1  # the one of a single slope
    image = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
    expected, labels = (GraphSession(g)(image)["label_map"] for g in (graph, found))
    np.testing.assert_array_equal(labels, expected)
    assert ops(graph)["PRelu"] == 3, "the graph that was given stays as it is"


@pytest.mark.parametrize("channels", [1, 3, 16])
def test_each_value_is_that_of_prelu(channels):
    """Exactly where x is not negative; the slope of one channel is left to PReLU."""
    rng = np.random.default_rng(channels)
    slope = rng.uniform(-2, 3, (1, channels, 1, 1)).astype(np.float32)
    shape = [1, channels, 8, 8]
    graph = helper.make_graph(
        [helper.make_node("PRelu", ["image", "slope"], ["y"], name="layer/PRelu")],
        "one",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(slope, "slope")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    found = with_blocked_prelu(model)
    onnx.checker.check_model(found, full_check=True)
    assert found.graph.node[-1].name == "layer/PRelu"
    assert ops(found)["PRelu"] == (channels == 1)
    x = rng.normal(0, 10, shape).astype(np.float32)
    x[0, 0, 0, :4] = 0.0, -0.0, 1e-30, -1e-30
    y = GraphSession(found)(x[0])["y"]
    np.testing.assert_allclose(y, np.where(x >= 0, x, slope * x)[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(y[x[0] >= 0], x[0][x[0] >= 0])


def test_a_slope_that_is_computed_and_one_that_is_shared_are_kept_right():
    """Two PReLUs read one slope; a third reads one that is computed, and stays."""
    slope = np.array([0.5, 2.0], np.float32).reshape(1, 2, 1, 1)
    shape = [1, 2, 4, 4]
    nodes = [
        helper.make_node("PRelu", ["image", "slope"], ["a"], name="a/PRelu"),
        helper.make_node("PRelu", ["a", "slope"], ["b"], name="b/PRelu"),
        helper.make_node("Neg", ["slope"], ["computed"], name="Neg"),
        helper.make_node("PRelu", ["b", "computed"], ["y"], name="c/PRelu"),
    ]
    graph = helper.make_graph(
        nodes,
        "shared",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(slope, "slope")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    found = with_blocked_prelu(model)
    onnx.checker.check_model(found, full_check=True)
    assert ops(found)["PRelu"] == 1
    x = np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)
    expected, y = (GraphSession(g)(x[0])["y"] for g in (model, found))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
