"""A graph's weights in other files, wherever a tensor may hide."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from runtime.bundle.onnx_scan import reads_other_files
from runtime.packaged import BUNDLE_DIR


def tensor(external):
    found = helper.make_tensor("weights", TensorProto.FLOAT, [1], [1.0])
    if external:
        found.ClearField("float_data")
        found.data_location = TensorProto.EXTERNAL
        entry = found.external_data.add()
        entry.value, entry.key = "../secret", "location"
    return found


def in_initializer(external):
    return helper.make_graph([], "g", [], [], [tensor(external)])


def in_constant(external):
    node = helper.make_node("Constant", [], ["c"], value=tensor(external))
    return helper.make_graph([node], "g", [], [])


def in_branch(external):
    branch = in_constant(external)
    node = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    return helper.make_graph([node], "g", [], [])


@pytest.mark.parametrize("place", [in_initializer, in_constant, in_branch])
@pytest.mark.parametrize("external", [True, False])
def test_wherever_the_tensor_is(place, external, tmp_path):
    model = helper.make_model(place(external))
    helper.set_model_props(model, {"location": "Berlin"})
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert reads_other_files(path) == external


def test_a_tensor_in_the_defaults_of_a_function_is_seen(tmp_path):
    model = helper.make_model(helper.make_graph([], "g", [], []))
    function = helper.make_function("own", "f", [], [], [], [helper.make_opsetid("", 18)])
    function.attribute_proto.append(helper.make_attribute("weights", tensor(True)))
    model.functions.append(function)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert reads_other_files(path)


def test_a_number_of_a_field_that_others_read_as_a_smaller_one_is_rejected(tmp_path):
    """Protobuf for C++ takes the low 32 bits, and finds the data's place."""
    weights = tensor(True)
    weights.ClearField("data_location")
    content, external_data = weights.SerializeToString(), bytes([13 << 3 | 2])
    assert content.count(external_data) == 1
    content = content.replace(external_data, bytes([0xEA, 0x80, 0x80, 0x80, 0x10]))
    for field in (5, 7):  # an initializer of the graph of a model
        content = bytes([field << 3 | 2]) + varint(len(content)) + content
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="a field of number"):
        reads_other_files(path)


def test_nesting_without_end_is_a_value_error(tmp_path):
    inside = b""
    for _ in range(3000):
        for field in (6, 5, 1):  # the graph of an attribute of a node
            inside = bytes([field << 3 | 2]) + varint(len(inside)) + inside
    path = tmp_path / "model.onnx"
    path.write_bytes(bytes([7 << 3 | 2]) + varint(len(inside)) + inside)
    with pytest.raises(ValueError, match="nested"):
        reads_other_files(path)


def varint(number):
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


@pytest.mark.parametrize("part", ["data_location", "external_data"])
def test_either_sign_is_enough(part, tmp_path):
    graph = in_initializer(True)
    graph.initializer[0].ClearField(part)
    path = tmp_path / "model.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    assert reads_other_files(path)


def test_the_packaged_graph_holds_its_weights():
    assert not reads_other_files(BUNDLE_DIR / "model.onnx")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.integers(0, 200), st.booleans())
def test_any_bytes_are_an_answer_or_a_value_error(tmp_path, content, cut, of_a_graph):
    if of_a_graph:
        content = helper.make_model(in_branch(True)).SerializeToString()[:cut] + content[:5]
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    try:
        found = reads_other_files(path)
    except ValueError:
        return
    assert found in (True, False)
