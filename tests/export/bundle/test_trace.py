"""A real chain, made once by the command line, and what tracing says when a link is changed."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
from PIL import Image

from export.bundle.link import DIFFERS, MATCHES, NOT_HERE, RECORDED
from export.bundle.provenance import (
    graph_sha256,
    provenance,
    recorded_run,
    settings_sha256,
    unadapted,
)
from export.bundle.trace import trace
from export.engine.request import EngineRequest, build_engine
from export.engine.timing_cache import with_digest
from export.errors import ExportError
from runtime.bundle.manifest import MANIFEST_FILE, file_sha256, read_manifest
from runtime.errors import ManifestError
from sfda_edge.cli import main as cli
from sfda_edge.models.source_model import ModelRequest, load_source
from sfda_edge.packaged import MODEL_DIR


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Images, an adaptation of a copy of the packaged model to them, and its fp16 bundle."""
    folder = tmp_path_factory.mktemp("chain")
    (folder / "images").mkdir()
    for index in range(2):
        rows = np.linspace(0, 200, 32, dtype=np.uint8)[:, None, None]
        picture = np.broadcast_to(rows + 20 * index, (32, 64, 3)).copy()
        Image.fromarray(picture).save(folder / "images" / f"{index}.png")
    shutil.copytree(MODEL_DIR, folder / "source")
    adapt = ["adapt", "--method", "bn", "--weights", str(folder / "source"), "--size", "64x32"]
    assert cli.main([*adapt, "--images", str(folder / "images"), "--out", str(folder / "run")]) == 0
    flags = ["--fp16", "--profile", "rtx"]
    # Two tiny pictures of nothing: how well half precision does is not the point here.
    for setting in ("fp16.class_iou=0", "fp16.label_agreement=0"):
        flags += ["--set", setting]
    assert cli.main(["export", str(folder / "run"), "--out", str(folder / "bundle"), *flags]) == 0
    return folder


def test_a_card_that_was_removed_is_said_not_to_be_there(chain):
    (chain / "bundle" / "card.jpg").unlink()
    links = trace(chain / "bundle", None)
    assert [link.state for link in links if link.name == "card.jpg"] == [NOT_HERE]
    assert cli.main(["trace", str(chain / "bundle")]) == 0


@pytest.fixture
def chain(made, tmp_path):
    """A copy to damage; its run speaks of the copy's own files."""
    folder = shutil.copytree(made, tmp_path / "chain")
    run = (folder / "run" / "run.json").read_text().replace(str(made), str(folder))
    (folder / "run" / "run.json").write_text(run)
    return folder


def states(links):
    return {(link.what, link.name): link.state for link in links}


def of(links, what):
    return next(link for link in links if link.what == what)


def test_an_untouched_chain_matches_from_end_to_end(chain):
    links = trace(chain / "bundle", chain / "run")
    assert [link.what for link in links[:8]] == [
        "source weights",
        "recipe",
        "target images",
        "weights",
        "graph",
        "graph content",
        "manifest",
        "ONNX file",
    ]
    assert {link.state for link in links} == {MATCHES, RECORDED}
    assert of(links, "graph").state == RECORDED
    assert {link.name for link in links if link.what == "file"} == {
        "card.md",
        "card.jpg",
        "golden.png",
        "golden-labels.png",
    }
    assert "2 images" in of(links, "target images").name


def test_the_home_weights_of_a_run_are_traced_as_its_own(chain, monkeypatch):
    adapt = ["adapt", "--method", "tent", "--weights", str(chain / "source"), "--size", "64x32"]
    adapt += ["--images", str(chain / "images"), "--keep", "last", "--out", str(chain / "tent")]
    home = ["--source-validation", "streetsynth:source"]
    assert cli.main([*adapt, *home, "--set", "steps=2", "--set", "batch_size=2"]) == 0
    weights = chain / "tent" / "home.safetensors"
    flags = ["--set", "fp32.class_iou=0", "--images", str(chain / "images")]
    assert cli.main(["export", str(weights), "--out", str(chain / "home"), *flags]) == 0
    facts = read_manifest(chain / "home").provenance
    assert facts["statistics"] == "source"
    assert "label_free_score" not in facts  # of the other statistics
    assert "- statistics: source" in (chain / "home" / "card.md").read_text()
    result = json.loads((chain / "tent" / "run.json").read_text())["result"]
    own = 100 * result["source_validation_own_statistics"]["miou"]
    assert facts["home_scores"]["model"] == pytest.approx(own, abs=0.01)
    (chain / "runs").mkdir()
    shutil.move(chain / "tent", chain / "runs" / "one")
    monkeypatch.chdir(chain)
    links = trace(chain / "home", None)
    assert states(links)["weights", "home.safetensors"] == MATCHES
    assert of(links, "target images").state == MATCHES
    assert not any(link.state == DIFFERS for link in links)
    of_run = states(trace(chain / "runs" / "one" / "home.safetensors", None))
    assert of_run["weights", "home.safetensors"] == MATCHES
    assert of_run["weights", "adapted.safetensors"] == MATCHES
    moved = chain / "runs" / "one" / "home.safetensors"
    moved.write_bytes(moved.read_bytes()[:-1] + b"\x01")
    assert states(trace(chain / "home", None))["weights", "home.safetensors"] == DIFFERS


def test_the_run_is_found_by_its_weights(chain, monkeypatch):
    (chain / "runs").mkdir()
    (chain / "run").rename(chain / "runs" / "one")
    monkeypatch.chdir(chain)
    assert of(trace(chain / "bundle"), "weights").note.endswith("runs/one/adapted.safetensors")


def test_of_runs_with_the_same_weights_the_one_of_the_same_images_is_found(chain, monkeypatch):
    """As two runs are that both returned the source model."""
    monkeypatch.chdir(chain)
    (chain / "runs").mkdir()
    earlier, later = chain / "runs" / "1-earlier", chain / "runs" / "2-later"
    shutil.move(chain / "run", later)
    shutil.copytree(later, earlier)
    record = json.loads((earlier / "run.json").read_text())
    original = json.dumps(record)
    record["inputs"]["target_sha256"] = "0" * 64
    record["inputs"]["images"] = str(chain / "elsewhere")
    (earlier / "run.json").write_text(json.dumps(record))
    links = trace(chain / "bundle")
    assert of(links, "target images").state == MATCHES
    record = json.loads(original)  # of the same images, with other settings or by another method
    for changed in ({"recipe": {"steps": 1}}, {"method": "tent"}):
        other = {**record, "inputs": {**record["inputs"], **changed}}
        (earlier / "run.json").write_text(json.dumps(other))
        links = trace(chain / "bundle")
        assert of(links, "recipe").state == MATCHES
        assert of(links, "weights").note.endswith("runs/2-later/adapted.safetensors")
    assert of(links, "weights").note.endswith("runs/2-later/adapted.safetensors")


def test_what_is_not_here_is_said_to_be_unchecked(chain, monkeypatch, capsys):
    monkeypatch.chdir(chain)
    assert cli.main(["trace", "bundle"]) == 0
    text = capsys.readouterr().out
    assert "were not checked; --origin" in text
    links = trace(chain / "bundle")
    for what in ("source weights", "target images", "weights"):
        assert of(links, what).state == NOT_HERE
    assert of(links, "ONNX file").state == MATCHES


def repainted(folder):
    path = folder / "images" / "0.png"
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)


def rewritten(*path, text):
    def change(folder):
        file = folder.joinpath(*path)
        before, after = text
        content = file.read_text()
        assert before in content
        file.write_text(content.replace(before, after))

    return change


def grown(*path):
    def change(folder):
        with folder.joinpath(*path).open("ab") as file:
            file.write(b" ")

    return change


def other_values(folder):
    """The graph computes something else, and the manifest has been made to agree."""
    path = folder / "bundle" / "model.onnx"
    model = onnx.load(path)
    model.graph.initializer[0].raw_data = bytes(len(model.graph.initializer[0].raw_data))
    onnx.save(model, path)


def truncated(folder):
    path = folder / "bundle" / "model.onnx"
    path.write_bytes(path.read_bytes()[:5000])


def stripped(folder):
    """A graph that says nothing of itself, and a manifest made to agree."""
    path = folder / "bundle" / "model.onnx"
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    manifest = folder / "bundle" / MANIFEST_FILE
    content = json.loads(manifest.read_text())
    content["sha256"]["model.onnx"] = file_sha256(path)
    manifest.write_text(json.dumps(content))


def renamed(folder):
    path = folder / "bundle" / MANIFEST_FILE
    content = json.loads(path.read_text())
    names = content["label_space"]["names"]
    names[3], names[9] = names[9], names[3]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (stripped, "graph content"),
        (renamed, "manifest"),
        (rewritten("bundle", MANIFEST_FILE, text=('"fp16"', '"int8"')), "manifest"),
        (grown("source", "model.safetensors"), "source weights"),
        (rewritten("run", "run.json", text=('share": "auto"', 'share": 0.9')), "recipe"),
        (rewritten("bundle", "manifest.json", text=('"seed": 0', '"seed": 1')), "recipe"),
        (repainted, "target images"),
        (lambda folder: (folder / "images" / "1.png").unlink(), "target images"),
        (grown("run", "adapted.safetensors"), "weights"),
        (other_values, "ONNX file"),
        (truncated, "ONNX file"),
        (
            rewritten("bundle", "manifest.json", text=('"method": "bn"', '"method": "x"')),
            "manifest",
        ),
        (grown("bundle", "card.md"), "file"),
    ],
)
def test_every_changed_link_differs(chain, change, what, capsys):
    change(chain)
    links = trace(chain / "bundle", chain / "run")
    differing = {link.what for link in links if link.state == DIFFERS}
    assert what in differing
    assert differing <= {what, "manifest"}
    assert cli.main(["trace", str(chain / "bundle"), "--origin", str(chain / "run")]) == 1
    assert DIFFERS in capsys.readouterr().out


def test_a_manifest_of_another_size_differs(chain):
    rewritten("bundle", "manifest.json", text=('"input_hw": [\n  32,', '"input_hw": [\n  64,'))(
        chain
    )
    link = of(trace(chain / "bundle"), "manifest")
    assert link.state == DIFFERS
    assert "another input size" in link.note


def test_a_lone_graph_and_a_run_are_traced_too(chain):
    graph = shutil.copy(chain / "bundle" / "model.onnx", chain / "lone.onnx")
    links = trace(chain / "lone.onnx", chain / "run" / "adapted.safetensors")
    assert of(links, "weights").state == of(links, "graph content").state == MATCHES
    assert of(links, "source weights").state == NOT_HERE
    links = trace(chain / "run" / "adapted.safetensors")
    assert {link.state for link in links} == {MATCHES}
    assert [link.what for link in links] == ["source weights", "target images", "weights"]
    onnx.save(onnx.load(graph), graph)  # another writer, the same content
    assert of(trace(chain / "lone.onnx"), "graph content").state == MATCHES
    model = onnx.load(graph)
    model.graph.initializer[0].raw_data = bytes(len(model.graph.initializer[0].raw_data))
    onnx.save(model, graph)
    assert of(trace(chain / "lone.onnx"), "graph content").state == DIFFERS


def test_a_stranger_in_a_bundle_or_a_run_is_not_vouched_for(chain):
    shutil.copy(chain / "run" / "adapted.safetensors", chain / "run" / "other.safetensors")
    with pytest.raises(ExportError, match=r"nothing is recorded of .*other\.safetensors"):
        trace(chain / "run" / "other.safetensors")
    (chain / "bundle" / "foreign.onnx").write_bytes(b"not ONNX at all")
    with pytest.raises(ExportError, match=r"foreign\.onnx is not a readable ONNX file"):
        trace(chain / "bundle" / "foreign.onnx")


@pytest.mark.parametrize(
    ("where", "content", "message"),
    [
        ("bundle/manifest.json", {"provenance": {}}, "is damaged: no 'weights_sha256'"),
        ("bundle/manifest.json", {"model_file": "../run/run.json"}, "no sha256 for ../run"),
        ("run/run.json", {"inputs": {"weights": 1}}, "is damaged"),
        ("bundle/manifest.json", {"provenance": {"weights_sha256": 5, "weights": "a"}}, "5 is no"),
    ],
)
def test_a_damaged_chain_says_so(chain, where, content, message):
    path = chain / where
    path.write_text(json.dumps({**json.loads(path.read_text()), **content}))
    with pytest.raises((ExportError, ManifestError), match=message):
        trace(path)


def test_nothing_in_a_chain_acts_on_the_terminal(chain):
    path = chain / "bundle" / MANIFEST_FILE
    content = json.loads(path.read_text())
    content["provenance"]["weights"] = "\x1b[31mred\nONNX file        matches   \ud800"
    path.write_text(json.dumps(content))
    line = of(trace(chain / "bundle"), "weights").line()
    assert line.endswith(r"\x1b[31mred\nONNX file        matches   \ud800")
    assert "\n" not in line


def test_chains_without_end_and_things_that_are_no_files_are_refused(chain, tmp_path):
    model = onnx.load(chain / "bundle" / "model.onnx")
    onnx.helper.set_model_props(model, {"provenance": "[" * 100_000})
    onnx.save(model, tmp_path / "deep.onnx")
    with pytest.raises(ExportError, match="is damaged"):
        trace(tmp_path / "deep.onnx")
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(ExportError, match="neither a file nor a folder"):
        trace(tmp_path / "pipe.onnx")
    with pytest.raises(ExportError, match="neither a bundle nor a run directory"):
        trace(tmp_path)


def test_a_path_out_of_the_bundle_is_not_followed(chain):
    path = chain / "bundle" / "manifest.json"
    content = json.loads(path.read_text())
    content["model_file"] = name = "../run/run.json"
    content["sha256"] = {name: "0" * 64}
    content["golden"] = None
    path.write_text(json.dumps(content))
    link = of(trace(chain / "bundle"), "file")
    assert (link.state, "not a file of the bundle" in link.note) == (DIFFERS, True)


def test_an_engine_is_a_link_to_the_graph_that_it_was_built_from(chain):
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx-cu13 (x86_64)")
    bundle = chain / "bundle"
    build_engine(bundle, EngineRequest("tensorrt-rtx", compute_capability="8.9"))
    link = of(trace(bundle), "engine")
    assert (link.state, "for 8.9" in link.note) == (MATCHES, True)
    record = bundle / "tensorrt-rtx.engine.json"
    content = json.loads(record.read_text())
    for change, note in (
        ({"model_sha256": "0" * 64}, "built from another ONNX file"),
        ({"precision": "int8"}, "its record has int8, the manifest fp16"),
        ({"timing_cache_sha256": "0" * 64}, "tensorrt-rtx.timing is another"),
    ):
        (bundle / "tensorrt-rtx.timing").write_bytes(with_digest(b"timings"))
        record.write_text(json.dumps({**content, **change}))
        assert (of(trace(bundle), "engine").state, of(trace(bundle), "engine").note) == (
            DIFFERS,
            note,
        )
    (bundle / "tensorrt-rtx.engine").write_bytes(b"x")
    assert "is not the engine that" in of(trace(bundle), "engine").note


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nowhere", None, "is not there"),
        ("notes.txt", b"x", "nothing is recorded of"),
        ("a.onnx", b"not ONNX", "is not a readable ONNX file"),
        ("b.onnx", onnx.ModelProto(ir_version=9).SerializeToString(), "carries no provenance"),
    ],
)
def test_what_cannot_be_traced_says_why(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ExportError, match=message):
        trace(tmp_path / name)


def test_a_folder_that_is_no_origin_is_refused(chain):
    with pytest.raises(ExportError, match="neither a run directory nor a weights file"):
        trace(chain / "bundle", chain / "images")
    (chain / "bundle" / MANIFEST_FILE).unlink()
    (chain / "run" / "run.json").write_text('{"inputs": {}}')
    with pytest.raises(ExportError, match="holds no finished adaptation"):
        trace(chain / "run")
    (chain / "run" / "run.json").write_text('{"inputs": {"recipe": {}, "images": "x"}}')
    with pytest.raises(ExportError, match="a run of sfda-edge train, where a chain begins"):
        trace(chain / "run")


def test_hashes_are_of_what_matters_alone():
    assert settings_sha256({"a": 1, "b": 2}) == settings_sha256({"b": 2, "a": 1})
    assert settings_sha256({"a": 1}) != settings_sha256({"a": 2})
    model = onnx.ModelProto(ir_version=9)
    bare = graph_sha256(model)
    onnx.helper.set_model_props(model, {"note": "x"})
    assert graph_sha256(model) == bare
    model.ir_version = 10
    assert graph_sha256(model) != bare


def test_a_run_speaks_for_the_weights_that_it_made_alone(chain, caplog):
    source = load_source(ModelRequest(chain / "run"))
    run = recorded_run(source)
    assert provenance(source, run)["method"] == "bn"
    assert "run_scores" not in provenance(source, run)
    scored = [{"miou": 0.25, "num_images": 2}, {"miou": 0.5, "num_images": 2}]
    run["result"]["validation"] = scored
    expected = {"num_images": 2, "before": 25.0, "model": 50.0}
    run["result"]["source_validation"] = scored[::-1]
    assert provenance(source, run)["run_scores"] == expected
    forgotten = {"num_images": 2, "before": 50.0, "model": 25.0}
    assert provenance(source, run)["home_scores"] == forgotten
    larger = replace(source, spec=replace(source.spec, input_hw=(64, 128)))
    assert "run_scores" not in provenance(larger, run)  # they are of the run's own size
    del run["result"]["returned"]
    with pytest.raises(ExportError, match=r"run\.json beside .* is damaged or of an older version"):
        provenance(source, run)
    run["result"]["returned"] = "source"
    assert unadapted(source, run) is not None
    grown("source", "model.safetensors")(chain)
    assert unadapted(source, run) is None
    assert "is missing or was changed" in caplog.text
    other = replace(source, sha256="0" * 64)
    assert recorded_run(other) == {}
    assert "method" not in provenance(other, {})
    assert unadapted(other, {}) is None
