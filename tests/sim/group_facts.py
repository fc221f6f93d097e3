"""What a group was told, and whether it is true: checked while the simulation runs and after it.

P6: a committed offset is never lost and never goes back, neither in an answer nor in the store; and no offset is
committed whose records nobody has processed, for each member begins where the group has come to. One generation is
current: it only rises, has one leader and one plan, and every member of it holds what the leader sent for it. In the
end the group has processed every record.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from tests.sim import group_requests
from tests.sim.facts import Partition
from tests.sim.history import History

STORED_OFFSETS = """
    select t.name, l.partition, o.committed_offset
    from groups g join group_offsets o on o.group_number = g.group_number
    join logs l on l.log_id = o.log_id join topics t on t.topic_id = l.topic_id
    where g.group_id = ? order by t.name, l.partition
"""
STORED_GENERATION = "select generation from groups where group_id = ?"


class GroupFacts:
    """All that members of one group, and those who ask about it, were told."""

    def __init__(self, history: History, group_id: str) -> None:
        self.group_id = group_id
        self.generation = 0
        """The highest that a member was let into."""
        self.acknowledged: dict[Partition, int] = {}
        """The highest offset whose commit was answered without an error."""
        self.commits = 0
        self.records_processed = 0
        self._history = history
        self._known: dict[Partition, int] = {}
        """As acknowledged, or as told by an OffsetFetch."""
        self._processed: dict[Partition, set[int]] = defaultdict(set)
        self._floors: dict[Partition, int] = {}
        self._stored: dict[Partition, int] = {}
        self._stored_generation = 0
        self._leaders: dict[int, str] = {}
        self._plans: dict[int, str] = {}
        self._sent: dict[tuple[int, str], dict[str, bytes]] = {}
        """Per generation and plan the shares, by the members' keys."""

    def violate(self, text: str) -> None:
        """Agents are disposable (P6), and what they do for groups hangs on it."""
        self._history.violate("P6", f"{self.group_id}: {text}")

    # Members and generations.

    @property
    def fence(self) -> int:
        """The highest generation that has begun for sure: what is sent from now on in an older one is refused."""
        return max(self.generation, self._stored_generation)

    def joined(self, key: str, generation: int, before: int, is_leader: bool) -> None:
        """A member was let into a generation; `before` is the highest that was known when it asked."""
        if generation < before:
            self.violate(f"{key} was let into generation {generation} after {before} had begun")
        self.generation = max(self.generation, generation)
        if is_leader and self._leaders.setdefault(generation, key) != key:
            self.violate(f"generation {generation} is led by {self._leaders[generation]} and by {key}")

    def sends(self, generation: int, plan: str, shares: Mapping[str, bytes]) -> None:
        """A leader sends a plan."""
        self._sent[generation, plan] = dict(shares)

    def synced(self, key: str, generation: int, data: bytes) -> list[Partition]:
        """A member was given its share; the partitions in it."""
        if not data:
            self.violate(f"{key} was left out of generation {generation}")
            return []
        plan, _, partitions = group_requests.read_share(data)
        if self._plans.setdefault(generation, plan) != plan:
            self.violate(f"generation {generation} has the plans {self._plans[generation]} and {plan}")
        if self._sent.get((generation, plan), {}).get(key) != data:
            self.violate(f"{key} in generation {generation} holds {data!r}, which the leader did not send it")
        return partitions

    def accepted(self, key: str, what: str, generation: int, before: int) -> None:
        """Something of a member was accepted; `before` is the fence when it was sent."""
        if generation < before:
            self.violate(f"{what} of {key} in generation {generation} was accepted after {before} had begun")

    # Offsets.

    def processed(self, partition: Partition, offset: int) -> None:
        """A member is done with a record."""
        self.records_processed += 1
        self._processed[partition].add(offset)

    def known(self) -> dict[Partition, int]:
        """What every OffsetFetch that begins now has to show at least."""
        return dict(self._known)

    def commit_acknowledged(self, key: str, offsets: Mapping[Partition, int]) -> None:
        """A commit was answered without an error."""
        self.commits += 1
        for partition, offset in offsets.items():
            if self._stored.get(partition, -1) < offset:
                self.violate(f"{key} was told that {offset} of {partition} is committed; it is not stored")
            self.acknowledged[partition] = max(offset, self.acknowledged.get(partition, 0))
            self._know(partition, offset)

    def fetched(self, who: str, known: Mapping[Partition, int], offsets: Mapping[Partition, int]) -> None:
        """An OffsetFetch was answered; `known` is as of when it was sent."""
        for partition, offset in offsets.items():
            if offset < known.get(partition, -1):
                self.violate(f"{who} was told that {partition} stands at {offset}, not {known[partition]}")
            self._know(partition, offset)

    def check_stored(self, connection: sqlite3.Connection) -> None:
        """After each transaction: nothing in the store has gone back, or runs ahead of the members."""
        found = connection.execute(STORED_GENERATION, (self.group_id,)).fetchone()
        generation = found[0] if found else 0
        if generation < self._stored_generation:
            self.violate(f"the stored generation went from {self._stored_generation} to {generation}")
        self._stored_generation = generation
        stored = {
            Partition(topic, number): offset
            for topic, number, offset in connection.execute(STORED_OFFSETS, (self.group_id,))
        }
        for partition, before in self._stored.items():
            if stored.get(partition, -1) < before:
                self.violate(f"{partition} went from {before} to {stored.get(partition)} in the store")
        for partition, offset in stored.items():
            if offset > self._floor(partition):
                self.violate(f"{offset} of {partition} is stored; {self._floor(partition)} was not processed")
        self._stored = stored

    def _know(self, partition: Partition, offset: int) -> None:
        self._known[partition] = max(offset, self._known.get(partition, -1))

    def _floor(self, partition: Partition) -> int:
        """The first offset that nobody has processed."""
        floor, processed = self._floors.get(partition, 0), self._processed[partition]
        while floor in processed:
            floor += 1
        self._floors[partition] = floor
        return floor

    # In the end.

    def check(self, logs: Mapping[Partition, Sequence[bytes]]) -> None:
        """Every record that is there has been processed."""
        for partition, log in logs.items():
            if self._floor(partition) < len(log):
                self.violate(
                    f"nobody has processed {partition} offset {self._floor(partition)}; it ends at {len(log)}"
                )

    def check_described(self, described: Any, keys: Sequence[str]) -> bool:
        """Is the group stable, with just these members? Then each must hold what it was sent."""
        found = {member.group_instance_id or member.member_id: member for member in described.members}
        if described.group_state != "Stable" or sorted(found) != sorted(keys):
            return False
        shared = [p for member in found.values() for p in self._share_of(member)]
        if len(set(shared)) != len(shared):
            self.violate(f"two members hold the same partition: {sorted(map(str, shared))}")
        return True

    def _share_of(self, member: Any) -> list[Partition]:
        key = member.group_instance_id or member.member_id
        return self.synced(key, self.generation, bytes(member.member_assignment))
