"""One model for several threads: each gets its own answers, in batches where possible."""

import threading
import time

import numpy as np
import pytest

from runtime.backends.base import Backend
from runtime.backends.shared import SharedModel
from runtime.errors import BackendUnavailable


class Doubling(Backend):
    """Answers twice the image; notes who asked and how many at once."""

    name, library, provider, precision = "doubling", "none", "CPU", "fp32"

    def __init__(self, max_batch=1):
        self.max_batch = max_batch
        self.began, self.may_go_on = threading.Event(), threading.Event()
        self.batches, self.threads, self.closed = [], set(), False

    def outputs(self, image):
        return {"label_map": image * 2}

    def batch_outputs(self, images):
        self.began.set()
        assert self.may_go_on.wait(10)
        self.batches.append(len(images))
        self.threads.add(threading.get_ident())
        if any(image.max() == 13 for image in images):
            raise RuntimeError("it does not like 13")
        return super().batch_outputs(images)

    def close(self):
        self.closed = True


def ready():
    backend = Doubling()
    backend.may_go_on.set()
    return backend


def ask(shared, values, found):
    for value in values:
        found.append(int(shared.outputs(np.full((2, 2), value, np.uint8))["label_map"][0, 0]))


@pytest.mark.parametrize("max_batch", [1, 3])
def test_each_thread_gets_its_own_answers(max_batch):
    backend = Doubling(max_batch)
    with SharedModel(backend) as shared:
        found = {number: [] for number in range(4)}
        threads = [
            threading.Thread(target=ask, args=(shared, range(n, 12, 4), found[n])) for n in found
        ]
        threads[0].start()
        assert backend.began.wait(10)  # the first image is with the model, alone
        for thread in threads[1:]:
            thread.start()
        while len(shared._waiting) < 3:
            time.sleep(0.001)
        backend.may_go_on.set()
        for thread in threads:
            thread.join()
    assert found == {n: [2 * value for value in range(n, 12, 4)] for n in found}
    assert sum(backend.batches) == 12
    assert max(backend.batches) == max_batch, "those that wait together are answered together"
    assert len(backend.threads) == 1, "one thread owns the model"
    assert backend.closed


def test_the_most_at_once_can_be_limited():
    with SharedModel(Doubling(8), max_batch=2) as shared:
        assert shared.max_batch == 2
    with SharedModel(Doubling(1), max_batch=2) as shared:
        assert shared.max_batch == 1


def test_a_failure_reaches_who_asked_and_the_next_is_answered():
    with SharedModel(ready()) as shared:
        with pytest.raises(RuntimeError, match="13"):
            ask(shared, [13], [])
        ask(shared, [4], found := [])
        assert found == [8]


def test_a_closed_model_rejects():
    shared = SharedModel(ready())
    shared.close()
    with pytest.raises(BackendUnavailable, match="doubling is closed"):
        ask(shared, [1], [])
    shared.close()


def test_the_facts_are_those_of_the_model():
    backend = Doubling()
    backend.agreement = 0.99
    with SharedModel(backend) as shared:
        assert shared.record() == backend.record()
