"""The generator: noise to source-like images, a DCGAN as in DFAD (Fang et al., 2019)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from sfda_edge.batchnorm.global_batch import GlobalBatchNorm

_STRIDE = 16
_WIDTHS = (512, 256, 128, 64, 64)


class Generator(nn.Module):
    """Noise (N, noise_size) → images (N, 3, H, W) in [0, 255].

    Args:
        noise_size: of the input.
        image_hw: multiples of 16.
    """

    def __init__(self, noise_size: int, image_hw: tuple[int, int]) -> None:
        super().__init__()
        if image_hw[0] % _STRIDE or image_hw[1] % _STRIDE:
            raise ValueError(f"fake images need sides in multiples of {_STRIDE}; got {image_hw}")
        self.start_hw = image_hw[0] // _STRIDE, image_hw[1] // _STRIDE
        self.noise_size = noise_size
        self.project = nn.Linear(noise_size, _WIDTHS[0] * self.start_hw[0] * self.start_hw[1])
        self.norm = GlobalBatchNorm(_WIDTHS[0])
        self.grow = nn.ModuleList(
            nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False)
            for inputs, outputs in pairwise(_WIDTHS)
        )
        self.norms = nn.ModuleList(GlobalBatchNorm(width) for width in _WIDTHS[1:])
        self.colour = nn.Conv2d(_WIDTHS[-1], 3, 3, padding=1)
        self.apply(_initialise)

    def forward(self, noise: Tensor) -> Tensor:
        x = self.norm(self.project(noise).unflatten(1, (_WIDTHS[0], *self.start_hw)))
        for grow, norm in zip(self.grow, self.norms, strict=True):
            x = functional.leaky_relu(norm(grow(x)), 0.2)
        return (self.colour(x).tanh() + 1) * 127.5


def _initialise(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, 0.0, 0.02)
