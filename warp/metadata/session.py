"""The small surface through which every metadata operation talks to a database.

An operation is written once, against `Session`, in SQL text that SQLite and PostgreSQL both understand. The two things
that they write differently inside a statement are rendered by the session:

* `rows($1 as w: log_id bigint, name text)` is a batch of rows, given as a list of tuples (`json_each` in SQLite,
  `unnest` in PostgreSQL).
* `lock rows of l` locks what a select has found until the transaction ends (`for update of l` in PostgreSQL; nothing in
  SQLite, where a transaction holds the only write lock from its first statement on). `share rows of l` only keeps
  others from changing it (`for share of l`), `lock free rows of l` leaves out those that
  others have locked (`for update of l skip locked`).

Placeholders are `$1`, `$2`, …; times are passed in; a row comes back as a sequence in the order of the select list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple, Protocol

Value = int | str | bytes | None
Rows = Sequence[tuple[Value, ...]]
Argument = Value | Rows
Row = Sequence[Any]
"""One row of an answer. Its types are those of the columns, which the type checker can't know."""


class Column(NamedTuple):
    """A column of a batch of rows; `kind` is PostgreSQL's name of its type (bigint, integer, text, bytea)."""

    name: str
    kind: str


class RowSet(NamedTuple):
    """One `rows(…)` in a statement: the argument that holds it (1 for `$1`), its alias and its columns."""

    argument: int
    alias: str
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """One named statement of a file under sql/, in the portable text."""

    name: str
    text: str
    row_sets: tuple[RowSet, ...]

    @property
    def writes_rows(self) -> bool:
        """Does it write one batch of rows, and answer nothing?"""
        is_write = self.text.startswith(("insert ", "update ", "delete "))
        return is_write and len(self.row_sets) == 1 and "returning" not in self.text


class Call(NamedTuple):
    """A statement with its arguments."""

    statement: Statement
    arguments: tuple[Argument, ...]


class Session(Protocol):
    """A connection, or a transaction on one.

    Every method raises `MetadataUnavailable`, `OutcomeUnknown` or another `MetadataError`, never a driver's own errors.
    """

    async def one(self, statement: Statement, *arguments: Argument) -> Row | None:
        """The first row of the answer, or None."""

    async def all(self, statement: Statement, *arguments: Argument) -> list[Row]:
        """All rows of the answer."""

    async def execute(self, statement: Statement, *arguments: Argument) -> int:
        """Run a statement that writes; how many rows it touched."""

    async def execute_rows(self, statement: Statement, rows: Rows) -> None:
        """Run a statement that writes a whole batch, its only argument `$1`. No rows, no statement."""

    async def together(self, calls: Sequence[Call]) -> list[list[Row]]:
        """Run statements that have nothing to do with each other, in one round trip where the database can.

        Whether one sees what another one writes is left open. The rows of each, none for those that answer none.
        """


class Notices(Protocol):
    """Short texts from agent to agent through their database: hints, which may be lost and may come twice.

    A notice never rides in the transaction that it tells of: that would make commits wait for each other.
    """

    bytes_max: int
    """Length of the longest notice, in UTF-8."""

    def listen(self, heard: Callable[[str], None], interrupted: Callable[[], None]) -> None:
        """Call `heard` with each notice, one's own too, and `interrupted` when some may have been lost."""

    @property
    def is_connected(self) -> bool:
        """Would a notice be heard at present?"""

    async def publish(self, text: str) -> None:
        """Tell all who listen. Raises MetadataError."""


class Database(Session, Protocol):
    """A session that can begin transactions. Its own statements run each in a transaction of their own."""

    is_shared: bool
    """Do several agents use it side by side?"""
    notices: Notices | None
    """None: nobody else is there to be told."""

    async def time_ms(self) -> int:
        """The database's own wall time, milliseconds since 1970. Raises MetadataError."""

    async def open(self) -> None:
        """Connect, and bring the schema up to this release. Raises StartError, in one line that says what to do."""

    async def close(self) -> None:
        """Let go of the database. Not used afterwards."""

    def transaction(self) -> AbstractAsyncContextManager[Session]:
        """A transaction that may write: committed when the block ends, rolled back when it raises."""

    def snapshot(self) -> AbstractAsyncContextManager[Session]:
        """A transaction that only reads; all its statements see the same state."""


ROWS_PATTERN = re.compile(r"rows\(\$(\d+) as (\w+): ([^)]+)\)")
LOCK_PATTERN = re.compile(r"(lock|share|lock free) rows of (\w+)")
_NAME_PATTERN = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def parse_statements(text: str) -> dict[str, Statement]:
    """The statements of a file, by name. Each starts with a line `-- name: its_name`. Raises ValueError."""
    pieces = _NAME_PATTERN.split(text)
    statements: dict[str, Statement] = {}
    for name, body in zip(pieces[1::2], pieces[2::2], strict=True):
        if name in statements:
            raise ValueError(f"two statements are named {name}")
        lines = (line for line in body.splitlines() if not line.lstrip().startswith("--"))
        sql = "\n".join(lines).strip().removesuffix(";")
        statements[name] = Statement(name, sql, _row_sets(sql))
    return statements


def load_statements(file_name: str) -> Mapping[str, Statement]:
    """The statements of `sql/<file_name>.sql` in this package."""
    path = resources.files("warp.metadata").joinpath("sql", f"{file_name}.sql")
    return parse_statements(path.read_text(encoding="utf-8"))


def _row_sets(sql: str) -> tuple[RowSet, ...]:
    found = []
    for match in ROWS_PATTERN.finditer(sql):
        columns = tuple(Column(*column.split()) for column in match[3].split(","))
        found.append(RowSet(int(match[1]), match[2], columns))
    return tuple(found)
