"""What a client says of itself in its client.id: its zone, the work it does, how its partitions are to be spread.

The Kafka protocol has no field for any of that, but every client lets its user set a client.id. So `name=value` pairs,
parted by commas, are looked for anywhere in it, as in `ws_az=eu-west-1a,orders-writer`. The names are those that
WarpStream documents, with its prefixes `warpstream_` and `ws_`, and with `warp_`. What is no such pair means nothing
here, and whatever a client.id holds, its client is served.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from warp.metadata.cluster_model import FETCH, PRODUCE

CHARACTERS_MAX = 1_024
"""How much of a client.id is looked at."""
VALUE_CHARACTERS_MAX = 64
"""As long as the name of a zone can be; a longer value is cut, and marked so that it equals no name."""
_CACHED_MAX = 4_096
_CUT = "…"

_PREFIXES = ("warp", "ws", "warpstream")
_ZONE = frozenset(f"{prefix}_az" for prefix in _PREFIXES)
_TARGET = frozenset(f"{prefix}_{name}" for prefix in _PREFIXES for name in ("proxy_target", "pt"))
_STRATEGY = frozenset(
    f"{prefix}_{name}" for prefix in _PREFIXES for name in ("partition_assignment_strategy", "pas")
)


class Strategy(Enum):
    """How the partitions that a client asks about are spread over agents."""

    SINGLE_AGENT = "single_agent"
    """One agent leads them all, so that what a client sends together is stored together."""
    CONSISTENT = "consistent"
    """Each partition has one agent, the same for all clients of a zone."""


_STRATEGIES = {strategy.value: strategy for strategy in Strategy}
_ROLES = {"proxy-produce": PRODUCE, "proxy-consume": FETCH, PRODUCE: PRODUCE, FETCH: FETCH}


@dataclass(frozen=True, slots=True)
class ClientFeatures:
    """The wishes in a client.id; None where it has none."""

    zone: str | None = None
    role: str | None = None
    """The role that an agent must have in order to be named to this client: `produce` or `fetch`."""
    strategy: Strategy = Strategy.SINGLE_AGENT
    unknown: tuple[str, ...] = ()
    """Pairs with a name that means something and a value that doesn't, as NAME=VALUE."""


def client_features(client_id: str | None) -> ClientFeatures:
    """Read the features in a client.id. Never fails; of a name that is there twice the first counts."""
    return _parsed((client_id or "")[:CHARACTERS_MAX])


@lru_cache(_CACHED_MAX)
def _parsed(text: str) -> ClientFeatures:
    zone = role = None
    strategy: Strategy | None = None
    unknown: dict[str, None] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            continue
        if len(value) > VALUE_CHARACTERS_MAX:
            value = value[:VALUE_CHARACTERS_MAX] + _CUT
        if name in _ZONE:
            zone = zone or value
        elif name in _TARGET:
            role = role or _ROLES.get(value)
            if value not in _ROLES:
                unknown[f"{name}={value}"] = None
        elif name in _STRATEGY:
            strategy = strategy or _STRATEGIES.get(value)
            if value not in _STRATEGIES:
                unknown[f"{name}={value}"] = None
    return ClientFeatures(zone, role, strategy or Strategy.SINGLE_AGENT, tuple(unknown))
