"""Manifest: what a bundle's model expects and returns, and where it came from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from runtime.bundle.labels import LabelSpace
from runtime.bundle.onnx_scan import reads_other_files
from runtime.errors import ManifestError
from runtime.files import read_text

SCHEMA = 2
LABEL_MAP = "label_map"
MANIFEST_FILE = "manifest.json"
_MOST_BYTES = 16 << 20  # of a manifest: one of 255 classes has 30 KB
PRECISIONS = ("fp32", "fp16", "int8")
FOR_PEOPLE = ("card.md", "card.jpg")


@dataclass(frozen=True)
class GoldenFacts:
    """The golden frame, which a backend answers before it is used.

    Attributes:
        image_file: PNG, RGB at the input size.
        labels_file: PNG, the label map as exported.
        min_agreement: the least share of equal labels, in [0, 1].
    """

    image_file: str
    labels_file: str
    min_agreement: float


@dataclass(frozen=True)
class Manifest:
    """The facts of a bundle.

    Attributes:
        model_file: the ONNX file's name inside the bundle.
        sha256: of each file of the bundle but the manifest, by name.
        input_hw: images are resized to this before they go in, as (1, H, W, 3) uint8 RGB.
        label_space: what the (1, H, W) uint8 answer means.
        precision: what the model computes in.
        outputs: what the model answers: ``label_map``, and with it perhaps ``confidence``,
            (1, H, W) uint8, 255 times the label's probability, and ``health``, (1, K) float32.
        health_layout: how many values of ``health`` each of its parts has, in order.
        provenance: source weights, method, target images, agreement; for people and for tracing.
        golden: the golden frame; None of a bundle that was exported without.
    """

    model_file: str
    sha256: dict[str, str]
    input_hw: tuple[int, int]
    label_space: LabelSpace
    precision: str
    outputs: tuple[str, ...] = (LABEL_MAP,)
    health_layout: dict[str, int] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    golden: GoldenFacts | None = None
    schema: int = SCHEMA

    def interface(self) -> dict[str, str]:
        """What a device acts on, as the ONNX file's metadata repeats it."""
        space = self.label_space
        return {
            "class_names": json.dumps(space.names),
            "palette": json.dumps(space.palette),
            "ignore_index": str(space.ignore_index),
            "precision": self.precision,
            "output": ", ".join(self.outputs),
            "health_layout": json.dumps(self.health_layout),
        }

    def to_json(self) -> str:
        """The manifest as it is written."""
        return json.dumps(asdict(self), indent=1) + "\n"


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def read_manifest(bundle_dir: Path) -> Manifest:
    """Read a bundle's manifest and check that its files are there and unchanged.

    Raises:
        ManifestError: it is missing or damaged, of another schema, points outside the bundle, a
            file is not the one that was exported, or the graph reads another file.
    """
    manifest = parse_manifest(bundle_dir)
    for name, expected in manifest.sha256.items():
        check_file(bundle_dir, name, expected)
    _require_whole_graph(bundle_dir / manifest.model_file)
    return manifest


def _require_whole_graph(path: Path) -> None:
    """Reject a graph whose weights lie in another file: that file has no hash, and may be anywhere.

    Raises:
        ManifestError: it names one, or is damaged.
    """
    try:
        elsewhere = reads_other_files(path)
    except (ValueError, OSError) as error:
        raise ManifestError(f"{path} is no ONNX graph: {error}") from None
    if elsewhere:
        raise ManifestError(
            f"{path} reads its weights from another file; a bundle's graph holds its own. Export "
            "the bundle again"
        )


def without_links(bundle_dir: Path) -> Path:
    """The folder that a path with links stands for now.

    A link may be set to another bundle at any time, also between the check of a file and its use.
    """
    try:
        found = bundle_dir.resolve()
    except (OSError, ValueError, RuntimeError):  # whoever opens it reports it
        return bundle_dir
    return bundle_dir if found == bundle_dir.absolute() else found


def parse_manifest(bundle_dir: Path) -> Manifest:
    """Read a bundle's manifest without a look at the files.

    Raises:
        ManifestError: it is missing or damaged, or of another schema.
    """
    path = bundle_dir / MANIFEST_FILE
    try:
        content = json.loads(_manifest_text(path), object_pairs_hook=_each_once)
    except (FileNotFoundError, NotADirectoryError):
        if not bundle_dir.exists():
            raise ManifestError(
                f"{bundle_dir} does not exist; name a bundle, or make one with sfda-edge export"
            ) from None
        raise ManifestError(
            f"{bundle_dir} is not a bundle: it has no {MANIFEST_FILE}; make one with "
            "sfda-edge export"
        ) from None
    except (ValueError, OSError, RecursionError) as error:
        raise ManifestError(f"{path} cannot be read: {error}") from None
    return _parse(path, content)


def _manifest_text(path: Path) -> str:
    """The content of a manifest: a file of the bundle itself, of a size that is possible.

    Raises:
        OSError: it cannot be read, or is no regular file.
        ValueError: it is a link, too large, or no text.
    """
    if path.is_symlink():
        raise ValueError("it is a link; a bundle holds its own files")
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"it is larger than {_MOST_BYTES >> 20} MB")
    return read_text(path)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For JSON: of a key that comes twice, other programs may take the other value."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(k for k in keys if keys.count(k) > 1)!r} comes twice")
    return found


def _parse(path: Path, content: Any) -> Manifest:
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else None
        raise ManifestError(
            f"{path} has schema {found}, this program reads {SCHEMA}; export the bundle again with "
            "the version that is installed here"
        )
    try:
        return _checked(content)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = f"missing {error}" if isinstance(error, KeyError) else str(error)
        raise ManifestError(f"{path} is damaged: {reason}; export the bundle again") from None


def _checked(content: dict[str, Any]) -> Manifest:
    """Build the manifest, or raise what is wrong with it."""
    known = set(Manifest.__dataclass_fields__)
    if unknown := sorted(set(content) - known):
        raise ValueError(f"unknown {', '.join(unknown)}")
    height, width = (int(side) for side in content["input_hw"])
    if not (0 < height <= 16384 and 0 < width <= 16384):
        raise ValueError(f"input size {width}x{height} is impossible")
    if content["precision"] not in PRECISIONS:
        raise ValueError(f"precision '{content['precision']}' is none of {', '.join(PRECISIONS)}")
    hashes = {str(name): str(digest) for name, digest in content["sha256"].items()}
    if content["model_file"] not in hashes:
        raise ValueError(f"no sha256 for {content['model_file']}")
    space = content["label_space"]
    palette = tuple((int(r), int(g), int(b)) for r, g, b in space["palette"])
    names = tuple(str(name) for name in space["names"])
    return Manifest(
        model_file=str(content["model_file"]),
        sha256=hashes,
        input_hw=(height, width),
        label_space=LabelSpace(names, palette, int(space["ignore_index"])),
        precision=content["precision"],
        outputs=_outputs(content),
        health_layout={str(name): int(size) for name, size in content["health_layout"].items()},
        provenance=dict(content["provenance"]),
        golden=_golden(content.get("golden"), hashes),
    )


def _golden(content: dict[str, Any] | None, hashes: dict[str, str]) -> GoldenFacts | None:
    if content is None:
        return None
    facts = GoldenFacts(**content)
    for name in (facts.image_file, facts.labels_file):
        if name not in hashes:
            raise ValueError(f"no sha256 for {name!r}")
    if not isinstance(facts.min_agreement, int | float) or not 0 <= facts.min_agreement <= 1:
        raise ValueError(f"golden.min_agreement is {facts.min_agreement!r}, not in [0, 1]")
    return facts


def _outputs(content: dict[str, Any]) -> tuple[str, ...]:
    outputs = tuple(str(name) for name in content["outputs"])
    if LABEL_MAP not in outputs:
        raise ValueError(f"outputs {', '.join(outputs) or 'none'} are without {LABEL_MAP}")
    return outputs


def _is_plain(name: str) -> bool:
    """Whether it names a file in a folder, and nothing that a terminal would act on."""
    return Path(name).name == name and name not in ("", ".", "..") and name.isprintable()


def check_file(bundle_dir: Path, name: str, expected: str) -> None:
    """See that a file lies in the bundle itself and is the one that was exported.

    What only people read may have been removed: the card's picture shows target images.

    Raises:
        ManifestError: it is not.
    """
    path = bundle_dir / name
    try:
        if not _is_plain(name) or path.is_symlink():
            raise ManifestError(
                f"{bundle_dir}: {name!r} in the manifest is not a file of the bundle"
            )
        if name in FOR_PEOPLE and not path.exists():
            return
        if not path.is_file():
            raise ManifestError(f"{bundle_dir}: {name} is missing; copy the whole bundle again")
        found = file_sha256(path)
    except OSError as error:
        raise ManifestError(f"{path} cannot be read: {error.strerror}") from None
    if found != expected:
        raise ManifestError(
            f"{path} is not the file that was exported (sha256 {found[:12]}…, expected "
            f"{expected[:12]}…); copy the bundle again or export anew"
        )
