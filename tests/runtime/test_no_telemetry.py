"""Nothing that we load reports what it runs."""

import os
import subprocess
import sys

import pytest

OPENED = """
import sys
from runtime.backends import open_backend
from runtime.bundle.manifest import read_manifest
from runtime.packaged import BUNDLE_DIR

open_backend(sys.argv[1], BUNDLE_DIR, read_manifest(BUNDLE_DIR), 1).close()
"""
QUANTISED = "import export.precision.int8_graph; import onnxruntime.quantization"


@pytest.mark.parametrize(
    ("library", "code"),
    [
        ("onnxruntime", OPENED),
        ("openvino", OPENED),
        ("opencv", OPENED),
        ("onnxruntime", QUANTISED),
    ],
)
def test_no_library_keeps_an_identifier_in_the_home_folder(tmp_path, library, code):
    """Where one is sent, it is kept: in ~/.cache/Microsoft and ~/intel."""
    pytest.importorskip({"opencv": "cv2"}.get(library, library))
    # In CI the libraries send nothing by themselves: this has to hold everywhere else.
    away = {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "CI", "TF_BUILD", "JENKINS_URL"}
    away |= {"GITHUB_ACTIONS", "CIRCLECI", "GITLAB_CI"}
    environment = {name: value for name, value in os.environ.items() if name not in away}
    subprocess.run(
        [sys.executable, "-c", code, library], env=environment | {"HOME": str(tmp_path)}, check=True
    )
    assert list(tmp_path.rglob("*")) == []


def test_who_wants_onnxruntimes_telemetry_keeps_it():
    code = "import os, runtime; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = os.environ | {"ORT_DISABLE_TELEMETRY": "0"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"
