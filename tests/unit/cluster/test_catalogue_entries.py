"""Entries and topic configs at agents: decided by the newest, known to all, limited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from tests.unit.metadata.support import WatchedDatabase, sqlite_store
from warp.cluster import catalogue_entries
from warp.cluster.catalogue import DECISIONS_MAX, CatalogueObserver, CatalogueService, TopicInfo
from warp.cluster.topic_request import TopicRequest
from warp.errors import ErrorCode, KafkaError, MetadataContention, MetadataUnavailable, OutcomeUnknown
from warp.metadata import entry_rows
from warp.metadata.entries import KEY_CHARACTERS_MAX, VALUE_CHARACTERS_MAX, EntryChange, EntryKind
from warp.metadata.sqlite import IN_MEMORY

ACL, QUOTA, CONFIG = EntryKind.ACL, EntryKind.QUOTA, EntryKind.CONFIG
DECIDING = ("change_entries", "set_topic_configs")


class Witness(CatalogueObserver):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.versions: list[int] = []
        self.told: list[tuple[EntryKind, dict[str, str], list[EntryChange]]] = []

    def catalogue_changed(self, version: int) -> None:
        self.versions.append(version)

    def entries_changed(
        self, kind: EntryKind, entries: Mapping[str, str], changes: Sequence[EntryChange]
    ) -> None:
        self.told.append((kind, dict(entries), list(changes)))


class Agents:
    """Two agents' catalogues over one store; `before_commit` is called when a transaction is about to commit."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.before: Callable[[str], None] = lambda name: None
        self.store = sqlite_store(IN_MEMORY, lambda inner: WatchedDatabase(inner, self._before))
        self.here, self.there = (
            CatalogueService(self.store.metadata, self.store.clock, self.store.ids) for _ in range(2)
        )
        self.witness = Witness()
        self.here.observe(self.witness)

    def _before(self, name: str) -> None:
        self.statements.append(name)
        self.before(name)

    def run(self, coroutine: Any) -> Any:
        return self.store.run(coroutine)

    def change(
        self, catalogue: CatalogueService, kind: EntryKind, *changes: tuple[str, str | None]
    ) -> Sequence[EntryChange]:
        wanted = [EntryChange(*change) for change in changes]
        answer: Sequence[EntryChange] = self.run(catalogue.change_entries(kind, lambda entries: wanted))
        return answer

    def refused(self, *changes: tuple[str, str | None]) -> KafkaError:
        with pytest.raises(KafkaError) as refused:
            self.change(self.here, QUOTA, *changes)
        return refused.value

    def topic(self, **configs: str) -> TopicInfo:
        [info] = self.run(self.here.create([TopicRequest("t", 2, configs=configs)]))
        assert isinstance(info, TopicInfo), info
        return info


@pytest.fixture
def agents() -> Iterator[Agents]:
    made = Agents()
    yield made
    made.store.close()


def counted(entries: Mapping[str, str]) -> Sequence[EntryChange]:
    """One more than there was: a lost update would show."""
    return [EntryChange("n", str(int(entries.get("n", "0")) + 1))]


def test_a_change_is_known_here_at_once_and_there_at_the_next_look(agents: Agents) -> None:
    assert agents.change(agents.here, QUOTA, ("a", "1")) == [("a", "1")]
    assert agents.here.entries(QUOTA) == {"a": "1"}
    assert agents.here.entries(ACL) == {}
    assert agents.there.entries(QUOTA) == {}
    agents.run(agents.there.look())
    assert agents.there.entries(QUOTA) == {"a": "1"}
    agents.change(agents.there, QUOTA, ("a", None), ("b", "2"))
    agents.run(agents.here.look())
    assert agents.here.entries(QUOTA) == {"b": "2"}


def test_a_change_is_decided_by_the_newest_entries_of_whichever_agent(agents: Agents) -> None:
    for catalogue in (agents.here, agents.there, agents.there, agents.here):
        agents.run(catalogue.change_entries(QUOTA, counted))
    assert agents.here.entries(QUOTA) == {"n": "4"}


def test_changes_at_once_lose_nothing(agents: Agents) -> None:
    async def scenario() -> None:
        await asyncio.gather(
            *(each.change_entries(QUOTA, counted) for each in (agents.here, agents.there) for _ in range(20))
        )

    agents.run(scenario())
    agents.run(agents.here.refresh())
    assert agents.here.entries(QUOTA) == {"n": "40"}


def test_who_keeps_being_too_late_gives_up(agents: Agents, monkeypatch: pytest.MonkeyPatch) -> None:
    decisions = 0

    async def too_late(*arguments: Any) -> int | None:
        return None

    def decide(entries: Mapping[str, str]) -> Sequence[EntryChange]:
        nonlocal decisions
        decisions += 1
        return counted(entries)

    monkeypatch.setattr(agents.store.metadata, "change_entries", too_late)
    with pytest.raises(MetadataContention):
        agents.run(agents.here.change_entries(QUOTA, decide))
    assert decisions == DECISIONS_MAX


def test_a_refusal_changes_nothing(agents: Agents) -> None:
    def refuse(entries: Mapping[str, str]) -> Sequence[EntryChange]:
        raise KafkaError(ErrorCode.RESOURCE_NOT_FOUND, "no")

    version = agents.run(agents.here.refresh()).version
    with pytest.raises(KafkaError, match="no"):
        agents.run(agents.here.change_entries(QUOTA, refuse))
    assert agents.run(agents.here.refresh()).version == version
    assert agents.witness.versions == []


def test_what_changes_nothing_is_not_written(agents: Agents) -> None:
    agents.change(agents.here, QUOTA, ("a", "1"))
    version = agents.here.current.version
    agents.statements.clear()
    wanted = [("a", "1"), ("not there", None)]
    assert agents.change(agents.here, QUOTA, *wanted) == wanted
    assert agents.change(agents.here, QUOTA) == []
    assert agents.here.current.version == version
    assert "lock_catalogue" not in agents.statements


def test_of_several_changes_to_one_key_the_last_counts(agents: Agents) -> None:
    agents.change(agents.here, QUOTA, ("a", "1"), ("a", None), ("b", "1"), ("a", "2"), ("b", None))
    assert agents.here.entries(QUOTA) == {"a": "2"}


def test_observers_are_told_of_what_has_changed_whoever_changed_it(agents: Agents) -> None:
    agents.change(agents.here, QUOTA, ("a", "1"), ("b", "1"))
    assert agents.witness.told == [(QUOTA, {"a": "1", "b": "1"}, [("a", "1"), ("b", "1")])]
    assert agents.witness.versions == [agents.here.current.version]
    agents.witness.told.clear()
    agents.change(agents.there, QUOTA, ("a", None), ("b", "1"))
    agents.change(agents.there, ACL, ("c", ""))
    agents.run(agents.here.refresh())
    assert agents.witness.told == [(ACL, {"c": ""}, [("c", "")]), (QUOTA, {"b": "1"}, [("a", None)])]
    assert len(agents.witness.versions) == 1, "what others have changed, they tell"
    agents.witness.told.clear()
    agents.topic()
    assert agents.witness.told == []


def test_an_agent_that_starts_hears_of_no_deletions(agents: Agents) -> None:
    agents.change(agents.there, QUOTA, ("a", "1"), ("b", "1"))
    agents.change(agents.there, QUOTA, ("a", None))
    agents.run(agents.here.refresh())
    assert agents.witness.told == [(QUOTA, {"b": "1"}, [("b", "1")])]


def test_entries_and_topics_are_left_alone_by_changes_of_the_other(agents: Agents) -> None:
    agents.change(agents.here, QUOTA, ("a", "1"))
    entries = agents.here.entries(QUOTA)
    agents.topic()
    assert agents.here.entries(QUOTA) is entries
    topics = agents.here.current.by_name
    agents.change(agents.here, ACL, ("b", ""))
    assert agents.here.entries(QUOTA) is entries
    assert agents.here.current.by_name is topics


def test_a_snapshot_in_use_keeps_its_entries(agents: Agents) -> None:
    agents.change(agents.here, QUOTA, ("a", "1"))
    before = agents.here.current
    agents.change(agents.here, QUOTA, ("a", None))
    assert before.entries[QUOTA] == {"a": "1"}
    with pytest.raises(TypeError):
        before.entries[QUOTA]["b"] = "2"  # type: ignore[index]


def test_a_look_costs_one_statement_while_nothing_has_changed(agents: Agents) -> None:
    agents.topic()
    agents.store.clock.seconds += 100
    agents.statements.clear()
    agents.run(agents.here.look())
    assert agents.statements == ["catalogue_version"]
    assert agents.here.is_fresh, "what it shows holds for names as well"


def test_an_agent_that_was_away_for_long_finds_out_what_is_gone(
    agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry_rows, "DELETED_VERSIONS", 3)
    agents.change(agents.here, QUOTA, ("a", "1"), ("b", "1"), ("c", "1"))
    agents.change(agents.here, ACL, ("x", ""))
    agents.witness.told.clear()
    agents.change(agents.there, QUOTA, ("a", None))
    agents.change(agents.there, ACL, ("x", None))
    for number in range(5):
        agents.change(agents.there, QUOTA, ("b", str(number)), ("d", None if number % 2 else "4"))
    agents.change(agents.there, QUOTA, ("d", None))
    assert agents.store.rows("select count(*) from catalogue_entries where key in ('a', 'x')") == [(0,)]
    agents.run(agents.here.look())
    assert (agents.here.entries(QUOTA), agents.here.entries(ACL)) == ({"b": "4", "c": "1"}, {})
    assert agents.witness.told == [
        (ACL, {}, [("x", None)]),
        (QUOTA, {"b": "4", "c": "1"}, [("b", "4"), ("a", None)]),
    ]


# Limits


def test_keys_and_values_that_can_not_be_stored_are_refused(agents: Agents) -> None:
    for change, problem in (
        (("k" * (KEY_CHARACTERS_MAX + 1), "v"), f"The key is longer than {KEY_CHARACTERS_MAX} characters"),
        (
            ("k", "s" * (VALUE_CHARACTERS_MAX + 1)),
            f"The value is longer than {VALUE_CHARACTERS_MAX} characters",
        ),
        (("\ud800", "v"), "The key is not Unicode"),
        (("k", "secret\ud800"), "The value is not Unicode"),
        (("k\0", "v"), "The key has a NUL in it"),
        (("k", "secret\0"), "The value has a NUL in it"),
    ):
        error = agents.refused(("fine", "1"), change)
        assert (error.code, error.message) == (ErrorCode.INVALID_REQUEST, problem)
    assert agents.here.entries(QUOTA) == {}
    agents.change(agents.here, QUOTA, ("k" * KEY_CHARACTERS_MAX, "v" * VALUE_CHARACTERS_MAX))


def test_there_are_only_so_many_entries_of_a_kind(agents: Agents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue_entries, "ENTRIES_MAX", 3)
    agents.change(agents.here, QUOTA, ("a", "1"), ("b", "1"), ("c", "1"))
    error = agents.refused(("d", "1"))
    assert (error.code, error.message) == (
        ErrorCode.POLICY_VIOLATION,
        "There would be 4 entries of this kind, and 3 are the most that there may be",
    )
    agents.change(agents.here, ACL, ("d", "1"))
    agents.change(agents.here, QUOTA, ("a", None), ("d", "1"), ("b", "2"))
    assert agents.here.entries(QUOTA) == {"b": "2", "c": "1", "d": "1"}
    monkeypatch.setattr(catalogue_entries, "ENTRIES_MAX", 1)
    agents.change(agents.here, QUOTA, ("b", None), ("c", "3"))
    assert agents.here.entries(QUOTA) == {"c": "3", "d": "1"}, "fewer than before are welcome"


# A store that fails


def unknown_once(agents: Agents, name: str, *, is_applied: bool) -> None:
    """The outcome of the next such operation stays unknown: it has been done, or not."""
    inner = getattr(agents.store.metadata, name)

    async def in_doubt(*arguments: Any) -> Any:
        setattr(agents.store.metadata, name, inner)
        if is_applied:
            await inner(*arguments)
        raise OutcomeUnknown("as told")

    setattr(agents.store.metadata, name, in_doubt)


@pytest.mark.parametrize("is_applied", [True, False])
def test_a_change_whose_outcome_is_unknown_is_made_once(agents: Agents, is_applied: bool) -> None:
    unknown_once(agents, "change_entries", is_applied=is_applied)
    agents.run(agents.here.change_entries(QUOTA, counted))
    assert agents.here.entries(QUOTA) == {"n": "1"}
    assert agents.witness.versions == [agents.here.current.version], "the others are told in either case"
    unknown_once(agents, "change_entries", is_applied=is_applied)
    agents.change(agents.here, QUOTA, ("n", None))
    assert agents.here.entries(QUOTA) == {}


@pytest.mark.parametrize("name", DECIDING)
def test_an_outcome_that_stays_unknown_is_told(agents: Agents, name: str) -> None:
    agents.topic()

    async def in_doubt(*arguments: Any) -> Any:
        raise OutcomeUnknown("as told")

    setattr(agents.store.metadata, name, in_doubt)
    changes: dict[str, Callable[[], Any]] = {
        "change_entries": lambda: agents.here.change_entries(QUOTA, counted),
        "set_topic_configs": lambda: agents.here.set_topic_configs(
            "t", lambda configs: {"retention.ms": "5"}
        ),
    }
    with pytest.raises(OutcomeUnknown):
        agents.run(changes[name]())


def test_others_are_told_of_a_change_though_this_agent_can_not_look_at_it(agents: Agents) -> None:
    agents.run(agents.here.refresh())

    def fail_after_the_change(name: str) -> None:
        if name == "catalogue_version" and "set_catalogue_version" in agents.statements:
            raise MetadataUnavailable("as told")

    agents.statements.clear()
    agents.before = fail_after_the_change
    with pytest.raises(MetadataUnavailable):
        agents.change(agents.here, QUOTA, ("a", "1"))
    assert agents.here.entries(QUOTA) == {}
    assert agents.witness.versions == [agents.here.current.version + 1]


# Configs of topics


def test_configs_of_a_topic_are_decided_by_those_that_it_has(agents: Agents) -> None:
    agents.topic(**{"retention.ms": "1"})
    changed = agents.run(
        agents.here.set_topic_configs("t", lambda configs: {**configs, "max.message.bytes": "7"})
    )
    assert changed == agents.here.current.by_name["t"]
    assert changed.topic.configs == {"retention.ms": "1", "max.message.bytes": "7"}
    assert changed.rules.max_message_bytes == 7
    told = agents.witness.versions[-1]
    assert told == agents.here.current.version
    same = agents.run(agents.here.set_topic_configs("t", dict))
    assert (same, agents.here.current.version) == (changed, told), "nothing to change, nothing changed"


def test_changes_of_a_topic_at_once_lose_nothing(agents: Agents) -> None:
    agents.topic(**{"retention.ms": "0"})

    def longer(configs: Mapping[str, str]) -> Mapping[str, str]:
        return {"retention.ms": str(int(configs["retention.ms"]) + 1)}

    async def scenario() -> None:
        await asyncio.gather(
            *(each.set_topic_configs("t", longer) for each in (agents.here, agents.there) for _ in range(20))
        )

    agents.run(scenario())
    agents.run(agents.here.refresh())
    assert agents.here.current.by_name["t"].topic.configs == {"retention.ms": "40"}


@pytest.mark.parametrize("is_applied", [True, False])
def test_configs_whose_outcome_is_unknown_are_set(agents: Agents, is_applied: bool) -> None:
    agents.topic()
    before = len(agents.witness.versions)
    unknown_once(agents, "set_topic_configs", is_applied=is_applied)
    agents.run(agents.here.set_topic_configs("t", lambda configs: {"retention.ms": "5"}))
    assert agents.here.current.by_name["t"].topic.configs == {"retention.ms": "5"}
    assert agents.witness.versions[before:] == [agents.here.current.version]


def test_configs_of_an_unknown_topic_are_refused(agents: Agents) -> None:
    info = agents.topic()
    agents.run(agents.there.delete([info.topic_id]))
    with pytest.raises(KafkaError) as refused:
        agents.run(agents.here.set_topic_configs("t", dict))
    assert refused.value.code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_a_config_of_the_cluster_holds_for_topics_that_set_none(agents: Agents) -> None:
    topic = agents.topic()
    [own] = agents.run(agents.there.create([TopicRequest("own", 1, configs={"max.message.bytes": "9"})]))
    agents.change(agents.there, CONFIG, ("message.max.bytes", "77"), ("num.partitions", "5"))
    agents.run(agents.here.refresh())
    by_name = agents.here.current.by_name
    assert (by_name["t"].rules.max_message_bytes, by_name["own"].rules.max_message_bytes) == (77, 9)
    assert agents.here.current.by_id[topic.topic_id] is by_name["t"]
    [new] = agents.run(agents.here.create([TopicRequest("new")]))
    assert (new.partitions, new.rules.max_message_bytes) == (5, 77)
    agents.change(agents.here, CONFIG, ("message.max.bytes", None))
    assert agents.here.current.by_name["t"].rules == topic.rules
    assert agents.here.current.by_name["own"].rules == own.rules
