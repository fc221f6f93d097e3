"""What a group was told, and what the store holds of it: told to the verifier, and what members and tests go by."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from tests.sim import group_requests
from tests.sim.facts import Partition
from tests.sim.history import History
from tests.verifier import Assigned, Committed, Done, Joined, Op, Recorder, StoredGroup

STORED_OFFSETS = """
    select t.name, l.partition, o.committed_offset
    from groups g join group_offsets o on o.group_number = g.group_number
    join logs l on l.log_id = o.log_id join topics t on t.topic_id = l.topic_id
    where g.group_id = ? order by t.name, l.partition
"""
STORED_GENERATION = "select generation from groups where group_id = ?"


class GroupFacts:
    """All that members of one group, and those who ask about it, were told."""

    def __init__(self, history: History, recorder: Recorder, group_id: str) -> None:
        self.group_id = group_id
        self.recorder = recorder
        self.generation = 0
        """The highest that a member was let into."""
        self.acknowledged: dict[Partition, int] = {}
        """The highest offset whose commit was answered without an error."""
        self.commits = 0
        self.records_processed = 0
        self._history = history
        self._stored: StoredGroup | None = None

    def violate(self, text: str) -> None:
        """Agents are disposable (P6), and what they do for groups hangs on it."""
        self._history.violate("P6", f"{self.group_id}: {text}")

    @property
    def fence(self) -> int:
        """The highest generation that has begun for sure: what is sent from now on in an older one is refused."""
        return max(self.generation, 0 if self._stored is None else self._stored.generation)

    def joined(self, op: Op, key: str, generation: int, *, is_leader: bool) -> None:
        """A member was let into a generation."""
        op.answered(Joined(generation, key, is_leader))
        self.generation = max(self.generation, generation)

    def processed(self, partition: Partition, offset: int) -> None:
        """A member is done with a record."""
        self.records_processed += 1
        self.recorder.processed(self.group_id, partition, offset)

    def committed(self, op: Op, offsets: Mapping[Partition, int], codes: Mapping[Partition, int]) -> None:
        """A commit was answered."""
        op.answered(Committed(codes))
        done = {partition: offset for partition, offset in offsets.items() if not codes[partition]}
        self.commits += bool(done)
        for partition, offset in done.items():
            self.acknowledged[partition] = max(offset, self.acknowledged.get(partition, 0))

    def see_stored(self, connection: sqlite3.Connection) -> None:
        """After each transaction: what the store holds now."""
        found = connection.execute(STORED_GENERATION, (self.group_id,)).fetchone()
        rows = connection.execute(STORED_OFFSETS, (self.group_id,)).fetchall()
        offsets = {Partition(topic, number): offset for topic, number, offset in rows}
        stored = StoredGroup(self.group_id, found[0] if found else 0, offsets)
        if stored != self._stored:
            self._stored = stored
            self.recorder.observe("store", stored, Done())

    def see_described(self, described: Any, keys: Sequence[str]) -> bool:
        """Is the group stable, with just these members? Then each must hold what it was sent, of this generation."""
        found = {member.group_instance_id or member.member_id: member for member in described.members}
        if described.group_state != "Stable" or sorted(found) != sorted(keys):
            return False
        for key, member in found.items():
            share = bytes(member.member_assignment)
            partitions = group_requests.read_share(share)[2] if share else []
            assigned = Assigned(self.group_id, self.generation, key, partitions, share)
            self.recorder.observe("auditor", assigned, Done())
        return True
