"""Each probe against a made-up machine: what it finds, and what it says of a machine that lacks it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from actors.observability.host.amd import Amd
from actors.observability.host.apple import Apple, read
from actors.observability.host.machine import Disk, Machine
from actors.observability.host.nvidia import Nvidia
from actors.observability.host.power import Rapl
from actors.observability.host.probe import Absent
from fleet.observability.host_sample import Gpu


def tree(root: Path, **files: object) -> Path:
    """Files below a root; `__` in a name stands for a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


# ---- processors, memory, disk


def test_processors_are_known_from_the_second_look_on() -> None:
    probe = Machine()
    first = probe()
    assert "cpu_percent" not in first
    assert 0 < first["memory_percent"] <= 100
    assert first["memory_available"] > 0
    before = os.times().user
    while os.times().user - before < 0.05:  # the kernel counts in hundredths of a second
        sum(range(10_000))
    assert 0 < probe()["cpu_percent"] <= 100


def test_a_directory_that_does_not_exist_yet_is_taken_for_the_working_directory(tmp_path: Path) -> None:
    here = Disk(Path)()["disk_percent"]
    assert Disk(lambda: tmp_path / "not" / "made")()["disk_percent"] == pytest.approx(here, abs=1.0)
    assert 0 < Disk(lambda: tmp_path)()["disk_percent"] <= 100


# ---- AMD


def amd(card: Path, **files: object) -> None:
    tree(card / "device", vendor="0x1002", **files)


def test_an_amd_gpu_is_read_from_the_kernel_s_files(tmp_path: Path) -> None:
    amd(
        tmp_path / "card1",
        gpu_busy_percent=37,
        mem_info_vram_used=5_000_000_000,
        mem_info_vram_total=17_000_000_000,
        product_name="Radeon PRO W7900",
        hwmon__hwmon3__power1_average=212_000_000,
        hwmon__hwmon3__temp1_input=61_000,
    )
    tree(tmp_path / "card1-HDMI-A-1" / "device", vendor="0x1002")
    tree(tmp_path / "card0" / "device", vendor="0x8086", gpu_busy_percent=90)
    (gpu,) = Amd(tmp_path)()["gpus"]
    assert (gpu.id, gpu.name, gpu.percent) == ("amd1", "Radeon PRO W7900", 37)
    assert (gpu.memory_used, gpu.memory_total) == (5_000_000_000, 17_000_000_000)
    assert gpu.temperature == pytest.approx(61.0)
    assert gpu.watts == pytest.approx(212.0)


def test_what_an_amd_gpu_does_not_tell_is_absent(tmp_path: Path) -> None:
    """Newer boards have `power1_input` alone; old ones say 65535 for what they do not measure."""
    amd(tmp_path / "card0", gpu_busy_percent=65535, hwmon__hwmon0__power1_input=9_000_000)
    amd(tmp_path / "card10", gpu_busy_percent="busy")
    amd(tmp_path / "card2")
    first, second, third = Amd(tmp_path)()["gpus"]
    assert first == Gpu("amd0", "AMD GPU", watts=9.0)
    assert (second, third) == (Gpu("amd2", "AMD GPU"), Gpu("amd10", "AMD GPU"))


def test_a_machine_without_amd_gpus_says_so(tmp_path: Path) -> None:
    tree(tmp_path / "card0" / "device", vendor="0x10de")
    (tmp_path / "card7").mkdir()
    for where in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(Absent):
            Amd(where)()


# ---- power


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def zone(root: Path, name: str, called: str, microjoules: int, most: int | None = 1_000_000_000) -> None:
    tree(root / name, name=called, energy_uj=microjoules)
    if most is not None:
        tree(root / name, max_energy_range_uj=most)


def test_power_is_what_whole_processors_have_used_since_the_last_look(tmp_path: Path) -> None:
    """Cores and the second view of the same processor are not counted again."""
    clock = Clock()
    zone(tmp_path, "intel-rapl:0", "package-0", 100_000_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 90_000_000)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 100_000_000)
    zone(tmp_path, "intel-rapl:1", "package-1", 999_000_000)
    zone(tmp_path, "intel-rapl:2", "psys", 5)
    (tmp_path / "intel-rapl").mkdir()
    probe = Rapl(clock, tmp_path)
    assert probe() == {}
    clock.now += 5.0
    for name in ("intel-rapl:0", "intel-rapl:0:0", "intel-rapl-mmio:0"):
        tree(tmp_path / name, energy_uj=200_000_000)
    tree(tmp_path / "intel-rapl:1", energy_uj=49_000_000)  # it has begun anew at a thousand joules
    assert probe()["power"] == pytest.approx({"cpu": 30.0})
    clock.now += 5.0
    assert probe() == {"power": {"cpu": 0.0}}


def test_a_counter_that_began_anew_nobody_knows_where_gives_no_power(tmp_path: Path) -> None:
    clock = Clock()
    zone(tmp_path, "intel-rapl:0", "package-0", 100_000_000, most=None)
    probe = Rapl(clock, tmp_path)
    probe()
    clock.now += 5.0
    tree(tmp_path / "intel-rapl:0", energy_uj=1)
    assert probe() == {}


def test_counters_that_are_for_root_alone_are_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return path.read_text().strip()

    zone(tmp_path, "intel-rapl:0", "package-0", 1)
    monkeypatch.setattr("actors.observability.host.power.word", refuse)
    with pytest.raises(PermissionError):
        Rapl(time.monotonic, tmp_path)()


def test_a_machine_without_energy_counters_says_so(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "psys", 1)
    for where in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(Absent):
            Rapl(time.monotonic, where)()


# ---- NVIDIA


class Fault(Exception):
    """Any error of NVML's."""


class NoLibrary(Fault):
    pass


class NoDriver(Fault):
    pass


def unsupported() -> object:
    raise Fault("Not Supported")


class FakeNvml(ModuleType):
    """As `pynvml`: two GPUs, of which the second tells next to nothing, and a third that has fallen off its bus."""

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.opened = self.closed = 0
        self.trouble: Exception | None = None
        self.__dict__.update(
            {
                "NVMLError_LibraryNotFound": NoLibrary,
                "NVMLError_DriverNotLoaded": NoDriver,
                "NVML_TEMPERATURE_GPU": 0,
                "nvmlInit": self.start,
                "nvmlShutdown": self.stop,
                "nvmlDeviceGetCount": self.count,
                "nvmlDeviceGetHandleByIndex": lambda index: unsupported() if index == 2 else index,
                "nvmlDeviceGetName": lambda handle: b"Tesla T4" if handle else "NVIDIA H100 80GB HBM3",
                "nvmlDeviceGetUtilizationRates": told_by_the_first(SimpleNamespace(gpu=64, memory=20)),
                "nvmlDeviceGetMemoryInfo": told_by_the_first(SimpleNamespace(used=7, total=80)),
                "nvmlDeviceGetTemperature": told_by_the_first(55),
                "nvmlDeviceGetPowerUsage": told_by_the_first(301_500),
            }
        )

    def start(self) -> None:
        self.count()
        self.opened += 1

    def stop(self) -> None:
        self.closed += 1

    def count(self) -> int:
        if self.trouble is not None:
            raise self.trouble
        return 3


def told_by_the_first(value: object) -> Callable[..., object]:
    return lambda handle, *_: unsupported() if handle else value


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


def test_nvidia_gpus_tell_what_they_can(nvml: FakeNvml) -> None:
    probe = Nvidia()
    assert probe()["gpus"] == (
        Gpu("nvidia0", "NVIDIA H100 80GB HBM3", 64.0, 7, 80, 55.0, 301.5),
        Gpu("nvidia1", "Tesla T4"),
    )
    probe()
    assert (nvml.opened, nvml.closed) == (1, 0)


@pytest.mark.parametrize("trouble", [NoLibrary("not found"), NoDriver("not loaded")])
def test_a_machine_without_nvidia_s_driver_says_so(nvml: FakeNvml, trouble: Exception) -> None:
    nvml.trouble = trouble
    with pytest.raises(Absent):
        Nvidia()()


def test_after_a_failure_the_library_is_opened_anew(nvml: FakeNvml) -> None:
    """As after an update of the driver, which makes every call fail until then."""
    probe = Nvidia()
    probe()
    nvml.trouble = Fault("Driver/library version mismatch")
    with pytest.raises(Fault):
        probe()
    assert nvml.closed == 1
    nvml.trouble = None
    assert len(probe()["gpus"]) == 2
    assert nvml.opened == 2


# ---- Apple

NEW = b"""{"temp":{"cpu_temp_avg":43.7,"gpu_temp_avg":36.9},"gpu_freq_mhz":461,"gpu_active_ratio":0.09,
"cpu_power":0.2,"gpu_power":0.02,"all_power":0.22,"sys_power":5.8}"""


def test_macmon_is_read_in_both_its_forms() -> None:
    whole = read(NEW)
    assert whole["power"] == {"cpu": 0.2}
    assert whole["gpus"] == (Gpu("apple0", "Apple GPU", percent=9.0, temperature=36.9, watts=0.02),)
    (gpu,) = read(b'{"gpu_usage":[461,0.25]}')["gpus"]
    assert (gpu.percent, gpu.watts, gpu.temperature) == (25.0, None, None)
    assert "power" not in read(b'{"cpu_power":null,"temp":7,"gpu_usage":"x"}')


@pytest.mark.parametrize("line", [b"", b"[]", b"null", b"{", b'"text"'])
def test_anything_else_from_macmon_is_a_failure(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read(line)


def program(path: Path, script: str) -> Callable[[str], str | None]:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return lambda name: str(path) if name == "macmon" else None


def test_macmon_is_asked_for_one_sample(tmp_path: Path) -> None:
    find = program(tmp_path / "macmon", 'echo "$*" >&2; printf \'{"cpu_power": %d.5}\' $#')
    assert Apple(find)()["power"] == {"cpu": 5.5}


def test_without_macmon_or_when_it_fails_there_are_no_figures(tmp_path: Path) -> None:
    with pytest.raises(Absent):
        Apple(lambda name: None)()
    with pytest.raises(Exception, match="exit status 3"):
        Apple(program(tmp_path / "macmon", "exit 3"))()
