"""The networks that ship with the package, and any that a user brings."""

from sfda_edge.models.architectures import MODELS, Architecture, architecture
from sfda_edge.models.build import build_model, usable_memory_format
from sfda_edge.models.network_outputs import returns_probabilities
from sfda_edge.models.spec import Channels, ModelSpec
from sfda_edge.models.users_network import make_usable, own_copy

__all__ = [
    "MODELS",
    "Architecture",
    "Channels",
    "ModelSpec",
    "architecture",
    "build_model",
    "make_usable",
    "own_copy",
    "returns_probabilities",
    "usable_memory_format",
]
