"""What each of PostgreSQL's errors means here, which depends on where it comes up."""

from __future__ import annotations

import ssl

import asyncpg
import pytest
from asyncpg.exceptions import ConnectionDoesNotExistError, DataError, InternalClientError

from warp.errors import (
    MetadataContention,
    MetadataCorrupt,
    MetadataError,
    MetadataFull,
    MetadataReadOnly,
    MetadataUnavailable,
    OutcomeUnknown,
)
from warp.metadata.postgres_errors import is_lost, leaves_stale, map_error


def server_error(code: str) -> asyncpg.PostgresError:
    error = asyncpg.PostgresError("it\nsays")
    error.sqlstate = code
    return error


LOST = [
    ConnectionDoesNotExistError("connection was closed in the middle of operation"),
    ConnectionResetError("reset"),
    TimeoutError(),
    ssl.SSLError("tls"),
    InternalClientError("confused"),
    asyncpg.InterfaceError("connection is closed"),
    server_error("57P01"),
    server_error("25P03"),
    server_error("08006"),
]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("40001", MetadataContention),
        ("40P01", MetadataContention),
        ("55P03", MetadataContention),
        ("53100", MetadataFull),
        ("53300", MetadataUnavailable),
        ("57014", MetadataUnavailable),
        ("57P03", MetadataUnavailable),
        ("58030", MetadataUnavailable),
        ("25006", MetadataUnavailable),
        ("25P02", MetadataUnavailable),
        ("28P01", MetadataUnavailable),
        ("26000", MetadataUnavailable),
        ("42501", MetadataReadOnly),
        ("XX001", MetadataCorrupt),
        ("XX002", MetadataCorrupt),
        ("42P01", MetadataError),
        ("23505", MetadataError),
    ],
)
def test_the_server_s_codes_have_kinds(code: str, kind: type[MetadataError]) -> None:
    mapped = map_error(server_error(code))
    assert type(mapped) is kind
    assert "\n" not in str(mapped)


@pytest.mark.parametrize("error", LOST, ids=repr)
def test_a_lost_connection_has_changed_nothing_unless_it_was_writing_or_committing(error: Exception) -> None:
    assert is_lost(error)
    assert leaves_stale(error)
    assert type(map_error(error)) is MetadataUnavailable
    assert type(map_error(error, writing=True)) is OutcomeUnknown
    assert type(map_error(error, committing=True)) is OutcomeUnknown


@pytest.mark.parametrize("code", ["40001", "40P01", "23505"])
def test_a_commit_that_the_server_refuses_has_changed_nothing(code: str) -> None:
    assert not isinstance(map_error(server_error(code), committing=True), OutcomeUnknown)


@pytest.mark.parametrize("code", ["40003", "53100", "57014", "58030", "XX000", "25006"])
def test_any_other_error_of_a_commit_leaves_it_open(code: str) -> None:
    assert isinstance(map_error(server_error(code), committing=True), OutcomeUnknown)


@pytest.mark.parametrize("code", ["57014", "55P03", "53100", "25006"])
def test_a_statement_that_the_server_stops_has_changed_nothing(code: str) -> None:
    assert isinstance(map_error(server_error(code), writing=True), MetadataUnavailable)


def test_an_argument_that_can_t_be_sent_costs_no_connection() -> None:
    error = DataError("invalid input for query argument")
    assert not is_lost(error)
    assert type(map_error(error, writing=True)) is MetadataError


def test_a_connection_to_a_server_that_takes_no_writes_is_replaced() -> None:
    assert leaves_stale(server_error("25006"))
    assert not leaves_stale(server_error("40P01"))
