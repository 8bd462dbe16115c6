"""Figures of sysfs: of a Jetson as its kernel lays them out, and of whatever else is there."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.hardware import ThrottlingWatch, read_hardware


@pytest.fixture
def jetson(tmp_path):
    """The files of a Jetson Orin that are read, as JetPack 6 names them."""
    files = {
        "class/thermal/thermal_zone0/type": "cpu-thermal",
        "class/thermal/thermal_zone0/temp": "51250",
        "class/thermal/thermal_zone1/type": "gpu-thermal",
        "class/thermal/thermal_zone1/temp": "49000",
        "class/thermal/thermal_zone2/type": "cpu-thermal",
        "class/thermal/thermal_zone2/temp": "50000",
        "class/thermal/cooling_device0/type": "pwm-fan",
        "class/thermal/cooling_device0/cur_state": "2",
        "class/thermal/cooling_device0/max_state": "4",
        "class/thermal/cooling_device1/type": "cpu-throttle-alert",
        "class/thermal/cooling_device1/cur_state": "0",
        "class/thermal/cooling_device1/max_state": "1",
        "devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "1510400",
        "devices/system/cpu/cpufreq/policy0/scaling_max_freq": "1984000",
        "class/devfreq/17000000.gpu/cur_freq": "624750000",
        "class/devfreq/17000000.gpu/max_freq": "930750000",
        "class/devfreq/15340000.vic/cur_freq": "115200000",
        "class/hwmon/hwmon1/name": "ina3221",
        "class/hwmon/hwmon1/in1_label": "VDD_IN",
        "class/hwmon/hwmon1/in1_input": "5000",
        "class/hwmon/hwmon1/curr1_input": "1400",
        "class/hwmon/hwmon0/name": "pwmfan",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return tmp_path


def test_a_jetsons_figures(jetson):
    found = read_hardware(jetson)
    assert found.temperatures_c == pytest.approx(
        {"cpu-thermal": 51.25, "gpu-thermal": 49.0, "cpu-thermal thermal_zone2": 50.0}
    )
    assert found.clocks_mhz == pytest.approx({"policy0": 1510.4, "17000000.gpu": 624.75})
    assert found.most_mhz == pytest.approx({"policy0": 1984.0, "17000000.gpu": 930.75})
    assert found.power_w == pytest.approx({"VDD_IN": 7.0})
    assert found.throttling == {"cpu-throttle-alert 1": 0.0}, "a fan is no throttling"
    (jetson / "class/thermal/cooling_device1/cur_state").write_text("1")
    assert read_hardware(jetson).throttling == {"cpu-throttle-alert 1": 1.0}


def test_a_machine_that_shows_nothing_has_no_figures(tmp_path):
    assert read_hardware(tmp_path).record() == {}


def test_this_machine_can_be_asked():
    record = read_hardware().record()
    assert all(isinstance(v, float) for parts in record.values() for v in parts.values())


@given(st.dictionaries(st.sampled_from(["type", "temp", "cur_state", "max_state"]), st.binary()))
def test_whatever_the_kernel_writes_is_read_or_left_out(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp("sys")
    for kind in ("thermal_zone0", "cooling_device0"):
        part = folder / "class/thermal" / kind
        part.mkdir(parents=True)
        for name, content in files.items():
            (part / name).write_bytes(content)
    read_hardware(folder).record()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_left_out(jetson):
    (jetson / "class/thermal/thermal_zone0/temp").chmod(0)
    assert "cpu-thermal" in read_hardware(jetson).temperatures_c


def test_throttling_is_said_once_when_it_begins_and_once_when_it_ends(jetson):
    said = []
    watch = ThrottlingWatch(said.append, jetson)
    for state in "0011100":
        (jetson / "class/thermal/cooling_device1/cur_state").write_text(state)
        watch.look()
    assert said == [
        "the machine is slowed down by cpu-throttle-alert 1; the warmest part has 51 °C",
        "the machine is no longer slowed down; the warmest part has 51 °C",
    ]


def test_fans_and_displays_slow_nothing_down(tmp_path):
    for number, (kind, now) in enumerate(
        [("Fan", 1), ("LCD", 3), ("TCC Offset", 1), ("Processor", 2), ("intel_powerclamp", -1)]
    ):
        folder = tmp_path / f"class/thermal/cooling_device{number}"
        folder.mkdir(parents=True)
        for name, value in (("type", kind), ("cur_state", now), ("max_state", 10)):
            (folder / name).write_text(str(value))
    assert read_hardware(tmp_path).throttling == {"Processor 3": 0.2, "intel_powerclamp 4": 0.0}
