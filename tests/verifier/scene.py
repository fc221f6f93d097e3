"""What it takes to tell the verifier a small history in a few lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tests.verifier.history import Batch, Content
from tests.verifier.operations import (
    Committed,
    CommittedOffsets,
    Fetch,
    Fetched,
    Joined,
    JoinGroup,
    OffsetCommit,
    OffsetFetch,
    Partition,
    Placed,
    Produce,
    Produced,
    Synced,
    SyncGroup,
)
from tests.verifier.readback import FsckResult, Readback
from tests.verifier.recorder import Op, Recorder
from tests.verifier.rules import Rules, TopicRules

HERE, THERE = Partition("topic", 0), Partition("topic", 1)
NOW_MS = 1_000_000


class Scene:
    """A recorder, and what it takes to tell it something in a line."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self.recorder = Recorder(self._tick)
        self.readbacks: list[Readback] = []
        self.topics: dict[str, TopicRules] = {}
        self.finishing: dict[str, list[Partition]] = {}
        self.rising: frozenset[str] = frozenset()
        self.fsck: FsckResult | None = None

    @property
    def rules(self) -> Rules:
        """What the topics' configs are."""
        return Rules(self.topics, groups_that_finish=self.finishing, rising_groups=self.rising)

    def _tick(self) -> float:
        self._now_s += 0.001
        return self._now_s

    def batch(self, *values: str, at: Partition = HERE, **fields: object) -> Batch:
        """A batch without keys."""
        contents: list[Content] = [(None, value.encode()) for value in values]
        return self.recorder.batch(at, contents, **fields)  # type: ignore[arg-type]  # the names are batch's own

    def send(self, *batches: Batch) -> Op:
        """A request on its way."""
        return self.recorder.begin("client", Produce(batches), agent="agent")

    def ack(self, op: Op, *offsets: int) -> None:
        """All batches of a request are acknowledged."""
        assert isinstance(op.operation, Produce)
        parts = {b.partition: Placed(0, o) for b, o in zip(op.operation.batches, offsets, strict=True)}
        op.answered(Produced(parts))

    def write(self, *values: str, offset: int, at: Partition = HERE, **fields: object) -> Batch:
        """A batch that is sent and acknowledged."""
        batch = self.batch(*values, at=at, **fields)
        self.ack(self.send(batch), offset)
        return batch

    def fetch(
        self, position: int, found: Sequence[str], *, end: int, at: Partition = HERE, gap: int = 0
    ) -> None:
        """A Fetch of one partition; the records after the first are `gap` offsets further on."""
        records = [(position + n + (gap if n else 0), None, value.encode()) for n, value in enumerate(found)]
        op = self.recorder.begin("reader", Fetch({at: position}), agent="agent")
        op.answered(Fetched({at: self.recorder.part(0, end, 0, records)}))

    def read_back(
        self, *values: str, at: Partition = HERE, agent: str = "agent", start: int = 0, end: int | None = None
    ) -> Readback:
        """A log in the end, through an agent."""
        back = next((back for back in self.readbacks if back.agent == agent), None)
        if back is None:
            back = self.recorder.readback(agent, NOW_MS)
            self.readbacks.append(back)
        read = back.log(at, start, start + len(values) if end is None else end)
        for offset, value in enumerate(values, start):
            if value:
                read.add(offset, None, value.encode())
        return back

    def joined(self, member: str, generation: int, *, leads: bool = False) -> None:
        """A member is let into a generation."""
        op = self.recorder.begin(member, JoinGroup("group"))
        op.answered(Joined(generation, member, leads))

    def synced(self, member: str, share: bytes, shares: Mapping[str, bytes] | None = None) -> None:
        """A member is given its share of generation 1."""
        op = self.recorder.begin(member, SyncGroup("group", 1, member, shares or {}))
        op.answered(Synced(share))

    def commit(self, offset: int, generation: int = -1) -> None:
        """A member commits, and is told that it has."""
        op = self.recorder.begin("member", OffsetCommit("group", {HERE: offset}, generation, "member"))
        op.answered(Committed({HERE: 0}))

    def told(self, offset: int) -> None:
        """Somebody is told what is committed."""
        op = self.recorder.begin("auditor", OffsetFetch("group", [HERE]))
        op.answered(CommittedOffsets({HERE: offset}))


Story = Callable[[Scene, bool], None]
"""Tells a scene; `wrong` is whether the thing happens that must not."""
