"""Every backend that starts here answers the golden frame; what would fall short is an error."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from PIL import Image

from runtime.backends import AUTO, BACKENDS, onnxruntime_gpu, open_backend
from runtime.backends.onnxruntime_gpu import BoundBackend, engine_cache
from runtime.backends.ort_session import CPU
from runtime.backends.verify import require_precision
from runtime.bundle.golden import read_golden
from runtime.bundle.manifest import file_sha256, read_manifest
from runtime.errors import BackendUnavailable, ManifestError
from runtime.gpu import Gpu, find_gpu
from runtime.packaged import BUNDLE_DIR
from runtime.sources.grammar import open_source

ON_THE_CPU = ["onnxruntime", "openvino", "opencv"]
no_gpu = pytest.mark.skipif(find_gpu() is not None, reason="there is a GPU")


@pytest.fixture
def bundle(tmp_path) -> Path:
    return Path(shutil.copytree(BUNDLE_DIR, tmp_path / "bundle"))


def rehash(bundle, **changes):
    """Let a changed bundle pass as whole."""
    path = bundle / "manifest.json"
    content = json.loads(path.read_text()) | changes
    content["sha256"] = {name: file_sha256(bundle / name) for name in content["sha256"]}
    path.write_text(json.dumps(content))


def opened(name, bundle, threads=1):
    return open_backend(name, bundle, read_manifest(bundle), threads)


@pytest.mark.parametrize("name", ON_THE_CPU)
def test_a_backend_gives_the_exported_labels_and_says_what_it_is(name):
    pytest.importorskip({"opencv": "cv2"}.get(name, name))
    with opened(name, BUNDLE_DIR) as backend, open_source("streetsynth") as source:
        assert backend.agreement >= 0.999
        assert backend.precision == "fp32"
        assert backend.provider in ("CPU", CPU)
        assert "1 threads" in backend.library
        assert backend.record()["golden_agreement"] == round(backend.agreement, 6)
        image = np.ascontiguousarray(source.read().image[:192, :384])
        with opened("onnxruntime", BUNDLE_DIR) as reference:
            assert (backend.infer(image) == reference.infer(image)).mean() > 0.999


@pytest.mark.parametrize("name", ON_THE_CPU)
def test_an_answer_outlives_the_next_frame(name):
    pytest.importorskip({"opencv": "cv2"}.get(name, name))
    golden = read_golden(BUNDLE_DIR, read_manifest(BUNDLE_DIR))
    with opened(name, BUNDLE_DIR) as backend:
        first = backend.infer(golden.image)
        kept = first.copy()
        backend.infer(np.zeros_like(golden.image))
        np.testing.assert_array_equal(first, kept)


CLOSED_ELSEWHERE_THEN_CTRL_C = """
import faulthandler, gc, signal, sys, threading
from runtime.backends import open_backend
from runtime.bundle.manifest import read_manifest
from runtime.packaged import BUNDLE_DIR

faulthandler.enable()  # as pytest does: signals have a stack of their own
backends = [open_backend(sys.argv[1], BUNDLE_DIR, read_manifest(BUNDLE_DIR), 1)]

def close():
    backends.pop().close()
    gc.collect()

signal.signal(signal.SIGINT, lambda *_: print("heard"))
closing = threading.Thread(target=close)
closing.start()
closing.join()
signal.raise_signal(signal.SIGINT)
"""


@pytest.mark.parametrize("name", ON_THE_CPU)
def test_ctrl_c_is_heard_after_a_backend_was_closed_by_another_thread(name):
    pytest.importorskip({"opencv": "cv2"}.get(name, name))
    command = [sys.executable, "-c", CLOSED_ELSEWHERE_THEN_CTRL_C, name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr


def test_other_labels_than_exported_are_an_error_with_the_figure(bundle):
    path = bundle / "golden-labels.png"
    labels = np.array(Image.open(path))
    labels[:20] = (labels[:20] + 1) % 11
    Image.fromarray(labels).save(path)
    rehash(bundle)
    with pytest.raises(BackendUnavailable, match=r"gives 89\.58 % .* at least 99\.50 % are needed"):
        opened("onnxruntime", bundle)


def test_a_golden_frame_that_was_changed_is_found_by_its_hash(bundle):
    Image.fromarray(np.zeros((192, 384, 3), np.uint8)).save(bundle / "golden.png")
    with pytest.raises(ManifestError, match=r"golden\.png is not the file that was exported"):
        opened("onnxruntime", bundle)


def test_a_golden_frame_of_another_size_is_damage(bundle):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(bundle / "golden.png")
    rehash(bundle)
    with pytest.raises(ManifestError, match=r"golden\.png is 8x8"):
        opened("onnxruntime", bundle)


def test_a_bundle_without_a_golden_frame_still_runs_and_says_so(bundle):
    rehash(bundle, golden=None)
    with opened("onnxruntime", bundle) as backend:
        assert backend.agreement is None
        assert "no golden frame" in backend.line()


@no_gpu
def test_auto_says_why_it_passes_over_what_does_not_start(caplog, monkeypatch):
    caplog.set_level("INFO")
    monkeypatch.setitem(sys.modules, "openvino", None)  # as where it is not installed
    with opened("auto", BUNDLE_DIR) as backend:
        assert backend.name == "onnxruntime"
    reasons = [message for message in caplog.messages if "passed over" in message]
    gpu = "passed over: tensorrt, tensorrt-rtx, onnxruntime-tensorrt, onnxruntime-cuda: no NVIDIA"
    assert len(reasons) == 2, "one for what all four have in common"
    assert reasons[0].startswith(gpu)
    assert reasons[1].startswith("passed over: openvino: openvino does not start")


@no_gpu
def test_auto_takes_the_faster_of_the_cpus_backends_and_says_how_fast_they_are(monkeypatch, caplog):
    pytest.importorskip("openvino")
    caplog.set_level("INFO")
    compared = []
    monkeypatch.setattr("runtime.backends.fastest", lambda b, image: compared.append(b) or b[1])
    with opened("auto", BUNDLE_DIR) as backend:
        (both,) = compared
        assert [one.name for one in both] == ["openvino", "onnxruntime"]
        assert backend is both[1]
        with pytest.raises(AttributeError, match="_request"):
            both[0].outputs(np.zeros((192, 384, 3), np.uint8))


def test_openvino_is_on_x86_only(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(BackendUnavailable, match="on x86 only, this machine is aarch64"):
        opened("openvino", BUNDLE_DIR)


@no_gpu
@pytest.mark.parametrize("name", [name for name in BACKENDS if name not in ON_THE_CPU])
def test_a_backend_that_was_asked_for_fails_instead_of_another_one_running(name):
    with pytest.raises(BackendUnavailable, match="no NVIDIA GPU"):
        opened(name, BUNDLE_DIR)


def test_when_nothing_starts_every_reason_is_named(bundle, monkeypatch):
    (bundle / "model.onnx").write_bytes(b"\x08\x08")
    rehash(bundle)
    with pytest.raises(BackendUnavailable, match="no backend starts") as caught:
        opened("auto", bundle)
    first, *reasons = str(caught.value).split("\n  ")
    assert first == "no backend starts"
    assert ", ".join(reason.partition(": ")[0] for reason in reasons) == ", ".join(AUTO)
    assert reasons[-1].startswith("onnxruntime: ONNX Runtime")


@pytest.mark.parametrize(
    ("found", "precision", "fits"),
    [
        ("fp32", "fp32", True),
        ("bf16", "fp32", False),
        ("fp16", "fp32", False),
        ("fp32", "fp16", True),
        ("bf16", "fp16", False),
        ("int8", "fp16", False),
        ("fp32", "int8", True),
        ("bf16", "int8", False),
    ],
)
def test_a_backend_may_compute_more_exactly_and_never_less(found, precision, fits):
    with opened("onnxruntime", BUNDLE_DIR) as backend:
        backend.precision = found
        if fits:
            require_precision(backend, precision)
        else:
            with pytest.raises(BackendUnavailable, match=f"computes in {found}, the bundle is"):
                require_precision(backend, precision)


def test_a_backend_that_computes_less_exactly_is_never_opened(monkeypatch):
    """As OpenVINO would in bf16 without its hint, though it labels the golden frame well enough."""
    closed = []

    def in_bf16(bundle_dir, manifest, num_threads):
        backend = right(bundle_dir, manifest, num_threads)
        backend.precision = "bf16"
        monkeypatch.setattr(backend, "close", lambda: closed.append(True))
        return backend

    right = BACKENDS["onnxruntime"]
    monkeypatch.setitem(BACKENDS, "onnxruntime", in_bf16)
    with pytest.raises(BackendUnavailable, match="computes in bf16, the bundle is fp32"):
        opened("onnxruntime", BUNDLE_DIR)
    assert closed == [True]


def graph_of(kind, shape, bundle):
    """A graph with the packaged one's interface, and another kind of label map."""
    size = [1, 192, 384, 3]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, size)
    label_map = helper.make_tensor_value_info("label_map", kind, None)
    nodes = [
        helper.make_node("Cast", ["image"], ["cast"], to=kind),
        helper.make_node("Slice", ["cast", "zero", "one", "last"], ["cut"]),
        helper.make_node("Reshape", ["cut", "shape"], ["label_map"]),
    ]
    constants = {"zero": [0], "one": [1], "last": [3], "shape": shape}
    tensors = [
        helper.make_tensor(name, TensorProto.INT64, [len(values)], values)
        for name, values in constants.items()
    ]
    graph = helper.make_graph(nodes, "graph", [image], [label_map], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, bundle / "model.onnx")
    rehash(bundle)


@pytest.mark.parametrize(
    ("kind", "shape", "message"),
    [
        (TensorProto.INT64, [1, 192, 384], "of int64, expected"),
        (TensorProto.FLOAT, [1, 192, 384], "of float32, expected"),
        (TensorProto.UINT8, [1, 1, 192, 384], r"\(1, 1, 192, 384\) of uint8, expected"),
        (TensorProto.UINT8, [-1], r"\(1, \) of uint8, expected"),
        (TensorProto.UINT8, [7, 7], "does not run"),
    ],
)
def test_a_graph_with_another_kind_of_answer_is_an_error(bundle, kind, shape, message):
    graph_of(kind, shape, bundle)
    with pytest.raises(BackendUnavailable, match=message):
        opened("onnxruntime", bundle)


class BoundOnTheCpu(BoundBackend):
    device = "cpu"


def test_bound_inputs_and_outputs_give_the_same():
    """What runs on a GPU, with the memory of the CPU."""
    manifest = read_manifest(BUNDLE_DIR)
    golden = read_golden(BUNDLE_DIR, manifest)
    path = BUNDLE_DIR / manifest.model_file
    with BoundOnTheCpu("bound", path, manifest) as bound, opened("onnxruntime", BUNDLE_DIR) as one:
        assert bound.provider == CPU
        for image in (golden.image, golden.image[::-1], golden.image[:, ::-1]):
            np.testing.assert_array_equal(bound.infer(image), one.infer(image))


def test_cuda_of_wheels_is_loaded_and_what_is_missing_is_logged(monkeypatch, capsys, caplog):
    """The loader does not look into wheels; what ONNX Runtime prints must not be among results."""
    monkeypatch.setattr(onnxruntime_gpu, "_require_provider", lambda name: Gpu(name, "8.9"))
    monkeypatch.setattr(onnxruntime_gpu, "BoundBackend", lambda *_, **named: named["providers"])

    def load():
        print("Failed to load libcudnn.so.9")

    monkeypatch.setattr(onnxruntime, "preload_dlls", load, raising=False)
    manifest, imported = read_manifest(BUNDLE_DIR), []
    monkeypatch.setattr(onnxruntime_gpu, "engine_cache", lambda *_: Path())
    monkeypatch.setattr("importlib.import_module", imported.append)
    for opener in (onnxruntime_gpu.open_cuda, onnxruntime_gpu.open_tensorrt):
        assert imported == []
        caplog.clear()
        assert opener(BUNDLE_DIR, manifest)[0][1]["device_id"] == 0
        assert caplog.messages == ["ONNX Runtime: Failed to load libcudnn.so.9"]
    assert imported == ["tensorrt"], "which loads the libraries of its wheel"
    assert capsys.readouterr().out == ""
    monkeypatch.delattr(onnxruntime, "preload_dlls")  # before 1.21
    assert onnxruntime_gpu.open_cuda(BUNDLE_DIR, manifest)


def test_engines_are_kept_apart_by_graph_library_and_gpu(bundle):
    manifest = read_manifest(bundle)
    orin, thor = Gpu("Orin", "8.7"), Gpu("Thor", "11.0")
    one, other = engine_cache(bundle, manifest, orin), engine_cache(bundle, manifest, thor)
    assert one != other
    assert one.parent == other.parent == bundle.parent / ".bundle.engines"
    other_graph = replace(manifest, sha256={manifest.model_file: "0" * 64})
    assert engine_cache(bundle, other_graph, orin) != one
