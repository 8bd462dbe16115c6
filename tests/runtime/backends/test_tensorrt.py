"""The native TensorRT backend on a recorder: order, sizes, threads, graphs, and what is freed."""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from recorder import FakeBindings, FakeGpu, fake_pycuda, fake_tensorrt

from runtime.backends import cuda as cuda_module
from runtime.backends import open_backend
from runtime.backends import tensorrt as backend_module
from runtime.backends.cuda import BindingsCuda, PyCuda, open_cuda_driver
from runtime.backends.tensorrt import TensorRtBackend, open_tensorrt_engine
from runtime.bundle.engine_file import EngineRecord, engine_paths
from runtime.bundle.manifest import file_sha256, read_manifest
from runtime.errors import BackendUnavailable
from runtime.gpu import Gpu
from runtime.packaged import BUNDLE_DIR

HW = (6, 8)
SHAPES = {"image": (1, *HW, 3), "label_map": (1, *HW), "confidence": (1, *HW)}
MANIFEST = SimpleNamespace(input_hw=HW, outputs=("label_map", "confidence"))
LIBRARIES = {
    "cuda-bindings": lambda gpu: BindingsCuda(FakeBindings(gpu)),
    "PyCUDA": lambda gpu: PyCuda(fake_pycuda(gpu)),
}


def image(seed):
    return np.random.default_rng(seed).integers(0, 256, (*HW, 3)).astype(np.uint8)


def opened(gpu, library="cuda-bindings", shapes=SHAPES, manifest=MANIFEST, **settings):
    cuda = LIBRARIES[library](gpu)
    trt = fake_tensorrt(gpu, shapes, **settings)
    return TensorRtBackend("tensorrt", trt, cuda, engine=b"engine", manifest=manifest)


def check(backend, seed):
    frame = image(seed)
    found = backend.outputs(frame)
    np.testing.assert_array_equal(found["label_map"], frame[..., 0] % 5)
    np.testing.assert_array_equal(found["confidence"], frame[..., 1])
    return found


@pytest.mark.parametrize("library", LIBRARIES)
def test_each_frame_gets_its_own_outputs_from_any_thread(library):
    gpu = FakeGpu()
    with opened(gpu, library) as backend:
        first = check(backend, 0)
        kept = first["label_map"].copy()
        failures = []

        def other():
            try:
                check(backend, 1)
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert not failures
        np.testing.assert_array_equal(first["label_map"], kept, "an earlier result was overwritten")
    assert gpu.held == []


def test_the_work_of_a_frame_is_in_order_and_waited_for_once():
    gpu = FakeGpu()
    with opened(gpu) as backend:
        gpu.calls.clear()
        check(backend, 0)
        assert gpu.calls == [
            "cuCtxSetCurrent",
            "cuMemcpyHtoDAsync",
            "cuMemcpyDtoHAsync",
            "cuMemcpyDtoHAsync",
            "cuStreamSynchronize",
        ]


def test_a_graph_replays_all_work_of_a_frame_with_one_call():
    gpu = FakeGpu()
    with opened(gpu) as backend:
        backend.record_graph()
        gpu.calls.clear()
        for seed in range(3):
            check(backend, seed)
        assert gpu.calls == ["cuCtxSetCurrent", "cuGraphLaunch", "cuStreamSynchronize"] * 3
    assert gpu.held == []


@pytest.mark.parametrize("library", LIBRARIES)
def test_whatever_call_fails_everything_is_freed(library):
    """Every call of opening, recording, running: once as the one that fails."""
    gpu = FakeGpu()
    with opened(gpu, library) as backend:
        if library == "cuda-bindings":
            backend.record_graph()
        backend.outputs(image(0))
        last = len(gpu.calls)
    for number in range(1, last + 1):
        failing = FakeGpu(fail_at=number)
        backend = None
        with pytest.raises((BackendUnavailable, RuntimeError), match="fail"):  # noqa: PT012
            cuda = LIBRARIES[library](failing)
            try:
                trt = fake_tensorrt(failing, SHAPES)
                backend = TensorRtBackend(
                    "tensorrt", trt, cuda, engine=b"engine", manifest=MANIFEST
                )
                if library == "cuda-bindings":
                    backend.record_graph()
                backend.outputs(image(0))
            finally:
                (backend or cuda).close()
        assert failing.held == [], f"call {number}, {failing.calls[number - 1]}"


def test_a_dynamic_batch_is_set_to_one_image():
    shapes = {name: (-1, *shape[1:]) for name, shape in SHAPES.items()}
    with opened(FakeGpu(), shapes=shapes) as backend:
        check(backend, 0)


@pytest.mark.parametrize(
    ("shapes", "settings", "message"),
    [
        ({**SHAPES, "image": (1, 7, 8, 3)}, {}, r"does not take one image uint8 \(1, 6, 8, 3\)"),
        ({"image": (1, *HW, 3), "label_map": (1, *HW)}, {}, "has no output 'confidence'"),
        (SHAPES, {"loads": False}, "does not load here; build it again"),
    ],
)
def test_an_engine_of_something_else_is_rejected(shapes, settings, message):
    with pytest.raises(BackendUnavailable, match=message):
        opened(FakeGpu(), shapes=shapes, **settings)


def test_an_engine_that_does_not_run_is_an_error_and_leaves_no_recording():
    gpu = FakeGpu()
    with opened(gpu, runs=False) as backend:
        with pytest.raises(BackendUnavailable, match="does not run"):
            backend.outputs(image(0))
        gpu.wait()
        with pytest.raises(BackendUnavailable, match="does not run"):
            backend.record_graph()
        assert gpu.captured is None
        assert not backend.replays


LAYERS = [
    {"Name": name, "LayerType": kind, "Inputs": [{"Format/Datatype": described}], "Outputs": []}
    for name, kind, described in (
        ("a", "Convolution", "Half"),
        ("b", "CaskConvolution", "Channel major FP16 format"),
        ("c", "Reformat", "Row major linear FP32"),
    )
]


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """The packaged bundle with an engine of the fake TensorRT, on a machine with a GPU."""
    import shutil

    folder = shutil.copytree(BUNDLE_DIR, tmp_path / "bundle")
    manifest = read_manifest(folder)
    engine, record = engine_paths(folder, "tensorrt")
    engine.write_bytes(b"engine")
    facts = EngineRecord(
        library="tensorrt",
        library_version="10.13.0",
        compute_capability="8.7",
        gpu="Orin",
        precision=manifest.precision,
        proved_by="engine inspector",
        layer_types={},
        io_types={},
        model_sha256=manifest.sha256[manifest.model_file],
        engine_sha256=file_sha256(engine),
        timing_cache_sha256=None,
        optimization_level=3,
        workspace_mib=1024,
        build_s=1.0,
    )
    record.write_text(facts.to_json())
    gpu = FakeGpu()
    hw = manifest.input_hw
    shapes = {"image": (1, *hw, 3), "label_map": (1, *hw)}
    settings = {"layers": "[]"}
    monkeypatch.setattr(backend_module, "find_gpu", lambda: Gpu("Orin", "8.7"))
    monkeypatch.setattr(cuda_module, "open_cuda_driver", None)
    monkeypatch.setattr(backend_module, "open_cuda_driver", lambda: BindingsCuda(FakeBindings(gpu)))

    def install(**changes):
        monkeypatch.setitem(
            sys.modules, "tensorrt", fake_tensorrt(gpu, shapes, **{**settings, **changes})
        )
        return folder, manifest, gpu

    return install


def test_what_it_computes_in_is_what_the_inspector_lists(bundle):
    folder, manifest, gpu = bundle(layers=json.dumps(LAYERS))
    with open_tensorrt_engine("tensorrt", folder, manifest) as backend:
        assert (backend.provider, backend.precision) == ("Orin", "fp16")
        assert backend.library == "tensorrt 10.13.0, cuda-bindings, CUDA graph"
    assert gpu.held == []
    folder, manifest, gpu = bundle()
    with open_tensorrt_engine("tensorrt", folder, manifest, cuda_graph=False) as backend:
        assert backend.precision == manifest.precision, "as the record proves"
        assert "graph" not in backend.library


def test_a_wrong_answer_to_the_golden_frame_is_rejected_and_freed(bundle):
    folder, manifest, gpu = bundle(layers=json.dumps(LAYERS))
    with pytest.raises(BackendUnavailable, match="computes in fp16, the bundle is fp32"):
        open_backend("tensorrt", folder, manifest)
    assert gpu.held == []
    folder, manifest, gpu = bundle()
    with pytest.raises(BackendUnavailable, match="of the golden frame's labels as exported"):
        open_backend("tensorrt", folder, manifest)
    assert gpu.held == []


def test_an_engine_that_cannot_be_recorded_runs_without_a_graph(bundle, monkeypatch, caplog):
    folder, manifest, gpu = bundle()
    monkeypatch.setattr(
        BindingsCuda, "end_graph", lambda self: self._call("cuStreamEndCapture", (None,))
    )
    monkeypatch.setattr(FakeBindings, "cuStreamEndCapture", lambda self, _: self.failed())
    monkeypatch.setattr(
        FakeBindings, "failed", lambda self: setattr(self.gpu, "captured", None) or (9, None),
        raising=False,
    )  # fmt: skip
    with open_tensorrt_engine("tensorrt", folder, manifest) as backend:
        assert not backend.replays
        backend.outputs(np.zeros((*manifest.input_hw, 3), np.uint8))
    assert "runs without a CUDA graph: CUDA: cuStreamEndCapture failed" in caplog.text
    assert gpu.held == []


def test_a_bundle_without_an_engine_says_how_to_build_one(monkeypatch):
    monkeypatch.setattr(backend_module, "find_gpu", lambda: Gpu("Orin", "8.7"))
    manifest = read_manifest(BUNDLE_DIR)
    for name in ("tensorrt", "tensorrt-rtx"):
        with pytest.raises(BackendUnavailable, match=rf"python -m export\.engine .*{name}"):
            open_backend(name, BUNDLE_DIR, manifest)


def test_a_machine_without_cuda_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setitem(sys.modules, "cuda", None)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    with pytest.raises(BackendUnavailable, match="CUDA needs cuda-bindings or pycuda"):
        open_cuda_driver()


def called_names():
    """What our module calls of the driver, and with how many arguments."""
    found = {}
    for node in ast.walk(ast.parse(Path(cuda_module.__file__).read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "_call":
            found[node.args[0].value] = len(node.args[1].elts)
        elif isinstance(node, ast.Tuple):
            first = getattr(node.elts[0], "value", None)
            if isinstance(first, str) and re.match("cu[A-Z]", first):
                found[first] = 1  # what frees
    return found


def test_every_call_is_one_of_nvidias_and_the_recorder_takes_the_same_arguments():
    driver = pytest.importorskip("cuda.bindings.driver", reason="extra dev")
    names = called_names()
    assert len(names) > 15
    for name, count in names.items():
        signature = getattr(driver, name).__doc__.partition("\n")[0]
        real = signature.partition("(")[2].rstrip(")").split(",")
        assert len(real) == count, signature
        ours = inspect.signature(getattr(FakeBindings, name)).parameters
        assert len(ours) - 1 == count, name


def test_without_a_driver_the_real_library_is_an_error():
    driver = pytest.importorskip("cuda.bindings.driver", reason="extra dev")
    from runtime.gpu import find_gpu

    if find_gpu() is not None:
        pytest.skip("this machine has a GPU")
    with pytest.raises(BackendUnavailable, match="CUDA: cuInit"):
        BindingsCuda(driver)


def test_a_gpu_without_memory_for_the_engine_is_an_error_that_auto_passes_over(bundle, monkeypatch):
    folder, manifest, gpu = bundle()
    trt = sys.modules["tensorrt"]
    loads = trt.Runtime.deserialize_cuda_engine

    def without_memory(self, engine):
        loaded = loads(self, engine)
        loaded.create_execution_context = lambda: None
        return loaded

    monkeypatch.setattr(trt.Runtime, "deserialize_cuda_engine", without_memory)
    with pytest.raises(BackendUnavailable, match="no memory left for the engine"):
        open_backend("tensorrt", folder, manifest)
    assert gpu.held == []


def test_whatever_fails_after_loading_frees_all(bundle, monkeypatch):
    folder, manifest, gpu = bundle()
    monkeypatch.setattr(TensorRtBackend, "inspected", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        open_tensorrt_engine("tensorrt", folder, manifest)
    assert gpu.held == []
