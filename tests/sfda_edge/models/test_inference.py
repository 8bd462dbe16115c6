from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch

from sfda_edge.errors import CheckpointError
from sfda_edge.models.inference import main_output

LOGITS, OTHER = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        {"out": LOGITS, "aux": OTHER},
        OrderedDict(logits=LOGITS, loss=OTHER),
        SimpleNamespace(logits=LOGITS, hidden_states=OTHER),
        (LOGITS, OTHER),
        [LOGITS],
    ],
    ids=["tensor", "torchvision", "mapping", "hugging face", "tuple", "list"],
)
def test_the_usual_forms_give_the_logits(output):
    assert main_output(output) is LOGITS


@pytest.mark.parametrize(
    ("output", "named"),
    [
        ({"masks": LOGITS}, "dict with masks"),
        ((), "tuple"),
        ([{"out": LOGITS}], "list"),
        (None, "NoneType"),
        ("road", "str"),
        (SimpleNamespace(logits=3), "SimpleNamespace"),
    ],
)
def test_anything_else_is_rejected_by_name(output, named):
    with pytest.raises(CheckpointError, match=f"returned {named};"):
        main_output(output)
