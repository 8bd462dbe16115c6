"""The command line, from an empty folder as a new user has it."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import export
import sfda_edge
from runtime.bundle.manifest import file_sha256
from sfda_edge.cli import main as cli
from sfda_edge.cli.options import size_hw
from sfda_edge.errors import SfdaEdgeError
from sfda_edge.labels.label_spaces import LABEL_SPACES
from sfda_edge.packaged import MODEL_DIR, TARGET_DIR
from sfda_edge.selection.config import SelectionConfig

pytestmark = pytest.mark.usefixtures("few_views")

# The packaged network takes less than a second a step at this size.
SMALL = ("--size", "96x48")
# A process of its own has none of this one's fixtures.
WITH_FEW_VIEWS = """
import sys
from sfda_edge.cli.main import main
from sfda_edge.selection.config import SelectionConfig
SelectionConfig.__init__.__kwdefaults__.update(scales=(0.75, 1.0, 1.25), probe_images=4)
sys.exit(main(sys.argv[1:]))
"""


def test_evaluation_leaves_text_json_and_pictures(in_empty_folder, capsys):
    assert cli.main(["evaluate", "--images", "streetsynth:source"]) == 0
    text = capsys.readouterr().out
    record = json.loads((in_empty_folder / "evaluation" / "evaluation.json").read_text())
    assert f"{100 * record['miou']:.1f}" in text
    assert record["miou"] > 0.5, "the packaged model was trained on this style"
    assert np.sum(record["confusion"]) == 20 * 360 * 480
    for name in ("confusion.png", "contact_sheet.jpg"):
        with Image.open(in_empty_folder / "evaluation" / name) as picture:
            assert min(picture.size) > 300


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["evaluate", "--label-space", "camvid"],
            "--label-space and --binary are for weights without one",
        ),
        (["adapt", "--model", ":x", "--label-space", "camvid", "--size", "8x8"], "unknown network"),
        (["adapt", "--images", "x" * 300], "File name too long"),
        (["adapt", "--images", "nowhere"], "'nowhere' does not exist; give a folder"),
        (["adapt", "--images", cli.__file__], ".py' is not a folder, a video file"),
        (["adapt", "--method", "magic"], "unknown method 'magic'; known: multiview"),
        (["recipes", "mine.toml"], "mine.toml does not exist; sfda-edge recipes lists"),
        (["adapt", "--method", "selftran"], "'selftran'; did you mean 'selftrain'?"),
        (["adapt", "--weights", "."], "model.safetensors); name a run directory or a weights file"),
        (
            ["adapt", "--method", "bn", "--set", "target_share=7"],
            "must be auto or in [0, 1], got 7",
        ),
        (["adapt", "--weights", "no.pth"], "no.pth does not exist; name a run directory"),
        (
            ["adapt", "--model", "deeplabv3_resnet50"],
            "--model deeplabv3_resnet50 needs its --weights FILE",
        ),
        (
            ["adapt", "--weights", cli.__file__],
            "it must be described: --model, --label-space, --size",
        ),
        (["adapt", "--device", "cuda:9"], "device 'cuda:9' cannot be used"),
        (["adapt", "--precision", "fp16", "--device", "cpu"], "--precision fp16 needs a CUDA GPU"),
        (["adapt", "--feature-layer", "x", "--method", "sfda"], "the network has no layer 'x'"),
        (["recipes", "nothing"], "unknown recipe 'nothing'"),
        (["adapt", "--resume"], "--resume needs --out"),
        (["adapt", "--size", "99999x99999"], "an input of 99999x99999 is not possible"),
        (["adapt", "--source-validation-labels", "."], "needs --source-validation IMAGES"),
        (["adapt", "--source-validation", "streetsynth:target"], "has no labels"),
        (
            ["adapt", "--source-validation", str(TARGET_DIR / "images")],
            "--source-validation-labels",
        ),
        (
            [
                "train",
                "train-demo",
                "--images",
                "streetsynth:source",
                "--validation",
                "streetsynth:target",
            ],
            "has no labels",
        ),
        (["adapt", "--resume", "--out", "new"], "nothing to resume"),
        (["export"], "there is no runs/latest here"),
        (["export", str(MODEL_DIR)], "no run beside them; give --images"),
        (["export", "--target", "tpu"], "unknown profile 'tpu'"),
        (["export", "--engine", "tensorrt-rtx"], "--profile cpu has no engines"),
        (["export", "--compute-capability", "8.9"], "add --engine"),
        (
            ["export", "--max-batch", "4", "--dynamic-batch"],
            "--max-batch applies to engines; add --engine",
        ),
        (
            ["export", "--engine", "tensorrt", "--compute-capability", "8.7"],
            "tensorrt builds only for the GPU that is here",
        ),
        (["evaluate", "--images", "streetsynth:target"], "has no labels"),
        (["evaluate", "--map", "nothing"], "unknown class map 'nothing'"),
        (["train", "nothing", "--images", "."], "unknown recipe 'nothing'"),
        (["synth", "--style", "snow", "--out", "x"], "unknown style 'snow'"),
    ],
)
def test_what_the_user_has_to_change_is_exit_code_2(in_empty_folder, capsys, arguments, message):
    assert cli.main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("size", ["512", "0x4", "512x", "axb"])
def test_impossible_sizes_are_refused(capsys, size):
    with pytest.raises(SystemExit) as stop:
        cli.main(["adapt", "--size", size])
    assert stop.value.code == 2
    assert "WIDTHxHEIGHT" in capsys.readouterr().err


def test_help_names_every_label_space(capsys):
    with pytest.raises(SystemExit):
        cli.main(["adapt", "--help"])
    words = capsys.readouterr().out.replace(",", " ").split()
    assert LABEL_SPACES.keys() <= set(words)


def test_sizes_are_width_by_height():
    assert size_hw("512x256") == (256, 512)


def test_a_run_is_not_written_over(in_empty_folder, capsys):
    (in_empty_folder / "mine").mkdir()
    (in_empty_folder / "mine" / "notes.txt").write_text("precious")
    assert cli.main(["adapt", "--out", "mine"]) == 2
    assert "mine exists already" in capsys.readouterr().err
    assert (in_empty_folder / "mine" / "notes.txt").read_text() == "precious"


def test_a_run_resumes_only_with_what_it_was_begun_with(in_empty_folder, capsys):
    begun = ["adapt", *SMALL, "--method", "bn", "--out", "run"]
    assert cli.main([*begun, "--set", "num_images=8"]) == 0
    facts = in_empty_folder / "run" / "run.json"
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"state": "running"}))
    assert cli.main([*begun, "--set", "num_images=16", "--resume"]) == 2
    said = capsys.readouterr().err
    assert "was started with another recipe.num_images (8, not 16); resume with" in said
    run = json.loads(facts.read_text())
    run["inputs"]["recipe"]["momentum"] = 0.4  # a setting that there was once
    facts.write_text(json.dumps(run))
    assert cli.main([*begun, "--set", "num_images=8", "--resume"]) == 2
    assert "started with another recipe.momentum (0.4, not None)" in capsys.readouterr().err


@pytest.mark.slow
def test_resuming_repeats_what_the_run_was_begun_with(
    in_empty_folder, labelled_folder, caplog, capsys
):
    caplog.set_level("INFO")
    scored = ["--validation", str(labelled_folder / "images")]
    scored += ["--validation-labels", str(labelled_folder / "labels")]
    begun = ["adapt", *SMALL, "--method", "tent", "--set", "steps=2", "--set", "batch_size=2"]
    assert cli.main([*begun, "--out", "run", *scored]) == 0
    facts = in_empty_folder / "run" / "run.json"
    first = json.loads(facts.read_text())
    assert cli.main(["adapt", "--resume", "--out", "run"]) == 2
    assert "run is finished; there is nothing to resume" in capsys.readouterr().err
    assert cli.main([*begun, "--out", "run"]) == 2
    assert "run exists already; choose another --out\n" in capsys.readouterr().err
    facts.write_text(json.dumps(first | {"state": "running"}))
    assert cli.main([*begun, "--out", "run"]) == 2
    assert "choose another --out, or --resume to continue" in capsys.readouterr().err
    unsaid = {key: fact for key, fact in first.items() if key != "arguments"}
    facts.write_text(json.dumps(unsaid | {"state": "running"}))
    assert cli.main(["adapt", "--resume", "--out", "run"]) == 2
    said = capsys.readouterr().err
    assert "started with another method (tent, not multiview), recipe.steps (2, not 300)" in said
    assert "does not record the arguments" in caplog.text
    facts.write_text(json.dumps(first | {"state": "running"}))
    assert cli.main(["adapt", "--resume", "--out", "run"]) == 0
    assert "resumed: 0 of 2 steps" in caplog.text
    second = json.loads(facts.read_text())
    assert second["result"] == first["result"] | {"data_wait_s": second["result"]["data_wait_s"]}


def test_what_a_model_forgets_at_home_is_said(in_empty_folder, caplog):
    caplog.set_level("INFO")
    home = ["--source-validation", "streetsynth:source"]
    arguments = ["adapt", *SMALL, "--method", "bn", "--set", "num_images=8", *home, "--out", "run"]
    assert cli.main(arguments) == 0
    result = json.loads((in_empty_folder / "run" / "run.json").read_text())["result"]
    before, after = (100 * scores["miou"] for scores in result["source_validation"])
    assert result["source_validation"][0]["num_images"] == 20
    assert not result["validation"]
    said = f"of the source domain: mIoU {before:.1f} before, {after:.1f} after ("
    assert said in caplog.text
    report = (in_empty_folder / "run" / "report.html").read_text()
    assert "At home" in report
    assert said in report
    evaluated = sfda_edge.evaluate("run", "streetsynth:source")  # an independent way
    assert 100 * evaluated.miou == pytest.approx(after, abs=1e-3)
    # bn changes the statistics alone: with the source's own, it would be the source model again.
    assert result["returned"] != "source"
    assert "home_sha256" not in result
    assert not (in_empty_folder / "run" / "home.safetensors").exists()


def test_the_home_model_is_scored_at_home(in_empty_folder, caplog):
    caplog.set_level("INFO")
    home = ["--source-validation", "streetsynth:source", "--keep", "last", "--set", "steps=3"]
    assert cli.main(["adapt", *SMALL, "--method", "tent", *home, "--out", "run"]) == 0
    result = json.loads((in_empty_folder / "run" / "run.json").read_text())["result"]
    own = 100 * result["source_validation_own_statistics"]["miou"]
    assert abs(own - 100 * result["source_validation"][1]["miou"]) > 1
    assert f"home.safetensors, the same weights with the source's statistics: {own:.1f}." in (
        caplog.text
    )
    assert result["home_sha256"] == file_sha256(in_empty_folder / "run" / "home.safetensors")
    at_home = sfda_edge.evaluate("run/home.safetensors", "streetsynth:source")
    assert 100 * at_home.miou == pytest.approx(own, abs=1e-3)
    with pytest.raises(SfdaEdgeError, match="give --images of the source domain"):
        export.export("run/home.safetensors", out_dir="bundle")
    (in_empty_folder / "run" / "home.safetensors").rename(
        in_empty_folder / "run" / "day.safetensors"
    )
    with pytest.raises(SfdaEdgeError, match="give --images of the source domain"):
        export.export("run/day.safetensors", out_dir="bundle")


def test_the_home_model_has_the_adapted_weights_and_the_sources_statistics(in_empty_folder):
    settings, last = {"steps": 3, "batch_size": 2}, SelectionConfig(keep="last")
    model = sfda_edge.load_model(size_hw=(48, 96))
    run = sfda_edge.adapt(
        model, "streetsynth:target", method="tent", settings=settings, selection=last, out_dir="run"
    )
    home = load_file(in_empty_folder / "run" / "home.safetensors")
    adapted, source = run.model.network.state_dict(), model.network.state_dict()
    assert home.keys() == adapted.keys() == source.keys()
    changed = 0
    for name, value in home.items():
        expected = source if "running_" in name else adapted
        assert torch.equal(value, expected[name]), name
        changed += not torch.equal(adapted[name], source[name])
    assert changed > 10
    assert all(torch.equal(v, home[n]) for n, v in run.home_model.network.state_dict().items())
    assert run.home_model.sha256 == file_sha256(run.home_model.path)


def test_the_source_model_that_is_returned_has_no_other_statistics(in_empty_folder, caplog):
    caplog.set_level("INFO")
    home = ["--source-validation", "streetsynth:source", "--keep", "source"]
    assert cli.main(["adapt", *SMALL, "--method", "bn", *home, "--out", "run"]) == 0
    result = json.loads((in_empty_folder / "run" / "run.json").read_text())["result"]
    assert result["returned"] == "source"
    assert "source_validation_own_statistics" not in result
    assert "home_sha256" not in result
    assert "home.safetensors" not in caplog.text
    assert not (in_empty_folder / "run" / "home.safetensors").exists()


def test_home_weights_of_a_killed_attempt_do_not_stay(in_empty_folder):
    begun = ["adapt", *SMALL, "--method", "bn", "--out", "run", "--set", "num_images=8"]
    assert cli.main(begun) == 0
    facts, stale = (
        in_empty_folder / "run" / "run.json",
        in_empty_folder / "run" / "home.safetensors",
    )
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"state": "running"}))
    stale.write_bytes(b"of another attempt")
    assert cli.main([*begun, "--resume"]) == 0
    assert not stale.exists()


@pytest.mark.slow
def test_resuming_with_other_threads_is_said(in_empty_folder, caplog):
    begun = ["adapt", *SMALL, "--method", "bn", "--out", "run", "--set", "num_images=8"]
    assert cli.main(begun) == 0
    facts = in_empty_folder / "run" / "run.json"
    run = json.loads(facts.read_text()) | {"state": "running"}
    facts.write_text(json.dumps(run))
    assert cli.main([*begun, "--resume"]) == 0
    assert "bit for bit" not in caplog.text
    facts.write_text(json.dumps(run | {"threads": 77}))
    assert cli.main([*begun, "--resume"]) == 0
    assert "started with threads 77, resumed with" in caplog.text


@pytest.mark.slow
def test_a_killed_adaptation_resumes_to_the_same_weights(in_empty_folder):
    (in_empty_folder / "few").mkdir()
    for image in sorted((TARGET_DIR / "images").iterdir())[:4]:
        shutil.copy(image, in_empty_folder / "few")
    arguments = ["adapt", *SMALL, "--images", "few"]
    for setting in ("steps=30", "batch_size=2", "warmup_steps=2"):
        arguments += ["--set", setting]
    assert cli.main([*arguments, "--out", "whole"]) == 0
    metrics = in_empty_folder / "killed" / "metrics.jsonl"
    killed_run = [sys.executable, "-c", WITH_FEW_VIEWS, *arguments, "--out", "killed"]
    with subprocess.Popen(killed_run, stderr=subprocess.DEVNULL) as process:
        start_s = time.monotonic()
        # Behind the checkpoint of step 20 and before the end.
        while not metrics.exists() or len(metrics.read_text().splitlines()) < 24:
            assert process.poll() is None
            assert time.monotonic() - start_s < 120
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert not (in_empty_folder / "killed" / "adapted.safetensors").exists()
    assert cli.main([*arguments, "--out", "killed", "--resume"]) == 0
    whole, killed = (in_empty_folder / n / "adapted.safetensors" for n in ("whole", "killed"))
    assert whole.read_bytes() == killed.read_bytes()


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint_starts_again(in_empty_folder, capsys):
    begun = ["adapt", *SMALL, "--method", "bn", "--out", "run"]
    assert cli.main(begun) == 0
    assert cli.main([*begun, "--resume"]) == 2
    assert "is finished" in capsys.readouterr().err
    facts = in_empty_folder / "run" / "run.json"
    facts.write_text(facts.read_text().replace('"finished"', '"running"'))
    (in_empty_folder / "run" / "checkpoints" / "last.pt").unlink()
    (in_empty_folder / "run" / "adapted.safetensors").unlink()
    assert cli.main([*begun, "--resume"]) == 0
    assert (in_empty_folder / "run" / "adapted.safetensors").is_file()
    assert len((in_empty_folder / "run" / "metrics.jsonl").read_text().splitlines()) == 7


@pytest.mark.parametrize(
    ("flags", "message"),
    [(["--images", "nowhere"], "'nowhere' does not exist"), (["--device", "cuda:9"], "'cuda:9'")],
)
def test_a_slip_does_not_wait_for_fabric(in_empty_folder, flags, message):
    """Whose import takes five seconds."""
    code = "import sys; from sfda_edge.cli.main import main; status = main(sys.argv[1:]); "
    code += "sys.exit(status if 'lightning_fabric' not in sys.modules else 'imported')"
    command = [sys.executable, "-c", code, "adapt", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr


def test_a_missing_extra_is_named(in_empty_folder, capsys, monkeypatch):
    def missing(args):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("sfda_edge.cli.adapt.run", missing)
    assert cli.main(["adapt"]) == 2
    assert "pip install 'sfda-edge[adapt]'" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "promised"), [("export", False), ("adapt", True)])
def test_ctrl_c_promises_resume_only_where_there_is_one(monkeypatch, capsys, command, promised):
    def pressed(_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"sfda_edge.cli.{command}.run", pressed)
    assert cli.main([command]) == 130
    assert ("--resume" in capsys.readouterr().err) == promised


@pytest.mark.parametrize(
    "words", ["CUDA out of memory. Tried to allocate 2 GiB", "DefaultCPUAllocator: can't allocate"]
)
def test_too_little_memory_is_said(monkeypatch, capsys, words):
    def fails(_args):
        raise RuntimeError(f"{words} memory\nand a long trace")

    monkeypatch.setattr("sfda_edge.cli.adapt.run", fails)
    assert cli.main(["adapt"]) == 2
    said = capsys.readouterr().err
    assert "a smaller --size" in said
    assert "long trace" not in said


def test_a_failure_of_ours_keeps_its_trace(monkeypatch):
    def fails(_args):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr("sfda_edge.cli.adapt.run", fails)
    with pytest.raises(RuntimeError, match="mat1"):
        cli.main(["adapt"])


@pytest.mark.parametrize("closed", ["| true", ">&-"])
def test_that_nobody_reads_is_no_error(closed):
    """As in ``sfda-edge recipes | head -1``, or where a daemon has no standard output."""
    command = f"{sys.executable} -m sfda_edge.cli recipes {closed}"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("running", "the run has not finished: --resume continues it"),
        ("finished", "name a run directory or a weights file"),
    ],
)
def test_a_run_without_weights_says_what_to_do(in_empty_folder, capsys, state, message):
    (in_empty_folder / "run").mkdir()
    (in_empty_folder / "run" / "run.json").write_text(json.dumps({"state": state}))
    assert cli.main(["evaluate", "run"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "--weights", "x"],
        ["adapt", "--image", "x"],
        ["stream", "camera0", "--rec", "x"],
    ],
)
def test_no_flag_is_guessed_from_its_beginning(arguments, capsys):
    with pytest.raises(SystemExit):
        cli.main(arguments)
    assert "unrecognized arguments" in capsys.readouterr().err
