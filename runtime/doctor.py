"""python -m runtime.doctor: what is installed, what really works, and what to do about the rest."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.diagnosis.finding import Finding

_MARKS = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m runtime.doctor",
        description="Say what is installed here, what really works, and how to mend the rest.",
    )
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="check this bundle, too")
    parser.add_argument("--json", action="store_true", help="one JSON list instead of text")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code: 0 a stream can run, 2 something has to be mended."""
    args = build_parser().parse_args(arguments)
    return diagnose(args.bundle, args.json)


def diagnose(bundle_dir: Path | None = None, as_json: bool = False) -> int:
    """Look at everything and print what was found; returns the exit code."""
    findings = look(bundle_dir)
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        print("\n".join(map(line, findings)))
    return 2 if any(finding.verdict == "problem" for finding in findings) else 0


def look(bundle_dir: Path | None) -> list[Finding]:
    """All findings, the basics first."""
    from runtime.diagnosis import interpreter, jetson, nvidia, onnxruntime, opencv

    findings = []
    for part in (interpreter, opencv, onnxruntime, nvidia, jetson):
        findings += part.look()
    if bundle_dir is not None:
        findings.append(_bundle(bundle_dir))
    return findings


def _bundle(bundle_dir: Path) -> Finding:
    from runtime.diagnosis.finding import Finding
    from runtime.errors import ManifestError
    from runtime.manifest import read_manifest

    try:
        manifest = read_manifest(bundle_dir)
    except ManifestError as error:
        return Finding("bundle", "problem", str(error), "sfda-edge export makes a new one.")
    height, width = manifest.input_hw
    return Finding("bundle", "ok", f"{bundle_dir}: {manifest.precision} at {width}x{height}, whole")


def line(finding: Finding) -> str:
    """One finding for people, its advice below it."""
    text = f"{_MARKS[finding.verdict]}  {finding.part:<12} {finding.text}"
    return f"{text}\n{'':23}{finding.advice}" if finding.advice else text


if __name__ == "__main__":
    sys.exit(main())
