"""Whether others used the machine, from the kernel's counters."""

import json
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from benchmarks.measuring.machine import (
    Usage,
    machine_line,
    machine_record,
    others_share,
    read_usage,
    watch,
)

BEFORE = Usage(100.0, 50.0, stolen_s=1.0, ours_s=10.0)


@pytest.mark.parametrize(
    ("busy_s", "stolen_s", "ours_s", "share"),
    [(20, 0, 20, 0), (20, 0, 10, 0.5), (5, 5, 5, 0.25), (5, 0, 6, 0), (99, 0, 0, 1)],
)
def test_the_share_is_what_was_neither_ours_nor_idle(busy_s, stolen_s, ours_s, share):
    after = Usage(110.0, 50.0 + busy_s, stolen_s=1.0 + stolen_s, ours_s=10.0 + ours_s)
    assert others_share(BEFORE, after, cores=2) == pytest.approx(share)


def test_counters_are_those_of_the_kernel(tmp_path):
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 20 30 9999 55 4 6 70 8 9\ncpu0 1 2 3\n")
    usage = read_usage(stat)
    assert usage == replace(usage, busy_s=1.6, stolen_s=0.7)
    for content in ("", "cpu 1 2\n", "cpu a b c d e f g h\n"):
        stat.write_text(content)
        assert read_usage(stat) is None
    assert read_usage(tmp_path / "missing") is None


def test_another_process_disturbs_and_our_own_work_does_not():
    code = "import time; end = time.monotonic() + 3\nwhile time.monotonic() < end: pass"
    with subprocess.Popen([sys.executable, "-c", code]) as other, watch() as alone:
        time.sleep(0.8)
        other.kill()
    # The child was not waited for inside, so that its time counts as another's.
    assert alone.machine["others_share"] > 0.2
    assert alone.machine["disturbed"] is True
    assert "DISTURBED" in machine_line(alone.machine)


def test_a_record_says_what_the_machine_tells():
    record = machine_record()
    assert record["cores"] >= 1
    assert record["packages"]["numpy"]
    assert None not in record.values()
    json.dumps(record)
    assert "DISTURBED" not in machine_line(record)
