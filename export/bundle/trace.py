"""sfda-edge trace: the chain from source weights to engine, each hash checked where its file is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

from export.bundle.directory import MODEL_FILE
from export.bundle.link import DIFFERS, MATCHES, NOT_HERE, RECORDED, Link, compare_hash, file_link
from export.bundle.provenance import graph_sha256, images_name, settings_sha256
from export.engine.timing_cache import read_timing_cache
from export.errors import ExportError
from runtime.bundle.engine_file import (
    LIBRARIES,
    engine_paths,
    read_engine_record,
    timing_cache_path,
)
from runtime.bundle.manifest import MANIFEST_FILE, Manifest, check_file, parse_manifest
from runtime.errors import BackendUnavailable, ManifestError
from sfda_edge.data import open_images
from sfda_edge.data.target import TargetImages
from sfda_edge.data.windows import recorded_windows, windows_of
from sfda_edge.errors import SfdaEdgeError
from sfda_edge.runs.directory import (
    ADAPTED_FILE,
    HOME_FILE,
    RUN_FILE,
    RUNS,
    made_weights,
    read_run,
)
from sfda_edge.runs.progress import progress_bar


def trace(path: Path, origin: Path | None = None) -> list[Link]:
    """Follow a file to where it came from.

    Args:
        path: a bundle or a file of one, a lone .onnx, a run directory or the weights in one.
        origin: the run directory or the weights that a bundle was made from; None to look for a run
            of these weights in ``runs/``.

    Raises:
        ExportError: nothing is known of the file, or what is known is damaged.
        ManifestError: the manifest is damaged.
    """
    if not path.exists():
        raise ExportError(f"{path} is not there; name a bundle or a run directory")
    if not path.is_dir() and not path.is_file():
        raise ExportError(f"{path} is neither a file nor a folder")
    folder = path if path.is_dir() else path.parent
    try:
        if (folder / MANIFEST_FILE).is_file() and (
            path == folder or path.name in _files_of(folder)
        ):
            return list(_bundle(folder, origin))
        if path.suffix == ".onnx":
            return list(_lone_graph(path, origin))
        if path == folder or path.name in (RUN_FILE, ADAPTED_FILE, HOME_FILE):
            return list(_run(folder))
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise ExportError(f"the chain that {path} tells is damaged: {what}") from None
    raise ExportError(
        f"nothing is recorded of {path}: give a bundle, an .onnx file that sfda-edge exported, or "
        "a run directory"
    )


def _files_of(folder: Path) -> set[str]:
    """Names of a bundle's files."""
    engines = {path.name for library in LIBRARIES for path in engine_paths(folder, library)}
    return {MANIFEST_FILE, *parse_manifest(folder).sha256, *engines}


def _bundle(folder: Path, origin: Path | None) -> Iterator[Link]:
    manifest = parse_manifest(folder)
    yield from _origin(manifest.provenance, origin)
    files = [_file_of_bundle(folder, name, sha) for name, sha in manifest.sha256.items()]
    # A file that is not the bundle's own is not looked into.
    if any(link.name == manifest.model_file and link.state == MATCHES for link in files):
        graph = _loaded(folder / manifest.model_file)
        yield from _graph(graph, manifest.model_file)
        yield _same_chain(graph, manifest)
    yield from files
    for library in LIBRARIES:
        if any(path.exists() for path in engine_paths(folder, library)):
            yield _engine(folder, library, manifest)


def _lone_graph(path: Path, origin: Path | None) -> Iterator[Link]:
    graph = _loaded(path)
    facts = _metadata(graph)
    if "provenance" not in facts:
        raise ExportError(f"{path} carries no provenance: sfda-edge did not export it")
    yield from _origin(json.loads(facts["provenance"]), origin)
    yield from _graph(graph, path.name)


def _origin(facts: dict[str, Any], origin: Path | None) -> Iterator[Link]:
    """The links before the graph, as far as the files that they speak of are here."""
    folder = _run_directory(facts, origin)
    inputs = read_run(folder).get("inputs", {}) if folder else {}
    if "method" in facts:
        yield from _adaptation(facts, inputs)
    weights = origin if folder is None else folder / _weights_name(folder, facts)
    yield file_link("weights", facts["weights"], facts["weights_sha256"], weights)


def _weights_name(folder: Path, facts: dict[str, Any]) -> str:
    """The one of the run's files that is meant; the adapted one where none is, to be compared."""
    made = made_weights(_result(folder))
    same = (name for name, sha256 in made.items() if sha256 == facts["weights_sha256"])
    return next(same, ADAPTED_FILE)


def _run_directory(facts: dict[str, Any], origin: Path | None) -> Path | None:
    """The run that made the weights, where it can be found.

    Runs that returned the same source model have the same weights: of these it is the one with the
    same target images, method and settings.

    Raises:
        ExportError: ``origin`` is no run.
    """
    made = facts["weights_sha256"]
    if origin is not None:
        if origin.is_file():
            return None
        if not (origin / RUN_FILE).is_file():
            raise ExportError(f"{origin} is neither a run directory nor a weights file")
        return origin
    runs = sorted(RUNS.glob(f"*/{RUN_FILE}"))
    same = [p.parent for p in runs if made in made_weights(_result(p.parent)).values()]
    found = [folder for folder in same if not folder.is_symlink()]  # runs/latest is one
    return max(found, key=lambda folder: _num_equal_inputs(folder, facts), default=None)


def _num_equal_inputs(folder: Path, facts: dict[str, Any]) -> int:
    inputs = read_run(folder).get("inputs", {})
    recipe = inputs.get("recipe")
    same_recipe = isinstance(recipe, dict) and settings_sha256(recipe) == facts.get("recipe_sha256")
    same = (inputs.get(key) == facts.get(key) for key in ("target_sha256", "method"))
    return sum(same) + same_recipe


def _result(folder: Path) -> dict[str, Any]:
    return read_run(folder).get("result", {})


def _adaptation(facts: dict[str, Any], inputs: dict[str, Any]) -> Iterator[Link]:
    source = Path(inputs["weights"]) if "weights" in inputs else None
    yield file_link(
        "source weights", facts["source_weights"], facts["source_weights_sha256"], source
    )
    expected = facts["recipe_sha256"]
    recorded = [facts["recipe"], *([inputs["recipe"]] if "recipe" in inputs else [])]
    same = all(settings_sha256(recipe) == expected for recipe in recorded)
    yield Link(
        "recipe",
        f"method {facts['method']}, {len(facts['recipe'])} settings",
        sha256=expected,
        state=MATCHES if same else DIFFERS,
        note="" if same else "the settings are not those of the hash",
    )
    yield _target_images(facts, inputs)


def _target_images(facts: dict[str, Any], inputs: dict[str, Any]) -> Link:
    what, expected = "target images", facts["target_sha256"]
    name = f"{facts['target_images']}, {facts['target_num_images']} images"
    if "images" not in inputs:
        return Link(what, name, expected, NOT_HERE)
    try:
        images, size_hw = open_images(inputs["images"]), tuple(inputs["spec"]["input_hw"])
        bar = progress_bar("measure images", len(images))
        images = windows_of(images, recorded_windows(inputs), size_hw, progress=bar)
        bar = progress_bar("read images", len(images))
        target = TargetImages(images, size_hw, skip_bad=True, progress=bar, memory_bytes=0)
        found = expected if target.matches(expected) else target.sha256
    except SfdaEdgeError as error:
        return Link(what, name, sha256=expected, state=NOT_HERE, note=str(error))
    return compare_hash(what, name, expected=expected, found=found, where=inputs["images"])


def _graph(graph: onnx.ModelProto, file: str) -> Iterator[Link]:
    """The graph before its precision was lowered, and its own content, by its metadata."""
    facts = _metadata(graph)
    chain = json.loads(facts.get("provenance", "{}"))
    if "graph_sha256" not in chain or "content_sha256" not in facts:
        note = "its metadata lacks a hash: sfda-edge did not write it, or it was changed"
        yield Link("graph content", file, sha256="", state=DIFFERS, note=note)
        return
    expected, precision = facts["content_sha256"], facts["precision"]
    if chain["graph_sha256"] != expected:  # fp32 is the graph itself
        name = f"{chain['architecture']} in single precision"
        yield Link("graph", name, chain["graph_sha256"], RECORDED)
    steps = chain.get("qat_steps", chain.get("int8_finetune_steps"))  # the latter in 2026
    tuned = f", fine-tuned for {steps} steps" if steps else ""
    name = f"{chain['architecture']}, {precision}{tuned}"
    yield compare_hash(
        "graph content", name, expected=expected, found=graph_sha256(graph), where=file
    )


def _same_chain(graph: onnx.ModelProto, manifest: Manifest) -> Link:
    """The graph carries the chain and its interface, too: they must be the same."""
    facts = _metadata(graph)
    within = json.loads(facts.get("provenance", "{}"))
    what, name = "manifest", "the same chain as the graph's"
    differing = [key for key, value in within.items() if manifest.provenance.get(key) != value]
    differing += [key for key, value in manifest.interface().items() if facts.get(key) != value]
    if _input_hw(graph) != manifest.input_hw:
        differing.append("input size")
    if not differing:
        return Link(what, name, settings_sha256(within), MATCHES)
    note = f"{manifest.model_file} has another {', '.join(differing)}"
    return Link(what, name, sha256=settings_sha256(within), state=DIFFERS, note=note)


def _input_hw(graph: onnx.ModelProto) -> tuple[int, ...]:
    """Of its input (N, H, W, 3)."""
    return tuple(dim.dim_value for dim in graph.graph.input[0].type.tensor_type.shape.dim[1:3])


def _loaded(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's errors have no common base
        raise ExportError(f"{path} is not a readable ONNX file: {error}") from None


def _metadata(graph: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in graph.metadata_props}


def _file_of_bundle(folder: Path, name: str, expected: str) -> Link:
    what = "ONNX file" if name == MODEL_FILE else "file"
    try:
        check_file(folder, name, expected)
    except ManifestError as error:
        return Link(what, name, sha256=expected, state=DIFFERS, note=str(error))
    # What only people read may have been removed.
    return Link(what, name, expected, MATCHES if (folder / name).exists() else NOT_HERE)


def _engine(folder: Path, library: str, manifest: Manifest) -> Link:
    name, timings = engine_paths(folder, library)[0].name, timing_cache_path(folder, library)
    try:
        record = read_engine_record(folder, library)
    except BackendUnavailable as error:
        return Link("engine", name, sha256="", state=DIFFERS, note=str(error))
    built = (
        f"{record.precision}, {library} {record.library_version}, for {record.compute_capability}"
    )
    differing = ""
    if record.model_sha256 != manifest.sha256[manifest.model_file]:
        differing = "built from another ONNX file"
    elif record.precision != manifest.precision:
        differing = f"its record has {record.precision}, the manifest {manifest.precision}"
    elif record.timing_cache_sha256 and timings.exists():
        found = hashlib.sha256(read_timing_cache(timings)).hexdigest()
        differing = "" if found == record.timing_cache_sha256 else f"{timings.name} is another"
    if differing:
        return Link("engine", name, sha256=record.engine_sha256, state=DIFFERS, note=differing)
    return Link("engine", name, sha256=record.engine_sha256, state=MATCHES, note=built)


def _run(folder: Path) -> Iterator[Link]:
    """A run's own chain, up to its weights."""
    run = read_run(folder)
    inputs, result = run.get("inputs", {}), run.get("result", {})
    if not (folder / RUN_FILE).is_file():
        raise ExportError(
            f"{folder} is neither a bundle nor a run directory; name what "
            "sfda-edge export or sfda-edge adapt has made, or one of its files"
        )
    if "recipe" in inputs and "weights" not in inputs:
        raise ExportError(
            f"{folder} is a run of sfda-edge train, where a chain begins; name what was made of it"
        )
    if "adapted_sha256" not in result or "weights" not in inputs:
        raise ExportError(f"{folder} holds no finished adaptation; --resume goes on with it")
    source = Path(inputs["weights"])
    yield file_link("source weights", source.name, inputs["weights_sha256"], source)
    facts = {
        "target_sha256": inputs["target_sha256"],
        "target_images": images_name(inputs["images"]),
        "target_num_images": result["num_images"],
    }
    yield _target_images(facts, inputs)
    for name, sha256 in made_weights(result).items():
        yield file_link("weights", name, sha256, folder / name)
