"""What every method has to do, tried with every recipe that ships."""

import copy
import dataclasses
from functools import partialmethod

import pytest
import torch
from torch import nn
from torch.nn import functional
from user_network import Shared, coarse, without_norm

from sfda_edge.adaptation.begin import begin
from sfda_edge.adaptation.loop import adapt, checkpoint_path
from sfda_edge.adaptation.prepare import completed, warn_of_other_model
from sfda_edge.batchnorm.global_batch import batch_moments
from sfda_edge.batchnorm.statistics import target_statistics
from sfda_edge.errors import RecipeError, RunError
from sfda_edge.labels.label_spaces import label_space
from sfda_edge.methods import METHODS, load_method_recipe
from sfda_edge.methods.multiview import class_weights, rarity_weights
from sfda_edge.methods.sfda.features import feature_layer
from sfda_edge.models import MODELS, ModelSpec, build_model
from sfda_edge.models.source_model import ModelRequest, load_source
from sfda_edge.recipes.published import RecipeModel, recipe_model
from sfda_edge.recipes.recipe import describe_recipes, recipe_names, recipe_path
from sfda_edge.report.illustrations import illustration_section
from sfda_edge.runs.metrics import read_metrics
from sfda_edge.selection.checkpoint_selection import CheckpointSelection
from sfda_edge.toml_file import read_toml

RECIPES = [name for name in recipe_names() if "method" in read_toml(recipe_path(name))]
# Small enough for a test, and for a GPU-sized published recipe to pass through the same code.
SMALL = {"fake_hw": "[16, 32]", "noise_size": "8", "num_images": "8", "batch_size": "4"}


@pytest.fixture(autouse=True)
def narrow_networks(monkeypatch):
    """An eighth of the channels: SFDA's networks as they ship take nearly a second a step."""
    monkeypatch.setattr("sfda_edge.methods.sfda.generator._WIDTHS", (64, 32, 16, 8, 8))
    monkeypatch.setattr("sfda_edge.methods.sfda.discriminator._WIDTHS", (8, 16, 32, 64))


def small_recipe(name, steps=2):
    settings = read_toml(recipe_path(name))
    _, recipe = load_method_recipe(name)
    changes = {key: value for key, value in SMALL.items() if hasattr(recipe, key)}
    if "steps" in {field.name for field in dataclasses.fields(recipe)}:
        changes["steps"] = str(steps)
    assert settings["method"] in METHODS
    return load_method_recipe(name, None, tuple(f"{k}={v}" for k, v in changes.items()))


def started(task, name, steps=2, **changes):
    method_name, recipe = small_recipe(name, steps)
    recipe = dataclasses.replace(recipe, **changes)
    return begin(task, METHODS[method_name][1], recipe)


@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_runs_and_leaves_an_ordinary_network(name, make_task, tiny_model, tmp_path):
    run = started(make_task(), name)
    adapt(run, tmp_path)
    assert run.stopped == ""
    found = run.method.model.state_dict()
    assert found.keys() == tiny_model.state_dict().keys()
    assert all(tensor.isfinite().all() for tensor in found.values())
    assert not run.method.model.training
    assert all(parameter.requires_grad for parameter in run.method.model.parameters())
    space = run.task.spec.output_space
    shown = run.method.illustrations()
    assert all(illustration_section(one, space).picture for one in shown)


@pytest.mark.parametrize("name", ["multiview", "sfda", "tent", "maxsquare", "selftrain"])
def test_in_bfloat16_weights_and_losses_stay_what_they_are(name, make_task, tmp_path):
    logged = []
    for precision in ("fp32", "bf16"):
        run = started(make_task(work=tmp_path / precision, precision=precision), name)
        logged.append(run.step())
        assert {tensor.dtype for tensor in run.method.model.parameters()} == {torch.float32}
    plain, rounded = logged
    assert rounded != plain  # the networks did compute in another precision
    assert rounded == {key: pytest.approx(value, rel=0.2) for key, value in plain.items()}


@pytest.mark.parametrize(("steps_done", "resumed_at"), [(3, 2), (5, 4)])
@pytest.mark.parametrize("name", ["multiview", "sfda", "tent", "maxsquare", "selftrain"])
def test_a_killed_run_resumes_to_the_same_weights(
    name, steps_done, resumed_at, make_task, tmp_path, monkeypatch
):
    """Before and behind the step at which ``selftrain`` begins its second round."""
    monkeypatch.setattr("sfda_edge.adaptation.loop.CHECKPOINT_EVERY_S", 0.0)
    # The last model is compared: the best one may be that of before the first step.
    monkeypatch.setattr(CheckpointSelection, "load_best", lambda _guard, _model: None)

    def begun(folder):
        return started(make_task(work=tmp_path / folder / "work"), name, steps=6)

    whole = begun("whole")
    (tmp_path / "whole").mkdir(exist_ok=True)
    adapt(whole, tmp_path / "whole")
    first = begun("killed")
    (tmp_path / "killed").mkdir(exist_ok=True)
    with pytest.raises(KilledError):
        adapt(first, tmp_path / "killed", killed_after(steps_done))
    second = begun("killed")
    second.resume(checkpoint_path(tmp_path / "killed"))
    assert second.next_step == resumed_at
    adapt(second, tmp_path / "killed")
    expected, found = whole.method.model.state_dict(), second.method.model.state_dict()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert whole.selection.best_step == second.selection.best_step


# Dynamo hides this warning of its own, but not from a filter that makes errors of warnings.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("name", ["multiview", "sfda", "tent", "maxsquare", "selftrain"])
def test_a_compiled_run_is_the_plain_run(name, make_task, tmp_path, monkeypatch):
    """Captured as a graph, taps and hooks included; without the code that a compiler would make."""
    captured = partialmethod(nn.Module.compile, backend="eager")
    monkeypatch.setattr(nn.Module, "compile", captured)
    weights = []
    for folder, compiled in (("plain", False), ("compiled", True)):
        run = started(make_task(work=tmp_path / folder), name, steps=3)
        if compiled:
            run.method.compile()
        for _ in range(3):
            run.step()
        weights.append(run.method.model.state_dict())
    for key, expected in weights[0].items():
        torch.testing.assert_close(weights[1][key], expected, rtol=1e-4, atol=1e-5)


class KilledError(Exception):
    pass


def killed_after(count):
    def progress(steps):
        for index, step in enumerate(steps, 1):
            yield step
            if index == count:
                raise KilledError

    return progress


def test_tent_changes_scales_shifts_and_statistics_alone(make_task, tiny_model):
    run = started(make_task(), "tent")
    for _ in range(2):
        run.step()
    run.method.finish()
    before, after = tiny_model.state_dict(), run.method.model.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"1.weight", "1.bias", "1.running_mean", "1.running_var"}


def test_tent_lowers_the_entropy(make_task):
    _, recipe = load_method_recipe("tent", None, ("steps=30", "learning_rate=0.05"))
    run = begin(make_task(), METHODS["tent"][1], recipe)
    losses = [run.step()["loss"] for _ in range(30)]
    assert losses[-1] < 0.9 * losses[0]


def test_maxsquare_raises_the_squares(make_task):
    _, recipe = load_method_recipe("maxsquare", None, ("steps=30", "learning_rate=0.05"))
    run = begin(make_task(), METHODS["maxsquare"][1], recipe)
    losses = [run.step()["loss"] for _ in range(30)]
    assert losses[-1] < losses[0]


def test_the_source_model_of_sfda_never_changes(make_task, tiny_model):
    run = started(make_task(), "sfda")
    run.step()
    run.step()
    before, after = tiny_model.state_dict(), run.method.source.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not torch.equal(run.method.model.state_dict()["0.weight"], before["0.weight"])


def test_the_generator_learns_the_sources_statistics(make_task):
    changes = ("steps=40", "batch_size=4", "fake_hw=[16, 32]", "noise_size=8", "output_weight=0.01")
    changes += ("student_steps=1",)
    _, recipe = load_method_recipe("sfda", None, changes)
    run = begin(make_task(), METHODS["sfda"][1], recipe)
    distances = [run.step()["statistics"] for _ in range(40)]
    assert distances[-1] < 0.5 * distances[0]


@pytest.mark.parametrize(
    ("recipe", "absent"),
    [("sfda-no-patches", "discriminator"), ("sfda-no-generator", "generator")],
)
def test_a_weight_of_zero_switches_a_part_off(recipe, absent, make_task):
    logged = started(make_task(), recipe).step()
    assert absent not in logged
    assert "target" in logged


@pytest.mark.parametrize("name", ["bn", "tent", "sfda"])
def test_a_network_without_batchnorm_is_an_error_that_names_others(name, make_task, three_classes):
    spec = ModelSpec("user_network:without_norm", three_classes, (32, 64))
    with pytest.raises(RecipeError, match=r"Methods that need none: multiview, maxsquare"):
        started(make_task(without_norm(3), spec), name)


@pytest.mark.parametrize("name", ["multiview", "maxsquare", "selftrain"])
def test_the_others_work_without_batchnorm(name, make_task, three_classes, tmp_path):
    spec = ModelSpec("user_network:without_norm", three_classes, (32, 64))
    run = started(make_task(without_norm(3), spec), name)
    adapt(run, tmp_path)
    assert run.statistics_check is None


@pytest.mark.parametrize("name", ["bn", "tent", "maxsquare", "selftrain", "sfda", "multiview"])
def test_networks_that_answer_on_a_coarser_grid_are_enlarged(
    name, make_task, three_classes, tmp_path
):
    spec = ModelSpec("user_network:coarse", three_classes, (32, 64))
    task = make_task(coarse(3), spec)
    inputs = task.inputs(task.target.images([0, 1]))
    with torch.no_grad():
        on_its_grid = task.model(inputs)
        found = task.logits(task.model, inputs)
    assert on_its_grid.shape == (2, 3, 8, 16)
    expected = functional.interpolate(on_its_grid, (32, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    run = started(task, name)
    adapt(run, tmp_path)
    assert run.stopped == ""


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_networks_feature_layer_is_its_deepest(name, three_classes):
    spec = ModelSpec(name, three_classes, (64, 96))
    model = build_model(spec).eval()
    layer = feature_layer(model, spec)
    shapes = []
    hook = model.get_submodule(layer).register_forward_hook(
        lambda _m, _i, output: shapes.append(output.shape)
    )
    with torch.no_grad():
        model(torch.zeros(1, 3, 64, 96))
    hook.remove()
    strides = {
        "espnetv2": 16,
        "deeplab": 8,
        "segnet": 16,
        "segformer": 32,
        "lite0_fpn_tiny": 16,
        "lite0_fpn": 32,
    }
    stride = next(value for prefix, value in strides.items() if name.startswith(prefix))
    assert tuple(shapes[0][2:]) == (64 // stride, 96 // stride) or name.startswith("deeplabv2")
    assert shapes[0][1] >= 40


def test_an_unknown_networks_deepest_layer_is_found(tiny_model, tiny_spec, three_classes):
    assert feature_layer(tiny_model, tiny_spec) == "2"
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1), nn.Conv2d(16, 3, 1))
    assert feature_layer(model, tiny_spec) == "1"
    named = ModelSpec("user_network:build", three_classes, (32, 64), feature_layer="0")
    assert feature_layer(tiny_model, named) == "0"
    wrong = ModelSpec("user_network:build", three_classes, (32, 64), feature_layer="encoder.9")
    with pytest.raises(RecipeError, match=r"no layer 'encoder\.9'"):
        feature_layer(tiny_model, wrong)


def test_sfdas_statistics_are_of_every_pass_of_a_layer(make_task, three_classes, monkeypatch):
    passes = []

    def counted(*features):
        passes.append(len(features))
        return batch_moments(*features)

    monkeypatch.setattr("sfda_edge.methods.sfda.method.batch_moments", counted)
    spec = ModelSpec("user_network:Shared", three_classes, (32, 64))
    started(make_task(Shared(3), spec), "sfda").step()
    assert passes == [2]  # of its one BatchNorm


PUBLISHED = [name for name in RECIPES if name.startswith("published/")]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipes_name_their_row_network_classes_and_size(name):
    content = read_toml(recipe_path(name))
    assert set(content["published"]) == {"source", "target", "miou", "where"}
    said = recipe_model(name)
    assert said.name is None or said.name in MODELS
    assert label_space(said.label_space).num_classes > 3
    assert all(side % 16 == 0 for side in said.input_hw)
    method, recipe = load_method_recipe(name)
    assert method == "sfda"
    assert recipe.batch_size == 8
    assert recipe.learning_rate == 2.5e-4


def test_a_recipe_fills_in_what_the_flags_leave_open(tmp_path):
    said = recipe_model("published/gta5-cityscapes")
    assert said == RecipeModel("deeplabv3_resnet50", "cityscapes", (256, 512))
    bare = tmp_path / "bare.pth"
    flags = completed(ModelRequest(bare, size_hw=(64, 64)), said)
    assert flags == ModelRequest(
        bare, architecture="deeplabv3_resnet50", label_space="cityscapes", size_hw=(64, 64)
    )
    assert completed(ModelRequest(), said) == ModelRequest(), "the packaged model knows itself"


def test_a_recipe_of_another_network_is_said(caplog):
    source = load_source(ModelRequest())
    warn_of_other_model(source, recipe_model("multiview"))
    assert caplog.text == ""
    warn_of_other_model(source, recipe_model("published/gta5-cityscapes"))
    assert "for deeplabv3_resnet50, these weights are of lite0_fpn_tiny" in caplog.text


def test_a_recipe_of_no_method_or_another_is_an_error(tmp_path):
    with pytest.raises(RecipeError, match="no line method ="):
        load_method_recipe("train-demo")
    with pytest.raises(RecipeError, match="for method 'bn', not 'tent'"):
        load_method_recipe("bn", "tent")
    path = tmp_path / "mine.toml"
    path.write_text('method = "magic"\n')
    with pytest.raises(RecipeError, match="unknown method 'magic'"):
        load_method_recipe(str(path))


def test_the_list_of_recipes_says_what_each_is():
    lines = describe_recipes().splitlines()
    assert len(lines) == len(recipe_names())
    assert all(len(line.split()) > 3 for line in lines)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_best(make_task, tiny_model, tmp_path):
    run = started(make_task(), "tent")
    run.step()
    with torch.no_grad():
        run.method.model[0].weight.fill_(float("nan"))
    adapt(run, tmp_path)
    assert "nan" in run.stopped
    assert read_metrics(tmp_path) == [{"step": 2, "pixels_used": 1.0, "stopped": run.stopped}]
    found = run.method.model.state_dict()
    assert all(torch.equal(found[key], value) for key, value in tiny_model.state_dict().items())


def test_sfda_recovers_the_source_whose_statistics_were_repaired(make_task):
    task = make_task()
    task.model[1].running_mean.fill_(100)  # what no image has
    task.model[1].running_var.fill_(1e-12)
    run = started(task, "sfda")
    assert not run.statistics_check.usable
    assert run.task.model[1].running_var.min() > 1e-6
    for key, tensor in run.source.state_dict().items():
        assert torch.equal(run.method.source.state_dict()[key], tensor)


def test_a_generator_that_drives_the_two_apart_without_end_stops_the_run(make_task, tmp_path):
    run = started(make_task(), "sfda")
    with torch.no_grad():
        run.method.model[3].weight.mul_(1000)
    adapt(run, tmp_path)
    assert "the generator explodes" in run.stopped
    assert "times the size of the source's outputs" in run.stopped
    assert read_metrics(tmp_path)[1:] == [{"step": 1, "stopped": run.stopped}]
    assert all(parameter.requires_grad for parameter in run.method.model.parameters())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("generator_learning_rate=-1", "learning rates must be above 0"),
        ("output_weight=-1", "weights must not be below 0"),
        ("noise_size=0", "noise_size must be at least 1"),
        ("patches_per_side=40", "patches_per_side 40 leaves nothing of"),
        ("seed=4294967296", "seed must be in"),
        ("seed=-1", "seed must be in"),
    ],
)
def test_settings_that_cannot_be_are_refused(setting, message, make_task):

    def tried():
        _, recipe = load_method_recipe("sfda", None, (setting, "fake_hw=[16, 32]"))
        begin(make_task(seed=recipe.seed), METHODS["sfda"][1], recipe)

    with pytest.raises(RecipeError, match=message):
        tried()


def test_a_batch_that_processes_cannot_share_is_an_error(make_task, monkeypatch):
    monkeypatch.setattr("sfda_edge.adaptation.begin.num_processes", lambda: 3)
    with pytest.raises(RecipeError, match="cannot be shared by 3"):
        started(make_task(), "tent")


def test_a_single_image_is_too_few(make_task):
    with pytest.raises(RecipeError, match="1 target images are too few"):
        started(make_task(count=1), "bn")


@pytest.mark.parametrize("count", [2, 9, 17])
def test_no_batch_of_statistics_is_a_single_image(count, make_task):
    sizes = [len(batch) for batch in make_task(count=count).even_batches(count, 8)]
    assert sum(sizes) == count
    assert min(sizes) > 1


def test_a_branch_that_never_runs_does_not_spoil_the_statistics(make_task):
    model = make_task().model
    model.add_module("auxiliary", nn.Identity())
    model.auxiliary.norm = nn.BatchNorm2d(4)
    task = make_task(model=model)
    run = begin(task, METHODS["bn"][1], load_method_recipe("bn", None, ("target_share=1.0",))[1])
    run.step()
    run.method.finish()
    assert run.statistics_check.usable
    assert (run.method.model.auxiliary.norm.running_mean == 0).all()


def test_the_student_learns_sharpened_labels(make_task, monkeypatch):
    run = started(make_task(), "multiview", steps=2, sharpness=3.0)
    lessons = []
    augment = run.method.augment
    run.method.augment = lambda lesson: lessons.append(lesson) or augment(lesson)
    run.step()
    size_hw, cpu = run.task.spec.input_hw, torch.device("cpu")
    labels = run.method.labels.read(run._indices(0), size_hw, cpu)
    torch.testing.assert_close(lessons[0].soft_labels, labels**3 / (labels**3).sum(1, keepdim=True))


def test_classes_weigh_by_rarity_as_far_as_the_views_disagree(make_task):
    run = started(make_task(), "multiview", steps=2)
    shares = run.method.labels.class_shares

    def weights(agreement):
        run.method.prepare(dataclasses.replace(run.views, agreement=torch.full((3,), agreement)))
        return run.method.class_weights

    rarity = rarity_weights(shares, 0.4, run.task.selection.rare_class_share)
    assert rarity.max() > 1.1 * rarity.min()
    torch.testing.assert_close(weights(1.0), torch.ones(3))
    torch.testing.assert_close(weights(0.0), rarity / (rarity * shares).sum())
    run.method.prepare(run.views)
    expected = class_weights(shares, rarity, run.views.agreement, 2.0)
    torch.testing.assert_close(run.method.class_weights, expected)


def test_a_resumed_bn_mixes_in_the_share_that_it_began_with(make_task):
    first, second = (started(make_task(), "bn") for _ in range(2))
    while first.next_step < first.method.num_steps:
        first.step()
    second.method._share = 0.01  # another number of processes may have found another
    second.method.restore(first.method.state())
    for run in (first, second):
        run.method.finish()
    expected, found = (run.method.model.state_dict() for run in (first, second))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_labels_lost_in_the_middle_of_a_round_are_an_error(make_task, tmp_path):
    run = started(make_task(), "selftrain", steps=4)
    run.step()
    run.method.labels = None
    for path in run.task.work_dir.iterdir():
        path.unlink()
    with pytest.raises(RunError, match="no longer in"):
        run.step()


@pytest.mark.parametrize("settings", [{}, {"target_share": 0.25}])
@pytest.mark.parametrize("method", ["bn", "tent", "maxsquare", "selftrain"])
def test_the_share_of_target_statistics_is_the_best_views_or_as_given(method, settings, make_task):
    """Shown by the statistics themselves."""
    run = started(make_task(), method, **settings)
    share = settings.get("target_share", run.views.kept[0].target_share)
    assert share > 0
    if method == "bn":
        while run.next_step < run.method.num_steps:
            run.step()
        run.method.finish()
        observed = run.method.statistics
    else:
        observed = target_statistics(run.source, run.task.spread_batches(48, 8))
    expected = copy.deepcopy(run.source)
    observed.mix_into(expected, share)
    found = run.method.model.state_dict()
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(found[name], tensor)
