"""What can go wrong in adaptation, and whose move it is.

SfdaEdgeError            the user has to change something: exit code 2
├── RecipeError          a setting that does not exist or cannot be
├── DataError            images, labels or class maps that do not fit
├── CheckpointError      weights that do not fit the network, or cannot be read
└── RunError             a run directory that is not what the command needs
"""


class SfdaEdgeError(Exception):
    """Base of all errors that a user can mend."""


class RecipeError(SfdaEdgeError):
    """A setting is unknown or impossible."""


class DataError(SfdaEdgeError):
    """Images, labels or class maps do not fit."""


class CheckpointError(SfdaEdgeError):
    """Weights do not fit the network, or cannot be read."""


class RunError(SfdaEdgeError):
    """A run directory lacks what the command needs, or cannot be written."""
