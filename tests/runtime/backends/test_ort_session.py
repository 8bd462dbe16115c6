"""How ONNX Runtime's sessions are set up."""

import pytest

from runtime.backends import open_backend
from runtime.backends.ort_session import open_session
from runtime.bundle.manifest import read_manifest
from runtime.packaged import BUNDLE_DIR

MODEL = BUNDLE_DIR / read_manifest(BUNDLE_DIR).model_file
SPIN_STOP = "session.force_spinning_stop"


@pytest.mark.parametrize(
    ("asked", "allowed", "threads"),
    [(0, {0, 1, 2}, 3), (0, set(range(8)), 0), (2, {0, 1, 2}, 2)],
)
def test_a_process_that_is_kept_to_some_cores_gets_as_many_threads(
    monkeypatch, asked, allowed, threads
):
    """ONNX Runtime counts the machine's cores; 0 is its own choice."""
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: allowed)
    options = open_session(MODEL, asked).get_session_options()
    assert options.intra_op_num_threads == threads


def test_threads_of_a_stream_do_not_spin_between_frames():
    assert open_session(MODEL).get_session_options().get_session_config_entry(SPIN_STOP) == "0"
    with open_backend("onnxruntime", BUNDLE_DIR, read_manifest(BUNDLE_DIR)) as backend:
        options = backend._session.get_session_options()
    assert options.get_session_config_entry(SPIN_STOP) == "1"
