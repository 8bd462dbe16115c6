"""Closing: base of what a ``with`` closes."""

from __future__ import annotations

from typing import TypeVar

Own = TypeVar("Own", bound="Closing")


class Closing:
    """Something that holds a device, a file or memory; use it in a ``with``, or close it."""

    def close(self) -> None:
        """Free what is held."""

    def __enter__(self: Own) -> Own:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
