"""Topics and the version of the catalogue."""

from __future__ import annotations

import pytest

from tests.unit.metadata.support import Store, batch, errors
from warp.errors import ErrorCode
from warp.ids import TopicId
from warp.metadata import entry_rows
from warp.metadata.model import NewTopic, Topic

UNKNOWN = TopicId(bytes(range(16)))


def version(store: Store) -> int:
    rows = store.catalogue(None)
    assert rows is not None
    return int(rows.version)


def test_a_topic_comes_with_a_log_per_partition(store: Store) -> None:
    new = NewTopic("t", store.ids.topic_id(), 3, {"b": "2", "a": "1"}, 5)
    [topic] = store.create_topics([new])
    assert topic == Topic("t", new.topic_id, topic.logs, {"a": "1", "b": "2"}, 5)
    assert len(set(topic.logs)) == 3
    assert list(store.catalogue(None).topics) == [topic]
    assert set(store.log_states(topic.logs)) == set(topic.logs)


def test_topics_are_listed_by_name(store: Store) -> None:
    store.create_topics([NewTopic(name, store.ids.topic_id(), 1) for name in ("b", "a", "B", "_x")])
    assert [topic.name for topic in store.catalogue(None).topics] == ["B", "_x", "a", "b"]


def test_each_topic_of_a_request_is_created_or_refused_on_its_own(store: Store) -> None:
    store.new_topic("a.b")
    names = ["a.b", "a_b", "c", "c", "d.e", "d_e"]
    answers = store.create_topics([NewTopic(name, store.ids.topic_id(), 1) for name in names])
    assert [answer if isinstance(answer, ErrorCode) else answer.name for answer in answers] == [
        ErrorCode.TOPIC_ALREADY_EXISTS,
        ErrorCode.INVALID_TOPIC_EXCEPTION,
        "c",
        ErrorCode.TOPIC_ALREADY_EXISTS,
        "d.e",
        ErrorCode.INVALID_TOPIC_EXCEPTION,
    ]


def test_the_version_rises_with_every_change_and_with_nothing_else(store: Store) -> None:
    versions = [version(store)]

    def changed() -> bool:
        versions.append(version(store))
        return versions[-1] > versions[-2]

    topic = store.new_topic("t")
    assert changed()
    store.create_topics([NewTopic("t", store.ids.topic_id(), 1)])
    assert not changed()
    store.create_partitions(topic.topic_id, 2)
    assert changed()
    store.create_partitions(topic.topic_id, 2)
    store.set_topic_configs(UNKNOWN, {})
    assert not changed()
    store.set_topic_configs(topic.topic_id, {"retention.ms": "1"})
    assert changed()
    store.commit_batches(batch(topic.logs[0]))
    store.delete_records({topic.logs[0]: 1})
    assert not changed()
    store.delete_topics([UNKNOWN])
    assert not changed()
    store.delete_topics([topic.topic_id])
    assert changed()


def test_a_known_version_is_answered_with_nothing(store: Store) -> None:
    store.new_topic("t")
    now = version(store)
    assert store.catalogue(now) is None
    assert store.catalogue_changes(now) is None


def test_changes_since_a_version_make_the_newer_catalogue_out_of_the_older(store: Store) -> None:
    snapshots = [store.catalogue(None)]
    kept = store.new_topic("kept", 2)
    grown = store.new_topic("grown")
    snapshots.append(store.catalogue(None))
    gone = store.new_topic("gone", 3, **{"retention.ms": "5"})
    snapshots.append(store.catalogue(None))
    store.create_partitions(grown.topic_id, 4)
    snapshots.append(store.catalogue(None))
    store.delete_topics([gone.topic_id])
    snapshots.append(store.catalogue(None))
    again = store.new_topic("gone")
    snapshots.append(store.catalogue(None))
    store.set_topic_configs(again.topic_id, {"retention.ms": "7"})
    snapshots.append(store.catalogue(None))
    for older in snapshots[:-1]:
        changes = store.catalogue_changes(older.version)
        topics = {topic.topic_id: topic for topic in older.topics}
        for topic_id in changes.removed:
            topics.pop(topic_id, None)
        topics |= {topic.topic_id: topic for topic in changes.topics}
        assert changes.version == snapshots[-1].version
        assert sorted(topics.values(), key=lambda topic: topic.name) == list(snapshots[-1].topics)
    assert [topic.name for topic in store.catalogue_changes(snapshots[-2].version).topics] == ["gone"]
    assert kept in snapshots[-1].topics


def test_deletions_are_forgotten_and_who_may_have_missed_some_is_told_of_all_topics(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry_rows, "DELETED_VERSIONS", 2)
    day_s = 24 * 3600

    def remembered() -> list[str]:
        return [row[0] for row in store.rows("select name from deleted_topics order by 1")]

    a, b, c, kept = (store.new_topic(name) for name in ("a", "b", "c", "kept"))
    known = store.catalogue(None)
    ids = [topic.topic_id for topic in known.topics]
    store.delete_topics([a.topic_id])
    store.clock.seconds += 20 * day_s
    store.delete_topics([b.topic_id])
    changes = store.catalogue_changes(known.version)
    assert (changes.since(ids), set(changes.removed)) == (changes, {a.topic_id, b.topic_id})
    assert not changes.are_all
    store.clock.seconds += 11 * day_s
    late = store.new_topic("late")
    assert remembered() == ["a", "b"]
    changes = store.catalogue_changes(known.version)
    assert changes.are_all
    assert {topic.name for topic in changes.topics} == {"c", "kept", "late"}
    assert set(changes.since(ids).removed) == {a.topic_id, b.topic_id}
    # The row of one that was deleted a short while ago stays, however many changes came since.
    store.delete_topics([late.topic_id, c.topic_id])
    assert remembered() == ["b", "c", "late"]
    assert set(store.catalogue_changes(known.version).since(ids).removed) == {
        a.topic_id,
        b.topic_id,
        c.topic_id,
    }
    assert kept in store.catalogue_changes(known.version).topics


def test_deleting_a_topic_takes_its_logs_away_at_once(store: Store) -> None:
    topic = store.new_topic("t", 2)
    other = store.new_topic("u")
    store.append(topic.logs[0], 1)
    assert store.delete_topics([topic.topic_id, UNKNOWN, topic.topic_id]) == [
        ErrorCode.NONE,
        ErrorCode.UNKNOWN_TOPIC_ID,
        ErrorCode.UNKNOWN_TOPIC_ID,
    ]
    assert store.log_states([*topic.logs, *other.logs]).keys() == set(other.logs)
    assert [left.name for left in store.catalogue(None).topics] == ["u"]
    assert store.delete_topics([]) == []


def test_a_topic_created_anew_has_new_logs_and_begins_at_zero(store: Store) -> None:
    old = store.new_topic("t", 2)
    store.append(old.logs[0], 1)
    store.delete_topics([old.topic_id])
    new = store.new_topic("t", 2)
    assert not set(old.logs) & set(new.logs)
    assert store.log_states(new.logs)[new.logs[0]].next_offset == 0
    assert errors(store.commit_batches(batch(old.logs[0]))) == [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]


def test_ids_of_logs_are_not_given_out_again(store: Store) -> None:
    seen: set[int] = set()
    for _ in range(3):
        topic = store.new_topic("t", 2)
        assert not seen & set(topic.logs)
        seen |= set(topic.logs)
        store.delete_topics([topic.topic_id])


def test_partitions_are_added_at_the_end(store: Store) -> None:
    topic = store.new_topic("t", 2, **{"retention.ms": "5"})
    store.append(topic.logs[1], 1)
    grown = store.create_partitions(topic.topic_id, 4)
    assert grown.logs[:2] == topic.logs
    assert len(set(grown.logs)) == 4
    assert grown.configs == topic.configs
    assert list(store.catalogue(None).topics) == [grown]
    assert store.create_partitions(topic.topic_id, 4) == ErrorCode.INVALID_PARTITIONS
    assert store.create_partitions(topic.topic_id, 3) == ErrorCode.INVALID_PARTITIONS
    assert store.create_partitions(UNKNOWN, 3) == ErrorCode.UNKNOWN_TOPIC_ID


def test_setting_configs_replaces_all_of_them(store: Store) -> None:
    topic = store.new_topic("t", 2, a="1", b="2")
    changed = store.set_topic_configs(topic.topic_id, {"b": "3", "c": "4"})
    assert changed == Topic("t", topic.topic_id, topic.logs, {"b": "3", "c": "4"})
    assert list(store.catalogue(None).topics) == [changed]
    assert store.set_topic_configs(UNKNOWN, {}) == ErrorCode.UNKNOWN_TOPIC_ID


def test_configs_are_set_unless_the_topic_has_changed_since(store: Store) -> None:
    topic, other = store.new_topic("t", 2, a="1"), store.new_topic("u")
    known = version(store)
    store.set_topic_configs(other.topic_id, {"a": "9"})
    changed = store.set_topic_configs(topic.topic_id, {"a": "2"}, known)
    assert changed.configs == {"a": "2"}, "another topic's change is none of its"
    now = version(store)
    assert store.set_topic_configs(topic.topic_id, {"a": "3"}, known) is None
    assert version(store) == now
    assert changed in store.catalogue(None).topics
    assert store.set_topic_configs(UNKNOWN, {}, known) == ErrorCode.UNKNOWN_TOPIC_ID


def test_names_are_told_apart_by_case(store: Store) -> None:
    store.new_topic("topic")
    assert store.new_topic("Topic").name == "Topic"
