"""Which agent a client is told of: zones, roles, groups, and what moves when agents come and go."""

from __future__ import annotations

import logging
from collections import Counter

import pytest
from hypothesis import given, strategies as st

from tests.unit.cluster.discovery_support import CLIENTS, OWN, FakeCluster, two_zones
from warp.cluster.discovery import DiscoveryLimits, alone
from warp.ids import BrokerId
from warp.metadata.cluster_model import AgentFacts
from warp.metadata.group_model import slot_of


def test_an_agent_alone_names_itself_by_the_address_of_the_listener() -> None:
    cluster = FakeCluster(one="a")
    [named] = cluster.discovery.agents(0, OWN)
    assert named == (1, "own.test", 1, "a")
    assert cluster.discovery.is_alone
    choice = cluster.discovery.choose(cluster.caller("ws_az=b,ws_pas=consistent,ws_pt=fetch"), used_s=None)
    assert (choice.leader, choice.is_spread, choice.replicas(choice.leader)) == (1, False, (1,))


def test_the_view_of_an_agent_that_is_the_whole_cluster_has_it_alone() -> None:
    view = alone(BrokerId(7), AgentFacts(zone="z"))
    assert (view.own, list(view.agents), view.agents[BrokerId(7)].facts.zone) == (7, [7], "z")


def test_others_are_named_by_what_they_tell_clients_of_that_listener() -> None:
    cluster = two_zones()
    cluster.put(5, zone="b", endpoints=("[2001:db8::1]:9092",))
    first, *_, last = cluster.discovery.agents(0, OWN)
    assert first == (1, "own.test", 1, "a")
    assert last == (5, "2001:db8::1", 9092, "b")
    assert cluster.discovery.agents(1, OWN)[1] == (2, "agent-2.inner", 9093, "a")


@pytest.mark.parametrize("endpoints", [(), ("",), ("no-port",), ("host:0",), ("host:99999",)])
def test_who_can_not_be_reached_is_not_named(endpoints: tuple[str, ...]) -> None:
    cluster = two_zones()
    cluster.put(2, zone="a", endpoints=endpoints)
    assert cluster.named() == [1, 3, 4]
    assert 2 not in {cluster.leader(client) for client in CLIENTS}


def test_who_is_leaving_or_of_another_group_is_not_chosen_and_named_only_to_be_a_coordinator() -> None:
    cluster = two_zones()
    cluster.put(2, zone="a", group="other")
    cluster.put(3, is_leaving=True, zone="b")
    assert cluster.named() == [1, 2, 4]
    assert {cluster.leader(client) for client in CLIENTS} == {1, 4}
    choice = cluster.discovery.choose(cluster.caller(), used_s=None)
    assert choice.replicas(BrokerId(1)) == (1, 4)
    assert list(cluster.discovery.broker_ids()) == [1, 2, 3, 4]
    cluster.put(2, zone="a", group="other", endpoints=())
    cluster.put(4, zone="b", group="other", is_leaving=True)
    assert cluster.named() == [1]


def test_who_is_silent_leads_for_nobody_and_is_named_all_the_same() -> None:
    cluster = two_zones()
    before = {client: cluster.leader(client) for client in CLIENTS}
    cluster.put(3, is_silent=True, zone="b")
    assert cluster.named() == [1, 2, 3, 4]
    after = {client: cluster.leader(client) for client in CLIENTS}
    assert set(after.values()) == {1, 2, 4}
    assert {client for client in CLIENTS if before[client] != after[client]} == {
        client for client in CLIENTS if before[client] == 3
    }
    cluster.put(4, is_silent=True, zone="b")
    of_zone_b = cluster.leader("app,warp_az=b")
    assert of_zone_b in (1, 2), "nobody of its zone can be heard"
    cluster.put(3, zone="b")
    assert {client: cluster.leader(client) for client in CLIENTS if before[client] == 3} == {
        client: 3 for client in CLIENTS if before[client] == 3
    }


def test_an_agent_that_leaves_names_the_others_and_itself_only_when_there_are_none() -> None:
    cluster = two_zones()
    cluster.put(1, is_leaving=True, zone="a")
    assert cluster.named() == [2, 3, 4]
    for number in (2, 3, 4):
        cluster.drop(number)
    assert cluster.named() == [1]
    assert cluster.leader() == 1


def test_a_client_gets_an_agent_of_its_zone() -> None:
    cluster = two_zones()
    assert {cluster.leader(f"{client},ws_az=a") for client in CLIENTS} == {1, 2}
    assert {cluster.leader(f"{client},warpstream_az=b") for client in CLIENTS} == {3, 4}
    assert {cluster.leader(client) for client in CLIENTS} == {1, 2, 3, 4}


def test_a_zone_that_nobody_has_is_all_zones_with_one_line_about_it(caplog: pytest.LogCaptureFixture) -> None:
    cluster = two_zones()
    with caplog.at_level(logging.WARNING, "warp.discovery"):
        found = {cluster.leader(f"{client},ws_az=c") for client in CLIENTS}
    assert found == {1, 2, 3, 4}
    [line] = caplog.messages
    assert "'c'" in line


def test_a_flood_of_zones_makes_a_line_per_second_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    cluster = two_zones()
    with caplog.at_level(logging.WARNING, "warp.discovery"):
        for number in range(1000):
            cluster.leader(f"ws_az=zone-{number}")
            cluster.clock.now_s += 0.01
    assert len(caplog.messages) == 10
    assert len(cluster.discovery._unknown_log._written) == 10


def test_a_zone_that_has_lost_its_agents_is_all_zones_until_one_is_back() -> None:
    cluster = two_zones()
    caller = cluster.caller("ws_az=b")
    before = cluster.discovery.choose(caller, used_s=None).leader
    cluster.drop(3)
    cluster.drop(4)
    assert cluster.discovery.choose(caller, used_s=None).leader in (1, 2)
    cluster.put(3, zone="b")
    cluster.put(4, zone="b")
    assert cluster.discovery.choose(caller, used_s=None).leader == before


def test_roles_are_heeded_before_zones_and_let_go_when_nobody_has_them() -> None:
    cluster = two_zones()
    cluster.put(1, zone="a", roles=("produce",))
    cluster.put(2, zone="a", roles=("produce", "jobs"))
    cluster.put(3, zone="b", roles=("fetch",))
    cluster.put(4, zone="b", roles=("jobs",))
    leaders = {
        wish: {cluster.leader(f"{client},{wish}") for client in CLIENTS}
        for wish in (
            "x",
            "ws_pt=proxy-produce",
            "ws_pt=proxy-consume,ws_az=a",
            "ws_az=b",
            "ws_pt=fetch,ws_az=b",
        )
    }
    assert leaders == {
        "x": {1, 2},
        "ws_pt=proxy-produce": {1, 2},
        "ws_pt=proxy-consume,ws_az=a": {3},
        "ws_az=b": {3, 4},
        "ws_pt=fetch,ws_az=b": {3},
    }
    cluster.put(2, zone="a")
    assert {cluster.leader(client) for client in CLIENTS} == {2}, "those who do both come first"
    cluster.put(2, zone="a", roles=("produce",))
    cluster.put(3, zone="b", roles=("produce",))
    assert {cluster.leader(f"{client},ws_pt=fetch") for client in CLIENTS} == {1, 2, 3, 4}, "nobody fetches"


def test_all_agents_answer_alike() -> None:
    clusters = [two_zones(own) for own in (1, 2, 3, 4)]
    for client in CLIENTS:
        assert len({cluster.leader(client) for cluster in clusters}) == 1


def test_clients_are_told_apart_by_id_and_host() -> None:
    cluster = two_zones()
    assert {cluster.leader("rdkafka", f"192.0.2.{number}") for number in range(50)} == {1, 2, 3, 4}
    counts = Counter(cluster.leader(client) for client in CLIENTS)
    assert min(counts.values()) > len(CLIENTS) / 4 / 2


def test_only_what_must_move_moves_when_an_agent_goes() -> None:
    cluster = two_zones()
    before = {client: cluster.leader(client) for client in CLIENTS}
    cluster.drop(3)
    after = {client: cluster.leader(client) for client in CLIENTS}
    assert all(after[client] == leader for client, leader in before.items() if leader != 3)
    assert {after[client] for client, leader in before.items() if leader == 3} == {1, 2, 4}


def test_many_connections_that_are_alike_are_spread_and_stay_where_they_are() -> None:
    cluster = two_zones()
    callers = [cluster.caller("rdkafka") for _ in range(200)]
    told = [cluster.discovery.choose(caller, used_s=None).leader for caller in callers]
    assert [cluster.discovery.choose(caller, used_s=None).leader for caller in callers] == told
    counts = Counter(told)
    assert min(counts.values()) > 30


def test_few_connections_that_are_alike_go_to_one_agent() -> None:
    cluster = two_zones()
    callers = [cluster.caller("rdkafka") for _ in range(8)]
    assert len({cluster.discovery.choose(caller, used_s=None).leader for caller in callers}) == 1


def test_those_that_have_left_are_not_counted_as_alike() -> None:
    cluster = two_zones()
    for _ in range(100):
        cluster.caller("rdkafka").leave()
    assert cluster.discovery._alike == {}
    again = cluster.caller("rdkafka")
    assert cluster.discovery.caller(again, "rdkafka", "192.0.2.1", 0) is again
    other = cluster.discovery.caller(again, "other", "192.0.2.1", 0)
    assert other is not again
    assert list(cluster.discovery._alike.values()) == [1]


@given(st.lists(st.integers(0, 1000), min_size=4, max_size=4), st.integers(20, 120))
def test_no_agent_gets_far_more_than_its_share_of_connections_that_are_alike(
    loads: list[int], count: int
) -> None:
    cluster = two_zones()
    cluster.load(dict(enumerate(loads, 1)))
    callers = [cluster.caller("rdkafka") for _ in range(count)]
    told = Counter(cluster.discovery.choose(caller, used_s=None).leader for caller in callers)
    mean = (sum(loads) + count) / 4
    for number, load in enumerate(loads, 1):
        # Those of before the ninth go by name; the mean is only known afterwards.
        assert told[BrokerId(number)] <= 9 or load + told[BrokerId(number)] <= 1.25 * mean + 8 + 9


def test_what_was_sent_away_is_not_counted_twice_once_loads_are_told_anew() -> None:
    cluster = two_zones()
    for _ in range(100):
        cluster.discovery.choose(cluster.caller("rdkafka"), used_s=None)
    assert sum(cluster.discovery._balance._sent.values()) == 100 - 8, "the first ones went by name"
    cluster.load({1: 25, 2: 25, 3: 25, 4: 25})
    cluster.discovery.choose(cluster.caller("rdkafka"), used_s=None)
    assert sum(cluster.discovery._balance._sent.values()) == 1


TOPIC = b"0123456789abcdef"


def spread(cluster: FakeCluster, client_id: str = "ws_pas=consistent", partitions: int = 400) -> list[int]:
    """The leaders of partitions, spread."""
    choice = cluster.discovery.choose(cluster.caller(client_id), used_s=None)
    assert choice.is_spread
    return list(choice.leaders(TOPIC, partitions)[:partitions])


def test_partitions_are_spread_evenly_and_alike_for_all_clients_and_agents() -> None:
    leaders = spread(two_zones())
    assert min(Counter(leaders).values()) > 70
    assert spread(two_zones(3), "someone,warp_partition_assignment_strategy=consistent") == leaders
    assert set(spread(two_zones(), "ws_pas=consistent,ws_az=b")) == {3, 4}


def test_only_the_partitions_of_an_agent_move_when_it_goes_or_comes() -> None:
    cluster = two_zones()
    before = spread(cluster)
    cluster.drop(2)
    after = spread(cluster)
    assert all(now == was for now, was in zip(after, before, strict=True) if was != 2)
    assert {now for now, was in zip(after, before, strict=True) if was == 2} == {1, 3, 4}
    cluster.put(2, zone="a")
    assert spread(cluster) == before


def test_partitions_that_are_added_leave_the_others_where_they_are() -> None:
    cluster = two_zones()
    few = spread(cluster, partitions=10)
    for partitions in (1, 500, 4_095, 4_096, 4_097, 20_000):
        leaders = spread(cluster, partitions=partitions)
        assert len(leaders) == partitions
        assert leaders[:10] == few[:partitions]


def test_small_topics_are_spread_over_agents_too() -> None:
    choice_of = two_zones()
    choice = choice_of.discovery.choose(choice_of.caller("ws_pas=consistent"), used_s=None)
    counts = Counter(choice.leaders(number.to_bytes(16, "big"), 1)[0] for number in range(400))
    assert min(counts.values()) > 70


def test_replicas_are_the_leader_and_one_agent_of_each_other_zone_three_at_most() -> None:
    cluster = FakeCluster(one="a", two="a", three="b", four="b", five="c", six="c", seven="d", eight=None)
    choice = cluster.discovery.choose(cluster.caller(), used_s=None)
    zones = {1: "a", 2: "a", 3: "b", 4: "b", 5: "c", 6: "c", 7: "d", 8: None}
    for leader in cluster.named():
        replicas = choice.replicas(BrokerId(leader))
        assert replicas[0] == leader
        assert len(replicas) == 3
        assert len({zones[broker_id] for broker_id in replicas}) == 3


def test_a_reader_is_sent_to_the_replica_in_the_zone_that_is_its_rack() -> None:
    cluster = two_zones()
    for client in CLIENTS:
        caller = cluster.caller(client)
        nearer = cluster.discovery.nearer(caller, "b")
        choice = cluster.discovery.choose(caller, used_s=None)
        assert choice.leader == nearer, "its zone is known now"
        assert nearer in choice.replicas(BrokerId(1))[1:]
        assert cluster.discovery.nearer(caller, "a") is None
        assert cluster.discovery.nearer(caller, "c") is None


def test_a_reader_is_not_sent_away_by_the_agent_that_it_was_sent_to() -> None:
    nearer = two_zones().discovery.nearer(two_zones().caller(), "b")
    assert nearer in (3, 4)
    target = two_zones(nearer)
    assert target.discovery.nearer(target.caller(), "b") is None


def test_the_zone_in_the_client_id_counts_for_more_than_the_rack() -> None:
    cluster = two_zones()
    assert cluster.discovery.nearer(cluster.caller("ws_az=a"), "b") is None
    assert cluster.discovery.nearer(cluster.caller("ws_az=b"), "b") in (3, 4)
    assert cluster.discovery.nearer(cluster.caller("ws_az=nowhere"), "b") in (3, 4)


def test_a_reader_is_not_sent_to_an_agent_without_the_role() -> None:
    cluster = two_zones()
    cluster.put(3, zone="b", roles=("produce",))
    cluster.put(4, zone="b", roles=("produce",))
    assert cluster.discovery.nearer(cluster.caller(), "b") is None


def test_a_reader_that_is_back_at_once_is_served_for_a_while() -> None:
    cluster = two_zones()
    discovery, caller = cluster.discovery, cluster.caller()
    assert discovery.may_steer(caller, 7)
    assert discovery.may_steer(caller, 8)
    cluster.clock.now_s += 59
    assert not discovery.may_steer(caller, 7)
    cluster.clock.now_s += 2
    assert discovery.may_steer(caller, 8), "that is what a reader does whose lease has run out"
    cluster.clock.now_s += 297
    assert not discovery.may_steer(caller, 7)
    cluster.clock.now_s += 2
    assert discovery.may_steer(caller, 7)


def test_when_no_more_can_be_remembered_readers_are_served() -> None:
    cluster = FakeCluster(limits=DiscoveryLimits(steered_max=10), one="a", two="b")
    discovery, caller = cluster.discovery, cluster.caller()
    assert [discovery.may_steer(caller, log_id) for log_id in range(12)] == [True] * 10 + [False] * 2
    caller.leave()
    assert discovery.may_steer(cluster.caller(), 11)


def test_a_coordinator_is_who_holds_the_slot_and_lives() -> None:
    cluster = two_zones()
    slot = slot_of("group")
    assert cluster.discovery.coordinator("group", 0) is None
    cluster.hold(slot, 3)
    assert cluster.discovery.coordinator("group", 1) == (3, "agent-3.inner", 9093, "b")
    assert cluster.discovery.coordinator("group", 2) is None, "it has no such listener"
    cluster.put(3, zone="b", group="other", is_leaving=True)
    assert cluster.discovery.coordinator("group", 0) == (3, "agent-3.test", 9092, "b")
    cluster.drop(3)
    assert cluster.discovery.coordinator("group", 0) is None
    for holder in (1, None):
        cluster.hold(slot, holder)
        assert cluster.discovery.coordinator("group", 0) is None


@given(st.lists(st.text(max_size=40), max_size=30))
def test_any_client_id_gets_an_agent_that_is_named(client_ids: list[str]) -> None:
    cluster = two_zones()
    for client_id in client_ids:
        assert cluster.leader(client_id) in cluster.named()


Change = tuple[int, str, str, bool]


def test_an_agent_whose_session_has_lapsed_names_others_until_it_is_back() -> None:
    cluster = two_zones()
    assert cluster.named() == [1, 2, 3, 4]
    cluster.is_live = False
    assert cluster.discovery.is_cut_off
    assert cluster.named() == [2, 3, 4]
    # Neither who comes nor who is at work here is told to stay.
    caller = cluster.caller()
    assert 1 not in {cluster.leader(client_id) for client_id in CLIENTS}
    assert cluster.discovery.choose(caller, used_s=cluster.clock.monotonic()).leader != 1
    cluster.is_live = True
    assert cluster.named() == [1, 2, 3, 4]
    assert 1 in {cluster.leader(client_id) for client_id in CLIENTS}


def test_an_agent_whose_session_has_lapsed_names_itself_where_there_is_nobody_else() -> None:
    cluster = FakeCluster(one="a")
    cluster.is_live = False
    assert cluster.named() == [1]
    assert cluster.leader() == 1
    assert not cluster.discovery.is_cut_off


@given(
    st.lists(
        st.tuples(
            st.integers(2, 6),
            st.sampled_from(["a", "b", "c"]),
            st.sampled_from(["produce", "fetch", "jobs", "all"]),
            st.booleans(),
        ),
        max_size=12,
    ),
    st.sampled_from(["x", "ws_az=a", "ws_az=c,ws_pt=fetch", "ws_pas=consistent", "ws_pt=proxy-produce"]),
)
def test_whatever_agents_do_the_answer_is_whole(changes: list[Change], client_id: str) -> None:
    cluster = FakeCluster(one="a")
    caller = cluster.caller(client_id)
    told = cluster.discovery.choose(caller, used_s=None).leader
    before: tuple[int, ...] = (1,)
    for number, zone, role, is_gone in changes:
        if is_gone and number in cluster.agents:
            cluster.drop(number)
        else:
            cluster.put(number, zone=zone, roles=("produce", "fetch", "jobs") if role == "all" else (role,))
        choice = cluster.discovery.choose(caller, used_s=None)
        named = set(cluster.named())
        leaders = choice.leaders(TOPIC, 20) if choice.is_spread else [choice.leader]
        for leader in (choice.leader, *leaders):
            assert set(choice.replicas(leader)) <= named
        agents = cluster.discovery._map()
        pool = agents.pool(0, cluster.discovery._zone(agents, caller), caller.features.role)
        assert choice.leader in pool.agents
        if choice.leader != told:
            assert told not in pool.agents or choice.leader not in before, "only who comes or goes moves it"
        told, before = choice.leader, pool.agents
