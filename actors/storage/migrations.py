"""The tables of the store, and how a store of an earlier version becomes one of today's.

A migration is frozen once it was released: it speaks SQL of its own, not of the tables below. Its SQL is the part
that SQLite and PostgreSQL have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import BigInteger, Column, Connection, Double, Integer, MetaData, Table, Text, inspect, select, text

TABLES: Final = MetaData()

DOCUMENTS: Final = Table(
    "documents",
    TABLES,
    Column("kind", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Column("updated", Double, nullable=False),
)
AUDIT: Final = Table(
    "audit",
    TABLES,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("line", Text, nullable=False),
)
META: Final = Table(
    "meta",
    TABLES,
    Column("name", Text, primary_key=True),
    Column("value", Integer, nullable=False),
)

Migration = Callable[[Connection], None]
_VERSION: Final = "schema"


class ForeignStore(Exception):
    """The database is not ours to write: made by a newer version, or by another program."""


def _begin(connection: Connection) -> None:
    """Version 1."""
    for statement in (
        "CREATE TABLE documents (kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,"
        " updated DOUBLE PRECISION NOT NULL, PRIMARY KEY (kind, key))",
        "CREATE TABLE audit (id BIGINT NOT NULL PRIMARY KEY, at DOUBLE PRECISION NOT NULL, line TEXT NOT NULL)",
        "CREATE TABLE meta (name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL)",
        "INSERT INTO meta (name, value) VALUES ('schema', 0)",
    ):
        connection.execute(text(statement))


MIGRATIONS: Final[tuple[Migration, ...]] = (_begin,)
"""The n-th makes version n of version n - 1; version 0 is an empty database."""


def version_of(connection: Connection) -> int:
    """The version of the schema. Raises ForeignStore."""
    found = set(inspect(connection).get_table_names())
    if not found:
        return 0
    if META.name not in found:
        raise ForeignStore("the database belongs to another program")
    version = connection.execute(select(META.c.value).where(META.c.name == _VERSION)).scalar()
    if not isinstance(version, int) or version < 1:
        raise ForeignStore("the database does not say which version it is")
    return version


def check_ours(connection: Connection, migrations: Sequence[Migration] = MIGRATIONS) -> int:
    """The version of the schema, if this program may write to it. Changes nothing. Raises ForeignStore."""
    version = version_of(connection)
    if version > len(migrations):
        raise ForeignStore(f"the database is of version {version}, this program knows {len(migrations)} at the most")
    return version


def migrate(connection: Connection, migrations: Sequence[Migration] = MIGRATIONS) -> int:
    """Bring the schema up to date within the caller's transaction; the version it had before. Raises ForeignStore."""
    before = check_ours(connection, migrations)
    for step in migrations[before:]:
        step(connection)
    if before < len(migrations):
        connection.execute(META.update().where(META.c.name == _VERSION).values(value=len(migrations)))
    return before
