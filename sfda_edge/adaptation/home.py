"""The adapted weights for images of the source domain."""

from __future__ import annotations

import copy

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
    if adaptation.selection.best_step is None or not batchnorm_layers(original):
        return None
    network = copy.deepcopy(original)
    network.load_state_dict(adaptation.method.model.state_dict())
    copy_running_statistics(of=original, to=network)
    return network.eval()
