"""A camera with RTSP: Debian's gst-rtsp-server, run by Debian's Python (``python3-gi``).

Arguments: port, width, height, and a pattern of videotestsrc such as ``ball``. It prints ``ready``.
A line on standard input, such as ``white`` or ``black``, changes the pattern.
"""

import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402


def main() -> None:
    """Serve until the process is ended, or its standard input is."""
    port, width, height, pattern = sys.argv[1:]
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(
        f"( videotestsrc name=source is-live=true pattern={pattern} ! "
        f"video/x-raw,width={width},height={height},framerate=25/1 ! "
        "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 ! "
        "rtph264pay name=pay0 pt=96 )"
    )
    factory.set_shared(True)
    sources = []
    factory.connect(
        "media-configure",
        lambda _, media: sources.append(media.get_element().get_by_name("source")),
    )
    server.get_mount_points().add_factory("/camera", factory)
    server.attach(None)
    print("ready", flush=True)
    loop = GLib.MainLoop()
    threading.Thread(target=follow, args=(sources, loop), daemon=True).start()
    loop.run()


def follow(sources: list, loop: GLib.MainLoop) -> None:
    """Change the pattern with each line of standard input; end with it: nobody is left."""
    for line in sys.stdin:
        for source in sources:
            Gst.util_set_object_arg(source, "pattern", line.strip())
    GLib.idle_add(loop.quit)  # once it runs: before, it would be forgotten


if __name__ == "__main__":
    main()
