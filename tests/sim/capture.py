"""The rows that statements change, written down as they change them, so that they can be changed again later.

Temporary triggers on every table note the key of each row that goes and all columns of each row that comes. What a
transaction has changed so far can then be taken back and put there anew, by the row and not by the statement: a
statement done again might choose other rows, or give other ids.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

COLUMNS_MAX = 10
KEYS_MAX = 3


class Change(NamedTuple):
    """One row that went (`gone`, its primary key), came (`come`, all its columns), or both."""

    table: str
    gone: tuple[Any, ...] | None
    come: tuple[Any, ...] | None


@dataclass(frozen=True, slots=True)
class Table:
    """What there is to know of one."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    uniques: tuple[tuple[int, ...], ...]
    """Places of the columns of each unique index; first those of the primary key."""
    counts_ids: bool
    """Its ids are never given out twice."""

    @classmethod
    def of(cls, connection: sqlite3.Connection, name: str) -> Table:
        """As the database has it."""
        found = connection.execute(f"pragma table_info({name})").fetchall()
        columns = tuple(str(row[1]) for row in found)
        key = tuple(str(row[1]) for row in sorted(found, key=lambda row: row[5]) if row[5])
        uniques = [tuple(columns.index(column) for column in key)]
        for index in connection.execute(f"pragma index_list({name})").fetchall():
            if index[2]:
                parts = connection.execute(f"pragma index_info({index[1]})").fetchall()
                places = tuple(int(part[1]) for part in parts)
                if places not in uniques:
                    uniques.append(places)
        [text] = connection.execute("select sql from sqlite_master where name = ?", (name,)).fetchone()
        assert len(columns) <= COLUMNS_MAX, name
        assert 0 < len(key) <= KEYS_MAX, name
        return cls(name, columns, key, tuple(uniques), "autoincrement" in text)


class Capture:
    """Notes the changes that come over one connection, and makes them again."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        names = connection.execute(
            "select name from sqlite_master where type = 'table' and name not like 'sqlite_%' order by name"
        ).fetchall()
        self.tables = {name: Table.of(connection, name) for (name,) in names}
        self._deletes: dict[str, str] = {}
        self._inserts: dict[str, str] = {}
        keys = ", ".join(f"k{n}" for n in range(KEYS_MAX))
        columns = ", ".join(f"c{n}" for n in range(COLUMNS_MAX))
        connection.execute(
            f"create temp table captured (number integer primary key, name, goes, comes, {keys}, {columns})"
        )
        connection.execute("create temp table capturing (is_on)")
        connection.execute("insert into capturing values (0)")
        for table in self.tables.values():
            self._watch(table)

    def _watch(self, table: Table) -> None:
        where = " and ".join(f"{column} = ?" for column in table.key)
        self._deletes[table.name] = f"delete from {table.name} where {where}"
        marks = ", ".join("?" * len(table.columns))
        self._inserts[table.name] = f"insert into {table.name} ({', '.join(table.columns)}) values ({marks})"
        old = [f"old.{column}" for column in table.key]
        new = [f"new.{column}" for column in table.columns]
        for event, gone, come in (("insert", [], new), ("update", old, new), ("delete", old, [])):
            names = ["name", "goes", "comes"]
            names += [f"k{n}" for n in range(len(gone))] + [f"c{n}" for n in range(len(come))]
            values = [f"'{table.name}'", str(bool(gone)), str(bool(come)), *gone, *come]
            self._connection.execute(
                f"create temp trigger {event}_{table.name} after {event} on main.{table.name}"
                " when (select is_on from capturing) begin"
                f" insert into captured ({', '.join(names)}) values ({', '.join(values)}); end"
            )

    def begin(self) -> None:
        """What is changed from now on is noted. Within a transaction, which is rolled back."""
        self._connection.execute("update capturing set is_on = 1")

    def take(self) -> list[Change]:
        """What was noted."""
        return list(self._read())

    def _read(self) -> Iterator[Change]:
        for row in self._connection.execute("select * from captured order by number").fetchall():
            table = self.tables[row[1]]
            gone = row[4 : 4 + len(table.key)] if row[2] else None
            begin = 4 + KEYS_MAX
            yield Change(table.name, gone, row[begin : begin + len(table.columns)] if row[3] else None)

    def make(self, changes: Sequence[Change]) -> None:
        """Make changes again: of rows that nobody else can have changed meanwhile."""
        for change in changes:
            if change.gone is not None:
                done = self._connection.execute(self._deletes[change.table], change.gone)
                assert done.rowcount == 1, f"a row that was locked is not there: {change}"
            if change.come is not None:
                self._connection.execute(self._inserts[change.table], change.come)

    def give_ids_from(self, ids: dict[str, int]) -> None:
        """Have no id given out again that somebody had before, whatever became of that."""
        for name, last in ids.items():
            statement = "update sqlite_sequence set seq = max(seq, ?) where name = ?"
            if not self._connection.execute(statement, (last, name)).rowcount:
                self._connection.execute(
                    "insert into sqlite_sequence (name, seq) values (?, ?)", (name, last)
                )
