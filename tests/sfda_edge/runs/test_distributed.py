"""Two gloo processes against one, on the same global batches."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sfda_edge.cli import main as cli
from sfda_edge.runs.distributed import (
    gathered,
    local_rows,
    mean_over,
    num_processes,
    rank,
    summed,
)
from sfda_edge.runs.metrics import read_metrics

pytestmark = pytest.mark.slow

HERE = Path(__file__).parents[1]
METHODS = ["multiview", "sfda", "selftrain", "tent", "maxsquare", "bn"]
RUN = """
import sys
sys.path.insert(0, {here!r})
from sfda_edge.cli.main import main
from sfda_edge.runs import distributed
leave, distributed.leave_group = distributed.leave_group, lambda: None  # one group for all runs
for arguments in {runs!r}:
    assert main(arguments) == 0, arguments
leave()
"""


def test_alone_everything_is_the_identity():
    rows = torch.randn(4, 3)
    assert (num_processes(), rank()) == (1, 0)
    assert local_rows(rows) is not None
    assert torch.equal(local_rows(rows), rows)
    assert torch.equal(gathered(rows), rows)
    assert torch.equal(summed(rows), rows)


def test_the_weighted_mean_is_numpys():
    values, weights = torch.randn(5, 6), torch.rand(5, 6)
    expected = (values * weights).sum() / weights.sum()
    torch.testing.assert_close(mean_over(values, weights), expected)


def arguments_of(method, source, out):
    arguments = ["adapt", "--method", method, "--device", "cpu", "--out", str(out)]
    arguments += ["--weights", str(source / "model.safetensors")]
    arguments += ["--images", str(source / "images"), "--model", "user_network:build"]
    settings = ["steps=3", "batch_size=4", "learning_rate=1e-3"]
    if method == "bn":
        settings = ["num_images=12", "batch_size=4", "target_share=1.0"]
    if method == "sfda":
        settings += ["fake_hw=[16, 32]", "noise_size=8"]
    return arguments + [part for setting in settings for part in ("--set", setting)]


@pytest.fixture(scope="module")
def shared_runs(source, tmp_path_factory):
    """A run of each method by two processes, as ``torchrun`` starts them; once for all methods."""
    folder = tmp_path_factory.mktemp("shared")
    runs = [arguments_of(method, source, folder / method) for method in METHODS]
    script = folder / "runs.py"
    script.write_text(RUN.format(here=str(HERE), runs=runs))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*command, "--nproc_per_node=2", str(script)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=250,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("adapted:") == len(METHODS)
    assert done.stderr.count("INFO  run:") == len(METHODS)  # one speaks for all
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory, tiny_spec):
    from PIL import Image

    from sfda_edge.models.checkpoint import save_model

    from conftest import drawn_images, warm_model  # isort: skip

    folder = tmp_path_factory.mktemp("source")
    (folder / "images").mkdir()
    for sample in drawn_images(9).samples:
        Image.fromarray(sample.image()).save(folder / "images" / f"{sample.name}.png")
    save_model(folder / "model.safetensors", warm_model(tiny_spec), tiny_spec)
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_give_what_one_gives(method, source, shared_runs, tmp_path):
    assert cli.main(arguments_of(method, source, tmp_path / "alone")) == 0
    folders = (tmp_path / "alone", shared_runs / method)
    alone, shared = (load_file(folder / "adapted.safetensors") for folder in folders)
    assert alone.keys() == shared.keys()
    for key, expected in alone.items():
        torch.testing.assert_close(shared[key], expected, rtol=0, atol=1e-4)
    results = [json.loads((folder / "run.json").read_text()) for folder in folders]
    assert results[0]["result"]["returned"] == results[1]["result"]["returned"]
    # What is returned may be the model of before the first step: the losses tell of the others.
    logged = [read_metrics(folder) for folder in folders]
    assert [line["step"] for line in logged[1]] == [0, 1, 2, 3]
    for expected, found in zip(*logged, strict=True):
        assert found == {key: pytest.approx(value, abs=1e-4) for key, value in expected.items()}


WAITS = """
import sys, time
from datetime import timedelta
from torch import distributed
from torch.distributed import distributed_c10d
from sfda_edge.runs.distributed import leave_group, rank, wait_for_all
distributed_c10d.default_pg_timeout = timedelta(seconds=2)  # of every group that has none
distributed.init_process_group("gloo", timeout=timedelta(seconds=2))
if rank() == 0:
    time.sleep(5)  # long work of one process, longer than a collective may take
wait_for_all()
open(f"{sys.argv[1]}/{rank()}", "w").close()
leave_group()
"""


def test_long_work_of_one_process_meets_no_time_out(tmp_path):
    (tmp_path / "waits.py").write_text(WAITS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*command, str(tmp_path / "waits.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "0").exists()
    assert (tmp_path / "1").exists()


FAILS = """
import sys
import torch
from torch import distributed, nn
from sfda_edge.batchnorm.statistics import target_statistics
from sfda_edge.runs.distributed import averaged, leave_group, rank
distributed.init_process_group("gloo")
network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
channels = 3 if rank() == 0 else 5  # the second process's batch does not fit
try:
    target_statistics(network, [torch.rand(2, channels, 8, 8)])
except RuntimeError as error:
    text = str(error)
with open(f"{sys.argv[1]}/{rank()}", "w") as file:
    print(averaged({"sum": float(rank())})["sum"], text, file=file)
leave_group()
"""


def test_a_failure_of_one_process_keeps_no_other_waiting(tmp_path):
    (tmp_path / "fails.py").write_text(FAILS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*command, str(tmp_path / "fails.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
    )
    assert done.returncode == 0, done.stderr
    first, second = ((tmp_path / name).read_text() for name in "01")
    assert first.startswith("0.5 another process failed"), "the next sum is of both, in step"
    assert second.startswith("0.5")
    assert "channels" in second
