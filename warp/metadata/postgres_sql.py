"""PostgreSQL's text of the portable statements, and their arguments as it takes them.

A batch of rows travels as one array per column, so its text, and with it the plan that the server keeps, is the same
however many rows there are. Arrays of numbers travel as literals: asyncpg looks at every value of an array several
times, which takes longer than writing and reading its digits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias, cast

from warp.metadata.session import LOCK_PATTERN, ROWS_PATTERN, Argument, Column, Rows, Statement, Value

_PLACEHOLDER = re.compile(r"\$(\d+)")
_WRITE = re.compile(r"\b(insert into|update|delete from)\s+\w+")
_LOCKS = {"lock": "for update of {}", "share": "for share of {}", "lock free": "for update of {} skip locked"}


Shape: TypeAlias = tuple[bool, ...] | None
"""Of an argument: None for a plain value; for a batch of rows whether its columns are numbers."""


class Rendered(NamedTuple):
    """PostgreSQL's text of one statement, or of several run together.

    `shapes` has an entry per argument of the portable text. `answering` are the places of those statements that answer
    rows.
    """

    text: str
    shapes: tuple[Shape, ...]
    answering: tuple[int, ...]
    statements: int = 1
    """How many it is."""


def render(statement: Statement) -> Rendered:
    """One statement on its own."""
    text, shapes = _render(statement, 1)
    return Rendered(text, shapes, (0,) if answers_rows(statement) else ())


def render_together(statements: Sequence[Statement]) -> Rendered:
    """Several statements as one, each in a `with` query of its own.

    Statements that write run whether or not they are selected from. Where several answer, each row comes as the
    place of its statement and a record; where one does, its rows come as they are.
    """
    parts: list[str] = []
    shapes: list[Shape] = []
    first = 1
    for place, statement in enumerate(statements):
        text, own = _render(statement, first)
        parts.append(f"c{place} as (\n{text}\n)")
        shapes += own
        first += sum(1 if shape is None else len(shape) for shape in own)
    answering = tuple(place for place, statement in enumerate(statements) if answers_rows(statement))
    if not answering:
        answer = "select 1 where false"
    elif len(answering) == 1:
        answer = f"select c{answering[0]}.* from c{answering[0]}"
    else:
        answer = "\nunion all\n".join(f"select {place}, row(c{place}.*) from c{place}" for place in answering)
    return Rendered(f"with {', '.join(parts)}\n{answer}", tuple(shapes), answering, len(statements))


def answers_rows(statement: Statement) -> bool:
    """Does the statement answer rows?"""
    return statement.text.startswith(("select ", "with ")) or "returning " in statement.text


def writes(statement: Statement) -> bool:
    """May running the statement change anything?"""
    return _WRITE.search(statement.text) is not None


def bind(shapes: Sequence[Shape], arguments: Sequence[Argument]) -> list[Any]:
    """The arguments of a rendered statement: plain values as they are, a batch of rows as one array per column."""
    values: list[Any] = []
    for shape, argument in zip(shapes, arguments, strict=True):
        if shape is None:
            values.append(argument)
        elif argument:
            columns = zip(*cast("Rows", argument), strict=True)
            values += map(_array, shape, columns)
        else:
            values += ["{}" if is_number else () for is_number in shape]
    return values


def _array(is_number: bool, column: tuple[Value, ...]) -> str | tuple[Value, ...]:
    if not is_number:
        return column
    literal = f"{{{str(list(column))[1:-1]}}}"
    return literal.replace("None", "null") if "N" in literal else literal


def split_answer(rendered: Rendered, rows: Sequence[Any]) -> list[list[Any]]:
    """The rows of each of the statements that ran together."""
    answers: list[list[Any]] = [[] for _ in range(rendered.statements)]
    if len(rendered.answering) == 1:
        answers[rendered.answering[0]] = list(rows)
    else:
        for place, row in rows:
            answers[place].append(row)
    return answers


def _render(statement: Statement, first: int) -> tuple[str, tuple[Shape, ...]]:
    """The text, its placeholders numbered from `first` on, and the shapes of the arguments."""
    row_sets = {row_set.argument: row_set for row_set in statement.row_sets}
    plain = ROWS_PATTERN.sub("", statement.text)
    numbers = {int(match) for piece in plain.split("'")[::2] for match in _PLACEHOLDER.findall(piece)}
    shapes: list[Shape] = []
    numbered: dict[int, int] = {}
    for argument in range(1, max(numbers | row_sets.keys(), default=0) + 1):
        numbered[argument] = first
        if argument in row_sets:
            columns = row_sets[argument].columns
            shapes.append(tuple(_is_number(column) for column in columns))
            first += len(columns)
        else:
            shapes.append(None)
            first += 1

    def table(match: re.Match[str]) -> str:
        row_set = row_sets[int(match[1])]
        start = numbered[row_set.argument]
        arrays = ", ".join(_cast(start + i, column) for i, column in enumerate(row_set.columns))
        names = ", ".join(column.name for column in row_set.columns)
        return f"unnest({arrays}) as {row_set.alias}({names})"

    # Batches first become texts without placeholders, so that none is numbered twice.
    tables: list[str] = []

    def keep(match: re.Match[str]) -> str:
        tables.append(table(match))
        return f"\0{len(tables) - 1}\0"

    text = LOCK_PATTERN.sub(lambda match: _LOCKS[match[1]].format(match[2]), statement.text)
    pieces = ROWS_PATTERN.sub(keep, text).split("'")
    pieces[::2] = [_PLACEHOLDER.sub(lambda m: f"${numbered[int(m[1])]}", piece) for piece in pieces[::2]]
    text = re.sub("\0(\\d+)\0", lambda match: tables[int(match[1])], "'".join(pieces))
    return text, tuple(shapes)


def _is_number(column: Column) -> bool:
    return column.kind in ("bigint", "integer")


def _cast(number: int, column: Column) -> str:
    argument = f"cast(${number} as text)" if _is_number(column) else f"${number}"
    return f"{argument}::{column.kind}[]"
