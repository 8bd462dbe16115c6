"""Where a benchmark writes is checked before its work."""

import argparse
import json
from pathlib import Path

import pytest

from benchmarks import before_after, data_parallel, decoder, engines, stream, throughput
from benchmarks.adaptation import __main__ as adaptation
from benchmarks.pareto import __main__ as pareto
from benchmarks.peers import __main__ as peers
from benchmarks.records import output_file, write_record
from benchmarks.scale import __main__ as scale


def test_a_record_is_json_that_can_be_compared_line_by_line(tmp_path):
    path = output_file(str(tmp_path / "record.json"))
    write_record(path, {"rows": [1, 2]})
    assert json.loads(path.read_text()) == {"rows": [1, 2]}
    assert len(path.read_text().splitlines()) > 3


def test_a_record_that_cannot_be_written_leaves_the_earlier_one(tmp_path, full_disk):
    path = tmp_path / "record.json"
    write_record(path, {"rows": [1]})
    with full_disk(64), pytest.raises(OSError, match="File too large"):
        write_record(path, {"rows": list(range(1000))})
    assert json.loads(path.read_text()) == {"rows": [1]}
    assert [each.name for each in tmp_path.iterdir()] == ["record.json"]


def test_a_link_stays_one_and_a_device_is_written_to(tmp_path):
    (tmp_path / "record.json").touch()
    (tmp_path / "link.json").symlink_to("record.json")
    write_record(tmp_path / "link.json", {"rows": [1]})
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "record.json").read_text()) == {"rows": [1]}
    write_record(Path("/dev/null"), {"rows": [1]})
    assert Path("/dev/null").is_char_device()


def test_a_picture_of_an_unknown_kind_is_said_before_the_work(capsys):
    with pytest.raises(SystemExit):
        before_after.main(["--out", "x.jpeg"])
    assert "expected a .jpg or .png, got 'x.jpeg'" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "message"), [("no/x.json", "make it first"), (".", "a folder")])
def test_a_place_that_cannot_be_written_is_rejected(in_empty_folder, name, message):
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        output_file(name)


@pytest.mark.parametrize(
    "arguments",
    [
        (adaptation, "accuracy"),
        (adaptation, "speed"),
        (data_parallel,),
        (decoder,),
        (engines, "bundle"),
        (pareto,),
        (peers, "frames"),
        (scale, "sizes"),
        (stream,),
        (throughput,),
    ],
    ids=lambda arguments: arguments[0].__name__,
)
def test_every_benchmark_checks_it_first(in_empty_folder, capsys, arguments):
    program, *words = arguments
    with pytest.raises(SystemExit) as stopped:
        program.build_parser().parse_args([*words, "--out", "nowhere/record.json"])
    assert stopped.value.code == 2
    assert "folder nowhere does not exist" in capsys.readouterr().err
