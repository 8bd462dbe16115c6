"""The commands of the first request, word for word; the longest test has its own file."""

import json
import shutil

import pytest

from runtime.bundle.manifest import read_manifest
from sfda_edge.cli import main as cli
from sfda_edge.packaged import MODEL_DIR
from sfda_edge.recipes import recipe

pytestmark = pytest.mark.slow


@pytest.fixture
def few_steps(tmp_path_factory, monkeypatch):
    """The default recipe with 20 of its 300 steps: ``make demo`` runs it as it is."""
    folder = shutil.copytree(recipe._FOLDER, tmp_path_factory.mktemp("few") / "recipes")
    default = folder / "multiview.toml"
    text = default.read_text()
    assert "steps = 300" in text
    default.write_text(text.replace("steps = 300", "steps = 20"))
    monkeypatch.setattr(recipe, "_FOLDER", folder)


@pytest.fixture
def half_the_size(tmp_path_factory, monkeypatch):
    """The packaged model, with inputs of half their height and width."""
    folder = shutil.copytree(MODEL_DIR, tmp_path_factory.mktemp("half") / "model")
    described = json.loads((folder / "model.json").read_text())
    described["input_hw"] = [side // 2 for side in described["input_hw"]]
    (folder / "model.json").write_text(json.dumps(described))
    monkeypatch.setattr("sfda_edge.models.source_model.MODEL_DIR", folder)


@pytest.mark.usefixtures("few_steps", "few_views", "half_the_size")
def test_the_users_own_words_work_as_typed(in_empty_folder, caplog, capsys):
    caplog.set_level("INFO")
    assert cli.main(["adapt"]) == 0
    assert cli.main(["export", "--fp16"]) == 0
    latest = in_empty_folder / "runs" / "latest"
    assert latest.is_symlink()
    left = {path.name for path in latest.iterdir()}
    assert {"adapted.safetensors", "model.json", "recipe.toml", "run.json", "metrics.jsonl",
            "report.html"} <= left  # fmt: skip
    run = json.loads((latest / "run.json").read_text())
    assert run["state"] == "finished"
    manifest = read_manifest(in_empty_folder / "bundle")
    assert manifest.precision == "fp16"
    assert manifest.provenance["source_weights_sha256"] == run["inputs"]["weights_sha256"]
    assert manifest.provenance["weights_sha256"] == run["result"]["adapted_sha256"]
    for default in ("--weights", "--method", "--images", "--out", "--device", "--recipe"):
        assert any(default in message for message in caplog.messages), f"{default} is not named"
    assert "label agreement" in capsys.readouterr().out
