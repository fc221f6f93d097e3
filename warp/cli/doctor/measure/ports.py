"""Whether the agent's addresses can be listened on, and who has them when not.

An address is bound for an instant and never listened on, with the option that lets an agent which starts at that very
instant bind it all the same.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from dataclasses import replace

from warp.cli.doctor.facts import BindState, PortFacts
from warp.cli.doctor.measure.broker import ask_broker, resolve
from warp.cli.doctor.measure.status import ask_status
from warp.config_values import Address, ListenAddress


async def look_at_listener(address: Address, *, monotonic: Callable[[], float]) -> PortFacts:
    """A Kafka listener's address; when it is taken, what answers there."""
    facts = await try_bind(address)
    if facts.state is not BindState.TAKEN:
        return facts
    is_tls = isinstance(address, ListenAddress) and address.has_tls
    broker = await ask_broker(local(address), samples=1, monotonic=monotonic, is_tls=is_tls)
    return replace(facts, broker=broker)


async def look_at_http(address: Address, *, is_tls: bool = False) -> PortFacts:
    """The address of the HTTP face; when it is taken, what answers there."""
    facts = await try_bind(address)
    if facts.state is not BindState.TAKEN:
        return facts
    return replace(facts, status=await ask_status(local(address), is_tls=is_tls))


async def try_bind(address: Address) -> PortFacts:
    """Bind what the agent would bind, every address of the host, and let it go."""
    try:
        hosts = await resolve(address)
    except OSError as error:
        return PortFacts(address, BindState.UNKNOWN_HOST, error.strerror or str(error))
    for host in hosts:
        try:
            await asyncio.to_thread(_bind, host, address.port)
        except OSError as error:
            return PortFacts(address, _state(error), os.strerror(error.errno or 0))
    return PortFacts(address, BindState.FREE)


def local(address: Address) -> Address:
    """Where a program on this machine reaches a listener: a wildcard stands for the loopback address as well."""
    wildcards = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    return Address(wildcards.get(address.host, address.host), address.port)


def _bind(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        probe.bind((host, port))


def _state(error: OSError) -> BindState:
    known = {
        errno.EADDRINUSE: BindState.TAKEN,
        errno.EACCES: BindState.PRIVILEGED,
        errno.EPERM: BindState.PRIVILEGED,
        errno.EADDRNOTAVAIL: BindState.NOT_HERE,
    }
    return known.get(error.errno or 0, BindState.REFUSED)
