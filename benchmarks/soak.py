"""python -m benchmarks.soak: a stream for half an hour, with a fault a minute, and ten kills.

    file   the packaged clip in a loop
    rtsp   a real RTSP server that is killed, hangs, freezes and changes its size
    kill   ten recordings that end with SIGKILL at a random moment

The stream is a process of its own, watched from outside: its memory, and through its page's
``/status`` its state and counts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.kills import kill_recordings
from benchmarks.measuring.machine import machine_record
from benchmarks.measuring.program import exit_code_of
from benchmarks.measuring.rows import Invocation, invocation
from benchmarks.records import output_file, write_record
from benchmarks.rtsp_camera import MOVING, NEEDED_PACKAGES, RtspCamera, can_serve
from runtime.arguments import positive, positive_number
from runtime.errors import StreamError
from runtime.output import print_error, print_result, start_output
from runtime.packaged import CLIP

WARM_UP_S = 60.0
FAULT_EVERY_S = 60.0
MOST_GROWTH_MIB = 20.0
MOST_RECONNECT_S = 5.0
KILLS = 10
_LOOK_S = 0.25
_BACK_S = 30.0
_MIB = 1 << 20


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description="Run a stream for long, with faults."
    )
    parser.add_argument("what", choices=("file", "rtsp", "kill"))
    parser.add_argument("--minutes", type=positive_number, default=30.0, help="default: 30")
    parser.add_argument("--kills", type=positive, default=KILLS, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    parser.add_argument("--out", type=output_file, metavar="FILE.json", help="write a record")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; 1 when a limit was exceeded."""
    start_output()
    args = build_parser().parse_args(arguments)
    if args.what != "file" and not can_serve():
        print_error(f"a soak on RTSP needs Debian's {NEEDED_PACKAGES}")
        return 2
    signal.signal(signal.SIGTERM, _stopped)
    begun = invocation("benchmarks.soak", arguments)
    return exit_code_of(lambda: _run(args, begun))


def _stopped(_number: int, _frame: object) -> NoReturn:
    """End by way of every ``finally``: the stream and the camera must not outlive this process."""
    raise SystemExit(128 + signal.SIGTERM)


def _run(args: argparse.Namespace, begun: Invocation) -> int:
    random.seed(args.seed)
    if args.what == "kill":
        record = kill_recordings(args.kills)
    elif args.what == "file":
        record = soak([str(CLIP), "--loop", "--threads", "1"], 60 * args.minutes)
    else:
        with RtspCamera(640, 480, MOVING) as camera:
            command = [camera.url, "--threads", "1"]
            record = soak(command, 60 * args.minutes, _Faults(camera))
    origin = {"command": begun.command, "commit": begun.commit, "machine": machine_record()}
    record = {"what": args.what, **record, **origin}
    print_result(json.dumps(record, indent=1))
    if args.out is not None:
        write_record(args.out, record)
    return 1 if record["exceeded"] else 0


class Watched:
    """A running stream.

    Attributes:
        process: of the stream.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        words = [sys.executable, "-m", "runtime.stream", *command, "--serve", "127.0.0.1:0"]
        self._log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=file, text=True)
        self._url = ""

    def status(self) -> dict[str, Any]:
        """State and counts now.

        Raises:
            StreamError: the stream has ended, or does not answer.
        """
        end_s = time.monotonic() + 20
        while time.monotonic() < end_s:
            if self.process.poll() is not None:
                raise StreamError(f"the stream ended with {self.process.returncode}: {self.tail()}")
            with contextlib.suppress(OSError, ValueError):
                return self._asked()
            time.sleep(_LOOK_S)
        raise StreamError(f"the stream's page does not answer: {self.tail()}")

    def _asked(self) -> dict[str, Any]:
        if not self._url:
            found = re.search(r"page: (http://\S+/)", self._log.read_text())
            if found is None:
                raise ValueError("it serves no page yet")
            self._url = found[1]
        with urllib.request.urlopen(f"{self._url}status", timeout=5) as answer:
            return dict(json.load(answer))

    def memory_mib(self) -> float:
        """Resident, now."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / _MIB

    def tail(self) -> str:
        """The end of its log."""
        return self._log.read_text()[-2000:]

    def finish(self) -> str:
        """End it as a service manager does; its summary.

        Raises:
            StreamError: it did not end well.
        """
        self.process.send_signal(signal.SIGTERM)
        summary, _ = self.process.communicate(timeout=20)
        if self.process.returncode != 0:
            raise StreamError(f"it ended with {self.process.returncode}: {self.tail()}")
        return summary


class _Faults:
    """One fault after the other.

    Attributes:
        back_s: seconds from the server's return until the stream is live, with the fault's name.
    """

    def __init__(self, camera: RtspCamera) -> None:
        self._camera = camera
        self._next: list[str] = []
        self.back_s: list[tuple[str, float]] = []

    def one(self, watched: Watched) -> None:
        """Cause a fault, take it away, and wait until the stream is live."""
        if not self._next:
            self._next = random.sample(["kill", "hang", "freeze", "size"], 4)
        name = self._next.pop()
        wait_s = random.uniform(2, 12)
        if name == "freeze":
            self._camera.show("white")
            time.sleep(wait_s)
            self._camera.show(MOVING)
        elif name == "hang":
            self._camera.pause()
            time.sleep(wait_s)
            self._camera.resume()
        else:
            self._camera.kill()
            time.sleep(wait_s)
            self._camera.start(*random.choice([(640, 480), (320, 240), (854, 480)]))
        start_s = time.monotonic()
        while not _is_live(watched.status()):
            if time.monotonic() - start_s > _BACK_S:
                raise StreamError(f"not live {_BACK_S:g} s after '{name}': {watched.tail()}")
            time.sleep(0.05)
        self.back_s.append((name, time.monotonic() - start_s))


def _is_live(status: dict[str, Any]) -> bool:
    """Live, with a new frame: a server that was back at once may not have been missed yet."""
    return status["state"] == "live" and status["age_ms"] is not None and status["age_ms"] < 1000


def soak(command: Sequence[str], seconds: float, faults: _Faults | None = None) -> dict[str, Any]:
    """Watch a stream for so long.

    Raises:
        StreamError: the stream ended, or did not come back.
    """
    with tempfile.TemporaryDirectory() as folder:
        watched = Watched(command, Path(folder) / "log")
        try:
            samples = list(_sampled(watched, seconds, faults))
            summary = watched.finish()
        finally:
            watched.process.kill()
            watched.process.wait()
    found = re.search(r"(\d+) read, (\d+) segmented, (\d+) dropped", summary)
    if found is None:
        raise StreamError(f"no summary in {summary!r}")
    counts = [int(count) for count in found.groups()]
    warm = [memory for at_s, memory in samples if at_s >= min(WARM_UP_S, seconds / 2)]
    backs = [] if faults is None else faults.back_s
    growth_mib = round(max(warm) - warm[0], 1)
    record = {
        "minutes": round(seconds / 60, 1),
        "frames": dict(zip(("read", "segmented", "dropped"), counts, strict=True)),
        "memory_mib": {"warm": round(warm[0], 1), "end": round(warm[-1], 1)},
        "memory_growth_mib": growth_mib,
        "faults": len(backs),
        "live_again_s": {
            name: round(max(s for n, s in backs if n == name), 2) for name in {n for n, _ in backs}
        },
        "summary": summary,
    }
    checks = {
        "read = segmented + dropped": counts[0] == counts[1] + counts[2],
        "memory": growth_mib < MOST_GROWTH_MIB,
        "live again": all(took_s < MOST_RECONNECT_S for _, took_s in backs),
    }
    return {**record, "exceeded": [name for name, holds in checks.items() if not holds]}


def _sampled(
    watched: Watched, seconds: float, faults: _Faults | None
) -> Iterator[tuple[float, float]]:
    """Seconds and memory, every second; a fault a minute."""
    watched.status()
    start_s = time.monotonic()
    next_fault_s = FAULT_EVERY_S / 2
    while (at_s := time.monotonic() - start_s) < seconds:
        status = watched.status()
        yield at_s, watched.memory_mib()
        if faults is not None and at_s >= next_fault_s:
            next_fault_s += FAULT_EVERY_S
            faults.one(watched)
        elif int(at_s) % 60 == 0:
            print(f"{at_s / 60:.0f} min: {status['state']}, {watched.memory_mib():.0f} MiB",
                  file=sys.stderr)  # fmt: skip
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main())
