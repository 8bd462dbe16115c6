"""The builder here is TensorRT for RTX, which builds for GPUs that are not there."""

import json
import shutil
import signal
import sys
import threading
import types
from dataclasses import replace

import numpy as np
import onnx
import pytest

from export.bundle.directory import held
from export.bundle.write import export_bundle
from export.engine import build as engine_build
from export.engine.__main__ import main
from export.engine.build import load_library
from export.engine.layers import typed_layers
from export.engine.proof import require_precision
from export.engine.request import EngineRequest, _earlier_timings, build_engine, find_builder
from export.engine.timing_cache import read_timing_cache, with_digest
from export.errors import ExportError
from export.graph.deploy import Outputs
from export.precision.half import sensitive_nodes
from export.precision.half_graph import to_fp16
from export.profiles import PROFILES
from export.request import ExportRequest
from export.thresholds import Thresholds
from runtime.bundle.engine_file import (
    engine_paths,
    read_engine_record,
    require_loadable,
    timing_cache_path,
)
from runtime.bundle.engine_layers import Layer, parse_inspection
from runtime.bundle.manifest import file_sha256, read_manifest
from runtime.diagnosis import bundle as bundle_doctor
from runtime.errors import BackendUnavailable, StreamError
from runtime.gpu import Gpu, find_gpu
from sfda_edge.cli import main as cli
from sfda_edge.recipes.recipe import load_recipe

pytestmark = pytest.mark.slow

RTX = EngineRequest("tensorrt-rtx", compute_capability="8.9")


def thresholds(*changes):
    return load_recipe("export", Thresholds, changes)


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """As on most machines that export; with one, engines would be looked into."""
    monkeypatch.setattr("export.engine.request.find_gpu", lambda: None)


@pytest.mark.skipif(find_gpu() is None, reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_engine_for_the_gpu_that_is_here_is_proved_by_the_inspector(
    bundles, tmp_path, monkeypatch, precision
):
    monkeypatch.setattr("export.engine.request.find_gpu", find_gpu)
    folder = shutil.copytree(bundles / precision, tmp_path / "bundle")
    assert build_engine(folder, EngineRequest("tensorrt-rtx")).proved_by == "engine inspector"


@pytest.fixture(scope="module")
def trt():
    return pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx-cu13 (x86_64)")


@pytest.fixture(scope="module")
def bundles(trt, packaged, frames, tmp_path_factory, calibration):
    """A bundle of each precision, never changed."""
    folder = tmp_path_factory.mktemp("bundles")
    request = ExportRequest(
        model=packaged.network,
        spec=packaged.spec,
        images=frames,
        calibration=calibration,
        outputs=Outputs(confidence=True, health=True),
        profile=PROFILES["rtx"],
        thresholds=thresholds("int8.label_agreement=0", "int8.class_iou=0"),  # no search here
    )
    for precision in ("fp32", "fp16", "int8"):
        export_bundle(replace(request, precision=precision), folder / precision)
    return folder


@pytest.fixture
def bundle(bundles, tmp_path):
    return shutil.copytree(bundles / "fp16", tmp_path / "bundle")


def network_of(trt, graph):
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(graph.SerializeToString())
    return network, (logger, builder, parser)


@pytest.mark.parametrize(("precision", "kind"), [("fp32", "FLOAT"), ("fp16", "HALF")])
def test_an_engine_is_built_in_the_precision_of_the_graph(bundles, tmp_path, precision, kind):
    folder = shutil.copytree(bundles / precision, tmp_path / "bundle")
    record = build_engine(folder, RTX)
    assert record.precision == precision
    assert record.layer_types[f"CONVOLUTION {kind}"] == 34
    assert len([name for name in record.layer_types if name.startswith("CONVOLUTION")]) == 1
    engine, _ = engine_paths(folder, "tensorrt-rtx")
    assert record.io_types == {
        "image": "UINT8 1x96x192x3",
        "label_map": "UINT8 1x96x192",
        "confidence": "UINT8 1x96x192",
        "health": f"FLOAT 1x{sum(read_manifest(folder).health_layout.values())}",
    }
    assert record.engine_sha256 == file_sha256(engine)
    assert record.model_sha256 == read_manifest(folder).sha256["model.onnx"]
    assert (record.gpu, record.proved_by) == (None, "typed network definition")
    assert read_engine_record(folder, "tensorrt-rtx") == record


def test_an_int8_engine_is_built_of_int8_layers(bundles, tmp_path):
    folder = shutil.copytree(bundles / "int8", tmp_path / "bundle")
    record = build_engine(folder, RTX)
    single = read_manifest(folder).provenance.get("single_precision", ())
    assert record.layer_types["CONVOLUTION INT8"] == 34 - len(single)
    assert record.layer_types.get("CONVOLUTION FLOAT", 0) == len(single)


def test_inputs_and_outputs_are_bytes_in_the_engines_network(trt, bundles):
    graph = onnx.load(bundles / "fp16" / "model.onnx")
    network, kept = network_of(trt, graph)
    assert network.get_input(0).dtype == trt.DataType.UINT8
    outputs = {network.get_output(i).name: network.get_output(i).dtype for i in range(3)}
    expected = {"label_map": trt.DataType.UINT8, "confidence": trt.DataType.UINT8}
    assert outputs == {**expected, "health": trt.DataType.FLOAT}
    del network, kept


def test_a_layer_in_another_precision_is_named_unless_it_was_meant(trt, bundles, frames):
    graph = onnx.load(bundles / "fp32" / "model.onnx")
    single = {*sensitive_nodes(graph, frames[:1]), "decoder.head/Conv"}
    network, kept = network_of(trt, to_fp16(graph, single))
    layers = typed_layers(network)
    require_precision(layers, "fp16", tuple(single))
    with pytest.raises(ExportError, match=r"1 of \d+ layers .* decoder.head/Conv \(FLOAT\)"):
        require_precision(layers, "fp16", ())
    with pytest.raises(ExportError, match=r"asked for fp32, but 33 of 34"):
        require_precision(layers, "fp32", ())
    with pytest.raises(ExportError, match=r"asked for int8, but 33 of 34"):
        require_precision(layers, "int8", tuple(single))
    del network, kept


@pytest.mark.parametrize("kind", ["SHUFFLE HALF", "CONVOLUTION FLOAT"])
def test_an_engine_without_computing_layers_of_the_precision_proves_nothing(kind):
    with pytest.raises(ExportError, match="cannot be proved"):
        require_precision([Layer(("a",), *kind.split())], "fp16", ("a",))


def test_single_precision_is_not_rounded_to_tf32(trt, bundles):
    network, kept = network_of(trt, onnx.load(bundles / "fp32" / "model.onnx"))
    needed = engine_build.Build(bundles, "fp32", (), "8.9", False, 64, 1, None)
    config = engine_build._configured(trt, kept[1], network, needed, 3)
    assert not config.get_flag(trt.BuilderFlag.TF32)
    del config, network, kept


def inspected(name, kind, described, metadata=""):
    port = {"Name": "x", "Dimensions": [1, 8, 8, 8], "Format/Datatype": described}
    return {"Name": name, "LayerType": kind, "Inputs": [port], "Outputs": [], "Metadata": metadata}


def test_the_inspectors_json_is_read():
    """Descriptions as NVIDIA's guide and Torch-TensorRT's pages print them; no GPU wrote these."""
    layers = [
        inspected(
            "c1", "CaskConvolution", "Thirty-two wide channel vectorized row major Int8 format."
        ),
        inspected("c2", "Convolution", "Channel major FP16 format where channel % 4 == 0"),
        inspected("c3", "gemm", "Half", "[ONNX Layer: a/Conv]\x1f[ONNX Layer: a/Relu]"),
        inspected("c4", "Reformat", "Row major linear FP32"),
    ]
    found = parse_inspection(json.dumps({"Layers": layers, "Bindings": []}))
    assert [layer.type for layer in found] == ["INT8", "HALF", "HALF", "FLOAT"]
    assert found[2].names == ("a/Conv", "a/Relu")
    assert found[0].names == ("c1",)
    require_precision(found[1:], "fp16", ())
    with pytest.raises(ExportError, match=r"1 of 3 .* c1 \(INT8\)"):
        require_precision(found, "fp16", ("c1",))  # meant to be single, and is not


def test_ctrl_c_stops_the_build_and_nothing_is_written(bundle, monkeypatch):
    monitored, pressed = engine_build._monitor, threading.Event()

    def pressing(trt):
        monitor = monitored(trt)
        started = monitor.phase_start

        def phase_start(*arguments):
            # Once: a phase that still begins when the build is over must not end the tests.
            if not pressed.is_set():
                pressed.set()
                signal.raise_signal(signal.SIGINT)
            started(*arguments)

        monitor.phase_start = phase_start
        return monitor

    monkeypatch.setattr(engine_build, "_monitor", pressing)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        build_engine(bundle, RTX)
    assert signal.getsignal(signal.SIGINT) is before
    assert not engine_paths(bundle, "tensorrt-rtx")[0].exists()


@pytest.mark.parametrize(
    ("request_for", "message"),
    [
        (EngineRequest("tensorrt-rtx"), "no NVIDIA GPU here to build for"),
        (EngineRequest("tensorrt-rtx", "8.7"), r"cannot build for compute capability 8.7; known"),
        (
            EngineRequest("tensorrt-rtx", "89"),
            r"cannot build for compute capability 89; known: .*8\.9",
        ),
        (replace(RTX, max_batch=4), "--max-batch 4 of a bundle that takes one image"),
        (EngineRequest("tensorrt", "8.9"), "tensorrt .*JetPack"),
    ],
)
def test_what_cannot_be_built_here_says_what_to_do(bundle, monkeypatch, request_for, message):
    monkeypatch.setitem(sys.modules, "tensorrt", types.ModuleType("tensorrt"))
    with pytest.raises(ExportError, match=message):
        build_engine(bundle, request_for)
    assert not engine_paths(bundle, request_for.library)[0].exists()


def test_an_int8_bundle_for_a_cpu_says_what_to_export(bundle):
    content = json.loads((bundle / "manifest.json").read_text())
    content["precision"], content["provenance"]["profile"] = "int8", "cpu"
    (bundle / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ExportError, match=r"int8 bundle is for --profile cpu.*such as jetpack6"):
        build_engine(bundle, RTX)


def test_two_builds_in_one_bundle_do_not_mix(bundle, capsys):
    call = [str(bundle), "--library", "tensorrt-rtx", "--compute-capability", "8.9"]
    with held(bundle):
        assert main(call) == 2
    assert "another program is writing" in capsys.readouterr().err
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]


def test_a_builder_that_is_not_here_is_said_before_the_export(monkeypatch, capsys, in_empty_folder):
    monkeypatch.setitem(sys.modules, "tensorrt", types.ModuleType("tensorrt"))
    engine = ["--engine", "tensorrt", "--profile", "x86-cuda12"]
    assert cli.main(["export", *engine]) == 2  # and there is no model to export either
    assert "tensorrt is not installed" in capsys.readouterr().err


def test_a_missing_gpu_is_said_before_the_export(trt, capsys, in_empty_folder):
    assert cli.main(["export", "--engine", "tensorrt-rtx", "--profile", "rtx"]) == 2
    assert "compute capability, such as --compute-capability 8.9" in capsys.readouterr().err


def test_a_truncated_graph_is_refused_and_the_old_engine_stays(bundle):
    build_engine(bundle, RTX)
    engine, _ = engine_paths(bundle, "tensorrt-rtx")
    before = engine.read_bytes()
    model = bundle / "model.onnx"
    model.write_bytes(model.read_bytes()[:5000])
    with pytest.raises(StreamError, match="not the file that was exported"):
        build_engine(bundle, RTX)
    content = json.loads((bundle / "manifest.json").read_text())
    content["sha256"]["model.onnx"] = file_sha256(model)
    (bundle / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(StreamError, match=r"model\.onnx is no ONNX graph"):
        build_engine(bundle, RTX)
    assert engine.read_bytes() == before


def test_a_graph_that_the_library_does_not_take_is_refused(bundle):
    """A layer that TensorRT does not know."""
    model = bundle / "model.onnx"
    graph = onnx.load(model)
    graph.graph.node[3].op_type = "NoSuchLayer"
    onnx.save(graph, model)
    content = json.loads((bundle / "manifest.json").read_text())
    content["sha256"]["model.onnx"] = file_sha256(model)
    (bundle / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ExportError, match=r"does not take .*model\.onnx"):
        build_engine(bundle, RTX)


@pytest.mark.parametrize("written", ["engine", "record"])
def test_a_full_disk_leaves_the_old_engine(bundle, full_disk, monkeypatch, written):
    record = build_engine(bundle, RTX)
    before = sorted((path.name, path.read_bytes()) for path in bundle.iterdir())
    size = engine_paths(bundle, "tensorrt-rtx")[0].stat().st_size
    if written == "record":  # the engine fits, what comes after it does not
        text = json.dumps({"padding": "x" * 2 * size})
        monkeypatch.setattr(type(record), "to_json", lambda _self: text)
    limit = 1000 if written == "engine" else size + 1000
    with full_disk(limit), pytest.raises(ExportError, match=r"cannot write to .*: File too"):
        build_engine(bundle, RTX)
    monkeypatch.undo()
    assert sorted((path.name, path.read_bytes()) for path in bundle.iterdir()) == before


def test_an_engine_of_another_machine_says_all_that_differs(bundle):
    record = build_engine(bundle, RTX)
    manifest = read_manifest(bundle)
    here = Gpu("NVIDIA GeForce RTX 4090", "8.9")
    require_loadable(bundle, record, manifest, library_version=record.library_version, gpu=here)
    other = replace(manifest, sha256={**manifest.sha256, "model.onnx": "0" * 64})
    with pytest.raises(BackendUnavailable) as caught:
        require_loadable(bundle, record, other, library_version="1.8.0", gpu=Gpu("Orin", "8.7"))
    text = str(caught.value)
    assert f"version {record.library_version}, here 1.8.0" in text
    assert "compute capability of the GPU 8.9, here 8.7" in text
    assert "here 000000000000" in text
    assert f"python -m export.engine {bundle} --library tensorrt-rtx" in text
    with pytest.raises(BackendUnavailable, match=r"8\.9, here none"):
        require_loadable(bundle, record, manifest, library_version=record.library_version, gpu=None)


def edited(**changes):
    def edit(_engine, record):
        record.write_text(json.dumps(json.loads(record.read_text()) | changes))

    return edit


def linked(engine, _record):
    engine.rename(engine.parent.parent / "elsewhere.engine")
    engine.symlink_to(engine.parent.parent / "elsewhere.engine")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda engine, record: engine.write_bytes(b"x"), "is not the engine that"),
        (lambda engine, record: record.write_text("{"), "is damaged"),
        (lambda engine, record: record.write_text('{"schema": 9}'), "schema 9"),
        (lambda engine, record: record.write_text('{"schema": 2, "a": 2}'), "is damaged"),
        (lambda engine, record: engine.unlink(), "has no engine of tensorrt-rtx"),
        (edited(precision="bf16"), "precision 'bf16' is none of"),
        (edited(library="tensorrt"), "it is of tensorrt"),
        (edited(max_batch="four"), "max_batch is 'four'"),
        (edited(gpu=7), "gpu is 7"),
        (edited(layer_types={"CONVOLUTION HALF": "many"}), "layer_types is"),
        (edited(layer_types=3), "layer_types is"),
        (lambda engine, record: record.write_text("[" * 100_000), "is damaged"),
        (linked, "is a link"),
    ],
)
def test_a_damaged_engine_is_not_loaded(bundle, damage, message):
    build_engine(bundle, RTX)
    damage(*engine_paths(bundle, "tensorrt-rtx"))
    with pytest.raises(BackendUnavailable, match=message):
        read_engine_record(bundle, "tensorrt-rtx")


def test_the_doctor_looks_at_a_bundles_engines(bundle, monkeypatch, capsys):
    record = build_engine(bundle, RTX)
    monkeypatch.setattr("runtime.diagnosis.bundle.find_gpu", lambda: None)
    found = bundle_doctor.look(bundle)[1]
    assert found.verdict == "note"
    assert "compute capability of the GPU 8.9, here none" in found.text
    monkeypatch.setattr("runtime.diagnosis.bundle.find_gpu", lambda: Gpu("RTX 4090", "8.9"))
    assert bundle_doctor.look(bundle)[1].verdict == "ok"
    edited(model_sha256="0" * 64)(*engine_paths(bundle, record.library))
    assert bundle_doctor.look(bundle)[1].verdict == "problem"
    engine_paths(bundle, record.library)[0].write_bytes(b"x")
    assert cli.main(["doctor", "--bundle", str(bundle)]) == 2
    assert "is not the engine that" in capsys.readouterr().out


def test_a_bundle_with_an_engine_can_be_exported_again(bundle, request_, frames):
    build_engine(bundle, RTX)
    export_bundle(request_, bundle)
    assert not engine_paths(bundle, "tensorrt-rtx")[0].exists()  # it was of the old graph


def test_a_dynamic_batch_gets_a_profile(trt, tmp_path, request_):
    export_bundle(replace(request_, dynamic_batch=True), tmp_path / "bundle")
    record = build_engine(tmp_path / "bundle", replace(RTX, max_batch=4))
    assert record.layer_types["CONVOLUTION FLOAT"] == 34
    assert read_engine_record(tmp_path / "bundle", "tensorrt-rtx").max_batch == 4


def test_timings_are_used_again_if_they_are_whole(tmp_path):
    cache = tmp_path / "tensorrt.timing"
    assert _earlier_timings("tensorrt", cache) == b""
    assert with_digest(b"") == b""
    cache.write_bytes(with_digest(b"timings"))
    assert _earlier_timings("tensorrt", cache) == b"timings"
    assert _earlier_timings("tensorrt-rtx", cache) is None
    for damaged in (with_digest(b"timings")[:-1], b"timings", b""):
        cache.write_bytes(damaged)
        assert _earlier_timings("tensorrt", cache) == b""


def built(bundle):
    build_engine(bundle, RTX)
    return bundle


def test_an_export_whose_engine_fails_leaves_the_old_bundle_and_its_engine(
    bundle, request_, monkeypatch
):
    before = {path.name: path.read_bytes() for path in built(bundle).iterdir()}

    def failing(*_):
        raise ExportError("out of memory")

    monkeypatch.setattr("export.engine.request.build", failing)
    with pytest.raises(ExportError, match="out of memory"):
        export_bundle(replace(request_, engine=RTX), bundle)
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


def test_an_export_ships_its_engine_and_keeps_earlier_timings(bundle, request_, caplog):
    built(bundle)
    timing_cache_path(bundle, "tensorrt").write_bytes(with_digest(b"timings"))
    asked = replace(request_, profile=PROFILES["rtx"])
    result = export_bundle(replace(asked, engine=RTX), bundle)
    assert read_engine_record(bundle, "tensorrt-rtx") == result.engine
    assert "is of the graph that is replaced" not in caplog.text
    engine_paths(bundle, "tensorrt")[0].touch()
    export_bundle(replace(asked, engine=RTX), bundle)
    assert "tensorrt.engine was built from the replaced graph" in caplog.text
    export_bundle(asked, bundle)
    assert "tensorrt-rtx.engine was built from the replaced graph" in caplog.text
    assert not engine_paths(bundle, "tensorrt-rtx")[0].exists()
    assert read_timing_cache(timing_cache_path(bundle, "tensorrt")) == b"timings"


def test_a_gpu_that_the_library_does_not_know_is_told_before_the_export(trt):
    with pytest.raises(ExportError, match=r"cannot build for compute capability 1\.0; known: "):
        find_builder(replace(RTX, compute_capability="1.0"))


@pytest.mark.parametrize("names", [5, [[1]], [{}], "abc"])
def test_a_manifest_whose_exceptions_are_no_names_is_damaged(bundle, names):
    content = json.loads((bundle / "manifest.json").read_text())
    content["provenance"]["single_precision"] = names
    (bundle / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ExportError, match="single_precision is no list of names"):
        build_engine(bundle, RTX)


def test_a_bundle_that_cannot_be_written_is_told_before_the_build(bundle, monkeypatch):
    def refused(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refused)
    with pytest.raises(ExportError, match=r"cannot write to .*bundle: Permission denied"):
        build_engine(bundle, RTX)


def test_the_command_prints_what_it_proved(trt, bundle, capsys):
    flags = ["--library", "tensorrt-rtx", "--compute-capability", "8.9"]
    assert main([str(bundle), *flags]) == 0
    assert "34 CONVOLUTION HALF" in capsys.readouterr().out
    assert main([str(bundle / "nowhere"), *flags]) == 2
    assert "nowhere does not exist" in capsys.readouterr().err


def test_stubs_for_type_checkers_are_no_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", types.ModuleType("tensorrt"))
    with pytest.raises(ExportError, match="tensorrt"):
        load_library("tensorrt")


def test_images_that_fill_the_range_do_not_overflow(packaged, request_, tmp_path):
    white = np.full((*packaged.spec.input_hw, 3), 255, np.uint8)
    result = export_bundle(
        replace(request_, precision="fp16", images=[white, *request_.images]), tmp_path / "bundle"
    )
    assert result.rounding.passed
