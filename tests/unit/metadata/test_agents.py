"""Registrations: taken over only as they were seen, moved only by their incarnation, forgotten only when still."""

from __future__ import annotations

import json

import pytest

from tests.unit.metadata.support import NOW_MS, Store, batch, segment
from warp.ids import BrokerId
from warp.metadata.cluster_model import JOBS, PRODUCE, AgentFacts, AgentRow, AgentState
from warp.metadata.group_model import Lease
from warp.metadata.session import parse_statements

FACTS = AgentFacts(
    endpoints=("a.example:9092", "a.example:9093"),
    peer="a.example:8080",
    zone="z1",
    group="blue",
    roles=(PRODUCE, JOBS),
    version="0.4.0",
    started_ms=NOW_MS,
    connections=7,
    produced_bytes_per_s=1 << 33,
    fetched_bytes_per_s=2,
)
OTHER = AgentFacts(endpoints=("b.example:9092",))


def join(store: Store, name: str, incarnation: str, facts: AgentFacts = FACTS) -> AgentRow:
    assert store.join_agent(name, incarnation, facts, store.find_agent(name)) is not None
    row = store.find_agent(name)
    assert isinstance(row, AgentRow)
    return row


def write_raw(store: Store, sql: str) -> None:
    [statement] = parse_statements(f"-- name: raw\n{sql}").values()
    store.run(store.database.execute(statement))


def test_a_process_joins_under_a_name_and_is_not_sent_anybody_yet(store: Store) -> None:
    assert store.find_agent("a") is None
    row = join(store, "a", "i1")
    assert row == AgentRow(row.broker_id, "a", "i1", AgentState.LEAVING, 1, NOW_MS, FACTS)
    assert join(store, "b", "i2").broker_id != row.broker_id


def test_of_two_that_join_at_once_one_has_come_first(store: Store) -> None:
    first = store.join_agent("a", "i1", FACTS, None)
    assert store.join_agent("a", "i2", OTHER, None) is None
    assert store.find_agent("a").broker_id == first
    assert store.find_agent("a").incarnation == "i1"


def test_a_registration_is_taken_over_only_as_it_was_seen(store: Store) -> None:
    seen = join(store, "a", "i1")
    store.take_leases(["y", "x"], seen.broker_id)
    store.beat(seen.broker_id, "i1", AgentState.SERVING, FACTS, NOW_MS)
    assert store.join_agent("a", "i2", OTHER, seen) is None
    assert [lease.name for lease in store.leases_held(seen.broker_id)] == ["x", "y"]
    assert store.find_agent("a").incarnation == "i1"


def test_who_takes_over_keeps_the_broker_id_and_holds_nothing(store: Store) -> None:
    seen = join(store, "a", "i1")
    other = join(store, "b", "i9")
    store.take_leases(["y", "x"], seen.broker_id)
    store.take_leases(["z"], other.broker_id)
    taken = join(store, "a", "i2", OTHER)
    assert taken == AgentRow(seen.broker_id, "a", "i2", AgentState.LEAVING, seen.counter + 1, NOW_MS, OTHER)
    assert store.leases_held(seen.broker_id) == []
    assert store.leases_held(other.broker_id) == [Lease("z", other.broker_id, 1)]
    assert store.beat(seen.broker_id, "i1", AgentState.SERVING, FACTS, NOW_MS).counter is None
    assert store.find_agent("a") == taken


def test_an_agent_that_was_only_given_a_broker_id_joins_under_it(store: Store) -> None:
    broker_id = store.register_agent("a")
    seen = store.find_agent("a")
    assert seen == AgentRow(broker_id, "a", "", AgentState.GONE, 0, 0, AgentFacts())
    assert store.join_agent("a", "i1", FACTS, seen) == broker_id
    assert store.register_agent("a") == broker_id
    assert store.find_agent("a").incarnation == "i1"


def test_a_beat_moves_its_own_row_and_reads_everybody_and_all_leases(store: Store) -> None:
    a, b = join(store, "a", "i1"), join(store, "b", "i2", OTHER)
    store.take_leases(["x", "y"], b.broker_id)
    store.release_leases([Lease("y", b.broker_id, 1)])
    store.clock.seconds += 5
    before_ms = store.run(store.database.time_ms())
    rows = store.beat(a.broker_id, "i1", AgentState.SERVING, FACTS, NOW_MS + 4_000)
    assert before_ms <= rows.time_ms <= store.run(store.database.time_ms())
    assert rows.counter == a.counter + 1
    assert [row.broker_id for row in rows.agents] == sorted([a.broker_id, b.broker_id])
    assert b in rows.agents
    held = {name: (state.name, state.holder, state.epoch) for name, state in rows.leases.items()}
    assert held == {"x": ("x", b.broker_id, 1), "y": ("y", None, 1)}
    row = store.find_agent("a")
    assert row == AgentRow(a.broker_id, "a", "i1", AgentState.SERVING, a.counter + 1, NOW_MS + 4_000, FACTS)
    again = store.beat(a.broker_id, "i1", AgentState.GONE, OTHER, NOW_MS + 4_500)
    assert again.counter == a.counter + 2
    assert store.find_agent("a").state is AgentState.GONE


def test_a_beat_of_nobody_says_so(store: Store) -> None:
    assert store.beat(BrokerId(77), "i1", AgentState.SERVING, FACTS, NOW_MS).counter is None


def test_only_agents_that_are_still_as_seen_are_forgotten(store: Store) -> None:
    a, b = join(store, "a", "i1"), join(store, "b", "i2")
    store.take_leases(["x"], a.broker_id)
    store.take_leases(["y"], b.broker_id)
    store.beat(b.broker_id, "i2", AgentState.SERVING, FACTS, NOW_MS)
    assert store.forget_agents([a, b]) == [a.broker_id]
    assert store.find_agent("a") is None
    assert store.leases_held(a.broker_id) == []
    assert [lease.name for lease in store.leases_held(b.broker_id)] == ["y"]
    assert store.forget_agents([a]) == store.forget_agents([]) == []
    assert join(store, "a", "i3").broker_id not in (a.broker_id, b.broker_id)


def test_what_another_release_says_of_an_agent_is_taken_as_far_as_it_is_known(store: Store) -> None:
    row = join(store, "a", "i1")
    stored = json.loads(FACTS.to_json())
    text = json.dumps({**stored, "colour": "green", "roles": ["produce", "sing"]})
    write_raw(store, f"update agents set facts = '{text}', state = 77")
    found = store.find_agent("a")
    assert (found.facts.zone, found.facts.roles) == (FACTS.zone, ("produce", "sing"))
    assert found.state is AgentState.LEAVING
    assert found.counter == row.counter


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", '{"endpoints": 7}', '{"endpoints": [7]}', '{"zone": 3}', '{"connections": "many"}',
     '{"connections": null}', '{"connections": true}', '{"version": null}'],
)  # fmt: skip
def test_an_agent_whose_facts_are_no_facts_is_one_to_whom_nobody_is_sent(store: Store, text: str) -> None:
    row = join(store, "a", "i1")
    write_raw(store, f"update agents set facts = '{text}'")
    with pytest.raises(ValueError):
        AgentFacts.from_json(text)
    found = store.find_agent("a")
    assert found == row._replace(facts=AgentFacts(endpoints=(), roles=()))
    assert store.beat(row.broker_id, "i1", AgentState.SERVING, FACTS, NOW_MS).counter == row.counter + 1


def test_facts_are_read_as_they_were_written() -> None:
    assert AgentFacts.from_json(FACTS.to_json()) == FACTS
    assert AgentFacts.from_json("{}") == AgentFacts()


def test_a_segment_is_committed_or_it_is_not(store: Store) -> None:
    topic = store.new_topic("t")
    key = store.ids.segment_key()
    assert not store.is_committed(key)
    store.commit([segment(key, batch(topic.logs[0]))], NOW_MS)
    assert store.is_committed(key)
