"""Adapt a network of your own to a folder of images, export it, and segment a video with it.

python own_network.py IMAGES VIDEO
"""

import sys

import torch
from torch import nn

import export
import runtime
import sfda_edge


class Network(nn.Module):
    """Yours, such as one of torchvision: it may return a dict with ``out``."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": self.head(self.body(images))}


model = sfda_edge.load_model(Network(), class_names=("sky", "road", "car"), size_hw=(96, 192))
run = sfda_edge.adapt(model, sys.argv[1], settings={"steps": 20})
print("selected step:", run.selected_step, "report:", run.report_path)
bundle = export.export(run, precision="fp16", confidence=True)
for result in runtime.open_stream(sys.argv[2], bundle=bundle.path, max_frames=20):
    print(result.frame.index, result.label_map.shape, f"{result.timing['infer']:.1f} ms")
