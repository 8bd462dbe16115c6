import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.images import in_order
from sfda_edge.data.datasets.path_template import PathTemplate
from sfda_edge.errors import DataError

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


def test_an_ending_fits_in_any_case_and_nothing_else_does(tmp_path):
    touch(tmp_path, "a/1.JPG", "a/2.jpg", "A/3.jpg", "a/4.JPEG")
    found = [path.relative for path in PathTemplate("a/{frame}.jpg").find(tmp_path)]
    assert found == ["a/1.JPG", "a/2.jpg"]
    endings = [path.fields["ending"] for path in PathTemplate("a/{f}.{ending}").find(tmp_path)]
    assert endings == ["JPG", "jpg", "JPEG"], "a field is what stands there"


def test_what_is_filled_in_stays_below_the_folder(tmp_path):
    touch(tmp_path, "x...png")
    (path,) = PathTemplate("x{frame}.png").find(tmp_path)
    assert path.fields == {"frame": ".."}
    with pytest.raises(DataError, match="is not below its folder"):
        PathTemplate("{frame}/{frame}/secret.png").fill(path.fields)


PIECES = st.sampled_from(["a", "b", ".", "_", "{f}", "{g}", "/"])


@settings(max_examples=150)
@given(
    st.lists(PIECES, min_size=1, max_size=7).map("".join).filter(lambda text: "}{" not in text),
    st.lists(st.text("xy", min_size=1, max_size=4), min_size=2, max_size=2),
)
def test_a_template_of_any_pieces_finds_what_it_fills_in(tmp_path_factory, text, values):
    try:
        template = PathTemplate(text)
        path = template.fill({"f": values[0], "g": values[1]})
    except (ValueError, DataError):
        return
    if any(part.startswith(".") for part in path.split("/")):
        return  # hidden
    folder = tmp_path_factory.mktemp("pieces")
    touch(folder, path)
    found = [one for one in template.find(folder) if one.relative == path]
    assert len(found) == 1
    assert template.fill(found[0].fields) == path
    assert (folder / path).resolve().is_relative_to(folder.resolve())


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
