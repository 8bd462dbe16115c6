"""Imports go one way, help is light, and files, functions and calls stay readable."""

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
HEAVY |= {"tensorrt", "tensorrt_rtx", "openvino", "starlette", "uvicorn", "prometheus_client"}
PROGRAMS = [
    "sfda_edge.cli.main",
    "runtime.stream",
    "runtime.doctor",
    "export.engine.__main__",
    "benchmarks.stream",
    "benchmarks.peers.__main__",
    "benchmarks.pareto.__main__",
    "benchmarks.scale.__main__",
    "benchmarks.throughput",
    "benchmarks.decoder",
    "benchmarks.before_after",
    "benchmarks.efficiency",
    "benchmarks.data_parallel",
    "benchmarks.report.__main__",
]


# Each room of a package may import those before it. A file of a room that stands lower is named.
ROOMS = {
    "runtime": [
        [
            "no_telemetry",
            "errors",
            "closing",
            "credentials",
            "files",
            "frames",
            "glibc_malloc",
            "gpu",
            "hardware",
            "packaged",
            "buffer",
            "stats",
            "arguments",
            "toml_file",
            "trace",
        ],
        ["confusion", "images", "output", "bundle"],
        ["backends", "diagnosis", "overlay", "sources"],
        ["doctor", "loss", "sinks", "page", "stream_arguments", "config"],
        ["pipeline"],
        ["outputs", "stream_run"],
        ["api", "stream"],
    ],
    "sfda_edge": [
        [
            "errors",
            "own_packages",
            "packaged",
            "toml_file",
            "selection.config",
            "selection.diversity",
        ],
        ["runs", "streetsynth"],
        ["recipes", "labels", "batchnorm"],
        ["models"],
        ["data"],
        ["evaluation"],
        ["task"],
        ["training"],
        ["selection"],
        ["methods"],
        ["report"],
        ["adaptation"],
        ["api"],
        ["cli"],
    ],
    "export": [
        ["errors", "profiles", "thresholds"],
        ["engine"],
        ["graph"],
        ["request"],
        ["gate"],
        ["precision"],
        ["result"],
        ["bundle"],
        ["command", "engine.__main__"],
        ["api"],
    ],
}
MOST_LINES, MOST_BODY_LINES, MOST_POSITIONAL = 300, 45, 4


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


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
        "loaded = {m for m in sys.modules if sys.modules[m]}\n"  # None: must not be imported
        "new = {m.partition('.')[0] for m in loaded - before}\n"
        f"print(sorted(m for m in new - ({allowed}) if not m.startswith('_')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def room_of(package: str, parts: tuple[str, ...]) -> int | None:
    """The number of a module's room; None of the package's own ``__init__``."""
    rooms = {name: n for n, names in enumerate(ROOMS[package]) for name in names}
    return rooms.get(".".join(parts[:2]), rooms.get(parts[0])) if parts else None


def imported_modules(path: Path, package: str) -> set[tuple[str, ...]]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            first, *rest = node.module.split(".")
            if first == package:
                found |= {tuple(rest)} if rest else {(alias.name,) for alias in node.names}
    return found - {("__version__",)}


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_are_entered_in_one_direction(package):
    for path in modules(package):
        parts = path.relative_to(ROOT / package).with_suffix("").parts
        here = room_of(package, parts)
        if parts[-1] == "__init__" and len(parts) == 1:
            continue
        assert here is not None, f"{path} is in no room of this test"
        for other in imported_modules(path, package):
            there = room_of(package, other)
            assert there is not None, f"{path} imports {other}"
            assert there <= here, f"{path.relative_to(ROOT)} imports {'.'.join(other)}"


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_files_and_functions_can_be_seen_at_once(package):
    for path in modules(package):
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= MOST_LINES, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                first = node.body[1] if ast.get_docstring(node) and node.body[1:] else node.body[0]
                length = (node.end_lineno or 0) - first.lineno + 1
                assert length <= MOST_BODY_LINES, f"{path}: {node.name} has {length} lines"


def test_no_call_of_ours_has_many_positional_arguments():
    trees = {path: ast.parse(path.read_text()) for p in MAY_IMPORT for path in modules(p)}
    ours = {
        node.name
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and node.name not in ("line", "__init__")  # cv2.line, super().__init__
    }
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                function = node.func
                name = getattr(function, "attr", getattr(function, "id", ""))
                if name in ours:
                    assert len(node.args) <= MOST_POSITIONAL, f"{path}:{node.lineno} {name}"


def test_a_modules_test_is_found_by_its_name():
    """Every test file below the packages' folders is named after a module or folder there."""
    for package in ("runtime", "sfda_edge", "export"):
        names = {p.stem for p in modules(package)} | {
            p.name for p in (ROOT / package).rglob("*") if p.is_dir()
        }
        for path in (ROOT / "tests" / package).rglob("test_*.py"):
            name = path.stem.removeprefix("test_")
            assert name in names | ALSO_TESTED, path


# What is no module: a promise of the whole program, or what several modules do together.
ALSO_TESTED = {"own_words", "security", "no_harm", "damaged", "types"}
