from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from export.bundle.write import export_bundle
from export.errors import ParityError
from export.precision import qat as finetuning
from export.precision.qat import quantisation_aware_finetuning
from export.thresholds import Thresholds
from sfda_edge.evaluation import Predictor
from sfda_edge.models.inference import Normalise
from sfda_edge.recipes.recipe import load_recipe
from sfda_edge.runs.progress import silent

pytestmark = pytest.mark.slow


@pytest.fixture
def all_by_one_rule(monkeypatch):
    """Everything in int8, calibrated by one rule of the three."""
    monkeypatch.setattr("export.precision.node_search._MOST_KEPT", 0.0)
    monkeypatch.setattr("export.precision.int8.RULES", ("percentile",))


def thresholds(*changes):
    return load_recipe("export", Thresholds, ("int8_time_ratio=0", *changes))


def rounded(values, limit, lowest=-128):
    scale = np.float32(limit) / 127
    return np.clip(np.round(values / scale), lowest, 127) * scale


def test_layers_compute_with_rounded_weights_and_inputs_and_are_themselves_again():
    torch.manual_seed(0)
    layer, x = nn.Conv2d(3, 2, 1), torch.randn(1, 3, 4, 5)
    model = nn.Sequential(layer)
    before = layer.weight.detach().clone()
    with torch.no_grad(), finetuning._quantised(model, {layer: 2.0}):
        found = model(x)[0].numpy()
    weights = before[:, :, 0, 0].numpy()
    weights = np.stack([rounded(row, np.abs(row).max(), -127) for row in weights])
    expected = np.einsum("oi,ihw->ohw", weights, rounded(x[0].numpy(), 2.0))
    expected += layer.bias.detach().numpy()[:, None, None]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert torch.equal(layer.weight, before)
    assert not parametrize.is_parametrized(layer)


def test_a_transposed_convolution_has_a_scale_for_each_of_its_outputs():
    torch.manual_seed(0)
    layer, x = nn.ConvTranspose2d(3, 2, 1, bias=False), torch.randn(1, 3, 4, 5)
    with torch.no_grad():
        layer.weight[:, 1] *= 100  # which would drown the first output in a scale for both
        with finetuning._quantised(nn.Sequential(layer), {layer: 4.0}):
            found = layer(x)[0].numpy()
        weights = layer.weight[:, :, 0, 0].numpy()
    weights = np.stack([rounded(row, np.abs(row).max(), -127) for row in weights.T], 1)
    expected = np.einsum("io,ihw->ohw", weights, rounded(x[0].numpy(), 4.0))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_every_other_batch_is_mirrored():
    frames = [np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8) for seed in (0, 1)]
    layer, seen = nn.Conv2d(3, 2, 1), []

    def logits(network, images):
        if len(images) == 2:  # not the single frames that limits are taken from
            seen.append({image.numpy().tobytes() for image in images})
        return network(images.float().permute(0, 3, 1, 2))

    quantisation_aware_finetuning(layer, frames, logits, steps=2, progress=silent)
    plain = {frame.tobytes() for frame in frames}
    mirrored = {np.ascontiguousarray(frame[:, ::-1]).tobytes() for frame in frames}
    assert seen == [plain, plain, mirrored, mirrored]  # of the model and of its student


def test_the_limit_of_a_layer_leaves_out_one_value_in_ten_thousand():
    layer = nn.Conv2d(1, 1, 1)
    frame = torch.zeros(1, 100, 500, 1, dtype=torch.uint8)
    frame.flatten()[:49_990] = torch.arange(49_990) % 101
    frame.flatten()[0] = 255
    found = finetuning._limits(layer, frame, lambda net, x: net(x.float().permute(0, 3, 1, 2)))
    assert found == {layer: 100.0}


def test_a_network_learns_to_be_quantised_and_the_model_stays(packaged, frames):
    model = packaged.network
    before = {name: value.clone() for name, value in model.state_dict().items()}
    normalise = Normalise(packaged.spec)

    def logits(network, images):
        return network(normalise(images.float().permute(0, 3, 1, 2)))

    def distance(network):
        with torch.no_grad(), finetuning._quantised(network, limits(network)):
            found = logits(network, stacked).log_softmax(1)
        return float((needed.exp() * (needed - found)).sum(1).mean())

    def limits(network):
        return finetuning._limits(network, stacked, logits)

    stacked = torch.from_numpy(np.stack(frames))
    with torch.no_grad():
        needed = logits(model, stacked).log_softmax(1)
    at_first = distance(model)
    student = quantisation_aware_finetuning(model, frames, logits, steps=10, progress=silent)
    assert distance(student) < 0.8 * at_first
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    statistics = [name for name in before if "running" in name]
    learnt = student.state_dict()
    assert all(torch.equal(learnt[name], before[name]) for name in statistics)
    assert learnt.keys() == before.keys()


def test_a_frozen_network_is_trained_all_the_same():
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 2, 1).requires_grad_(False)
    frames = [np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)]
    with torch.no_grad():
        student = quantisation_aware_finetuning(
            layer,
            frames,
            lambda network, images: network(images.float().permute(0, 3, 1, 2)),
            steps=2,
            progress=silent,
        )
    assert not torch.equal(student.weight, layer.weight)
    assert not student.weight.requires_grad


@pytest.mark.usefixtures("all_by_one_rule")
def test_what_loses_too_much_is_finetuned_and_says_so(tmp_path, request_, calibration):
    recipe = thresholds("int8.label_agreement=0.0", "int8.class_iou=0.0")
    asked = replace(request_, precision="int8", calibration=calibration, thresholds=recipe)
    plain = export_bundle(asked, tmp_path / "bundle").parity.label_agreement
    recipe = thresholds(
        f"int8.label_agreement={plain + 1e-4}", "int8.class_iou=0.0", "qat_steps=12"
    )
    result = export_bundle(replace(asked, thresholds=recipe), tmp_path / "bundle")
    assert result.parity.label_agreement > plain
    assert result.int8.qat_steps == 12
    assert "fine-tuned for 12 steps" in (tmp_path / "bundle" / "card.md").read_text()


@pytest.mark.usefixtures("all_by_one_rule")
def test_labels_say_that_it_loses_too_much_where_there_are_any(
    tmp_path, request_, frames, caplog, calibration
):
    caplog.set_level("INFO")
    predictor = Predictor(request_.model, request_.spec, torch.device("cpu"))
    validation = [(frame, predictor.label_map(frame)) for frame in frames[:2]]  # torch scores 100
    recipe = thresholds(
        "int8.label_agreement=0", "int8.class_iou=0", "int8.miou_loss=0", "qat_steps=1"
    )
    asked = replace(request_, precision="int8", calibration=calibration, thresholds=recipe)
    with pytest.raises(ParityError, match=r"at most 0 allowed.*first layer to fail it is \S+/\S+"):
        export_bundle(replace(asked, validation=validation), tmp_path / "bundle")
    assert "int8 fails the gate (mIoU dropped " in caplog.text
