import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from export.graph.upsampling import SplitNetwork, nearest_indices
from sfda_edge.labels.label_spaces import LABEL_SPACES
from sfda_edge.models import ModelSpec, build_model


class Enlarging(nn.Module):
    def __init__(self, **arguments):
        super().__init__()
        self.convolution, self.arguments = nn.Conv2d(3, 2, 3, stride=4), arguments

    def forward(self, x):
        inner = functional.interpolate(x, scale_factor=0.5)
        return functional.interpolate(self.convolution(inner), x.shape[2:], **self.arguments)


@pytest.mark.parametrize(
    "arguments",
    [{"mode": "bilinear"}, {"mode": "bilinear", "align_corners": True}, {"mode": "nearest"}],
)
def test_the_two_halves_are_the_network(arguments):
    network, x = Enlarging(**arguments).eval(), torch.randn(1, 3, 40, 56)
    split = SplitNetwork(network, x)
    coarse = split.coarse(x)
    assert split.enlarges
    assert coarse.shape[2:] == (5, 7)
    torch.testing.assert_close(split.enlarge(coarse), network(x), rtol=0, atol=0)


def test_a_scale_that_is_no_ratio_of_the_sizes_is_kept():
    """7 · 1.5 is 10.5: an output of 10 columns that are 1/1.5 apart, not 0.7."""

    class Scaling(nn.Module):
        def forward(self, x):
            return functional.interpolate(x[:, :, :8, :7], scale_factor=1.5, mode="bilinear")

    x = torch.randn(1, 2, 12, 10)
    split = SplitNetwork(Scaling(), x)
    assert split.enlarges
    torch.testing.assert_close(split.enlarge(split.coarse(x)), Scaling()(x), rtol=0, atol=0)


def test_a_network_that_changes_its_input_in_place_still_has_its_coarse_grid():
    class Centring(nn.Module):
        def forward(self, x):
            small = x.sub_(1)[:, :, ::2, ::2] * 2
            return functional.interpolate(small, x.shape[2:], mode="bilinear")

    x = torch.randn(1, 2, 8, 8)
    split = SplitNetwork(Centring(), x.clone())
    assert split.enlarges
    expected = Centring()(x.clone())
    torch.testing.assert_close(split.enlarge(split.coarse(x.clone())), expected)


def test_a_change_in_place_after_the_interpolation_is_seen():
    """The tensor that is answered is the interpolation's own, and holds something else."""

    class Shifting(nn.Module):
        def forward(self, x):
            small = x[:, :, ::2, ::2] * 1
            return functional.interpolate(small, x.shape[2:], mode="bilinear").relu_()

    x = torch.randn(1, 2, 8, 8)
    split = SplitNetwork(Shifting(), x)
    assert not split.enlarges
    torch.testing.assert_close(split.coarse(x), Shifting()(x))


@pytest.mark.parametrize(
    ("name", "stride"), [("lite0_fpn_tiny", 4), ("espnetv2_s0.5", 2), ("deeplabv3_resnet50", 8)]
)
def test_our_networks_end_with_an_enlargement(name, stride):
    spec = ModelSpec(name, LABEL_SPACES["camvid"], (64, 96))
    x = torch.randn(1, 3, 64, 96)
    network = build_model(spec).eval()
    split = SplitNetwork(network, x)
    with torch.no_grad():
        coarse = split.coarse(x)
        assert coarse.shape[2:] == (64 // stride, 96 // stride)
        torch.testing.assert_close(split.enlarge(coarse), network(x), rtol=0, atol=0)


@pytest.mark.parametrize("scale", [1, 2])
def test_a_network_that_answers_on_a_coarser_grid_is_enlarged(scale):
    class Coarse(nn.Module):
        def forward(self, x):
            inner = x[:, :2, ::8, ::8]
            return functional.interpolate(inner, scale_factor=scale) if scale > 1 else inner

    x = torch.randn(1, 3, 40, 56)
    split = SplitNetwork(Coarse(), x)
    found = split.enlarge(split.coarse(x))
    expected = functional.interpolate(Coarse()(x), (40, 56), mode="bilinear")
    assert split.enlarges
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert split.enlarge_nearest(torch.zeros(1, 5 * scale, 7 * scale)).shape == (1, 40, 56)


def test_a_network_that_goes_on_after_its_interpolation_is_left_whole():
    class GoingOn(Enlarging):
        def forward(self, x):
            return super().forward(x) * 2

    x = torch.randn(1, 3, 40, 56)
    network = GoingOn(mode="bilinear")
    split = SplitNetwork(network, x)
    assert not split.enlarges
    torch.testing.assert_close(split.enlarge(split.coarse(x)), network(x))


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("size", "enlarged"), [(5, 20), (7, 13), (3, 3), (1, 4), (6, 5)])
def test_nearest_is_where_bilinear_interpolation_looks(size, enlarged, align_corners):
    """Bilinear interpolation of the positions themselves says how far each is; ties either way."""
    positions = torch.arange(size, dtype=torch.float64)[None, None, None]
    exact = functional.interpolate(
        positions, (1, enlarged), mode="bilinear", align_corners=align_corners
    )
    nearest = nearest_indices(size, enlarged, align_corners).numpy()
    assert np.abs(nearest - exact[0, 0, 0].numpy()).max() <= 0.5 + 1e-9
