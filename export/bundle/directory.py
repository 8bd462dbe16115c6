"""The bundle's folder: only one of ours is replaced, and by a whole one."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from export.errors import ExportError
from runtime.bundle.engine_file import LIBRARIES, engine_paths, timing_cache_path
from runtime.bundle.manifest import MANIFEST_FILE
from runtime.files import Locked, exclusive_lock

MODEL_FILE, CARD_FILE, PICTURE_FILE = "model.onnx", "card.md", "card.jpg"
GOLDEN_IMAGE_FILE, GOLDEN_LABELS_FILE = "golden.png", "golden-labels.png"


def require_replaceable(out_dir: Path) -> None:
    """Only a bundle of ours, with nothing of the user's in it, may be replaced.

    Raises:
        ExportError: ``out_dir`` is something else.
    """
    if out_dir.exists() and not out_dir.is_dir():
        raise ExportError(f"{out_dir} is a file; choose another --out")
    if os.path.ismount(out_dir):
        raise ExportError(
            f"a file system is mounted at {out_dir}, which cannot be replaced by a finished "
            f"bundle; choose a folder in it, such as --out {out_dir}/bundle"
        )
    if not out_dir.exists() or not any(out_dir.iterdir()):
        return
    foreign = _foreign(out_dir)
    if foreign or not _is_manifest(out_dir / MANIFEST_FILE):
        found = f" (it holds {', '.join(sorted(foreign)[:3])})" if foreign else ""
        raise ExportError(
            f"{out_dir} exists and is not a bundle of ours{found}; choose another --out"
        )


def _foreign(folder: Path) -> set[str]:
    """Names in a folder that no export and no build of an engine writes."""
    ours = {MODEL_FILE, CARD_FILE, PICTURE_FILE, MANIFEST_FILE}
    ours |= {GOLDEN_IMAGE_FILE, GOLDEN_LABELS_FILE}
    for library in LIBRARIES:
        ours |= {path.name for path in engine_paths(folder, library)}
        ours.add(timing_cache_path(folder, library).name)
    ours |= {f".{name}.part" for name in ours}  # of an engine whose writing was killed
    return {path.name for path in folder.iterdir()} - ours


def _is_manifest(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "schema" in content and "model_file" in content


@contextlib.contextmanager
def replacing(out_dir: Path) -> Iterator[Path]:
    """A folder to write into, which takes the place of ``out_dir`` when all went well.

    A failure or a kill in between leaves an old bundle as it was; what it leaves beside it, the
    next export removes.

    Raises:
        ExportError: the disk is full, the place cannot be written, another export is writing it, or
            a folder with one of our temporary names holds something else.
    """
    part_dir, old_dir = (_beside(out_dir, what) for what in ("new", "old"))
    try:
        out_dir.parent.mkdir(parents=True, exist_ok=True)
        with held(out_dir):
            _require_writable(out_dir)  # another export may not move it meanwhile
            for folder in (part_dir, old_dir):
                _require_ours(folder)
            try:
                if old_dir.exists() and not out_dir.exists():  # killed between a swap's two moves
                    old_dir.replace(out_dir)
                shutil.rmtree(part_dir, ignore_errors=True)
                part_dir.mkdir()
                yield part_dir
                _swap(part_dir, out_dir, old_dir)
            finally:
                shutil.rmtree(part_dir, ignore_errors=True)
    except OSError as error:
        raise ExportError(f"cannot write {out_dir}: {error.strerror or error}") from None


def _beside(out_dir: Path, what: str) -> Path:
    return out_dir.with_name(f".{out_dir.name}.sfda-edge-{what}")


def _require_writable(out_dir: Path) -> None:
    """Check that a bundle that is there could be removed, before it is moved away.

    Raises:
        ExportError: it could not: it would stay beside the new one and block every later export.
    """
    if out_dir.is_dir() and not os.access(out_dir, os.W_OK | os.X_OK):
        raise ExportError(f"{out_dir} may not be written, so its files cannot be replaced")


def _require_ours(folder: Path) -> None:
    """Check that a folder with one of our temporary names may be removed.

    Raises:
        ExportError: it is a link, or holds a file that no export writes.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ExportError(f"{folder} is not a folder that an export left; remove it")
    if folder.is_dir() and (foreign := _foreign(folder)):
        raise ExportError(
            f"{folder} holds {', '.join(sorted(foreign)[:3])}, which no export writes; move it"
        )


@contextlib.contextmanager
def held(out_dir: Path) -> Iterator[None]:
    """Let nobody else write a bundle: no export, no build of an engine.

    By a lock file beside it, or within it where only that can be written (then nobody can swap it
    either).

    Raises:
        ExportError: another process holds it.
        OSError: the file cannot be made.
    """
    lock = _beside(out_dir, "lock")
    if out_dir.is_dir() and not os.access(out_dir.parent, os.W_OK):
        lock = out_dir / lock.name
    try:
        with exclusive_lock(lock):
            yield
    except Locked:
        raise ExportError(
            f"another program is writing {out_dir}; wait for it, or choose another place"
        ) from None


def _swap(part_dir: Path, out_dir: Path, old_dir: Path) -> None:
    """Put the finished folder in place; an old bundle is removed only after that."""
    shutil.rmtree(old_dir, ignore_errors=True)
    if out_dir.exists():
        out_dir.replace(old_dir)
    try:
        part_dir.replace(out_dir)
    except OSError:
        if old_dir.exists():
            old_dir.replace(out_dir)
        raise
    shutil.rmtree(old_dir, ignore_errors=True)
