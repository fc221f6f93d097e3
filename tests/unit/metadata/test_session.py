"""The statements' notation, and how SQLite's texts are made of it."""

from __future__ import annotations

import re
import sqlite3
from importlib import resources

import pytest

from warp.metadata.session import Column, RowSet, Statement, load_statements, parse_statements
from warp.metadata.sqlite import encode_rows, render, render_for_each


def only(text: str) -> Statement:
    [statement] = parse_statements(text).values()
    return statement


def test_a_file_is_read_as_named_statements_without_comments() -> None:
    found = parse_statements(
        "-- about the file\n\n-- name: first\n-- why\nselect 1;\n\n-- name: second\nselect $1\n  , 2\n"
    )
    assert {name: statement.text for name, statement in found.items()} == {
        "first": "select 1",
        "second": "select $1\n  , 2",
    }


def test_two_statements_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two statements are named a"):
        parse_statements("-- name: a\nselect 1\n-- name: a\nselect 2")


def test_batches_of_rows_are_found() -> None:
    statement = only("-- name: a\nselect * from rows($2 as w: log_id bigint,\n  name text) where x = $1")
    assert statement.row_sets == (RowSet(2, "w", (Column("log_id", "bigint"), Column("name", "text"))),)


def test_a_batch_is_one_json_argument_to_sqlite() -> None:
    statement = only("-- name: a\nselect w.a, w.b, $1 from rows($2 as w: a bigint, b bytea) lock rows of w")
    connection = sqlite3.connect(":memory:")
    connection.create_function("from_hex", 1, lambda text: text and bytes.fromhex(text))
    rows: list[tuple[int | bytes | None, ...]] = [(2**62, b"\x00'"), (-1, None)]
    argument = encode_rows(statement.row_sets[0].columns, rows)
    found = connection.execute(render(statement), (7, argument)).fetchall()
    assert found == [(2**62, b"\x00'", 7), (-1, None, 7)]
    connection.close()


def test_a_batch_of_one_column_keeps_every_value() -> None:
    statement = only("-- name: a\nselect w.name from rows($1 as w: name text)")
    connection = sqlite3.connect(":memory:")
    names = ["", "ü", '"', "'", "\\", "\n", "👩"]
    argument = encode_rows(statement.row_sets[0].columns, [(name,) for name in names])
    assert [row[0] for row in connection.execute(render(statement), (argument,))] == names
    connection.close()


def test_a_writing_batch_runs_once_per_row() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("create table t (a integer primary key, b blob)")
    insert = only(
        "-- name: a\ninsert into t (a, b) select w.a, w.b\nfrom rows($1 as w: a bigint, b bytea)\nwhere true "
        "on conflict (a) do update set b = excluded.b"
    )
    update = only("-- name: a\nupdate t set b = w.b\nfrom rows($1 as w: a bigint, b bytea)\nwhere t.a = w.a")
    connection.executemany(render_for_each(insert), [(1, b"x"), (2, b"y"), (1, b"z")])
    connection.executemany(render_for_each(update), [(2, None), (3, b"nobody")])
    assert connection.execute("select a, b from t").fetchall() == [(1, b"z"), (2, None)]
    connection.close()


def test_dollars_within_quotes_are_left_alone() -> None:
    assert render(only("-- name: a\nselect '$1', $1")) == "select '$1', ?1"


def test_every_file_of_statements_is_used_by_its_name() -> None:
    folder = resources.files("warp.metadata").joinpath("sql")
    files = sorted(path.name.removesuffix(".sql") for path in folder.iterdir() if path.name.endswith(".sql"))
    modules = resources.files("warp.metadata").iterdir()
    sources = "".join(path.read_text("utf-8") for path in modules if path.name.endswith(".py"))
    assert set(re.findall(r'load_statements\("(\w+)"\)', sources)) == set(files)
    for name in files:
        assert load_statements(name)
