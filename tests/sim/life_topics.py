"""Topics whose records go some day: what they are configured to lose, and so what may be missing of them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.verifier import Partition, TopicRules

KEYS = 7
"""So few keys that every one is written again and again."""
COMPACT = "compact"
BOTH = "compact,delete"
AGED_MS = 60_000
"""So old is what is written first to a topic whose records have times of their own."""
HASTE = 15.0
JITTER_MS = 2_000
SMALL, LARGE = 20, 200
"""Bytes of a value. Retention by size counts batches with their headers: then values are to be most of it."""


@dataclass(frozen=True, slots=True)
class LifeTopic:
    """One topic: what it is created with, and what clients do to it."""

    name: str
    partitions: int
    configs: Mapping[str, str] = field(default_factory=dict)
    keys: int = 0
    """How many; 0: its records have none."""
    value_bytes: int = SMALL
    is_trimmed: bool = False
    """Somebody deletes its records."""
    is_renewed: bool = False
    """Somebody deletes it, and creates it anew."""
    is_changing: bool = False
    """Somebody changes its cleanup policy."""
    haste: float = 0.0
    """So many times as fast as time are those of its records; 0: they have the time at which they are written."""

    @property
    def places(self) -> list[Partition]:
        """Its partitions."""
        return [Partition(self.name, number) for number in range(self.partitions)]

    def time_ms(self, began_ms: int, now_ms: int, chance: random.Random) -> int:
        """The time of a record that is written now, where clients began then.

        In haste they begin long ago and end up in the future: so a short life passes through many spans of time.
        """
        if not self.haste:
            return now_ms
        return int(began_ms - AGED_MS + self.haste * (now_ms - began_ms)) - chance.randint(0, JITTER_MS)

    @property
    def retention_ms(self) -> int | None:
        """How old records may become, where their age is all that takes them."""
        rules = self.rules(0)
        return None if rules.is_compacted or rules.retention_bytes is not None else rules.retention_ms

    def rules(self, clock_skew_ms: int) -> TopicRules:
        """What may be missing in the end, where the clocks of agents were so far apart."""
        configs = self.configs
        policy = configs.get("cleanup.policy", "delete")
        deletes = "delete" in policy
        retention_ms = int(configs.get("retention.ms", -1))
        retention_bytes = int(configs.get("retention.bytes", -1))
        return TopicRules(
            is_compacted=COMPACT in policy or self.is_changing,
            retention_ms=retention_ms if deletes and retention_ms >= 0 else None,
            retention_bytes=retention_bytes if deletes and retention_bytes >= 0 else None,
            # A tombstone stays for so long after it was written, which its time says nothing of where that hastens.
            tombstone_ms=0 if self.haste else int(configs.get("delete.retention.ms", 0)),
            compaction_lag_ms=int(configs.get("min.compaction.lag.ms", 0)),
            clock_skew_ms=clock_skew_ms,
        )


def some_topics(chance: random.Random) -> list[LifeTopic]:
    """A few, never the same."""
    kinds = [_brief, _aged, _sized, _trimmed, _latest, _both, _changing, _renewed]
    return [kind(chance) for kind in chance.sample(kinds, chance.randint(2, 4))]


def _brief(chance: random.Random) -> LifeTopic:
    return LifeTopic("brief", 2, {"retention.ms": str(chance.choice((1_000, 3_000)))})


def _aged(chance: random.Random) -> LifeTopic:
    return LifeTopic("aged", 2, {"retention.ms": str(chance.choice((20_000, 60_000)))}, haste=HASTE)


def _sized(chance: random.Random) -> LifeTopic:
    kept = chance.choice((1_500, 5_000))
    return LifeTopic("sized", 1, {"retention.bytes": str(kept)}, value_bytes=LARGE)


def _trimmed(chance: random.Random) -> LifeTopic:
    return LifeTopic("trimmed", chance.randint(1, 2), is_trimmed=True)


def _compaction(chance: random.Random) -> dict[str, str]:
    return {
        "min.cleanable.dirty.ratio": chance.choice(("0.0", "0.1", "0.5")),
        "delete.retention.ms": str(chance.choice((0, 500, 4_000))),
        "min.compaction.lag.ms": str(chance.choice((0, 0, 1_000))),
    }


def _latest(chance: random.Random) -> LifeTopic:
    return LifeTopic("latest", 2, {"cleanup.policy": COMPACT, **_compaction(chance)}, keys=KEYS)


def _both(chance: random.Random) -> LifeTopic:
    configs = {"cleanup.policy": BOTH, "retention.ms": "4000", **_compaction(chance)}
    return LifeTopic("both", 1, configs, keys=KEYS, haste=chance.choice((0.0, HASTE)))


def _changing(chance: random.Random) -> LifeTopic:
    configs = {"cleanup.policy": "delete", "retention.ms": "-1", "min.cleanable.dirty.ratio": "0.1"}
    return LifeTopic("changing", 1, configs, keys=KEYS, is_changing=True)


def _renewed(chance: random.Random) -> LifeTopic:
    return LifeTopic("renewed", chance.randint(1, 2), is_renewed=True)
