"""Asks an agent's HTTP face, for commands that show what it knows; every way not to get an answer is one clear line."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import ssl
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from warp.cli.arguments import Parser
from warp.cli.client_config import prompt_for_password, read_password
from warp.config import HTTP_CA_VARIABLE, HTTP_PASSWORD_FILE_VARIABLE, HTTP_USER_VARIABLE
from warp.config_values import Address, parse_address
from warp.errors import UsageError, WarpError

DEFAULT_ADDRESS: Final = "127.0.0.1:8080"
TIMEOUT_S: Final = 10.0
ANSWER_BYTES_MAX: Final = 64 * 2**20


class NoAgentAnswer(WarpError):
    """Nobody answered, or not as an agent does; says what to do."""


@dataclass(frozen=True, slots=True)
class AgentAddress:
    """Where an agent's HTTP face is, and how it is asked: `ca` is who must have signed its certificate."""

    address: Address
    is_tls: bool = False
    user: str | None = None
    password: str = field(default="", repr=False)
    ca: Path | None = None

    def __str__(self) -> str:
        return f"{'https' if self.is_tls else 'http'}://{self.address}"


def add_http_option(parser: Parser) -> None:
    """Where the agent's HTTP face is, and as whom it is asked."""
    parser.add_argument(
        "--http",
        type=_address,
        default=DEFAULT_ADDRESS,
        metavar="[https://]HOST:PORT",
        help=f"The HTTP address of the agent. Default: {DEFAULT_ADDRESS}.",
    )
    parser.add_argument(
        "--http-user",
        metavar="NAME",
        help=f"Who asks, where the agent wants to know. Also {HTTP_USER_VARIABLE}.",
    )
    parser.add_argument(
        "--http-password-file",
        type=Path,
        metavar="FILE",
        help="File whose first line is the password of --http-user. Without one, a terminal asks for it. Also "
        f"{HTTP_PASSWORD_FILE_VARIABLE}.",
    )
    parser.add_argument(
        "--http-ca",
        type=Path,
        metavar="FILE",
        help="PEM file with the authorities that may have signed the agent's certificate. Default: those of this "
        f"system. Also {HTTP_CA_VARIABLE}.",
    )


def agent_address(found: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> AgentAddress:
    """What the arguments and the environment say. Raises UsageError."""
    address, is_tls = found.http
    user = found.http_user or environment.get(HTTP_USER_VARIABLE) or None
    file = _path(found.http_password_file, environment, HTTP_PASSWORD_FILE_VARIABLE)
    ca = _path(found.http_ca, environment, HTTP_CA_VARIABLE)
    if user is None:
        if found.http_password_file is not None:
            raise UsageError("--http-password-file is the password of nobody: name --http-user")
        return AgentAddress(address, is_tls, ca=ca)
    if not is_tls and not address.is_loopback:
        raise UsageError(
            f"a password is not sent to http://{address} in the clear: name the agent as https://{address}"
        )
    if file is not None:
        password = read_password(file, "--http-password-file")
    else:
        password = prompt_for_password(f"Password of {user}: ", "name a file with --http-password-file")
    return AgentAddress(address, is_tls, user, password, ca)


def _path(given: Path | None, environment: Mapping[str, str], variable: str) -> Path | None:
    text = environment.get(variable)
    return given or (Path(text) if text else None)


def get_json(agent: AgentAddress, path: str) -> dict[str, Any]:
    """The object that an agent answers under a path. Raises NoAgentAnswer."""
    status, body = _get(agent, path)
    if status == http.client.NOT_FOUND:
        raise NoAgentAnswer(f"{agent} knows no {path}: it is no Warp agent, or one of an older release")
    if status == http.client.UNAUTHORIZED:
        if agent.user is None:
            raise NoAgentAnswer(f"{agent} wants to know who asks: name a user with --http-user")
        raise NoAgentAnswer(f"{agent} does not take the name or the password of {agent.user}")
    if status == http.client.FORBIDDEN:
        raise NoAgentAnswer(f"{agent}{path} is refused: {_reason(body)}")
    if status != http.client.OK:
        raise NoAgentAnswer(f"{agent}{path} answered {status}: {_reason(body)}")
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise NoAgentAnswer(f"{agent}{path} did not answer with JSON: it is no Warp agent")
    return answer


def _reason(body: bytes) -> str:
    """What an answer says went wrong."""
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace").strip()


def _get(agent: AgentAddress, path: str) -> tuple[int, bytes]:
    connection = _connection(agent)
    headers = {"Accept": "application/json"}
    if agent.user is not None:
        credentials = b64encode(f"{agent.user}:{agent.password}".encode()).decode("ascii")
        headers["Authorization"] = f"Basic {credentials}"
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        body = response.read(ANSWER_BYTES_MAX + 1)
    except TimeoutError:
        raise NoAgentAnswer(f"{agent} did not answer within {TIMEOUT_S:g} s") from None
    except ssl.SSLCertVerificationError as error:
        raise NoAgentAnswer(
            f"the certificate of {agent} is refused: {error.verify_message}; name who signed it with --http-ca FILE"
        ) from None
    except ssl.SSLError as error:
        why = (error.reason or str(error)).replace("_", " ").lower()
        raise NoAgentAnswer(f"no TLS with {agent}: {why}; does it serve http:// alone?") from None
    except (OSError, http.client.HTTPException) as error:
        hint = "" if agent.is_tls else "; if it serves TLS, say https://HOST:PORT"
        if isinstance(error, (http.client.HTTPException, ConnectionResetError)):
            raise NoAgentAnswer(f"{agent} does not answer as an agent does{hint}") from None
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise NoAgentAnswer(
            f"no agent answers on {agent} ({why}); name its --http address with --http HOST:PORT"
        ) from None
    finally:
        connection.close()
    if len(body) > ANSWER_BYTES_MAX:
        raise NoAgentAnswer(f"{agent}{path} answered more than {ANSWER_BYTES_MAX} bytes")
    return response.status, body


def _connection(agent: AgentAddress) -> http.client.HTTPConnection:
    """Raises UsageError for authorities that can't be read."""
    host, port = agent.address.host, agent.address.port
    if not agent.is_tls:
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        context = ssl.create_default_context(cafile=None if agent.ca is None else str(agent.ca))
    except OSError as error:  # SSLError is one
        raise UsageError(f"--http-ca: can't read {agent.ca}: {error.strerror or error}") from None
    return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)


def _address(text: str) -> tuple[Address, bool]:
    """An address, and whether it speaks TLS."""
    bare = text.removesuffix("/")
    is_tls = bare.startswith("https://")
    try:
        return parse_address(bare.removeprefix("https://" if is_tls else "http://")), is_tls
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
