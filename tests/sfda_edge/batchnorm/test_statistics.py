import copy

import numpy as np
import pytest
import torch
from torch import nn

from sfda_edge.adaptation.begin import repair_statistics
from sfda_edge.batchnorm.layers import batchnorm_layers, local_batchnorm
from sfda_edge.batchnorm.statistics import ChannelMoments, TargetStatistics, target_statistics
from sfda_edge.data import open_images
from sfda_edge.data.target import TargetImages
from sfda_edge.labels.class_map import load_class_map
from sfda_edge.labels.label_spaces import label_space
from sfda_edge.models import ModelSpec
from sfda_edge.models.checkpoint import load_model
from sfda_edge.models.source_model import ModelRequest, load_source
from sfda_edge.selection.config import SelectionConfig
from sfda_edge.selection.statistics_check import check_statistics
from sfda_edge.task import AdaptationTask


def adapted(model, batches, share):
    target_statistics(model, batches).mix_into(model, share)


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3, 3, 8, 10, generator=generator) * 2 + 1 for _ in range(2)]


def test_moments_are_numpys():
    features = [torch.randn(2, 5, 3, 4) * 7 + 100 for _ in range(3)]
    moments = ChannelMoments(5, torch.device("cpu"))
    for part in features:
        variance, mean = torch.var_mean(part, (0, 2, 3))
        moments.update(24, mean, variance)
    everything = torch.cat(features).double().numpy()
    mean, variance = moments.mean_and_variance()
    np.testing.assert_allclose(mean, everything.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(variance, everything.var((0, 2, 3)), rtol=1e-4)


def test_the_first_layers_statistics_are_mixed_in_closed_form(tiny_model, batches):
    source_mean = tiny_model[1].running_mean.clone()
    source_variance = tiny_model[1].running_var.clone()
    with torch.no_grad():
        inputs = tiny_model[0](torch.cat(batches)).double()
    adapted(tiny_model, batches, share=0.3)
    expected = 0.7 * source_mean + 0.3 * inputs.mean((0, 2, 3))
    torch.testing.assert_close(tiny_model[1].running_mean, expected.float(), rtol=1e-5, atol=1e-6)
    variance = 0.7 * source_variance + 0.3 * inputs.var((0, 2, 3), unbiased=False)
    torch.testing.assert_close(tiny_model[1].running_var, variance.float(), rtol=1e-5, atol=1e-6)


def test_later_layers_see_batch_normalised_inputs(batches):
    """Against PyTorch's own train mode, whose momentum None averages over equal batches."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
    model = nn.Sequential(first, nn.BatchNorm2d(4), nn.ReLU(), second, nn.BatchNorm2d(4)).eval()
    reference = copy.deepcopy(model)
    adapted(model, batches, share=1.0)
    last = reference[4]
    last.momentum = None
    last.reset_running_stats()
    with torch.no_grad():
        for batch in batches:
            reference.train()(batch)
    torch.testing.assert_close(model[4].running_mean, last.running_mean, rtol=1e-4, atol=1e-5)


def test_a_layer_that_runs_twice_holds_the_statistics_of_both():
    torch.manual_seed(0)
    images = torch.randn(2, 8, 6, 5)
    norm = nn.BatchNorm2d(8)
    twice = nn.Sequential(norm, nn.Conv2d(8, 8, 1), norm)
    first, second = images, twice[1](twice.train()[0](images))
    norm.reset_running_stats()
    adapted(twice, [images], share=1)
    seen = torch.cat([first, second]).detach()
    torch.testing.assert_close(norm.running_mean, seen.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    variance = seen.var((0, 2, 3), unbiased=False)
    torch.testing.assert_close(norm.running_var, variance, rtol=1e-4, atol=1e-5)


def test_layers_of_a_process_group_become_local_ones_with_the_same_answers(tiny_model):
    with torch.no_grad():
        tiny_model[1].running_mean.normal_()
        tiny_model[1].weight.normal_()
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(tiny_model))
    local = local_batchnorm(nn.ModuleDict({"inner": synchronised}))["inner"].eval()
    assert not isinstance(local[1], nn.SyncBatchNorm)
    images = torch.randn(2, 3, 8, 10)
    torch.testing.assert_close(local(images), tiny_model(images), rtol=0, atol=0)


def test_a_local_layer_keeps_its_mode_and_what_is_frozen():
    """In training mode it would overwrite its statistics with whatever it is shown."""
    norm = nn.SyncBatchNorm(4).eval()
    norm.bias.requires_grad_(False)
    (local,) = local_batchnorm(nn.Sequential(norm))
    assert not local.training
    assert local.weight.requires_grad
    assert not local.bias.requires_grad


def test_a_class_derived_from_a_synchronised_layer_keeps_what_it_adds():
    class Activated(nn.SyncBatchNorm):
        def forward(self, x):
            return super().forward(x).relu()

    layer = Activated(4).eval()
    (local,) = local_batchnorm(nn.Sequential(layer))
    assert local is layer


def test_a_layer_with_two_names_stays_one_layer():
    norm = nn.SyncBatchNorm(4)
    local = local_batchnorm(nn.Sequential(norm, nn.Flatten(2), norm)).eval()
    assert local[0] is local[2]
    assert not any(isinstance(layer, nn.SyncBatchNorm) for layer in local.modules())
    assert local(torch.zeros(2, 4, 3, 3)).shape == (2, 4, 9)  # of any rank, as before


def test_share_zero_leaves_the_source(tiny_model, batches):
    before = {key: value.clone() for key, value in tiny_model.state_dict().items()}
    adapted(tiny_model, batches, share=0.0)
    for key, value in tiny_model.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_nothing_but_the_statistics_changes(tiny_model, batches):
    before = {key: value.clone() for key, value in tiny_model.state_dict().items()}
    adapted(tiny_model, batches, share=0.5)
    changed = {k for k, v in tiny_model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"1.running_mean", "1.running_var"}
    assert not tiny_model.training
    assert tiny_model[1].momentum == 0.1


def test_the_shift_is_measured_in_source_deviations(tiny_model):
    tiny_model[1].running_mean.zero_()
    tiny_model[1].running_var.fill_(4.0)
    with torch.no_grad():
        tiny_model[0].weight.zero_()
    statistics = target_statistics(tiny_model, [torch.randn(2, 3, 4, 4)])
    assert statistics.shift() == pytest.approx(0.0)
    tiny_model[1].running_mean.fill_(6.0)
    assert statistics.shift() == pytest.approx(3.0, rel=1e-4)


def test_variances_are_compared_either_way(tiny_model):
    statistics = target_statistics(tiny_model, [torch.randn(2, 3, 4, 4)])
    statistics.mix_into(tiny_model, 1.0)
    assert statistics.variance_factor() == pytest.approx(1.0)
    half = tiny_model[1].num_features // 2
    tiny_model[1].running_var[:half] *= 9
    tiny_model[1].running_var[half:] /= 9
    tiny_model[1].eps = 0.0
    assert statistics.variance_factor() == pytest.approx(9.0, rel=1e-3)


def test_sums_are_kept_where_the_model_is(tiny_model):
    """A device without numbers stands for a GPU."""
    statistics = TargetStatistics(tiny_model.to("meta"))
    assert {moments.total.device.type for moments in statistics.moments.values()} == {"meta"}


def checked(model, batches):
    predict = lambda output: output.softmax(1)
    return check_statistics(model, batches, predict, SelectionConfig())


def test_statistics_that_leave_one_of_two_classes_are_repaired():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    model.append(nn.Conv2d(8, 2, 1))
    batches = [torch.randn(4, 3, 16, 24) for _ in range(4)]
    target_statistics(model, batches).mix_into(model, 1.0)
    with torch.no_grad():  # half of the pixels each
        logits = model.eval()(torch.cat(batches))
        model[3].bias[0] -= (logits[:, 0] - logits[:, 1]).median()
    assert checked(model, batches)[0].usable
    model[1].running_var.mul_(1e4)  # the features vanish, the bias answers
    found, statistics = checked(model, batches)
    assert found.classes_stored < 1.1
    assert found.classes_batch > 1.9
    assert not found.usable
    statistics.mix_into(model, 1.0)
    assert checked(model, batches)[0].usable


@pytest.fixture
def packaged_task(tmp_path, make_task):
    """The packaged network on images, (H, W, 3) uint8 each."""

    def made(images):
        source, other = load_source(ModelRequest()), make_task()
        target = TargetImages(open_images(images), source.spec.input_hw)
        return packaged(source, target, other, tmp_path)

    return made


@pytest.fixture
def road_task(packaged_task):
    """Frames that show nothing but road, which the network sees rightly."""
    frames = []
    for sample in open_images("streetsynth:source").samples[:8]:
        image = sample.image()
        height, width = image.shape[:2]
        frames.append(image[3 * height // 4 :, 2 * width // 5 : 3 * width // 5])
    return packaged_task(frames)


def packaged(source, target, other, tmp_path):
    return AdaptationTask(
        source.network,
        source.spec,
        target,
        fabric=other.fabric,
        seed=0,
        work_dir=tmp_path,
        bars=other.bars,
    )


def test_a_target_of_one_class_is_no_fault_of_the_checkpoint(road_task):
    """Batch statistics make five classes of bare road; that is nonsense, and no reason to mend."""
    before = {k: v.clone() for k, v in road_task.model.state_dict().items()}
    found, _ = repair_statistics(road_task)
    assert found.usable
    assert found.classes_stored < 1.5 < 4 < found.classes_batch
    after = road_task.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def _lamp(index):
    frame = np.zeros((96, 192, 3), np.uint8)
    frame[40:42, 20 + 15 * index : 22 + 15 * index] = (250, 240, 200)
    return frame


def _noise(index):
    found = np.random.default_rng(index).normal(9, 4, (96, 192, 3))
    return found.clip(0, 255).astype(np.uint8)


def _gradient(index):
    row = 10 + 6 * np.linspace(0, 1 + 0.1 * index, 192)
    return np.broadcast_to(row[None, :, None], (96, 192, 3)).astype(np.uint8)


@pytest.mark.parametrize("frame", [_lamp, _noise, _gradient])
def test_a_target_that_shows_hardly_anything_is_no_fault_of_the_checkpoint(packaged_task, frame):
    """A dark road with one lamp, a covered lens, fog."""
    assert repair_statistics(packaged_task([frame(index) for index in range(8)]))[0].usable


def test_a_target_of_one_class_does_not_hide_a_broken_checkpoint(road_task):
    for layer in batchnorm_layers(road_task.model).values():
        layer.reset_running_stats()
    assert not repair_statistics(road_task)[0].usable


@pytest.fixture
def camvid_task(real_data, tmp_path, make_task):
    """The Cityscapes weights on a few CamVid frames, small."""
    camvid = label_space("cityscapes20")
    spec = ModelSpec(
        "espnetv2_s0.5", camvid, (128, 256), class_map=load_class_map("cityscapes-camvid", camvid)
    )
    weights = real_data / "weights" / "espnetv2_s0.5_cityscapes_512x256.safetensors"
    images = open_images(f"camvid:{real_data}/data/camvid/train")
    few = type(images)(images.title, images.samples[::24])
    target = TargetImages(few, spec.input_hw)
    reference = make_task()
    return AdaptationTask(
        load_model(weights, spec),
        spec,
        target,
        fabric=reference.fabric,
        seed=0,
        work_dir=tmp_path,
        bars=reference.bars,
    )


def test_real_weights_in_a_new_city_are_found_usable(camvid_task, caplog):
    before = {k: v.clone() for k, v in camvid_task.model.state_dict().items()}
    found, _ = repair_statistics(camvid_task)
    assert found.usable
    assert not caplog.records
    after = camvid_task.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("damage", ["never updated", "not a number", "of another scale"])
def test_statistics_that_make_nonsense_are_said_and_repaired(damage, camvid_task, caplog):
    layers = batchnorm_layers(camvid_task.model)
    for layer in layers.values():
        if damage == "never updated":
            layer.reset_running_stats()
        elif damage == "not a number":
            layer.running_var.fill_(float("nan"))
        else:
            layer.running_mean.mul_(30)
            layer.running_var.div_(900)
    found, _ = repair_statistics(camvid_task)
    assert not found.usable
    assert "unusable" in caplog.text
    task = camvid_task
    batches = [task.inputs(task.target.images(part)) for part in task.even_batches(8, 4)]
    predict = task.probabilities
    repaired, _ = check_statistics(task.model, batches, predict, task.selection)
    assert repaired.usable
    assert repaired.classes_stored > 2.5
