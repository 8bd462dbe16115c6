"""The adapted weights for images of the source domain."""

from __future__ import annotations

import copy

import torch
from torch import nn

from sfda_edge.adaptation.loop import Adaptation
from sfda_edge.batchnorm.layers import batchnorm_layers, copy_running_statistics


def home_network(adaptation: Adaptation) -> nn.Module | None:
    """The adapted weights with the source model's BatchNorm statistics.

    Most of what an adapted model loses on the source domain is lost by the statistics, not by the
    weights: on task C it scores 40.5 there, and 70.1 with the source's (the source 71.7).

    Returns:
        the network; None where it would be the source or the adapted model.
    """
    original = adaptation.original
    check = adaptation.statistics_check
    if check is not None and not check.usable:
        return None  # the source has none that it could be given back
    if adaptation.selection.best_step is None or not batchnorm_layers(original):
        return None
    adapted = dict(adaptation.method.model.named_parameters())
    pairs = ((value.cpu(), adapted[name].cpu()) for name, value in original.named_parameters())
    if all(torch.equal(before, after) for before, after in pairs):
        return None  # statistics alone were adapted, as by ``bn``
    network = copy.deepcopy(original)
    network.load_state_dict(adaptation.method.model.state_dict())
    copy_running_statistics(of=original, to=network)
    return network.eval()
