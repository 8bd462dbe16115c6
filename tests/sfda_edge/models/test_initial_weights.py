"""Encoders of ImageNet classifiers fill those of our networks; the rest stays fresh."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from runtime.bundle.manifest import file_sha256
from sfda_edge.cli import main as cli
from sfda_edge.errors import CheckpointError
from sfda_edge.models import MODELS
from sfda_edge.models.initial_weights import load_initial_weights

# A classifier's file, from the encoder of our network: names without its prefix, and a last layer.
CLASSIFIERS = {
    "deeplabv3_resnet50": ("backbone.", {"fc.weight": (1000, 2048), "fc.bias": (1000,)}),
    "deeplabv2_resnet101": ("", {"fc.weight": (1000, 2048), "fc.bias": (1000,)}),
    "segformer_b1": ("backbone.", {"head.weight": (1000, 512), "head.bias": (1000,)}),
}
ENCODER = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "patch_embed", "block", "norm")


def filled(name, model, path, key=None):
    load_initial_weights(model, path, key, of_other_classes=MODELS[name].build(40))


def saved(path, state):
    torch.save(state, path)
    return path


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifiers_encoder_fills_ours(tmp_path, caplog, name):
    caplog.set_level("INFO")
    prefix, last = CLASSIFIERS[name]
    model, other = MODELS[name].build(19), MODELS[name].build(2)
    encoder = {
        key.removeprefix(prefix): tensor
        for key, tensor in other.state_dict().items()
        if key.startswith(prefix) and key.removeprefix(prefix).startswith(ENCODER)
    }
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    path = saved(tmp_path / "net.pth", encoder | {k: torch.zeros(s) for k, s in last.items()})
    filled(name, model, path)
    for key, tensor in model.state_dict().items():
        expected = encoder.get(key.removeprefix(prefix), before[key])
        assert torch.equal(tensor, expected), key
    assert f"initial weights: {len(encoder)} of {len(before)} tensors" in caplog.text
    assert "the others are new: " in caplog.text


def vgg16_features():
    """Configuration D of Simonyan and Zisserman, with BatchNorm, in one list as torchvision's."""
    layers, channels = [], 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        if width:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        else:
            layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers)


def test_vggs_layers_come_in_their_order(tmp_path):
    torch.manual_seed(0)
    name = "segnet_vgg16"
    features, model = vgg16_features().eval(), MODELS[name].build(5).eval()
    state = {f"features.{key}": tensor for key, tensor in features.state_dict().items()}
    state |= {
        "classifier.0.weight": torch.zeros(4096, 25088),
        "classifier.0.bias": torch.zeros(4096),
    }
    filled(name, model, saved(tmp_path / "vgg16_bn.pth", state))
    x = image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for stage in model.encoder:
            x = functional.max_pool2d(stage(x), 2)
        torch.testing.assert_close(x, features(image))


@pytest.mark.parametrize("name", ["espnetv2_s0.5", "segformer_b1", "segnet_vgg16", "lite0_fpn"])
def test_a_network_of_other_classes_keeps_its_own_classifier(tmp_path, name):
    model, other = (MODELS[name].build(classes) for classes in (4, 7))
    own = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    filled(name, model, saved(tmp_path / "seven.pth", other.state_dict()))
    for key, tensor in other.state_dict().items():
        fits = tensor.shape == own[key].shape
        assert torch.equal(model.state_dict()[key], tensor if fits else own[key]), key


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"blocks.0.weight": torch.zeros(3)}, "has nothing of DeepLabV3: it holds blocks.0.weight"),
        (
            {"conv1.weight": torch.zeros(64, 3, 3, 3)},
            r"another network: backbone.conv1.weight is \(64, 3, 3, 3\)",
        ),
        ({"conv1.weight": torch.zeros(64, 3, 7, 7, dtype=torch.int8)}, "1 weights are int8"),
        (
            {"bn1.weight": torch.zeros(64)},
            "another size of this network: it lacks backbone.bn1.bias",
        ),
        ({}, "holds no state dict"),
    ],
)
def test_what_does_not_fit_is_named_and_changes_nothing(tmp_path, state, message):
    name = "deeplabv3_resnet50"
    model = MODELS[name].build(19)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        filled(name, model, saved(tmp_path / "other.pth", state))
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "other", "message"),
    [
        ("segformer_b1", "segformer_b2", "has further layers, such as backbone.block1.2."),
        ("segformer_b2", "segformer_b1", "lacks backbone.block1.2."),
        ("lite0_fpn", "lite0_fpn_tiny", "lacks encoder._blocks."),
        ("lite0_fpn_tiny", "lite0_fpn", "has further layers, such as encoder._blocks."),
    ],
)
def test_a_deeper_or_flatter_encoder_is_refused(tmp_path, name, other, message):
    model, state = MODELS[name].build(3), MODELS[other].build(3).state_dict()
    path = saved(tmp_path / "other.pth", {k: v for k, v in state.items() if "decode" not in k})
    with pytest.raises(CheckpointError, match=f"another size of this network: it {message}"):
        filled(name, model, path)


def test_one_of_several_sets_is_named(tmp_path, caplog):
    name = "lite0_fpn_tiny"
    first, second = (MODELS[name].build(3).state_dict() for _ in range(2))
    path = saved(tmp_path / "both.pth", {"model": first, "model_ema": second})
    model = MODELS[name].build(3)
    filled(name, model, path)
    assert "2 sets of weights that fit (model, model_ema)" in caplog.text
    filled(name, model, path, "model_ema")
    assert all(torch.equal(tensor, second[key]) for key, tensor in model.state_dict().items())


@pytest.mark.slow
def test_training_begins_with_them_and_records_their_hash(in_empty_folder, capsys):
    torch.manual_seed(1)
    first = saved(in_empty_folder / "first.pth", MODELS["lite0_fpn_tiny"].build(11).state_dict())
    torch.manual_seed(2)
    second = saved(in_empty_folder / "second.pth", MODELS["lite0_fpn_tiny"].build(11).state_dict())
    words = ["train", "train-demo", "--images", "streetsynth:source", "--out", "run"]
    for setting in ("steps=1", "batch_size=2", "input_hw=[32,64]", "learning_rate=1e-9"):
        words += ["--set", setting]
    assert cli.main([*words, "--initial-weights", str(first)]) == 0
    trained = load_file(in_empty_folder / "run" / "model.safetensors")
    weights = torch.load(first, weights_only=True)
    for key in ("encoder._conv_stem.weight", "decoder.head.weight"):
        torch.testing.assert_close(trained[key], weights[key], atol=1e-6, rtol=0)
    path = in_empty_folder / "run" / "run.json"
    run = json.loads(path.read_text())
    assert run["inputs"]["initial_weights_sha256"] == file_sha256(first)
    assert run["inputs"]["recipe"]["initial_weights"] == "none", "the file replaces the recipe's"
    path.write_text(json.dumps(run | {"state": "running"}))
    for changed in ([], ["--initial-weights", str(second)]):
        assert cli.main([*words, "--resume", *changed]) == 2
        assert "initial_weights" in capsys.readouterr().err
    words[words.index("run")] = "other"
    assert cli.main([*words, "--weights-key", "model"]) == 2
    assert "--weights-key model names a part of a file" in capsys.readouterr().err
    assert cli.main([*words, "--initial-weights", "missing.pth"]) == 2
    assert "missing.pth cannot be read: No such file" in capsys.readouterr().err
