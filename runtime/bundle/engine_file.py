"""EngineRecord: what a TensorRT engine was built from and for, in JSON beside the raw engine.

An engine runs where it was built: the same library version, the same kind of GPU. TensorRT itself
answers with a number when something differs; the record says what.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from runtime.bundle.manifest import PRECISIONS, Manifest, file_sha256
from runtime.errors import BackendUnavailable
from runtime.gpu import Gpu

# What builds and loads engines, and its Python module.
LIBRARIES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_SCHEMA = 2
# Of a field, or of the values of a dictionary.
_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "str | None": (str, type(None)),
    "dict[str, int]": (int,),
    "dict[str, str]": (str,),
    "int": (int,),
    "float": (int, float),
}


@dataclass(frozen=True)
class EngineRecord:
    """The facts of an engine.

    Attributes:
        library: one of ``LIBRARIES``.
        library_version: of the build.
        compute_capability: of the GPUs that it was built for, such as 8.7.
        gpu: the name of the GPU that it was built on; None where there was none.
        precision: what was asked for, and proved.
        proved_by: ``engine inspector``, or ``typed network definition`` where no GPU could load it.
        layer_types: number of layers of each kind and type, such as ``CONVOLUTION HALF``.
        io_types: type and shape of each input and output by name, such as ``UINT8 1x256x512x3``.
        model_sha256: of the ONNX file that it was built from.
        engine_sha256: of the engine file.
        timing_cache_sha256: of the measurements that it was built with; None without any.
        optimization_level: of the builder; lower after a build that ran out of memory.
        workspace_mib: the builder's limit.
        build_s: how long it took.
        max_batch: the most images at once.
        platform: machine, system and Python of the build.
    """

    library: str
    library_version: str
    compute_capability: str
    gpu: str | None
    precision: str
    proved_by: str
    layer_types: dict[str, int]
    io_types: dict[str, str]
    model_sha256: str
    engine_sha256: str
    timing_cache_sha256: str | None
    optimization_level: int
    workspace_mib: int
    build_s: float
    platform: str = ""
    max_batch: int = 1
    schema: int = field(default=_SCHEMA)

    def to_json(self) -> str:
        """The record as it is written."""
        return json.dumps(asdict(self), indent=1) + "\n"


def engine_paths(bundle_dir: Path, library: str) -> tuple[Path, Path]:
    """The raw engine of a library in a bundle, and the record beside it."""
    engine = bundle_dir / f"{library}.engine"
    return engine, engine.with_suffix(".engine.json")


def timing_cache_path(bundle_dir: Path, library: str) -> Path:
    """The builder's measurements, kept for the next build."""
    return bundle_dir / f"{library}.timing"


def read_engine_record(bundle_dir: Path, library: str) -> EngineRecord:
    """Read the record of a bundle's engine and check that the engine is the one that it describes.

    Raises:
        BackendUnavailable: there is no engine, or it or its record is damaged.
    """
    engine, path = engine_paths(bundle_dir, library)
    if not engine.is_file() or not path.is_file():
        raise BackendUnavailable(
            f"{bundle_dir} has no engine of {library}; {_rebuild(bundle_dir, library)}"
        )
    if engine.is_symlink():
        raise BackendUnavailable(f"{engine} is a link; copy the engine itself into the bundle")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        record = _checked(content, library)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        again = _rebuild(bundle_dir, library)
        raise BackendUnavailable(f"{path} is damaged ({error}); {again}") from None
    if file_sha256(engine) != record.engine_sha256:
        raise BackendUnavailable(
            f"{engine} is not the engine that {path.name} describes; "
            f"{_rebuild(bundle_dir, library)}"
        )
    return record


def _checked(content: dict[str, Any], library: str) -> EngineRecord:
    """Build the record, or raise what is wrong with it."""
    if content["schema"] != _SCHEMA:
        raise ValueError(f"schema {content['schema']}, this program reads {_SCHEMA}")
    record = EngineRecord(**content)
    for one in fields(EngineRecord):
        value = getattr(record, one.name)
        kind, nested = str(one.type), isinstance(value, dict)
        parts = value.values() if nested else [value]
        fits = all(isinstance(part, _KINDS[kind]) for part in parts)
        if not fits or nested != kind.startswith("dict"):
            raise ValueError(f"{one.name} is {value!r}")
    if record.library != library:
        raise ValueError(f"it is of {record.library}")
    if record.precision not in PRECISIONS:
        raise ValueError(f"precision '{record.precision}' is none of {', '.join(PRECISIONS)}")
    return record


def _rebuild(bundle_dir: Path, library: str) -> str:
    return f"build it here: python -m export.engine {bundle_dir} --library {library}"


def require_loadable(
    bundle_dir: Path,
    record: EngineRecord,
    manifest: Manifest,
    *,
    library_version: str,
    gpu: Gpu | None,
) -> None:
    """Compare an engine's record with the bundle that it lies in and the machine that loads it.

    Args:
        bundle_dir: the bundle.
        record: of its engine.
        manifest: of the bundle.
        library_version: of the library here.
        gpu: the one here.

    Raises:
        BackendUnavailable: something differs; names all of it, and what to do.
    """
    model = manifest.sha256[manifest.model_file]
    here = gpu.compute_capability if gpu else "none"
    facts = [
        (f"{record.library} version", record.library_version, library_version),
        ("compute capability of the GPU", record.compute_capability, here),
        ("ONNX file (sha256)", record.model_sha256[:12], model[:12]),
        ("precision", record.precision, manifest.precision),
    ]
    if differing := [f"{what} {was}, here {now}" for what, was, now in facts if was != now]:
        raise BackendUnavailable(
            f"this {record.library} engine was built for something else: {'; '.join(differing)}. "
            f"An engine runs where it was built; {_rebuild(bundle_dir, record.library)}"
        )
