"""Finding: one result of a check, and how to fix it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was seen.

    Attributes:
        part: of the machine, for the eye.
        verdict: ``ok``, ``note`` (fine, but something cannot be used), or ``problem``.
        text: what was found.
        advice: how to fix it; empty for ``ok``.
    """

    part: str
    verdict: Verdict
    text: str
    advice: str = ""
