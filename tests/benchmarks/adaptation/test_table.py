import pytest

from benchmarks.adaptation.table import accuracy_table, mistakes_text, rank_correlation


def row(source: float, final: float, returned: float, step: int | None, **more: float) -> dict:
    """A row of the record, as far as the table reads it."""
    return {
        "task": "A",
        "recipe": "bn",
        "seed": 0,
        "overrides": [],
        "source_miou": source,
        "source_score": 0.5,
        "final_miou": final,
        "returned_miou": returned,
        "returned_step": step,
        "checkpoints": [],
        **more,
    }


def test_mistakes_are_harm_and_refused_gains():
    rows = [
        row(50, 55, 55, 300),  # a gain
        row(50, 48, 49.9, 37),  # harm
        row(50, 53, 50, None),  # a refused gain of 3
        row(50, 50.5, 50, None),  # a refused gain that is small
        row(50, 40, 50, None),  # rightly refused
    ]
    text = mistakes_text({"rows": rows})
    assert "of 5 runs, 1 returned less than the source" in text
    assert "3 returned the source, and 1 of these ended more than 0.5 points above it" in text
    assert text.endswith("refused gain, mean: 1.17 points")
    assert mistakes_text({"rows": []}).endswith("mean: 0.00 points")


def test_the_table_has_the_score_at_home_where_it_was_measured():
    home = {"home_source": 70.0, "home_final": 60.0, "home_returned": 65.0}
    table = accuracy_table({"rows": [row(50, 52, 53, 37, **home), row(50, 54, 53, 37)]})
    assert "| A | bn | 2 | 50.0 | 53.0 ± 1.4 | 53.0 ± 0.0 | 70.0, 60.0, 65.0 |" in table
    assert "| 50.0 | 52.0 | 53.0 | – |" in accuracy_table({"rows": [row(50, 52, 53, 37)]})


def test_rows_of_another_precision_or_device_are_not_averaged():
    rows = [row(50, 52, 53, 37), row(50, 52, 60, 37, precision="bf16"), row(50, 52, 70, 37)]
    rows[2] |= {"precision": "fp32", "device": "cuda"}
    table = accuracy_table({"rows": rows})
    for name, score in (("bn", 53), ("bn bf16 cpu", 60), ("bn fp32 cuda", 70)):
        assert f"| A | {name} | 1 | 50.0 | 52.0 | {score:.1f} |" in table


def test_rank_correlation_is_spearmans():
    """1 - 6 sum d^2 / (n (n^2 - 1)) without equal values; mean ranks with them."""
    pairs = [(0.1, 3.0), (0.2, 1.0), (0.4, 2.0), (0.9, 7.0), (1.0, 5.0)]
    differences = [0 - 2, 1 - 0, 2 - 1, 3 - 4, 4 - 3]
    expected = 1 - 6 * sum(d * d for d in differences) / (5 * 24)
    assert rank_correlation(pairs) == pytest.approx(expected)
    assert rank_correlation([(0, 1), (1, 2), (1, 3)]) == pytest.approx(3**0.5 / 2)
    assert rank_correlation([(0.5, 1), (0.5, 2)]) == 0.0
