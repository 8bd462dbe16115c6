"""TensorRT itself needs a GPU: its calls are checked against NVIDIA's published type stubs."""

import ast
import re
import sysconfig
from pathlib import Path

import pytest

from export.engine import build as engine_build
from export.engine import layers as engine_layers
from runtime.backends import tensorrt as backend_module

# A call of each file, which a type checker has to find missing when it is renamed.
SOURCES = {
    Path(engine_build.__file__): "builder.create_builder_config",
    Path(engine_layers.__file__): "loader.deserialize_cuda_engine",
    Path(backend_module.__file__): "loader.deserialize_cuda_engine",
}
ROOT = Path(engine_build.__file__).parents[2]


def mended(text):
    """Some of the published signatures are no Python (`in: …`): they take anything here."""
    lines = text.splitlines()
    for _ in range(50):
        try:
            return ast.parse("\n".join(lines)), "\n".join(lines)
        except SyntaxError as error:
            number = error.lineno - 1
        lines[number] = re.sub(r"\(.*\) ->", "(self, *args, **kwargs) ->", lines[number])
    raise AssertionError("the stubs have more faults than are mended here")


@pytest.fixture(scope="module")
def stubs(tmp_path_factory):
    """The stubs' syntax tree, and a folder with a copy that type checkers can read."""
    package = Path(sysconfig.get_path("purelib"))
    if not (package / "tensorrt_bindings" / "tensorrt.pyi").is_file():
        pytest.skip("needs tensorrt-stubs")
    folder = tmp_path_factory.mktemp("stubs")
    tree, text = mended((package / "tensorrt_bindings" / "tensorrt.pyi").read_text())
    (folder / "tensorrt.pyi").write_text(text)
    return tree, folder


@pytest.fixture
def complaints(stubs, check_types, tmp_path):
    """What mypy says of a file that is given as text; the stubs' own faults are not ours."""

    def of(source):
        path = tmp_path / "engine_build_checked.py"
        path.write_text(source)
        told = check_types(path, "", stubs[1])
        return [line for line in told.splitlines() if path.name in line and "error:" in line]

    return of


@pytest.mark.slow
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_call_of_builder_network_and_engine_is_tensorrts(complaints, path):
    source, call = path.read_text(), SOURCES[path]
    assert complaints(source) == []
    assert call in source
    broken = complaints(source.replace(call, f"{call}_of_old"))
    assert "has no attribute" in broken[0]


def used_names():
    """Dotted names after ``trt.``, such as ``MemoryPoolType.WORKSPACE``."""
    found = set()
    nodes = [n for path in SOURCES for n in ast.walk(ast.parse(path.read_text()))]
    for node in nodes:
        parts = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if parts and isinstance(node, ast.Name) and node.id == "trt":
            found.add(".".join(reversed(parts)))
    return {name for name in found if not name.startswith(("__name__", "ComputeCapability"))}


def stubbed_names(body, prefix=""):
    found = set()
    for node in body:
        target = getattr(node, "target", None)
        name = getattr(node, "name", getattr(target, "id", None))
        if name:
            found.add(prefix + name)
        if isinstance(node, ast.ClassDef):
            found |= stubbed_names(node.body, f"{prefix}{name}.")
    return found


def test_every_name_that_we_use_is_tensorrts_and_tensorrt_for_rtxs(stubs):
    """But ``ComputeCapability``, which is guarded: TensorRT for RTX alone has it."""
    trt = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx-cu13 (x86_64)")
    tree, _ = stubs
    names = used_names()
    assert {"Builder", "OnnxParser", "MemoryPoolType.WORKSPACE"} <= names
    assert names <= stubbed_names(tree.body)
    for name in names:
        found = trt
        for part in name.split("."):
            found = getattr(found, part)
