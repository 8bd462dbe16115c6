"""A file of the user's that has the name of a package of ours is named, not run."""

import os
import subprocess
import sys

import pytest

from sfda_edge.own_packages import hidden


def run(folder, *words):
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=environment, cwd=folder
    )


def test_ours_are_found():
    assert hidden("runtime") is None
    assert hidden("export") is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("runtime", ["-c", "import sfda_edge"]),
        ("export", ["-m", "sfda_edge.cli", "export"]),
        ("export", ["-m", "sfda_edge.cli", "trace", "bundle"]),
        ("export", ["-m", "sfda_edge.cli", "demo"]),
    ],
)
def test_a_file_that_hides_a_package_is_named_and_not_run(tmp_path, name, words):
    file = tmp_path / f"{name}.py"
    file.write_text("print('my own script')\n")
    done = run(tmp_path, *words)
    assert f"{file} hides sfda-edge's package '{name}': rename it" in done.stderr
    assert "my own script" not in done.stdout
    if name == "export":
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
