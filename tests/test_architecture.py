"""Imports go one way, and help is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "runtime": set(),
    "sfda_edge": {"runtime"},
    "export": {"runtime", "sfda_edge"},
    "benchmarks": {"runtime", "sfda_edge", "export"},
}
# The composition root: the command line knows the export command.
EXCEPTIONS = ("sfda_edge/cli/", "export")
NOT_IN_RUNTIME = {"torch", "onnx", "onnxscript", "safetensors", "msgspec"}
HEAVY = {"torch", "cv2", "onnx", "onnxruntime", "matplotlib", "kornia", "panda3d", "PIL"}
HEAVY |= {"tensorrt", "tensorrt_rtx"}
PROGRAMS = [
    "sfda_edge.cli.main",
    "runtime.stream",
    "runtime.doctor",
    "export.engine.__main__",
    "benchmarks.stream",
    "benchmarks.graph",
    "benchmarks.decoder",
    "benchmarks.before_after",
]


def imported_packages(path: Path) -> set[str]:
    """Top-level packages that a file imports anywhere, functions included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def _excepted(name: str, package: str) -> bool:
    folder, allowed = EXCEPTIONS
    return name.startswith(folder) and package == allowed


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_go_one_way(package):
    for path in (ROOT / package).rglob("*.py"):
        name = path.relative_to(ROOT).as_posix()
        ours = imported_packages(path) & set(MAY_IMPORT) - {package}
        wrong = {p for p in ours - MAY_IMPORT[package] if not _excepted(name, p)}
        assert not wrong, f"{name} imports {wrong}"


def test_runtime_knows_no_torch_and_no_onnx():
    for path in (ROOT / "runtime").rglob("*.py"):
        assert not imported_packages(path) & NOT_IN_RUNTIME, path


def test_runtime_is_python_3_10():
    for path in (ROOT / "runtime").rglob("*.py"):
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_loads_nothing_heavy(program):
    code = (
        f"import sys, {program} as p\n"
        "try: p.main(['--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        f"print('heavy:', sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("heavy: []\n")


LIGHT = ["bundle.labels", "confusion", "bundle.manifest", "buffer", "stats", "sources.grammar"]
LIGHT += ["pipeline", "backends"]


@pytest.mark.parametrize("module", LIGHT)
def test_runtime_modules_need_numpy_alone(module):
    allowed = "{'numpy', 'runtime'} | set(sys.stdlib_module_names)"
    code = (
        "import sys; before = set(sys.modules)\n"
        f"import runtime.{module}\n"
        "new = {m.partition('.')[0] for m in set(sys.modules) - before}\n"
        f"print(sorted(m for m in new - ({allowed}) if not m.startswith('_')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
