"""Members of groups: processes that join, share partitions out, consume, commit, and may die or stand still meanwhile.

They do as Java's consumer does with an eager assignor: whoever leads plans, heartbeats go beside the polling, what is
processed is committed now and then and before every new join, and a lost coordinator is looked for without joining
again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tests.sim import group_requests, life_requests, requests
from tests.sim.client import Connection, Lost
from tests.sim.facts import Partition
from tests.sim.group_facts import GroupFacts
from tests.sim.loop import Process
from tests.sim.readers import PASSING
from tests.verifier import (
    CommittedOffsets,
    Done,
    Fetch,
    Heartbeat,
    JoinGroup,
    OffsetCommit,
    OffsetFetch,
    Op,
    Operation,
    Part,
    Synced,
    SyncGroup,
)
from warp.errors import ErrorCode
from warp.protocol.messages.groups import (
    HeartbeatRequest,
    JoinGroupRequest,
    JoinGroupRequestProtocol,
    SyncGroupRequest,
    SyncGroupRequestAssignment,
)
from warp.protocol.schema import Request

if TYPE_CHECKING:
    from tests.sim.groups import Group

PROTOCOL = "range"
PROTOCOL_TYPE = "consumer"
HEARTBEAT_S = 3.0
"""How long a heartbeat may take."""
PATIENCE_S = 60.0
"""How long patient members wait. Nothing that happens here lasts as long."""
NOT_HERE = {
    ErrorCode.NOT_COORDINATOR,
    ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
}
JOIN_AGAIN = {
    ErrorCode.REBALANCE_IN_PROGRESS,
    ErrorCode.ILLEGAL_GENERATION,
    ErrorCode.UNKNOWN_MEMBER_ID,
}


class JoinAgain(Exception):
    """The member's generation is over, or it is not in the group any more."""


class Fenced(Exception):
    """Another process has taken this one's instance id."""


class Member:
    """One life of one consumer, in a process of its own."""

    def __init__(self, group: Group, name: str, instance_id: str | None) -> None:
        self.name = name
        self.instance_id = instance_id
        self.process = Process(name)
        self.is_stopping = False
        self.member_id = ""
        self._group = group
        self._world = group.world
        self._facts: GroupFacts = group.facts
        self._chance = group.chance
        # Below v5 a leader is not told who is static: then it can't name shares so that they outlive a member id.
        self._join_version = self._chance.choice((5, 7, 9) if group.has_static_members else (3, 5, 9))
        self._is_patient = self._chance.random() < 0.3
        self._generation = -1
        self._positions: dict[Partition, int] | None = None
        """Of the partitions that it was given; None while it is in no generation."""
        self._plans = 0
        self._reader: Connection | None = None
        self._fetching: asyncio.Future[Any] | None = None
        self._fetched: Op | None = None
        """The same, as the verifier knows it."""
        self._coordinator: Connection | None = None
        self.task = group.world.loop.start(self.process, self.run())

    @property
    def is_living(self) -> bool:
        """Its process runs, or would if it were not frozen."""
        return self.process.is_alive and not self.task.done()

    @property
    def key(self) -> str:
        """What its share belongs to: the instance, which may change its member id within a generation."""
        return self.instance_id or self.member_id

    def heartbeat(self) -> HeartbeatRequest:
        """A sign of life, as of now."""
        return HeartbeatRequest(
            group_id=self._group.group_id,
            generation_id=self._generation,
            member_id=self.member_id,
            group_instance_id=self.instance_id,
        )

    def die(self, *, loudly: bool) -> None:
        """End without a word to the group; `loudly`: the machine lives and resets the connections."""
        self._tell("dies")
        self.process.is_alive = False
        if loudly:
            self._hang_up()

    async def run(self) -> None:
        """Consume until told to stop, then leave."""
        try:
            while not self.is_stopping:
                try:
                    await self._serve(await self._connect())
                except JoinAgain as again:
                    self._tell(f"joins again: {again}")
                    self._positions = None
                    if self._fetching is not None:
                        self._drop_reader()
                except Lost as lost:
                    self._tell(f"starts over: {lost}")
                    self._hang_up()
                    await asyncio.sleep(self._chance.uniform(0.02, 0.4))
            await self._leave()
        except Fenced:
            self._tell("is fenced")
        finally:
            self._hang_up()

    def _tell(self, text: str) -> None:
        self._world.history.add(self.name, text)

    def _hang_up(self) -> None:
        self._drop_reader()
        if self._coordinator is not None:
            self._coordinator.close()
        self._coordinator = None

    # Requests to the coordinator.

    async def _connect(self) -> Connection:
        """A connection to the agent that says it is the coordinator. Raises Lost."""
        if self._coordinator is None or self._coordinator.is_lost:
            address = self._world.any_address()
            connection = await Connection.open(self._world.network, address, self.name)
            self._coordinator = connection
            request = group_requests.find_coordinator(self._group.group_id)
            response = await self._ask(request, group_requests.FIND_COORDINATOR_VERSION, 5.0)
            self._judge("FindCoordinator", response.error_code)
            if self._world.cluster is not None and response.host != address:
                connection.close()
                self._coordinator = await Connection.open(self._world.network, response.host, self.name)
        return self._coordinator

    async def _ask(self, request: Request, version: int, timeout_s: float) -> Any:
        """Send and wait. Raises Lost; and it is not right that no answer comes in good weather, or for very long."""
        connection = self._coordinator
        if connection is None:
            raise Lost("not connected")
        return await self._wait(
            connection, connection.send(request, version), type(request).__name__, timeout_s
        )

    async def _wait(
        self, connection: Connection, answer: asyncio.Future[Any], what: str, timeout_s: float
    ) -> Any:
        is_calm = self._group.is_calm
        timeout_s = PATIENCE_S if self._is_patient else timeout_s
        try:
            return await asyncio.wait_for(answer, timeout_s)
        except TimeoutError:
            if is_calm or self._is_patient:
                self._facts.violate(f"{self.name} had no answer to {what} in {timeout_s} s")
            connection.close()
            raise Lost("no answer in time") from None

    def _begin(self, operation: Operation) -> Op:
        """Tell the verifier what is about to be asked."""
        connection = self._coordinator
        return self._facts.recorder.begin(self.name, operation, "" if connection is None else connection.life)

    async def _ask_of(self, op: Op, request: Request, version: int, timeout_s: float) -> Any:
        """Send and wait; the verifier hears of it when there is no answer."""
        try:
            return await self._ask(request, version, timeout_s)
        except Lost:
            op.lost()
            raise

    def _judge_of(self, op: Op, what: str, error_code: int) -> None:
        """Raise what an error means; the verifier hears of it."""
        if error_code:
            op.failed(error_code)
        self._judge(what, error_code)

    def _judge(self, what: str, error_code: int) -> None:
        """Raise what an error means."""
        code = ErrorCode(error_code)
        if code is ErrorCode.NONE:
            return
        if code in NOT_HERE:
            raise Lost(f"{what}: {code.name}")
        if code is ErrorCode.FENCED_INSTANCE_ID:
            raise Fenced
        if code not in JOIN_AGAIN:
            self._facts.violate(f"{self.name}: {what} got {code.name}, which ends a client")
        if code is ErrorCode.UNKNOWN_MEMBER_ID:
            self.member_id = ""
        raise JoinAgain(f"{what}: {code.name}")

    # Membership.

    async def _serve(self, _: Connection) -> None:
        """Get a share unless there still is one, and consume it."""
        if self._positions is None:
            partitions = await self._sync(await self._join())
            self._positions = await self._fetch_positions(partitions)
        beating = asyncio.create_task(self._beat())
        try:
            while not (self.is_stopping or beating.done()):
                await self._consume_a_while(self._positions, beating)
        finally:
            beating.cancel()
            await asyncio.wait([beating])
            failure = None if beating.cancelled() else beating.exception()
        if isinstance(failure, JoinAgain) and "REBALANCE" in str(failure) and self._chance.random() < 0.7:
            await self._commit(self._positions)
        if failure is not None:
            raise failure

    async def _join(self) -> Any:
        while True:
            request = JoinGroupRequest(
                group_id=self._group.group_id,
                session_timeout_ms=self._group.session_ms,
                rebalance_timeout_ms=self._group.rebalance_ms,
                member_id=self.member_id,
                group_instance_id=self.instance_id,
                protocol_type=PROTOCOL_TYPE,
                protocols=[
                    JoinGroupRequestProtocol(
                        name=PROTOCOL, metadata=group_requests.subscription(self._group.topics)
                    )
                ],
            )
            op = self._begin(JoinGroup(self._group.group_id))
            response = await self._ask_of(op, request, self._join_version, self._group.join_s)
            if response.error_code != ErrorCode.MEMBER_ID_REQUIRED:
                break
            op.failed(response.error_code)
            self.member_id = response.member_id
        self._judge_of(op, "JoinGroup", response.error_code)
        self.member_id, self._generation = response.member_id, response.generation_id
        self._tell(
            f"joined generation {self._generation} as {self.member_id}, {len(response.members)} members"
        )
        self._facts.joined(op, self.key, self._generation, is_leader=bool(response.members))
        self._group.heartbeats.append(self.heartbeat())
        return response

    async def _sync(self, joined: Any) -> list[Partition]:
        shares: dict[str, bytes] = {}
        if joined.members and not joined.skip_assignment:
            shares = self._plan([member.group_instance_id or member.member_id for member in joined.members])
            # Some think for long, and send their plan although they have been called to join again meanwhile.
            await asyncio.sleep(self._chance.choice((0.0, 0.01, 1.0)))
        request = SyncGroupRequest(
            group_id=self._group.group_id,
            generation_id=self._generation,
            member_id=self.member_id,
            group_instance_id=self.instance_id,
            protocol_type=PROTOCOL_TYPE,
            protocol_name=PROTOCOL,
            assignments=[
                SyncGroupRequestAssignment(
                    member_id=member.member_id,
                    assignment=shares[member.group_instance_id or member.member_id],
                )
                for member in joined.members
                if shares
            ],
        )
        op = self._begin(SyncGroup(self._group.group_id, self._generation, self.key, shares))
        response = await self._ask_of(op, request, group_requests.SYNC_VERSION, self._group.join_s)
        self._judge_of(op, "SyncGroup", response.error_code)
        share = bytes(response.assignment)
        partitions = group_requests.read_share(share)[2] if share else []
        op.answered(Synced(share, partitions))
        self._tell(f"holds {' '.join(map(str, partitions))} of generation {self._generation}")
        return partitions

    def _plan(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Share the partitions out in turn."""
        self._plans += 1
        plan = f"{self._generation}/{self.name}/{self._plans}"
        keys = sorted(keys)
        partitions = self._group.partitions
        return {
            key: group_requests.share(plan, key, partitions[nth :: len(keys)]) for nth, key in enumerate(keys)
        }

    async def _beat(self) -> None:
        """Heartbeats, until one is not answered well."""
        while True:
            await asyncio.sleep(self._group.session_ms / 4000)
            op = self._begin(Heartbeat(self._group.group_id, self._generation, self.key))
            response = await self._ask_of(op, self.heartbeat(), group_requests.HEARTBEAT_VERSION, HEARTBEAT_S)
            self._judge_of(op, "Heartbeat", response.error_code)
            if self._group.is_fenced:
                op.answered(Done())
            else:
                # An agent that has been taken over learns of it when it stores something.
                op.lost()

    async def _leave(self) -> None:
        """Commit and say goodbye; static members may go without."""
        try:
            await self._connect()
            if self._positions:
                await self._commit(self._positions)
            if self.member_id and (self.instance_id is None or self._chance.random() < 0.5):
                request = group_requests.leave(self._group.group_id, self.member_id, self.instance_id)
                response = await self._ask(request, group_requests.LEAVE_VERSION, 5.0)
                self._tell(f"leaves: {ErrorCode(response.error_code).name}")
        except (Lost, JoinAgain) as error:
            self._tell(f"left without a word: {error}")

    # Records and offsets.

    async def _fetch_positions(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        if not partitions:
            return {}
        request = group_requests.fetch_offsets(self._group.group_id, partitions)
        op = self._begin(OffsetFetch(self._group.group_id, partitions))
        response = await self._ask_of(op, request, group_requests.OFFSET_FETCH_VERSION, 5.0)
        self._judge_of(op, "OffsetFetch", response.error_code)
        offsets = group_requests.fetched_offsets(response)
        op.answered(CommittedOffsets(offsets))
        self._tell(f"begins at {' '.join(f'{p}:{offset}' for p, offset in offsets.items())}")
        return {partition: max(0, offset) for partition, offset in offsets.items()}

    async def _consume_a_while(self, positions: dict[Partition, int], beating: asyncio.Task[None]) -> None:
        """Poll some times, then commit."""
        for _ in range(self._chance.randint(1, 4)):
            if not beating.done():
                await self._poll(positions)
                # When all is well there may be much to catch up with, batch by batch.
                await asyncio.sleep(0.0 if self._group.is_calm else self._chance.choice((0.0, 0.02, 0.3)))
        await self._commit(positions)

    async def _poll(self, positions: dict[Partition, int]) -> None:
        """Take records, should some have come: whoever waits for a slow Fetch has other things to do meanwhile."""
        if not positions:
            await asyncio.sleep(0.1)
            return
        try:
            if self._reader is None or self._reader.is_lost:
                self._reader = await Connection.open(
                    self._world.network, self._world.any_address(), self.name
                )
                self._give_up_fetching()
            if self._fetching is None:
                self._fetching = self._fetch(self._reader, positions)
            await asyncio.wait([self._fetching], timeout=0.3)
            if not self._fetching.done():
                return
            response = self._fetching.result()
        except Lost:
            self._drop_reader()
            return
        op, self._fetched, self._fetching = self._fetched, None, None
        assert op is not None, "it was told of the request"
        assert isinstance(op.operation, Fetch)
        answer = life_requests.fetched(self._facts.recorder, op.operation.positions, response)
        op.answered(answer)
        for partition, part in answer.parts.items():
            await self._process(positions, partition, part)
            if self._chance.random() < 0.1:
                self._commit_in_passing(positions)

    def _fetch(self, reader: Connection, positions: dict[Partition, int]) -> asyncio.Future[Any]:
        request = requests.fetch(
            positions.items(), max_wait_ms=100, min_bytes=1, max_bytes=100_000, partition_bytes=50_000
        )
        self._fetched = self._facts.recorder.begin(self.name, Fetch(dict(positions)), reader.life)
        return reader.send(request, requests.FETCH_VERSION)

    def _drop_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = None
        self._give_up_fetching()

    def _give_up_fetching(self) -> None:
        if self._fetched is not None:
            self._fetched.lost()
        self._fetched = self._fetching = None

    async def _process(self, positions: dict[Partition, int], partition: Partition, part: Part) -> None:
        code = ErrorCode(part.error_code)
        if code is not ErrorCode.NONE:
            if code not in PASSING:
                self._facts.violate(f"{self.name}: {partition} at {positions[partition]} got {code.name}")
            return
        self._world.facts.records_read += len(part.offsets)
        for offset in part.offsets:
            if offset == positions[partition]:
                if self._chance.random() < 0.05:
                    await asyncio.sleep(0.01)
                self._facts.processed(partition, offset)
                positions[partition] = offset + 1

    def _send_commit(self, connection: Connection, offsets: Mapping[Partition, int]) -> asyncio.Future[Any]:
        """Commit; what is acknowledged is held against what is true when the answer comes, whoever waits for it."""
        request = group_requests.commit(
            self._group.group_id, self.member_id, self.instance_id, self._generation, offsets
        )
        op = self._facts.recorder.begin(
            self.name,
            OffsetCommit(self._group.group_id, offsets, self._generation, self.key),
            connection.life,
        )

        def answered(answer: asyncio.Future[Any]) -> None:
            if answer.cancelled() or answer.exception() is not None:
                op.lost()
                return
            codes = group_requests.committed(answer.result())
            self._tell(f"commits {' '.join(f'{p}:{o}:{codes[p]}' for p, o in offsets.items())}")
            self._facts.committed(op, offsets, codes)

        answer = connection.send(request, group_requests.COMMIT_VERSION)
        answer.add_done_callback(answered)
        return answer

    def _commit_in_passing(self, positions: Mapping[Partition, int]) -> None:
        """Commit without waiting; the next one may be sent before this one is answered."""
        if self._coordinator is not None:
            _ = self._send_commit(self._coordinator, dict(positions))

    async def _commit(self, positions: Mapping[Partition, int]) -> None:
        """Commit and wait."""
        if not positions:
            return
        connection = await self._connect()
        answer = self._send_commit(connection, dict(positions))
        response = await self._wait(connection, answer, "OffsetCommit", 4.0)
        for code in group_requests.committed(response).values():
            self._judge("OffsetCommit", code)
