"""What puts a database right is one transaction, the same on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TypeVar

import pytest

from tests.unit.metadata.support import NOW_MS, Store, batch, segment, sequenced
from warp.errors import MetadataError
from warp.ids import TopicId
from warp.metadata.commit import WrittenBatch, pack_batches
from warp.metadata.model import ExtentQuery
from warp.metadata.restore_model import (
    Restoration,
    RestoredExtent,
    RestoredLog,
    RestoredSegment,
    StoredTopic,
)
from warp.metadata.restore_store import RestoreStore

T = TypeVar("T")
NEW = TopicId(bytes(range(16)))


async def collected(found: AsyncIterator[T]) -> list[T]:
    return [item async for item in found]


def test_a_new_database_is_empty_and_one_with_a_topic_is_not(store: Store) -> None:
    rows = RestoreStore(store.database)
    assert store.run(rows.is_empty())
    store.new_topic("t")
    assert not store.run(rows.is_empty())


def test_all_that_is_stored_is_read_in_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warp.metadata.restore_store.PAGE_ROWS", 2)
    topic = store.new_topic("t", partitions=5)
    for log_id in topic.logs:
        store.append(log_id, 1, 2, 3)
    store.commit_batches(sequenced(topic.logs[0], 0))
    rows = RestoreStore(store.database)
    logs = store.run(collected(rows.logs()))
    assert [(log.log_id, log.next_offset) for log in logs] == [(topic.logs[0], 31)] + [
        (log_id, 30) for log_id in topic.logs[1:]
    ]
    extents = store.run(collected(rows.extents()))
    assert [(e.log_id, e.end_offset) for e in extents if e.log_id == topic.logs[1]] == [
        (topic.logs[1], end) for end in (10, 20, 30)
    ]
    assert len(store.run(collected(rows.segments()))) == len(extents) == 16
    [producer] = store.run(rows.producers(topic.logs[0]))
    assert (producer.producer_id, producer.epoch) == (7, 0)
    assert [found.name for found in store.run(rows.topics())] == ["t"]


def restoration(grown: TopicId) -> Restoration:
    """A new topic with a hole, and a topic that has grown."""
    producer = (9, 3, pack_batches([WrittenBatch(0, 9, 10, 50)]))
    return Restoration(
        segments=[RestoredSegment("segments/a", 100, 0, 5), RestoredSegment("segments/b", 100, 2, 6)],
        new_topics=[StoredTopic(NEW, "new", "new", 2)],
        grown_topics={grown: 3},
        logs=[
            RestoredLog(
                NEW,
                1,
                10,
                40,
                added=[
                    RestoredExtent(30, 40, "segments/b", 8, 60, 20),
                    RestoredExtent(10, 20, "segments/a", 8, 70, 50),
                    RestoredExtent(20, 30, "", 0, 3, 10, b"\x00\xff\x01"),
                ],
                producers=[producer],
            ),
            RestoredLog(grown, 2, 0, 5, added=[RestoredExtent(0, 5, "segments/a", 80, 20, 7)]),
        ],
        largest_producer_id=4_000,
        settings={"restored": "yes"},
    )


def test_everything_is_written_together(store: Store) -> None:
    grown = store.new_topic("grown")
    version = store.catalogue_version()
    store.run(RestoreStore(store.database).apply(restoration(grown.topic_id), 77))
    catalogue = store.catalogue(None)
    topics = {topic.name: topic for topic in catalogue.topics}
    assert catalogue.version >= version + 1_000_000
    assert [len(topics[name].logs) for name in ("grown", "new")] == [3, 2]
    assert topics["new"].configs == {"retention.bytes": "-1", "retention.ms": "-1"}
    log_id = topics["new"].logs[1]
    [read] = store.read_extents([ExtentQuery(log_id, 10, 1 << 30)])
    assert [(e.base_offset, e.end_offset, e.key, e.level, e.inline) for e in read.extents] == [
        (10, 20, "segments/a", 0, None),
        (20, 30, "", 0, b"\x00\xff\x01"),
        (30, 40, "segments/b", 2, None),
    ]
    assert (read.state.start_offset, read.state.next_offset, read.state.size_bytes) == (10, 40, 133)
    assert store.setting("restored") == "yes"
    # Found by time although a later extent has an earlier one.
    assert store.extents_for_time(log_id, 30, 1)[0].base_offset == 10
    assert store.extent_of_max_timestamp(log_id).base_offset == 10
    assert store.catalogue_changes(version).topics != []


def test_ids_go_past_all_that_were_given_out(store: Store) -> None:
    grown = store.new_topic("grown")
    agent = store.register_agent("one")
    store.allocate_producer_ids(10)
    store.run(RestoreStore(store.database).apply(restoration(grown.topic_id), 77))
    assert store.allocate_producer_ids(1) == 2**32 + 4_001
    assert store.register_agent("two") > agent + 1_000
    assert store.new_topic("later").logs[0] > 1_000_000
    store.append(grown.logs[0], 1)
    [newest] = store.rows("select max(segment_id) from segments")
    assert newest[0] > 10_000_000


def test_a_commit_of_a_key_that_was_restored_is_refused(store: Store) -> None:
    grown = store.new_topic("grown")
    store.run(RestoreStore(store.database).apply(restoration(grown.topic_id), 77))
    result = store.commit([segment("segments/a", batch(grown.logs[0]))], NOW_MS)
    assert list(result.refused) == [0]


def test_extents_that_are_lost_go_and_the_sums_follow(store: Store) -> None:
    topic = store.new_topic("t")
    store.append(topic.logs[0], 100, 20)
    log = RestoredLog(
        topic.topic_id, 0, 0, 20, 20, removed=[10], added=[RestoredExtent(0, 10, "", 0, 5, 1, b"empty")]
    )
    store.run(RestoreStore(store.database).apply(Restoration(logs=[log]), 77))
    [read] = store.read_extents([ExtentQuery(topic.logs[0], 0, 1 << 30)])
    assert [(extent.end_offset, extent.size_bytes) for extent in read.extents] == [(10, 5), (20, 100)]
    assert read.state.size_bytes == 105
    assert store.extents_for_time(topic.logs[0], 10, 1)[0].base_offset == 10


def test_a_log_that_has_moved_on_since_keeps_everything_as_it_was(store: Store) -> None:
    topic = store.new_topic("t")
    store.append(topic.logs[0], 1)
    before = store.catalogue_version()
    with pytest.raises(MetadataError, match="has changed while it was read"):
        store.run(
            RestoreStore(store.database).apply(Restoration(logs=[RestoredLog(topic.topic_id, 0, 0, 5)]), 77)
        )
    assert store.catalogue_version() == before


def test_settings_are_forgotten_by_plain_prefixes_alone(store: Store) -> None:
    for name in ("a.1.x", "a.1.y", "a.10.x", "b"):
        store.set_setting(name, "1")
    store.forget_settings("a.1.")
    assert [store.setting(name) for name in ("a.1.x", "a.1.y", "a.10.x", "b")] == [None, None, "1", "1"]
    for prefix in ("", "a%", "a_"):
        with pytest.raises(ValueError, match="not a plain prefix"):
            store.forget_settings(prefix)
