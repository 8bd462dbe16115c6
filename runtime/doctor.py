"""python -m runtime.doctor: what is installed, what really works, and what to do about the rest."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.output import print_result, start_output

if TYPE_CHECKING:
    from runtime.diagnosis.finding import Finding

_PARTS = ("interpreter", "opencv", "gstreamer", "onnxruntime", "extras", "nvidia", "jetson")
_MARKS = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m runtime.doctor",
        description="Check what is installed, what works, and how to fix the rest.",
    )
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="check this bundle, too")
    parser.add_argument("--json", action="store_true", help="one JSON list instead of text")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code: 0 a stream can run, 2 something has to be fixed."""
    start_output()
    args = build_parser().parse_args(arguments)
    return diagnose(args.bundle, args.json)


def diagnose(bundle_dir: Path | None = None, as_json: bool = False) -> int:
    """Check everything and print what was found; returns the exit code."""
    with contextlib.redirect_stdout(sys.stderr):  # what broken libraries say is no finding
        findings = look(bundle_dir)
    text = json.dumps([asdict(one) for one in findings], indent=1) if as_json else None
    print_result(text or "\n".join(map(line, findings)))
    return 2 if any(finding.verdict == "problem" for finding in findings) else 0


def look(bundle_dir: Path | None) -> list[Finding]:
    """All findings, the basics first."""
    findings = [found for part in _PARTS for found in _looked(part)]
    return findings if bundle_dir is None else [*findings, *_looked("bundle", bundle_dir)]


def _looked(part: str, *arguments: Any) -> list[Finding]:
    """A part's findings; one that cannot even be looked at must not hide the others."""
    from runtime.diagnosis.finding import Finding

    try:
        return importlib.import_module(f"runtime.diagnosis.{part}").look(*arguments)
    except Exception as error:  # a library of another ABI or driver raises whatever it likes
        text = f"cannot be looked at: {type(error).__name__}: {error}"
        return [Finding(part, "problem", text, "Install it again, in a fresh environment.")]


def line(finding: Finding) -> str:
    """One finding for people, its advice below it."""
    text = f"{_MARKS[finding.verdict]}  {finding.part:<12} {finding.text}"
    return f"{text}\n{'':23}{finding.advice}" if finding.advice else text


if __name__ == "__main__":
    sys.exit(main())
