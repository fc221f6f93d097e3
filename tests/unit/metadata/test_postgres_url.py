"""What a PostgreSQL URL says, and the clear words for one that says too much or too little."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.metadata.support import TestClock
from warp.errors import UsageError
from warp.metadata.postgres import PostgresDatabase
from warp.metadata.postgres_url import parse_postgres_url
from warp.metadata.sqlite import SqliteDatabase
from warp.metadata.urls import open_database


def test_what_the_driver_knows_is_passed_on_and_the_rest_is_kept() -> None:
    url = parse_postgres_url("postgres://u:p%40@h:5433/d?sslmode=require&schema=warp_1&application_name=w")
    assert url.dsns == ("postgresql://u:p%40@h:5433/d?sslmode=require",)
    assert (url.schema, url.application_name, url.is_transaction_pooled) == ("warp_1", "w", False)
    assert url.where == "h:5433/d"


def test_nothing_shows_the_password() -> None:
    url = parse_postgres_url("postgresql://u:hunter2@h/d")
    assert "hunter2" not in repr(url) + url.where


def test_of_several_hosts_the_one_that_takes_writes_is_used() -> None:
    assert parse_postgres_url("postgresql://a,b:5433/d").target == "read-write"
    assert parse_postgres_url("postgresql://a,b/d?target_session_attrs=any").target is None
    assert parse_postgres_url("postgresql://a/d").target is None


@pytest.mark.parametrize(
    ("url", "dsns"),
    [
        (
            "postgresql://u:p%40@a,[::1]:5433/d",
            ["//u:p%40@/d?host=a", "//u:p%40@/d?host=%5B%3A%3A1%5D%3A5433"],
        ),
        (
            "postgresql://u@/d?host=a,b:2&sslmode=require",
            ["//u@/d?sslmode=require&host=a", "//u@/d?sslmode=require&host=b%3A2"],
        ),
        ("postgresql:///d?host=a,/run&port=1,2", ["/d?host=a&port=1", "/d?host=%2Frun&port=2"]),
        ("postgresql://a,b/d?port=7", ["/d?host=a&port=7", "/d?host=b&port=7"]),
    ],
)
def test_each_of_several_hosts_is_asked_by_itself(url: str, dsns: list[str]) -> None:
    assert parse_postgres_url(url).dsns == tuple(f"postgresql:{dsn}" for dsn in dsns)


def test_the_directory_of_a_socket_is_a_parameter() -> None:
    assert parse_postgres_url("postgresql:///d?host=/run/postgresql").where == "/run/postgresql/d"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://u:hunter2@h/d?shema=x", "unknown parameter 'shema'"),
        ("postgresql://u:hunter2@h/d?schema=Ä", "schema's name"),
        ("postgresql://u:hunter2@h/d?schema=a&schema=b", "twice"),
        ("postgresql://u:hunter2@h/d?pooler=statement", "session or transaction"),
        ("postgresql://u:hunter2@h/d?schema=a&pooler=transaction", "don't go together"),
        ("postgresql://u:hunter2@h/d?sslmode=maybe", "verify-full"),
        ("postgresql://u:hunter2@h/d?sslmode", "not a URL"),
        ("postgresql://u:hunter2@h/d#x", "write %23"),
        ("postgresql://%2Frun/d", "host="),
        ("postgresql://u:hunter2@a,b,c/d?port=1,2", "port="),
        ("postgresql://u:hunter2@a,,c/d", "each host"),
    ],
)
def test_a_bad_url_is_refused_without_showing_its_password(url: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as refused:
        parse_postgres_url(url)
    assert "hunter2" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_each_kind_of_url_opens_its_database(tmp_path: Path) -> None:
    kinds: list[tuple[str, type[Any]]] = [
        ("mem://", SqliteDatabase),
        (f"sqlite://{tmp_path}/db", SqliteDatabase),
        ("postgresql://h/d", PostgresDatabase),
        ("postgres://h/d", PostgresDatabase),
    ]
    for url, kind in kinds:
        assert isinstance(open_database(url, TestClock()), kind)


@pytest.mark.parametrize("url", ["mysql://h/d", "sqlite://relative/db", "sqlite:///db?mode=ro"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="metadata"):
        open_database(url, TestClock())
