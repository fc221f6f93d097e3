"""A group of a simulation: its members, what happens to them, those who ask about it, and how it has to end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from tests.sim import group_requests, requests
from tests.sim.client import Connection, Lost
from tests.sim.facts import Partition
from tests.sim.faults import Weather
from tests.sim.group_facts import GroupFacts
from tests.sim.members import Member
from tests.verifier import CommittedOffsets, Done, Heartbeat, OffsetFetch
from warp.errors import ErrorCode
from warp.protocol.messages.groups import DescribeGroupsRequest, HeartbeatRequest
from warp.protocol.schema import Request

if TYPE_CHECKING:
    from tests.sim.world import World

SEEDS_PER_GROUPS = 4
"""One seed in so many has groups; and so have all seeds with a cluster."""
PROBED_JOINS = 8
"""Among so many joins is the one whose member's heartbeat is sent by somebody else."""
CALM_AFTER_S = 10.0
"""When the weather is fine: until those who stood still go on, and what had piled up is done."""
MISFORTUNES = (
    *("die", "restart", "restart", "freeze", "freeze", "stop", "replace", "come"),
    *("outage", "doubt", "slow", "retire"),
)


class Group:
    """Some consumers who share partitions."""

    def __init__(self, world: World, group_id: str, partitions: Sequence[Partition]) -> None:
        self.world = world
        self.group_id = group_id
        self.chance = random.Random(f"{world.seed} {group_id}")
        self.partitions = partitions
        self.topics = sorted({partition.topic for partition in partitions})
        self.session_ms = self.chance.choice(
            (1_500, 3_000, 6_000) if world.cluster is None else (1_500, 3_000)
        )
        self.rebalance_ms = self.chance.choice((2_000, 6_000))
        self.facts: GroupFacts = GroupFacts(world.history, world.verifying.recorder, group_id)
        self.members: list[Member] = []
        """Of every life that was begun."""
        self.heartbeats: list[HeartbeatRequest] = []
        """Of every member, each time that it was let into a generation."""
        self._places = [
            f"{group_id}-{number}" if self.chance.random() < 0.4 else None
            for number in range(self.chance.randint(2, 4))
        ]
        """Instance ids, None where a dynamic member runs."""
        self._running: list[Member | None] = [None] * len(self._places)
        self._fine_since_s: float | None = None
        self._is_over = False

    @property
    def join_s(self) -> float:
        """How long a member waits at most for the others."""
        return 2 * (self.rebalance_ms + self.session_ms) / 1000 + 3.0

    @property
    def is_calm(self) -> bool:
        """Nothing keeps an agent from answering any more."""
        since_s = self._fine_since_s
        return since_s is not None and self.world.loop.time() >= since_s + CALM_AFTER_S

    @property
    def has_static_members(self) -> bool:
        """Some members are known by their instances."""
        return any(self._places)

    @property
    def is_fenced(self) -> bool:
        """An agent that has lost the group does not even answer heartbeats any more.

        Nobody takes it but the agent's own next life. In a cluster `probe` sees to it.
        """
        return len(self.world.hosts) == 1

    def start(self, *, is_calm: bool = False) -> list[asyncio.Task[None]]:
        """Boot the members, and let things happen to them; tasks that end when the weather is fine, or all is over."""
        for place in range(len(self._places)):
            self._boot(place)
        if is_calm:
            return [self.world.spawn(self._doubt())]
        return [self.world.spawn(self._suffer()), self.world.spawn(self._doubt())]

    def calm(self) -> None:
        """Nothing happens to the members any more; those that are missing come back."""
        self._fine_since_s = self.world.loop.time()
        self._boot_missing()

    async def settle(self, timeout_s: float) -> None:
        """See the group come to its end: all is committed, it is stable; then, when its members go, empty."""
        if not await self._within(timeout_s, self._has_caught_up):
            self._complain("did not commit all that there is")
        if not await self._within(timeout_s, self._is_stable):
            self._complain("is not stable")
        for member in self.members:
            member.is_stopping = True
        living = [member.task for member in self.members if member.is_living]
        _, late = await asyncio.wait(living, timeout=timeout_s) if living else (None, [])
        if late:
            self._complain(f"has {len(late)} members that did not stop")
        if not await self._within(timeout_s, self._is_empty):
            self._complain("is not empty")
        for member in self.members:
            if member.process.is_alive and member.task.done() and member.task.exception() is not None:
                self.facts.violate(f"{member.name} failed: {member.task.exception()!r}")
        await self._within(timeout_s, self._ask_for_offsets)
        self._is_over = True

    # Members come and go.

    def _boot(self, place: int) -> None:
        name = f"{self.group_id}-{place}.{len(self.members)}"
        self.world.history.add(name, "boots")
        member = self._running[place] = Member(self, name, self._places[place])
        self.members.append(member)

    def _boot_missing(self) -> None:
        for place, member in enumerate(self._running):
            if member is None or not member.is_living:
                self._boot(place)

    async def _suffer(self) -> None:
        while self._fine_since_s is None:
            await asyncio.sleep(self.chance.expovariate(1 / 0.8))
            if self._fine_since_s is None:
                self._misfortune()

    def _misfortune(self) -> None:
        misfortune = self.chance.choice(MISFORTUNES)
        match misfortune:
            case "outage":
                self._set_weather(Weather(begin_fails=1.0))
            case "doubt":
                self._set_weather(Weather(stall_s=0.02, commit_answer_is_lost=1.0))
            case "slow":
                self._set_weather(Weather(stall_s=1.0))
            case "retire":
                self.world.retire(self.chance.choice(self.world.hosts))
            case _:
                self._misfortune_of_member(misfortune)

    def _set_weather(self, weather: Weather) -> None:
        """Until the next change of the weather, which the world makes every few seconds."""
        if self.world.cluster is None:
            self.world.history.add("world", f"weather {weather}")
            self.world.sky.weather = weather
        else:
            # There it is most often one agent that suffers, while others are there to take its place.
            self.world.cluster.misfortune()

    def _misfortune_of_member(self, misfortune: str) -> None:
        place = self.chance.randrange(len(self._running))
        member = self._running[place]
        if member is None or not member.is_living:
            self._boot(place)
            return
        match misfortune:
            case "die":
                member.die(loudly=self.chance.random() < 0.7)
            case "restart":
                # At once: whatever it had sent last may be under way yet when it asks where to begin.
                member.die(loudly=True)
                self._boot(place)
            case "freeze":
                self._freeze(member)
            case "stop":
                member.is_stopping = True
            case "replace":
                # The old process goes on some day, and finds out that its place was taken.
                self._freeze(member)
                self._boot(place)
            case "come":
                self._boot_missing()

    def _freeze(self, member: Member) -> None:
        if not member.process.is_frozen:
            seconds = self.chance.choice((0.3, 2.0, 7.0))
            self.world.history.add(member.name, f"stands still for {seconds} s")
            self.world.loop.freeze(member.process, seconds)

    # What is asked from outside.

    async def coordinator(self, address: str) -> str:
        """The address of the coordinator, as an agent says. Raises Lost."""
        if self.world.cluster is None:
            return address
        connection = await Connection.open(self.world.network, address, "group auditor")
        try:
            request = group_requests.find_coordinator(self.group_id)
            response = await connection.ask(request, group_requests.FIND_COORDINATOR_VERSION)
        finally:
            connection.close()
        if response.error_code:
            raise Lost(ErrorCode(response.error_code).name)
        return str(response.host)

    async def _ask(self, request: Request, version: int, address: str | None = None) -> Any:
        """Ask some agent, or this one. Raises Lost."""
        address = address or self.world.any_address()
        connection = await Connection.open(self.world.network, address, "group auditor")
        try:
            return await connection.ask(request, version)
        finally:
            connection.close()

    async def _doubt(self) -> None:
        """Ask now and then what is committed."""
        while not self._is_over:
            await asyncio.sleep(self.chance.expovariate(1 / 0.7))
            await self._ask_for_offsets()

    async def _ask_for_offsets(self) -> bool:
        op = self.facts.recorder.begin("an auditor", OffsetFetch(self.group_id, self.partitions))
        request = group_requests.fetch_offsets(self.group_id, self.partitions)
        try:
            response = await self._ask(request, group_requests.OFFSET_FETCH_VERSION)
        except Lost:
            op.lost()
            return False
        if response.error_code:
            op.failed(response.error_code)
            return False
        op.answered(CommittedOffsets(group_requests.fetched_offsets(response)))
        return True

    async def probe(self, address: str) -> None:
        """Send an agent a heartbeat as some member sends it, or has: which it refuses once that generation is over."""
        if not self.heartbeats:
            return
        request, before = self.chance.choice(self.heartbeats[-PROBED_JOINS:]), self.facts.fence
        heartbeat = Heartbeat(self.group_id, request.generation_id, request.member_id)
        op = self.facts.recorder.begin(f"prober of {address}", heartbeat)
        for pause_s in (0.0, 0.5):
            # Twice: a coordinator that is loading the group answers any heartbeat well, as Kafka's does. Where the
            # database is away it may do so for longer, but then it describes no group.
            await asyncio.sleep(pause_s)
            try:
                response = await self._ask(request, group_requests.HEARTBEAT_VERSION, address)
            except Lost:
                return
            if response.error_code != ErrorCode.NONE:
                return
        if request.generation_id < before and await self._is_loaded(address):
            op.answered(Done())

    async def _is_loaded(self, address: str) -> bool:
        request = DescribeGroupsRequest(groups=[self.group_id])
        try:
            response = await self._ask(request, group_requests.DESCRIBE_VERSION, address)
        except Lost:
            return False
        return bool(response.groups[0].error_code == ErrorCode.NONE)

    async def _within(self, timeout_s: float, is_so: Callable[[], Awaitable[bool]]) -> bool:
        deadline_s = self.world.loop.time() + timeout_s
        while self.world.loop.time() < deadline_s:
            try:
                if await is_so():
                    return True
            except Lost as error:
                self.world.history.add("auditor", f"{self.group_id}: {error}")
            await asyncio.sleep(0.3)
        return False

    async def _has_caught_up(self) -> bool:
        self._boot_missing()
        response = await self._ask(requests.list_ends(self.partitions), requests.LIST_OFFSETS_VERSION)
        ends = requests.listed(response)
        acknowledged = self.facts.acknowledged
        return all(not code and acknowledged.get(place, 0) == end for place, (code, end) in ends.items())

    async def _is_stable(self) -> bool:
        self._boot_missing()
        keys = [member.key for member in self.members if member.is_living]
        return self.facts.see_described(await self._describe(), keys)

    async def _is_empty(self) -> bool:
        described = await self._describe()
        return bool(described.group_state == "Empty" and not described.members)

    async def _describe(self) -> Any:
        """Raises Lost when the agent does not know."""
        address = await self.coordinator(self.world.any_address())
        request = group_requests.describe(self.group_id)
        response = await self._ask(request, group_requests.DESCRIBE_VERSION, address)
        described = response.groups[0]
        if described.error_code:
            raise Lost(ErrorCode(described.error_code).name)
        self.world.history.add(
            "auditor", f"{self.group_id} is {described.group_state}: {len(described.members)}"
        )
        return described

    def _complain(self, text: str) -> None:
        for place in self.world.loop.waiting_places():
            self.world.history.add("waits", place)
        self.facts.violate(text)


def groups_of(world: World, partitions: Sequence[Partition]) -> list[Group]:
    """The groups that a seed has. They have chances of their own, so that other seeds' stories are as they were."""
    if world.seed % SEEDS_PER_GROUPS and world.cluster is None:
        return []
    count = 1 + (world.seed // SEEDS_PER_GROUPS) % 2
    return [Group(world, f"group-{number}", partitions) for number in range(count)]
