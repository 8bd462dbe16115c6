"""Sensors, as the kernel's files show them."""

import time

import pytest

from benchmarks.measuring.energy import Meter, find_meter


@pytest.fixture
def sys_folder(tmp_path):
    return tmp_path


def rapl(folder, joules, range_joules=1000):
    zone = folder / "class" / "powercap" / "intel-rapl:0"
    zone.mkdir(parents=True, exist_ok=True)
    (zone / "name").write_text("package-0\n")
    (zone / "energy_uj").write_text(f"{int(joules * 1e6)}\n")
    (zone / "max_energy_range_uj").write_text(f"{int(range_joules * 1e6)}\n")


def jetson(folder, watts):
    monitor = folder / "class" / "hwmon" / "hwmon3"
    monitor.mkdir(parents=True, exist_ok=True)
    for number, name in ((1, "VDD_CPU_GPU_CV"), (2, "VDD_IN")):
        (monitor / f"in{number}_label").write_text(f"{name}\n")
        (monitor / f"in{number}_input").write_text("5000\n")
        (monitor / f"curr{number}_input").write_text(f"{int(watts * number * 100)}\n")


def test_nothing_is_measured_where_nothing_is_shown(sys_folder):
    assert find_meter(on_gpu=False, sys=sys_folder) is None


def test_the_processors_counter_says_nothing_of_a_gpu(sys_folder):
    rapl(sys_folder, 100)
    meter = find_meter(on_gpu=True, sys=sys_folder)
    assert meter is None or meter.name.startswith("NVML")


@pytest.mark.parametrize(("after", "joules"), [(160, 60), (40, 940)], ids=["on", "wrapped"])
def test_a_counter_is_read_before_and_after(sys_folder, after, joules):
    rapl(sys_folder, 100)
    meter = find_meter(on_gpu=False, sys=sys_folder)
    assert meter.name == "RAPL package-0"
    with meter.measure() as energy:
        assert energy.joules is None
        rapl(sys_folder, after)
    assert energy.joules == pytest.approx(joules)


def test_the_power_of_a_jetson_is_the_whole_modules(sys_folder):
    jetson(sys_folder, watts=10)
    rapl(sys_folder, 100)
    meter = find_meter(on_gpu=False, sys=sys_folder)
    assert meter.name == "INA3221 VDD_IN"
    start_s = time.monotonic()
    with meter.measure() as energy:
        time.sleep(0.25)
    assert energy.joules == pytest.approx(10 * (time.monotonic() - start_s), rel=0.15)


class SensorError(Exception):
    """A library's own."""


@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("readings", [0, 1])
def test_a_sensor_that_fails_gives_no_figure(counts, readings):
    answers = iter([5.0] * readings)

    def read():
        try:
            return next(answers)
        except StopIteration:
            raise SensorError("gone") from None

    with Meter("one", read, counts).measure() as energy:
        time.sleep(0.15)
    assert energy.joules is None
