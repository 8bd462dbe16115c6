"""What several tests need: small models and images, the real data where it is, a clean folder."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

from runtime.bundle.labels import LabelSpace

# How long an example takes says more about the machine than about the code.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = os.environ.get("SFDA_EDGE_REAL_DATA")
    if not folder:
        pytest.skip("needs the real data: set SFDA_EDGE_REAL_DATA to the folder that holds it")
    return Path(folder)


@pytest.fixture
def in_empty_folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def three_classes() -> LabelSpace:
    return LabelSpace(("sky", "road", "car"), ((0, 0, 255), (128, 64, 128), (255, 0, 0)))


@pytest.fixture
def labelled_folder(tmp_path) -> Path:
    """Six 40x24 images with labels 0 to 2 in ``images/`` and ``labels/``."""
    random = np.random.default_rng(0)
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for index in range(6):
        labels = random.integers(0, 3, (24, 40), np.uint8)
        image = np.stack([labels * 80 + 20] * 3, -1).astype(np.uint8)
        Image.fromarray(image).save(tmp_path / "images" / f"{index}.png")
        Image.fromarray(labels).save(tmp_path / "labels" / f"{index}.png")
    return tmp_path


@pytest.fixture
def full_disk():
    """``with full_disk(most_bytes)``: the kernel refuses to write more, as a full disk does."""

    @contextlib.contextmanager
    def limited(most_bytes: int):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, previous)

    return limited
