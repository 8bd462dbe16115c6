"""The time line: whole, readable when cut off, and of every stage."""

import json
import threading
import time
from pathlib import Path

import pytest

from runtime import stream
from runtime.errors import SinkError
from runtime.trace import TraceFile


def events_of(text):
    """What Perfetto and Chrome take: an array that may lack its end."""
    text = text.rstrip()
    whole = text if text.endswith("]") else text[: text.rindex("\n")].rstrip(",\n") + "]"
    return json.loads(whole)


def test_every_stage_of_every_frame_is_in_it(in_empty_folder):
    command = ["streetsynth", "--frames", "5", "--trace", "trace.json", "--jsonl", "out.jsonl"]
    assert stream.main(command) == 0
    events = events_of((in_empty_folder / "trace.json").read_text())
    spans = [event for event in events if event["ph"] == "X"]
    for stage in ("read", "resize", "infer", "output", "JsonLinesSink"):
        frames = sorted(event["args"]["frame"] for event in spans if event["name"] == stage)
        assert frames == list(range(5)), stage
    waits = [event for event in events if event["name"] == "queue"]
    assert sorted((e["id"], e["ph"]) for e in waits) == [(i, p) for i in range(5) for p in "be"]
    # On one line nothing overlaps but what holds another.
    for track in {event["tid"] for event in spans}:
        line = sorted((e["ts"], -e["dur"]) for e in spans if e["tid"] == track)
        open_until = []
        for begin, length in line:
            open_until = [end for end in open_until if end > begin]
            assert all(begin - length <= end + 1e-3 for end in open_until)
            open_until.append(begin - length)
    infers = {e["args"]["frame"]: e for e in spans if e["name"] == "infer"}
    lines = [json.loads(line) for line in (in_empty_folder / "out.jsonl").read_text().splitlines()]
    for line in lines:
        infer_ms = line["stage_ms"]["infer"]
        assert infers[line["frame"]]["dur"] / 1000 == pytest.approx(infer_ms, abs=1e-3)
    names = {e["args"]["name"].rpartition(": ")[2] for e in events if e["ph"] == "M"}
    assert {"reader", "inference", "waiting"} <= names


def test_a_trace_that_was_cut_off_can_be_read(tmp_path):
    trace = TraceFile(tmp_path / "trace.json")
    for index in range(50):
        trace.span("camera", "infer", frame=index, start_ns=index * 1000, end_ns=index * 1000 + 500)
    trace._file.flush()
    text = (tmp_path / "trace.json").read_text()
    for end in (len(text), len(text) - 30):
        assert len([e for e in events_of(text[:end]) if e["ph"] == "X"]) >= 48
    trace.close()
    trace.span("camera", "infer", frame=51, start_ns=0, end_ns=1)  # a thread that is late
    trace.close()
    assert (
        len([e for e in events_of((tmp_path / "trace.json").read_text()) if e["ph"] == "X"]) == 50
    )


def test_threads_write_whole_lines(tmp_path):
    with TraceFile(tmp_path / "trace.json") as trace:

        def write(name):
            for index in range(200):
                trace.span(name, "infer", frame=index, start_ns=index, end_ns=index + 1)

        threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    events = events_of((tmp_path / "trace.json").read_text())
    assert len([event for event in events if event["ph"] == "X"]) == 800


def test_a_full_disk_is_an_error(tmp_path, full_disk):
    def fill():
        with TraceFile(tmp_path / "trace.json") as trace:
            for index in range(1000):
                trace.span("camera", "infer", frame=index, start_ns=0, end_ns=1)

    with full_disk(2000), pytest.raises(SinkError, match=r"cannot (write|finish)"):
        fill()


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(SinkError, match="No such file"):
        TraceFile(tmp_path / "no" / "trace.json")


def test_a_source_that_does_not_open_leaves_the_last_trace(in_empty_folder):
    Path("trace-2026.json").write_text("earlier")
    assert stream.main(["nowhere.mp4", "--trace", "trace-2026.json"]) == 2
    assert Path("trace-2026.json").read_text() == "earlier"
    name = "trace-%Y.json"
    assert stream.main(["streetsynth", "--frames", "1", "--trace", name]) == 0
    assert {path.name for path in Path().iterdir()} == {"trace-2026.json", time.strftime(name)}
    assert events_of(Path(time.strftime(name)).read_text())
