"""README and docs: length, links, and every command and snippet in them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from benchmarks import (
    before_after,
    data_parallel,
    device_check,
    efficiency,
    engines,
    soak,
    throughput,
)
from benchmarks import stream as stream_benchmark
from benchmarks.adaptation import __main__ as adaptation_benchmark
from benchmarks.pareto import __main__ as pareto
from benchmarks.peers import __main__ as peers
from benchmarks.protocol import __main__ as protocol
from benchmarks.report import __main__ as report
from benchmarks.scale import __main__ as scale
from export.engine import __main__ as engine
from runtime import doctor, stream
from runtime.bundle.labels import LabelSpace
from runtime.config import read_config
from runtime.packaged import BUNDLE_DIR, CLIP
from runtime.stream_arguments import add_arguments
from sfda_edge.cli import main as cli
from sfda_edge.data import open_images
from sfda_edge.labels.class_map import load_class_map
from sfda_edge.labels.label_spaces import label_space

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = sorted({*DOCS, *ROOT.glob("*.md"), *(ROOT / "benchmarks").rglob("*.md")})
PARSERS = {
    "sfda-edge": cli.build_parser,
    "torchrun --nproc_per_node=4 -m sfda_edge.cli": cli.build_parser,
    "python -m runtime.doctor": doctor.build_parser,
    "python -m runtime.stream": stream.build_parser,
    "python -m export.engine": engine.build_parser,
    "python -m benchmarks.stream": stream_benchmark.build_parser,
    "python -m benchmarks.peers": peers.build_parser,
    "python -m benchmarks.pareto": pareto.build_parser,
    "python -m benchmarks.report": report.build_parser,
    "python -m benchmarks.throughput": throughput.build_parser,
    "python -m benchmarks.protocol": protocol.build_parser,
    "python -m benchmarks.engines": engines.build_parser,
    "python -m benchmarks.before_after": before_after.build_parser,
    "python -m benchmarks.data_parallel": data_parallel.build_parser,
    "python -m benchmarks.device_check": device_check.build_parser,
    "python -m benchmarks.efficiency": efficiency.build_parser,
    "python -m benchmarks.scale": scale.build_parser,
    "python -m benchmarks.soak": soak.build_parser,
    "python -m benchmarks.adaptation": adaptation_benchmark.build_parser,
}
# Commands that other tests or CI run, or that need what no test machine has.
ONLY_PARSED = {
    "camera0": "needs a camera",
    "--serve": "serves until it is stopped; tests/runtime/page",
    "rtsp://": "needs a network camera; tests/runtime/sources has a server",
    "export.engine": "needs TensorRT; tests/export/engine builds with TensorRT for RTX",
    "torchrun": "tests/sfda_edge/runs/test_distributed.py starts processes",
    "city.pth": "needs weights; tests/sfda_edge/models loads such files",
    "$": "needs the real data; tests with SFDA_EDGE_REAL_DATA use it",
    "camvid:": "needs CamVid; tests with SFDA_EDGE_REAL_DATA use it",
    "benchmarks.before_after": "adapts for minutes; it draws the picture of the README",
    "benchmarks.": "takes minutes; tests/benchmarks runs each on little data",
    "--resume": "needs a killed run; tests/sfda_edge/cli has one",
    "home.safetensors": "needs a run that changed weights; tests/sfda_edge/cli and export have one",
    "--show": "needs a display",
    "--int8": "takes minutes; tests/export/precision has it",
    "--method sfda": "takes minutes; tests/sfda_edge/methods has it",
    "--profile jetpack6": "tests/export has every profile",
    "data check": "needs a whole data set; tests/sfda_edge/cli/test_data.py has small ones",
    "recipe.toml": "needs a run of that name",
    "bundle-2026-12": "needs a second bundle",
    "drive.mcap": "needs a recording; tests/runtime/test_replay.py makes one",
    "stream.toml": "needs cameras; tests/runtime/test_config.py runs such files",
}
# What makes a command short: the same code on fewer and smaller images.
SHORTER = {
    "sfda-edge adapt": "--method bn --size 96x48",
    "sfda-edge synth": "--scenes 0:1",
    "sfda-edge export": "--set gate_images=2 --set fp16.class_iou=0.5",
    "python -m runtime.stream": "--frames 3",
}


def indented_commands(page: Path) -> list[str]:
    """Commands of the indented blocks, continuation lines joined, and those of tables."""
    text = page.read_text(encoding="utf-8")
    block = "\n".join(line[4:] for line in text.splitlines() if line.startswith("    "))
    lines = [line.partition("  #")[0].strip() for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`((?:sfda-edge \w+|python -m \S+|torchrun) [^`\n]+)`", text)
    return [line for line in lines if line.startswith(tuple(PARSERS))]


def commands() -> list[str]:
    found = dict.fromkeys(command for page in DOCS for command in indented_commands(page))
    assert len(found) >= 40
    return list(found)


def reason_not_to_run(command: str) -> str:
    return next((why for part, why in ONLY_PARSED.items() if part in command), "")


def filled_in(command: str) -> str:
    """The command with the page's shell variables replaced."""
    page = next(p for p in DOCS if command in indented_commands(p))
    variables = dict(re.findall(r"^    ([A-Z]+)=(.+)$", page.read_text(), re.MULTILINE))
    for name, value in {**variables, "DATA": "data"}.items():
        command = command.replace(f"${name}", value.strip('"'))
    return command.partition(" > ")[0].replace("$DATA", "data")


@pytest.mark.parametrize("command", commands())
def test_every_command_parses(command):
    command = filled_in(command)
    program = max((name for name in PARSERS if command.startswith(name)), key=len)
    PARSERS[program]().parse_args(shlex.split(command.removeprefix(program)))


def small_image(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(value)
    Image.fromarray(random.integers(0, 255, (48, 96, 3), np.uint8)).save(path)


def describe_a_data_set(folder: Path) -> None:
    """The TOML file of the page about data, and images and labels that it describes."""
    page = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    (folder / "drives.toml").write_text(re.findall(r"```toml\n(.*?)```", page, re.DOTALL)[0])
    for index in range(4):
        small_image(folder / f"frames/monday/{index}.jpg", index)
        (folder / "masks/monday").mkdir(parents=True, exist_ok=True)
        labels = np.full((48, 96), 26, np.uint8)
        Image.fromarray(labels).save(folder / f"masks/monday/{index}_mask.png")


def test_the_masks_of_the_page_about_data_are_read(in_empty_folder):
    page = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    _, masks = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (in_empty_folder / "masks.toml").write_text(masks)
    for name, pixels in (
        ("frames/1.jpg", np.zeros((2, 2, 3), np.uint8)),
        ("masks/1.png", np.array([[0, 255], [255, 0]], np.uint8)),
    ):
        Path(name).parent.mkdir()
        Image.fromarray(pixels).save(name)
    (sample,) = open_images("masks.toml").samples
    assert sample.label_map().tolist() == [[0, 1], [1, 0]]


def test_the_files_of_the_page_about_adapting_describe_classes(in_empty_folder):
    page = (ROOT / "docs/adapt.md").read_text(encoding="utf-8")
    space, class_map = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (in_empty_folder / "mine.toml").write_text(space)
    (in_empty_folder / "map.toml").write_text(class_map)
    found = label_space("mine.toml")
    assert found.names == ("nature", "building", "ground")
    names = ("tree", "grass", "road", "pavement", "building", "wall", "sky")
    model = LabelSpace(names, tuple((0, 0, number) for number in range(7)))
    assert load_class_map("map.toml", model).groups == ((0, 1), (4, 5), (2, 3))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder with what the pages take for granted: images, labels, a video, bundles, a run."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("images", "night", "val"):
        for index in range(4):
            small_image(folder / name / f"{index}.png", index)
    for name in ("night_labels", "val_labels"):
        (folder / name).mkdir()
        for index in range(4):
            labels = np.random.default_rng(index).integers(0, 3, (48, 96), np.uint8)
            Image.fromarray(labels).save(folder / name / f"{index}.png")
    describe_a_data_set(folder)
    shutil.copy(CLIP, folder / "drive.mp4")
    for name in ("bundle", "bundle16", "jetson"):
        shutil.copytree(BUNDLE_DIR, folder / name)
    shutil.copy(ROOT / "constraints.txt", folder)
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("few_views", "exported_once")
def test_the_commands_run_one_after_the_other(workspace, monkeypatch, capfd):
    """As a reader would type them, page by page; each ends with exit code 0."""
    monkeypatch.chdir(workspace)
    run = [command for command in commands() if not reason_not_to_run(command)]
    assert len(run) >= 15
    for command in run:
        command = filled_in(command)
        program = next(name for name in PARSERS if command.startswith(name))
        words = shlex.split(command.removeprefix(program))
        if command.startswith("sfda-edge export runs/mine"):
            words[1] = "runs/latest"
        start = next((start for start in SHORTER if command.startswith(start)), None)
        if start == "sfda-edge adapt" and "--recipe" in words:
            words += ["--set", "steps=2", "--set", "batch_size=2", "--set", "fake_hw=[32,64]"]
            words += ["--size", "96x48"]
        elif start is not None:
            words += shlex.split(SHORTER[start])
        status = call(program, words)
        found = capfd.readouterr()
        if ">" in commands_with_output(command):
            Path(commands_with_output(command)[">"]).write_text(found.out)
        assert status == 0, f"{command}\n{found.out}\n{found.err}"


def commands_with_output(command: str) -> dict[str, str]:
    """The file that a command's output goes to, if it is redirected."""
    original = next(c for c in commands() if filled_in(c) == command)
    _, mark, file = original.partition(" > ")
    return {">": file} if mark else {}


def call(program: str, words: list[str]) -> int:
    if words[:1] == ["synth"]:  # panda3d draws once a process
        return subprocess.run(
            [sys.executable, "-m", "sfda_edge.cli", *words], check=False
        ).returncode
    module = {
        "sfda-edge": cli,
        "python -m runtime.doctor": doctor,
        "python -m runtime.stream": stream,
    }[program]
    return module.main(words) or 0


def snippets() -> list[tuple[str, str]]:
    found = []
    for page in DOCS:
        for code in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            found.append((page.name, code))
    assert len(found) >= 6
    return found


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": self.head(self.body(images))}


@pytest.mark.parametrize(("page", "code"), snippets(), ids=[name for name, _ in snippets()])
def test_every_snippet_runs(page, code, workspace, monkeypatch, capsys):
    import sfda_edge

    monkeypatch.chdir(workspace)
    torch.manual_seed(0)
    network = Network()
    model = sfda_edge.load_model(network, class_names=("sky", "road", "car"), size_hw=(48, 96))
    names = {"network": network, "model": model}
    if "run," in code and "run =" not in code:
        names["run"] = sfda_edge.adapt(model, "images", settings={"steps": 2})
    exec(compile(code.replace('"steps": 20', '"steps": 2'), page, "exec"), names)
    assert capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((?!https?://)([^)#]+)(?:#([^)]+))?\)", text):
        assert (page.parent / target).exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", (page.parent / target).read_text(), re.MULTILINE)
            assert anchor in [heading.lower().replace(" ", "-") for heading in headings], anchor


def test_the_data_set_of_the_page_is_read(workspace):
    images = open_images(workspace / "drives.toml")
    assert len(images) == 4
    assert set(images.samples[0].label_map().ravel()) == {1}  # car is 26


def test_the_readme_is_short():
    assert len(README.split()) <= 700


def test_the_first_commands_and_the_api_come_early():
    lines = README.splitlines()
    assert next(n for n, line in enumerate(lines, 1) if line.startswith("    sfda-edge")) < 15
    assert next(n for n, line in enumerate(lines, 1) if "sfda_edge.adapt(" in line) <= 25


def test_the_map_of_the_code_names_folders_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for path in re.findall(r"`((?:runtime|sfda_edge|export|benchmarks|tests)/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path


def test_the_makefile_has_what_contributing_names():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for target in re.findall(r"^    make ([\w-]+)", text, re.MULTILINE):
        command = ["make", "--dry-run", "--directory", str(ROOT), target]
        subprocess.run([*command, f"PYTHON={sys.executable}"], check=True, capture_output=True)


def test_the_configuration_of_the_docs_is_one(tmp_path):
    page = (ROOT / "docs" / "device.md").read_text(encoding="utf-8")
    block = re.search(r"^    bundle = .*?(?=^\S)", page, re.MULTILINE | re.DOTALL)[0]
    path = tmp_path / "stream.toml"
    path.write_text(re.sub(r"^    ", "", block, flags=re.MULTILINE))
    front, rear = read_config(path, add_arguments)
    assert (front.name, rear.name) == ("front", "rear")
    assert (front.size, front.on_loss, rear.size) == ((720, 1280), "hold", None)


def test_every_flag_of_a_stream_is_in_the_docs():
    pages = "".join((ROOT / "docs" / name).read_text() for name in ("runtime.md", "device.md"))
    flags = {flag for flag in stream.build_parser()._option_string_actions if flag[:2] == "--"}
    missing = {flag for flag in flags - {"--help"} if flag not in pages}
    assert not missing
