import json
from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

from export.bundle import ExportRequest, export_bundle
from export.deploy import DeployModel
from export.errors import ExportError, ParityError
from export.onnx_graph import export_graph, pooling_matrix
from export.parity import THRESHOLDS, compare
from runtime.backends import open_backend
from runtime.errors import BackendUnavailable
from runtime.manifest import read_manifest
from sfda_edge.class_map import load_class_map
from sfda_edge.evaluate import Predictor
from sfda_edge.label_spaces import LABEL_SPACES
from sfda_edge.models import ModelSpec, build_model


@pytest.fixture
def spec():
    return ModelSpec("lite0_fpn_tiny", LABEL_SPACES["camvid"], (48, 80))


@pytest.fixture
def images():
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (48, 80, 3), np.uint8) for _ in range(3)]


def make(spec, images, **changes):
    torch.manual_seed(0)
    return replace(ExportRequest(build_model(spec).eval(), spec, images), **changes)


@pytest.mark.parametrize(("size", "pooled"), [(12, 5), (9, 9), (7, 3), (192, 128), (5, 8)])
def test_the_pooling_matrix_is_torchs_adaptive_pooling(size, pooled):
    x = torch.randn(1, 1, size, 1)
    expected = functional.adaptive_avg_pool2d(x, (pooled, 1))[0, 0, :, 0]
    found = torch.from_numpy(pooling_matrix(size, pooled)) @ x[0, 0, :, 0]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("pooled", [(4, 5), (3, 3), (8, 10), (1, 1)])
def test_pooling_is_one_node_or_two_products(pooled):
    class Pool(nn.Module):
        def forward(self, x):
            return functional.adaptive_avg_pool2d(x, pooled)

    example = torch.randn(1, 2, 8, 10)
    graph = export_graph(Pool(), example)
    kinds = Counter(node.op_type for node in graph.graph.node)
    assert not {"Gather", "Add"} & set(kinds)
    import onnxruntime

    session = onnxruntime.InferenceSession(graph.SerializeToString())
    found = session.run(None, {"image": example.numpy()})[0]
    np.testing.assert_allclose(found, Pool()(example).numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_bundle_answers_as_the_model_does(tmp_path, spec, images, precision):
    request = make(spec, images, precision=precision, provenance={"method": "bn"})
    result = export_bundle(request, tmp_path / "bundle")
    assert result.parity.label_agreement >= THRESHOLDS[precision]
    manifest = read_manifest(tmp_path / "bundle")
    assert manifest.label_space == spec.answer_space
    assert manifest.precision == precision
    predictor = Predictor(request.model, spec, torch.device("cpu"))
    with open_backend("onnxruntime", tmp_path / "bundle", manifest) as backend:
        found = np.stack([backend.infer(image) for image in images])
    expected = np.stack([predictor.label_map(image) for image in images])
    assert (found == expected).mean() >= THRESHOLDS[precision]
    card = (tmp_path / "bundle" / "card.md").read_text()
    assert "adapted without labels, by method bn" in card


def test_fp16_really_computes_in_fp16(tmp_path, spec, images):
    export_bundle(make(spec, images, precision="fp16"), tmp_path / "bundle")
    graph = onnx.load(tmp_path / "bundle" / "model.onnx").graph
    weights = {t.name: t.data_type for t in graph.initializer}
    kernels = [node.input[1] for node in graph.node if node.op_type == "Conv"]
    assert kernels
    assert {weights[name] for name in kernels} == {onnx.TensorProto.FLOAT16}
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8


def test_a_lone_graph_says_what_it_is(tmp_path, spec, images):
    export_bundle(make(spec, images), tmp_path / "bundle")
    model = onnx.load(tmp_path / "bundle" / "model.onnx")
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert tuple(json.loads(facts["class_names"])) == spec.label_space.names
    assert model.ir_version <= 10


def test_the_class_map_is_in_the_graph(tmp_path):
    space = LABEL_SPACES["cityscapes20"]
    class_map = load_class_map("cityscapes-camvid", space)
    spec = ModelSpec("lite0_fpn_tiny", space, (32, 32), class_map=class_map)
    torch.manual_seed(0)
    model = build_model(spec).eval()
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    with torch.inference_mode():
        found = DeployModel(model, spec).eval()(torch.from_numpy(image)[None])[0].numpy()
    expected = Predictor(model, spec, torch.device("cpu")).label_map(image)
    np.testing.assert_array_equal(found, expected)
    assert found.max() < 11


def test_large_logits_do_not_overflow_the_class_map():
    space = LABEL_SPACES["cityscapes"]
    class_map = load_class_map("cityscapes-camvid", space)
    spec = ModelSpec("x", space, (1, 1), class_map=class_map)
    logits = torch.zeros(1, 19, 1, 1)
    logits[0, 13] = 500.0
    scores = DeployModel(nn.Identity(), spec)._scores(logits)
    assert torch.isfinite(scores).all()
    assert scores.argmax(1).item() == LABEL_SPACES["camvid"].names.index("car")


def test_a_graph_that_answers_differently_is_not_shipped(tmp_path, spec, images, monkeypatch):
    request = make(spec, images)
    export_bundle(request, tmp_path / "bundle")
    before = read_manifest(tmp_path / "bundle")
    # As if the exporter had written another network.
    other = DeployModel(build_model(spec).eval(), spec).eval()
    monkeypatch.setattr("export.bundle._graph", lambda *_: export_graph(other, torch.zeros(
        (1, 48, 80, 3), dtype=torch.uint8)))  # fmt: skip
    with pytest.raises(ParityError, match="does not answer as the model does"):
        export_bundle(request, tmp_path / "bundle")
    assert read_manifest(tmp_path / "bundle") == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("manifest", [None, '{"name": "a web app"}', '{"schema": 1}', "[]"])
def test_a_folder_that_is_no_bundle_is_left_alone(tmp_path, spec, images, manifest):
    folder = tmp_path / "app"
    folder.mkdir()
    if manifest is None:
        (folder / "a.jpg").touch()
    else:
        (folder / "manifest.json").write_text(manifest)
    before = sorted(folder.iterdir())
    with pytest.raises(ExportError, match="is not a bundle"):
        export_bundle(make(spec, images), folder)
    assert sorted(folder.iterdir()) == before


def test_a_bundle_that_holds_a_users_file_is_left_alone(tmp_path, spec, images):
    export_bundle(make(spec, images), tmp_path / "bundle")
    (tmp_path / "bundle" / "notes.txt").touch()
    with pytest.raises(ExportError, match=r"it holds notes\.txt"):
        export_bundle(make(spec, images), tmp_path / "bundle")


def test_a_network_that_torch_cannot_export_says_why(spec, images, tmp_path):
    class Undecided(nn.Module):
        def forward(self, x):
            return x[:, :1] if x.sum() > 0 else x

    with pytest.raises(ExportError, match="torch cannot export this network"):
        export_bundle(replace(make(spec, images), model=Undecided()), tmp_path / "bundle")


def test_parity_counts_pixels_and_names_the_worst_class(three_classes):
    reference = np.array([[0, 0, 1, 1], [0, 0, 1, 2]], np.uint8)
    candidate = np.array([[0, 0, 1, 1], [0, 0, 1, 1]], np.uint8)
    report = compare(
        lambda _: reference, lambda _: candidate, [np.zeros((2, 4, 3))], three_classes, 0.9
    )
    assert report.label_agreement == pytest.approx(7 / 8)
    assert (report.lowest_class, report.lowest_class_iou) == ("car", 0.0)
    assert not report.passed


def test_another_size_than_the_manifests_is_refused(tmp_path, spec, images):
    export_bundle(make(spec, images), tmp_path / "bundle")
    wrong = replace(read_manifest(tmp_path / "bundle"), input_hw=(96, 160))
    with pytest.raises(BackendUnavailable, match=r"the manifest says uint8 \[1, 96, 160, 3\]"):
        open_backend("onnxruntime", tmp_path / "bundle", wrong)


def test_espnetv2s_graph_is_small(tmp_path, three_classes):
    """espnetv2.md: at most 400 nodes at 512x256; the naive export has over 1,100."""
    spec = ModelSpec("espnetv2_s0.5", LABEL_SPACES["cityscapes20"], (256, 512))
    torch.manual_seed(0)
    image = np.random.default_rng(0).integers(0, 256, (256, 512, 3), np.uint8)
    request = ExportRequest(build_model(spec).eval(), spec, [image])
    assert export_bundle(request, tmp_path / "bundle").num_nodes <= 400
