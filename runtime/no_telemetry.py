"""What a device runs stays on the device: libraries that report it to their makers are told not to.

ONNX Runtime's wheels, from 1.29 on, send names and hashes of models and an identifier of the device
to Microsoft (github.com/microsoft/onnxruntime/pull/27379). OpenVINO reports each import, with an
identifier that it keeps in the home folder, to Google Analytics.
"""

from __future__ import annotations

import os
import sys
from typing import Any


def refuse_telemetry() -> None:
    """Before either library is imported; ``ORT_DISABLE_TELEMETRY=0`` in the environment stands."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    modules: dict[str, Any] = sys.modules
    modules.setdefault("openvino_telemetry", None)  # cannot be imported: OpenVINO does without
