import numpy as np
import official_layouts as official
import pytest
from PIL import Image

from sfda_edge.cli.main import main
from sfda_edge.data.check import check_split
from sfda_edge.data.datasets import DATASETS


def test_every_data_set_is_listed_with_where_it_is_found(capsys):
    assert main(["data", "list"]) == 0
    printed = capsys.readouterr().out
    for dataset in DATASETS.values():
        assert f"\n{dataset.name}: {dataset.title}\n" in f"\n{printed}"
        assert dataset.address.startswith("http")
        assert dataset.address in printed
        assert dataset.licence in printed
    assert "train (2975), val (500), test (1525)" in printed


def test_a_check_says_what_is_there_missing_and_broken(tmp_path, capsys):
    folder, out = tmp_path / "gta", tmp_path / "out"
    official.gta5(folder)
    (folder / "labels/00001.png").write_bytes(b"no image")
    official.picture(folder / "images/00003.png")
    assert main(["data", "check", "gta5", str(folder), "--out", str(out)]) == 1
    printed = capsys.readouterr().out
    assert "images       5 of 24966" in printed
    assert "known to be broken, left out: 2: 15188.png, 17705.png" in printed
    assert "without labels: 1: 00003.png" in printed
    assert "read         2, 1 of them cannot be used" in printed
    assert "00001.png: cannot identify image file" in printed
    assert ", label maps missing: 1, images or label maps that cannot be used: 1" in printed
    with Image.open(out / "gta5-all.jpg") as picture:
        assert picture.size[0] > 3 * 150


def test_labels_that_were_not_unpacked_are_missing(tmp_path, capsys, monkeypatch):
    import dataclasses
    import shutil

    official.kitti(tmp_path)
    shutil.rmtree(tmp_path / "training/semantic")
    whole = DATASETS["kitti"]
    splits = {name: dataclasses.replace(s, num_images=2) for name, s in whole.splits.items()}
    monkeypatch.setitem(DATASETS, "kitti", dataclasses.replace(whole, splits=splits))
    arguments = ["data", "check", "kitti", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--split", "training"]) == 1
    printed = capsys.readouterr().out
    assert "with labels  0\n" in printed
    assert printed.strip().splitlines()[-2] == "  not complete: no label map is there"
    assert main([*arguments, "--split", "testing"]) == 0
    assert "with labels  0, none are released" in capsys.readouterr().out


def test_a_check_counts_the_pixels_of_each_class(tmp_path):
    """34 numbers in turn over 64 columns: 0 to 29 stand twice, 30 to 33 once."""
    official.kitti(tmp_path)
    found = check_split(DATASETS["kitti"], tmp_path, "training")
    twice, once = 2 * 2 * 32, 2 * 32  # columns times images times rows
    numbers = {name: number for number, name in official.CITYSCAPES_IDS.items()}
    names = DATASETS["kitti"].label_space.names
    expected = [twice if numbers[name] < 30 else once for name in names]
    np.testing.assert_array_equal(found.counts.pixels, expected)
    assert (found.counts.images_with == 2).all()
    assert found.counts.ignored == 2 * 64 * 32 - sum(expected)
    assert found.lacking == ["images missing: 198"]
    assert "  not complete: images missing: 198" in found.text()
    assert f"{100 * twice / (2 * 64 * 32):.2f} %" in found.text()


def test_a_complete_set_is_exit_code_0_without_splits_that_are_not_there(
    tmp_path, capsys, monkeypatch
):
    import dataclasses

    official.camvid(tmp_path)
    whole = DATASETS["camvid"]
    splits = {name: dataclasses.replace(s, num_images=2) for name, s in whole.splits.items()}
    monkeypatch.setitem(DATASETS, "camvid", dataclasses.replace(whole, splits=splits))
    arguments = ["data", "check", "camvid", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    (tmp_path / "test").rename(tmp_path / "gone")
    assert main([*arguments, "--split", "train"]) == 0
    capsys.readouterr()
    assert main(arguments) == 0
    assert "camvid test: not there" in capsys.readouterr().out
    assert main(["data", "check", "camvid", str(tmp_path / "nowhere")]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"error: {tmp_path / 'nowhere'} does not exist\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gta6", "."], "unknown data set 'gta6'; known: gta5"),
        (["gta5", "empty"], "holds nothing of gta5; expected images/{frame}.png there"),
        (["gta5", "empty", "--split", "val"], "gta5 has no split 'val': all"),
    ],
)
def test_what_cannot_be_checked_is_exit_code_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert main(["data", "check", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_few_images_of_many_are_read_spread_over_the_split(tmp_path):
    for number in range(9):
        official.picture(tmp_path / f"testing/image_2/00000{number}_10.png")
    found = check_split(DATASETS["kitti"], tmp_path, "testing", most_read=3)
    assert (found.num_there, found.num_read) == (9, 3)
    assert [example.name for example in found.examples] == [
        "000000_10.png",
        "000004_10.png",
        "000008_10.png",
    ]
