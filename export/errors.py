"""What can go wrong in export, and who has to act."""

from sfda_edge.errors import SfdaEdgeError


class ExportError(SfdaEdgeError):
    """The model cannot be exported, or the result does not answer as the model did."""


class ParityError(ExportError):
    """The exported graph answers differently from the model; nothing was written."""

    exit_code = 1
