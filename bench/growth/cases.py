"""All cases."""

from __future__ import annotations

from typing import Final

from bench.growth import answers, bodies, forms, texts
from bench.growth.measure import Case

CASES: Final[tuple[Case, ...]] = (*bodies.CASES, *forms.CASES, *answers.CASES, *texts.CASES)
