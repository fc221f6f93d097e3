"""Those who may not, or not any more: strangers, and guests whom an administrator lets in and turns out again.

P10: what a stranger sends before it has authenticated is neither answered nor stored. A guest may do what it has been
allowed, and nothing before that or after. At the agent that has acknowledged a change it is in force at once, whatever
the weather; a second later it is at all others, in fine weather, with notices and without. That nothing is stored of
what was refused is seen in the end: such records are none of those that the logs may hold.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tests.sim import requests
from tests.sim.client import Connection, Lost
from tests.sim.facts import Batch, Partition
from tests.sim.guard import ITERATIONS, ROOT, SALT, WRITER, Guard, Refused, password_of, salted
from tests.sim.hosts import Host
from tests.sim.notices import NoticeWeather
from warp._records import build_batch
from warp.errors import ErrorCode
from warp.protocol.messages.acls import AclCreation, CreateAclsRequest, DeleteAclsFilter, DeleteAclsRequest
from warp.protocol.messages.quotas import (
    AlterClientQuotasRequest,
    AlterQuotaEntity,
    AlterQuotaEntry,
    AlterQuotaOperation,
)
from warp.protocol.messages.sasl import SaslHandshakeRequest
from warp.protocol.messages.scram import (
    AlterUserScramCredentialsRequest,
    ScramCredentialDeletion,
    ScramCredentialUpsertion,
)
from warp.protocol.schema import Request
from warp.protocol.types import (
    AclOperation,
    AclPatternType,
    AclPermissionType,
    AclResourceType,
    ScramMechanism,
)

if TYPE_CHECKING:
    from tests.sim.world import World

PLACE = Partition("gate", 0)
"""What guests write to and read."""
PAUSE_S = 1.0
KNOWN_S = 1.0
"""After so long a change is in force at every agent."""
PATIENCE_S = 25.0
"""How long a guest waits for an answer: longer than anybody is held back."""
ATTEMPTS = 10
"""In fine weather; connections may be lost whose sessions end."""
QUOTAS = (20_000.0, 100_000.0)
SMALL_QUOTA = 5.0
"""Less than the two records that come first."""
CREATE_ACLS_VERSION = 3
DELETE_ACLS_VERSION = 3
QUOTAS_VERSION = 1


class Guests:
    """Lets guests and strangers come, one after the other."""

    def __init__(self, world: World, guard: Guard) -> None:
        self.rounds = 0
        """Visits of guests that came to their end."""
        self.strangers = 0
        self._world = world
        self._guard = guard
        self._chance = guard.chance
        self._guests = 0
        self._is_calm = False

    def start(self) -> list[asyncio.Task[None]]:
        """Let them come until all is well: tasks that end then."""
        return [self._world.spawn(self._receive()), self._world.spawn(self._be_strange())]

    def calm(self) -> None:
        """All is well."""
        self._is_calm = True
        self._guard.calm()

    async def settle(self) -> None:
        """See that guests are let in and turned out everywhere within a second, with notices and without."""
        weathers = [NoticeWeather()]
        if self._world.cluster is not None:
            weathers = [NoticeWeather(lost=1.0), NoticeWeather()]
        for weather in weathers:
            if self._world.cluster is not None:
                self._world.cluster.bus.weather = weather
            if not await self._visited():
                self._world.history.violate("P6", "no guest could be received in fine weather")
        await self._stranger(self._world.any_host())
        self._world.history.add(
            "guests", f"{self.rounds} visits, {self.strangers} strangers, {self._guard.log_ins} log-ins"
        )

    async def _visited(self) -> bool:
        for _ in range(ATTEMPTS):
            if await self._visit(is_strict=True):
                return True
            await asyncio.sleep(1.0)
        return False

    async def _receive(self) -> None:
        while not self._is_calm:
            await asyncio.sleep(self._chance.expovariate(1 / PAUSE_S))
            if self._chance.random() < 0.2:
                await self._limit_writers()
            await self._visit(is_strict=False)

    async def _visit(self, *, is_strict: bool) -> bool:
        self._guests += 1
        guest = Guest(self._world, self._guard, f"guest-{self._guests}", is_strict=is_strict)
        try:
            await guest.visit(self._world.any_host(), self._world.any_host())
        except Lost as error:
            self._world.history.add(guest.name, f"gives up: {error}")
            return False
        finally:
            guest.leave()
        self.rounds += 1
        return True

    async def _limit_writers(self) -> None:
        """Give the producers a quota: they are held back, and go on."""
        request = limit(WRITER, self._chance.choice(QUOTAS))
        try:
            await administer(self._world, self._world.any_address(), request, QUOTAS_VERSION)
        except Lost as error:
            self._world.history.add(ROOT, f"can't limit the writers: {error}")

    async def _be_strange(self) -> None:
        while not self._is_calm:
            await asyncio.sleep(self._chance.expovariate(1 / PAUSE_S))
            await self._stranger(self._world.any_host())

    async def _stranger(self, host: Host) -> None:
        """Ask for something without having authenticated, perhaps in the middle of it."""
        self.strangers += 1
        try:
            connection = await Connection.dial(self._world.network, host.address, "stranger")
        except Lost:
            return
        data = build_batch([(None, b"of stranger %d" % self.strangers, (), self._world.clock.time_ms())])
        batch = Batch("stranger", PLACE, self.strangers, [], data, is_idempotent=False)
        asked: list[tuple[Request, int]] = [
            (requests.produce([batch], 1_000), requests.PRODUCE_VERSION),
            (requests.fetch([(PLACE, 0)], **FETCHED), requests.FETCH_VERSION),
            (requests.create_topics({"strange": 1}), requests.CREATE_TOPICS_VERSION),
        ]
        if self._chance.random() < 0.5:
            _ = connection.send(SaslHandshakeRequest(mechanism="SCRAM-SHA-256"), 1)
        answer = connection.send(*self._chance.choice(asked))
        await asyncio.wait([answer], timeout=5.0)
        if answer.done() and answer.exception() is None:
            self._world.history.violate("P10", f"{connection.life} answered a stranger: {answer.result()}")
        connection.close()


FETCHED: dict[str, int] = {"max_wait_ms": 0, "min_bytes": 1, "max_bytes": 2_000, "partition_bytes": 2_000}


class Guest:
    """One user of a name that nobody has had before, so that no change that comes late can let it in."""

    def __init__(self, world: World, guard: Guard, name: str, *, is_strict: bool) -> None:
        self.name = name
        self._world = world
        self._guard = guard
        self._is_strict = is_strict
        """All is well: whatever was changed is in force everywhere after a second."""
        self._connection: Connection | None = None
        self._session_ms = 0
        self._number = 0
        self._changed_by = ""
        """The process that has acknowledged the last change."""

    def leave(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()

    async def visit(self, changing: Host, visited: Host) -> None:
        """Come as a stranger, be let in, be turned out. Raises Lost when it can't be told what should be."""
        if not self._is_strict:
            # Only where the changes are made are they in force at once.
            visited = changing
        address = visited.address
        await self._change(changing, self._created(), 0)
        self._connection = await self._arrive(address)
        await self._try(is_allowed=False)
        for operation in (AclOperation.WRITE, AclOperation.READ):
            await self._change(changing, self._granted(operation), CREATE_ACLS_VERSION)
        await self._try(is_allowed=True)
        if self._is_strict:
            await self._be_held_back(changing)
            # The connection is still not read for a while.
            self.leave()
            self._connection = await self._arrive(address)
        waiting = self._connection.send(
            requests.fetch(
                [(PLACE, 0)], max_wait_ms=3_000, min_bytes=1_000_000, max_bytes=1_000_000, partition_bytes=1
            ),
            requests.FETCH_VERSION,
        )
        await self._change(changing, self._turned_out(), DELETE_ACLS_VERSION)
        turned_out_s = self._world.loop.time() - (KNOWN_S if self._is_strict else 0.0)
        await self._see_waiting(waiting, turned_out_s)
        await self._try(is_allowed=False)
        await self._change(changing, self._deleted(), 0)
        await self._be_unknown(address)

    # What the administrator changes.

    def _created(self) -> AlterUserScramCredentialsRequest:
        upsertion = ScramCredentialUpsertion(
            name=self.name,
            mechanism=ScramMechanism.SCRAM_SHA_256,
            iterations=ITERATIONS,
            salt=SALT,
            salted_password=salted(password_of("guest"), SALT, ITERATIONS),
        )
        return AlterUserScramCredentialsRequest(deletions=[], upsertions=[upsertion])

    def _deleted(self) -> AlterUserScramCredentialsRequest:
        deletion = ScramCredentialDeletion(name=self.name, mechanism=ScramMechanism.SCRAM_SHA_256)
        return AlterUserScramCredentialsRequest(deletions=[deletion], upsertions=[])

    def _granted(self, operation: AclOperation) -> CreateAclsRequest:
        creation = AclCreation(
            resource_type=AclResourceType.TOPIC,
            resource_name=PLACE.topic,
            resource_pattern_type=AclPatternType.LITERAL,
            principal=f"User:{self.name}",
            host="*",
            operation=operation,
            permission_type=AclPermissionType.ALLOW,
        )
        return CreateAclsRequest(creations=[creation])

    def _turned_out(self) -> DeleteAclsRequest:
        every = DeleteAclsFilter(
            resource_type_filter=AclResourceType.ANY,
            resource_name_filter=None,
            pattern_type_filter=AclPatternType.ANY,
            principal_filter=f"User:{self.name}",
            host_filter=None,
            operation=AclOperation.ANY,
            permission_type=AclPermissionType.ANY,
        )
        return DeleteAclsRequest(filters=[every])

    async def _change(self, host: Host, request: Request, version: int) -> None:
        """Have it done, and wait until it has to be in force. Raises Lost."""
        life = await administer(self._world, host.address, request, version)
        if not self._is_strict and self._changed_by not in ("", life):
            raise Lost("another process answers now")
        self._changed_by = life
        self._world.history.add(ROOT, f"{type(request).__name__} for {self.name} at {life}")
        if self._is_strict:
            await asyncio.sleep(KNOWN_S)

    # What the guest sees.

    async def _arrive(self, address: str) -> Connection:
        """Log in. Raises Lost."""
        connection = await Connection.dial(self._world.network, address, self.name)
        self._connection = connection
        self._check_life(connection)
        try:
            self._session_ms = await self._guard.log_in(connection, self.name, password_of("guest"))
        except Refused as error:
            self._world.history.violate("P10", f"{connection.life} refused {self.name}, who exists: {error}")
            raise
        return connection

    def _check_life(self, connection: Connection) -> None:
        if not self._is_strict and connection.life != self._changed_by:
            raise Lost("another process answers now")

    async def _ask(self, request: Request, version: int) -> Any:
        """Ask, after authenticating again if that has to be: it keeps the connection. Raises Lost."""
        connection = self._connection
        assert connection is not None, "it has arrived"
        if self._session_ms:
            try:
                await self._guard.log_in(connection, self.name, password_of("guest"))
            except Refused as error:
                self._world.history.violate("P10", f"{self.name} could not authenticate again: {error}")
                raise
        return await connection.ask(request, version, PATIENCE_S)

    async def _write(self) -> tuple[Any, int]:
        """The answer to a Produce of one record, and its error code. Raises Lost."""
        batch = self._new_batch()
        connection = self._connection
        assert connection is not None, "it has arrived"
        op = self._world.facts.sends(self.name, [batch], connection.life)
        try:
            answer = await self._ask(requests.produce([batch], 4_000), requests.PRODUCE_VERSION)
        except Lost:
            op.lost()
            raise
        answers = requests.produced(answer)
        # Should it be there though it was refused, the verifier finds what nobody has stored.
        self._world.facts.answered(op, [batch], answers)
        return answer, answers[PLACE][0]

    async def _try(self, *, is_allowed: bool) -> None:
        """Write and read; each is allowed, or it is not."""
        _, code = await self._write()
        self._judge("write", code, is_allowed=is_allowed)
        answer = await self._ask(requests.fetch([(PLACE, 0)], **FETCHED), requests.FETCH_VERSION)
        self._judge("read", requests.fetched(answer)[PLACE].error_code, is_allowed=is_allowed)

    def _new_batch(self) -> Batch:
        value = f"{self.name}/{self._number}".encode()
        data = build_batch([(None, value, (), self._world.clock.time_ms())])
        self._number += 1
        return Batch(self.name, PLACE, self._number, [value], data, is_idempotent=False)

    def _judge(self, what: str, code: int, *, is_allowed: bool) -> None:
        assert self._connection is not None, "it has arrived"
        name = ErrorCode(code).name
        self._world.history.add(self.name, f"may {'' if is_allowed else 'not '}{what}: {name}")
        is_refused = code == ErrorCode.TOPIC_AUTHORIZATION_FAILED
        if is_refused == is_allowed:
            may = "may" if is_allowed else "may not"
            self._world.history.violate(
                "P10", f"{self.name} {may} {what}, and {self._connection.life}: {name}"
            )

    async def _see_waiting(self, waiting: asyncio.Future[Any], turned_out_s: float) -> None:
        """A fetch that waited when the guest was turned out: it tells nothing any more. Raises Lost."""
        await asyncio.wait([waiting], timeout=PATIENCE_S)
        if not waiting.done():
            raise Lost("no answer in time")
        part = requests.fetched(waiting.result())[PLACE]
        is_late = self._world.loop.time() > turned_out_s + KNOWN_S
        if is_late and self._is_strict and part.error_code != ErrorCode.TOPIC_AUTHORIZATION_FAILED:
            self._world.history.violate(
                "P10", f"{self.name} has read though it was turned out while it waited"
            )

    async def _be_held_back(self, changing: Host) -> None:
        """Under a small quota it is told to wait, and its records are stored all the same. Raises Lost."""
        await self._change(changing, limit(self.name, SMALL_QUOTA), QUOTAS_VERSION)
        throttled_ms = 0
        for _ in range(3):
            answer, code = await self._write()
            throttled_ms += answer.throttle_time_ms
            if code != ErrorCode.NONE:
                self._world.history.violate("P6", f"{self.name} is limited and got {ErrorCode(code).name}")
            if throttled_ms:
                break
        else:
            self._world.history.violate("P10", f"{self.name} has a quota that nobody heeds")
        await self._change(changing, limit(self.name, None), QUOTAS_VERSION)

    async def _be_unknown(self, address: str) -> None:
        """It is deleted: it does not get in again. Raises Lost."""
        connection = await Connection.dial(self._world.network, address, self.name)
        self._check_life(connection)
        await self._guard.fail(connection, self.name, password_of("guest"))


def limit(user: str, bytes_per_s: float | None) -> AlterClientQuotasRequest:
    """What a user may produce; None: as much as it can."""
    operation = AlterQuotaOperation(
        key="producer_byte_rate", value=bytes_per_s or 0.0, remove=bytes_per_s is None
    )
    entity = AlterQuotaEntity(entity_type="user", entity_name=user)
    return AlterClientQuotasRequest(
        entries=[AlterQuotaEntry(entity=[entity], ops=[operation])], validate_only=False
    )


async def administer(world: World, address: str, request: Request, version: int) -> str:
    """Have a change made by an agent; the process that has acknowledged it. Raises Lost, also for an error."""
    connection = await Connection.open(world.network, address, ROOT)
    try:
        response = await connection.ask(request, version)
    finally:
        connection.close()
    for attribute in ("results", "filter_results", "entries"):
        for result in getattr(response, attribute, ()):
            if result.error_code:
                raise Lost(f"{type(request).__name__}: {ErrorCode(result.error_code).name}")
    return connection.life
