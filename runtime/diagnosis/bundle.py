"""A bundle: its files, and the engines beside its graph."""

from __future__ import annotations

import importlib
from pathlib import Path

from runtime.backends import open_backend
from runtime.bundle.engine_file import LIBRARIES, engine_paths, read_engine_record, require_loadable
from runtime.bundle.manifest import Manifest, read_manifest
from runtime.diagnosis.finding import Finding
from runtime.errors import BackendUnavailable, ManifestError
from runtime.gpu import find_gpu


def look(bundle_dir: Path) -> list[Finding]:
    """Whether it is whole, and which of its engines could be loaded here."""
    try:
        manifest = read_manifest(bundle_dir)
    except ManifestError as error:
        return [Finding("bundle", "problem", str(error), "sfda-edge export makes a new one.")]
    findings = [_opened(bundle_dir, manifest)]
    for library in LIBRARIES:
        if any(path.exists() for path in engine_paths(bundle_dir, library)):
            findings.append(_engine(bundle_dir, library, manifest))
    return findings


def _opened(bundle_dir: Path, manifest: Manifest) -> Finding:
    """Open it as a stream does, which compares the golden frame, too."""
    height, width = manifest.input_hw
    text = f"{bundle_dir}: {manifest.precision} at {width}x{height}"
    try:
        with open_backend("auto", bundle_dir, manifest) as backend:
            return Finding("bundle", "ok", f"{text}, {backend.line()}")
    except (BackendUnavailable, ManifestError) as error:
        advice = "Fix what it names, or export the bundle again."
        return Finding("bundle", "problem", f"{text}: {error}", advice)


def _engine(bundle_dir: Path, library: str, manifest: Manifest) -> Finding:
    name, again = engine_paths(bundle_dir, library)[0].name, f"python -m export.engine {bundle_dir}"
    try:
        record = read_engine_record(bundle_dir, library)
    except BackendUnavailable as error:
        return Finding("engine", "problem", str(error), f"{again} --library {library}")
    if record.model_sha256 != manifest.sha256[manifest.model_file]:
        text = f"{name} was built from another ONNX file"
        return Finding("engine", "problem", text, f"{again} --library {library}")
    try:
        require_loadable(
            bundle_dir, record, manifest=manifest, library_version=_version(library), gpu=find_gpu()
        )
    except BackendUnavailable as error:
        advice = "Fine where it was built to be used on another machine."
        return Finding("engine", "note", f"{name}: {error}", advice)
    return Finding("engine", "ok", f"{name}: {record.precision}, for the GPU and library here")


def _version(library: str) -> str:
    try:
        return getattr(importlib.import_module(LIBRARIES[library]), "__version__", "missing")
    except Exception:  # libraries that do not fit the driver raise whatever they like
        return "missing"
