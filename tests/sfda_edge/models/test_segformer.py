import math

import pytest
import torch
from torch.nn import functional

from sfda_edge.models import ModelSpec, build_model
from sfda_edge.models.segformer import B1, B2, SegFormer


def norm(x, weights, name, epsilon):
    return functional.layer_norm(
        x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], epsilon
    )


def linear(x, weights, name):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def conv(x, weights, name, **options):
    return functional.conv2d(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"), **options)


def block(tokens, weights, name, hw, heads):
    """One block, its attention written out: softmax(Q K^T / sqrt(d)) V, head by head."""
    n, _, c = tokens.shape
    x = norm(tokens, weights, f"{name}.norm1", 1e-6)
    q = linear(x, weights, f"{name}.attn.q")
    if f"{name}.attn.sr.weight" in weights:
        stride = weights[f"{name}.attn.sr.weight"].shape[-1]
        grid = x.transpose(1, 2).reshape(n, c, *hw)
        x = conv(grid, weights, f"{name}.attn.sr", stride=stride).flatten(2).transpose(1, 2)
        x = norm(x, weights, f"{name}.attn.norm", 1e-5)
    kv = linear(x, weights, f"{name}.attn.kv")
    size = c // heads
    parts = []
    for head in range(heads):
        place = slice(head * size, (head + 1) * size)
        keys, values = kv[..., :c][..., place], kv[..., c:][..., place]
        likeness = (q[..., place] @ keys.transpose(1, 2) / math.sqrt(size)).softmax(-1)
        parts.append(likeness @ values)
    tokens = tokens + linear(torch.cat(parts, 2), weights, f"{name}.attn.proj")
    x = linear(norm(tokens, weights, f"{name}.norm2", 1e-6), weights, f"{name}.mlp.fc1")
    grid = x.transpose(1, 2).reshape(n, -1, *hw)
    grid = conv(grid, weights, f"{name}.mlp.dwconv.dwconv", padding=1, groups=grid.shape[1])
    x = functional.gelu(grid.flatten(2).transpose(1, 2))
    return tokens + linear(x, weights, f"{name}.mlp.fc2")


def reference(x, weights, depths):
    """SegFormer by the names of the authors' release."""
    features = []
    for stage, depth in enumerate(depths, start=1):
        stride = 4 if stage == 1 else 2
        padding = 3 if stage == 1 else 1
        x = conv(x, weights, f"backbone.patch_embed{stage}.proj", stride=stride, padding=padding)
        hw = x.shape[2:]
        tokens = norm(
            x.flatten(2).transpose(1, 2), weights, f"backbone.patch_embed{stage}.norm", 1e-5
        )
        for index in range(depth):
            name = f"backbone.block{stage}.{index}"
            tokens = block(tokens, weights, name, hw, heads=(1, 2, 5, 8)[stage - 1])
        tokens = norm(tokens, weights, f"backbone.norm{stage}", 1e-6)
        x = tokens.transpose(1, 2).reshape(len(x), -1, *hw)
        features.append(x)
    upsampled = []
    for stage in (4, 3, 2, 1):
        x = features[stage - 1]
        grid = linear(x.permute(0, 2, 3, 1), weights, f"decode_head.linear_c{stage}.proj")
        grid = grid.permute(0, 3, 1, 2)
        upsampled.append(functional.interpolate(grid, features[0].shape[2:], mode="bilinear"))
    x = conv(torch.cat(upsampled, 1), weights, "decode_head.linear_fuse.conv")
    name = "decode_head.linear_fuse.bn"
    statistics = (weights[f"{name}.running_mean"], weights[f"{name}.running_var"])
    x = functional.batch_norm(x, *statistics, weights[f"{name}.weight"], weights[f"{name}.bias"])
    return conv(x.relu(), weights, "decode_head.linear_pred")


@pytest.mark.parametrize(("size", "depths"), [(B1, (2, 2, 2, 2)), (B2, (3, 4, 6, 3))])
def test_it_is_the_network_of_the_paper(size, depths):
    """Every weight is random, so that none may be left out; the size is no multiple of 32."""
    torch.manual_seed(0)
    model = SegFormer(5, size).double().eval()
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.add_(0.02 * torch.randn_like(value).abs())
        images = torch.randn(2, 3, 72, 104, dtype=torch.float64)
        found, expected = model(images), reference(images, model.state_dict(), depths)
    assert found.shape == (2, 5, 18, 26)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(("size", "millions"), [(B1, 13.7), (B2, 27.4)])
def test_it_has_as_many_parameters_as_published(size, millions):
    count = sum(parameter.numel() for parameter in SegFormer(19, size).parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.05)


def test_it_is_built_by_name_for_any_size(three_classes):
    spec = ModelSpec("segformer_b1", three_classes, (100, 512))
    model = build_model(spec).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 100, 512)).shape == (1, 3, 25, 128)
