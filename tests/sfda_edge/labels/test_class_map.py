import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfda_edge.errors import DataError
from sfda_edge.labels.class_map import class_map_names, load_class_map, packaged_class_map
from sfda_edge.labels.label_spaces import LABEL_SPACES, label_space
from sfda_edge.models.inference import mapped_probabilities
from sfda_edge.recipes.recipe import toml_value

CAMVID, CITYSCAPES20 = LABEL_SPACES["camvid"], LABEL_SPACES["cityscapes20"]


def test_a_file_that_is_missing_is_said_to_be(in_empty_folder):
    for named in ("mine.toml", "./mine.toml", f"{in_empty_folder}/mine.toml"):
        with pytest.raises(DataError, match=r"mine\.toml does not exist"):
            load_class_map(named, label_space("camvid"))
    with pytest.raises(DataError, match="unknown class map 'mine'; known: "):
        load_class_map("mine", label_space("camvid"))


@pytest.mark.parametrize("source", ["cityscapes", "cityscapes20"])
def test_cityscapes_classes_go_where_the_task_says(source):
    space = LABEL_SPACES[source]
    class_map = load_class_map("cityscapes-camvid", space)
    goes_to = {
        space.names[s]: CAMVID.names[t] for t, group in enumerate(class_map.groups) for s in group
    }
    assert len(goes_to) == 19
    assert goes_to["wall"] == "building"
    assert goes_to["rider"] == goes_to["motorcycle"] == "bicyclist"
    assert goes_to["terrain"] == "tree"
    assert "background" not in goes_to


def test_probabilities_are_summed():
    matrix = torch.tensor(load_class_map("cityscapes-camvid", CITYSCAPES20).matrix(20))
    logits = torch.randn(2, 20, 3, 4)
    mapped = mapped_probabilities(logits, matrix)
    expected = logits.softmax(1)[:, [13, 14, 15, 16]].sum(1)
    torch.testing.assert_close(mapped[:, CAMVID.names.index("car")], expected)
    background = logits.softmax(1)[:, 19]
    torch.testing.assert_close(mapped.sum(1), 1 - background)


def test_every_shipped_map_loads():
    for name in class_map_names():
        source, target = name.split("-")
        found = load_class_map(name, LABEL_SPACES[source])
        assert found.target == LABEL_SPACES[target]
        assert packaged_class_map(LABEL_SPACES[source], LABEL_SPACES[target]) == found
    assert packaged_class_map(LABEL_SPACES["camvid"], LABEL_SPACES["cityscapes"]) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found"),
        ('target = "camvid"\nmerge = 3\nextra = 1', "target and merge, and may have drop"),
        ('target = "camvid"\n[merge]\nroad = ["road"]', "must list the target's classes in order"),
        ("target = [", "not valid TOML"),
        ('target = "atlantis"\n[merge]', "unknown label space"),
    ],
)
def test_maps_that_do_not_fit_are_errors(tmp_path, text, message):
    path = tmp_path / "map.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load_class_map(str(path), CITYSCAPES20)


def write_map(tmp_path, **merge):
    lines = ['target = "two.toml"', "[merge]"]
    (tmp_path / "two.toml").write_text('names = ["x", "y"]')
    lines[0] = f'target = "{tmp_path / "two.toml"}"'
    lines += [f"{name} = {classes}" for name, classes in merge.items()]
    (tmp_path / "map.toml").write_text("\n".join(lines))
    return str(tmp_path / "map.toml")


def test_classes_left_over_doubled_or_unknown_are_named(tmp_path, three_classes):
    with pytest.raises(DataError, match="neither merged nor dropped: car"):
        load_class_map(write_map(tmp_path, x=["sky"], y=["road"]), three_classes)
    with pytest.raises(DataError, match="more than once: sky"):
        load_class_map(write_map(tmp_path, x=["sky"], y=["sky"]), three_classes)
    with pytest.raises(DataError, match="no class boat"):
        load_class_map(write_map(tmp_path, x=["sky", "road"], y=["boat"]), three_classes)


def test_a_label_space_from_a_file_gets_colours(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text('names = ["a", "b", "c"]\nignore_index = 9')
    space = label_space(str(path))
    assert space.names == ("a", "b", "c")
    assert len(set(space.palette)) == 3
    assert space.ignore_index == 9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names = 3", "must be a list of texts"),
        ('names = ["a"]', "2 to 255"),
        ("name = 1", "names, and may have palette"),
    ],
)
def test_impossible_label_spaces_are_errors(tmp_path, text, message):
    (tmp_path / "space.toml").write_text(text)
    with pytest.raises(DataError, match=message):
        label_space(str(tmp_path / "space.toml"))


NAMES = st.sampled_from([*CAMVID.names, *CITYSCAPES20.names, "nothing", "", "a\x1bb", "x" * 300])
VALUES = st.recursive(
    st.one_of(NAMES, st.integers(-3, 300), st.booleans(), st.floats(allow_nan=False)),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)
KEYS = ("names", "palette", "ignore_index", "target", "map", "groups", "classes", "other")


@settings(max_examples=150)
@given(content=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4), table=st.booleans())
def test_any_toml_is_a_map_or_space_or_an_error_with_its_name(tmp_path_factory, content, table):
    lines = [f"{key} = {toml_value(value)}" for key, value in content.items()]
    if table:
        lines += ["[classes_of]", *(f'"{n}" = ["{n}"]' for n in CAMVID.names[:3])]
    path = tmp_path_factory.getbasetemp() / "drawn.toml"
    path.write_text("\n".join(lines))
    for read in (label_space, lambda name: load_class_map(name, CITYSCAPES20)):
        message = "drawn.toml"
        try:
            read(str(path))
        except DataError as error:
            message = str(error)
        assert "drawn.toml" in message


@settings(max_examples=60)
@given(content=st.binary(max_size=120))
def test_any_bytes_are_no_map(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "random.toml"
    path.write_bytes(content)
    for read in (label_space, lambda name: load_class_map(name, CITYSCAPES20)):
        with pytest.raises(DataError, match=r"random\.toml"):
            read(str(path))
