"""How credentials are kept, found and made up, and which changes of them are allowed."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping

import pytest
from hypothesis import given, strategies as st

from tests.unit.security.sasl_support import credentials_of, entries_of, salted
from warp.errors import ErrorCode
from warp.metadata.entries import KEY_CHARACTERS_MAX, VALUE_CHARACTERS_MAX, EntryChange
from warp.security.credential_changes import Alteration, Deletion, Plan, Upsertion, plan_changes
from warp.security.credentials import (
    ITERATIONS_DEFAULT,
    ITERATIONS_MAX,
    ITERATIONS_MIN,
    SALT_BYTES_DEFAULT,
    SALT_BYTES_MAX,
    SCRAM_HASHES,
    SHA_256,
    SHA_512,
    Credentials,
    ScramHash,
    Shape,
    entry_key,
    entry_value,
    make_credential,
    parse_entry_value,
    split_entry_key,
    stored_iterations,
)
from warp.security.principal import NAME_CHARACTERS_MAX


@given(
    st.sampled_from(SCRAM_HASHES),
    st.integers(ITERATIONS_MIN, ITERATIONS_MAX),
    st.binary(min_size=1, max_size=SALT_BYTES_MAX),
    st.binary(min_size=1, max_size=64),
)
def test_a_credential_is_read_as_it_was_written(
    scram: ScramHash, iterations: int, salt: bytes, salted_password: bytes
) -> None:
    made = make_credential(scram, iterations, salt, salted_password)
    assert parse_entry_value(scram, entry_value(made)) == made
    assert stored_iterations(scram, entry_value(made)) == iterations


def test_the_largest_credential_fits_an_entry() -> None:
    key = entry_key(SHA_512, "x" * NAME_CHARACTERS_MAX)
    value = entry_value(make_credential(SHA_512, ITERATIONS_MAX, bytes(SALT_BYTES_MAX), b"p"))
    assert len(key) <= KEY_CHARACTERS_MAX
    assert len(value) <= VALUE_CHARACTERS_MAX


@pytest.mark.parametrize("user", ["alice", "with/slash", "a,b=c", ""])
def test_the_key_of_an_entry_says_whose_it_is(user: str) -> None:
    assert split_entry_key(entry_key(SHA_256, user)) == (SHA_256, user)
    assert split_entry_key(f"SCRAM-SHA3-256/{user}") is None


GOOD = json.loads(entry_value(make_credential(SHA_256, 4096, b"salt", b"password")))


@pytest.mark.parametrize(
    "value",
    [
        "",
        "null",
        "[]",
        '"text"',
        "{",
        "[" * 100_000,
        json.dumps({}),
        json.dumps({**GOOD, "iterations": "4096"}),
        json.dumps({**GOOD, "iterations": True}),
        json.dumps({**GOOD, "iterations": 4095}),
        json.dumps({**GOOD, "iterations": 16_385}),
        json.dumps({**GOOD, "iterations": 10**30}),
        json.dumps({**GOOD, "salt": ""}),
        json.dumps({**GOOD, "salt": 5}),
        json.dumps({**GOOD, "salt": "****"}),
        json.dumps({**GOOD, "salt": "AAAA" * 400}),
        json.dumps({**GOOD, "stored_key": "AAAA"}),
        json.dumps({**GOOD, "server_key": None}),
    ],
)
def test_an_entry_that_is_none_counts_as_no_credential(value: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError) as raised:
        parse_entry_value(SHA_256, value)
    assert not value or len(value) < 10 or value not in str(raised.value)
    assert stored_iterations(SHA_256, value) is None
    credentials = Credentials(b"secret")
    credentials.entries_changed({entry_key(SHA_256, "alice"): value}, ())
    with caplog.at_level(logging.WARNING):
        assert credentials.find(SHA_256, "alice") is None
        assert credentials.find(SHA_256, "alice") is None
    assert [record.message.count("'alice'") for record in caplog.records] == [1]


def test_what_is_made_up_looks_like_most_of_what_there_is() -> None:
    credentials = credentials_of({})
    assert credentials.shape(SHA_256) is None
    made = credentials.make_up(SHA_256, "nobody")
    assert (made.iterations, len(made.salt)) == (ITERATIONS_DEFAULT, SALT_BYTES_DEFAULT)
    few = entries_of({"a": "p"}, iterations=5_000, salt=bytes(10))
    most = entries_of({"b": "p", "c": "p"}, iterations=6_000, salt=bytes(200), hashes=(SHA_256,))
    credentials.entries_changed({**few, **most, entry_key(SHA_256, "bad"): "no credential"}, ())
    assert credentials.shape(SHA_256) == Shape(6_000, 200)
    assert credentials.shape(SHA_512) == Shape(5_000, 10)
    made = credentials.make_up(SHA_256, "nobody")
    assert (made.iterations, len(made.salt), len(made.stored_key)) == (6_000, 200, 32)
    assert made == credentials.make_up(SHA_256, "nobody")


def test_every_agent_makes_up_the_same_in_whatever_order_it_has_learnt_of_the_users() -> None:
    entries = {
        **entries_of({"a": "p"}, iterations=5_000),
        **entries_of({"b": "p"}, iterations=6_000),
    }
    one, other = Credentials(b"secret"), Credentials(b"secret")
    one.entries_changed(entries, ())
    other.entries_changed(dict(reversed(entries.items())), ())
    assert one.make_up(SHA_512, "x") == other.make_up(SHA_512, "x")


def test_a_user_that_is_deleted_is_gone_at_once() -> None:
    credentials = credentials_of({"alice": "p"})
    assert credentials.find(SHA_256, "alice") is not None
    credentials.entries_changed({}, [EntryChange(entry_key(SHA_256, "alice"), None)])
    assert credentials.find(SHA_256, "alice") is None


# ---- changes ----


def upsertion(
    user: str = "alice",
    mechanism: int = 1,
    iterations: int = 4096,
    salt: bytes = b"salt",
    size: int | None = None,
) -> Upsertion:
    length = {1: 32, 2: 64}.get(mechanism, 32) if size is None else size
    return Upsertion(user, mechanism, iterations, salt, b"k" * length)


def errors(plan: Plan) -> dict[str, ErrorCode | None]:
    return {user: None if error is None else error.code for user, error in plan.results.items()}


def applied(entries: Mapping[str, str], plan: Plan) -> dict[str, str]:
    after = dict(entries)
    for key, value in plan.changes:
        if value is None:
            del after[key]
        else:
            after[key] = value
    return after


def test_an_upsertion_keeps_keys_that_let_the_password_in() -> None:
    password = salted(SHA_512, "secret", b"salty", 5_000)
    plan = plan_changes({}, [Upsertion("alice", 2, 5_000, b"salty", password)])
    expected = entries_of({"alice": "secret"}, salt=b"salty", iterations=5_000, hashes=(SHA_512,))
    assert applied({}, plan) == expected
    assert errors(plan) == {"alice": None}
    assert plan.done == ("SCRAM-SHA-512 of alice set, 5000 iterations (before: none)",)


def test_a_deletion_and_an_upsertion_of_one_user_are_done_together() -> None:
    entries = entries_of({"alice": "p", "bob": "p"}, hashes=(SHA_256,))
    plan = plan_changes(entries, [Deletion("alice", 1), upsertion("alice", 2), Deletion("bob", 1)])
    assert applied(entries, plan).keys() == {"SCRAM-SHA-512/alice"}
    assert errors(plan) == {"alice": None, "bob": None}
    assert len(plan.done) == 3


@pytest.mark.parametrize(
    ("alteration", "code"),
    [
        (upsertion(iterations=4_095), ErrorCode.UNACCEPTABLE_CREDENTIAL),
        (upsertion(iterations=16_385), ErrorCode.UNACCEPTABLE_CREDENTIAL),
        (upsertion(iterations=0), ErrorCode.UNACCEPTABLE_CREDENTIAL),
        (upsertion(iterations=-(2**31)), ErrorCode.UNACCEPTABLE_CREDENTIAL),
        (upsertion(salt=b""), ErrorCode.UNACCEPTABLE_CREDENTIAL),
        (upsertion(salt=bytes(1025)), ErrorCode.UNACCEPTABLE_CREDENTIAL),
        (upsertion(size=0), ErrorCode.UNACCEPTABLE_CREDENTIAL),
        (upsertion(size=64), ErrorCode.UNACCEPTABLE_CREDENTIAL),
        (upsertion(user=""), ErrorCode.UNACCEPTABLE_CREDENTIAL),
        (upsertion(user="a\nb"), ErrorCode.UNACCEPTABLE_CREDENTIAL),
        (upsertion(user="e\u0301"), ErrorCode.UNACCEPTABLE_CREDENTIAL),
        (upsertion(user="x" * 1025), ErrorCode.UNACCEPTABLE_CREDENTIAL),
        (upsertion(user="*"), ErrorCode.UNACCEPTABLE_CREDENTIAL),
        (upsertion(mechanism=0), ErrorCode.UNSUPPORTED_SASL_MECHANISM),
        (upsertion(mechanism=3), ErrorCode.UNSUPPORTED_SASL_MECHANISM),
        (Deletion("alice", 0), ErrorCode.UNSUPPORTED_SASL_MECHANISM),
        (Deletion("alice", -1), ErrorCode.UNSUPPORTED_SASL_MECHANISM),
        (Deletion("alice", 2), ErrorCode.RESOURCE_NOT_FOUND),
        (Deletion("", 1), ErrorCode.RESOURCE_NOT_FOUND),
    ],
)
def test_what_is_wrong_is_refused_and_changes_nothing_of_that_user(
    alteration: Alteration, code: ErrorCode
) -> None:
    entries = entries_of({"alice": "p"}, hashes=(SHA_256,))
    also = upsertion(alteration.user, mechanism=2 if alteration.mechanism == 1 else 1)
    plan = plan_changes(entries, [alteration, upsertion("bob"), also])
    assert errors(plan) == {alteration.user: code, "bob": None}
    assert [change.key for change in plan.changes] == ["SCRAM-SHA-256/bob"]
    assert plan.done == ("SCRAM-SHA-256 of bob set, 4096 iterations (before: none)",)


def test_the_same_user_and_mechanism_twice_is_a_duplicate() -> None:
    entries = entries_of({"alice": "p"})
    for twice in (
        [Deletion("alice", 1), Deletion("alice", 1)],
        [Deletion("alice", 1), upsertion("alice", 1)],
    ):
        plan = plan_changes(entries, [*twice, upsertion("bob")])
        assert errors(plan) == {"alice": ErrorCode.DUPLICATE_RESOURCE, "bob": None}
        assert [change.key for change in plan.changes] == ["SCRAM-SHA-256/bob"]


alterations = st.one_of(
    st.builds(Deletion, st.sampled_from(["a", "b", ""]), st.integers(-1, 3)),
    st.builds(
        Upsertion,
        st.sampled_from(["a", "b", "c\0"]),
        st.integers(0, 3),
        st.sampled_from([4095, 4096, 16384, 16385]),
        st.binary(max_size=3),
        st.sampled_from([bytes(32), bytes(64)]),
    ),
)


@given(st.lists(alterations, max_size=6))
def test_every_user_has_one_result_and_is_changed_wholly_or_not_at_all(wanted: list[Alteration]) -> None:
    entries = entries_of({"a": "p"}, hashes=(SHA_256,))
    plan = plan_changes(entries, wanted)
    assert list(plan.results) == list(dict.fromkeys(each.user for each in wanted))
    for user, error in plan.results.items():
        changes = [change for change in plan.changes if change.key.partition("/")[2] == user]
        asked = [each for each in wanted if each.user == user]
        assert len(changes) == (0 if error else len(asked))
    for key, value in applied(entries, plan).items():
        owner = split_entry_key(key)
        assert owner is not None
        parse_entry_value(owner[0], value)
