"""PostgreSQL's texts of the portable statements, and the arguments that go with them."""

from __future__ import annotations

import re

import pytest

from warp.metadata.postgres_sql import answers_rows, bind, render, render_together, split_answer, writes
from warp.metadata.session import Statement, parse_statements


def only(text: str) -> Statement:
    [statement] = parse_statements(f"-- name: it\n{text}").values()
    return statement


def squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_a_batch_of_rows_is_one_array_per_column() -> None:
    rendered = render(only("select w.id from rows($1 as w: id bigint,\n  name text) where w.name = $2"))
    assert (
        rendered.text
        == "select w.id from unnest(cast($1 as text)::bigint[], $2::text[]) as w(id, name) where w.name = $3"
    )
    assert bind(rendered.shapes, ([(1, "a"), (2, "b")], "c")) == ["{1, 2}", ("a", "b"), "c"]


def test_no_rows_are_empty_arrays() -> None:
    rendered = render(only("select w.a from rows($1 as w: a bigint, b bytea)"))
    assert bind(rendered.shapes, ([],)) == ["{}", ()]


def test_numbers_travel_as_a_literal_and_may_be_missing() -> None:
    rendered = render(only("select w.a from rows($1 as w: a bigint, b integer)"))
    assert bind(rendered.shapes, ([(-(2**63), None), (None, 2)],)) == [f"{{{-(2**63)}, null}}", "{null, 2}"]


def test_placeholders_are_numbered_by_arguments_not_by_their_places() -> None:
    rendered = render(only("select $3, w.a, $1, $3 from rows($2 as w: a bigint, b bigint)"))
    assert (
        rendered.text
        == "select $4, w.a, $1, $4 from unnest(cast($2 as text)::bigint[], cast($3 as text)::bigint[]) as w(a, b)"
    )
    assert bind(rendered.shapes, (7, [(1, 2)], 9)) == [7, "{1}", "{2}", 9]


def test_two_batches_in_one_statement() -> None:
    rendered = render(only("select 1 from rows($1 as w: a text, b text), rows($2 as k: c bigint) limit $3"))
    assert rendered.text == (
        "select 1 from unnest($1::text[], $2::text[]) as w(a, b), unnest(cast($3 as text)::bigint[]) as k(c) limit $4"
    )


def test_an_argument_too_many_or_too_few_is_an_error() -> None:
    rendered = render(only("select $1, $2"))
    with pytest.raises(ValueError, match="zip"):
        bind(rendered.shapes, (1,))


def test_dollars_within_quotes_are_left_alone() -> None:
    assert render(only("select '$1 $2', $1")).text == "select '$1 $2', $1"


def test_rows_are_locked_and_shared() -> None:
    assert render(only("select 1 from t l lock rows of l")).text == "select 1 from t l for update of l"
    assert render(only("select 1 from t l share rows of l")).text == "select 1 from t l for share of l"


def test_statements_together_number_their_arguments_on() -> None:
    rendered = render_together(
        [
            only("update t set a = w.a from rows($1 as w: id bigint, a bigint) where t.id = w.id"),
            only("select a from t where id = $1"),
        ]
    )
    assert squeezed(rendered.text) == (
        "with c0 as ( update t set a = w.a"
        " from unnest(cast($1 as text)::bigint[], cast($2 as text)::bigint[]) as w(id, a) where t.id = w.id ),"
        " c1 as ( select a from t where id = $3 ) select c1.* from c1"
    )
    assert bind(rendered.shapes, ([(1, 2)], 3)) == ["{1}", "{2}", 3]
    assert split_answer(rendered, [("x",), ("y",)]) == [[], [("x",), ("y",)]]


def test_rows_of_several_answers_are_told_apart() -> None:
    rendered = render_together(
        [only("select 1"), only("delete from t"), only("insert into t select 1 returning a")]
    )
    assert squeezed(rendered.text).endswith(
        "select 0, row(c0.*) from c0 union all select 2, row(c2.*) from c2"
    )
    assert split_answer(rendered, [(0, ("a",)), (2, ("b",)), (2, ("c",))]) == [[("a",)], [], [("b",), ("c",)]]


def test_statements_that_answer_nothing_run_all_the_same() -> None:
    rendered = render_together([only("delete from t"), only("delete from u")])
    assert squeezed(rendered.text) == (
        "with c0 as ( delete from t ), c1 as ( delete from u ) select 1 where false"
    )
    assert split_answer(rendered, []) == [[], []]


@pytest.mark.parametrize(
    ("text", "is_write", "answers"),
    [
        ("select 1", False, True),
        ("select updated from t", False, True),
        ("with recursive w as (select 1) select 2", False, True),
        ("select 1 from t l lock rows of l", False, True),
        ("insert into t values (1)", True, False),
        ("insert into t values (1) returning a", True, True),
        ("update t set a = 1", True, False),
        ("delete from t", True, False),
        ("with w as (delete from t returning a) select a from w", True, True),
    ],
)
def test_what_writes_and_what_answers_is_known(text: str, is_write: bool, answers: bool) -> None:
    assert (writes(only(text)), answers_rows(only(text))) == (is_write, answers)
