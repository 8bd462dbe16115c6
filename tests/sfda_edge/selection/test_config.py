"""SelectionConfig: every constant has a reason, is printed, recorded, and checked."""

import json
from dataclasses import fields, replace

import pytest

from runtime.toml_file import tomllib
from sfda_edge.cli import main as cli
from sfda_edge.selection.config import SelectionConfig


def test_what_is_printed_is_the_config_with_a_reason_for_each(capsys):
    assert cli.main(["recipes", "selection"]) == 0
    printed = capsys.readouterr().out
    assert (
        SelectionConfig(
            **{k: tuple(v) if isinstance(v, list) else v for k, v in tomllib.loads(printed).items()}
        )
        == SelectionConfig()
    )
    lines = printed.splitlines()
    for one in fields(SelectionConfig):
        place = next(i for i, line in enumerate(lines) if line.startswith(f"{one.name} = "))
        assert len(lines[place - 1]) > 20
        assert lines[place - 1].startswith("# ")


@pytest.mark.parametrize(
    "change",
    [
        {"probe_images": 0},
        {"scorings": 0},
        {"min_steps_between": 300},
        {"target_shares": (0.3, 1.0)},
        {"target_shares": (0.0, 1.5)},
        {"scales": (0.5, 2.0)},
        {"scales": (0.0, 1.0)},
        {"keep": "worst"},
    ],
)
def test_impossible_values_are_rejected(change):
    with pytest.raises(ValueError, match="must"):
        replace(SelectionConfig(), **change)


def test_a_run_records_what_it_used(in_empty_folder):
    arguments = ["adapt", "--method", "bn", "--size", "96x48", "--out", "run"]
    assert cli.main(arguments) == 0
    recorded = json.loads((in_empty_folder / "run" / "run.json").read_text())["inputs"]
    used = {k: tuple(v) if isinstance(v, list) else v for k, v in recorded["selection"].items()}
    assert SelectionConfig(**used) == SelectionConfig()


@pytest.mark.parametrize(("steps", "between"), [(40, 10), (300, 37), (800, 100), (10_000, 250)])
def test_a_run_is_scored_about_eight_times(steps, between):
    assert SelectionConfig().steps_between_scorings(steps) == between
