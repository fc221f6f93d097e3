"""Raw members of a group, which see every answer about generations and shares themselves."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from tests.broker.groups import protocols
from tests.faults.caller import Caller, Where
from tests.verifier import (
    Answer,
    Committed,
    CommittedOffsets,
    Done,
    Heartbeat,
    Joined,
    JoinGroup,
    OffsetCommit,
    OffsetFetch,
    Partition,
    Recorder,
    Synced,
    SyncGroup,
)
from tests.verifier.adapters import raw
from warp.errors import ErrorCode
from warp.protocol.messages.groups import (
    HeartbeatRequest,
    JoinGroupRequest,
    LeaveGroupMember,
    LeaveGroupRequest,
    SyncGroupRequest,
    SyncGroupRequestAssignment,
)

SESSION_MS = 4_000
REBALANCE_MS = 3_000
JOIN_ATTEMPT_S = 8.0
HEARTBEAT_S = 0.25
LEAVE_SHARE = 0.02
"""Of the heartbeats after which a member leaves, and comes back as another one."""
JOIN_VERSION, SYNC_VERSION, HEARTBEAT_VERSION, LEAVE_VERSION = 9, 5, 4, 4

REJOIN = frozenset(
    {
        ErrorCode.REBALANCE_IN_PROGRESS,
        ErrorCode.ILLEGAL_GENERATION,
        ErrorCode.UNKNOWN_MEMBER_ID,
        ErrorCode.MEMBER_ID_REQUIRED,
    }
)
"""What a member is told in the course of things."""


class RawMember(Caller):
    """Joins, is assigned partitions, beats, commits for them, leaves now and then."""

    def __init__(
        self,
        recorder: Recorder,
        name: str,
        agents: Sequence[Where],
        source: random.Random,
        group: str,
        places: Sequence[Partition],
    ) -> None:
        super().__init__(recorder, name, agents, source)
        self._group = group
        self._places = list(places)
        self._id = ""
        self._generation = -1

    async def run(self, stopping: asyncio.Event) -> None:
        """Until told to stop; it leaves then if it can."""
        is_found = False
        while not stopping.is_set():
            is_found = is_found or await self.go_to_coordinator(self._group, stopping)
            error = await self._take_part(stopping) if is_found else None
            if error is None or error not in REJOIN:
                is_found = False
            if error == ErrorCode.UNKNOWN_MEMBER_ID:
                self._id = ""
            if error is not None and error not in REJOIN:
                self.judge(error, "a member")
            await self.rest()
        if self._id and is_found:
            await self._leave()
        self.hang_up()

    async def _take_part(self, stopping: asyncio.Event) -> int | None:
        """One generation, until it is over: the error that ended it, None where nobody answers."""
        joined = await self._join()
        if not isinstance(joined, tuple):
            return joined
        members, is_leader = joined
        synced = await self._sync(members if is_leader else [])
        if not isinstance(synced, Synced):
            return synced
        offsets = await self._committed(synced.partitions)
        while not stopping.is_set():
            error = await self._beat()
            if error != 0:
                return error
            if offsets is not None and (error := await self._commit(offsets)) != 0:
                return error
            self.score.done += 1
            if self.source.random() < LEAVE_SHARE:
                await self._leave()
                return ErrorCode.UNKNOWN_MEMBER_ID
            await self.rest(HEARTBEAT_S)
        return ErrorCode.REBALANCE_IN_PROGRESS

    async def _join(self) -> tuple[list[str], bool] | int | None:
        """Who is in the generation (as the leader is told), and whether this is the leader."""
        request = JoinGroupRequest(
            group_id=self._group, session_timeout_ms=SESSION_MS, rebalance_timeout_ms=REBALANCE_MS,
            member_id=self._id, group_instance_id=None, protocol_type="consumer",
            protocols=protocols(("range", b"metadata")),
        )  # fmt: skip
        members: list[str] = []

        def read(response: Any) -> Answer | int:
            if response.error_code == ErrorCode.MEMBER_ID_REQUIRED:
                self._id = response.member_id
            if response.error_code:
                return int(response.error_code)
            self._id, self._generation = response.member_id, response.generation_id
            members.extend(member.member_id for member in response.members)
            return Joined(self._generation, self._id, response.leader == self._id)

        answer = await self.ask(JoinGroup(self._group), request, JOIN_VERSION, read, JOIN_ATTEMPT_S)
        return (members, answer.is_leader) if isinstance(answer, Joined) else _error(answer)

    async def _sync(self, members: Sequence[str]) -> Synced | int | None:
        """The own share; with members, which the leader has, everybody is given one."""
        shares = {
            member: b",".join(b"%d" % place.number for place in self._places[number :: len(members)])
            for number, member in enumerate(sorted(members))
        }
        request = SyncGroupRequest(
            group_id=self._group, generation_id=self._generation, member_id=self._id, group_instance_id=None,
            protocol_type="consumer", protocol_name="range",
            assignments=[
                SyncGroupRequestAssignment(member_id=member, assignment=share) for member, share in shares.items()
            ],
        )  # fmt: skip

        def read(response: Any) -> Answer | int:
            if response.error_code:
                return int(response.error_code)
            share = bytes(response.assignment)
            numbers = {int(number) for number in share.split(b",") if number}
            return Synced(share, [place for place in self._places if place.number in numbers])

        operation = SyncGroup(self._group, self._generation, self._id, shares)
        answer = await self.ask(operation, request, SYNC_VERSION, read, JOIN_ATTEMPT_S)
        return answer if isinstance(answer, Synced) else _error(answer)

    async def _beat(self) -> int | None:
        request = HeartbeatRequest(
            group_id=self._group, generation_id=self._generation, member_id=self._id, group_instance_id=None
        )
        answer = await self.ask(
            Heartbeat(self._group, self._generation, self._id), request, HEARTBEAT_VERSION,
            lambda response: int(response.error_code) or Done(),
        )  # fmt: skip
        return 0 if isinstance(answer, Done) else _error(answer)

    async def _committed(self, places: Sequence[Partition]) -> dict[Partition, int] | None:
        """Where to go on; None where nobody says so."""
        if not places:
            return None
        answer = await self.ask(
            OffsetFetch(self._group, places), raw.offset_fetch(self._group, places),
            raw.VERSIONS["offset fetch"], raw.committed_offsets,
        )  # fmt: skip
        return dict(answer.offsets) if isinstance(answer, CommittedOffsets) else None

    async def _commit(self, offsets: dict[Partition, int]) -> int | None:
        """One more of each."""
        wanted = {place: offset + 1 for place, offset in offsets.items()}
        answer = await self.ask(
            OffsetCommit(self._group, wanted, self._generation, self._id),
            raw.offset_commit(self._group, wanted, self._generation, self._id),
            raw.VERSIONS["offset commit"],
            raw.committed,
        )
        if not isinstance(answer, Committed):
            return _error(answer)
        error = max(answer.parts.values())
        if not error:
            offsets.update(wanted)
        return error

    async def _leave(self) -> None:
        """Whatever comes of it, it is another member from now on."""
        member = LeaveGroupMember(member_id=self._id, group_instance_id=None)
        await self.ask_aside(LeaveGroupRequest(group_id=self._group, members=[member]), LEAVE_VERSION)
        self._id = ""


def _error(answer: Answer | int | None) -> int | None:
    assert answer is None or isinstance(answer, int)
    return answer
