from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from export.errors import ExportError
from export.graph.deploy import DeployModel, Outputs
from export.graph.ort_session import GraphSession, float_tensors, largest_values, look_inside
from export.graph.to_onnx import export_graph
from export.precision.half import finite_in_half, sensitive_nodes, to_half
from export.precision.half_graph import emulate_half, to_fp16
from export.precision.node_search import first_failing, nodes_to_keep
from export.thresholds import Gate


def chain(*factors, resize=False):
    """image (1, 1, 1, 4) float → multiplied by each factor in turn, as 1x1 convolutions."""
    nodes, constants, value = [], [], "image"
    for index, factor in enumerate(factors):
        kernel = np.full((1, 1, 1, 1), factor, np.float32)
        constants.append(numpy_helper.from_array(kernel, f"w{index}"))
        nodes.append(
            helper.make_node("Conv", [value, f"w{index}"], [f"v{index}"], name=f"conv{index}")
        )
        value = f"v{index}"
    if resize:
        constants.append(numpy_helper.from_array(np.array([1, 1, 1, 2], np.float32), "scales"))
        nodes.append(helper.make_node("Resize", [value, "", "scales"], ["r"], name="resize"))
        value = "r"
    nodes.append(helper.make_node("Identity", [value], ["label_map"], name="end"))
    width = 8 if resize else 4
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, 1, 4])],
        [helper.make_tensor_value_info("label_map", TensorProto.FLOAT, [1, 1, 1, width])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


ALL_NODES = ("conv0", "conv1", "resize", "end")


def run(graph, values):
    image = np.array(values, np.float32).reshape(1, 1, 4)
    return GraphSession(graph)(image)["label_map"].ravel()


def half(values):
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float32).astype(np.float16).astype(np.float32)


@settings(max_examples=25)
@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=4, max_size=4),
    st.floats(-300, 300, width=32),
    st.floats(-300, 300, width=32),
)
def test_the_emulation_rounds_every_value_as_numpys_half_does(values, first, second):
    with np.errstate(over="ignore", invalid="ignore"):
        expected = half(half(half(values) * half(first)) * half(second))
    found = run(emulate_half(chain(first, second)), values)
    np.testing.assert_array_equal(found, expected)


def test_an_overflow_is_seen_where_onnx_runtime_alone_hides_it():
    graph, values = chain(300.0, 300.0, 1 / 90000), [1, 2, 3, 4]
    assert np.isinf(run(emulate_half(graph), values)).all()
    assert np.isfinite(run(to_fp16(graph), values)).all()  # a CPU computes it in single precision


def test_what_would_overflow_or_come_near_stays_single():
    graph = chain(2.0, 300.0, 1 / 90.0)
    near = [np.full((1, 1, 4), 60.0, np.float32)]  # 2 · 300 · 60 is more than a quarter of 65504
    assert sensitive_nodes(graph, near) == {"conv1", "conv2"}
    assert sensitive_nodes(graph, [image / 10 for image in near]) == set()


@pytest.mark.parametrize("single", [(), ("conv0",), ("conv1",), ALL_NODES])
def test_nodes_kept_single_are_exact_and_the_others_half(single):
    graph, values = chain(1.0001, 1.0001, resize=True), [1.0001, 2.0002, 3.0003, 4.0004]
    kept = {"conv0": "conv0" in single, "conv1": "conv1" in single}
    expected = np.asarray(values, np.float32)
    for name in ("conv0", "conv1"):
        factor = np.float32(1.0001)
        exact, rounded = expected * factor, half(half(expected) * half(factor))
        expected = exact if kept[name] else rounded
    expected = expected if single == ALL_NODES else half(expected)
    found = run(emulate_half(graph, single), values)
    np.testing.assert_allclose(found[::2], expected, rtol=1e-6)
    converted = to_fp16(graph, single)
    kinds = {t.name: t.data_type for t in converted.graph.initializer}
    for name, constant in (("conv0", "w0"), ("conv1", "w1")):
        assert (f"{constant}_half" in kinds) != kept[name]
        assert (constant in kinds) == kept[name]
    assert kinds["scales"] == TensorProto.FLOAT


def test_a_quotient_of_what_half_rounds_to_nothing_stays_single():
    """Both are 1e-9 times the image, which half precision has not: 0 / 0 shows in no label map."""
    graph = chain(1e-9)
    graph.graph.node.insert(1, helper.make_node("Relu", ["v0"], ["v1"], name="between"))
    graph.graph.node.insert(2, helper.make_node("Div", ["v1", "v1"], ["q"], name="quotient"))
    graph.graph.node[3].input[0] = "q"
    frame = [np.full((1, 1, 4), 50.0, np.float32)]
    assert np.isnan(run(emulate_half(graph), [50] * 4)).all()
    single = finite_in_half(graph, frame, set())
    assert single == {"quotient", "between", "conv0"}
    np.testing.assert_allclose(run(emulate_half(graph, single), [50] * 4), 1.0)
    assert finite_in_half(chain(2.0), frame, set()) == set()


def test_fp16_really_computes_in_fp16_and_keeps_what_must_not(packaged, frames):
    deploy = DeployModel(packaged.network, packaged.spec, Outputs("full", True, True)).eval()
    example = torch.zeros((1, *packaged.spec.input_hw, 3), dtype=torch.uint8)
    graph = export_graph(deploy, example, output_names=deploy.outputs.names)
    single = sensitive_nodes(graph, frames[:1])
    converted = to_fp16(graph, single)
    inferred = onnx.shape_inference.infer_shapes(converted)
    types = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    for node in converted.graph.node:
        if node.op_type == "Conv" and node.name not in single:
            assert types[node.output[0]] == TensorProto.FLOAT16
        if node.op_type in ("Exp", "ReduceMean"):
            assert types[node.output[0]] == TensorProto.FLOAT
    assert converted.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert not [n for n in single if n.endswith("/Conv")]


def test_control_flow_is_refused():
    graph = chain(1.0)
    inner = helper.make_graph([helper.make_node("Identity", ["image"], ["x"])], "inner", [], [])
    graph.graph.node[0].attribute.append(helper.make_attribute("then_branch", inner))
    with pytest.raises(ExportError, match="control flow"):
        to_fp16(graph)


def test_the_search_gives_the_harmful_nodes_back_to_single_precision(report):
    graph = chain(*[1.0] * 30)

    def judge(single):
        return report(1.0 - 0.02 * ("conv7" not in single) - 0.02 * ("conv20" not in single))

    images = [np.ones((1, 1, 4), np.float32)]
    found = to_half(graph, images, compare=judge, quick_compare=judge)
    assert found.parity.passed
    assert set(found.single) == {"conv7", "conv20"} | sensitive_nodes(graph, images)


def test_the_search_asks_the_gate_no_more_than_it_has_to(report):
    asked, ranked = [], []

    def quick_report(kept):
        return report(1.0 if "n7" in kept else 0.5)

    def judge(kept):
        asked.append(kept)
        return quick_report(kept)

    def progress(steps):
        return (ranked.append(step) or step for step in steps)

    order = [f"n{index}" for index in range(24)]
    assert nodes_to_keep(order, (), compare=judge, quick_compare=quick_report, progress=progress)[
        0
    ] == ("n7",)
    assert [len(kept) for kept in asked] == [0, 12, 6, 3, 1]  # nothing, half, and what bisects it
    assert ranked == order
    asked.clear()
    assert nodes_to_keep(
        order, ("n7",), compare=judge, quick_compare=quick_report, progress=progress
    )[0] == ("n7",)
    assert asked == [("n7",)]
    assert len(ranked) == 24  # nothing was ranked in vain


@given(
    harms=st.lists(st.integers(0, 9), min_size=2, max_size=30),
    budget=st.integers(0, 60),
    data=st.data(),
)
def test_the_search_keeps_the_fewest_that_pass(report, harms, budget, data):
    """Where harms add up, no smaller set of nodes passes than the worst of them."""
    order = [f"n{index}" for index in range(len(harms))]
    start = set(data.draw(st.lists(st.sampled_from(order))))
    free = sorted(h for name, h in zip(order, harms, strict=True) if name not in start)

    def judge(kept):
        harm = sum(h for name, h in zip(order, harms, strict=True) if name not in kept)
        return report(0.99 + (budget + 0.5 - harm) / 1e5)  # passes up to the budget

    kept, found = nodes_to_keep(order, start, compare=judge, quick_compare=judge)
    most = max(0, len(order) // 2 - len(start))
    passing = [n for n in range(most + 1) if sum(free[: len(free) - n]) <= budget]
    assert found.passed == bool(passing)
    assert start <= set(kept)
    assert len(kept) == len(start) + (passing[0] if passing else 0)
    assert found == judge(kept)


def test_what_improves_a_class_is_kept_though_agreement_falls(report):
    share = {"road": 1.0}

    def judge(single):
        iou = 0.97 if "n7" in single else 0.90
        agreement = 0.9969 if "n7" in single else 0.9970
        gate = Gate(label_agreement=0.99, class_iou=0.95, miou_loss=1.0)
        return replace(report(agreement), class_iou={"road": iou}, class_share=share, gate=gate)

    order = [f"n{index}" for index in range(24)]
    kept, found = nodes_to_keep(order, (), compare=judge, quick_compare=judge)
    assert found.passed
    assert kept == ("n7",)


def test_the_probe_sees_tensors_whose_first_axis_is_not_the_batch():
    graph, image = chain(1.0), np.array([[[1, 2, 3, 60000]]], np.float32)
    graph.graph.node[0].input[0] = "u"
    graph.graph.node.insert(0, helper.make_node("Transpose", ["image"], ["t"], perm=[3, 0, 1, 2]))
    graph.graph.node.insert(1, helper.make_node("Transpose", ["t"], ["u"], perm=[1, 2, 3, 0]))
    assert largest_values(graph, [image], ["t"]) == {"t": 60000.0}


@pytest.mark.parametrize("culprit", ["n0", "n7", "n12", "n23"])
def test_a_ranking_that_says_nothing_costs_nodes_and_not_the_gate(report, culprit):
    def judge(kept):
        return report(1.0 if culprit in kept else 0.9)

    order = [f"n{index}" for index in range(24)]
    kept, found = nodes_to_keep(order, (), compare=judge, quick_compare=lambda _kept: report(1.0))
    assert found.passed
    assert culprit in kept
    assert len(kept) <= 12


def test_a_search_that_cannot_help_ends_and_says_so(report):
    graph, images = chain(*[1.0] * 30), [np.ones((1, 1, 4), np.float32)]
    found = to_half(
        graph,
        images,
        compare=lambda _single: report(0.5),
        quick_compare=lambda _single: report(0.5),
    )
    assert not found.parity.passed
    assert set(found.single) == sensitive_nodes(graph, images)  # nothing is given back in vain


@given(count=st.integers(1, 40), data=st.data())
def test_bisection_names_the_node_that_breaks_it(report, count, data):
    names = [f"n{index}" for index in range(count)]
    culprit = data.draw(st.sampled_from(names))
    judged = []

    def judge(some):
        judged.append(some)
        return report(0.5 if culprit in some else 1.0)

    assert first_failing(names, judge) == culprit
    assert len(judged) <= 8
    assert first_failing(names, lambda _some: report(1.0)) is None


@pytest.mark.parametrize(("bytes_a_pass", "passes"), [(1, 3), (40, 2), (2**30, 1)])
def test_values_come_in_as_many_passes_as_memory_wants(monkeypatch, bytes_a_pass, passes):
    monkeypatch.setattr("export.graph.ort_session._BYTES_A_PASS", bytes_a_pass)
    graph, images = chain(2.0, 3.0), [np.full((1, 1, 4), i, np.float32) for i in (1, 2)]
    seen = list(look_inside(graph, images, ["v0", "v1", "label_map"]))  # 16, 16 and 16 bytes
    assert len(seen) == passes * len(images)
    for tensor, factor in (("v0", 2), ("v1", 6), ("label_map", 6)):
        values = [looked[tensor] for looked in seen if tensor in looked]
        assert [float(value.max()) for value in values] == [factor, 2 * factor]


def test_the_probe_sees_every_tensor_and_counts_what_is_no_number_as_infinite():
    graph = chain(2.0, np.inf)
    tensors = float_tensors(graph)
    assert tensors == ["v0", "v1", "label_map"]
    found = largest_values(graph, [np.ones((1, 1, 4), np.float32)], tensors)
    assert found == {"v0": 2.0, "v1": np.inf, "label_map": np.inf}
