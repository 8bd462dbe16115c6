"""Run directories that something has damaged, or that were never ours."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfda_edge.errors import RunError
from sfda_edge.models.source_model import ModelRequest, load_source
from sfda_edge.runs.directory import RunDirectory, read_run, resumable_run
from sfda_edge.runs.metrics import open_metrics, read_metrics
from sfda_edge.runs.state import read_state, save_state

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
names = st.sampled_from(["inputs", "result", "versions", "arguments", "state", "threads", "x"])


@given(st.dictionaries(names, values) | values)
def test_any_json_is_a_run_or_none(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("run")
    (folder / "run.json").write_text(json.dumps(content))
    facts = read_run(folder)
    assert isinstance(facts.get("inputs", {}), dict)
    assert isinstance(facts.get("arguments", []), list)
    try:
        assert isinstance(resumable_run(folder)["inputs"], dict)
    except RunError as error:
        assert str(folder) in str(error)  # noqa: PT017
    try:
        RunDirectory(folder, {"method": "bn"}, "", resume=True)
    except RunError as error:
        assert str(folder) in str(error)  # noqa: PT017


@given(st.binary(max_size=100))
def test_any_bytes_are_a_run_or_none(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("run")
    (folder / "run.json").write_bytes(content)
    (folder / "metrics.jsonl").write_bytes(content)
    assert isinstance(read_run(folder), dict)
    assert isinstance(read_metrics(folder), list)
    open_metrics(folder, 3).close()


@given(st.lists(st.dictionaries(st.sampled_from(["step", "loss"]), values) | values))
def test_any_lines_are_metrics_or_left_out(tmp_path_factory, lines):
    folder = tmp_path_factory.mktemp("run")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    kept = read_metrics(folder)
    assert all(isinstance(line["step"], int | float) for line in kept)
    open_metrics(folder, 2).close()
    assert all(line["step"] <= 2 for line in read_metrics(folder))


def test_what_is_no_finite_number_is_not_recorded(tmp_path):
    directory = RunDirectory(tmp_path / "run", {"a": 1}, "")
    with pytest.raises(ValueError, match="not JSON compliant"):
        directory.finish({"loss": float("inf")})


@given(st.integers(0, 10**6), st.integers(0, 7))
def test_one_bit_flipped_in_a_checkpoint_is_found(tmp_path_factory, place, bit):
    path = tmp_path_factory.mktemp("state") / "last.pt"
    save_state(path, {"next_step": 3, "model": {}})
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(RunError, match="is damaged, or of an older version"):
        read_state(path)


@pytest.mark.parametrize("content", [b"", b"x" * 10, None])
def test_a_checkpoint_that_is_empty_cut_off_or_missing_is_an_error(tmp_path, content):
    path = tmp_path / "last.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError, match=r"last\.pt"):
        read_state(path)


@pytest.mark.parametrize("name", ["run.json", "model.json", "adapted.safetensors"])
def test_a_fifo_in_a_run_does_not_block(tmp_path, name):
    os.mkfifo(tmp_path / name)
    assert read_run(tmp_path) == {}
    with pytest.raises(Exception, match=r"FIFO|holds no weights|does not exist"):
        load_source(ModelRequest(tmp_path))
