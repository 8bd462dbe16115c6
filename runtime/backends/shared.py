"""SharedModel: one model for several streams."""

from __future__ import annotations

import threading
from collections import deque

import numpy as np

from runtime.backends.base import Backend
from runtime.errors import BackendUnavailable

_JOIN_S = 1.5


class _Request:
    """An image, and in time its outputs or an error."""

    def __init__(self, image: np.ndarray) -> None:
        self.image = image
        self.done = threading.Event()
        self.outputs: dict[str, np.ndarray] | None = None
        self.error: BaseException | None = None

    def result(self) -> dict[str, np.ndarray]:
        self.done.wait()
        if self.error is not None:
            raise self.error
        if self.outputs is None:
            raise AssertionError("a request that is done has outputs or an error")
        return self.outputs


class SharedModel(Backend):
    """Runs a model for any number of threads, in the order in which they ask.

    One thread owns the model, as a GPU's context needs. Images that wait at the same time are
    answered as one batch where the model takes one. Each stream asks for one image at a time, so a
    fast camera cannot keep a slow one waiting for longer than one round.

    Args:
        backend: the model; closed with this.
        max_batch: the most images at once; None for as many as the model takes.
    """

    def __init__(self, backend: Backend, max_batch: int | None = None) -> None:
        self._backend = backend
        self.name, self.library = backend.name, backend.library
        self.provider, self.precision = backend.provider, backend.precision
        self.agreement, self.model_sha256 = backend.agreement, backend.model_sha256
        self.max_batch = min(backend.max_batch, max_batch or backend.max_batch)
        self._waiting: deque[_Request] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="model", daemon=True)
        self._thread.start()

    def outputs(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """(H, W, 3) uint8 RGB at the input size → all outputs of the model by name.

        Raises:
            BackendUnavailable: the model is closed.
        """
        request = _Request(image)
        with self._changed:
            if self._closed:
                raise BackendUnavailable(f"{self.name} is closed")
            self._waiting.append(request)
            self._changed.notify()
        return request.result()

    def _serve(self) -> None:
        while batch := self._next_batch():
            try:
                found = self._backend.batch_outputs([request.image for request in batch])
                for request, outputs in zip(batch, found, strict=True):
                    request.outputs = outputs
            except BaseException as error:  # handed to those who asked
                for request in batch:
                    request.error = error
            for request in batch:
                request.done.set()
        self._backend.close()

    def _next_batch(self) -> list[_Request]:
        """What waits, as far as the model takes it at once; nothing once it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            number = min(len(self._waiting), self.max_batch)
            return [self._waiting.popleft() for _ in range(number)]

    def close(self) -> None:
        """Answer what waits, then free the model; one that hangs is left to the process's end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(_JOIN_S)
