"""Asks the HTTP face of an agent who it is and whether it is ready."""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import Any, Final

import h11

from warp.cli.doctor.facts import AgentStatus, JobsFacts
from warp.cli.doctor.measure.broker import CONNECT_TIMEOUT_S, any_certificate
from warp.config_values import Address
from warp.metadata.cluster_model import JOBS

ANSWER_BYTES_MAX: Final = 64 * 1024
BACKLOG_LOOKS: Final = 3
BACKLOG_PAUSE_S: Final = 2.0
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


async def ask_jobs(address: Address, *, is_tls: bool = False) -> JobsFacts:
    """What the agent behind an address tells of its cluster's jobs. Never raises for what the peer does.

    Where too much waits to be merged it is asked again: what has passed by then is no finding.
    """
    context = any_certificate() if is_tls else None
    try:
        facts = _jobs(await _get(address, "/v1/cluster", context))
        for _ in range(BACKLOG_LOOKS - 1):
            if facts.merge_debt <= 1.0:
                break
            await asyncio.sleep(BACKLOG_PAUSE_S)
            facts = _jobs(await _get(address, "/v1/cluster", context))
        return facts
    except _NoAgent as error:
        return JobsFacts(refusal=f"it {error}")
    except (KeyError, TypeError, ValueError):
        return JobsFacts(refusal="it does not tell who does not authenticate, or is of an older release")


def _jobs(told: dict[str, Any]) -> JobsFacts:
    return JobsFacts(
        has_jobs=any(
            JOBS in agent["roles"] and agent["state"] in ("serving", "leaving") for agent in told["agents"]
        ),
        merge_debt=float(told["merge_debt"]),
        quarantined_extents=int(told["quarantined_extents"]),
    )


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
