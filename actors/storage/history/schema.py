"""The tables of the history.

What a column means stands with `fleet.history.request_row.RequestRow` and `fleet.history.rollups.Rollup`. Names are
kept once, in `names`, and rows have small numbers for them. Columns that come later may be empty: old rows are never
written anew.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    text,
)

from fleet.history.rollups import COUNTS, SECONDS, SKETCHES

VERSION: Final = 3
TABLES: Final = MetaData()
_ID: Final = BigInteger().with_variant(Integer(), "sqlite")  # there only INTEGER is the row's own number

NAMES: Final = Table(
    "names",
    TABLES,
    Column("id", _ID, primary_key=True, autoincrement=False),
    Column("kind", SmallInteger, nullable=False),
    Column("name", Text, nullable=False),
    Index("names_of_a_kind", "kind", "name", unique=True),
)
KINDS: Final = ("server", "model", "endpoint", "client", "outcome")
"""What `names.kind` counts from one."""

META: Final = Table(
    "meta",
    TABLES,
    Column("name", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("bytes", LargeBinary),
)

REQUESTS: Final = Table(
    "requests",
    TABLES,
    Column("id", _ID, primary_key=True, autoincrement=False),
    Column("request", Text, nullable=False),
    Column("trace", Text),
    Column("began", Double, nullable=False),
    Column("queue", Double, nullable=False),
    Column("load", Double),
    Column("first_byte", Double),
    Column("total", Double, nullable=False),
    Column("slot", Double, nullable=False),
    Column("wasted", Double, nullable=False),
    *(Column(kind, Integer, nullable=False) for kind in KINDS),
    Column("status", SmallInteger, nullable=False),
    Column("prompt_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("stream", SmallInteger, nullable=False),
    Column("options", Text),
    Column("tries", SmallInteger, nullable=False),
    Index("requests_by_name", "request"),
    Index("requests_by_trace", "trace", sqlite_where=text("trace IS NOT NULL")),
    Index("requests_by_server", "server", "id"),
)

ATTEMPTS: Final = Table(
    "attempts",
    TABLES,
    Column("id", _ID, primary_key=True, autoincrement=False),
    Column("number", SmallInteger, primary_key=True, autoincrement=False),
    Column("server", Integer, nullable=False),
    Column("outcome", Integer, nullable=False),
    Column("after", Double, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("first_byte", Double),
    sqlite_with_rowid=False,
)

ROLLUP_KEY: Final = ("tier", "bucket", *KINDS)
"""`tier`: seconds of a bucket; below zero: a summary of such a bucket, of all endpoints and clients together."""
ROLLUPS: Final = Table(
    "rollups",
    TABLES,
    *(
        Column(name, BigInteger if name == "bucket" else Integer, primary_key=True, autoincrement=False)
        for name in ROLLUP_KEY
    ),
    *(Column(name, BigInteger, nullable=False) for name in COUNTS),
    *(Column(name, Double, nullable=False) for name in (*SECONDS, "shortest", "longest")),
    *(Column(name, LargeBinary, nullable=False) for name in SKETCHES),
    sqlite_with_rowid=False,
)
