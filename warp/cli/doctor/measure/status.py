"""Asks the HTTP face of an agent who it is and whether it is ready."""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import Any, Final

import h11

from warp.cli.doctor.facts import AgentStatus
from warp.cli.doctor.measure.broker import CONNECT_TIMEOUT_S, any_certificate
from warp.config_values import Address

ANSWER_BYTES_MAX: Final = 64 * 1024
ANSWER_TIMEOUT_S: Final = 8.0
"""Above the five seconds that the agent gives each of its own probes for /v1/ready."""


class _NoAgent(Exception):
    """Whoever answers is no agent; says why."""


async def ask_status(address: Address, *, is_tls: bool = False) -> AgentStatus:
    """What the agent behind an address says of itself. Never raises for what the peer does.

    Under TLS, whatever certificate it shows: nothing secret is sent.
    """
    context = any_certificate() if is_tls else None
    try:
        status = await _get(address, "/v1/status", context)
        ready = await _get(address, "/v1/ready", context)
        return AgentStatus(
            version=str(status["version"]),
            cluster_id=str(status["cluster_id"]),
            broker_id=int(status["broker_id"]),
            reasons_not_ready=tuple(map(str, ready["reasons"])),
        )
    except _NoAgent as error:
        return AgentStatus(refusal=str(error))
    except (KeyError, TypeError, ValueError):
        return AgentStatus(refusal="answers HTTP, but not as an agent does")


async def _get(address: Address, path: str, context: ssl.SSLContext | None) -> dict[str, Any]:
    """The JSON object at a path, whatever its status."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
    except ssl.SSLError:
        raise _NoAgent("does not speak TLS") from None
    except (OSError, TimeoutError):
        raise _NoAgent("accepts no connection") from None
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            body = await _body(reader, writer, str(address), path)
    except TimeoutError:
        raise _NoAgent(f"accepts connections, but does not answer within {ANSWER_TIMEOUT_S:g} s") from None
    except (h11.RemoteProtocolError, OSError):
        raise _NoAgent("does not speak HTTP") from None
    finally:
        writer.close()
    found = json.loads(body)
    if not isinstance(found, dict):
        raise _NoAgent("answers HTTP, but not as an agent does")
    return found


async def _body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, path: str) -> bytes:
    parser = h11.Connection(h11.CLIENT)
    headers = [("Host", host), ("Connection", "close")]
    request = parser.send(h11.Request(method="GET", target=path, headers=headers))
    writer.write((request or b"") + (parser.send(h11.EndOfMessage()) or b""))
    body = bytearray()
    while True:
        event = parser.next_event()
        if event is h11.NEED_DATA:
            parser.receive_data(await reader.read(ANSWER_BYTES_MAX))
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > ANSWER_BYTES_MAX:
                raise _NoAgent("answers more than an agent does")
        elif isinstance(event, h11.EndOfMessage):
            return bytes(body)
        elif isinstance(event, h11.ConnectionClosed):
            raise _NoAgent("closes the connection before it has answered")
