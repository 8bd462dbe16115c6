import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfda_edge.adapt import adapt, begin
from sfda_edge.guard import CollapseError, Guard, Verdict
from sfda_edge.methods.bn import BatchNormRecipe, BatchNormStatistics
from sfda_edge.teacher import Teacher, View, view_size
from sfda_edge.views import expected_miou, find_views


def one_hot(labels, num_classes):
    return torch.nn.functional.one_hot(labels, num_classes).permute(0, 3, 1, 2).float()


@given(st.integers(0, 1000))
def test_against_certain_answers_it_is_the_miou_of_a_loop(seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (2, 5, 6), generator=generator)
    reference = torch.randint(0, 3, (2, 5, 6), generator=generator)
    ious = []
    for k in range(4):
        mine, theirs = labels == k, reference == k
        if theirs.any():
            ious.append(int((mine & theirs).sum()) / int((mine | theirs).sum()))
    found = expected_miou(labels, one_hot(reference, 4))
    assert found == pytest.approx(sum(ious) / len(ious))


def test_it_is_what_truths_drawn_from_the_consensus_give_on_average():
    """Against scikit-style counting over many drawn truths."""
    torch.manual_seed(0)
    consensus = (2 * torch.randn(2, 3, 20, 30)).softmax(1)
    labels = consensus.argmax(1)
    drawn = torch.distributions.Categorical(probs=consensus.permute(0, 2, 3, 1))
    mious = [expected_miou(labels, one_hot(drawn.sample(), 3)) for _ in range(50)]
    assert expected_miou(labels, consensus) == pytest.approx(sum(mious) / 50, abs=0.005)


def test_a_model_agrees_with_itself():
    labels = torch.randint(0, 5, (3, 8, 8))
    assert expected_miou(labels, one_hot(labels, 5)) == pytest.approx(1.0)


def test_a_class_too_rare_to_say_anything_does_not_count():
    reference = torch.zeros(1, 100, 100, dtype=torch.int64)
    reference[0, 0, 0] = 1
    found = expected_miou(torch.zeros_like(reference), one_hot(reference, 2))
    assert found == pytest.approx(1 - 1e-4)


def test_a_teacher_of_one_plain_view_is_the_network(make_task):
    task = make_task()
    teacher = Teacher(task, task.model, [View(task.spec.input_hw, 0.0)])
    with torch.no_grad():
        logits = task.model(task.inputs(task.target.images([2, 5])))
    torch.testing.assert_close(
        teacher.probabilities([2, 5], task.spec.input_hw), task.probabilities(logits)
    )


def test_a_mirrored_view_is_mirrored_back(make_task):
    task = make_task()
    with torch.no_grad():
        logits = task.model(task.inputs(task.target.images([3])).flip(3))
    teacher = Teacher(task, task.model, [View(task.spec.input_hw, 0.0, mirrored=True)])
    torch.testing.assert_close(
        teacher.probabilities([3], task.spec.input_hw), task.probabilities(logits).flip(3)
    )


def test_a_teacher_averages_its_views(make_task):
    task = make_task()
    views = [View((32, 64), 0.0), View((64, 128), 0.5, mirrored=True)]
    both = Teacher(task, task.model, views).probabilities([0, 1], (16, 32))
    parts = [Teacher(task, task.model, [view]).probabilities([0, 1], (16, 32)) for view in views]
    torch.testing.assert_close(both, (parts[0] + parts[1]) / 2)
    torch.testing.assert_close(both.sum(1), torch.ones(2, 16, 32))


def test_views_keep_the_networks_stride(make_task):
    task = make_task()
    assert view_size(task, 1.0) == (32, 64)
    assert view_size(task, 2.0) == (64, 128)
    assert all(side % 16 == 0 for side in view_size(task, 1.7))


def test_a_view_that_contradicts_the_others_is_left_out(make_task, monkeypatch):
    task = make_task()

    def seen(_task, views, probe):
        """Every view sees the same stripes but the largest, which sees them upside down."""
        stripes = torch.zeros(len(probe), 3, *task.half_hw)
        for row in range(stripes.shape[2]):
            stripes[:, row % 3, row] = 1
        wrong = max(views, key=lambda view: view.size_hw)
        alike = len({view.size_hw for view in views}) == 1
        return {v: stripes if alike or v != wrong else stripes.roll(1, 1) for v in views}

    monkeypatch.setattr("sfda_edge.views._seen", seen)
    views = find_views(task)
    sizes = {view.size_hw for view in views.kept}
    assert (64, 128) not in sizes
    assert task.spec.input_hw in sizes
    assert [view.mirrored for view in views.kept] == [False, True]
    assert views.by_size[View((64, 128), views.kept[0].target_share)] < 0.1


@pytest.mark.parametrize(("second", "alone"), [(0.95, False), (0.5, True)])
def test_a_second_view_far_behind_the_best_gives_way_to_its_mirror(
    second, alone, make_task, monkeypatch
):
    def ranked(seen):
        return {view: (1.0, second, 0.1, 0.1)[number] for number, view in enumerate(seen)}

    monkeypatch.setattr("sfda_edge.views._agreements", ranked)
    first, other = find_views(make_task()).kept
    assert (first.size_hw == other.size_hw) is alone
    assert other.mirrored


def test_probing_changes_nothing(make_task, tiny_model):
    task = make_task()
    Guard(task, find_views(task))
    for key, value in tiny_model.state_dict().items():
        assert torch.equal(task.model.state_dict()[key], value), key


@pytest.fixture
def guard(make_task):
    task = make_task()
    return Guard(task, find_views(task))


def verdict(agreement_, shares=(0.4, 0.3, 0.3), confidence=0.8):
    return Verdict(agreement_, shares, confidence)


def test_the_best_checkpoint_is_kept_and_given_back(guard, make_task, monkeypatch):
    model = make_task().model
    scores = iter([guard.source.agreement + 0.02, guard.source.agreement + 0.01])
    shares = guard.source.class_shares
    monkeypatch.setattr(guard, "judge", lambda _model: verdict(next(scores), shares))
    with torch.no_grad():
        model[0].weight.fill_(2.0)
        guard.consider(model, 10)
        model[0].weight.fill_(3.0)
        guard.consider(model, 20)
    assert guard.best_step == 10
    guard.give_best(model)
    assert (model[0].weight == 2.0).all()


def test_when_nothing_is_better_the_source_is_returned(guard, make_task, tiny_model, monkeypatch):
    model = make_task().model
    source = guard.source
    monkeypatch.setattr(
        guard, "judge", lambda _model: verdict(source.agreement, source.class_shares)
    )
    with torch.no_grad():
        model[0].weight.zero_()
    guard.consider(model, 5)
    assert guard.best_step is None
    guard.give_best(model)
    assert torch.equal(model[0].weight, tiny_model[0].weight)


def test_one_class_everywhere_is_a_collapse(guard, make_task):
    model = make_task().model
    guard.source = verdict(0.5)
    with torch.no_grad():
        model[3].weight.zero_()
        model[3].bias.copy_(torch.tensor([9.0, 0.0, 0.0]))
    with pytest.raises(CollapseError, match=r"collapsed to 1\.0 effective classes"):
        guard.consider(model, 1)
    with torch.no_grad():
        model[3].bias.fill_(float("nan"))
    with pytest.raises(CollapseError, match="no longer numbers"):
        guard.consider(model, 2)


def test_a_collapsing_run_stops_early_and_returns_the_best(
    make_task, tiny_model, tmp_path, monkeypatch
):
    class Destroyer(BatchNormStatistics):
        def step(self, images, indices, step):
            with torch.no_grad():
                self.model[3].weight.zero_()
                self.model[3].bias.copy_(torch.tensor([9.0, 0.0, 0.0]))
            return {"loss": 0.0}

    run = begin(make_task(), Destroyer, BatchNormRecipe(num_images=160, batch_size=4))
    # An untrained network sees few classes to begin with.
    monkeypatch.setattr("sfda_edge.guard.COLLAPSED_BELOW", 0.97)
    adapt(run, tmp_path)
    assert "collapsed" in run.stopped
    assert run.next_step == 10
    assert torch.equal(run.method.model[3].weight, tiny_model[3].weight)


def test_the_guards_memory_survives_a_restart(guard, make_task):
    other = Guard(make_task(), find_views(make_task()))
    other.best_step, other.best = 30, verdict(0.9)
    guard.restore(other.state())
    assert guard.best_step == 30
    assert guard.best == verdict(0.9)
