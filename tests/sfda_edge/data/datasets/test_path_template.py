import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.images import in_order
from sfda_edge.data.datasets.path_template import PathTemplate

NAMES = st.text("abc019_.-", min_size=1, max_size=6).filter(lambda name: not name.startswith("."))


def touch(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()


def test_fields_are_found_and_fill_another_path(tmp_path):
    touch(tmp_path, "left/b/b_2.png", "left/a/a_1.png", "left/a/c_1.png", "left/a/notes.txt")
    found = list(PathTemplate("left/{city}/{city}_{frame}.png").find(tmp_path))
    assert [path.relative for path in found] == ["left/a/a_1.png", "left/b/b_2.png"]
    assert found[0].fields == {"city": "a", "frame": "1"}
    assert PathTemplate("gt/{city}-{frame}.json").fill(found[1].fields) == "gt/b-2.json"


def test_hidden_files_and_folders_of_files_names_are_left_out(tmp_path):
    touch(tmp_path, "a/1.png", "a/._1.png", ".b/1.png", "a/2.png/inside.png")
    assert [p.relative for p in PathTemplate("{folder}/{frame}.png").find(tmp_path)] == ["a/1.png"]


def test_nothing_is_found_where_nothing_is(tmp_path):
    touch(tmp_path, "file")
    assert list(PathTemplate("a/{frame}.png").find(tmp_path)) == []
    assert list(PathTemplate("file/{frame}.png").find(tmp_path)) == []


def test_the_folders_before_the_first_field_are_its_start():
    assert PathTemplate("gtFine/val/{city}/{frame}.png").start() == "gtFine/val"
    assert PathTemplate("{frame}.png").start() == ""
    assert PathTemplate("labels/one.png").start() == "labels"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/etc/{frame}",
        "../{frame}.png",
        "a//b",
        "a/./b",
        "a/",
        "a\\b",
        "a/{Frame}",
        "a/{}",
        "{a",
    ],
)
def test_what_is_no_path_below_a_folder_is_rejected(text):
    with pytest.raises(ValueError, match=re.escape(f"'{text}'")):
        PathTemplate(text)


@settings(max_examples=60)
@given(st.lists(st.tuples(NAMES, NAMES), min_size=1, max_size=5, unique=True))
def test_what_is_filled_in_is_found_again(tmp_path_factory, pairs):
    """Whatever the names are, also those that mean something in a regular expression."""
    folder = tmp_path_factory.mktemp("template")
    template = PathTemplate("x.y/{drive}/({frame})+[a]_{drive}.png")
    paths = {template.fill({"drive": drive, "frame": frame}) for drive, frame in pairs}
    touch(folder, *paths)
    found = {path.relative: path.fields for path in template.find(folder)}
    assert set(found) == paths
    assert all(template.fill(fields) == path for path, fields in found.items())
    by_number = lambda path: [in_order(Path(part)) for part in path.split("/")]
    assert list(found) == sorted(found, key=by_number)


@settings(max_examples=200)
@given(st.text("ab/.{}\\*_\0", max_size=12))
def test_any_text_is_a_template_or_an_error_and_never_leaves_its_folder(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("any") / "a" / "b"
    folder.mkdir(parents=True)
    touch(folder.parent, "secret.png", "b/a.png")
    try:
        found = list(PathTemplate(text).find(folder))
    except ValueError:
        return
    assert all((folder / path.relative).resolve().is_relative_to(folder) for path in found)
