from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from export import finetune as finetuning
from export.bundle import export_bundle
from export.finetune import finetune
from export.recipe import ExportRecipe
from sfda_edge.data.loading import silent
from sfda_edge.inference import Normalise


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


def test_the_limit_of_a_layer_leaves_out_one_value_in_ten_thousand():
    layer = nn.Conv2d(1, 1, 1)
    frame = torch.zeros(1, 100, 500, 1, dtype=torch.uint8)
    frame.flatten()[:49_990] = torch.arange(49_990) % 101
    frame.flatten()[0] = 255
    found = finetuning._limits(layer, frame, lambda net, x: net(x.float().permute(0, 3, 1, 2)))
    assert found == {layer: 100.0}


def test_a_network_learns_to_be_quantised_and_the_model_stays(packaged, frames):
    model = packaged.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    normalise = Normalise(packaged.spec)

    def logits(network, images):
        return network(normalise(images.float().permute(0, 3, 1, 2)))

    def distance(network):
        with torch.no_grad(), finetuning._quantised(network, limits(network)):
            found = logits(network, stacked).log_softmax(1)
        return float((wanted.exp() * (wanted - found)).sum(1).mean())

    def limits(network):
        return finetuning._limits(network, stacked, logits)

    stacked = torch.from_numpy(np.stack(frames))
    with torch.no_grad():
        wanted = logits(model, stacked).log_softmax(1)
    at_first = distance(model)
    student = finetune(model, frames, logits, 10, silent)
    assert distance(student) < 0.8 * at_first
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    statistics = [name for name in before if "running" in name]
    learnt = student.state_dict()
    assert all(torch.equal(learnt[name], before[name]) for name in statistics)
    assert learnt.keys() == before.keys()


def test_what_loses_too_much_is_finetuned_and_says_so(tmp_path, request_, frames, monkeypatch):
    monkeypatch.setattr("export.search._MOST_KEPT", 0.0)  # everything in int8
    recipe = ExportRecipe(int8_label_agreement=0.0, int8_class_iou=0.0)
    asked = replace(request_, precision="int8", calibration=frames * 2, recipe=recipe)
    plain = export_bundle(asked, tmp_path / "bundle").parity.label_agreement
    recipe = replace(recipe, int8_label_agreement=plain + 1e-4, int8_finetune_steps=12)
    result = export_bundle(replace(asked, recipe=recipe), tmp_path / "bundle")
    assert result.parity.label_agreement > plain
    assert result.int8.finetune_steps == 12
    assert "fine-tuned for 12 steps" in (tmp_path / "bundle" / "card.md").read_text()
