"""What several tests need: small models and images, the real data where it is, a clean folder."""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import io
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

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


ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def check_types(tmp_path_factory):
    """``check_types(path, settings, *stubs)``: what mypy says of a file, as one text.

    It has the project's settings, and ``settings`` of the file's own. It begins with the cache that
    ``make typecheck`` left: torch alone takes half a minute.
    """
    folder = tmp_path_factory.mktemp("mypy")
    if (ROOT / ".mypy_cache").is_dir():
        shutil.copytree(ROOT / ".mypy_cache", folder / "cache")

    def check(path: Path, settings: str = "", *stubs: Path) -> str:
        config = folder / "mypy.cfg"
        config.write_text(f"{(ROOT / 'setup.cfg').read_text()}\n[mypy-{path.stem}]\n{settings}\n")
        command = [sys.executable, "-m", "mypy", "--config-file", config]
        command += ["--cache-dir", folder / "cache", path]
        environment = os.environ | {"MYPYPATH": os.pathsep.join(map(str, [*stubs, ROOT]))}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert "Found" in done.stdout or "Success" in done.stdout, done.stdout + done.stderr
        return done.stdout

    return check


@pytest.fixture(scope="session")
def exported_once(tmp_path_factory, worker_id):
    """torch's exporter takes ten seconds, onnxslim two: what they made before comes from a folder.

    onnxslim runs in the tests' process: to load it takes most of its time. Its own tests start it
    as an export does.

    What is the same is decided by the pickled network: classes, attributes and weights. One that
    cannot be pickled is exported each time. Each export spends a second on reading all translations
    of operators again: they are read once.
    """
    import onnx
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    from export.graph import simplify, to_onnx
    from export.precision import pipeline

    shared = tmp_path_factory.getbasetemp()
    folder = (shared if worker_id == "master" else shared.parent) / "exported"
    folder.mkdir(exist_ok=True)
    export, run_onnxslim = to_onnx._torch_export, simplify.simplified

    def once(key, make):
        kept = folder / f"{key}.onnx"
        if not kept.exists():
            unfinished = kept.with_suffix(f".{worker_id}")
            unfinished.write_bytes(make().SerializeToString())
            unfinished.replace(kept)
        return onnx.load(kept)

    def exported(model, example, dynamic_shapes, options):
        def make():
            return export(model, example, dynamic_shapes, options)

        table = options["custom_translation_table"]
        named = {str(operator): table[operator].__name__ for operator in table}
        settings = {**options, "custom_translation_table": named}
        try:
            key = _digest(model, example.shape, str(example.dtype), repr(dynamic_shapes), settings)
        except (pickle.PicklingError, AttributeError, TypeError):
            return make()
        return SimpleNamespace(model_proto=once(key, lambda: make().model_proto))

    def simplified(graph):
        key = hashlib.sha256(graph.SerializeToString(deterministic=True)).hexdigest()

        def make():
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(simplify, "_slim", slim_here)
                return run_onnxslim(graph)

        return once(f"{key}-simplified", make)

    def slim_here(before, after):
        import onnxslim

        with contextlib.redirect_stdout(io.StringIO()):
            onnxslim.slim(str(before), str(after))

    read = functools.cache(ONNXRegistry.from_torchlib)

    def registry_of(*opset_version, **named):
        own = copy.copy(read(*opset_version, **named))
        own.functions = {name: list(found) for name, found in own.functions.items()}
        return own

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(to_onnx, "_torch_export", exported)
        patch.setattr(pipeline, "simplified", simplified)
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(registry_of))
        yield


def _digest(*found):
    """Of what was pickled; of tensors their values, as torch pickles addresses, too."""
    import torch

    class Pickler(pickle.Pickler):
        def reducer_override(self, found):
            if isinstance(found, torch.Tensor):
                values = found.numpy(force=True)
                return tuple, ((values.tobytes(), str(values.dtype), values.shape),)
            return NotImplemented

    file = io.BytesIO()
    Pickler(file).dump(found)
    return hashlib.sha256(file.getvalue()).hexdigest()


@pytest.fixture
def few_views(monkeypatch):
    """Three sizes and four images to find views with, for tests of something else."""
    from sfda_edge.selection.config import SelectionConfig

    defaults = SelectionConfig.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "scales", (0.75, 1.0, 1.25))
    monkeypatch.setitem(defaults, "probe_images", 4)


@pytest.fixture
def in_empty_folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
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
