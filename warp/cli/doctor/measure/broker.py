"""Asks an address, as a Kafka client would at first: ApiVersions, then Metadata with no topics.

With frames of our own and not through a client library: a library goes on to the addresses that it is told, hides which
of them failed, and takes seconds to say that nobody is there.

Under TLS no certificate is verified: nothing secret is sent, and what clients think of the certificate is judged by its
file. Nobody authenticates here, so a listener that wants it is seen to be there, and no more.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from warp.cli.doctor.facts import BrokerAddress, BrokerFacts
from warp.cli.doctor.latency import Latency
from warp.config_values import Address
from warp.protocol import (
    APIS,
    ApiKey,
    DecodeError,
    Request,
    decode,
    encode_request_frame,
    response_body_offset,
)
from warp.protocol.messages.api_versions import ApiVersionsRequest
from warp.protocol.messages.metadata import MetadataRequest

CLIENT_ID: Final = "warp-doctor"
ANSWER_BYTES_MAX: Final = 4 * 2**20
CONNECT_TIMEOUT_S: Final = 3.0
ANSWER_TIMEOUT_S: Final = 5.0

# Versions before headers got tags, which every broker since 2018 serves: v2 is the first with the cluster's id.
METADATA_VERSIONS: Final = (2, 8)
BROKERS_MAX: Final = 10_000
SASL: Final = ApiKey.SASL_HANDSHAKE


class _Unfit(Exception):
    """What answers is no Kafka broker that can be talked to; says why. `may_be_tls`: it may want TLS."""

    def __init__(self, why: str, *, may_be_tls: bool = False) -> None:
        super().__init__(why)
        self.may_be_tls = may_be_tls


class _Closed(_Unfit):
    """It ends the connection instead of answering."""


async def ask_broker(
    address: Address, *, samples: int, monotonic: Callable[[], float], is_tls: bool | None = None
) -> BrokerFacts:
    """Look at the broker behind an address; `samples` requests are timed. Never raises for what the peer does.

    `is_tls` says whether it speaks TLS, where that is known.
    """
    try:
        resolved = await resolve(address)
    except OSError as error:
        return BrokerFacts(address, refusal=f"{address.host} has no address: {_reason(error)}")
    found, may_be_tls = await _ask(address, resolved, samples, monotonic, is_tls=bool(is_tls))
    if is_tls is None and may_be_tls:
        other, _ = await _ask(address, resolved, samples, monotonic, is_tls=True)
        return other if other.is_broker else found
    return found


async def _ask(
    address: Address,
    resolved: tuple[str, ...],
    samples: int,
    monotonic: Callable[[], float],
    *,
    is_tls: bool,
) -> tuple[BrokerFacts, bool]:
    """What is there, and whether it looks as if it wanted TLS."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(
                address.host, address.port, ssl=any_certificate() if is_tls else None
            )
    except TimeoutError:
        return BrokerFacts(address, resolved, refusal=f"no connection within {CONNECT_TIMEOUT_S:g} s"), False
    except ssl.SSLError as error:
        why = (error.reason or str(error)).replace("_", " ").lower()
        return BrokerFacts(address, resolved, is_open=True, refusal=f"no TLS with it: {why}"), False
    except OSError as error:
        return BrokerFacts(address, resolved, refusal=_reason(error)), False
    try:
        facts = await _talk(_Conversation(reader, writer), address, resolved, samples, monotonic)
        return replace(facts, is_tls=is_tls), False
    except _Unfit as error:
        facts = BrokerFacts(address, resolved, is_open=True, refusal=str(error))
        return facts, error.may_be_tls and not is_tls
    finally:
        writer.close()


def any_certificate() -> ssl.SSLContext:
    """For a client that only looks."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def resolve(address: Address) -> tuple[str, ...]:
    """The IP addresses behind a host, in the order in which clients try them. Raises OSError."""
    found = asyncio.get_running_loop().getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            entries = await found
    except TimeoutError:
        raise OSError(0, f"no answer from the name service within {CONNECT_TIMEOUT_S:g} s") from None
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in entries))


class _Conversation:
    """Requests and answers on one connection, one at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._correlation_id = 0

    async def ask(self, request: Request, version: int) -> Any:
        """The answer to a request. Raises _Unfit."""
        self._correlation_id += 1
        self._writer.write(b"".join(encode_request_frame(self._correlation_id, CLIENT_ID, request, version)))
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                frame = await self._frame()
        except TimeoutError:
            raise _Unfit(
                f"accepts connections, but does not answer Kafka requests within {ANSWER_TIMEOUT_S:g} s"
            ) from None
        except ssl.SSLError as error:
            raise _Closed(f"ends TLS: {(error.reason or str(error)).replace('_', ' ').lower()}") from None
        except (asyncio.IncompleteReadError, ConnectionError):
            raise _Closed("closes the connection at the first Kafka request", may_be_tls=True) from None
        if int.from_bytes(frame[:4], "big", signed=True) != self._correlation_id:
            raise _Unfit("answers, but not to what it was asked")
        try:
            api = request.api
            return decode(APIS[api].response, version, frame, response_body_offset(api, version))
        except (DecodeError, ValueError) as error:
            raise _Unfit(f"answers something that is not the Kafka protocol ({error})") from None

    async def _frame(self) -> bytes:
        head = await self._reader.readexactly(4)
        if head.startswith(b"HTTP"):
            raise _Unfit("speaks HTTP, not Kafka")
        if head[:1] in (b"\x15", b"\x16"):
            raise _Unfit("speaks TLS", may_be_tls=True)
        size_bytes = int.from_bytes(head, "big", signed=True)
        if not 4 <= size_bytes <= ANSWER_BYTES_MAX:
            raise _Unfit("answers something that is not the Kafka protocol")
        return await self._reader.readexactly(size_bytes)


async def _talk(
    talk: _Conversation,
    address: Address,
    resolved: tuple[str, ...],
    samples: int,
    monotonic: Callable[[], float],
) -> BrokerFacts:
    versions = await talk.ask(ApiVersionsRequest(), 0)
    ranges = {found.api_key: (found.min_version, found.max_version) for found in versions.api_keys}
    low, high = ranges.get(ApiKey.METADATA, (0, -1))
    version = min(high, METADATA_VERSIONS[1])
    if version < max(low, METADATA_VERSIONS[0]):
        raise _Unfit(f"serves no version of Metadata that can be read here (it serves {low} to {high})")
    times_s = []
    metadata = None
    for _ in range(max(1, samples)):
        began_s = monotonic()
        try:
            metadata = await talk.ask(MetadataRequest(topics=[], allow_auto_topic_creation=False), version)
        except _Closed:
            if SASL not in ranges:
                raise
            return BrokerFacts(address, resolved, is_open=True, wants_authentication=True)
        times_s.append(monotonic() - began_s)
    assert metadata is not None
    brokers = tuple(
        BrokerAddress(broker.node_id, Address(broker.host, broker.port))
        for broker in metadata.brokers[:BROKERS_MAX]
    )
    return BrokerFacts(
        address, resolved, True, "", metadata.cluster_id, brokers, round_trip=Latency.of(times_s)
    )


def _reason(error: OSError) -> str:
    """The reason alone: event loops wrap it in addresses and numbers."""
    if isinstance(error, socket.gaierror):
        return error.strerror or "unknown host"
    if error.errno:
        return os.strerror(error.errno)
    # Several addresses failed, each for a reason of its own; or it was lost during the handshake of TLS, for none.
    return str(error) or "the connection was lost"
