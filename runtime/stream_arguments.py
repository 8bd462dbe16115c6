"""The command line of runtime.stream."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from runtime.arguments import (
    BUFFER_POLICIES,
    ON_LOSS,
    PAGE_ADDRESS,
    Parser,
    address,
    cpu_list,
    natural,
    num_threads,
    positive,
    positive_number,
    size_hw,
)

EPILOG = """\
SOURCE
  camera0            a V4L2 camera, /dev/video0; or /dev/v4l/by-id/NAME
  rtsp:// http://    a network stream, or a video file's URL
  FILE               a video: every frame is segmented
  FOLDER  "IM*.png"  its images, by number or name
  replay:FILE.mcap   a recording, compared with what it recorded
  gst:PIPELINE       what a GStreamer pipeline gives;  csi0  a camera of the board
  streetsynth        the clip that ships with the package

examples
  python -m runtime.stream camera0 --bundle bundle/ --serve
  python -m runtime.stream drive.mp4 --bundle bundle/ --save out.mp4 --jsonl out.jsonl
  python -m runtime.stream --config stream.toml
"""


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program."""
    parser = Parser(
        prog="python -m runtime.stream",
        description="Segment a live stream, show it, save it, measure it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    return parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments, for ``sfda-edge stream`` as well."""
    parser.add_argument(
        "source", metavar="SOURCE", nargs="?", help="where frames come from, see below"
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE.toml",
        help="the flags in a file, for one source or several that share the model",
    )
    parser.add_argument(
        "--bundle",
        type=Path,
        metavar="DIR",
        help="what sfda-edge export made (default: ./bundle, else the packaged one)",
    )
    parser.add_argument(
        "--backend", default="auto", help="what runs the model: auto (the default), onnxruntime, …"
    )
    parser.add_argument(
        "--threads",
        type=num_threads,
        default=0,
        metavar="N",
        help="threads of one inference (default: the backend's choice)",
    )
    parser.add_argument(
        "--cpus", type=cpu_list, metavar="LIST", help="processors to use, such as 0-3,6"
    )
    parser.add_argument(
        "--batch",
        type=positive,
        metavar="N",
        help="most images of several sources at once, for a bundle exported with --dynamic-batch",
    )
    parser.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="default: %(default)s"
    )
    parser.add_argument("--frames", type=positive, metavar="N", help="stop after N frames")
    parser.add_argument("--loop", action="store_true", help="begin a file again at its end")
    _add_output_arguments(parser.add_argument_group("outputs"))
    _add_live_arguments(parser.add_argument_group("live sources"))
    _add_camera_arguments(parser.add_argument_group("cameras"))


def flags_beside_config(args: argparse.Namespace) -> list[str]:
    """The flags that were given beside ``--config``."""
    defaults = vars(build_parser().parse_args([]))
    given = [name for name, value in defaults.items() if getattr(args, name) != value]
    return [f"--{name.replace('_', '-')}" for name in given if name != "config"]


def _add_output_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--show", action="store_true", help="show the overlay in a window; q ends")
    group.add_argument("--save", type=Path, metavar="FILE", help="save the overlay: .mp4 .mkv .avi")
    group.add_argument(
        "--labels",
        type=Path,
        metavar="DIR|FILE.mkv",
        help="save the label maps: PNGs in a folder, or a lossless video",
    )
    group.add_argument(
        "--jsonl",
        metavar="FILE",
        help="a JSON line a frame; - is standard output",
    )
    group.add_argument(
        "--record",
        type=Path,
        metavar="FILE.mcap",
        help="record frames, label maps and results for replay:FILE.mcap, Foxglove or Rerun",
    )
    group.add_argument(
        "--split-minutes",
        type=positive_number,
        metavar="N",
        help="begin new files every N minutes; their names need codes such as %%H%%M",
    )
    group.add_argument(
        "--trace", type=Path, metavar="FILE.json", help="the time line of every frame, for Perfetto"
    )
    group.add_argument(
        "--serve",
        type=address,
        nargs="?",
        const=address(PAGE_ADDRESS),
        metavar="HOST:PORT",
        help=f"a page with the live picture, and /metrics ({PAGE_ADDRESS})",
    )


def _add_live_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--reconnect",
        type=natural,
        metavar="N",
        help="attempts to open a lost source again (default: without end)",
    )
    group.add_argument(
        "--on-loss",
        choices=ON_LOSS,
        default="hold",
        help="while no frame comes: repeat the last result, a blank one, or stop (%(default)s)",
    )
    group.add_argument(
        "--stale-after",
        type=positive_number,
        default=1.0,
        metavar="S",
        help="seconds without a frame until a source is stale (%(default)s)",
    )
    group.add_argument(
        "--lost-after",
        type=positive_number,
        default=5.0,
        metavar="S",
        help="seconds without a frame until it is opened again (%(default)s)",
    )
    group.add_argument(
        "--buffer",
        choices=BUFFER_POLICIES,
        default="newest",
        help="frames that the model gets when it is slower than the source (%(default)s)",
    )
    group.add_argument(
        "--deadline-ms",
        type=positive_number,
        metavar="MS",
        help="count results that are done later than this after capture; with --buffer "
        "every-with-deadline, skip frames that are older before the model begins",
    )


def _add_camera_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--size", type=size_hw, metavar="WxH", help="size of its pictures")
    group.add_argument("--fps", type=positive_number, metavar="N", help="frames a second")
    group.add_argument(
        "--format", type=_pixel_format, metavar="CODE", help="pixel format: MJPG, YUYV, …"
    )


def _pixel_format(text: str) -> str:
    """Four letters or digits."""
    if not re.fullmatch(r"[A-Za-z0-9]{4}", text):
        raise argparse.ArgumentTypeError(f"expected four letters such as MJPG, got '{text}'")
    return text.upper()
