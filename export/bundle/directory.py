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

try:
    import fcntl
except ImportError:  # Windows, where two exports to one place are the user's to avoid
    fcntl = None  # type: ignore[assignment]

MODEL_FILE, CARD_FILE, PICTURE_FILE = "model.onnx", "card.md", "card.jpg"


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
    ours = {MODEL_FILE, CARD_FILE, PICTURE_FILE, MANIFEST_FILE}
    for library in LIBRARIES:
        ours |= {path.name for path in engine_paths(out_dir, library)}
        ours.add(timing_cache_path(out_dir, library).name)
    ours |= {f".{name}.part" for name in ours}  # of an engine whose writing was killed
    foreign = {path.name for path in out_dir.iterdir()} - ours
    if foreign or not _is_manifest(out_dir / MANIFEST_FILE):
        found = f" (it holds {', '.join(sorted(foreign)[:3])})" if foreign else ""
        raise ExportError(
            f"{out_dir} exists and is not a bundle of ours{found}; choose another --out"
        )


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
        ExportError: the disk is full, the place cannot be written, or another export is writing it.
    """
    part_dir, old_dir = (_beside(out_dir, what) for what in ("new", "old"))
    try:
        out_dir.parent.mkdir(parents=True, exist_ok=True)
        with held(out_dir):
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


@contextlib.contextmanager
def held(out_dir: Path) -> Iterator[None]:
    """Let nobody else write a bundle: no export, no build of an engine.

    By a file beside it, or within it where only that can be written (then nobody can swap it
    either); the system lets go of it even after a kill.

    Raises:
        ExportError: another holds it.
        OSError: the file cannot be made.
    """
    lock = _beside(out_dir, "lock")
    if out_dir.is_dir() and not os.access(out_dir.parent, os.W_OK):
        lock = out_dir / lock.name
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(handle, out_dir)
            # Its last holder may have removed it between the two calls.
            if lock.exists() and os.fstat(handle).st_ino == lock.stat().st_ino:
                try:
                    yield
                finally:
                    lock.unlink(missing_ok=True)
                return
        finally:
            os.close(handle)


def _lock(handle: int, out_dir: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
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
