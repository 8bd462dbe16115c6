"""Python itself and NumPy."""

from __future__ import annotations

import importlib
import platform
import struct
import sys

from runtime.diagnosis.finding import Finding

OLDEST = (3, 10)


def _numpy() -> Finding:
    try:
        version = importlib.import_module("numpy").__version__
    except Exception as error:  # a wheel of another Python or ABI raises whatever it likes
        text = f"does not start: {str(error).strip().partition(chr(10))[0]}"
        return Finding("numpy", "problem", text, "pip install --force-reinstall numpy")
    return Finding("numpy", "ok", version)


def look() -> list[Finding]:
    """The interpreter that runs this program."""
    version = platform.python_version()
    where = f"Python {version}, {platform.machine()} {platform.system()}, {sys.executable}"
    if sys.version_info < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return [Finding("python", "problem", where, f"Install Python {oldest} or later.")]
    if struct.calcsize("P") != 8:
        return [Finding("python", "problem", where, "Use a 64-bit Python: no wheels for 32.")]
    findings = [Finding("python", "ok", where), _numpy()]
    if sys.prefix == sys.base_prefix:
        findings.append(
            Finding(
                "python",
                "note",
                "no virtual environment",
                "python -m venv venv keeps other projects' packages apart; on a Jetson add "
                "--system-site-packages to see JetPack's TensorRT.",
            )
        )
    return findings
