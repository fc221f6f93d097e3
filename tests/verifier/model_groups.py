"""Groups at the model broker: members that share partitions, and somebody who commits whatever comes to mind."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tests.verifier.model_broker import Broker, Fault
from tests.verifier.operations import (
    Assigned,
    Committed,
    CommittedOffsets,
    Done,
    Joined,
    JoinGroup,
    OffsetCommit,
    OffsetFetch,
    Partition,
    StoredGroup,
    Synced,
    SyncGroup,
)
from tests.verifier.recorder import Recorder
from warp.errors import ErrorCode

KEPT = [Partition("kept", number) for number in range(3)]
GROUP = "members"
COMMITTERS = "committer"

Task = Iterator[None]
"""A client: it does a step, and lets others go on."""


class GroupClients:
    """Those of them that have to do with groups."""

    def __init__(self, chance: random.Random, broker: Broker) -> None:
        self.chance = chance
        self.broker = broker
        self.recorder = Recorder(lambda: broker.now_ms / 1000)
        self.is_over = False

    def _group(self) -> Task:
        """Two members that share the kept partitions, and take turns to process what is there."""
        generation, done = 0, dict.fromkeys(KEPT, 0)
        while not self.is_over:
            generation += 1
            yield from self._rebalance(generation)
            for _ in range(self.chance.randint(1, 4)):
                for place in KEPT:
                    end = self.broker.logs[place].end
                    for offset in range(done[place], min(end, done[place] + 3)):
                        self.recorder.processed(GROUP, place, offset)
                        done[place] = offset + 1
                yield from self._commit(GROUP, done, generation)
                yield from self._fetch_offsets(GROUP)

    def _rebalance(self, generation: int) -> Task:
        shares = {"a": [KEPT[0], KEPT[1]], "b": [KEPT[2]]}
        if self.broker.strikes(Fault.SHARE_TWICE):
            shares["b"].append(KEPT[0])
        joins = [self.recorder.begin(member, JoinGroup(GROUP)) for member in shares]
        yield
        told = generation
        if generation > 2 and self.broker.strikes(Fault.OLD_GENERATION):
            told = generation - 2
        for member, op in zip(shares, joins, strict=True):
            op.answered(Joined(told, member, is_leader=member == "a"))
        if told != generation:
            return
        plan = {member: str(places).encode() for member, places in shares.items()}
        for member, places in shares.items():
            sent = plan if member == "a" else {}
            op = self.recorder.begin(member, SyncGroup(GROUP, generation, member, sent))
            yield
            op.answered(Synced(plan[member], places))
        self.recorder.observe("auditor", Assigned(GROUP, generation, "a", shares["a"], plan["a"]), Done())

    def _commit(self, group: str, offsets: dict[Partition, int], generation: int) -> Task:
        op = self.recorder.begin("a", OffsetCommit(group, dict(offsets), generation, "a"))
        yield
        is_done = self.chance.random() < 0.8
        is_news = group == GROUP and any(
            self.broker.committed.get((group, p)) != o for p, o in offsets.items()
        )
        if is_done and not (is_news and self.broker.strikes(Fault.LOSE_COMMIT)):
            for place, offset in offsets.items():
                self.broker.committed[group, place] = offset
            if group == GROUP:
                self.recorder.observe("store", StoredGroup(GROUP, generation, dict(offsets)), Done())
        yield
        if is_done:
            op.answered(Committed(dict.fromkeys(offsets, 0)))
        elif self.chance.random() < 0.5:
            op.answered(Committed(dict.fromkeys(offsets, int(ErrorCode.REBALANCE_IN_PROGRESS))))
        else:
            op.lost()

    def _fetch_offsets(self, group: str) -> Task:
        op = self.recorder.begin("b", OffsetFetch(group, KEPT))
        yield
        offsets = {place: self.broker.committed.get((group, place), -1) for place in KEPT}
        if max(offsets.values()) > 0 and self.broker.strikes(Fault.TELL_OLD_COMMIT):
            offsets = dict.fromkeys(offsets, -1)
        elif self.broker.strikes(Fault.TELL_STRANGE_COMMIT):
            offsets[KEPT[0]] = 12_345
        yield
        op.answered(CommittedOffsets(offsets))

    def _committer(self) -> Task:
        """Commits whatever comes to its mind, also lower offsets."""
        while not self.is_over:
            yield from self._commit(COMMITTERS, {KEPT[0]: self.chance.randrange(20)}, -1)
            yield from self._fetch_offsets(COMMITTERS)
