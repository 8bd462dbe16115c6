"""A camera with RTSP: Debian's gst-rtsp-server, run by Debian's Python (``python3-gi``).

Arguments: port, width, height, and a pattern of videotestsrc such as ``ball``. It prints ``ready``.
A line on standard input, such as ``white`` or ``black``, changes the pattern.

It watches itself, and is ready once it sees a frame. Without that viewer the stream starts when the
first client plays, and gst-rtsp-server 1.22 aborts (``gst_rtsp_media_get_rates``) where a second
one plays before the first frame.
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
    loop = GLib.MainLoop()
    threading.Thread(target=follow, args=(sources, loop), daemon=True).start()
    viewer = watch(f"rtsp://127.0.0.1:{port}/camera", loop)
    loop.run()
    viewer.set_state(Gst.State.NULL)


def watch(url: str, loop: GLib.MainLoop) -> Gst.Element:
    """Be the first client: the stream runs on while others come and go. An error ends the loop."""
    viewer = Gst.parse_launch(
        f"rtspsrc location={url} protocols=tcp latency=0 ! fakesink name=sink signal-handoffs=true"
    )
    ready = threading.Event()

    def see(*_: object) -> None:
        if not ready.is_set():
            ready.set()
            print("ready", flush=True)

    def fail(_: object, message: Gst.Message) -> None:
        print(message.parse_error().gerror.message, file=sys.stderr)
        loop.quit()

    viewer.get_by_name("sink").connect("handoff", see)
    viewer.get_bus().add_signal_watch()
    viewer.get_bus().connect("message::error", fail)
    viewer.set_state(Gst.State.PLAYING)
    return viewer


def follow(sources: list, loop: GLib.MainLoop) -> None:
    """Change the pattern with each line of standard input; end with it: nobody is left."""
    for line in sys.stdin:
        for source in sources:
            Gst.util_set_object_arg(source, "pattern", line.strip())
    GLib.idle_add(loop.quit)  # once it runs: before, it would be forgotten


if __name__ == "__main__":
    main()
