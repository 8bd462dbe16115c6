"""A run directory: what a long command leaves, and what it needs to continue after a kill."""

from __future__ import annotations

import contextlib
import json
import logging
import platform
import subprocess
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from runtime.files import Locked, exclusive_lock, read_text
from sfda_edge import __version__
from sfda_edge.errors import RunError
from sfda_edge.runs.distributed import num_processes
from sfda_edge.runs.files import write_text

logger = logging.getLogger(__name__)
RUNS = Path("runs")
LATEST = RUNS / "latest"
RUN_FILE, RECIPE_FILE, LOCK_FILE = "run.json", "recipe.toml", ".lock"
ADAPTED_FILE = "adapted.safetensors"
# The adapted weights with the source model's BatchNorm statistics: for the source domain.
HOME_FILE = "home.safetensors"
_LONGEST_SHOWN = 100


def made_weights(result: dict[str, Any]) -> dict[str, str]:
    """The weights that a run has made: hash by file name, from the result in ``run.json``."""
    files = {ADAPTED_FILE: "adapted_sha256", HOME_FILE: "home_sha256"}
    return {name: result[key] for name, key in files.items() if key in result}


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
        resume: continue a run that was started.
        arguments: the command line that starts it, recorded.

    Attributes:
        facts: what ``run.json`` holds.

    Raises:
        RunError: the folder holds another run, cannot be written, or there is nothing to resume.
    """

    def __init__(
        self,
        path: Path,
        inputs: dict[str, Any],
        recipe: str,
        *,
        resume: bool = False,
        is_new: bool = False,
        arguments: Sequence[str] = (),
    ) -> None:
        self.path, self._is_new = path, is_new
        self._started_s = time.monotonic()
        if resume:
            self.facts = self._recorded(inputs)
            _warn_of_differences(self.facts)
        else:
            recorded = {"arguments": list(arguments)} if arguments else {}
            self.facts = {"inputs": inputs, **recorded, "state": "running", **circumstances()}
            self._begin(recipe)

    def _begin(self, recipe: str) -> None:
        if self.path.exists() and (not self.path.is_dir() or _holds_files(self.path)):
            running = read_run(self.path).get("state") == "running"
            resume = ", or --resume to continue its run" if running else ""
            raise RunError(f"{self.path} exists already; choose another --out{resume}")
        write_text(self.path / RECIPE_FILE, recipe)
        self._write()

    def _recorded(self, inputs: dict[str, Any]) -> dict[str, Any]:
        facts = resumable_run(self.path)
        different = _differences(facts["inputs"], json.loads(json.dumps(inputs)))
        if different:
            raise RunError(
                f"{self.path} was started with another {', '.join(different)}; resume with the "
                "same, or start again with another --out"
            )
        return facts

    def abandon(self) -> None:
        """Leave nothing of a run that could not begin: a corrected call can use its place."""
        for name in (RUN_FILE, RECIPE_FILE):
            (self.path / name).unlink(missing_ok=True)
        if self._is_new:
            with contextlib.suppress(OSError):  # something else was put there meanwhile
                (self.path / LOCK_FILE).unlink(missing_ok=True)
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
        text = json.dumps(self.facts, indent=1, allow_nan=False)
        write_text(self.path / RUN_FILE, text + "\n")


def _holds_files(path: Path) -> bool:
    return any(inner.name != LOCK_FILE for inner in path.iterdir())


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Let no other process write a run directory; gives whether the directory had to be made.

    Raises:
        RunError: another process writes it, or it cannot be written.
    """
    is_new = not path.exists()
    with contextlib.ExitStack() as stack:
        try:
            path.mkdir(parents=True, exist_ok=True)
            stack.enter_context(exclusive_lock(path / LOCK_FILE))
        except Locked:
            raise RunError(
                f"another process is writing {path}; wait for it, or choose another --out"
            ) from None
        except (FileExistsError, NotADirectoryError):
            raise RunError(f"{path} is a file; choose another --out") from None
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror}") from None
        yield is_new


def read_run(folder: Path) -> dict[str, Any]:
    """The facts of a run, or nothing where there is no run.

    Facts of another type than ours are left out: a file that is merely read must not surprise.
    """
    try:
        facts = json.loads(read_text(folder / RUN_FILE))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(facts, dict):
        return {}
    return {key: value for key, value in facts.items() if isinstance(value, _kinds(key))}


def _kinds(key: str) -> type | tuple[type, ...]:
    """What type a fact of ``run.json`` has."""
    kinds = {"inputs": dict, "result": dict, "versions": dict, "arguments": list, "state": str}
    return kinds.get(key, object)


def resumable_run(folder: Path) -> dict[str, Any]:
    """The facts of a run that was started and not finished.

    Raises:
        RunError: there is none.
    """
    facts = read_run(folder)
    if "inputs" not in facts:
        raise RunError(f"nothing to resume: {folder / RUN_FILE} does not exist, or is damaged")
    if facts.get("state") == "finished":
        raise RunError(f"{folder} is finished; there is nothing to resume")
    return facts


def _differences(recorded: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is different, with both values where they are short."""
    found = []
    for key in {**now, **recorded}:
        before, value = recorded.get(key), now.get(key)
        if before == value:
            continue
        if isinstance(before, dict) and isinstance(value, dict):
            found += [f"{key}.{inner}" for inner in _differences(before, value)]
        elif len(f"{before}{value}") > _LONGEST_SHOWN or key.endswith("sha256"):
            found.append(key)
        else:
            found.append(f"{key} ({before}, not {value})")
    return found


def circumstances() -> dict[str, Any]:
    """When something was started, with what versions, on how many threads and processes."""
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


def _warn_of_differences(facts: dict[str, Any]) -> None:
    """Warn of what a resumed run may have different, but then is not the same bit for bit."""
    now = circumstances()
    for name in ("threads", "processes", "versions", "commit"):
        if facts.get(name) != now[name]:
            logger.warning(
                "started with %s %s, resumed with %s: the result may not be bit for bit that of an "
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
