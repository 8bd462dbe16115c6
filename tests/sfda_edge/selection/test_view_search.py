import itertools
import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfda_edge.adaptation.begin import begin
from sfda_edge.errors import RunError
from sfda_edge.methods import METHODS, load_method_recipe
from sfda_edge.selection.checkpoint_selection import CheckpointSelection
from sfda_edge.selection.config import SelectionConfig
from sfda_edge.selection.expected_score import ExpectedScore, expected_score, frequent_classes
from sfda_edge.selection.probe import Predictions, Probe, ranked_views
from sfda_edge.selection.share_search import compare_shares, share_scores
from sfda_edge.selection.test_time_ensemble import TestTimeEnsemble, View, view_sizes
from sfda_edge.selection.view_search import class_agreement, search_views, size_scores


def judged(labels, truth):
    return expected_score(labels, truth, frequent_classes(truth, 5e-4)).miou


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
    found = judged(labels, one_hot(reference, 4))
    assert found == pytest.approx(sum(ious) / len(ious))


def test_it_is_what_truths_drawn_from_the_consensus_give_on_average():
    """Against scikit-style counting over many drawn truths."""
    torch.manual_seed(0)
    consensus = (2 * torch.randn(2, 3, 20, 30)).softmax(1)
    labels = consensus.argmax(1)
    drawn = torch.distributions.Categorical(probs=consensus.permute(0, 2, 3, 1))
    mious = [judged(labels, one_hot(drawn.sample(), 3)) for _ in range(50)]
    assert judged(labels, consensus) == pytest.approx(sum(mious) / 50, abs=0.005)


def test_a_model_agrees_with_itself():
    labels = torch.randint(0, 5, (3, 8, 8))
    assert judged(labels, one_hot(labels, 5)) == pytest.approx(1.0)


def test_a_class_too_rare_to_say_anything_does_not_count():
    reference = torch.zeros(1, 100, 100, dtype=torch.int64)
    reference[0, 0, 0] = 1
    found = judged(torch.zeros_like(reference), one_hot(reference, 2))
    assert found == pytest.approx(1 - 1e-4)


def test_a_ensemble_of_one_plain_view_is_the_network(make_task):
    task = make_task()
    ensemble = TestTimeEnsemble(task, task.model, [View(task.spec.input_hw, 0.0)])
    with torch.no_grad():
        logits = task.model(task.inputs(task.target.images([2, 5])))
    torch.testing.assert_close(
        ensemble.probabilities([2, 5], task.spec.input_hw), task.probabilities(logits)
    )


def test_a_mirrored_view_is_mirrored_back(make_task):
    task = make_task()
    with torch.no_grad():
        logits = task.model(task.inputs(task.target.images([3])).flip(3))
    ensemble = TestTimeEnsemble(task, task.model, [View(task.spec.input_hw, 0.0, mirrored=True)])
    torch.testing.assert_close(
        ensemble.probabilities([3], task.spec.input_hw), task.probabilities(logits).flip(3)
    )


def test_a_ensemble_averages_its_views(make_task):
    task = make_task()
    views = [View((32, 64), 0.0), View((64, 128), 0.5, mirrored=True)]
    both = TestTimeEnsemble(task, task.model, views).probabilities([0, 1], (16, 32))
    parts = [
        TestTimeEnsemble(task, task.model, [view]).probabilities([0, 1], (16, 32)) for view in views
    ]
    torch.testing.assert_close(both, (parts[0] + parts[1]) / 2)
    torch.testing.assert_close(both.sum(1), torch.ones(2, 16, 32))


def test_a_network_that_changes_its_input_sees_each_view_as_it_is(make_task):
    task = make_task(count=3)
    view = View(task.spec.input_hw, 0.0)
    expected = Probe(task, (0, 1, 2)).in_view(view)
    selected = CheckpointSelection(task, search_views(task)).source

    def spoil(_module, inputs, _output):
        inputs[0].zero_()

    task.model.register_forward_hook(spoil)
    found = Probe(task, (0, 1, 2)).in_view(view)
    torch.testing.assert_close(found.plain, expected.plain)
    torch.testing.assert_close(found.mirrored, expected.mirrored)
    assert CheckpointSelection(task, search_views(task)).source == selected


def test_an_image_is_read_once_for_a_view_and_its_mirror_image(make_task):
    task = make_task(count=3)
    task.target._kept.clear()
    before = task.target.num_decoded
    view = View((64, 128), 0.0)  # a size that is not kept
    seen = Probe(task, (0, 1, 2)).in_view(view)
    assert task.target.num_decoded == before + 3
    for mirrored, part in ((False, seen.plain), (True, seen.mirrored)):
        ensemble = TestTimeEnsemble(task, task.model, [replace(view, mirrored=mirrored)])
        expected = ensemble.probabilities([0, 1, 2], task.half_hw)
        torch.testing.assert_close(part.float(), expected, atol=1e-3, rtol=0)


SCALES = SelectionConfig().scales


def test_views_keep_the_networks_stride(make_task):
    assert view_sizes(make_task(), (1.0, 2.0, 1.7, 1.6)) == [(32, 64), (64, 128), (64, 96)]


class OfMultiples(torch.nn.Module):
    """Takes sides that are multiples of a number, or of one size only."""

    def __init__(self, network, fits, error=None):
        super().__init__()
        self.network, self.fits, self.error = network, fits, error or AssertionError()

    def forward(self, images):
        if not self.fits(images.shape[2:]):
            raise self.error
        return self.network(images)


@pytest.mark.parametrize("unit", [32, 64, 128])
def test_sizes_are_those_that_the_network_takes(make_task, tiny_model, tiny_spec, unit, caplog):
    """Networks of other people do not say of what their input is a multiple."""
    network = OfMultiples(tiny_model, lambda hw: not (hw[0] % unit or hw[1] % unit))
    task = make_task(network, replace(tiny_spec, input_hw=(128, 256)))
    sizes = view_sizes(task, SCALES)
    assert (128, 256) in sizes
    assert (256, 512) in sizes
    assert all(height % unit == 0 and width % unit == 0 for height, width in sizes)
    assert len(sizes) == len(set(sizes))
    search_views(task)
    assert "left out" not in caplog.text


@pytest.mark.parametrize(
    ("error", "said"), [(KeyError("size"), "'size'"), (AssertionError(), "AssertionError")]
)
def test_a_network_of_one_size_is_seen_at_that_size(
    make_task, tiny_model, tiny_spec, caplog, error, said
):
    """Also where its error says nothing, as of a bare assert."""
    network = OfMultiples(tiny_model, lambda hw: tuple(hw) == (32, 64), error)
    views = search_views(make_task(network, tiny_spec))
    assert {view.size_hw for view in views.by_size} == {(32, 64)}
    assert f"left out: {said}" in caplog.text


def unsure(task, num_images, certainty):
    """Stripes of three classes, each pixel's class with ``certainty``."""
    stripes = torch.full((num_images, 3, *task.half_hw), (1 - certainty) / 2)
    for row in range(stripes.shape[2]):
        stripes[:, row % 3, row] = certainty
    return stripes


def test_the_two_views_whose_mirror_images_agree_most_are_kept(make_task, monkeypatch):
    task = make_task()

    def seen(probe, views):
        """Surer, in the mirror too, the smaller the image."""
        certainty = {v: 0.5 + 3 / v.size_hw[1] for v in views}
        found = {v: unsure(task, len(probe.images), certainty[v]) for v in views}
        return {v: Predictions(stripes, stripes) for v, stripes in found.items()}

    monkeypatch.setattr(Probe, "predictions", seen)
    scores = {share: ExpectedScore(share, 0.9) for share in (0.0, 0.3, 0.6, 1.0)}
    ranked = lambda found, *_: {view: scores[view.target_share] for view in found}
    monkeypatch.setattr("sfda_edge.selection.share_search.share_scores", ranked)
    views = search_views(task)
    assert {view.target_share for view in views.kept} == {1.0}
    assert [view.size_hw[1] for view in views.kept] == sorted(
        view.size_hw[1] for view in views.by_size
    )[:2]
    assert [view.mirrored for view in views.kept] == [False, True]


def test_no_size_is_favoured_for_having_neighbours(make_task, tiny_spec, monkeypatch):
    """Errors that change with the size at the same pace everywhere: none sees better."""
    task = make_task(spec=replace(tiny_spec, input_hw=(192, 384)))
    size = (2, len(task.target), task.num_classes, *task.half_hw)
    wave = torch.randn(size, generator=torch.Generator().manual_seed(0))

    def seen(probe, views):
        """Logits are a stationary random process of the logarithm of the size."""
        octaves = [math.log2(view.size_hw[1] / 384) for view in views]
        first, second = wave[:, list(probe.images)]
        waves = [math.cos(x) * first + math.sin(x) * second for x in octaves]
        found = [(2 * logits).softmax(1) for logits in waves]
        return {v: Predictions(one, one) for v, one in zip(views, found, strict=True)}

    monkeypatch.setattr(Probe, "predictions", seen)
    scores = {v.size_hw[1]: p.miou for v, p in search_views(task).by_size.items()}
    assert max(scores, key=scores.__getitem__) == 384


def test_the_score_of_a_share_is_a_loop_over_pixels():
    """Half of the truth is what the view predicts, half what it predicts of the mirror image."""
    generator = torch.Generator().manual_seed(0)
    views = [View((4, 8), share) for share in (0.0, 0.5, 1.0)]
    found, mirrored = (
        {view: (3 * torch.randn(2, 3, 4, 8, generator=generator)).softmax(1) for view in views}
        for _ in range(2)
    )
    both = {view: Predictions(found[view], mirrored[view]) for view in views}
    for view, score in share_scores(both, SelectionConfig()).items():
        labels, truths = found[view].argmax(1), (found[view] + mirrored[view]) / 2
        ious, right = [], 0.0
        for k in range(3):
            both = truth = predicted = 0.0
            for n, row, column in itertools.product(range(2), range(4), range(8)):
                worth = truths[n, k, row, column]
                truth += worth
                predicted += labels[n, row, column] == k
                both += worth * (labels[n, row, column] == k)
            ious.append(both / (truth + predicted - both))
            right += both / labels.numel()
        assert score.miou == pytest.approx(float(sum(ious)) / 3, abs=1e-5)
        assert score.accuracy == pytest.approx(float(right), abs=1e-5)


def test_the_score_of_a_size_is_half_the_other_sizes_and_half_its_mirror_image():
    """Against a formula in NumPy; what the view itself believes has no part in it."""
    generator = torch.Generator().manual_seed(1)
    views = [View((4, 8 * width), 0.3) for width in (1, 2, 3)]

    def random():
        return (3 * torch.randn(2, 3, 4, 8, generator=generator)).softmax(1)

    found = {view: Predictions(random(), random()) for view in views}
    for view, score in size_scores(found, SelectionConfig()).items():
        labels = found[view].plain.argmax(1).numpy()
        others = sum(found[one].plain.numpy() for one in views if one != view) / 2
        truth = (others + found[view].mirrored.numpy()) / 2
        ious = []
        for k in range(3):
            both = truth[:, k][labels == k].sum()
            ious.append(both / (truth[:, k].sum() + (labels == k).sum() - both))
        assert score.miou == pytest.approx(sum(ious) / 3, abs=1e-5)


def test_a_size_that_is_confident_and_changes_its_mind_in_the_mirror_is_not_the_best():
    """As small images of drawn organs: its confidence alone would make it the best."""
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(0, 3, (4, 16, 32), generator=generator)
    wrong = torch.where(torch.rand(labels.shape, generator=generator) < 0.3, 2, labels)
    soft = 0.7 * one_hot(labels, 3) + 0.1
    found = {
        View((32, 64), 1.0): Predictions(soft, soft),
        View((48, 96), 1.0): Predictions(soft, soft),
        View((16, 32), 1.0): Predictions(one_hot(wrong, 3), soft),
    }
    assert ranked_views(size_scores(found, SelectionConfig()), 0.5)[-1].size_hw == (16, 32)


def test_views_that_see_alike_promise_the_miou_of_truths_drawn_from_their_answers(
    make_task, monkeypatch
):
    task = make_task()

    def seen(probe, views):
        stripes = unsure(task, len(probe.images), 0.8)
        return {v: Predictions(stripes, stripes) for v in views}

    monkeypatch.setattr(Probe, "predictions", seen)
    # Three classes of one share: IoU = 0.8 / (1 + 1 - 0.8).
    for score in search_views(task).by_size.values():
        assert score.miou == pytest.approx(0.8 / 1.2, abs=5e-3)
        assert score.accuracy == pytest.approx(0.8, abs=5e-3)


def test_views_that_make_up_classes_are_out():
    """Bare road: what sees it scores little for four classes that others make of it."""
    road, half, most, made_up = (View((4, 8), share) for share in (0.0, 0.3, 0.6, 1.0))
    scores = {
        road: ExpectedScore(0.08, 0.84),
        half: ExpectedScore(0.10, 0.83),
        most: ExpectedScore(0.16, 0.80),
        made_up: ExpectedScore(0.24, 0.61),
    }
    assert ranked_views(scores, 0.03) == [half, road]


@pytest.mark.parametrize(("stay", "expected"), [(0.99, 1.0), (0.8, 0.0)])
def test_statistics_whose_labels_change_in_the_mirror_are_not_used(stay, expected):
    """Sure of five classes with the target's statistics, and of one with the stored ones."""
    generator, shape = torch.Generator().manual_seed(0), (10, 16, 32)
    labels = torch.randint(0, 3, shape, generator=generator)
    other = torch.where(torch.rand(shape, generator=generator) < stay, labels, (labels + 1) % 3)
    stored, replaced = View((32, 64), 0.0), View((32, 64), 1.0)
    one = torch.zeros_like(labels)
    found = {
        stored: Predictions(one_hot(one, 3), one_hot(one, 3)),
        replaced: Predictions(one_hot(labels, 3), one_hot(other, 3)),
    }
    config = SelectionConfig()
    ranked = ranked_views(share_scores(found, config), config.share_accuracy_slack)
    assert ranked[0].target_share == expected


@pytest.mark.parametrize(("second", "alone"), [(0.95, False), (0.5, True)])
def test_a_second_view_far_behind_the_best_gives_way_to_its_mirror(
    second, alone, make_task, monkeypatch
):
    def ranked(seen, _config):
        mious = (1.0, second, 0.1, 0.1, 0.1)
        return {view: ExpectedScore(mious[number], 0.9) for number, view in enumerate(seen)}

    monkeypatch.setattr("sfda_edge.selection.view_search.size_scores", ranked)
    first, other = search_views(make_task()).kept
    assert (first.size_hw == other.size_hw) is alone
    assert other.mirrored


def test_a_size_that_does_not_fit_in_memory_is_left_out(make_task, monkeypatch, caplog):
    task = make_task()
    small_enough = TestTimeEnsemble.of_each_view

    def limited(self, indices, out_hw):
        if self.views[0].size_hw == (64, 128):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return small_enough(self, indices, out_hw)

    monkeypatch.setattr(TestTimeEnsemble, "of_each_view", limited)
    views = search_views(task)
    assert (64, 128) not in {view.size_hw for view in views.by_size}
    assert "view 128x64 with" in caplog.text
    assert "left out" in caplog.text


@pytest.mark.parametrize(
    "broken",
    [{"target_share": 1.0}, {"size_hw": (64, 128)}, {"target_share": 0.6, "mirrored": True}],
)
def test_a_view_that_is_not_numbers_is_left_out(broken, make_task, monkeypatch, caplog):
    of_each_view = TestTimeEnsemble.of_each_view

    def overflowing(self, indices, out_hw):
        seen = zip(self.views, of_each_view(self, indices, out_hw), strict=True)
        return [
            part * float("nan") if vars(view).items() >= broken.items() else part
            for view, part in seen
        ]

    monkeypatch.setattr(TestTimeEnsemble, "of_each_view", overflowing)
    views = search_views(make_task())
    assert not any(vars(view).items() >= broken.items() for view in views.kept)
    scores = {**views.by_share, **views.by_size}.values()
    assert all(min(promise) > 0 for promise in scores)
    assert "NaN or infinite" in caplog.text


def test_a_network_that_answers_no_numbers_is_an_error(make_task):
    task = make_task()
    with torch.no_grad():
        task.model[0].weight.fill_(float("nan"))
    with pytest.raises(RunError, match="NaN or infinite"):
        search_views(task)


def test_without_sizes_only_the_input_size_is_looked_at(make_task, monkeypatch):
    of_each_view, seen = TestTimeEnsemble.of_each_view, set()

    def noted(self, indices, out_hw):
        seen.update(view.size_hw for view in self.views)
        return of_each_view(self, indices, out_hw)

    monkeypatch.setattr(TestTimeEnsemble, "of_each_view", noted)
    views = search_views(make_task(), compare_sizes=False)
    assert seen == {(32, 64)}
    assert [view.mirrored for view in views.kept] == [False, True]
    assert len(views.by_share) == 4


def test_shares_that_are_behind_after_a_quarter_of_the_images_are_given_up(make_task, monkeypatch):
    """The others get the scores that they have without the halving."""
    of_each_view, counts = TestTimeEnsemble.of_each_view, Counter()

    def noted(self, indices, out_hw):
        counts.update({view: len(indices) for view in self.views})
        return of_each_view(self, indices, out_hw)

    monkeypatch.setattr(TestTimeEnsemble, "of_each_view", noted)
    task = make_task(count=10)
    first, rest = Probe(task, (0, 4, 8)), Probe(task, (1, 2, 3, 5, 6, 7, 9))
    found = compare_shares(first, rest, (0.0, 0.3, 0.6, 1.0))
    seen = {share: counts[View((32, 64), share)] for share in (0.0, 0.3, 0.6, 1.0)}
    assert sorted(seen.values()) == [3, 3, 10, 10]
    finalists = [share for share in seen if seen[share] == 10]
    assert found.best.target_share in finalists

    probe = Probe(task, first.images + rest.images)
    whole = compare_shares(first, rest, finalists)
    assert whole.best == found.best
    assert all(found.scores[view] == score for view, score in whole.scores.items())
    both = probe.in_view(found.best)
    torch.testing.assert_close(found.found.plain, both.plain)
    torch.testing.assert_close(found.found.mirrored, both.mirrored)


def halves(task):
    return Probe(task, (0, 1)), Probe(task, (2, 3))


@pytest.mark.parametrize("broken", [{0.3, 1.0}, {0.0, 0.3, 0.6, 1.0}])
def test_where_no_finalist_is_finite_on_the_other_images_the_next_are_tried(
    broken, make_task, monkeypatch
):
    scores = {0.0: (0.3, 0.8), 0.3: (0.5, 0.8), 0.6: (0.4, 0.8), 1.0: (0.6, 0.8)}
    known = lambda found, _config: {v: ExpectedScore(*scores[v.target_share]) for v in found}
    monkeypatch.setattr("sfda_edge.selection.share_search.share_scores", known)
    of_each_view = TestTimeEnsemble.of_each_view

    def overflowing(self, indices, out_hw):
        seen = of_each_view(self, indices, out_hw)
        fails = self.views[0].target_share in broken and indices[0] >= 2
        return [part * float("nan") for part in seen] if fails else seen

    monkeypatch.setattr(TestTimeEnsemble, "of_each_view", overflowing)
    if len(broken) == 4:
        with pytest.raises(RunError, match="NaN or infinite"):
            compare_shares(*halves(make_task()), tuple(scores))
        return
    found = compare_shares(*halves(make_task()), tuple(scores))
    assert found.best.target_share == 0.6
    assert {view.target_share for view in found.scores} == {0.0, 0.6}


def test_shares_that_make_classes_up_do_not_push_the_others_out(make_task, monkeypatch):
    """On bare road they have the highest expected mIoU, and a far lower accuracy."""
    scores = {0.0: (0.08, 0.84), 0.3: (0.10, 0.83), 0.6: (0.16, 0.70), 1.0: (0.24, 0.61)}
    known = lambda found, _config: {v: ExpectedScore(*scores[v.target_share]) for v in found}
    monkeypatch.setattr("sfda_edge.selection.share_search.share_scores", known)
    found = compare_shares(*halves(make_task()), tuple(scores))
    assert found.best.target_share == 0.3


def test_the_first_quarter_of_the_probe_is_spread_over_the_target(make_task):
    """A video's beginning says little about its end."""
    task = make_task(count=16)
    probe = search_views(task, compare_sizes=False).probe
    assert probe[:4] == (0, 4, 8, 12)
    assert sorted(probe) == list(range(16))


def test_the_consensus_is_the_ensembles_prediction(make_task):
    task = make_task()
    views = search_views(task)
    ensemble = TestTimeEnsemble(task, task.model, views.kept, views.statistics)
    expected = ensemble.probabilities(views.probe, task.half_hw)
    torch.testing.assert_close(views.consensus, expected, rtol=0, atol=1e-3)


def method_and_recipe(name):
    name, recipe = load_method_recipe(name)
    return METHODS[name][1], recipe


@pytest.fixture
def sizes(monkeypatch):
    """At which statistics of the target are observed for views, in order."""
    observe, sizes = TestTimeEnsemble._observed, []

    def noted(self, network, size_hw):
        sizes.append(size_hw)
        return observe(self, network, size_hw)

    monkeypatch.setattr(TestTimeEnsemble, "_observed", noted)
    return sizes


def test_what_the_statistics_check_has_observed_is_not_observed_again(make_task, sizes):
    task = make_task()
    found = begin(task, *method_and_recipe("multiview")).views
    assert sizes
    assert task.spec.input_hw not in sizes
    again = search_views(make_task())
    assert task.spec.input_hw in sizes
    assert found.kept == again.kept
    torch.testing.assert_close(found.consensus, again.consensus, rtol=1e-3, atol=1e-3)


def test_statistics_of_a_size_are_observed_once(make_task, sizes):
    task = make_task()
    views = search_views(task)
    TestTimeEnsemble(task, task.model, views.kept, views.statistics)
    assert (32, 64) in sizes
    assert len(sizes) == len(set(sizes))


@given(st.integers(0, 1000))
def test_agreement_is_the_iou_of_two_label_maps(seed):
    generator = torch.Generator().manual_seed(seed)
    one = torch.randint(0, 3, (4, 30, 40), generator=generator)
    changed = torch.rand(one.shape, generator=generator) < 0.3
    other = torch.where(changed, torch.randint(0, 4, one.shape, generator=generator), one)
    found = class_agreement(one_hot(one, 5), one_hot(other, 5))
    for k in range(3):
        both, either = ((one == k) & (other == k)).sum(), ((one == k) | (other == k)).sum()
        assert found[k].item() == pytest.approx(float(both / either))
    assert found[3].item() == 0, "a class that only one view finds"
    assert found[4].item() == 1, "a class that is in neither is agreed on"


def test_the_agreement_is_that_of_the_two_views_that_are_kept(make_task):
    task = make_task()
    views = search_views(task)
    first, second = views.kept
    assert second.mirrored
    probe = Probe(task, views.probe, views.statistics)
    mirrored = probe.in_view(replace(second, mirrored=False)).mirrored
    expected = class_agreement(probe.in_view(first).plain, mirrored)
    torch.testing.assert_close(views.agreement, expected)
    assert views.agreement.min() < 1
