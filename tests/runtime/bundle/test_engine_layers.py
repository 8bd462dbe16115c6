"""What an engine's inspector writes: read, or an error."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.bundle.engine_layers import Layer, computed_in, parse_inspection

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Layers", "Inputs", "Outputs", "Name", "LayerType", "Metadata"]), inner
        )
    ),
    max_leaves=12,
)


def test_an_engine_without_details_is_an_error():
    with pytest.raises(ValueError, match="no layer information"):
        parse_inspection(json.dumps({"Layers": ["conv1"]}))


@given(JSON)
def test_any_answer_is_read_or_an_error(answer):
    try:
        layers = parse_inspection(json.dumps(answer))
    except ValueError:
        return
    assert all(isinstance(layer, Layer) for layer in layers)


def test_the_precision_is_that_of_most_layers_that_multiply():
    half = [Layer(("a",), "CONVOLUTION", "HALF"), Layer(("b",), "CASKGEMMCONVOLUTION", "HALF")]
    others = [Layer(("c",), "GEMM", "FLOAT"), *[Layer(("d",), "REFORMAT", "FLOAT")] * 5]
    assert computed_in(half + others) == "fp16"
    assert computed_in(others) == "fp32"
    assert computed_in([Layer(("d",), "REFORMAT", "FLOAT")]) is None
    assert computed_in([Layer(("e",), "CONVOLUTION", "Int4")]) == "int4"
