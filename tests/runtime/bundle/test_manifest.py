import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.bundle.manifest import (
    MANIFEST_FILE,
    Manifest,
    file_sha256,
    read_manifest,
    without_links,
)
from runtime.errors import ManifestError
from runtime.packaged import BUNDLE_DIR


@pytest.fixture
def bundle(tmp_path, three_classes):
    (tmp_path / "model.onnx").write_bytes(b"\x08\x08")
    hashes = {"model.onnx": file_sha256(tmp_path / "model.onnx")}
    manifest = Manifest(
        "model.onnx", hashes, (24, 40), three_classes, "fp32", provenance={"method": "bn"}
    )
    (tmp_path / MANIFEST_FILE).write_text(manifest.to_json())
    return tmp_path, manifest


def edit(folder, change):
    path = folder / MANIFEST_FILE
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_what_is_written_is_read(bundle):
    folder, manifest = bundle
    assert read_manifest(folder) == manifest


def test_an_edited_model_is_found(bundle):
    folder, _ = bundle
    (folder / "model.onnx").write_bytes(b"other")
    with pytest.raises(ManifestError, match="not the file that was exported"):
        read_manifest(folder)


@pytest.mark.parametrize(
    "name", ["../model.onnx", "/etc/hostname", "a/b", "..", "", "\ud800", "a\nb", "\x1b[31m"]
)
def test_paths_stay_inside_the_bundle(bundle, name):
    folder, _ = bundle
    edit(folder, lambda c: c.update(model_file=name, sha256={name: "0"}))
    with pytest.raises(ManifestError, match="not a file of the bundle"):
        read_manifest(folder)


def test_a_name_that_no_file_can_have_is_an_error(bundle):
    folder, _ = bundle
    name = "a" * 300
    edit(folder, lambda c: c.update(model_file=name, sha256={name: "0"}))
    with pytest.raises(ManifestError, match="File name too long"):
        read_manifest(folder)


def test_a_key_that_comes_twice_is_an_error(bundle):
    folder, _ = bundle
    path = folder / MANIFEST_FILE
    path.write_text(path.read_text().replace('"schema"', '"precision": "int8",\n "schema"'))
    with pytest.raises(ManifestError, match="'precision' comes twice"):
        read_manifest(folder)


def test_a_link_is_no_file_of_the_bundle(bundle):
    folder, _ = bundle
    (folder / "model.onnx").rename(folder / "elsewhere")
    (folder / "model.onnx").symlink_to(folder / "elsewhere")
    with pytest.raises(ManifestError, match="not a file of the bundle"):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("put", "message"),
    [
        (lambda path, _: os.mkfifo(path), "it is a FIFO"),
        (lambda path, kept: path.symlink_to(kept), "it is a link"),
        (lambda path, _: path.symlink_to("/dev/zero"), "it is a link"),
        (lambda path, _: (path.touch(), os.truncate(path, 1 << 30)), "larger than 16 MB"),
    ],
)
@pytest.mark.timeout(20)
def test_a_manifest_is_a_file_of_the_bundle_that_has_an_end(bundle, put, message):
    folder, _ = bundle
    kept = (folder / MANIFEST_FILE).rename(folder / "kept")
    put(folder / MANIFEST_FILE, kept)
    with pytest.raises(ManifestError, match=message):
        read_manifest(folder)


def test_a_link_to_a_bundle_is_followed_once(bundle):
    folder, manifest = bundle
    link = folder.with_name(f"{folder.name}-link")
    link.symlink_to(folder)
    found = without_links(link)
    link.unlink()
    link.symlink_to("/nowhere")
    assert read_manifest(found) == manifest
    assert without_links(folder) == folder
    assert without_links(Path("bundle")) == Path("bundle"), "errors name it as it was given"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(schema=1), "has schema 1, this program reads 2"),
        (lambda c: c.update(surprise=1), "unknown surprise"),
        (lambda c: c.pop("input_hw"), "missing 'input_hw'"),
        (lambda c: c.update(precision="fp4"), "none of fp32"),
        (lambda c: c.update(input_hw=[0, 5]), "impossible"),
        (lambda c: c.update(input_hw=[float("inf"), 5]), "is damaged"),
        (lambda c: c["label_space"]["palette"].__setitem__(0, [300, -1, 0]), "0 to 255"),
        (lambda c: c.update(sha256={}), "no sha256 for model.onnx"),
        (lambda c: c.update(outputs=["confidence"]), "without label_map"),
        (lambda c: c.update(health_layout=[3]), "is damaged"),
        (lambda c: c["label_space"].update(palette=[]), "3 class names but 0 colours"),
    ],
)
def test_damage_is_named(bundle, change, message):
    folder, _ = bundle
    edit(folder, change)
    with pytest.raises(ManifestError, match=message):
        read_manifest(folder)


def test_nesting_without_end_is_named(bundle):
    folder, _ = bundle
    (folder / MANIFEST_FILE).write_text("[" * 100_000)
    with pytest.raises(ManifestError, match="cannot be read"):
        read_manifest(folder)


def test_a_file_that_may_not_be_read_is_named(bundle, monkeypatch):
    folder, _ = bundle

    def refused(_path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("runtime.bundle.manifest.file_sha256", refused)
    with pytest.raises(ManifestError, match=r"model\.onnx cannot be read: Permission denied"):
        read_manifest(folder)


@pytest.mark.parametrize("name", ["card.md", "card.jpg"])
def test_what_only_people_read_may_be_removed_and_not_changed(bundle, name):
    folder, _ = bundle
    (folder / name).write_text("target images")
    edit(folder, lambda c: c["sha256"].update({name: file_sha256(folder / name)}))
    assert read_manifest(folder)
    (folder / name).write_text("others")
    with pytest.raises(ManifestError, match="not the file that was exported"):
        read_manifest(folder)
    (folder / name).unlink()
    assert read_manifest(folder)


def test_a_missing_file_is_named(bundle):
    folder, _ = bundle
    (folder / "model.onnx").unlink()
    with pytest.raises(ManifestError, match=r"model.onnx is missing"):
        read_manifest(folder)


def test_a_folder_without_manifest_is_no_bundle(tmp_path):
    with pytest.raises(ManifestError, match="is not a bundle"):
        read_manifest(tmp_path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
KEYS = [*Manifest.__dataclass_fields__, "other"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(KEYS), json_values), json_values)
def test_no_content_gets_past_the_checks_or_crashes_them(tmp_path, fields, anything):
    for content in ({**fields, "schema": 2}, anything):
        (tmp_path / MANIFEST_FILE).write_text(json.dumps(content))
        with pytest.raises(ManifestError):
            read_manifest(tmp_path)


@pytest.mark.parametrize("where", ["weights.bin", "../weights.bin", "/etc/passwd"])
def test_a_graph_that_reads_another_file_is_rejected(tmp_path, where):
    """Its weights would have no hash; old versions of ONNX Runtime follow any path."""
    import onnx
    from onnx.external_data_helper import set_external_data

    bundle = Path(shutil.copytree(BUNDLE_DIR, tmp_path / "bundle"))
    model = onnx.load(bundle / "model.onnx")
    set_external_data(model.graph.initializer[0], where)
    (bundle / "model.onnx").write_bytes(model.SerializeToString())
    content = json.loads((bundle / "manifest.json").read_text())
    content["sha256"]["model.onnx"] = file_sha256(bundle / "model.onnx")
    (bundle / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ManifestError, match="reads its weights from another file"):
        read_manifest(bundle)
