"""NVIDIA's GPUs, through the driver's own library (NVML)."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from actors.observability.host.probe import Absent
from fleet.observability.host_sample import MOST_GPUS, Gpu, Measured, amount, count, percent, readable


class Nvidia:
    """A probe. The library is loaded when first asked for, and again after it has failed (a driver may be updated)."""

    def __init__(self) -> None:
        self._library: Any = None

    def __call__(self) -> Measured:
        try:
            if self._library is None:
                self._library = _opened()
            return {"gpus": _gpus(self._library)}
        except Exception:
            self._close()
            raise

    def _close(self) -> None:
        library, self._library = self._library, None
        if library is not None:
            _or_none(library.nvmlShutdown)


def _opened() -> Any:
    library = importlib.import_module("pynvml")
    try:
        library.nvmlInit()
    except (library.NVMLError_LibraryNotFound, library.NVMLError_DriverNotLoaded) as nothing:
        raise Absent(str(nothing)) from None
    return library


def _gpus(nvml: Any) -> tuple[Gpu, ...]:
    found = [_gpu(nvml, index) for index in range(min(nvml.nvmlDeviceGetCount(), MOST_GPUS))]
    return tuple(gpu for gpu in found if gpu is not None)


def _gpu(nvml: Any, index: int) -> Gpu | None:
    """One GPU; None if it has fallen off its bus. What it cannot tell is absent."""
    handle = _or_none(lambda: nvml.nvmlDeviceGetHandleByIndex(index))
    if handle is None:
        return None
    memory = _or_none(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    return Gpu(
        id=f"nvidia{index}",
        name=readable(_or_none(lambda: nvml.nvmlDeviceGetName(handle)), "NVIDIA GPU"),
        percent=percent(_or_none(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu)),
        memory_used=count(getattr(memory, "used", None)),
        memory_total=count(getattr(memory, "total", None)),
        temperature=amount(_or_none(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))),
        watts=amount(_or_none(lambda: nvml.nvmlDeviceGetPowerUsage(handle)), 1e-3),
    )


def _or_none(ask: Callable[[], Any]) -> Any:
    """Not every GPU knows everything, and each says so by an error of its own."""
    try:
        return ask()
    except Exception:
        return None
