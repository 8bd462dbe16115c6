"""Output paths: written whole, only where they were meant to be."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfda_edge.errors import RunError
from sfda_edge.runs.files import write_text

PARTS = st.one_of(
    st.text(max_size=12).filter(lambda part: "/" not in part and part not in ("", ".", "..")),
    st.sampled_from(["a" * 300, "new\nline", "\x1b[2J", ".hidden", "-rf", "\udce9", "nul\0byte"]),
)


def tree(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and not p.is_symlink()}


@settings(max_examples=100)
@given(parts=st.lists(PARTS, min_size=1, max_size=3), text=st.text(max_size=20))
def test_any_path_is_written_whole_or_named_in_an_error(tmp_path_factory, parts, text):
    folder = tmp_path_factory.mktemp("out")
    path = folder.joinpath(*parts)
    try:
        write_text(path, text)
    except (RunError, ValueError):
        assert tree(folder) == {}
    else:
        assert tree(folder) == {path: text.encode("utf-8", errors="backslashreplace")}


@pytest.mark.parametrize("name", [".out.json.part", "out.json"])
def test_a_link_in_the_way_leads_nowhere(tmp_path, name):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / name).symlink_to(victim)
    write_text(tmp_path / "out.json", "new")
    assert victim.read_text() == "precious"
    assert (tmp_path / "out.json").read_text() == "new"
    assert not (tmp_path / "out.json").is_symlink()


def test_a_folder_in_the_way_stays(tmp_path):
    (tmp_path / "out.json").mkdir()
    (tmp_path / "out.json" / "file").write_text("precious")
    with pytest.raises(RunError, match=r"cannot write .*out\.json"):
        write_text(tmp_path / "out.json", "new")
    assert (tmp_path / "out.json" / "file").read_text() == "precious"
