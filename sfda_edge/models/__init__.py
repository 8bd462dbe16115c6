"""The networks that ship with the package, and any that a user brings."""

from sfda_edge.models.architectures import MODELS, Architecture, architecture
from sfda_edge.models.build import build_model, require_fits_frames, usable_memory_format
from sfda_edge.models.spec import Channels, ModelSpec

__all__ = [
    "MODELS",
    "Architecture",
    "Channels",
    "ModelSpec",
    "architecture",
    "build_model",
    "require_fits_frames",
    "usable_memory_format",
]
