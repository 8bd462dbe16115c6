import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.files import (
    Locked,
    create_temporary,
    exclusive_lock,
    printable,
    read_text,
    require_regular,
)


@pytest.mark.parametrize("kind", ["fifo", "folder", "nothing", "device"])
def test_only_regular_files_are_read(kind, tmp_path):
    path = tmp_path / "file"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path = type(path)("/dev/zero")
    with pytest.raises(OSError):  # noqa: PT011 - each kind has its own message
        read_text(path)


def test_a_regular_file_is_read(tmp_path):
    (tmp_path / "file").write_text("größe", encoding="utf-8")
    require_regular(tmp_path / "file")
    assert read_text(tmp_path / "file") == "größe"


@given(st.text())
def test_what_is_printed_acts_on_no_terminal(text):
    shown = printable(text)
    assert all(character.isprintable() or character == "\n" for character in shown)
    assert all(line.startswith("  ") for line in shown.split("\n")[1:])


def test_our_own_lines_stay_and_foreign_ones_do_not():
    assert printable("two problems:\n  a.png\n  b.png") == "two problems:\n  a.png\n  b.png"
    assert printable("a\x1b[31m\nb\udcff") == "a\\x1b[31m\\nb\\udcff"
    assert printable("a\0  b") == "a\\x00  b", "a zero byte is no line break of ours"


def test_a_lock_is_held_by_one_and_gone_afterwards(tmp_path):
    path = tmp_path / "lock"
    with exclusive_lock(path):
        found = []

        def try_it():
            try:
                with exclusive_lock(path):
                    found.append("held twice")
            except Locked:
                found.append("locked")

        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join()
        assert found == ["locked"]
    assert not path.exists()


def test_locks_and_temporary_files_follow_no_links(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "lock").symlink_to(precious)
    with pytest.raises(OSError, match="symbolic link"), exclusive_lock(tmp_path / "lock"):
        pass
    (tmp_path / ".out.part").symlink_to(precious)
    temporary = create_temporary(tmp_path / "out")
    assert not temporary.is_symlink()
    temporary.write_text("new")
    assert precious.read_text() == "mine"
