"""`warp user create|list|delete`: users that authenticate by a password, at any Kafka broker (KIP-554).

The password never leaves this process: the client library salts and iterates it, and sends what comes of that.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, cast

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialDeletion,
    UserScramCredentialsDescription,
    UserScramCredentialUpsertion,
)

from warp.cli.arguments import Parser, action_of, add_client_options
from warp.cli.client import Client, ClientError
from warp.cli.client_config import prompt_for_password, read_password
from warp.config import did_you_mean
from warp.errors import UsageError
from warp.security.credentials import (
    ITERATIONS_DEFAULT,
    ITERATIONS_MAX,
    ITERATIONS_MIN,
)
from warp.security.names import prepare_name, saslprep

ACTIONS: Final = {
    "create": "Create a user, or with --replace give it another password.",
    "list": "List the users that have passwords, and how these are kept.",
    "delete": "Delete users.",
}
EXAMPLES: Final = """\
  warp user create alice
  warp user create billing --password-file billing.password --mechanism SCRAM-SHA-512
  warp user list
  warp user delete alice
"""
MECHANISMS: Final = {
    "SCRAM-SHA-256": ScramMechanism.SCRAM_SHA_256,
    "SCRAM-SHA-512": ScramMechanism.SCRAM_SHA_512,
}
_NAMES: Final = {mechanism: name for name, mechanism in MECHANISMS.items()}

Credentials = Mapping[str, int]
"""Iterations by the name of the mechanism."""


def run(words: Sequence[str]) -> int:
    """Run the command; the exit code."""
    action = action_of("warp user", words, ACTIONS, EXAMPLES)
    if action is None:
        return 0
    found = _parser(action).parse_all(words[1:])
    actions = {"create": _create, "list": _list, "delete": _delete}
    actions[action](found)
    return 0


def _parser(action: str) -> Parser:
    examples = "".join(f"{line}\n" for line in EXAMPLES.splitlines() if f" {action}" in line)
    parser = Parser(f"warp user {action}", ACTIONS[action], examples)
    if action == "create":
        parser.add_argument("user", metavar="NAME")
        parser.add_argument(
            "--password-file",
            type=Path,
            metavar="FILE",
            help="File whose first line is the password. Default: the terminal asks for it.",
        )
        _add_mechanism(parser, "Mechanism that the user can authenticate by. May be repeated. Default: both.")
        parser.add_argument(
            "--iterations",
            type=_iterations,
            default=ITERATIONS_DEFAULT,
            metavar="NUMBER",
            help=f"How often the password is hashed, {ITERATIONS_MIN} to {ITERATIONS_MAX}: what a guess costs. "
            f"Default: {ITERATIONS_DEFAULT}.",
        )
        parser.add_argument(
            "--replace",
            action="store_true",
            help="The user may be there already: its passwords of all mechanisms are replaced by this one.",
        )
    elif action == "delete":
        parser.add_argument("users", metavar="NAME", nargs="+")
    else:
        parser.add_argument("--json", action="store_true", help="Print JSON instead of columns.")
    add_client_options(parser)
    return parser


def _create(found: argparse.Namespace) -> None:
    name = _checked_name(found.user)
    chosen = sorted(set(found.mechanism)) or list(MECHANISMS)
    users = Users(Client(found))
    there = users.all().get(name, {})
    if there and not found.replace:
        raise ClientError(f"there is a user {name} already; --replace gives it another password")
    users.set(
        name,
        _password(found, name),
        chosen,
        found.iterations,
        [other for other in there if other not in chosen],
    )
    done = "replaced the password of" if there else "created"
    print(f"{done} user {name} ({', '.join(chosen)}, {found.iterations} iterations)")


def _list(found: argparse.Namespace) -> None:
    users = sorted(Users(Client(found)).all().items())
    if found.json:
        print(json.dumps([{"user": name, "credentials": dict(sorted(held.items()))} for name, held in users]))
        return
    width = max((len(name) for name, _ in users), default=0)
    for name, held in users:
        kept = ", ".join(f"{mechanism} ({count} iterations)" for mechanism, count in sorted(held.items()))
        print(f"{name:<{width}}  {kept}")


def _delete(found: argparse.Namespace) -> None:
    users = Users(Client(found))
    there = users.all()
    failures: list[str] = []
    for name in dict.fromkeys(found.users):
        try:
            if name not in there:
                raise ClientError(f"there is no user {name}{did_you_mean(name, there)}")
            users.delete(name, there[name])
            print(f"deleted user {name}")
        except ClientError as error:
            failures.append(str(error))
    if failures:
        raise ClientError("; ".join(failures))


class Users:
    """What `warp user` asks of brokers. Every method raises ClientError, which says in one line why."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._admin: AdminClient = client.admin()

    def all(self) -> dict[str, Credentials]:
        """What each user has."""
        future = self._admin.describe_user_scram_credentials(None, request_timeout=self._client.timeout_s)
        found: dict[str, UserScramCredentialsDescription] = self._result(cast("Future[Any]", future))
        return {
            user: {
                _NAMES.get(info.mechanism, "an unknown mechanism"): info.iterations
                for info in description.scram_credential_infos
            }
            for user, description in found.items()
        }

    def set(
        self, user: str, password: bytes, mechanisms: Sequence[str], iterations: int, others: Sequence[str]
    ) -> None:
        """Give a user one password for some mechanisms, and take those of others away."""
        self._alter(
            user,
            [
                *(UserScramCredentialDeletion(user, MECHANISMS[name]) for name in others),
                *(
                    UserScramCredentialUpsertion(
                        user, ScramCredentialInfo(MECHANISMS[name], iterations), password
                    )
                    for name in mechanisms
                ),
            ],
        )

    def delete(self, user: str, held: Credentials) -> None:
        """Take all passwords of a user away."""
        self._alter(user, [UserScramCredentialDeletion(user, MECHANISMS[name]) for name in held])

    def _alter(self, user: str, alterations: list[UserScramCredentialAlteration]) -> None:
        futures = self._admin.alter_user_scram_credentials(
            alterations, request_timeout=self._client.timeout_s
        )
        self._result(futures[user])

    def _result(self, future: Future[Any]) -> Any:
        try:
            return future.result()
        except KafkaException as error:
            # Has the callback for errors called, which knows why.
            self._admin.poll(0)
            reason = error.args[0]
            if isinstance(reason, KafkaError) and reason.code() == KafkaError._UNSUPPORTED_FEATURE:
                raise ClientError("the broker does not keep users and passwords") from None
            raise self._client.failure(error) from error


def _checked_name(name: str) -> str:
    try:
        prepared = prepare_name(name, is_stored=True)
    except ValueError as error:
        raise UsageError(f"no user can be called {name[:100]!a}: {error}") from None
    if prepared != name:
        raise UsageError(f"{name[:100]!a} changes under SASLprep (RFC 4013); call the user {prepared}")
    return name


def _password(found: argparse.Namespace, name: str) -> bytes:
    """The password, of characters that every client makes the same bytes of."""
    if found.password_file is not None:
        password = read_password(found.password_file, "--password-file")
    else:
        instead = "name a file with --password-file"
        password = prompt_for_password(f"Password of {name}: ", instead)
        if prompt_for_password("The same again: ", instead) != password:
            raise UsageError("the passwords differ; nothing was changed")
    try:
        prepared = saslprep(password, is_stored=True)
    except UnicodeError as error:
        raise UsageError(f"the password {error}") from None
    if not password or prepared != password:
        problem = (
            "changes under SASLprep (RFC 4013), which some clients apply and others don't"
            if password
            else "is empty"
        )
        raise UsageError(f"the password {problem}; choose another one")
    return password.encode("utf-8")


def _add_mechanism(parser: Parser, text: str) -> None:
    parser.add_argument(
        "--mechanism",
        action="append",
        default=[],
        type=_mechanism,
        metavar="NAME",
        help=f"{text} One of {', '.join(MECHANISMS)}.",
    )


def _mechanism(text: str) -> str:
    name = text.strip().upper()
    if name not in MECHANISMS:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(MECHANISMS)}")
    return name


def _iterations(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not ITERATIONS_MIN <= int(text[:9]) <= ITERATIONS_MAX:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number from {ITERATIONS_MIN} to {ITERATIONS_MAX}"
        )
    return int(text)
