import copy
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfda_edge.adapt import Adaptation, adapt, batch_indices, checkpoint_path
from sfda_edge.errors import RunError
from sfda_edge.methods.bn import BatchNormRecipe, BatchNormStatistics

CPU = torch.device("cpu")
RECIPE = BatchNormRecipe(num_images=160, batch_size=4)


@given(st.integers(1, 30), st.integers(1, 9), st.integers(0, 5))
def test_every_epoch_shows_every_image_once(num_images, batch_size, seed):
    steps = 3 * num_images  # so that steps x batch_size is a multiple of num_images
    seen = torch.cat([batch_indices(num_images, batch_size, seed, s) for s in range(steps)])
    for epoch in seen.view(-1, num_images):
        assert sorted(epoch.tolist()) == list(range(num_images))


def test_another_seed_is_another_order():
    assert batch_indices(50, 50, 0, 0).tolist() != batch_indices(50, 50, 1, 0).tolist()
    assert batch_indices(50, 50, 0, 0).tolist() != batch_indices(50, 50, 0, 1).tolist()


@pytest.fixture
def images():
    return torch.randint(0, 256, (10, 3, 24, 40), dtype=torch.uint8)


class KilledError(Exception):
    pass


def killed_after(count):
    def progress(steps):
        for index, step in enumerate(steps, 1):
            yield step
            if index == count:
                raise KilledError

    return progress


def test_a_killed_run_resumes_to_the_same_weights(tmp_path, tiny_model, tiny_spec, images):
    def start(name):
        model = copy.deepcopy(tiny_model)
        (tmp_path / name).mkdir(exist_ok=True)
        return Adaptation(BatchNormStatistics(model, RECIPE), tiny_spec, CPU, seed=3)

    whole = start("whole")
    adapt(whole, images, tmp_path / "whole")
    first = start("killed")
    with pytest.raises(KilledError):
        adapt(first, images, tmp_path / "killed", killed_after(27))
    second = start("killed")
    second.resume(checkpoint_path(tmp_path / "killed"))
    assert second.next_step == 20
    adapt(second, images, tmp_path / "killed")
    expected, found = whole.method.model.state_dict(), second.method.model.state_dict()
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_each_step_is_logged(tmp_path, tiny_model, tiny_spec, images):
    recipe = BatchNormRecipe(num_images=12, batch_size=4)
    adapt(Adaptation(BatchNormStatistics(tiny_model, recipe), tiny_spec, CPU, 0), images, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert all(line["shift"] > 0 for line in lines)


def test_a_foreign_checkpoint_is_an_error(tmp_path, tiny_model, tiny_spec):
    run = Adaptation(BatchNormStatistics(tiny_model, RECIPE), tiny_spec, CPU, 0)
    with pytest.raises(RunError, match="nothing to resume"):
        run.resume(tmp_path / "last.pt")
    torch.save({"model": {}, "method": {}, "next_step": 1}, tmp_path / "last.pt")
    with pytest.raises(RunError, match="not a checkpoint of this run"):
        run.resume(tmp_path / "last.pt")
