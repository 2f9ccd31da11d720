"""Sums over time on disk: those of the newest minute grow with each batch, coarser ones when a finer bucket is over.

All of it within the transaction that writes the rows. `rolled` says for each coarser tier up to when the finer one is
contained in it; what is later is to be asked of the finer tier. So sums equal rows at every moment, after a crash too,
and a batch costs one write per key of its minute, not one per key and tier.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select

from actors.storage.history.names import Names
from actors.storage.history.schema import KINDS, META, ROLLUP_KEY, ROLLUPS
from fleet.history.exponential_sketch import ExponentialSketch
from fleet.history.request_row import RequestRow, ended_at
from fleet.history.rollups import MINUTE, SKETCHES, SUMS, TIERS, Rollup, RollupKey, Rollups, add_rows, merge_into

_ONE = delete(ROLLUPS).where(*(ROLLUPS.c[name] == bindparam(f"a_{name}") for name in ROLLUP_KEY))


class RollupTable:
    """The sums of the newest minute are held in memory, because every batch changes them."""

    def __init__(self, connection: Connection, names: Names) -> None:
        self._names = names
        marks = connection.execute(select(META.c.name, META.c.number).where(META.c.name.like("rolled %")))
        self.rolled = dict.fromkeys(TIERS[1:], 0)
        """Up to when a coarser tier holds what the finer one has; seconds since 1970."""
        self.rolled.update({int(name.split()[1]): number for name, number in marks})
        since = self.rolled[TIERS[1]]
        self._minutes = self.read(connection, MINUTE, since, 1 << 62)

    def add(self, connection: Connection, rows: Iterable[tuple[int, RequestRow]], newest: int) -> None:
        """Count these rows, of which none is older than those before. `newest`: the largest number of a row.

        Raises SQLAlchemyError; then this is to be made anew.
        """
        changed = add_rows(self._minutes, rows)
        self._write(connection, MINUTE, {key: self._minutes[key] for key in changed})
        for fine, coarse in pairwise(TIERS):
            self._roll(connection, fine, coarse, int(ended_at(newest)) // fine * fine)

    def read(self, connection: Connection, tier: int, since: int, until: int) -> Rollups:
        """The sums of a tier whose bucket begins then: `until` is not part of it. Raises SQLAlchemyError.

        A tier below zero: its summaries, which are of all endpoints and clients together.
        """
        wanted = select(ROLLUPS).where(ROLLUPS.c.tier == tier, ROLLUPS.c.bucket >= since, ROLLUPS.c.bucket < until)
        return dict(self._of(row._mapping) for row in connection.execute(wanted))

    def contained(self, tier: int) -> int:
        """Up to when the next coarser tier holds what this one has, so that it may go; seconds since 1970."""
        return self.rolled.get(dict(pairwise(TIERS)).get(tier, 0), 1 << 62)

    def _roll(self, connection: Connection, fine: int, coarse: int, until: int) -> None:
        """Add what is over of the finer tier to the coarser one."""
        since = self.rolled[coarse]
        if until <= since:
            return
        over = self.read(connection, fine, since, until)
        self._merge(connection, over, coarse, until, summary=False)
        if fine != MINUTE:
            over = self.read(connection, -fine, since, until)
        self._merge(connection, over, coarse, until, summary=True)
        self.rolled[coarse] = until
        connection.execute(delete(META).where(META.c.name == f"rolled {coarse}"))
        connection.execute(insert(META).values(name=f"rolled {coarse}", number=until))
        if fine == MINUTE:
            self._minutes = {key: rollup for key, rollup in self._minutes.items() if key.bucket >= until}

    def _merge(self, connection: Connection, over: Rollups, coarse: int, until: int, *, summary: bool) -> None:
        if not over:
            return
        tier = -coarse if summary else coarse
        first = min(key.bucket for key in over) // coarse * coarse
        sums = self.read(connection, tier, first, until)
        changed = merge_into(sums, over, coarse, summary=summary)
        self._write(connection, tier, {key: sums[key] for key in changed})

    def _write(self, connection: Connection, tier: int, rollups: Mapping[RollupKey, Rollup]) -> None:
        if not rollups:
            return
        rows = [self._row(connection, tier, key, rollup) for key, rollup in rollups.items()]
        connection.execute(_ONE, [{f"a_{name}": row[name] for name in ROLLUP_KEY} for row in rows])
        connection.execute(insert(ROLLUPS), rows)

    def _row(self, connection: Connection, tier: int, key: RollupKey, rollup: Rollup) -> dict[str, Any]:
        return {
            "tier": tier,
            "bucket": key.bucket,
            **{kind: self._names.number(connection, kind, getattr(key, kind)) for kind in KINDS},
            **{name: getattr(rollup, name) for name in SUMS},
            "shortest": rollup.shortest,
            "longest": rollup.longest,
            **{name: getattr(rollup, name).encode() for name in SKETCHES},
        }

    def _of(self, row: Mapping[Any, Any]) -> tuple[RollupKey, Rollup]:
        named = {kind: self._names.name(row[kind]) for kind in KINDS}
        key = RollupKey(row["bucket"], **named)
        rollup = Rollup(**{name: row[name] for name in (*SUMS, "shortest", "longest")})
        for name in SKETCHES:
            setattr(rollup, name, ExponentialSketch.decode(row[name]))
        return key, rollup
