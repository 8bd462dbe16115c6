"""The overlay in a window."""

from __future__ import annotations

import os
import sys

from runtime.errors import SinkError
from runtime.frames import Segmentation
from runtime.overlay import Overlay
from runtime.sinks import ViewerLeft

_TITLE = "sfda-edge"


class WindowSink:
    """Shows overlays; q or Escape ends the stream. Lives in the main thread, as windows must."""

    def __init__(self, overlay: Overlay) -> None:
        import cv2

        # Qt aborts the whole process where there is no display, so look before it does.
        if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
            raise SinkError(
                "--show needs a display, and none is set; use --serve or --save out.mp4 instead"
            )
        self._overlay, self._cv2, self._shown = overlay, cv2, False

    def write(self, result: Segmentation) -> None:
        """Show one picture.

        Raises:
            ViewerLeft: the user pressed q or Escape, or closed the window.
            SinkError: this OpenCV cannot open windows.
        """
        cv2 = self._cv2
        picture = self._overlay.draw_result(result)
        try:
            cv2.imshow(_TITLE, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
            key = cv2.waitKey(1) & 0xFF
            closed = self._shown and cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) < 1
        except cv2.error as error:
            reason = str(error).strip().splitlines()[-1]
            raise SinkError(
                f"--show: this OpenCV opens no windows ({reason}); "
                "opencv-python-headless has none: pip install opencv-python, or use --save"
            ) from None
        self._shown = True
        if closed or key in (ord("q"), 27):
            raise ViewerLeft

    def close(self) -> None:
        """Close the window."""
        if self._shown:
            self._cv2.destroyAllWindows()
