from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from google.protobuf.message import DecodeError, EncodeError
from torch import nn
from torch.nn import functional

from export.errors import ExportError
from export.graph.deploy import DeployModel, Outputs
from export.graph.simplify import simplified
from export.graph.to_onnx import check_graph, export_graph, pooling_matrix
from export.profiles import PROFILES, find_profile
from sfda_edge.labels.label_spaces import LABEL_SPACES
from sfda_edge.models import ModelSpec, build_model


@pytest.mark.parametrize(("size", "pooled"), [(12, 5), (9, 9), (7, 3), (192, 128), (5, 8)])
def test_the_pooling_matrix_is_torchs_adaptive_pooling(size, pooled):
    x = torch.randn(1, 1, size, 1)
    expected = functional.adaptive_avg_pool2d(x, (pooled, 1))[0, 0, :, 0]
    found = torch.from_numpy(pooling_matrix(size, pooled)) @ x[0, 0, :, 0]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("pooled", "expected"),
    [
        ((4, 5), {"AveragePool": 1}),
        ((8, 10), {"AveragePool": 1}),
        ((2, 2), {"MatMul": 2}),  # too large a window
        ((3, 3), {"MatMul": 2}),  # windows of several sizes
        ((1, 1), {"GlobalAveragePool": 1}),
    ],
)
def test_pooling_is_one_node_or_two_products(pooled, expected, monkeypatch):
    monkeypatch.setattr("export.graph.to_onnx._LARGEST_WINDOW", 20)

    class Pool(nn.Module):
        def forward(self, x):
            return functional.adaptive_avg_pool2d(x, pooled)

    example = torch.randn(1, 2, 8, 10)
    graph = export_graph(Pool(), example)
    kinds = Counter(node.op_type for node in graph.graph.node)
    assert {kind: n for kind, n in kinds.items() if kind in ("MatMul", *expected)} == expected
    assert not {"Gather", "Add"} & set(kinds)
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    found = session.run(None, {"image": example.numpy()})[0]
    np.testing.assert_allclose(found, Pool()(example).numpy(), rtol=1e-5, atol=1e-6)


# One of every pair of opset and file format.
FORMATS = {(p.opset, p.ir_version): name for name, p in PROFILES.items()}


@pytest.mark.parametrize("name", FORMATS.values())
def test_every_profile_gets_its_opset_and_file_format(packaged, name):
    deploy = DeployModel(packaged.network, packaged.spec, Outputs(confidence=True)).eval()
    example = torch.zeros((1, *packaged.spec.input_hw, 3), dtype=torch.uint8)
    profile = find_profile(name)
    graph = export_graph(deploy, example, output_names=deploy.outputs.names, profile=profile)
    assert graph.opset_import[0].version == profile.opset
    assert graph.ir_version == profile.ir_version
    onnxruntime.InferenceSession(graph.SerializeToString())


def test_nodes_are_named_by_module_and_carry_nothing_of_the_exporting_machine(graph):
    names = [node.name for node in graph.graph.node]
    assert len(set(names)) == len(names)
    assert "decoder.head/Conv" in names
    content = graph.SerializeToString()
    assert b"stack_trace" not in content
    assert b"site-packages" not in content
    assert b"forward" not in content


def test_branches_carry_nothing_of_the_exporting_machine_either():
    class Branching(nn.Module):
        def forward(self, x):
            return torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x,))

    graph = export_graph(Branching(), torch.ones(1, 2, 4, 4))
    assert "If" in {node.op_type for node in graph.graph.node}
    assert Path(__file__).name.encode() not in graph.SerializeToString()


class KeepsCoordinates(nn.Module):
    """Makes its coordinates anew when the height or width changes, but not with the batch."""

    grid = None

    def forward(self, x):
        if self.grid is None or self.grid.shape[2:] != x.shape[2:]:
            self.grid = torch.linspace(0, 1, x.shape[3]).expand(len(x), 1, *x.shape[2:]).clone()
        return torch.cat([x, self.grid], 1)


def test_a_network_that_keeps_its_batch_size_has_no_dynamic_one():
    network = KeepsCoordinates().eval()
    network(torch.zeros(1, 2, 4, 4))
    with pytest.raises(ExportError, match=r"fixes the number of images .* without --dynamic-batch"):
        export_graph(network, torch.zeros(2, 2, 4, 4), dynamic_batch=True)


class Attention(nn.Module):
    """Attention that notes whether torch may fuse it: the result would be laid out in another way.

    Of transformers' BEiT and Swin the exporter then fails to reshape it; of this one it does not.
    """

    may_fuse = None

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.begin, self.end = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 3, 1)

    def forward(self, image):
        found = self.begin(image)
        batch, channels, height, width = found.shape
        heads = found.flatten(2).view(batch, 2, channels // 2, -1).transpose(2, 3)
        Attention.may_fuse = torch.backends.cuda.flash_sdp_enabled()
        found = functional.scaled_dot_product_attention(heads, heads, heads)
        found = found.transpose(1, 2).reshape(batch, height * width, channels)
        found = self.end(found.transpose(1, 2).view(batch, channels, height, width))
        return functional.interpolate(found, scale_factor=4.0, mode="bilinear")


def test_attention_is_exported_unfused_and_computes_the_same():
    network, image = Attention().eval(), torch.rand(1, 3, 16, 32)
    graph = export_graph(network, image)
    assert Attention.may_fuse is False
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    (found,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, network(image).numpy(), atol=1e-5)


def test_a_graph_above_the_limit_of_a_file_is_said_so(graph, monkeypatch):
    def too_large(*_, **__):
        raise EncodeError("Failed to serialize proto")

    monkeypatch.setattr("onnx.checker.check_model", too_large)
    with pytest.raises(ExportError, match="the exported graph is above 2 GB"):
        check_graph(graph, "the exported graph")


def test_a_dynamic_batch_answers_image_by_image(packaged, frames):
    deploy = DeployModel(packaged.network, packaged.spec, Outputs("full", True, True)).eval()
    example = torch.zeros((2, *packaged.spec.input_hw, 3), dtype=torch.uint8)
    graph = export_graph(deploy, example, output_names=deploy.outputs.names, dynamic_batch=True)
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    whole = session.run(None, {"image": np.stack(frames[:3])})
    for index, frame in enumerate(frames[:3]):
        for together, alone in zip(whole, session.run(None, {"image": frame[None]}), strict=True):
            np.testing.assert_allclose(together[index], alone[0], atol=1)


def test_simplifying_removes_what_does_nothing_and_keeps_what_it_cannot_read(caplog):
    inputs = [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 2])]
    outputs = [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 2])]
    nodes = [
        onnx.helper.make_node("Identity", ["image"], ["a"], name="a"),
        onnx.helper.make_node("Relu", ["a"], ["y"], name="b"),
    ]
    graph = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "g", inputs, outputs),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
        ir_version=9,
    )
    found = simplified(graph)
    assert [node.op_type for node in found.graph.node] == ["Relu"]
    assert found.ir_version == 9
    graph.graph.node[1].op_type = "NoSuchOperator"
    assert simplified(graph) is graph
    assert "the graph stays as exported" in caplog.text


def test_a_simplified_graph_that_answers_differently_is_not_taken(graph, monkeypatch, caplog):
    load = onnx.load

    def other(path):
        """As if onnxslim had dropped a node that does something."""
        found = load(path)
        for node in found.graph.node:
            if node.op_type == "Mul":
                node.op_type = "Add"
        return found

    monkeypatch.setattr("export.graph.simplify.onnx.load", other)
    assert simplified(graph) is graph
    assert "has another label_map" in caplog.text


def broken(_path):
    raise DecodeError("Error parsing message")


def renamed(path):
    found = onnx.load_model(path)
    for node in found.graph.node:
        for index, name in enumerate(node.output):
            if name == "label_map":
                node.output[index] = "labels"
    found.graph.output[0].name = "labels"
    return found


@pytest.mark.parametrize("load", [broken, renamed])
def test_whatever_onnxslim_leaves_the_original_stays(graph, monkeypatch, caplog, load):
    monkeypatch.setattr("export.graph.simplify.onnx.load", load)
    assert simplified(graph) is graph
    assert "the graph stays as exported" in caplog.text


def test_an_unknown_target_is_named():
    with pytest.raises(ExportError, match="unknown profile 'tpu'; known: cpu, x86-cuda12"):
        find_profile("tpu")


@pytest.mark.slow
def test_espnetv2s_graph_is_small():
    """espnetv2.md: at most 400 nodes at 512x256; the naive export has over 1,100."""
    spec = ModelSpec("espnetv2_s0.5", LABEL_SPACES["cityscapes20"], (256, 512))
    deploy = DeployModel(build_model(spec).eval(), spec).eval()
    graph = export_graph(deploy, torch.zeros((1, 256, 512, 3), dtype=torch.uint8))
    assert len(graph.graph.node) <= 400
