import importlib
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

from runtime import doctor
from runtime.diagnosis import extras, gstreamer, jetson, nvidia, onnxruntime, opencv
from runtime.gpu import Gpu
from runtime.packaged import BUNDLE_DIR


def verdicts(findings):
    return [finding.verdict for finding in findings]


def test_this_machine_can_stream_and_every_complaint_has_its_remedy():
    command = [sys.executable, "-m", "runtime.doctor", "--json", "--bundle", str(BUNDLE_DIR)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    findings = json.loads(done.stdout)
    texts = [finding["text"] for finding in findings]
    assert "CPUExecutionProvider starts and runs the packaged model" in texts
    assert {"python", "opencv", "onnxruntime", "gpu", "tensorrt", "bundle"} <= {
        finding["part"] for finding in findings
    }
    for finding in findings:
        assert (finding["verdict"] == "ok") == (finding["advice"] == "")


def test_a_damaged_bundle_is_a_problem(tmp_path, capsys):
    (tmp_path / "manifest.json").write_text("{")
    assert doctor.main(["--bundle", str(tmp_path)]) == 2
    assert "PROBLEM  bundle" in capsys.readouterr().out


BUILD = """
  Video I/O:
    FFMPEG:                      {ffmpeg}
  GUI:                           {gui}
"""


@pytest.mark.parametrize(
    ("ffmpeg", "gui", "display", "expected"),
    [
        ("YES", "GTK3", True, ["ok"]),
        ("YES", "NONE", True, ["ok", "note"]),
        ("NO", "QT5", False, ["note", "note"]),
    ],
)
def test_opencvs_build_is_read(ffmpeg, gui, display, expected):
    text = BUILD.format(ffmpeg=ffmpeg, gui=gui)
    assert verdicts(opencv.judge(text, display)) == expected


@pytest.mark.parametrize(
    ("module", "extra", "lost"),
    [
        ("av", "video", "no gst:"),
        ("mcap_protobuf.writer", "record", "no --record"),
        ("uvicorn", "serve", "no --serve"),
        ("openvino", "openvino", "no --backend openvino"),
    ],
)
def test_a_missing_extra_is_a_note_that_says_what_is_lost(monkeypatch, module, extra, lost):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setitem(sys.modules, module, None)
    found = {finding.part: finding for finding in extras.look()}
    assert found[extra].verdict == "note"
    assert found[extra].text.startswith(lost)
    assert found[extra].advice == f"pip install 'sfda-edge[{extra}]'"
    assert {finding.verdict for part, finding in found.items() if part != extra} == {"ok"}


def test_openvino_is_not_missed_on_arm(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert [finding.part for finding in extras.look()] == ["video", "record", "serve"]


def test_gstreamers_programs_are_looked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    (found,) = gstreamer.look()
    assert (found.verdict, found.text) == ("note", "no gst-launch-1.0: no gst: and no csi0")
    for name in ("gst-launch-1.0", "gst-inspect-1.0"):
        program = tmp_path / name
        program.write_text('#!/bin/sh\n[ "$2" = libcamerasrc ]\n')
        program.chmod(0o755)
    (found,) = gstreamer.look()
    assert (found.verdict, found.text) == ("ok", "gst-launch-1.0; csi0 by libcamerasrc")


@pytest.mark.parametrize(
    ("part", "wheels"),
    [
        (opencv, {"opencv-python": "5", "opencv-python-headless": "5"}),
        (onnxruntime, {"onnxruntime": "1.32", "onnxruntime-gpu": "1.31"}),
    ],
)
def test_two_flavours_are_a_problem_with_the_way_out(monkeypatch, part, wheels):
    monkeypatch.setattr("runtime.diagnosis.packages.installed", lambda _names: wheels)
    found = part.look()[0]
    assert found.verdict == "problem"
    assert f"pip uninstall -y {' '.join(wheels)}" in found.advice


@pytest.mark.parametrize(("part", "name"), [(opencv, "cv2"), (onnxruntime, "onnxruntime")])
def test_a_library_that_does_not_start_is_a_problem(monkeypatch, part, name):
    def refuse(asked):
        raise ImportError(f"libGL.so.1: cannot open shared object file ({asked})")

    monkeypatch.setattr(importlib, "import_module", refuse)
    found = part.look()[-1]
    assert found.verdict == "problem"
    assert f"libGL.so.1: cannot open shared object file ({name})" in found.text
    assert "pip install" in found.advice


def test_a_provider_that_is_available_but_does_not_start_is_told(monkeypatch):
    import onnxruntime as library

    offered = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(library, "get_available_providers", lambda: offered)
    if "CUDAExecutionProvider" in library.get_all_providers() and nvidia.find_gpu():
        pytest.skip("CUDA starts here")
    found = {finding.text.split()[0]: finding for finding in onnxruntime.look()}
    assert found["CUDAExecutionProvider"].verdict == "note"
    assert "does not start" in found["CUDAExecutionProvider"].text
    assert found["CPUExecutionProvider"].verdict == "ok"


def test_libraries_in_several_versions_are_told():
    paths = [
        "/usr/lib/libnvinfer.so.10",
        "/usr/lib/libnvinfer.so.8.6.2",
        "/usr/lib/libcudart.so.13.0.48",
        "/usr/lib/libc.so.6",
        "/usr/lib/libnvinfer_plugin.so.10",
    ]
    findings = nvidia.judge_libraries(map(Path, paths))
    assert [(finding.verdict, finding.text) for finding in findings] == [
        ("ok", "libcudart 13.0.48"),
        (
            "note",
            "libnvinfer 10, 8.6.2 in 2 places: /usr/lib/libnvinfer.so.10, "
            "/usr/lib/libnvinfer.so.8.6.2",
        ),
    ]


def test_libraries_of_wheels_and_of_the_search_path_are_seen(tmp_path, monkeypatch):
    packages, other = tmp_path / "site-packages", tmp_path / "other"
    for folder, name in (
        (packages / "tensorrt_libs", "libnvinfer.so.10"),
        (packages / "nvidia" / "cuda_runtime" / "lib", "libcudart.so.12"),
        (other, "libnvinfer.so.8"),
    ):
        folder.mkdir(parents=True)
        (folder / name).touch()
    monkeypatch.setattr("sys.path", [str(packages)])
    monkeypatch.setenv("LD_LIBRARY_PATH", str(other))
    monkeypatch.setattr(nvidia, "_loaders", list)
    monkeypatch.setattr(nvidia, "find_gpu", lambda: Gpu("Orin", "8.7"))
    monkeypatch.setattr(nvidia, "cuda_of_driver", lambda: None)
    found = {f.text.split()[0] + " " + f.text.split()[1]: f for f in nvidia.look() if f.advice}
    assert "libnvinfer 10, 8 in 2 places" in found["libnvinfer 10,"].text
    assert "nvidia-cudnn-cu12" in found["libcudnn is"].advice
    assert "libcudart is" not in found


def test_two_copies_of_one_version_are_told_and_two_names_of_one_copy_are_not(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "libnvinfer.so.10.3.0").touch()
        (tmp_path / folder / "libnvinfer.so.10").symlink_to("libnvinfer.so.10.3.0")
    first = sorted((tmp_path / "a").iterdir())
    (found,) = nvidia.judge_libraries(first)
    assert (found.verdict, found.text) == ("ok", "libnvinfer 10.3.0")
    (found,) = nvidia.judge_libraries([*first, *(tmp_path / "b").iterdir()])
    assert found.verdict == "note"
    assert "libnvinfer 10.3.0 in 2 places" in found.text


@pytest.mark.parametrize(
    ("text", "verdict", "said"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic", "ok", "JetPack 6.1 or 6.2"),
        ("# R39 (release), REVISION: 2.0, GCID: 1", "ok", "JetPack 7.2, TensorRT 10.16"),
        ("# R35 (release), REVISION: 4.1, GCID: 1", "problem", "JetPack 5"),
        ("# R36 (release), REVISION: 3.0, GCID: 1", "problem", "JetPack 6.0"),
        ("# R41 (release), REVISION: 1.0, GCID: 1", "note", "no JetPack that we know"),
        ("# R36 (release), REVISION: 10.1, GCID: 1", "note", "no JetPack that we know"),
        ("something else", "note", "cannot be read"),
    ],
)
def test_jetpack_is_known_by_its_l4t_release(text, verdict, said):
    found = jetson.judge_release(text)
    assert (found.verdict, said in found.text) == (verdict, True)


def test_power_mode_and_governor_are_told():
    assert jetson.judge_power_mode("NV Power Mode: MAXN_SUPER\n2").verdict == "ok"
    assert jetson.judge_power_mode("NV Power Mode: 15W\n0").verdict == "note"
    assert "-m 0" not in jetson.judge_power_mode("NV Power Mode: 15W\n0").advice
    assert jetson.judge_power_mode("").verdict == "note"
    assert jetson.judge_governor("performance").verdict == "ok"
    assert "jetson_clocks" in jetson.judge_governor("schedutil").advice


def test_no_driver_is_no_gpu(monkeypatch):
    monkeypatch.setattr("runtime.gpu._DRIVER", "libcuda_that_is_not_here.so.1")
    assert nvidia.find_gpu() is None


HEAVY = ("cv2", "onnxruntime", "tensorrt", "tensorrt_rtx", "torch")


@pytest.mark.parametrize(
    ("broken", "error", "problems"),
    [
        (HEAVY, ImportError, {"opencv", "onnxruntime"}),
        (HEAVY, RuntimeError, {"opencv", "onnxruntime"}),  # of another ABI, driver or device
        (("numpy",), ImportError, {"numpy"}),
        (("numpy",), RuntimeError, {"numpy", "onnxruntime"}),
    ],
)
def test_what_is_broken_does_not_break_the_doctor(broken, error, problems):
    code = f"""
import builtins, importlib, sys
real_import, real_module = builtins.__import__, importlib.import_module
def wary(real):
    def imported(name, *arguments, **keywords):
        if name.split(".")[0] in {broken}:
            raise {error.__name__}(name)
        return real(name, *arguments, **keywords)
    return imported
builtins.__import__, importlib.import_module = wary(real_import), wary(real_module)
from runtime import doctor
sys.exit(doctor.main(["--json"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    findings = json.loads(done.stdout)
    assert problems <= {found["part"] for found in findings if found["verdict"] == "problem"}
    assert "gpu" in {found["part"] for found in findings}


def test_a_reader_that_has_seen_enough_is_no_error():
    command = f"{sys.executable} -m runtime.doctor | true"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr


def test_a_cpu_that_does_not_answer_is_a_problem(monkeypatch):
    import onnxruntime as library

    def refuse(*_arguments, **_keywords):
        raise RuntimeError("illegal instruction")

    monkeypatch.setattr(library, "InferenceSession", refuse)
    found = {finding.text.split()[0]: finding for finding in onnxruntime.look()}
    assert found["CPUExecutionProvider"].verdict == "problem"


def test_what_is_left_of_an_uninstalled_wheel_is_a_problem_not_a_crash(monkeypatch):
    empty = types.ModuleType("cv2")
    monkeypatch.setitem(sys.modules, "cv2", empty)
    verdicts = [finding.verdict for finding in opencv.look()]
    assert "problem" in verdicts


def test_a_damaged_package_is_a_problem_not_a_crash(monkeypatch, tmp_path):
    monkeypatch.setattr("runtime.diagnosis.onnxruntime.BUNDLE_DIR", tmp_path)
    found = onnxruntime.look()[-1]
    assert found.verdict == "problem"
    assert "is not a bundle" in found.text
