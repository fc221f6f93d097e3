"""Clients that come, do something whole, and go: each kind of visit uses something that the agent has to take back.

`Churn.run` lets several visitors of each kind work side by side for a while. When it returns, nobody is connected, and
every topic, group, user, ACL and quota that a visit made has been deleted again.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

from tests.broker.client import Client, fetch_request, produce_request
from tests.broker.groups import Member
from tests.broker.support import batch
from tests.broker.test_acls import ORDERS, creation
from tests.broker.test_scram_credentials import upsertion
from warp.errors import ErrorCode
from warp.protocol.messages.acls import CreateAclsRequest, DeleteAclsFilter, DeleteAclsRequest
from warp.protocol.messages.api_versions import ApiVersionsRequest
from warp.protocol.messages.groups import (
    DeleteGroupsRequest,
    FindCoordinatorRequest,
    LeaveGroupMember,
    LeaveGroupRequest,
)
from warp.protocol.messages.metadata import MetadataRequest
from warp.protocol.messages.offsets import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsTopic,
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsTopic,
)
from warp.protocol.messages.producers import InitProducerIdRequest
from warp.protocol.messages.quotas import (
    AlterClientQuotasRequest,
    AlterQuotaEntity,
    AlterQuotaEntry,
    AlterQuotaOperation,
)
from warp.protocol.messages.sasl import SaslAuthenticateRequest, SaslHandshakeRequest
from warp.protocol.messages.scram import AlterUserScramCredentialsRequest, ScramCredentialDeletion
from warp.protocol.messages.topics import (
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
    DeleteTopicsRequest,
)

TOPIC = "lasting"
PARTITIONS = 8
VALUE = random.Random(5).randbytes(3000)
LARGE = random.Random(6).randbytes(40_000)
LATEST, EARLIEST = -1, -2
"""What ListOffsets takes for times."""
READS = 2
READ_BYTES = 250_000
"""Of each partition at once."""
TRY_AGAIN_S = 0.05
VISIT_S_MAX = 30.0
HEARTBEAT_EVERY_S = 0.01
TRIES_MAX = 200
VANISH_EVERY_S = 0.01
DELETE_EVERY_S = 0.2
PASSING = {
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, ErrorCode.COORDINATOR_NOT_AVAILABLE, ErrorCode.NOT_COORDINATOR,
    ErrorCode.REBALANCE_IN_PROGRESS, ErrorCode.REQUEST_TIMED_OUT, ErrorCode.NOT_ENOUGH_REPLICAS,
}  # fmt: skip


class _Passing(Exception):
    """An error code that says to come again."""


Visit = Callable[[], Awaitable[None]]


class Churn:
    """`port` speaks in the clear, `tls_port` TLS, `sasl_port` SASL. `done` counts visits by kind, `waited` those who
    vanished while their fetch waited, `passed` groups that lost their coordinator; `problems` has what went wrong."""

    def __init__(
        self, ports: Sequence[int], *, tls_port: int, tls: ssl.SSLContext, sasl_port: int, seed: int = 1
    ) -> None:
        self.done: Counter[str] = Counter()
        self.waited = 0
        self.passed = 0
        self.problems: list[str] = []
        self._every_port = ports
        self._ports = itertools.cycle(ports)
        self._tls_port = tls_port
        self._tls = tls
        self._sasl_port = sasl_port
        self._source = random.Random(seed)
        self._numbers = itertools.count()
        self._groups: dict[str, None] = {}
        self._deadline_s = 0.0
        self._visits: Sequence[tuple[str, Visit, int]] = (
            ("produce_and_read", self.produce_and_read, 8),
            ("vanish", self.vanish, 4),
            ("wait_and_vanish", self.wait_and_vanish, 4),
            ("read_from_start", self.read_from_start, 2),
            ("over_tls", self.over_tls, 4),
            ("with_password", self.with_password, 2),
            ("make_and_delete_topic", self.make_and_delete_topic, 6),
            ("group", self.group, 6),
            ("settings", self.settings, 3),
            ("delete_records", self.delete_records, 1),
        )

    async def prepare(self) -> None:
        """Make the topic that stays, and the user who logs in."""
        lasting = [
            CreatableTopicConfig(name=name, value=value)
            # By their bytes alone: the records' times are of long ago.
            for name, value in (("retention.bytes", "1000000"), ("retention.ms", "-1"))
        ]
        users = [upsertion("lasting", password="secret")]
        async with self._client() as client:
            answer = await client.ask(_creation(TOPIC, PARTITIONS, lasting), 7)
            assert answer.topics[0].error_code == 0, answer
            added = AlterUserScramCredentialsRequest(deletions=[], upsertions=users)
            assert (await client.ask(added, 0)).results[0].error_code == 0

    async def fill_cache(self, size_bytes: int) -> None:
        """Let every agent see so many bytes of such records as visits write: its cache is full from the beginning."""
        for port in self._every_port:
            share = size_bytes // PARTITIONS
            await asyncio.gather(*(self._fill(port, partition, share) for partition in range(PARTITIONS)))

    async def _fill(self, port: int, partition: int, size_bytes: int) -> None:
        async with self._client(port) as client:
            for _ in range(size_bytes // len(LARGE) + 1):
                stored = await client.produce(TOPIC, batch(LARGE), partition=partition)
                assert stored.error_code == 0, stored

    async def run(self, seconds: float) -> None:
        """Let all visitors work; what they began they finish."""
        self._deadline_s = time.monotonic() + seconds
        await asyncio.gather(
            *(self._repeat(name, visit) for name, visit, count in self._visits for _ in range(count))
        )
        for name in list(self._groups):
            await self._delete_group(name)

    async def _repeat(self, name: str, visit: Visit) -> None:
        while time.monotonic() < self._deadline_s:
            try:
                async with asyncio.timeout(VISIT_S_MAX):
                    await visit()
            except (OSError, asyncio.IncompleteReadError, TimeoutError, AssertionError) as error:
                self.problems.append(f"{name}: {error!r}")
                await asyncio.sleep(TRY_AGAIN_S)
            else:
                self.done[name] += 1

    @asynccontextmanager
    async def _client(
        self, port: int | None = None, tls: ssl.SSLContext | None = None
    ) -> AsyncIterator[Client]:
        """A connection, which is gone at the end: closed in order, or cut off by whoever has called `abort` before."""
        streams = await asyncio.open_connection("127.0.0.1", port or next(self._ports), ssl=tls)
        client = Client(*streams)
        try:
            yield client
        finally:
            client.writer.close()
            with contextlib.suppress(OSError):  # it was cut off
                await client.writer.wait_closed()

    async def produce_and_read(self) -> None:
        """An idempotent producer with an id of its own, which nobody will use again, and a reader."""
        partition = self._source.randrange(PARTITIONS)
        async with self._client() as client:
            assert (await client.ask(ApiVersionsRequest(), 0)).error_code == 0
            await client.ask(MetadataRequest(topics=None), 9)
            asked = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=60_000)
            producer_id = (await client.ask(asked, 4)).producer_id
            end = 0
            for sequence in range(3):
                values = batch(LARGE, producer_id=producer_id, producer_epoch=0, base_sequence=sequence)
                stored = await client.produce(TOPIC, values, partition=partition)
                if stored.error_code == ErrorCode.NOT_ENOUGH_REPLICAS:
                    return  # It was so slow that it has been forgotten.
                assert stored.error_code == 0, stored
                end = stored.base_offset + 1
            found = await client.fetch(TOPIC, end - 1, partition=partition)
            # Somebody may have deleted it.
            assert found.error_code in (0, ErrorCode.OFFSET_OUT_OF_RANGE), found
            answer = await client.ask(_offsets_of([partition], LATEST), 6)
            assert answer.topics[0].partitions[0].offset >= end, answer

    async def vanish(self) -> None:
        """A client that is cut off in the middle of a frame, half of which has come."""
        size = self._source.choice((100, 60_000, 2_000_000))
        async with self._client() as client:
            client.write(size.to_bytes(4, "big") + bytes(size // 2))
            await client.writer.drain()
            client.writer.transport.abort()
        await asyncio.sleep(VANISH_EVERY_S)

    async def wait_and_vanish(self) -> None:
        """A client that asks for what there is not yet, and writes, and is gone before it is answered."""
        async with self._client() as client:
            ends = await self._offsets(client, LATEST)
            client.send(fetch_request({TOPIC: ends}, max_wait_ms=2000, min_bytes=10**8), 12)
            for _ in range(5):
                client.send(produce_request({TOPIC: {0: batch(VALUE)}}), 9)
            await client.writer.drain()
            # Its first answer is that to the fetch: while there is none, the fetch waits.
            try:
                async with asyncio.timeout(self._source.uniform(0, 0.05)):
                    await client.reader.read(1)
            except TimeoutError:
                self.waited += 1
            client.writer.transport.abort()

    async def read_from_start(self) -> None:
        """A reader of all that there is, most of which has been merged and is in no cache; every second vanishes."""
        async with self._client() as client:
            nexts = await self._offsets(client, EARLIEST)
            for _ in range(READS):
                answer = await client.ask(fetch_request({TOPIC: nexts}, partition_max_bytes=READ_BYTES), 12)
                for part in answer.responses[0].partitions:
                    # Retention and DeleteRecords are faster now and then.
                    assert part.error_code in (0, ErrorCode.OFFSET_OUT_OF_RANGE), part
                nexts = await self._offsets(client, EARLIEST)
            if self._source.randrange(2):
                client.send(fetch_request({TOPIC: nexts}, partition_max_bytes=READ_BYTES), 12)
                await client.writer.drain()
                client.writer.transport.abort()

    async def _offsets(self, client: Client, timestamp: int) -> dict[int, int]:
        """The first or the next offset of each partition of the topic that stays."""
        answer = await client.ask(_offsets_of(range(PARTITIONS), timestamp), 6)
        parts = answer.topics[0].partitions
        assert all(part.error_code == 0 for part in parts), answer
        return {part.partition_index: part.offset for part in parts}

    async def over_tls(self) -> None:
        """The same over TLS; every fourth leaves in the middle of its handshake."""
        if not self._source.randrange(4):
            async with self._client(self._tls_port) as client:
                client.write(b"\x16\x03\x01\x02\x00\x01")
                await client.writer.drain()
                client.writer.transport.abort()
            return
        async with self._client(self._tls_port, self._tls) as client:
            assert (await client.produce(TOPIC, batch(VALUE))).error_code == 0
            await client.fetch(TOPIC)
            client.writer.transport.abort()

    async def with_password(self) -> None:
        """Logs in by PLAIN; every second with a wrong password."""
        is_right = self._source.random() < 0.5
        token = b"\0lasting\0" + (b"secret" if is_right else b"wrong%d" % next(self._numbers))
        async with self._client(self._sasl_port) as client:
            assert (await client.ask(SaslHandshakeRequest(mechanism="PLAIN"), 1)).error_code == 0
            answer = await client.ask(SaslAuthenticateRequest(auth_bytes=token), 2)
            assert (answer.error_code == 0) == is_right, answer
            if is_right:
                await client.ask(MetadataRequest(topics=[]), 9)

    async def make_and_delete_topic(self) -> None:
        """A topic with a config and records that lives for a moment, compacted or not."""
        number = next(self._numbers)
        name = f"fleeting-{number}"
        configs = [CreatableTopicConfig(name="cleanup.policy", value=("delete", "compact")[number % 2])]
        parts: dict[int, bytes | None] = {partition: batch(VALUE) for partition in range(3)}
        async with self._client() as client:
            answer = await client.ask(_creation(name, 3, configs), 7)
            assert answer.topics[0].error_code == 0, answer
            await client.ask(produce_request({name: parts}), 9)
            await client.fetch(name)
            answer = await client.ask(DeleteTopicsRequest(topic_names=[name], timeout_ms=30_000), 5)
            assert answer.responses[0].error_code == 0, answer

    async def group(self) -> None:
        """A group of two that rebalances as the second one comes, commits, loses both, and is deleted.

        When its coordinator changes meanwhile, because the machine stood still for long, the next group is tried.
        """
        name = f"group-{next(self._numbers)}"
        self._groups[name] = None
        port = await self._coordinator(name)
        async with self._client(port) as one, self._client(port) as other:
            try:
                await self._rebalance(Member(one, name), Member(other, name))
            except _Passing:
                self.passed += 1
                return
        await self._delete_group(name)

    async def _rebalance(self, first: Member, second: Member) -> None:
        _passes((await first.join()).error_code)
        _passes((await first.sync({first.id: b"all"})).error_code)
        _passes(await first.commit(TOPIC, 1))
        joining = asyncio.ensure_future(second.join())
        try:
            while (code := await first.heartbeat()) != ErrorCode.REBALANCE_IN_PROGRESS:
                _passes(code)
                await asyncio.sleep(HEARTBEAT_EVERY_S)
            rejoined = await first.join()
            _passes(rejoined.error_code)
            _passes((await joining).error_code)
        finally:
            joining.cancel()
        shares = {first.id: b"a", second.id: b"b"}
        is_leader = rejoined.leader == first.id
        await asyncio.gather(
            first.sync(shares if is_leader else {}), second.sync({} if is_leader else shares)
        )
        for member in (second, first):
            answer = await member.client.ask(
                LeaveGroupRequest(group_id=member.group, members=[LeaveGroupMember(member_id=member.id)]), 5
            )
            _passes(answer.error_code or answer.members[0].error_code)

    async def _delete_group(self, name: str) -> None:
        """Delete a group. Members that it was abandoned by are in it until their session is over."""
        code = 0
        for _ in range(TRIES_MAX):
            async with self._client(await self._coordinator(name)) as client:
                answer = await client.ask(DeleteGroupsRequest(groups_names=[name]), 2)
            code = answer.results[0].error_code
            if code in (0, ErrorCode.GROUP_ID_NOT_FOUND):
                del self._groups[name]
                return
            assert code in PASSING or code == ErrorCode.NON_EMPTY_GROUP, answer
            await asyncio.sleep(DELETE_EVERY_S)
        raise AssertionError(f"{name} can't be deleted: {code}")

    async def _coordinator(self, group: str) -> int:
        """The port of the agent that coordinates a group."""
        async with self._client() as client:
            for _ in range(TRIES_MAX):
                answer = await client.ask(FindCoordinatorRequest(coordinator_keys=[group]), 4)
                [found] = answer.coordinators
                if not found.error_code:
                    return int(found.port)
                await asyncio.sleep(TRY_AGAIN_S)
        raise AssertionError(f"nobody coordinates {group}")

    async def settings(self) -> None:
        """An ACL, a user and a quota that are made and deleted."""
        name = f"fleeting-{next(self._numbers)}"
        acl, user = ORDERS._replace(principal=f"User:{name}"), upsertion(name)
        gone = ScramCredentialDeletion(name=user.name, mechanism=user.mechanism)
        wanted = DeleteAclsFilter(
            resource_type_filter=acl.resource, resource_name_filter=acl.name, pattern_type_filter=acl.pattern,
            principal_filter=acl.principal, host_filter=acl.host, operation=acl.operation,
            permission_type=acl.permission,
        )  # fmt: skip
        async with self._client() as client:
            created = await client.ask(CreateAclsRequest(creations=[creation(acl)]), 3)
            assert created.results[0].error_code == 0, created
            added = AlterUserScramCredentialsRequest(deletions=[], upsertions=[user])
            assert (await client.ask(added, 0)).results[0].error_code == 0
            for is_removal in (False, True):
                changed = await client.ask(_quota(name, remove=is_removal), 1)
                assert changed.entries[0].error_code == 0, changed
            removed = AlterUserScramCredentialsRequest(deletions=[gone], upsertions=[])
            assert (await client.ask(removed, 0)).results[0].error_code == 0
            deleted = await client.ask(DeleteAclsRequest(filters=[wanted]), 3)
            assert len(deleted.filter_results[0].matching_acls) == 1, deleted

    async def delete_records(self) -> None:
        """All records of a partition of the topic that stays."""
        place = DeleteRecordsPartition(partition_index=self._source.randrange(PARTITIONS), offset=-1)
        topics = [DeleteRecordsTopic(name=TOPIC, partitions=[place])]
        async with self._client() as client:
            answer = await client.ask(DeleteRecordsRequest(topics=topics, timeout_ms=30_000), 2)
            assert answer.topics[0].partitions[0].error_code == 0, answer
        await asyncio.sleep(DELETE_EVERY_S)


def _passes(code: int) -> None:
    """Is it no error? Raises _Passing for one that ends by itself."""
    if code in PASSING:
        raise _Passing
    assert code == 0, code


def _creation(name: str, partitions: int, configs: list[CreatableTopicConfig]) -> CreateTopicsRequest:
    topic = CreatableTopic(
        name=name, num_partitions=partitions, replication_factor=1, assignments=[], configs=configs
    )
    return CreateTopicsRequest(topics=[topic])


def _quota(user: str, *, remove: bool) -> AlterClientQuotasRequest:
    change = AlterQuotaOperation(key="producer_byte_rate", value=1e9, remove=remove)
    entity = AlterQuotaEntity(entity_type="user", entity_name=user)
    entries = [AlterQuotaEntry(entity=[entity], ops=[change])]
    return AlterClientQuotasRequest(entries=entries, validate_only=False)


def _offsets_of(partitions: Iterable[int], timestamp: int) -> ListOffsetsRequest:
    places = [ListOffsetsPartition(partition_index=index, timestamp=timestamp) for index in partitions]
    return ListOffsetsRequest(replica_id=-1, topics=[ListOffsetsTopic(name=TOPIC, partitions=places)])
