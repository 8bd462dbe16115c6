from collections import Counter

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from export.errors import ExportError
from export.graph.ort_session import GraphSession, float_tensors
from export.precision.calibration import (
    calibrate,
    entropy_bins,
    magnitudes,
    percentile_bins,
    require_frames,
)
from export.precision.int8 import Quantised, int8_facts, timing_text, to_int8
from export.precision.int8_graph import quantisable_nodes, quantised_graph, through_activations
from export.thresholds import LEAST_CALIBRATION_FRAMES


def network(*factors, activation=None):
    """image (1, 1, 2, 4) float → 1x1 convolutions, each followed by the activation."""
    nodes, constants, value = [], [], "image"
    for index, factor in enumerate(factors):
        kernel = np.full((1, 1, 1, 1), factor, np.float32)
        constants.append(numpy_helper.from_array(kernel, f"w{index}"))
        name = f"conv{index}"
        nodes.append(helper.make_node("Conv", [value, f"w{index}"], [f"c{index}"], name=name))
        value = f"c{index}"
        if activation:
            nodes.append(helper.make_node(activation, [value], [f"a{index}"], name=f"act{index}"))
            value = f"a{index}"
    nodes.append(helper.make_node("Neg", [value], ["label_map"], name="end"))
    shape = [1, 1, 2, 4]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("label_map", TensorProto.FLOAT, shape)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_statistics_beside_the_label_map_stay_as_they_are():
    graph = network(2.0, 3.0)
    beside = [
        helper.make_node("GlobalMaxPool", ["c0"], ["peak"], name="peak"),
        helper.make_node("Concat", ["peak", "peak"], ["health"], name="health", axis=1),
        helper.make_node("Conv", ["c0", "w1"], ["unused"], name="unused"),
    ]
    graph.graph.node.extend(beside)
    shape = helper.make_tensor_value_info("health", TensorProto.FLOAT, [1, 2, 1, 1])
    graph.graph.output.append(shape)
    assert [node.name for node in quantisable_nodes(graph)] == ["conv0", "conv1"]


@pytest.mark.parametrize(
    ("times_ms", "verdict"),
    [
        ((3, 2, 4), "slower than fp16"),
        ((5, 4, 3), "slower than fp16 and fp32"),
        ((1, 2, 3), "the fastest"),
    ],
)
def test_whether_int8_pays_is_said(times_ms, verdict):
    facts = dict(zip(("int8_ms", "fp16_ms", "fp32_ms"), times_ms, strict=True))
    assert timing_text(facts).endswith(f"int8 is {verdict}")


def test_times_are_told_of_a_graph_that_has_no_half_too():
    facts = {"int8_ms": 2.0, "fp16_ms": None, "fp32_ms": 3.0}
    said = "a frame takes 2.0 ms in int8, 3.0 ms in fp32: int8 is the fastest"
    assert timing_text(facts) == said


def test_int8_of_a_graph_with_control_flow_has_no_time_in_half(monkeypatch, report):
    def refused(_graph):
        raise ExportError("half precision of a graph with control flow (If, Loop) is not built")

    monkeypatch.setattr("export.precision.int8.to_fp16", refused)
    graph = network(2.0)
    found = Quantised(
        graph=graph,
        source=graph,
        rule="entropy",
        tried={},
        limits={},
        int32_bias=False,
        kept=(),
        quantised=("conv0",),
        single=(),
        parity=report(1.0),
    )
    facts = int8_facts(found, found.source, [IMAGE])
    assert facts.fp16_ms is None
    assert min(facts.int8_ms, facts.fp32_ms) >= 0


IMAGE = np.linspace(-2, 5, 8, dtype=np.float32).reshape(1, 2, 4)


@given(st.integers(0, 1000), st.floats(0.1, 100))
def test_magnitudes_are_numpys_histogram_without_the_zeros(seed, scale):
    values = np.random.default_rng(seed).normal(0, scale, 500).astype(np.float32)
    values[::3] = 0
    limit = float(np.abs(values).max())
    expected, _ = np.histogram(np.abs(values[values != 0]), 2048, (0, limit))
    found = magnitudes(values, limit)
    assert found.sum() == expected.sum()
    assert np.abs(np.cumsum(found) - np.cumsum(expected)).max() <= 2  # rounding at a bin's edge


def test_a_tensor_of_zeros_says_nothing():
    assert magnitudes(np.zeros(9, np.float32), 0.0).sum() == 0
    assert entropy_bins(np.zeros(2048, np.int64)) == 2048
    assert percentile_bins(np.zeros(2048, np.int64)) == 2048


def test_percentile_cuts_off_one_in_ten_thousand():
    histogram = np.zeros(2048, np.int64)
    histogram[:100], histogram[-1] = 1000, 5  # 5 of 100005 are far away
    assert percentile_bins(histogram) == 100
    histogram[-1] = 50
    assert percentile_bins(histogram) == 2048


def test_entropy_keeps_a_plain_range_whole_and_cuts_off_far_outliers():
    plain = np.full(2048, 100, np.int64)
    assert entropy_bins(plain) == 2048
    tail = np.zeros(2048, np.int64)
    tail[:400] = 10000 * np.exp(-((np.arange(400) / 80) ** 2) / 2)
    tail[-1] = 1
    assert 150 < entropy_bins(tail) < 500


def test_every_rule_finds_a_limit_for_every_tensor():
    graph = network(2.0, -3.0, activation="Relu")
    limits = calibrate(graph, [IMAGE, IMAGE / 2], float_tensors(graph))
    assert set(limits) == {"min-max", "percentile", "entropy"}
    assert limits["min-max"] == {"c0": 10.0, "a0": 10.0, "c1": 30.0, "a1": 0.0, "label_map": 0.0}
    for found in limits.values():
        assert all(found[name] <= limits["min-max"][name] + 1e-5 for name in found)


def test_what_goes_into_a_relu_alone_reaches_no_further_than_its_answer():
    graph = network(2.0, -3.0, activation="Relu")
    limits = {"c0": 145.0, "a0": 6.0, "c1": 7.0, "a1": 9.0, "label_map": 9.0}
    expected = {**limits, "c0": 6.0}
    assert through_activations(graph, limits) == expected
    read_twice = network(2.0, activation="Relu")
    read_twice.graph.node[-1].op_type = "Add"
    read_twice.graph.node[-1].input.append("c0")
    assert through_activations(read_twice, limits)["c0"] == 145.0


def fake_quantised(values, limit):
    scale = np.float32(limit) / np.float32(127.5)
    return np.clip(np.round(values / scale), -128, 127) * scale


def test_the_graph_computes_what_numpys_fake_quantisation_does():
    graph = network(0.5, 0.25)
    limits = {"image": 5.0, "c0": 2.5, "c1": 0.6, "label_map": 0.6}
    kernels = [np.float32(0.5), np.float32(0.25)]  # one level of 127 each: exact
    values = fake_quantised(IMAGE, 5.0) * kernels[0]
    values = fake_quantised(values, 2.5) * kernels[1]
    expected = -fake_quantised(values, 0.6)
    made = quantised_graph(graph, limits, ())
    found = GraphSession(made)(IMAGE)["label_map"]
    np.testing.assert_allclose(found, expected, atol=0.6 / 127)
    kinds = Counter(node.op_type for node in made.graph.node)
    assert kinds["QuantizeLinear"] == 3
    weights = [t for t in made.graph.initializer if "w0" in t.name or "w1" in t.name]
    assert TensorProto.INT8 in {t.data_type for t in weights}
    points = [t for t in made.graph.initializer if "zero_point" in t.name]
    assert all(not numpy_helper.to_array(t).any() for t in points)  # symmetric


def test_products_do_not_overflow_where_a_processor_adds_them_in_pairs():
    """All at their largest, of one sign: 255 · 127 twice is beyond 16 bits (no VNNI: AVX2)."""
    channels = 32
    shape = [1, channels, 2, 4]
    kernel = numpy_helper.from_array(np.ones((4, channels, 1, 1), np.float32), "w")
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "w"], ["c"], name="conv"),
            helper.make_node("Neg", ["c"], ["label_map"], name="end"),
        ],
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("label_map", TensorProto.FLOAT, [1, 4, 2, 4])],
        [kernel],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    made = quantised_graph(model, {"image": 1.0, "c": 40.0, "label_map": 40.0}, ())
    found = GraphSession(made)(np.ones(shape[1:], np.float32))["label_map"]
    np.testing.assert_allclose(found, -channels, rtol=0.02)


def test_kept_nodes_stay_in_floating_point():
    limits = {"image": 5.0, "c0": 2.5, "c1": 0.6, "label_map": 0.6}
    made = quantised_graph(network(0.5, 0.25), limits, ["conv0", "conv1"])
    assert "QuantizeLinear" not in {node.op_type for node in made.graph.node}


def test_a_constant_that_is_added_stays_in_floating_point():
    graph = network(0.5)
    graph.graph.initializer.append(numpy_helper.from_array(np.float32(3), "three"))
    end = graph.graph.node[-1]
    end.op_type, end.name = "Add", "end"
    end.input.append("three")
    made = quantised_graph(graph, {"image": 5.0, "c0": 2.5, "label_map": 6.0}, ())
    readers = {name: node.op_type for node in made.graph.node for name in node.input}
    assert readers["three"] == "Add"
    np.testing.assert_allclose(GraphSession(made)(IMAGE)["label_map"], IMAGE / 2 + 3, atol=0.05)


def photograph(seed):
    rows = np.random.default_rng(seed).integers(0, 200, (6, 1, 3))
    return np.repeat(rows + np.arange(0, 48, 2)[None, :, None], 1, 0).astype(np.uint8)


def test_too_few_frames_and_noise_are_refused():
    random = np.random.default_rng(0)
    noise = [
        random.integers(0, 256, (24, 32, 3), np.uint8) for _ in range(LEAST_CALIBRATION_FRAMES)
    ]
    photographs = [photograph(seed) for seed in range(LEAST_CALIBRATION_FRAMES)]
    require_frames(photographs)
    few = r"needs 8 different target frames other than .* 7 are left for it"
    with pytest.raises(ExportError, match=few):
        require_frames(photographs[1:])
    with pytest.raises(ExportError, match=few):
        require_frames([*photographs[1:], photographs[-1]])
    with pytest.raises(ExportError, match="look like noise"):
        require_frames(noise)


def test_the_search_keeps_what_harms_and_quantises_the_rest(graph, frames, report, calibration):

    def compare(candidate):
        """As if the first projection alone did harm."""
        quantised = {
            node.name: node.input[0].endswith("DequantizeLinear_Output")
            for node in candidate.graph.node
            if node.op_type == "Conv"
        }
        return report(0.5 if quantised["encoder._blocks.0._bn2/Conv"] else 1.0)

    found = to_int8(graph, calibration, compare=compare, quick_compare=compare)
    assert found.parity.passed
    assert found.kept == ("encoder._blocks.0._bn2/Conv",)
    assert len(found.quantised) > 40
    assert set(found.tried) == {"min-max", "percentile", "entropy"}
    assert found.first_failing(lambda _graph: report(1.0)) is None


def test_the_int8_graph_is_smaller_and_has_the_files_own_format(graph, frames):
    limits = calibrate(graph, frames[:2], float_tensors(graph))["min-max"]
    made = quantised_graph(graph, limits, ())
    assert made.ByteSize() < graph.ByteSize() / 2
    assert made.ir_version == graph.ir_version
    assert made.opset_import[0].version == graph.opset_import[0].version
    onnx.checker.check_model(made, full_check=True)
