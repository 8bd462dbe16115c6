import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.buffer import Buffer


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 4))
def test_a_dropping_buffer_keeps_the_newest_in_order(operations, capacity):
    """Against a plain list as the model: True puts, False takes."""
    buffer, model, dropped, number = Buffer(capacity, drop_oldest=True), [], 0, 0
    for is_put in operations:
        if is_put:
            assert buffer.put(number)
            model.append(number)
            number += 1
            if len(model) > capacity:
                model.pop(0)
                dropped += 1
        elif model:
            assert buffer.get() == model.pop(0)
    assert buffer.dropped == dropped
    buffer.close()
    rest = iter(buffer.get, None)
    assert list(rest) == model


@given(st.lists(st.integers(1, 12), max_size=60), st.integers(1, 20))
def test_the_sizes_of_what_waits_fit_and_one_that_is_too_large_waits_alone(sizes, capacity):
    buffer, model = Buffer(capacity, drop_oldest=True, size=lambda size: size), []
    for size in sizes:
        buffer.put(size)
        model.append(size)
        while len(model) > 1 and sum(model) > capacity:
            model.pop(0)
    assert buffer.dropped == len(sizes) - len(model)
    buffer.close()
    assert list(iter(buffer.get, None)) == model


def test_a_waiting_buffer_loses_nothing():
    buffer = Buffer(2, drop_oldest=False)

    def produce():
        for number in range(200):
            buffer.put(number)
        buffer.close()

    thread = threading.Thread(target=produce)
    thread.start()
    assert list(iter(buffer.get, None)) == list(range(200))
    thread.join(5)
    assert buffer.dropped == 0


def test_an_error_comes_after_what_was_handed_over():
    buffer = Buffer(4, drop_oldest=False)
    buffer.put(1)
    buffer.close(RuntimeError("broken"))
    assert buffer.get() == 1
    with pytest.raises(RuntimeError, match="broken"):
        buffer.get()


def test_discard_lets_a_waiting_producer_go():
    buffer, outcome = Buffer(1, drop_oldest=False), []
    buffer.put(1)
    thread = threading.Thread(target=lambda: outcome.append(buffer.put(2)))
    thread.start()
    buffer.discard()
    thread.join(5)
    assert outcome == [False]
    assert buffer.get() is None


def test_get_gives_up_in_time():
    with pytest.raises(TimeoutError):
        Buffer(1, drop_oldest=True).get(timeout_s=0.01)


def test_a_buffer_holds_something():
    with pytest.raises(ValueError, match="at least one"):
        Buffer(0, drop_oldest=True)
