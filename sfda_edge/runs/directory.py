"""A run directory: what a long command leaves, and what it needs to go on after a kill."""

from __future__ import annotations

import contextlib
import json
import logging
import platform
import subprocess
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from sfda_edge import __version__
from sfda_edge.errors import RunError
from sfda_edge.runs.files import write_text
from sfda_edge.training.distributed import num_processes

logger = logging.getLogger(__name__)
RUNS = Path("runs")
LATEST = RUNS / "latest"
RUN_FILE, RECIPE_FILE = "run.json", "recipe.toml"
ADAPTED_FILE = "adapted.safetensors"
_LONGEST_SAID = 100


def default_run_dir(method: str) -> Path:
    """``runs/<method>-<date>-<time>``, which does not exist yet."""
    stem = f"{method}-{datetime.now():%Y%m%d-%H%M%S}"
    candidates = (RUNS / (stem if n == 0 else f"{stem}-{n}") for n in range(1000))
    return next(path for path in candidates if not path.exists())


class RunDirectory:
    """One run's folder.

    Args:
        path: the folder.
        inputs: everything that decides the result; a resumed run must have the same.
        recipe: TOML text, written beside.
        resume: go on with a run that was begun.
        arguments: the command line that begins it, recorded.

    Attributes:
        facts: what ``run.json`` says.

    Raises:
        RunError: the folder holds another run, cannot be written, or there is nothing to resume.
    """

    def __init__(
        self,
        path: Path,
        inputs: dict[str, Any],
        recipe: str,
        resume: bool,
        arguments: Sequence[str] = (),
    ) -> None:
        self.path = path
        self._is_new = not path.exists()
        self._started_s = time.monotonic()
        if resume:
            self.facts = self._recorded(inputs)
            _say_differences(self.facts)
        else:
            recorded = {"arguments": list(arguments)} if arguments else {}
            self.facts = {"inputs": inputs, **recorded, "state": "running", **circumstances()}
            self._begin(recipe)

    def _begin(self, recipe: str) -> None:
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            goes_on = read_run(self.path).get("state") == "running"
            resume = ", or --resume to go on with its run" if goes_on else ""
            raise RunError(f"{self.path} exists already; choose another --out{resume}")
        write_text(self.path / RECIPE_FILE, recipe)
        self._write()

    def _recorded(self, inputs: dict[str, Any]) -> dict[str, Any]:
        facts = resumable_run(self.path)
        different = _differences(facts["inputs"], json.loads(json.dumps(inputs)))
        if different:
            raise RunError(
                f"{self.path} was begun with another {', '.join(different)}; resume with what it "
                "was begun with, or start afresh with another --out"
            )
        return facts

    def abandon(self) -> None:
        """Leave nothing of a run that could not begin, so that a mended call can take its place."""
        for name in (RUN_FILE, RECIPE_FILE):
            (self.path / name).unlink(missing_ok=True)
        if self._is_new:
            with contextlib.suppress(OSError):  # something else was put there meanwhile
                self.path.rmdir()

    def finish(self, result: dict[str, Any]) -> None:
        """Record the result."""
        seconds = round(time.monotonic() - self._started_s, 1)
        self.facts |= {"state": "finished", "seconds": seconds, "result": result}
        self._write()

    def make_latest(self) -> None:
        """Point ``latest`` beside the run at it, when it lies in ``runs/``."""
        if self.path.parent.resolve() != RUNS.resolve():
            return
        link = LATEST.with_name(".latest.part")
        try:
            link.unlink(missing_ok=True)
            link.symlink_to(self.path.name)
            link.replace(LATEST)
        except OSError as error:
            raise RunError(
                f"the run is in {self.path}, but {LATEST} cannot point at it: {error.strerror}"
            ) from None

    def _write(self) -> None:
        write_text(self.path / RUN_FILE, json.dumps(self.facts, indent=1) + "\n")


def read_run(folder: Path) -> dict[str, Any]:
    """The facts of a run, or nothing where there is no run."""
    try:
        facts = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def resumable_run(folder: Path) -> dict[str, Any]:
    """The facts of a run that was begun and not finished.

    Raises:
        RunError: there is none.
    """
    facts = read_run(folder)
    if not isinstance(facts.get("inputs"), dict):
        raise RunError(f"nothing to resume: {folder / RUN_FILE} is not there, or damaged")
    if facts.get("state") == "finished":
        raise RunError(f"{folder} is finished; there is nothing to resume")
    return facts


def _differences(begun: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is different, with both values where they are short."""
    found = []
    for key, value in now.items():
        before = begun.get(key)
        if before == value:
            continue
        if isinstance(before, dict) and isinstance(value, dict):
            found += [f"{key}.{inner}" for inner in _differences(before, value)]
        elif len(f"{before}{value}") > _LONGEST_SAID or key.endswith("sha256"):
            found.append(key)
        else:
            found.append(f"{key} ({before}, not {value})")
    return found


def circumstances() -> dict[str, Any]:
    """When something was begun, with what, and on how much."""
    return {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": {
            "sfda-edge": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "commit": _commit(),
        "threads": torch.get_num_threads(),
        "processes": num_processes(),
    }


def _say_differences(facts: dict[str, Any]) -> None:
    """Warn of what a resumed run may have different, but not and be the same bit for bit."""
    now = circumstances()
    for name in ("threads", "processes", "versions", "commit"):
        if facts.get(name) != now[name]:
            logger.warning(
                "begun with %s %s, resumed with %s: the result may not be bit for bit that of an "
                "uninterrupted run",
                name,
                facts.get(name),
                now[name],
            )


def _commit() -> str | None:
    """The commit of the checkout that this code runs from; None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    command = ["git", "-C", str(root), "rev-parse", "--show-toplevel", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    top, commit = done.stdout.split("\n")[:2]
    return commit if Path(top) == root else None
