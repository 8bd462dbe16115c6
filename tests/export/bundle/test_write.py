import copy
import json
import re
from dataclasses import replace
from functools import partial

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from export.bundle.golden import drawn_frame
from export.bundle.write import export_bundle
from export.errors import ExportError, ParityError
from export.gate.layer_diff import first_diverging
from export.graph.deploy import DeployModel, Outputs
from export.graph.ort_session import median_ms
from export.request import ExportRequest
from export.thresholds import Thresholds
from runtime.backends import open_backend
from runtime.bundle.labels import LabelSpace
from runtime.bundle.manifest import read_manifest
from runtime.errors import BackendUnavailable
from runtime.images import read_image
from sfda_edge.errors import RecipeError
from sfda_edge.evaluation import Predictor
from sfda_edge.models import ModelSpec, build_model
from sfda_edge.recipes.recipe import load_recipe


def thresholds(*changes):
    return load_recipe("export", Thresholds, changes)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_bundle_answers_as_the_model_does(tmp_path, request_, frames, precision):
    of_its_run = {"num_images": 3, "before": 12.5, "model": 25.0}
    at_home = {"num_images": 2, "before": 71.5, "model": 60.25}
    provenance = {"method": "bn", "run_scores": of_its_run, "home_scores": at_home}
    asked = replace(request_, precision=precision, provenance=provenance)
    result = export_bundle(asked, tmp_path / "bundle")
    assert result.parity.passed
    manifest = read_manifest(tmp_path / "bundle")
    assert manifest.label_space == asked.spec.output_space
    assert manifest.precision == precision
    predictor = Predictor(asked.model, asked.spec, torch.device("cpu"))
    with open_backend("onnxruntime", tmp_path / "bundle", manifest) as backend:
        found = np.stack([backend.infer(image) for image in frames])
    expected = np.stack([predictor.label_map(image) for image in frames])
    assert (found == expected).mean() >= asked.thresholds.gate(precision).label_agreement
    assert len(np.unique(expected)) > 8
    card = (tmp_path / "bundle" / "card.md").read_text()
    assert "adapted without labels, by method bn" in card
    assert "target images" not in card, "nobody said which images these are"
    assert "mIoU, 3 labelled images | 12.50 | 25.00 | – |" in card
    assert "mIoU, 2 labelled images of the source domain | 71.50 | 60.25 | – |" in card
    assert "home_scores" not in card
    assert "Nobody gave" not in card
    facts = manifest.provenance
    assert ("parity_rounded" in facts) == (precision == "fp16")
    assert ("rounded to half precision" in card) == (precision == "fp16")


@pytest.mark.slow
def test_every_answer_asked_for_is_in_the_bundle(tmp_path, request_, frames):
    answers = Outputs("coarse", confidence=True, health=True)
    result = export_bundle(replace(request_, outputs=answers), tmp_path / "bundle")
    assert result.coarse_cost is not None
    assert 0.8 < result.coarse_cost.label_agreement < 1
    assert result.parity.confidence_drift < 0.001
    manifest = read_manifest(tmp_path / "bundle")
    assert manifest.outputs == ("label_map", "confidence", "health")
    with open_backend("onnxruntime", tmp_path / "bundle", manifest) as backend:
        found = backend.outputs(frames[0])
        np.testing.assert_array_equal(found["label_map"], backend.infer(frames[0]))
    assert found["confidence"].dtype == np.uint8
    assert found["health"].shape == (sum(manifest.health_layout.values()),)
    np.testing.assert_allclose(found["health"][2:13].sum(), 1, atol=1e-5)
    assert "Output `confidence`" in (tmp_path / "bundle" / "card.md").read_text()


def test_a_dynamic_batch_is_streamed_image_by_image(tmp_path, request_, frames):
    export_bundle(replace(request_, dynamic_batch=True), tmp_path / "bundle")
    manifest = read_manifest(tmp_path / "bundle")
    with open_backend("onnxruntime", tmp_path / "bundle", manifest) as backend:
        alone = [backend.infer(frame) for frame in frames[:3]]
        together = [found["label_map"] for found in backend.batch_outputs(frames[:3])]
    assert alone[0].shape == manifest.input_hw
    assert (alone[0] != alone[1]).any(), "the order can be seen"
    np.testing.assert_array_equal(together, alone)
    assert "uint8 RGB, (N, 96, 192, 3)" in (tmp_path / "bundle" / "card.md").read_text()


@pytest.mark.slow
def test_a_network_that_mixes_the_images_of_a_batch_has_no_dynamic_one(tmp_path, request_):
    class Comparing(nn.Module):
        def forward(self, images):
            return network(images - images.mean())

    torch.manual_seed(0)
    classes = request_.spec.label_space.num_classes
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, classes, 1))
    mixing = replace(request_, model=Comparing().eval())
    export_bundle(mixing, tmp_path / "bundle")
    with pytest.raises(ParityError, match=r"in a batch of 3 images .* without --dynamic-batch"):
        export_bundle(replace(mixing, dynamic_batch=True), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_bundle_without_pictures_holds_no_frames(tmp_path, request_):
    export_bundle(replace(request_, pictures=False), tmp_path / "bundle")
    names = {path.name for path in (tmp_path / "bundle").iterdir()}
    assert names == {"model.onnx", "card.md", "manifest.json", "golden.png", "golden-labels.png"}
    golden = read_image(tmp_path / "bundle" / "golden.png")
    np.testing.assert_array_equal(golden, drawn_frame(request_.spec.input_hw))
    card = (tmp_path / "bundle" / "card.md").read_text()
    assert "--no-pictures" in card
    assert "card.jpg" not in card
    assert read_manifest(tmp_path / "bundle").model_file == "model.onnx"


def test_a_lone_graph_says_what_it_is(tmp_path, request_):
    export_bundle(request_, tmp_path / "bundle")
    model = onnx.load(tmp_path / "bundle" / "model.onnx")
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert tuple(json.loads(facts["class_names"])) == request_.spec.label_space.names
    assert facts["output"] == "label_map"


def test_labels_show_what_a_candidate_costs(tmp_path, request_, frames):
    predictor = Predictor(request_.model, request_.spec, torch.device("cpu"))
    labels = predictor.label_map(frames[0])  # the model's own: it scores 100, another less
    asked = replace(request_, precision="fp16", validation=[(frames[0], labels)])
    result = export_bundle(asked, tmp_path / "bundle")
    assert -0.5 <= result.parity.miou_change < 0
    card = (tmp_path / "bundle" / "card.md").read_text()
    assert f"1 labelled images | – | 100.00 | {result.scores.shipped:.2f} |" in card
    strict = replace(asked, thresholds=thresholds("fp16.miou_loss=0.0"))
    with pytest.raises(
        ParityError, match=r"mIoU dropped 0\.\d+ points; at most 0 allowed"
    ) as caught:
        export_bundle(strict, tmp_path / "bundle")
    assert re.search(
        r"the first layer to fail it is \S+/\S+\. Nothing was written", str(caught.value)
    )


def test_what_coarse_labels_cost_is_said_and_is_no_fault_of_the_graph(tmp_path, request_, frames):
    predictor = Predictor(request_.model, request_.spec, torch.device("cpu"))
    labelled = [(frame, predictor.label_map(frame)) for frame in frames[:2]]
    asked = replace(request_, outputs=Outputs("coarse"), validation=labelled)
    result = export_bundle(asked, tmp_path / "bundle")
    assert result.scores.model == 100
    assert result.scores.asked == pytest.approx(result.scores.shipped, abs=0.1)
    assert result.scores.asked < 99
    assert result.parity.miou_change == pytest.approx(0, abs=0.1)
    assert f"{result.scores.asked:.2f} with coarse labels" in result.scores.line()


def test_int8_is_calibrated_searched_and_timed(
    tmp_path, request_, frames, calibration, monkeypatch
):
    timed = []

    def times_of(graphs, images):
        timed.extend({node.op_type for node in graph.graph.node} for graph in graphs)
        return median_ms(graphs, images)

    monkeypatch.setattr("export.precision.int8.median_ms", times_of)
    asked = replace(request_, precision="int8", calibration=calibration)
    result = export_bundle(asked, tmp_path / "bundle")
    assert result.parity.label_agreement >= 0.985
    assert result.int8.num_quantised > len(result.int8.kept)
    times_ms = result.int8.int8_ms, result.int8.fp16_ms, result.int8.fp32_ms
    assert min(times_ms) > 0
    assert ["QuantizeLinear" in operators for operators in timed] == [True, False, False]
    graph = onnx.load(tmp_path / "bundle" / "model.onnx").graph
    assert "QuantizeLinear" in {node.op_type for node in graph.node}
    card = (tmp_path / "bundle" / "card.md").read_text()
    assert "compute in int8, calibrated by" in card
    assert f"a frame takes {times_ms[0]:.1f} ms in int8" in card
    with pytest.raises(ExportError, match="needs 8 different target frames"):
        export_bundle(replace(asked, calibration=frames), tmp_path / "bundle")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_graph_that_answers_differently_is_not_shipped(
    tmp_path, request_, frames, monkeypatch, graph, precision, calibration
):
    export_bundle(request_, tmp_path / "bundle")
    before = read_manifest(tmp_path / "bundle")
    request_ = replace(request_, precision=precision, calibration=calibration)
    # As if the exporter had written one layer in a wrong way.
    wrong = onnx.ModelProto()
    wrong.CopyFrom(graph)
    layer = next(node for node in wrong.graph.node if node.name == "encoder._blocks.3._bn2/Conv")
    weights = next(tensor for tensor in wrong.graph.initializer if tensor.name == layer.input[1])
    weights.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weights), weights.name))
    monkeypatch.setattr("export.precision.pipeline.export_graph", lambda *_args, **_settings: wrong)
    message = r"class \S+: IoU 0\.\d+ .* that differs is encoder\._blocks\.3\._bn2"
    with pytest.raises(ParityError, match=message):
        export_bundle(request_, tmp_path / "bundle")
    assert read_manifest(tmp_path / "bundle") == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_model_that_answers_with_nan_is_not_shipped(tmp_path, request_):
    broken = copy.deepcopy(request_.model)
    with torch.no_grad():
        broken.decoder.head.bias[0] = np.nan
    with pytest.raises(ExportError, match="returns NaN or infinite values for 4 of 4 frames"):
        export_bundle(replace(request_, model=broken), tmp_path / "bundle")


def test_coarse_labels_are_scored_against_labels_at_full_size(tmp_path, request_, frames):
    predictor = Predictor(request_.model, request_.spec, torch.device("cpu"))
    validation = [(frames[0], predictor.label_map(frames[0]))]  # at full size the model scores 100
    recipe = thresholds("fp32.miou_loss=100")
    asked = replace(request_, outputs=Outputs("coarse"), validation=validation, thresholds=recipe)
    scores = export_bundle(asked, tmp_path / "bundle").scores
    assert scores.model == 100
    assert 50 < scores.shipped < 99


def test_no_layer_of_a_right_graph_diverges(request_, graph, frames):
    deploy = DeployModel(request_.model, request_.spec).eval()
    run = partial(deploy, torch.from_numpy(frames[0])[None])
    assert first_diverging(graph, request_.model, run, frames[0]) is None
    other = build_model(request_.spec).eval()
    run = partial(DeployModel(other, request_.spec).eval(), torch.from_numpy(frames[0])[None])
    assert first_diverging(graph, other, run, frames[0]) == "encoder._bn0"


def test_a_half_precision_that_fails_names_the_layer(tmp_path, request_):
    recipe = thresholds("fp16.label_agreement=1.0")
    asked = replace(request_, precision="fp16", thresholds=recipe)
    with pytest.raises(ParityError, match=r"the first layer to fail it is \S+/\S+"):
        export_bundle(asked, tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("manifest", [None, '{"name": "a web app"}', '{"schema": 2}', "[]"])
def test_a_folder_that_is_no_bundle_is_left_alone(tmp_path, request_, manifest):
    folder = tmp_path / "app"
    folder.mkdir()
    if manifest is None:
        (folder / "a.jpg").touch()
    else:
        (folder / "manifest.json").write_text(manifest)
    before = sorted(folder.iterdir())
    with pytest.raises(ExportError, match="is not a bundle"):
        export_bundle(request_, folder)
    assert sorted(folder.iterdir()) == before


def test_a_bundle_that_holds_a_users_file_is_left_alone(tmp_path, request_):
    export_bundle(request_, tmp_path / "bundle")
    (tmp_path / "bundle" / "notes.txt").touch()
    with pytest.raises(ExportError, match=r"it holds notes\.txt"):
        export_bundle(request_, tmp_path / "bundle")


def test_a_network_that_torch_cannot_export_says_why(request_, tmp_path):
    class Undecided(nn.Module):
        def forward(self, x):
            return x[:, :1] if x.sum() > 0 else x

    with pytest.raises(ExportError, match="torch cannot export this network"):
        export_bundle(replace(request_, model=Undecided()), tmp_path / "bundle")


@pytest.mark.parametrize("count", [2, 255])
def test_as_many_classes_as_a_byte_names_are_exported(tmp_path, count):
    spec, images = many_classes(count)
    request = ExportRequest(model=build_model(spec).eval(), spec=spec, images=images)
    result = export_bundle(request, tmp_path / "bundle")
    assert result.parity.label_agreement > 0.99


def many_classes(count):
    names = tuple(f"class {index}" for index in range(count))
    space = LabelSpace(names, tuple((i % 256, i // 256, 7) for i in range(count)), 255)
    images = [np.random.default_rng(0).integers(0, 256, (33, 57, 3), np.uint8)]  # odd sizes
    torch.manual_seed(0)
    return ModelSpec("lite0_fpn_tiny", space, (33, 57)), images


def test_another_size_than_the_manifests_is_refused(tmp_path, request_):
    export_bundle(request_, tmp_path / "bundle")
    wrong = replace(read_manifest(tmp_path / "bundle"), input_hw=(96, 160))
    with pytest.raises(BackendUnavailable, match=r"the manifest has uint8 \[1, 96, 160, 3\]"):
        open_backend("onnxruntime", tmp_path / "bundle", wrong)


def test_an_output_that_the_graph_lacks_is_named(tmp_path, request_):
    export_bundle(request_, tmp_path / "bundle")
    wrong = replace(read_manifest(tmp_path / "bundle"), outputs=("label_map", "confidence"))
    with pytest.raises(BackendUnavailable, match="has no output 'confidence'"):
        open_backend("onnxruntime", tmp_path / "bundle", wrong)


def test_a_manifest_that_names_other_classes_than_the_graph_is_refused(tmp_path, request_):
    export_bundle(request_, tmp_path / "bundle")
    manifest = read_manifest(tmp_path / "bundle")
    space = manifest.label_space
    swapped = replace(space, names=(*space.names[1::-1], *space.names[2:]))
    wrong = replace(manifest, label_space=swapped, precision="int8")
    with pytest.raises(BackendUnavailable, match="differ in class_names, precision"):
        open_backend("onnxruntime", tmp_path / "bundle", wrong)


def test_the_recipe_is_checked():
    assert load_recipe("export", Thresholds) == Thresholds()
    with pytest.raises(RecipeError, match=r"must be in \[0, 1\]"):
        load_recipe("export", Thresholds, ("fp16.class_iou=2",))
    with pytest.raises(RecipeError, match="calibration_images must be at least 8, got 4"):
        load_recipe("export", Thresholds, ("calibration_images=4",))
    for value in ("nan", "inf", "-1"):
        with pytest.raises(RecipeError, match=r"fp16\.health_drift must be\b|must be a finite"):
            load_recipe("export", Thresholds, (f"fp16.health_drift={value}",))
    with pytest.raises(RecipeError, match="qat_steps must not be below 0, got -1"):
        load_recipe("export", Thresholds, ("qat_steps=-1",))
