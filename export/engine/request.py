"""Build a TensorRT engine from a bundle's graph, check its precision, and write it to the bundle.

Runs on the device, without torch. Precision is in the graph and networks are strongly typed, which
TensorRT 10, TensorRT 11 (where the flags for precision are gone) and TensorRT for RTX all take.
"""

from __future__ import annotations

import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.engine.build import Build, build, load_library, named_capability
from export.engine.timing_cache import read_timing_cache, with_digest
from export.errors import ExportError
from export.profiles import PROFILES
from runtime.bundle.engine_file import EngineRecord, engine_paths, timing_cache_path
from runtime.bundle.manifest import Manifest, read_manifest
from runtime.gpu import Gpu, find_gpu


@dataclass(frozen=True)
class EngineRequest:
    """How to build an engine.

    Attributes:
        library: one of ``LIBRARIES``.
        compute_capability: of the GPU to build for, such as 8.9; None for the one that is here.
            TensorRT for RTX builds for others, TensorRT does not.
        workspace_mib: how much memory the builder's trials may take.
        max_batch: the most images at once, of a bundle with a dynamic batch.
    """

    library: str
    compute_capability: str | None = None
    workspace_mib: int = 1024
    max_batch: int = 1


def find_builder(request: EngineRequest) -> tuple[Any, Gpu | None, str]:
    """The library, the GPU here, and the compute capability to build for: all that a build needs.

    Raises:
        ExportError: the library is missing, or there is no GPU to build for, or none such is known.
    """
    library, gpu = load_library(request.library), find_gpu()
    if request.compute_capability is not None:
        named_capability(library, request.compute_capability)
    capability = request.compute_capability or (gpu.compute_capability if gpu else None)
    if capability is None:
        raise ExportError(
            "no NVIDIA GPU here to build for: export without an engine and build it on the device "
            "(python -m export.engine BUNDLE), or take tensorrt-rtx and name the device's compute "
            "capability, such as --compute-capability 8.9"
        )
    return library, gpu, capability


def build_engine(bundle_dir: Path, request: EngineRequest) -> EngineRecord:
    """Build a bundle's engine, prove its precision, and put it with its record into the bundle.

    Nothing is written before the engine is proved; an older engine stays until then.

    Raises:
        StreamError: the bundle is damaged.
        ExportError: the library is missing, does not take the graph, has no GPU that it could build
            for, or did not do what was asked.
    """
    manifest = read_manifest(bundle_dir)
    _require_parsable(manifest)
    _require_writable(bundle_dir)
    library, gpu, capability = find_builder(request)
    engine_path, record_path = engine_paths(bundle_dir, request.library)
    timing_cache = timing_cache_path(bundle_dir, request.library)
    made = build(
        library,
        Build(
            onnx_path=bundle_dir / manifest.model_file,
            precision=manifest.precision,
            single=_single_precision(manifest),
            compute_capability=request.compute_capability,
            can_load=gpu is not None and gpu.compute_capability == capability,
            workspace_mib=request.workspace_mib,
            max_batch=request.max_batch,
            timing_cache=_earlier_timings(request.library, timing_cache),
        ),
    )
    record = EngineRecord(
        library=request.library,
        max_batch=request.max_batch,
        library_version=library.__version__,
        compute_capability=capability,
        gpu=gpu.name if gpu else None,
        precision=manifest.precision,
        proved_by=made.proved_by,
        layer_types=made.layer_types,
        io_types=made.io_types,
        model_sha256=manifest.sha256[manifest.model_file],
        engine_sha256=made.sha256,
        timing_cache_sha256=made.timing_cache_sha256,
        optimization_level=made.optimization_level,
        workspace_mib=request.workspace_mib,
        build_s=round(made.seconds, 1),
        platform=f"{platform.machine()} {platform.system()} Python {platform.python_version()}",
    )
    files = {engine_path: made.engine, timing_cache: with_digest(made.timing_cache)}
    files[record_path] = record.to_json().encode()
    _write({path: content for path, content in files.items() if content})
    return record


def _earlier_timings(library: str, path: Path) -> bytes | None:
    """What an earlier build measured; TensorRT for RTX measures on the device, and has none."""
    return read_timing_cache(path) if library == "tensorrt" else None


def _single_precision(manifest: Manifest) -> tuple[str, ...]:
    """Names of the nodes that stay in single precision on purpose.

    Raises:
        ExportError: the manifest tells something else.
    """
    names = manifest.provenance.get("single_precision", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ExportError(
            "the bundle's manifest is damaged: single_precision is no list of names; export anew"
        )
    return tuple(names)


def _require_parsable(manifest: Manifest) -> None:
    """See that the graph was written for TensorRT, where that matters.

    Raises:
        ExportError: its int8 has biases in int32, which TensorRT refuses with words of its own.
    """
    # Bundles of 2026 name it target.
    name = manifest.provenance.get("profile", manifest.provenance.get("target", ""))
    profile = PROFILES.get(name)
    if manifest.precision == "int8" and profile is not None and profile.engine is None:
        raise ExportError(
            f"this int8 bundle is for --profile {name}: its biases are integers, which TensorRT "
            "does not take. Export it again with the --profile of the "
            "device, such as jetpack6 or rtx"
        )


def _require_writable(folder: Path) -> None:
    """A build takes minutes: see now whether its result can be kept.

    Raises:
        ExportError: it cannot.
    """
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ExportError(f"cannot write to {folder}: {error.strerror or error}") from None


def _write(files: dict[Path, bytes]) -> None:
    """All of them whole, or none; nothing takes the place of an old file before all are written.

    Raises:
        ExportError: the disk is full.
    """
    parts = {path: path.with_name(f".{path.name}.part") for path in files}
    try:
        for path, content in files.items():
            parts[path].write_bytes(content)
        for path, part in parts.items():
            part.replace(path)
    except OSError as error:
        folder = next(iter(files)).parent
        raise ExportError(f"cannot write to {folder}: {error.strerror or error}") from None
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def describe(bundle_dir: Path, record: EngineRecord) -> str:
    """What was built, for people."""
    engine, _ = engine_paths(bundle_dir, record.library)
    kinds = ", ".join(f"{count} {kind}" for kind, count in record.layer_types.items())
    ports = ", ".join(f"{name} {kind}" for name, kind in record.io_types.items())
    where = record.gpu or "no GPU here: it is not loaded, and not proved beyond its types"
    return (
        f"{engine}: {record.precision}, {record.library} {record.library_version}, compute "
        f"capability {record.compute_capability} ({where}), {record.build_s} s\n"
        f"proved by the {record.proved_by}: {kinds}; {ports}"
    )
