"""AMD's GPUs, as Linux's own driver shows them in sysfs; no library of AMD's is needed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from actors.observability.host.probe import Absent
from actors.observability.host.sysfs import first_number, number, word
from fleet.observability.host_sample import MOST_GPUS, Gpu, Measured, amount, count, percent, readable

CARDS: Final = Path("/sys/class/drm")
_CARD: Final = re.compile(r"card(\d{1,4})")
_AMD: Final = "0x1002"


class Amd:
    """A probe."""

    def __init__(self, cards: Path = CARDS) -> None:
        self._cards = cards

    def __call__(self) -> Measured:
        gpus = [_gpu(index, card / "device") for index, card in self._listed() if _is_amd(card / "device")]
        if not gpus:
            raise Absent("no AMD GPU")
        return {"gpus": tuple(gpus[:MOST_GPUS])}

    def _listed(self) -> list[tuple[int, Path]]:
        if not self._cards.is_dir():
            raise Absent(f"no {self._cards}")
        matches = [(_CARD.fullmatch(path.name), path) for path in self._cards.iterdir()]
        return sorted((int(match[1]), path) for match, path in matches if match is not None)


def _is_amd(device: Path) -> bool:
    try:
        return word(device / "vendor") == _AMD
    except OSError:
        return False


def _gpu(index: int, device: Path) -> Gpu:
    """One GPU; temperatures are thousandths of a degree there, power is in microwatts."""
    monitors = sorted((device / "hwmon").glob("hwmon*"))
    drawn = first_number([each / name for each in monitors for name in ("power1_average", "power1_input")])
    return Gpu(
        id=f"amd{index}",
        name=_name(device),
        percent=percent(number(device / "gpu_busy_percent")),
        memory_used=count(number(device / "mem_info_vram_used")),
        memory_total=count(number(device / "mem_info_vram_total")),
        temperature=amount(first_number([each / "temp1_input" for each in monitors]), 1e-3),
        watts=amount(drawn, 1e-6),
    )


def _name(device: Path) -> str:
    try:
        return readable(word(device / "product_name"), "AMD GPU")
    except OSError:
        return "AMD GPU"
