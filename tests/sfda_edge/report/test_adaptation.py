import base64
import io
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from sfda_edge.methods.sfda.pictures import patch_grid
from sfda_edge.report.adaptation import run_section, views_section
from sfda_edge.report.contact_sheet import contact_sheet
from sfda_edge.report.illustrations import illustration_section
from sfda_edge.report.page import Page, Section, picture_url, write_page
from sfda_edge.selection.expected_score import ExpectedScore
from sfda_edge.selection.test_time_ensemble import View
from sfda_edge.selection.view_search import SelectedViews, search_views


def test_a_page_needs_no_other_file_and_escapes_its_text(tmp_path):
    picture = picture_url(np.zeros((4, 4, 3), np.uint8))
    sections = [Section("<b>", table=[["", "x"], ["a & b", "1"]], picture=picture)]
    write_page(tmp_path / "page.html", Page("A <title>", "text", sections))
    html = (tmp_path / "page.html").read_text()
    assert "<b>" not in html
    assert "A &lt;title&gt;" in html
    assert "<th>x</th>" in html
    assert "<td>a &amp; b</td>" in html
    assert 'src="data:image/jpeg;base64,' in html
    assert "http" not in html


def test_rows_stand_under_their_titles_and_over_the_legend(three_classes):
    rows = [[np.zeros((20, 30, 3), np.uint8), np.full((20, 30, 3), 9, np.uint8)]] * 3
    sheet = contact_sheet(rows, ["image", "prediction"], three_classes, row_height=40)
    lines_of_legend = 2  # three names do not fit into 124 pixels
    assert sheet.shape == (22 + 3 * 44 + lines_of_legend * 22, 60 + 4 + 60, 3)
    assert {tuple(c) for c in sheet[154:].reshape(-1, 3)} >= set(three_classes.palette)
    assert (sheet[30, 70] == 9).all()


def test_the_table_of_views_says_which_are_in_the_consensus_and_how():
    small, large = View((4, 8), 0.3), View((6, 12), 0.3)
    by_share = {View((4, 8), 0.0): ExpectedScore(0.2, 0.7), small: ExpectedScore(0.4, 0.75)}
    by_size = {small: ExpectedScore(0.5, 0.8), large: ExpectedScore(0.6, 0.9)}
    for second, expected in (
        (small, ["mirrored", "plain"]),
        (large, ["", "plain and mirrored"]),
    ):
        kept = large, replace(second, mirrored=True)
        views = SelectedViews(
            kept=kept,
            by_share=by_share,
            by_size=by_size,
            consensus=torch.zeros(0),
            agreement=torch.zeros(0),
            probe=(),
        )
        section = views_section(views)
        assert section.table[1:3] == [
            ["shares", "8x4", "0.0", "0.200", "0.700", ""],
            ["shares", "8x4", "0.3", "0.400", "0.750", ""],
        ]
        assert section.table[3:] == [
            ["sizes", "8x4", "0.3", "0.500", "0.800", expected[0]],
            ["sizes", "12x6", "0.3", "0.600", "0.900", expected[1]],
        ]


def test_of_an_odd_batch_the_middle_patch_is_neither_easy_nor_hard(three_classes):
    images = torch.zeros(3, 3, 32, 32, dtype=torch.uint8)
    grid = patch_grid(images, torch.tensor([[0.3], [0.1], [0.2]]), 1)
    section = illustration_section(grid, three_classes)
    picture = Image.open(io.BytesIO(base64.b64decode(section.picture.partition(",")[2])))
    hard, easy, neither = (np.array(picture)[:30, x : x + 30] for x in (0, 36, 72))
    frame = 1, 15
    assert hard[frame][0] > 150 > hard[frame][1]
    assert easy[frame][1] > 120 > easy[frame][0]
    assert neither[frame].max() < 30


def test_a_page_says_which_run_it_is_of():
    inputs = {
        "method": "tent",
        "recipe": {"steps": 7, "fake_hw": [128, 256]},
        "model": "lite0_fpn_tiny",
        "size": "384x192",
        "precision": "bf16",
        "weights": "/models/city.safetensors",
        "weights_sha256": 64 * "a",
        "images": "/drives/night",
        "device": "cuda:1",
    }
    facts = {"inputs": inputs, "versions": {"torch": "9.9"}, "started": "today", "threads": 3}
    said = dict(run_section(facts).table)
    assert said["settings"] == "steps = 7, fake_hw = [128, 256]"
    assert said["model"] == "lite0_fpn_tiny at 384x192, bf16"
    assert said["weights"] == "/models/city.safetensors (sha256 aaaaaaaaaaaa…)"
    assert said["target images"] == "/drives/night"
    assert said["started"] == "today, cuda:1, 3 threads"


def test_views_are_listed_by_size_and_share(make_task):
    """The search finds them in another order: the best share and the input size first."""
    views = search_views(make_task())
    rows = views_section(views).table[1:]
    for compared, count in (("shares", len(views.by_share)), ("sizes", len(views.by_size))):
        listed = [row for row in rows if row[0] == compared]
        places = [(*map(int, row[1].split("x")[::-1]), float(row[2])) for row in listed]
        assert len(places) == count
        assert places == sorted(places)
