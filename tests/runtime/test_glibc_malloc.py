"""What glibc keeps in pieces goes back to the kernel."""

import ctypes
import resource
import sys
from pathlib import Path

import pytest

from runtime import glibc_malloc

MIB = 1 << 20


def resident_mib():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / MIB


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
def test_free_pieces_between_blocks_in_use_are_given_back():
    glibc = glibc_malloc._glibc()
    if glibc is None:
        pytest.skip("another C library")
    malloc, free = glibc.malloc, glibc.free
    malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    free.argtypes = [ctypes.c_void_p]
    blocks = [malloc(60_000) for _ in range(2000)]
    for block in blocks:
        ctypes.memset(block, 1, 60_000)
    kept = blocks[19::20]  # the last one keeps the heap from shrinking by itself
    for index, block in enumerate(blocks):
        if index % 20 != 19:
            free(block)
    before_mib = resident_mib()
    assert glibc_malloc.return_freed_memory()
    assert resident_mib() < before_mib - 60
    for block in kept:
        free(block)


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(glibc_malloc, "_glibc", lambda: None)
    assert not glibc_malloc.return_freed_memory()
    assert not glibc_malloc.keep_freed_memory()
