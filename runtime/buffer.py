"""Buffer: what stands between two threads of the pipeline."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Buffer(Generic[Item]):
    """A bounded queue with one rule for when it is full.

    A live source must not wait, so the oldest frame is dropped and counted; a file waits, so that
    every frame is seen. A buffer that is closed gives out what it holds, then ends.

    Attributes:
        dropped: how many items nobody took: too late, or after the end.

    Args:
        capacity: how many items wait at most, or the sum of their sizes.
        drop_oldest: true for live sources.
        size: of an item; one that is larger than the capacity waits alone.
    """

    def __init__(
        self, capacity: int, drop_oldest: bool, size: Callable[[Item], int] = lambda _: 1
    ) -> None:
        if capacity < 1:
            raise ValueError(f"a buffer holds at least one item, got {capacity}")
        self._items: deque[Item] = deque()
        self._capacity, self._drop_oldest = capacity, drop_oldest
        self._size, self._held = size, 0
        self._changed = threading.Condition()
        self._closed = False
        self._error: BaseException | None = None
        self.dropped = 0

    def put(self, item: Item) -> bool:
        """Hand over an item; false when nobody wants any more."""
        size = self._size(item)
        with self._changed:
            while self._items and self._held + size > self._capacity and not self._closed:
                if self._drop_oldest:
                    self._pop()
                    self.dropped += 1
                else:
                    self._changed.wait()
            if self._closed:
                self.dropped += 1
                return False
            self._items.append(item)
            self._held += size
            self._changed.notify_all()
            return True

    def _pop(self) -> Item:
        item = self._items.popleft()
        self._held -= self._size(item)
        return item

    def get(self, timeout_s: float | None = None) -> Item | None:
        """The oldest item that waits; None when there will be no more.

        Raises:
            TimeoutError: nothing came in time.
            Exception: what the other side failed with, after the items that it had handed over.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._items or self._closed, timeout_s):
                raise TimeoutError(f"nothing for {timeout_s} s")
            if self._items:
                item = self._pop()
                self._changed.notify_all()
                return item
            if self._error is not None:
                raise self._error
            return None

    def close(self, error: BaseException | None = None) -> None:
        """No more items will come, because the other side ended or failed."""
        with self._changed:
            if not self._closed:
                self._closed, self._error = True, error
            self._changed.notify_all()

    def discard(self) -> None:
        """Nobody wants items any more: forget what waits, and let the other side go."""
        with self._changed:
            self.dropped += len(self._items)
            self._items.clear()
            self._held = 0
            self._closed = True
            self._changed.notify_all()
