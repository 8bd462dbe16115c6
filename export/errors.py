"""What can go wrong in export, and whose move it is."""


class ExportError(Exception):
    """The model cannot be exported, or the result does not answer as the model did."""


class ParityError(ExportError):
    """The exported graph answers differently from the model; nothing was written."""
