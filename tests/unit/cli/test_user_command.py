"""`warp user`: what it asks of the client library's admin client, what it prints, and how it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    ScramCredentialInfo,
    UserScramCredentialDeletion,
    UserScramCredentialsDescription,
    UserScramCredentialUpsertion,
)

from warp.cli import user as command
from warp.cli.client import Client
from warp.cli.main import main
from warp.cli.user import MECHANISMS
from warp.errors import UsageError

Run = Callable[..., tuple[int, str, str]]
NAMES = {mechanism: name for name, mechanism in MECHANISMS.items()}


class FakeAdmin:
    """A broker's users in memory."""

    def __init__(self) -> None:
        self.users: dict[str, dict[str, int]] = {
            "alice": {"SCRAM-SHA-512": 8192, "SCRAM-SHA-256": 4096},
            "bob": {"SCRAM-SHA-256": 4096},
        }
        self.passwords: dict[tuple[str, str], bytes] = {}
        self.error: int | None = None

    def describe_user_scram_credentials(self, users: None, request_timeout: float) -> Future[Any]:
        assert users is None
        return self._future(
            {
                name: UserScramCredentialsDescription(
                    name, [ScramCredentialInfo(MECHANISMS[each], count) for each, count in held.items()]
                )
                for name, held in self.users.items()
            }
        )

    def alter_user_scram_credentials(
        self, alterations: Sequence[Any], request_timeout: float
    ) -> dict[str, Future[Any]]:
        for each in alterations:
            if isinstance(each, UserScramCredentialDeletion):
                del self.users[each.user][NAMES[each.mechanism]]
                if not self.users[each.user]:
                    del self.users[each.user]
            else:
                assert isinstance(each, UserScramCredentialUpsertion)
                assert each.salt is None
                info = each.scram_credential_info
                self.users.setdefault(each.user, {})[NAMES[info.mechanism]] = info.iterations
                self.passwords[each.user, NAMES[info.mechanism]] = each.password
        return {each.user: self._future(None) for each in alterations}

    def poll(self, timeout: float) -> int:
        return 0

    def _future(self, result: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if self.error is None:
            future.set_result(result)
        else:
            future.set_exception(KafkaException(KafkaError(self.error)))
        return future


@pytest.fixture
def admin() -> FakeAdmin:
    return FakeAdmin()


@pytest.fixture
def run(admin: FakeAdmin, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setattr(Client, "admin", lambda _: admin)

    def run_words(*words: str) -> tuple[int, str, str]:
        code = main(["user", *words])
        out, error = capsys.readouterr()
        return code, out, error

    return run_words


@pytest.fixture
def password(tmp_path: Path) -> str:
    path = tmp_path / "password"
    path.write_text("sécret, =1\nnot this line\n")
    return str(path)


def typed(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """Have these typed on the terminal; what was asked."""
    left, asked = list(answers), []

    def ask(prompt: str, instead: str) -> str:
        asked.append(prompt)
        if not left:
            raise UsageError(f"there is no terminal to ask for a password; {instead}")
        return left.pop(0)

    monkeypatch.setattr(command, "prompt_for_password", ask)
    return asked


def test_a_user_gets_a_credential_of_each_mechanism(run: Run, admin: FakeAdmin, password: str) -> None:
    code, out, error = run("create", "carol", "--password-file", password)
    assert (code, error) == (0, "")
    assert out == "created user carol (SCRAM-SHA-256, SCRAM-SHA-512, 8192 iterations)\n"
    assert admin.users["carol"] == {"SCRAM-SHA-256": 8192, "SCRAM-SHA-512": 8192}
    assert {key: value for key, value in admin.passwords.items() if key[0] == "carol"} == {
        ("carol", "SCRAM-SHA-256"): "sécret, =1".encode(),
        ("carol", "SCRAM-SHA-512"): "sécret, =1".encode(),
    }


def test_mechanism_and_iterations_can_be_chosen(run: Run, admin: FakeAdmin, password: str) -> None:
    words = ("create", "carol", "--password-file", password, "--mechanism", "scram-sha-512")
    assert run(*words, "--iterations", "16384")[0] == 0
    assert admin.users["carol"] == {"SCRAM-SHA-512": 16_384}


def test_a_password_is_typed_twice(run: Run, admin: FakeAdmin, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = typed(monkeypatch, "right", "right", "right", "other")
    assert run("create", "carol", "--mechanism", "SCRAM-SHA-256")[0] == 0
    assert asked == ["Password of carol: ", "The same again: "]
    assert admin.passwords == {("carol", "SCRAM-SHA-256"): b"right"}
    code, _, error = run("create", "dave")
    assert (code, "the passwords differ" in error, "dave" in admin.users) == (2, True, False)
    code, _, error = run("create", "dave")
    assert code == 2
    assert "there is no terminal to ask for a password; name a file with --password-file" in error


def test_a_user_that_is_there_is_replaced_only_when_asked_for(
    run: Run, admin: FakeAdmin, password: str
) -> None:
    before = {name: dict(held) for name, held in admin.users.items()}
    code, _, error = run("create", "alice", "--password-file", password)
    assert (code, error) == (
        1,
        "warp user: there is a user alice already; --replace gives it another password\n",
    )
    assert admin.users == before
    words = ("create", "alice", "--password-file", password, "--replace", "--mechanism", "SCRAM-SHA-256")
    code, out, _ = run(*words)
    assert (code, out) == (0, "replaced the password of user alice (SCRAM-SHA-256, 8192 iterations)\n")
    # The old password is good for nothing any more, by no mechanism.
    assert admin.users["alice"] == {"SCRAM-SHA-256": 8192}


@pytest.mark.parametrize("secret", ["", "\n", "a\x07b\n", "e\u0301\n", "\ufb01\n", "\u0221\n"])
def test_a_password_that_clients_would_not_agree_on_is_refused(
    run: Run, admin: FakeAdmin, tmp_path: Path, secret: str
) -> None:
    path = tmp_path / "password"
    path.write_text(secret)
    code, _, error = run("create", "carol", "--password-file", str(path))
    assert (code, error.count("\n"), admin.passwords) == (2, 1, {})
    assert "password" in error
    assert len(secret) < 2 or secret.strip() not in error


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 1025, "*", "ANONYMOUS", "e\u0301"])
def test_a_name_that_nobody_can_have_is_refused(run: Run, admin: FakeAdmin, password: str, name: str) -> None:
    code, _, error = run("create", name, "--password-file", password)
    assert (code, error.count("\n"), admin.passwords) == (2, 1, {})


@pytest.mark.parametrize(
    "words",
    [
        ("--iterations", "4095"),
        ("--iterations", "16385"),
        ("--iterations", "many"),
        ("--iterations", "-5000"),
        ("--mechanism", "PLAIN"),
        ("--password", "secret"),
        ("--password-file",),
    ],
)
def test_options_that_are_wrong_are_a_mistake_of_usage(
    run: Run, admin: FakeAdmin, words: Sequence[str]
) -> None:
    code, _, error = run("create", "carol", *words)
    assert (code, error.count("\n"), admin.passwords) == (2, 1, {})


def test_users_are_listed_by_name(run: Run) -> None:
    code, out, error = run("list")
    assert (code, error) == (0, "")
    assert out.splitlines() == [
        "alice  SCRAM-SHA-256 (4096 iterations), SCRAM-SHA-512 (8192 iterations)",
        "bob    SCRAM-SHA-256 (4096 iterations)",
    ]
    assert json.loads(run("list", "--json")[1]) == [
        {"user": "alice", "credentials": {"SCRAM-SHA-256": 4096, "SCRAM-SHA-512": 8192}},
        {"user": "bob", "credentials": {"SCRAM-SHA-256": 4096}},
    ]


def test_no_users_are_no_lines(run: Run, admin: FakeAdmin) -> None:
    admin.users.clear()
    assert run("list") == (0, "", "")
    assert run("list", "--json")[1] == "[]\n"


def test_users_are_deleted_with_all_that_they_have(run: Run, admin: FakeAdmin) -> None:
    code, out, error = run("delete", "alice", "bop", "bob", "alice")
    assert (code, out) == (1, "deleted user alice\ndeleted user bob\n")
    assert error == "warp user: there is no user bop; did you mean bob?\n"
    assert admin.users == {}


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (KafkaError.CLUSTER_AUTHORIZATION_FAILED, "CLUSTER_AUTHORIZATION_FAILED"),
        (KafkaError._UNSUPPORTED_FEATURE, "does not keep users"),
        (KafkaError._TIMED_OUT, "no broker answered"),
    ],
)
def test_what_the_broker_refuses_is_one_line(
    run: Run, admin: FakeAdmin, password: str, code: int, problem: str
) -> None:
    admin.error = code
    for words in (("list",), ("delete", "alice"), ("create", "carol", "--password-file", password)):
        exit_code, out, error = run(*words)
        assert (exit_code, out, error.count("\n")) == (1, "", 1)
        assert problem in error
        assert "sécret" not in error


def test_an_action_that_is_none_is_told_with_the_nearest(run: Run) -> None:
    code, _, error = run("creat")
    assert (code, "did you mean create?" in error) == (2, True)
    code, out, error = run()
    assert (code, "no action was given" in error, "warp user create alice" in out) == (2, True, True)
