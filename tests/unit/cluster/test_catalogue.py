"""The catalogue: snapshots, their freshness, and topics that come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.metadata.support import WatchedDatabase, sqlite_store
from warp.cluster.catalogue import NAME_FRESHNESS_S, CatalogueService, TopicInfo
from warp.cluster.topic_request import PartitionsRequest, TopicRequest
from warp.errors import ErrorCode, KafkaError, MetadataUnavailable
from warp.ids import BrokerId, TopicId
from warp.log.model import LogTarget, TopicRules
from warp.metadata.entries import EntryChange, EntryKind
from warp.metadata.sqlite import IN_MEMORY


class Cluster:
    """Two agents' catalogues over one store, and the statements that the store runs."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.down = False
        self.store = sqlite_store(IN_MEMORY, lambda inner: WatchedDatabase(inner, self._before))
        self.here, self.there = (
            CatalogueService(
                self.store.metadata,
                self.store.clock,
                self.store.ids,
                broker={"message.max.bytes": "5000", "num.partitions": "2"},
                broker_ids=lambda: (BrokerId(1),),
            )
            for _ in range(2)
        )

    def _before(self, name: str) -> None:
        self.statements.append(name)
        if self.down:
            raise MetadataUnavailable("as told")

    def run(self, coroutine: Any) -> Any:
        return self.store.run(coroutine)

    def create(self, name: str, *arguments: Any, **options: Any) -> TopicInfo:
        [info] = self.run(self.here.create([TopicRequest(name, *arguments, **options)]))
        assert isinstance(info, TopicInfo), info
        return info

    def refusals(self, *requests: TopicRequest, validate_only: bool = False) -> list[ErrorCode | None]:
        answers = self.run(self.here.create(requests, validate_only=validate_only))
        return [answer.code if isinstance(answer, KafkaError) else None for answer in answers]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    yield made
    made.store.close()


def test_a_created_topic_is_known_at_once_here_and_there(cluster: Cluster) -> None:
    info = cluster.create("t", 3, configs={"cleanup.policy": "compact"})
    assert cluster.here.current.by_name["t"] == info == cluster.here.current.by_id[info.topic_id]
    assert cluster.run(cluster.there.lookup(names=["t"])).by_name["t"] == info
    assert cluster.run(cluster.there.lookup(topic_ids=[info.topic_id])).by_id[info.topic_id] == info
    assert (info.name, info.partitions) == ("t", 3)
    assert info.rules == TopicRules(max_message_bytes=5000, is_compacted=True)


def test_a_partition_is_found_by_its_number(cluster: Cluster) -> None:
    info = cluster.create("t", 2)
    assert info.target(1) == LogTarget(info.topic.logs[1], info.topic_id, 1, "t", info.rules)
    assert info.target(2) is None
    assert info.target(-1) is None


def test_what_is_known_and_fresh_costs_no_statement(cluster: Cluster) -> None:
    info = cluster.create("t")
    cluster.statements.clear()
    cluster.run(cluster.here.lookup(names=["t"], topic_ids=[info.topic_id]))
    cluster.run(cluster.here.everything())
    assert cluster.here.at_hand(names=["t"]) is cluster.here.current
    cluster.store.clock.seconds += 100
    cluster.run(cluster.here.lookup(topic_ids=[info.topic_id]))
    assert cluster.here.at_hand(topic_ids=[info.topic_id]) is cluster.here.current
    assert cluster.statements == []


def test_what_is_unknown_or_old_by_name_costs_one_look_at_the_version(cluster: Cluster) -> None:
    cluster.create("t")
    look = ["catalogue_version", "commit"]
    unknown: list[dict[str, Any]] = [{"names": ["t", "other"]}, {"topic_ids": [TopicId(bytes(16))]}]
    for wanted in unknown:
        cluster.statements.clear()
        cluster.run(cluster.here.lookup(**wanted))
        assert cluster.statements == look
    cluster.store.clock.seconds += NAME_FRESHNESS_S
    assert cluster.here.at_hand(names=["t"]) is None
    cluster.statements.clear()
    for _ in range(2):
        cluster.run(cluster.here.lookup(names=["t"]))
    assert cluster.statements == look, "and the second time it was fresh"
    cluster.store.clock.seconds += NAME_FRESHNESS_S
    cluster.statements.clear()
    for _ in range(2):
        cluster.run(cluster.here.everything())
    assert cluster.statements == look


def test_what_is_asked_for_by_id_and_has_to_be_fresh_is_at_most_a_second_old(cluster: Cluster) -> None:
    info = cluster.create("t", 1)
    cluster.run(cluster.there.refresh())
    cluster.run(cluster.here.create_partitions(PartitionsRequest("t", 3)))
    wanted: dict[str, Any] = {"topic_ids": [info.topic_id], "fresh_ids": True}
    assert cluster.run(cluster.there.lookup(**wanted)).by_name["t"].partitions == 1
    cluster.store.clock.seconds += NAME_FRESHNESS_S
    assert cluster.there.at_hand(topic_ids=[info.topic_id]) is not None
    assert cluster.there.at_hand(topic_ids=[info.topic_id], fresh_ids=True) is None
    assert cluster.run(cluster.there.lookup(**wanted)).by_name["t"].partitions == 3
    cluster.run(cluster.here.delete([info.topic_id]))
    cluster.store.clock.seconds += NAME_FRESHNESS_S
    assert info.topic_id not in cluster.run(cluster.there.lookup(**wanted)).by_id


def test_a_topic_created_anew_elsewhere_shows_within_a_second(cluster: Cluster) -> None:
    old = cluster.create("t", 3)
    cluster.run(cluster.there.refresh())
    cluster.run(cluster.here.delete([old.topic_id]))
    new = cluster.create("t", 1)
    cluster.store.clock.seconds += NAME_FRESHNESS_S
    seen = cluster.run(cluster.there.lookup(names=["t"]))
    assert seen.by_name["t"] == new
    assert old.topic_id not in seen.by_id


def test_a_snapshot_in_use_does_not_change(cluster: Cluster) -> None:
    cluster.create("a")
    before = cluster.here.current
    cluster.create("b")
    assert list(before.by_name) == ["a"]
    assert list(cluster.here.current.by_name) == ["a", "b"]
    with pytest.raises(TypeError):
        before.by_name["c"] = before.by_name["a"]  # type: ignore[index]


def test_names_stay_in_order(cluster: Cluster) -> None:
    for name in ("m", "z", "a", "n"):
        cluster.create(name)
    assert list(cluster.here.current.by_name) == ["a", "m", "n", "z"]


def test_those_who_ask_at_once_share_a_look_that_began_after_they_asked(cluster: Cluster) -> None:
    async def scenario() -> None:
        first = asyncio.ensure_future(cluster.here.refresh())
        async with cluster.store.database.transaction():
            # The first look has begun and waits for this transaction to end.
            await asyncio.sleep(0)
            rest = [asyncio.ensure_future(cluster.here.refresh()) for _ in range(10)]
            await asyncio.sleep(0)
        cluster.statements.clear()
        await asyncio.gather(first, *rest)

    cluster.run(scenario())
    assert cluster.statements.count("catalogue_version") == 2


def test_who_waits_for_a_look_that_is_given_up_looks_itself(cluster: Cluster) -> None:
    inner = cluster.store.metadata.catalogue_changes
    looks: asyncio.Queue[asyncio.Event] = asyncio.Queue()

    async def slow(known_version: int) -> Any:
        may_look = asyncio.Event()
        looks.put_nowait(may_look)
        await may_look.wait()
        return await inner(known_version)

    cluster.store.metadata.catalogue_changes = slow  # type: ignore[method-assign]

    async def scenario() -> None:
        first, second, third = (asyncio.ensure_future(cluster.here.refresh()) for _ in range(3))
        (await looks.get()).set()
        await first
        await looks.get()
        second.cancel()
        # The third came before the second looked, whose look told it nothing.
        (await asyncio.wait_for(looks.get(), 10)).set()
        await third

    cluster.run(scenario())


def test_a_store_that_is_down_fails_all_who_share_the_look_and_nobody_later(cluster: Cluster) -> None:
    cluster.down = True

    async def scenario() -> list[Any]:
        return await asyncio.gather(*(cluster.here.refresh() for _ in range(5)), return_exceptions=True)

    assert [type(answer) for answer in cluster.run(scenario())] == [MetadataUnavailable] * 5
    cluster.down = False
    assert cluster.run(cluster.here.refresh()).version > 0


def test_refusals_say_why(cluster: Cluster) -> None:
    cluster.create("a.b")
    answers = cluster.run(
        cluster.here.create(
            [TopicRequest("a.b"), TopicRequest("a_b"), TopicRequest("x", configs={"nope": "1"})]
        )
    )
    assert [(answer.code, answer.message) for answer in answers] == [
        (ErrorCode.TOPIC_ALREADY_EXISTS, "Topic a.b already exists"),
        (
            ErrorCode.INVALID_TOPIC_EXCEPTION,
            "Topic a_b collides with a.b: '.' and '_' count as the same",
        ),
        (ErrorCode.INVALID_CONFIG, "Unknown topic config name: nope"),
    ]


def test_only_validating_changes_nothing_and_answers_the_same(cluster: Cluster) -> None:
    cluster.create("a.b")
    requests = [TopicRequest("a.b"), TopicRequest("a_b"), TopicRequest("c", 5, 3), TopicRequest("d", 0)]
    before = cluster.run(cluster.here.refresh()).version
    dry = cluster.run(cluster.here.create(requests, validate_only=True))
    assert cluster.run(cluster.here.refresh()).version == before
    real = cluster.run(cluster.here.create(requests))

    def shown(answer: TopicInfo | KafkaError) -> Any:
        if isinstance(answer, KafkaError):
            return answer.code, answer.message
        return answer.name, answer.partitions, answer.topic.replication_factor, answer.rules

    assert [shown(answer) for answer in dry] == [shown(answer) for answer in real]


def test_defaults_of_the_broker_fill_in_what_is_left_open(cluster: Cluster) -> None:
    info = cluster.create("t")
    assert (info.partitions, info.topic.replication_factor) == (2, 1)


def test_unknown_topics_are_not_deleted(cluster: Cluster) -> None:
    info = cluster.create("t")
    answers = cluster.run(cluster.here.delete([TopicId(bytes(16)), info.topic_id]))
    assert answers == [ErrorCode.UNKNOWN_TOPIC_ID, ErrorCode.NONE]
    assert list(cluster.here.current.by_name) == []


def test_partitions_are_added_and_known_at_once(cluster: Cluster) -> None:
    info = cluster.create("t", 2)
    dry = cluster.run(cluster.here.create_partitions(PartitionsRequest("t", 5), validate_only=True))
    assert dry == info
    grown = cluster.run(cluster.here.create_partitions(PartitionsRequest("t", 5)))
    assert grown.partitions == 5
    assert cluster.here.current.by_name["t"] == grown
    for request, code in (
        (PartitionsRequest("t", 5), ErrorCode.INVALID_PARTITIONS),
        (PartitionsRequest("nope", 5), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (PartitionsRequest("t", 6, [[9]]), ErrorCode.INVALID_REPLICA_ASSIGNMENT),
    ):
        with pytest.raises(KafkaError) as refused:
            cluster.run(cluster.here.create_partitions(request))
        assert refused.value.code == code


def test_changes_of_a_topic_that_lives_do_not_wait_for_its_records(cluster: Cluster) -> None:
    info = cluster.create("t", 2)
    cluster.statements.clear()
    cluster.run(cluster.here.create_partitions(PartitionsRequest("t", 5)))
    cluster.run(cluster.here.set_topic_configs("t", lambda configs: {"retention.ms": "5"}))
    cluster.create("u", 3)
    assert "lock_logs_of_topics" not in cluster.statements
    cluster.run(cluster.here.delete([info.topic_id]))
    assert "lock_logs_of_topics" in cluster.statements


def test_somebody_elses_change_in_between_is_noticed(cluster: Cluster) -> None:
    info = cluster.create("t", 2)
    cluster.run(cluster.there.refresh())
    cluster.run(cluster.here.create_partitions(PartitionsRequest("t", 5)))
    with pytest.raises(KafkaError) as refused:
        cluster.run(cluster.there.create_partitions(PartitionsRequest("t", 4)))
    assert refused.value.code == ErrorCode.INVALID_PARTITIONS
    assert cluster.there.current.by_name["t"].partitions == 5
    cluster.run(cluster.here.delete([info.topic_id]))
    with pytest.raises(KafkaError) as refused:
        cluster.run(cluster.there.create_partitions(PartitionsRequest("t", 9)))
    assert refused.value.code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_nothing_wanted_asks_for_nothing(cluster: Cluster) -> None:
    cluster.statements.clear()
    assert cluster.refusals() == []
    assert cluster.refusals(TopicRequest("bad name")) == [ErrorCode.INVALID_TOPIC_EXCEPTION]
    assert cluster.statements == []


def test_configs_of_a_later_release_do_not_keep_anybody_from_the_catalogue(cluster: Cluster) -> None:
    topic = cluster.create("topic")
    stored = {"max.message.bytes": "much", "later.config": "1"}
    cluster.store.set_topic_configs(topic.topic_id, stored)
    found = cluster.run(cluster.there.refresh()).by_name["topic"]
    assert (found.topic.configs, found.rules.max_message_bytes) == (stored, 5000)


def test_a_new_topic_has_to_fit_the_defaults_of_the_cluster(cluster: Cluster) -> None:
    most = EntryChange("log.cleaner.max.compaction.lag.ms", "4")
    cluster.run(cluster.here.change_entries(EntryKind.CONFIG, lambda _: [most]))
    late, soon = (TopicRequest(name, configs={"min.compaction.lag.ms": name}) for name in ("5", "4"))
    assert cluster.refusals(late, soon) == [ErrorCode.INVALID_CONFIG, None]


def test_an_agent_that_starts_later_follows_the_configs_of_the_cluster(cluster: Cluster) -> None:
    cluster.create("own", configs={"max.message.bytes": "7000"})
    cluster.create("other")
    wanted = {"message.max.bytes": "6000", "num.partitions": "3"}
    changes = [EntryChange(name, value) for name, value in wanted.items()]
    cluster.run(cluster.here.change_entries(EntryKind.CONFIG, lambda _: changes))
    topics = cluster.run(cluster.there.refresh()).by_name
    assert {name: info.rules.max_message_bytes for name, info in topics.items()} == {
        "other": 6000,
        "own": 7000,
    }
    assert cluster.there.defaults.partitions == 3
    gone = [EntryChange(name, None) for name in wanted]
    cluster.run(cluster.here.change_entries(EntryKind.CONFIG, lambda _: gone))
    topics = cluster.run(cluster.there.refresh()).by_name
    assert {name: info.rules.max_message_bytes for name, info in topics.items()} == {
        "other": 5000,
        "own": 7000,
    }
    assert cluster.there.defaults.partitions == 2
