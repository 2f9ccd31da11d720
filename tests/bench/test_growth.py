"""No input costs more than in proportion to its size: the worst one of each reader, and one twice as large."""

from __future__ import annotations

import pytest

from bench.growth.cases import CASES
from bench.growth.measure import MOST, Case, grown

pytestmark = pytest.mark.alone


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_twice_the_input_takes_about_twice_the_time(case: Case) -> None:
    growth = grown(case)
    assert growth.ratio <= MOST, growth


def test_what_is_quadratic_is_found_out() -> None:
    def run(size: int) -> None:
        for _ in range(size):
            for _ in range(size):
                pass

    assert grown(Case("quadratic", 400, lambda size: size, run)).ratio > MOST
