"""Settings of glibc's allocator, for work that allocates much or runs for weeks."""

from __future__ import annotations

import ctypes
import sys

# Parameters of mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8
_NEVER = 2**31 - 1
_TOP_PAD_BYTES = 256 << 20


def keep_freed_memory() -> bool:
    """Keep freed memory in the process: about a fifth less time for training on a CPU.

    glibc hands large blocks back to the kernel as soon as they are freed and takes them anew in the
    next layer, zeroed page by page. ESPNetv2 s2.0, batch 4 at 512x256, two cores, eight steps: 22.6
    s before, 10.3 of them in the kernel; 17.5 s after, 1.9 in the kernel
    (``benchmarks/results/adaptation.md``).

    Returns:
        False where there is no glibc.
    """
    return _set(
        (_MMAP_THRESHOLD, _NEVER),
        (_TRIM_THRESHOLD, _NEVER),
        (_TOP_PAD, _TOP_PAD_BYTES),
        (_ARENA_MAX, 1),
    )


def share_arenas() -> bool:
    """Let all threads allocate from two arenas: a stream's memory stays bounded.

    By default each new thread may get an arena of its own, which keeps what it once held; a camera
    that is lost and opened again starts new threads each time.

    Returns:
        False where there is no glibc.
    """
    return _set((_ARENA_MAX, 2))


def _set(*settings: tuple[int, int]) -> bool:
    """Call before the first thread, which has its arena by then."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False  # another C library, such as musl
    taken = [mallopt(parameter, value) == 1 for parameter, value in settings]
    return all(taken)
