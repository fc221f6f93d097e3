"""Asks an agent's HTTP face, for commands that show what it knows; every way not to get an answer is one clear line."""

from __future__ import annotations

import argparse
import http.client
import json
from typing import Any, Final

from warp.cli.arguments import Parser
from warp.config_values import Address, parse_address
from warp.errors import WarpError

DEFAULT_ADDRESS: Final = "127.0.0.1:8080"
TIMEOUT_S: Final = 10.0
ANSWER_BYTES_MAX: Final = 64 * 2**20


class NoAgentAnswer(WarpError):
    """Nobody answered, or not as an agent does; says what to do."""


def add_http_option(parser: Parser) -> None:
    """Where the agent's HTTP face is."""
    parser.add_argument(
        "--http",
        type=_address,
        default=DEFAULT_ADDRESS,
        metavar="HOST:PORT",
        help=f"The HTTP address of the agent. Default: {DEFAULT_ADDRESS}.",
    )


def get_json(address: Address, path: str) -> dict[str, Any]:
    """The object that an agent answers under a path. Raises NoAgentAnswer."""
    status, body = _get(address, path)
    if status == http.client.NOT_FOUND:
        raise NoAgentAnswer(
            f"http://{address} knows no {path}: it is no Warp agent, or one of an older release"
        )
    if status != http.client.OK:
        raise NoAgentAnswer(
            f"http://{address}{path} answered {status}: {body[:200].decode(errors='replace').strip()}"
        )
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise NoAgentAnswer(f"http://{address}{path} did not answer with JSON: it is no Warp agent")
    return answer


def _get(address: Address, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path, headers={"Accept": "application/json"})
        response = connection.getresponse()
        body = response.read(ANSWER_BYTES_MAX + 1)
    except TimeoutError:
        raise NoAgentAnswer(f"http://{address} did not answer within {TIMEOUT_S:g} s") from None
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise NoAgentAnswer(
            f"no agent answers on http://{address} ({why}); name its --http address with --http HOST:PORT"
        ) from None
    finally:
        connection.close()
    if len(body) > ANSWER_BYTES_MAX:
        raise NoAgentAnswer(f"http://{address}{path} answered more than {ANSWER_BYTES_MAX} bytes")
    return response.status, body


def _address(text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
