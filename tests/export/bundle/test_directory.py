"""A full disk and a kill at any time leave the old bundle whole."""

import fcntl
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from export.bundle.directory import replacing
from export.bundle.write import export_bundle
from export.errors import ExportError, ParityError
from runtime.bundle.manifest import read_manifest
from runtime.errors import ManifestError


@pytest.fixture
def bundle(tmp_path, request_):
    export_bundle(request_, tmp_path / "bundle")
    return tmp_path / "bundle"


def only_whole(folder):
    """The bundle can be read and nothing lies beside it."""
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    return read_manifest(folder)


@pytest.mark.parametrize("most_bytes", [100, 300_000])
def test_a_full_disk_is_an_error_and_the_old_bundle_stays(bundle, request_, full_disk, most_bytes):
    before = read_manifest(bundle)
    with (
        full_disk(most_bytes),
        pytest.raises(ExportError, match=r"cannot write .*bundle: File too large"),
    ):
        export_bundle(replace(request_, precision="fp16"), bundle)
    assert only_whole(bundle) == before


def test_a_kill_during_export_leaves_the_old_bundle(bundle, tmp_path):
    before = read_manifest(bundle)
    images = ["--images", "streetsynth:target", "--set", "gate_images=2"]
    weights = f"{sys.modules['sfda_edge'].__path__[0]}/packaged/model"
    command = [sys.executable, "-m", "sfda_edge.cli", "export", weights, *images]
    process = subprocess.Popen([*command, "--out", str(bundle)], stderr=subprocess.DEVNULL)
    part = tmp_path / ".bundle.sfda-edge-new"
    while not part.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert part.exists()
    assert read_manifest(bundle) == before


def test_what_a_kill_between_two_moves_left_is_put_back(bundle):
    before = read_manifest(bundle)
    shutil.copytree(bundle, bundle.with_name(".bundle.sfda-edge-new"))
    bundle.rename(bundle.with_name(".bundle.sfda-edge-old"))
    with pytest.raises(ManifestError, match="does not exist"):
        read_manifest(bundle)
    with pytest.raises(ParityError, match="another graph"), replacing(bundle):
        raise ParityError("another graph")
    assert only_whole(bundle) == before


def test_an_old_folder_beside_a_bundle_is_not_taken_for_it(bundle):
    shutil.copytree(bundle, bundle.with_name(".bundle.sfda-edge-old"))
    with replacing(bundle) as folder:
        (folder / "new").touch()
    assert [path.name for path in bundle.iterdir()] == ["new"]
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize("what", ["new", "old"])
@pytest.mark.parametrize("kind", ["folder", "link", "file"])
def test_what_has_a_temporary_name_and_is_not_ours_stays(bundle, tmp_path, what, kind):
    before = read_manifest(bundle)
    place = bundle.with_name(f".bundle.sfda-edge-{what}")
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "thesis.txt").write_text("text")
    if kind == "folder":
        shutil.copytree(tmp_path / "private", place)
    elif kind == "link":
        place.symlink_to(tmp_path / "private")
    else:
        place.write_text("text")
    with (
        pytest.raises(ExportError, match=rf"sfda-edge-{what} .*(move|remove) it"),
        replacing(bundle),
    ):
        pass
    assert place.exists()
    assert (tmp_path / "private" / "thesis.txt").read_text() == "text"
    assert read_manifest(bundle) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_bundle_that_may_not_be_written_is_refused_before_it_is_moved(bundle):
    bundle.chmod(0o555)
    with pytest.raises(ExportError, match="may not be written"), replacing(bundle):
        pass
    bundle.chmod(0o755)
    only_whole(bundle)


def test_of_two_exports_to_one_place_the_second_is_refused(bundle):
    with replacing(bundle) as folder:
        (folder / "first").touch()
        with pytest.raises(ExportError, match="another program is writing"), replacing(bundle):
            pass
        assert (folder / "first").exists()
    assert [path.name for path in bundle.iterdir()] == ["first"]
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]
    with replacing(bundle) as folder:
        (folder / "second").touch()
    assert [path.name for path in bundle.iterdir()] == ["second"]


def test_a_lock_that_its_last_holder_removed_meanwhile_is_taken_anew(bundle, monkeypatch):
    removed = []

    def flock(handle, operation):
        if not removed:
            (lock,) = bundle.parent.glob("*-lock")
            lock.unlink()
            removed.append(lock)
        fcntl_flock(handle, operation)

    fcntl_flock = fcntl.flock
    monkeypatch.setattr("fcntl.flock", flock)
    with (
        replacing(bundle) as folder,
        pytest.raises(ExportError, match="another program"),
        replacing(bundle),
    ):
        pass
    assert removed
    assert not folder.exists()


def test_many_exports_to_one_place_leave_one_whole_bundle(tmp_path):
    """Each writes its name twice: whoever comes last, the two are of one export."""
    refused, unexpected = [], []

    def export(name):
        try:
            with replacing(tmp_path / "bundle") as folder:
                (folder / "first").write_text(name)
                time.sleep(0.001)
                (folder / "second").write_text(name)
        except ExportError as error:
            (refused if "another program" in str(error) else unexpected).append(str(error))

    def exporter(number):
        for turn in range(60):
            export(f"{number}.{turn}")

    threads = [threading.Thread(target=exporter, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert unexpected == []
    assert 0 < len(refused) < 240
    first, second = (tmp_path / "bundle" / name for name in ("first", "second"))
    assert first.read_text() == second.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_mounted_file_system_is_said_before_the_work(bundle, request_, monkeypatch):
    monkeypatch.setattr("os.path.ismount", lambda path: path == bundle)
    with pytest.raises(ExportError, match=r"mounted at .*such as --out .*/bundle/bundle"):
        export_bundle(request_, bundle)


def test_folders_of_the_users_beside_a_bundle_are_left_alone(bundle):
    for name in (".bundle.old", ".bundle.part"):
        (bundle.parent / name).mkdir()
        (bundle.parent / name / "thesis.txt").touch()
    with replacing(bundle) as folder:
        (folder / "new").touch()
    for name in (".bundle.old", ".bundle.part"):
        assert (bundle.parent / name / "thesis.txt").exists()


@pytest.mark.parametrize("is_there", [True, False])
def test_that_a_bundle_is_replaced_is_said_where_one_is(
    is_there, tmp_path, request_, monkeypatch, caplog
):
    caplog.set_level("INFO")
    out_dir = tmp_path / "bundle"
    if is_there:
        out_dir.mkdir()
    monkeypatch.setattr("export.bundle.write._write", lambda folder, _: folder)
    export_bundle(request_, out_dir)
    assert (f"{out_dir} is there, and will be replaced" in caplog.messages) == is_there


def test_what_appears_there_while_an_export_runs_is_kept(tmp_path, request_, monkeypatch):
    out_dir = tmp_path / "results"

    def write(*_):
        out_dir.mkdir()
        (out_dir / "thesis.txt").write_text("years")

    monkeypatch.setattr("export.bundle.write._write", write)
    with pytest.raises(ExportError, match=r"not a bundle of ours \(it holds thesis.txt\)"):
        export_bundle(request_, out_dir)
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
    assert (out_dir / "thesis.txt").read_text() == "years"


def test_a_folder_that_cannot_be_replaced_is_put_back(bundle, monkeypatch):
    before = read_manifest(bundle)

    def refused(source, target):
        if source.name == ".bundle.sfda-edge-new":
            raise OSError(5, "Input/output error")
        return source.rename(target)

    monkeypatch.setattr("pathlib.Path.replace", refused)
    with pytest.raises(ExportError, match="Input/output error"), replacing(bundle):
        pass
    assert only_whole(bundle) == before
