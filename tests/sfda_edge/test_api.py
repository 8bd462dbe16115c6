"""The public API: what a user's script does, and that it is light to import."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from user_network import Returning, as_dict

import export
import runtime
import sfda_edge
from export.bundle.provenance import unadapted
from runtime.bundle.labels import LabelSpace
from sfda_edge.batchnorm.layers import batchnorm_layers
from sfda_edge.cli import main as cli
from sfda_edge.errors import RecipeError
from sfda_edge.models.source_model import ModelRequest, load_source
from sfda_edge.models.spec import PYTHON
from sfda_edge.recipes.recipe import toml_value
from sfda_edge.selection.config import SelectionConfig

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "own_network.py"
NAMES = ("road", "car", "sky")


def test_importing_the_packages_imports_nothing_heavy():
    code = (
        "import sys, runtime, sfda_edge, export\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'cv2', 'numpy', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("package", [runtime, sfda_edge, export])
def test_every_public_name_is_there_and_documented(package):
    for name in package.__all__:
        assert getattr(package, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018


@pytest.mark.slow
def test_the_users_script_runs_as_it_is(in_empty_folder):
    lines = SCRIPT.read_text().splitlines()
    assert len([line for line in lines if line.strip()]) <= 25
    images = ROOT / "sfda_edge" / "streetsynth" / "pack" / "target" / "images"
    command = [sys.executable, str(SCRIPT), str(images), str(runtime_clip())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("(96, 192)") == 20
    assert (in_empty_folder / "bundle" / "model.onnx").is_file()


def runtime_clip():
    from runtime.packaged import CLIP

    return CLIP


# What --strict stands for, in one file.
STRICT = "\n".join(
    f"{name} = true"
    for name in (
        "disallow_any_generics",
        "disallow_subclassing_any",
        "disallow_untyped_calls",
        "disallow_untyped_defs",
        "disallow_untyped_decorators",
        "warn_return_any",
        "warn_unused_ignores",
        "strict_equality",
        "extra_checks",
    )
)


@pytest.mark.slow
def test_the_users_script_is_strictly_typed(check_types, tmp_path):
    assert "Success" in check_types(SCRIPT, STRICT)
    wrong = tmp_path / "wrong_script.py"
    wrong.write_text(SCRIPT.read_text().replace("run.report_path", "run.report_page"))
    assert "has no attribute" in check_types(wrong, STRICT)
    wrong.write_text("import sfda_edge\nfrom sfda_edge import importlib\n\ndef f(x): return x\n")
    told = check_types(wrong, STRICT)
    assert "not explicitly export" in told
    assert "missing a type annotation" in told


@pytest.fixture
def images():
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (30, 50, 3), np.uint8) for _ in range(6)]


def test_images_and_networks_in_memory_are_enough(images, in_empty_folder):
    torch.manual_seed(0)
    network = as_dict(3)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    model = sfda_edge.load_model(network, class_names=NAMES, size_hw=(32, 64))
    run = sfda_edge.adapt(model, images, method="bn", settings={"num_images": 8}, out_dir="run")
    after = network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before), "the caller's network stays"
    assert run.path == Path("run")
    assert run.report_path == Path("run/report.html")
    assert run.report_path.is_file()
    assert run.scores is None
    shown = f"Run(path={run.path!r}, windows=None, selected_step={run.selected_step}, scores=None, "
    assert repr(run) == f"{shown}source_scores=None, report_path={run.report_path!r})"
    assert "Conv2d" not in repr(run.model), "the network would be pages"
    assert run.model.class_names == NAMES
    bundle = export.export(run, out_dir="bundle", confidence=True)
    assert bundle.result.parity.label_agreement > 0.999
    with runtime.load_bundle(bundle.path) as loaded:
        assert loaded.segment(images[0]).shape == (30, 50)
    again = sfda_edge.load_model("run/adapted.safetensors", architecture="user_network:as_dict")
    assert again.spec.label_space == model.spec.label_space
    given = sfda_edge.load_model(as_dict(3), weights="run/adapted.safetensors")
    for key, value in run.model.network.state_dict().items():
        assert torch.equal(value, given.network.state_dict()[key])
    with pytest.raises(sfda_edge.SfdaEdgeError, match="was given in Python"):
        sfda_edge.load_model("run")


def test_a_network_on_a_device_is_taken_and_a_run_leaves_it_on_the_cpu_without_hooks(
    images, in_empty_folder
):
    torch.manual_seed(0)
    network = as_dict(3)
    model = sfda_edge.load_model(network, class_names=NAMES, size_hw=(32, 64))
    small = {"steps": 2, "batch_size": 2, "fake_hw": [16, 32], "patches_per_side": 2}
    run = sfda_edge.adapt(model, np.stack(images), method="sfda", settings=small, out_dir="run")
    for module in run.model.network.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert {parameter.device.type for parameter in run.model.network.parameters()} == {"cpu"}


@pytest.mark.parametrize("command", ["adapt", "train", "export"])
def test_labelled_images_are_named_in_python_as_on_the_command_line(command):
    """Every flag of the command that says something of them is an argument of the function."""
    functions = {"adapt": sfda_edge.adapt, "train": sfda_edge.train, "export": export.export}
    commands = next(a for a in cli.build_parser()._actions if a.dest == "command")
    flags = {action.dest for action in commands.choices[command]._actions}
    flags = {flag for flag in flags if "validation" in flag}
    assert len(flags) >= 3
    assert flags <= set(inspect.signature(functions[command]).parameters)


def of_damaged_statistics(num_classes):
    torch.manual_seed(0)
    network = as_dict(num_classes)
    norm = next(m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d))
    norm.running_var.fill_(float("nan"))
    return network


def test_damaged_statistics_are_recorded_as_null(images, in_empty_folder):
    model = sfda_edge.load_model(of_damaged_statistics(3), class_names=NAMES, size_hw=(32, 64))
    run = sfda_edge.adapt(model, images, method="bn", settings={"num_images": 8}, out_dir="run")
    recorded = json.loads((in_empty_folder / "run" / "run.json").read_text())
    assert recorded["state"] == "finished"
    assert None in recorded["result"]["batchnorm_check"].values()
    assert run.report_path is not None


def test_a_run_that_cannot_begin_leaves_nothing(images, in_empty_folder):
    model = sfda_edge.load_model(as_dict(3), class_names=NAMES, size_hw=(32, 64))
    with pytest.raises(sfda_edge.SfdaEdgeError):
        sfda_edge.adapt(model, images[:1], out_dir="run")
    assert not (in_empty_folder / "run").exists()


def test_images_of_any_name_are_found_again_for_export(images, in_empty_folder):
    folder = in_empty_folder / "images"
    folder.mkdir()
    for index, (name, image) in enumerate(
        zip(["a\u2028b", "c\x0bd", "e\udcfff", "g\nh", "i  j", "k"], images, strict=True)
    ):
        Image.fromarray(image).save(folder / f"{index}{name}.png")
    model = sfda_edge.load_model(as_dict(3), class_names=NAMES, size_hw=(32, 64))
    run = sfda_edge.adapt(model, folder, method="bn", settings={"num_images": 8}, out_dir="run")
    assert len((run.path / "target.sha256").read_text().split("\n")) == len(images) + 1
    export.export("run", architecture="user_network:as_dict", out_dir="bundle")


def test_the_weights_that_were_chosen_in_a_file_are_recorded_and_shown_as_before(
    images, in_empty_folder
):
    torch.manual_seed(0)
    states = {"model": as_dict(3).state_dict(), "model_ema": as_dict(3).state_dict()}
    torch.save(states, "both.pth")
    request = ModelRequest(
        Path("both.pth"),
        architecture="user_network:as_dict",
        label_space=LabelSpace(NAMES, ((0, 0, 0),) * 3),
        size_hw=(32, 64),
        weights_key="model_ema",
    )
    settings = {"num_images": 8}
    run = sfda_edge.adapt(load_source(request), images, method="bn", settings=settings)
    recorded = json.loads((run.path / "run.json").read_text())
    assert recorded["inputs"]["weights_key"] == "model_ema"
    before = unadapted(run.model, recorded)
    for key, value in before.state_dict().items():
        assert torch.equal(value, states["model_ema"][key]), key


def test_labelled_images_are_scored(labelled_folder, in_empty_folder):
    options = {"class_names": NAMES, "size_hw": (32, 64)}
    folder, labels = labelled_folder / "images", labelled_folder / "labels"
    plain = sfda_edge.evaluate(as_dict(3), folder, labels=labels, **options)
    assert 0 <= plain.miou <= 1
    assert not list(in_empty_folder.glob("evaluation*")), "no files unless asked for"
    run = sfda_edge.adapt(
        as_dict(3), folder, method="bn", settings={"num_images": 8}, out_dir="run",
        validation=folder, validation_labels=labels, **options,
    )  # fmt: skip
    before, after = run.scores
    assert before.num_images == after.num_images == 6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sfda_edge.load_model(as_dict(3)), "described: class_names, size_hw"),
        (lambda: sfda_edge.load_model(as_dict(3), class_names="sky,road", size_hw=(8, 8)),
         "class_names must be a list of names, found the text 'sky,road'"),
        (lambda: sfda_edge.load_model(Returning(3, lambda y: {"seg": y}), class_names=NAMES,
                                      size_hw=(32, 64)), "the network returned dict with seg"),
        (lambda: sfda_edge.load_model(as_dict(3), class_names=("a", "b"), size_hw=(8, 8)),
         "returned (1, 3, 8, 8); logits (1, 2, h, w)"),
        (lambda: sfda_edge.load_model(as_dict(3), class_names=("a", "a"), size_hw=(8, 8)),
         "class names must differ"),
        (lambda: sfda_edge.adapt(images=[np.zeros((4, 4), np.uint8)]), "expected an array"),
        (lambda: sfda_edge.adapt(images=[np.zeros((0, 4, 3), np.uint8)]), "found (0, 4, 3)"),
        (lambda: sfda_edge.adapt(images=[]), "no images: the sequence is empty"),
        (lambda: sfda_edge.adapt(precision="fp64"), "unknown precision 'fp64'"),
        (lambda: sfda_edge.adapt(settings={"stepz": 3}), "unknown setting 'stepz'"),
        (lambda: sfda_edge.adapt(sfda_edge.load_model(), size_hw=(8, 8)), "takes no further"),
        (lambda: export.export(None, precision="half"), "unknown precision 'half'"),
        (lambda: export.export(None, argmax="soft"), "unknown argmax 'soft'"),
        (lambda: sfda_edge.evaluate("nowhere"), "nowhere does not exist"),
        (lambda: sfda_edge.train("nothing", "streetsynth:source"), "unknown recipe 'nothing'"),
        (lambda: export.export(None, out_dir="b"), "give --images"),
        (lambda: sfda_edge.load_model(weights="nowhere.pth"), "nowhere.pth does not exist"),
        (lambda: sfda_edge.evaluate(weights="nowhere.pth"), "nowhere.pth does not exist"),
        (lambda: sfda_edge.load_model("a.pth", weights="b.pth"), "two models: a.pth and weights=b"),
        (lambda: sfda_edge.load_model(palette=[(0, 0, 0)]), "palette has the colours of class_nam"),
        (lambda: sfda_edge.load_model(class_names=NAMES, label_space="camvid"), "both name"),
        (lambda: sfda_edge.load_model(as_dict(3), class_names=NAMES, size_hw=[8]), "found [8]"),
        (lambda: sfda_edge.load_model(as_dict(3), class_names=NAMES, size_hw=(8, "8")), "whole"),
        (lambda: sfda_edge.adapt(validation_labels="labels"), "validation_labels needs validation"),
        (lambda: sfda_edge.adapt(source_validation_classes="camvid"),
         "source_validation_classes needs source_validation, the images"),
        (lambda: sfda_edge.train("train-demo", "streetsynth:source", validation_labels="labels"),
         "validation_labels needs validation"),
        (lambda: export.export(None, validation_labels="labels"), "validation_labels needs valid"),
        (lambda: sfda_edge.evaluate(images=[np.zeros((4, 4, 3), np.uint8)], labels="labels"),
         "not for arrays"),
        (lambda: sfda_edge.evaluate(label_classes="cityscapes"), "knows what its labels mean"),
    ],
)  # fmt: skip
def test_errors_say_what_to_do(call, message, in_empty_folder):
    with pytest.raises(sfda_edge.SfdaEdgeError) as caught:
        call()
    assert message in str(caught.value)


def test_values_of_numpy_and_lists_are_taken(images, in_empty_folder):
    model = sfda_edge.load_model(as_dict(3), class_names=NAMES, size_hw=[32, np.int64(64)])
    assert model.spec.input_hw == (32, 64)
    assert toml_value((np.int64(1), [np.float64(0.5)])) == "[1,[0.5]]"
    settings = {"steps": np.int64(1), "learning_rate": np.float64(1e-4), "batch_size": 2}
    run = sfda_edge.adapt(model, images, settings=settings, out_dir="run")
    recipe = json.loads((run.path / "run.json").read_text())["inputs"]["recipe"]
    assert (recipe["steps"], recipe["learning_rate"]) == (1, 1e-4)


TITLE = "6 images in memory"


def test_a_network_that_was_changed_since_is_not_called_by_its_file(
    images, in_empty_folder, caplog
):
    settings = {"steps": 2, "batch_size": 2}
    options = {"class_names": NAMES, "size_hw": (32, 64)}
    run = sfda_edge.adapt(as_dict(3), images, settings=settings, out_dir="run", **options)
    loose = {"thresholds": {"fp32.class_iou": 0, "gate_images": 2}}
    made = export.export(run, out_dir="as-it-was", **loose).manifest.provenance
    assert made["weights_sha256"] == run.model.sha256
    assert made["weights"] == "adapted.safetensors"
    assert "was changed" not in caplog.text
    with torch.no_grad():
        for parameter in run.model.network.parameters():
            parameter.add_(0.1)
    changed = export.export(run, out_dir="changed", **loose).manifest.provenance
    assert "was changed after it was loaded from run/adapted.safetensors" in caplog.text
    assert changed["weights"] == "given in Python"
    assert changed["weights_sha256"] != run.model.sha256
    assert "method" not in changed, "the run has not made these weights"
    assert changed["compared_on"]["images"] == made["compared_on"]["images"] == TITLE
    assert changed["compared_on"]["sha256"] == made["compared_on"]["sha256"]


def test_a_packaged_network_that_was_changed_is_recorded_as_given_in_python(
    images, in_empty_folder
):
    model = sfda_edge.load_model()
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.mul_(1.01)
    few = {"num_images": 8}
    run = sfda_edge.adapt(model, images, method="bn", settings=few, out_dir="run")
    inputs = json.loads((run.path / "run.json").read_text())["inputs"]
    assert inputs["weights"] == f"{PYTHON}{type(model.network).__name__}"
    assert inputs["weights_sha256"] != model.sha256


@pytest.mark.parametrize(
    ("network", "keep", "said"),
    [
        (as_dict, "source", "the source model, unchanged: method bn returned it, as asked."),
        (of_damaged_statistics, "source",
         "the source model, with BatchNorm statistics of the target: method bn returned it, as"),
        (as_dict, "last", "It was adapted without labels, by method bn."),
    ],
)  # fmt: skip
def test_the_card_says_which_images_and_whether_anything_was_adapted(
    network, keep, said, images, in_empty_folder
):
    run = sfda_edge.adapt(
        network(3), images, class_names=NAMES, size_hw=(32, 64), method="bn", out_dir="run",
        settings={"num_images": 8}, selection=SelectionConfig(keep=keep),
    )  # fmt: skip
    export.export(run, out_dir="bundle", thresholds={"fp32.class_iou": 0, "gate_images": 2})
    card = Path("bundle/card.md").read_text()
    assert f"with the torch model on 2 images ({TITLE})" in card
    assert said in card
    assert ("It was adapted" in card) == (keep == "last")


def test_a_network_of_the_users_can_be_trained_where_its_batches_can(in_empty_folder):
    settings = {"model": "user_network:build", "steps": 1, "batch_size": 1, "input_hw": (16, 32)}
    settings["initial_weights"] = "none"
    trained = sfda_edge.train("train-demo", "streetsynth:source", settings=settings, out_dir="one")
    assert trained.model.spec.architecture == "user_network:build"
    settings["model"] = "user_network:pooled"
    with pytest.raises(RecipeError, match="pooled cannot train with batch_size = 1; take 2"):
        sfda_edge.train("train-demo", "streetsynth:source", settings=settings, out_dir="two")
    assert not Path("two").exists()
    settings["batch_size"] = 2
    sfda_edge.train("train-demo", "streetsynth:source", settings=settings, out_dir="two")


def test_a_source_model_can_be_trained(in_empty_folder):
    settings = {"steps": 1, "batch_size": 2, "input_hw": [32, 64], "initial_weights": "none"}
    trained = sfda_edge.train(
        "train-demo", "streetsynth:source", settings=settings, out_dir="trained"
    )
    assert trained.model.spec.input_hw == (32, 64)
    assert sfda_edge.load_model("trained").sha256 == trained.model.sha256


@pytest.mark.parametrize("scale", [1, 900])
def test_statistics_that_were_damaged_are_no_home(scale, in_empty_folder):
    model = sfda_edge.load_model(size_hw=(96, 192))
    for layer in batchnorm_layers(model.network).values():
        layer.running_mean.mul_(scale**0.5)
        layer.running_var.div_(scale)
    run = sfda_edge.adapt(
        model,
        method="tent",
        settings={"steps": 2, "batch_size": 2},
        selection=SelectionConfig(keep="last"),
        out_dir="run",
        device="cpu",
    )
    assert run.selected_step == 2
    assert Path("run/home.safetensors").exists() == (scale == 1)
