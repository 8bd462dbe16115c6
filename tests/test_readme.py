"""The README's commands parse, and what it points to is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from benchmarks import adaptation as adaptation_benchmark
from benchmarks import stream as stream_benchmark
from export.engine import __main__ as engine
from runtime import doctor, stream
from sfda_edge.cli import main as cli

ROOT = Path(__file__).parent.parent
PAGES = sorted(ROOT.glob("*.md")) + sorted((ROOT / "benchmarks").rglob("*.md"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
PARSERS = {
    "sfda-edge": cli.build_parser,
    "python -m runtime.doctor": doctor.build_parser,
    "python -m runtime.stream": stream.build_parser,
    "python -m export.engine": engine.build_parser,
    "python -m benchmarks.stream": stream_benchmark.build_parser,
    "python -m benchmarks.adaptation": adaptation_benchmark.build_parser,
}


def commands() -> list[str]:
    """Commands in the indented blocks, continuation lines joined, shell variables filled in."""
    block = "\n".join(line[4:] for line in README.splitlines() if line.startswith("    "))
    text = block.replace("\\\n", " ")
    variables = {"DATA": "data", **dict(re.findall(r"^([A-Z]+)=(.+)$", text, re.MULTILINE))}
    for _ in range(2):
        for name, value in variables.items():
            text = text.replace(f"${name}", value.strip('"'))
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line.startswith(tuple(PARSERS))]


def test_there_are_commands():
    assert len(commands()) >= 12


@pytest.mark.parametrize("command", commands())
def test_every_command_parses(command):
    program = next(name for name in PARSERS if command.startswith(name))
    PARSERS[program]().parse_args(shlex.split(command.removeprefix(program)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_first_command_comes_early():
    before = README.split("    pip install")[0]
    assert len(before.split()) < 100
    first = next(n for n, line in enumerate(README.splitlines()) if line.startswith("    sfda-"))
    assert first < 25
