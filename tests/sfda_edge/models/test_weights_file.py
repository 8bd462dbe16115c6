"""Checkpoints as people save them, and files that only look like some."""

import argparse
import logging
import os
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations

from sfda_edge.errors import CheckpointError
from sfda_edge.models.checkpoint import load_weights
from sfda_edge.models.weights_file import read_weights


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


STATE = network().state_dict()
OTHER = {key: value + 1 for key, value in STATE.items()}


def prefixed(prefix, state=STATE):
    return {prefix + key: value for key, value in state.items()}


def loads(path, content, key=None):
    torch.save(content, path)
    model = network()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.zero_()
    load_weights(model, path, "the network", key=key)
    return model.state_dict()


def equal(found, expected=STATE):
    return all(torch.equal(found[key], expected[key]) for key in expected)


FORMS = {
    "plain": STATE,
    "state_dict": {"state_dict": STATE, "epoch": 3},
    "nested twice": {"checkpoint": {"model": {"weights": STATE}}},
    "data parallel": prefixed("module."),
    "compiled": prefixed("_orig_mod."),
    "compiled inside": {f"{k[:1]}._orig_mod.{k[2:]}": v for k, v in STATE.items()},
    "averaged": {"n_averaged": torch.tensor(7), **prefixed("module.")},
    "lightning": {"state_dict": {**prefixed("model."), "criterion.weight": torch.ones(2)}},
    "with mean and std": {"state_dict": {"std": torch.ones(3), **prefixed("model.")}},
    "student": prefixed("student."),
    "deep": prefixed("a.b.c."),
    "counted": {**STATE, "0.total_ops": torch.zeros(1), "total_params": torch.zeros(1)},
    "averaged apart": {"epoch": 1, "state_dict_ema": STATE},
    "arguments beside": {"model": STATE, "args": argparse.Namespace(lr=0.1, name="x")},
    "best score beside": {"model": STATE, "best": np.float64(0.5), "epoch": np.int64(3)},
    "numbers as keys": {**STATE, 5: torch.zeros(1), (1, 2): "x"},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_usual_form_loads(form, tmp_path):
    assert equal(loads(tmp_path / "a.pt", FORMS[form]))


def test_a_wrappers_missing_prefix_is_added(tmp_path):
    wrapper = nn.ModuleDict({"net": network()})
    torch.save(OTHER, tmp_path / "a.pt")
    load_weights(wrapper, tmp_path / "a.pt", "the wrapper")
    assert equal(wrapper["net"].state_dict(), OTHER)


@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
def test_former_weight_norms_load_into_parametrizations(norm, tmp_path):
    torch.manual_seed(1)
    old = nn.Sequential(getattr(nn.utils, norm)(nn.Conv2d(3, 4, 1)))
    new = nn.Sequential(getattr(parametrizations, norm)(nn.Conv2d(3, 4, 1)))
    torch.save({"module." + k: v for k, v in old.state_dict().items()}, tmp_path / "a.pt")
    load_weights(new, tmp_path / "a.pt", "the network")
    image = torch.rand(1, 3, 2, 2)
    torch.testing.assert_close(new.eval()(image), old.eval()(image))


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({"model": STATE, "model_ema": OTHER}, ("model", "model_ema")),
        ({"state_dict": {**prefixed("model."), **prefixed("ema_model.", OTHER)}}, None),
    ],
)
def test_of_two_sets_of_weights_one_is_named_and_either_can_be_taken(
    content, names, tmp_path, caplog
):
    first, second = names or ("state_dict.model", "state_dict.ema_model")
    assert equal(loads(tmp_path / "a.pt", content))
    assert f"2 sets of weights that fit ({first}, {second}); '{first}' is used" in caplog.text
    caplog.clear()
    assert equal(loads(tmp_path / "a.pt", content, second), OTHER)
    assert "sets of weights" not in caplog.text
    with pytest.raises(CheckpointError, match=f"no state dict 'best'; it holds {first}"):
        loads(tmp_path / "a.pt", content, "best")


def test_what_is_left_out_is_logged(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    loads(tmp_path / "a.pt", FORMS["lightning"])
    assert "a.pt: criterion.weight" in caplog.text


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        (torch.ones(2, 4, 1, 1).to_sparse(), "sparse"),
        (torch.ones(2, 4, 1, 1, device="meta"), "without values"),
    ],
)
def test_tensors_that_no_parameter_takes_are_named(tensor, kind, tmp_path):
    with pytest.raises(CheckpointError, match=rf"2\.weight is {kind}"):
        loads(tmp_path / "a.pt", {**STATE, "2.weight": tensor})


def test_a_dictionary_that_contains_itself_ends(tmp_path):
    content = {"model": STATE}
    content["self"] = content
    assert equal(loads(tmp_path / "a.pt", content))


def test_a_fifo_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="it is a FIFO"):
        read_weights(tmp_path / "a.pt")


leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
keys = st.text(max_size=6) | st.integers()
tensors = st.builds(lambda size: torch.zeros(size), st.integers(0, 3))
contents = st.recursive(
    leaves | tensors,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=12,
)


@given(contents)
def test_any_content_is_read_or_rejected(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "a.pt"
    torch.save(content, path)
    for expected in ((), STATE.keys()):
        try:
            found = read_weights(path, expected)
        except CheckpointError:
            continue
        assert all(isinstance(tensor, torch.Tensor) for tensor in found.values())


@given(st.binary(max_size=200), st.sampled_from([".pt", ".safetensors"]))
def test_any_bytes_are_rejected_by_name(tmp_path_factory, content, suffix):
    path = tmp_path_factory.mktemp("bytes") / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="a\\" + suffix):
        read_weights(path, STATE.keys())


class Evil:
    def __reduce__(self):
        return (print, ("this must never be printed",))


def test_pickled_code_is_never_run(tmp_path, capsys):
    (tmp_path / "a.pt").write_bytes(pickle.dumps({"state_dict": STATE, "x": Evil()}))
    torch.save({"state_dict": STATE, "x": Evil()}, tmp_path / "b.pt")
    for name in ("a.pt", "b.pt"):
        with pytest.raises(CheckpointError, match=name):
            read_weights(tmp_path / name, STATE.keys())
    assert "never be printed" not in capsys.readouterr().out
