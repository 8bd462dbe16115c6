"""What ``camera.sh`` starts: the tests, and an end as the program's own.

A thread may still hang in OpenCV for the camera that was unplugged; Python would abort for it.
"""

import pytest

from runtime.output import leave

# Of that machine's file system only /tmp can be written.
ARGUMENTS = ["-p", "no:cacheprovider", "--basetemp", "/tmp/pytest", "-rs", "--tb=short"]

if __name__ == "__main__":
    leave(int(pytest.main([*ARGUMENTS, "tests/machines/test_camera.py"])))
