"""Looks at the agent from where clients stand: the address that they are told, and every broker that it names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from warp.cli.doctor.facts import BindState, BrokerFacts, ClientFacts, PortFacts
from warp.cli.doctor.measure.broker import ask_broker
from warp.config_values import Address, ListenAddress

OTHERS_MAX: Final = 32
"""Brokers of one cluster that are tried."""


async def look_as_client(
    told: Address, listener: PortFacts, *, monotonic: Callable[[], float]
) -> ClientFacts:
    """A listener of this machine through the address that clients are told."""
    broker = listener.broker
    return await _look(
        told,
        listener.address,
        is_tls=isinstance(listener.address, ListenAddress) and listener.address.has_tls,
        is_serving=listener.state is BindState.TAKEN,
        expected_cluster_id=broker.cluster_id if broker is not None else None,
        samples=1,
        monotonic=monotonic,
    )


async def look_at_cluster(bootstrap: Address, *, samples: int, monotonic: Callable[[], float]) -> ClientFacts:
    """A cluster that runs somewhere, through the address that its clients are configured with."""
    return await _look(
        bootstrap,
        None,
        is_tls=None,
        is_serving=True,
        expected_cluster_id=None,
        samples=samples,
        monotonic=monotonic,
    )


async def _look(
    told: Address,
    listen: Address | None,
    *,
    is_tls: bool | None,
    is_serving: bool,
    expected_cluster_id: str | None,
    samples: int,
    monotonic: Callable[[], float],
) -> ClientFacts:
    answer = await ask_broker(told, samples=samples, monotonic=monotonic, is_tls=is_tls)
    others = await _ask_all(answer, monotonic)
    return ClientFacts(told, listen, is_serving, expected_cluster_id, answer, tuple(others))


async def _ask_all(answer: BrokerFacts, monotonic: Callable[[], float]) -> Sequence[BrokerFacts]:
    """Every address that the answer names, each once; at the same time, because those that fail take seconds."""
    named = dict.fromkeys(broker.address for broker in answer.brokers)
    asked = [
        ask_broker(address, samples=1, monotonic=monotonic, is_tls=answer.is_tls)
        for address in list(named)[:OTHERS_MAX]
    ]
    return await asyncio.gather(*asked)
