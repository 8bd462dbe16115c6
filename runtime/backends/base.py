"""Backend: what runs a bundle's model, and what is known of how it does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from runtime.bundle.manifest import LABEL_MAP
from runtime.closing import Closing


class Backend(Closing, ABC):
    """Runs one model on one image at a time; close it, or use it in a ``with``.

    Attributes:
        name: of ``BACKENDS``.
        library: with its version, and the number of threads where that can be set.
        provider: what runs the layers, as found out after the model was loaded.
        precision: what the layers compute in, as found out.
        agreement: share of the golden frame's labels that are as exported; None without one.
        max_batch: images that it can take at once.
        model_sha256: of the bundle's graph; empty before the backend is proved.
    """

    name: str
    library: str
    provider: str
    precision: str
    agreement: float | None = None
    max_batch: int = 1
    model_sha256: str = ""

    @abstractmethod
    def outputs(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """(H, W, 3) uint8 RGB at the input size → all outputs of the model by name."""

    def batch_outputs(self, images: Sequence[np.ndarray]) -> list[dict[str, np.ndarray]]:
        """The same for at most ``max_batch`` images, in their order."""
        return [self.outputs(image) for image in images]

    def infer(self, image: np.ndarray) -> np.ndarray:
        """The same image → (h, w) uint8 label map."""
        return self.outputs(image)[LABEL_MAP]

    def record(self) -> dict[str, str | float | None]:
        """The facts, for results and metrics."""
        return {
            "backend": self.name,
            "library": self.library,
            "provider": self.provider,
            "precision": self.precision,
            "model_sha256": self.model_sha256,
            "golden_agreement": None if self.agreement is None else round(self.agreement, 6),
        }

    def line(self) -> str:
        """The facts, for people."""
        return f"{self.library}, {self.provider}, {self.precision}, {self._golden()}"

    def caption(self) -> str:
        """The same in the width of a small picture."""
        return f"{self.name}, {self.precision}, {self._golden()}"

    def _golden(self) -> str:
        if self.agreement is None:
            return "no golden frame"
        return f"golden frame {100 * self.agreement:.2f} %"
