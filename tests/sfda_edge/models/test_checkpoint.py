import copy
import pickle

import pytest
import safetensors.torch
import torch
from user_network import build

from sfda_edge.errors import CheckpointError, RunError
from sfda_edge.models import ModelSpec, build_model
from sfda_edge.models.checkpoint import load_model, load_weights, read_spec, save_model
from sfda_edge.models.weights_file import read_weights


class Evil:
    def __reduce__(self):
        return (print, ("this must never be printed",))


def same(first, second):
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_what_is_saved_is_loaded(tmp_path, tiny_model, tiny_spec):
    save_model(tmp_path / "a.safetensors", tiny_model, tiny_spec)
    spec = read_spec(tmp_path / "model.json")
    assert spec == tiny_spec
    assert same(load_model(tmp_path / "a.safetensors", spec), tiny_model)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o444 == 0o444


def test_weights_of_several_names_load_from_a_file_that_holds_one(tmp_path, three_classes):
    spec = ModelSpec("user_network:Shared", three_classes, (32, 64))
    model = build_model(spec)
    safetensors.torch.save_model(model, str(tmp_path / "theirs.safetensors"))
    save_model(tmp_path / "ours.safetensors", model, spec)
    for name in ("theirs", "ours"):
        assert same(load_model(tmp_path / f"{name}.safetensors", spec), model)


PREFIXES = ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."]


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_usual_wrappers_and_prefixes_come_off(tmp_path, tiny_model, tiny_spec, wrapper, prefix):
    state = {prefix + key: value for key, value in tiny_model.state_dict().items()}
    torch.save({wrapper: state, "epoch": 3}, tmp_path / "a.pth")
    assert same(load_model(tmp_path / "a.pth", tiny_spec), tiny_model)


def test_a_prefix_that_the_network_has_itself_stays(tmp_path):
    torch.save({"model.weight": torch.ones(1)}, tmp_path / "a.pth")
    assert list(read_weights(tmp_path / "a.pth", ["model.weight"])) == ["model.weight"]
    assert list(read_weights(tmp_path / "a.pth", ["weight"])) == ["weight"]


def test_another_class_count_is_explained(tmp_path, tiny_spec):
    torch.save(build(5).state_dict(), tmp_path / "a.pth")
    with pytest.raises(CheckpointError) as caught:
        load_model(tmp_path / "a.pth", tiny_spec)
    message = str(caught.value)
    assert "shape (2): 3.weight is (5, 8, 1, 1), the network's is (3, 8, 1, 1)" in message
    assert "--label-space" in message


def test_another_network_is_explained(tmp_path, tiny_spec):
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError) as caught:
        load_model(tmp_path / "a.pth", tiny_spec)
    message = str(caught.value)
    assert "missing (7): 0.weight; 1.weight" in message
    assert "unexpected (1): conv.weight" in message
    assert "another network" in message


def test_pickled_code_is_never_run(tmp_path, tiny_spec, capsys):
    (tmp_path / "a.pth").write_bytes(pickle.dumps({"state_dict": Evil()}))
    torch.save({"state_dict": Evil()}, tmp_path / "b.pth")
    for name in ("a.pth", "b.pth"):
        with pytest.raises(CheckpointError, match=name):
            load_model(tmp_path / name, tiny_spec)
    assert "never be printed" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
@pytest.mark.parametrize("content", [b"", b"\x80", b"not weights" * 50])
def test_damaged_files_are_errors(tmp_path, tiny_spec, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        load_model(tmp_path / name, tiny_spec)


@pytest.mark.parametrize("content", [[1, 2], {"lr": 0.1}, {}])
def test_a_file_without_tensors_is_an_error(tmp_path, tiny_spec, content):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="no state dict"):
        load_model(tmp_path / "a.pth", tiny_spec)


def test_a_missing_file_is_an_error(tmp_path, tiny_spec):
    with pytest.raises(CheckpointError, match="does not exist"):
        load_model(tmp_path / "a.pth", tiny_spec)


def test_weights_of_whole_numbers_are_no_source_model(tmp_path, tiny_model, tiny_spec):
    """Quantised ones have lost their scale; half precision and the counters of batches have not."""
    state = tiny_model.state_dict()
    for dtype in (torch.int8, torch.uint8, torch.int64, torch.bool):
        quantised = {k: v.to(dtype) if k == "0.weight" else v for k, v in state.items()}
        torch.save(quantised, tmp_path / "whole.pt")
        with pytest.raises(CheckpointError, match=r"1 weights are .*, such as 0\.weight"):
            load_weights(copy.deepcopy(tiny_model), tmp_path / "whole.pt", "the network")
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    torch.save(half, tmp_path / "half.pt")
    load_weights(copy.deepcopy(tiny_model), tmp_path / "half.pt", "the network")


def test_torchvisions_auxiliary_head_is_left_out(tmp_path, three_classes):
    from sfda_edge.models.deeplabv3 import DeepLabV3

    state = DeepLabV3(3).state_dict() | {"aux_classifier.4.bias": torch.zeros(3)}
    torch.save(state, tmp_path / "a.pth")
    load_model(tmp_path / "a.pth", ModelSpec("deeplabv3_resnet50", three_classes, (32, 32)))


def test_an_unwritable_folder_is_an_error_and_loses_nothing(tmp_path, tiny_model, tiny_spec):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(RunError, match="cannot write"):
        save_model(blocked / "a.safetensors", tiny_model, tiny_spec)
    assert blocked.read_text() == "in the way"


def test_old_checkpoints_without_batch_counters_load(tmp_path, tiny_model, tiny_spec):
    state = {k: v for k, v in tiny_model.state_dict().items() if "num_batches" not in k}
    torch.save(state, tmp_path / "a.pth")
    assert same(load_model(tmp_path / "a.pth", tiny_spec), tiny_model)


def test_a_full_disk_is_an_error_and_loses_nothing(tmp_path, tiny_model, tiny_spec, full_disk):
    path = tmp_path / "a.safetensors"
    save_model(path, tiny_model, tiny_spec)
    before = path.read_bytes()
    with full_disk(100), pytest.raises(RunError, match="cannot write"):
        save_model(path, tiny_model, tiny_spec)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "model.json"]
