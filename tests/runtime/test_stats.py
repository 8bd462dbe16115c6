import numpy as np

from runtime.stats import StreamStats


def test_percentiles_are_numpys():
    stats, values = StreamStats(), np.random.default_rng(0).uniform(1, 50, 500)
    stats.start()
    for value in values:
        stats.add({"infer": value})
    figures = stats.snapshot(500, 0)
    np.testing.assert_allclose(figures.stage_ms["infer"], np.percentile(values, (50, 95, 99)))
    assert figures.segmented == 500


def test_memory_is_bounded_and_counts_are_not():
    stats = StreamStats(window=10)
    stats.start()
    for value in range(100):
        stats.add({"infer": float(value)})
    figures = stats.snapshot(100, 3)
    assert figures.segmented == 100
    assert figures.stage_ms["infer"][0] == np.median(np.arange(90, 100))


def test_an_empty_stream_has_figures_too():
    figures = StreamStats().snapshot(0, 0)
    assert figures.fps == 0
    assert "0 segmented" in figures.table()
    assert figures.record()["frames_read"] == 0


def test_record_and_table_say_the_same():
    stats = StreamStats()
    stats.start()
    stats.add({"infer": 12.0, "age": 30.0})
    figures = stats.snapshot(2, 1)
    assert figures.record()["stage_ms"]["infer"]["p50"] == 12.0
    assert "2 read, 1 segmented, 1 dropped" in figures.table()
