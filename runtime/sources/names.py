"""What a source is called in logs, on the page and in records: nothing that may be a secret."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from runtime.credentials import without_credentials

GST = "gst:"


def shown_name(spec: str) -> str:
    """The name of a source as a user has written it."""
    if not spec.startswith(GST):
        return without_credentials(spec)
    try:
        return pipeline_name(shlex.split(spec.removeprefix(GST)))
    except ValueError:  # whoever opens it reports the quotation without an end
        return GST


def pipeline_name(words: Sequence[str]) -> str:
    """What a pipeline is called: its elements without their properties, which may hold secrets."""
    elements, begins = [], True
    for word in words:
        if begins and word != "!":
            elements.append(re.split(r"[,=]", word, maxsplit=1)[0])
        begins = word == "!"
    return f"{GST}{' ! '.join(elements)}"
