"""The benchmark of a scrape runs, and measures what it says."""

from __future__ import annotations

from bench.parts.scrape import measure


async def test_every_figure_of_a_scrape_is_measured() -> None:
    figures = await measure(3, 2, rounds=2)
    assert (figures.servers, figures.models) == (3, 2)
    assert figures.lines > 200
    assert figures.bytes > figures.zipped_bytes > 0
    assert min(figures.note, figures.turn, figures.text, figures.openmetrics, figures.gzip) > 0.0
    assert min(*figures.late, *figures.late_by_scrapes) >= 0.0
