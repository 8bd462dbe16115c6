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


def return_freed_memory() -> bool:
    """Give free memory back to the kernel, which glibc keeps in pieces between blocks in use.

    A camera that was lost and opened again leaves 1.3 MiB of such pieces each time; thirty losses
    took a stream from 160 to 206 MiB. It takes milliseconds.

    Returns:
        False where there is no glibc.
    """
    glibc = _glibc()
    if glibc is None:
        return False
    glibc.malloc_trim(0)
    return True


def _glibc() -> ctypes.CDLL | None:
    """The C library, if it is glibc."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        library = ctypes.CDLL(None)
        return library if library.mallopt and library.malloc_trim else None
    except (OSError, AttributeError):
        return None  # another C library, such as musl


def _set(*settings: tuple[int, int]) -> bool:
    """Call before the first thread, which has its arena by then."""
    glibc = _glibc()
    if glibc is None:
        return False
    taken = [glibc.mallopt(parameter, value) == 1 for parameter, value in settings]
    return all(taken)
