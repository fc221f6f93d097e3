"""Where a client stays and when it goes home: what it does counts, and load, not what it was told before."""

from __future__ import annotations

from tests.unit.cluster.discovery_support import CLIENTS, FakeCluster, two_zones


def test_clients_that_work_elsewhere_go_to_an_agent_that_comes_and_the_others_stay() -> None:
    cluster = two_zones()
    before = {client: cluster.leader(client) for client in CLIENTS}
    cluster.put(5, zone="a")
    after = {client: cluster.leader(client) for client in CLIENTS}
    assert all(after[client] in (5, leader) for client, leader in before.items())
    assert 30 < sum(leader == 5 for leader in after.values()) < 90, "about a fifth of them"


def test_what_an_agent_told_a_client_once_is_not_told_again_when_its_home_is_another() -> None:
    cluster = two_zones()
    caller = cluster.caller("wanderer")
    home = cluster.discovery.choose(caller, used_s=None).leader
    cluster.drop(home)
    meanwhile = cluster.discovery.choose(caller, used_s=None).leader
    assert meanwhile != home
    cluster.put(home, zone="a")
    assert cluster.discovery.choose(caller, used_s=None).leader == home


def at_home_elsewhere(cluster: FakeCluster) -> str:
    """A client whose home is not the agent that is asked."""
    return next(client for client in CLIENTS if cluster.leader(client) != cluster.own)


def test_a_connection_that_is_used_leads_where_it_is() -> None:
    cluster = two_zones()
    client = at_home_elsewhere(cluster)
    used_s = cluster.clock.now_s - 14
    assert cluster.discovery.choose(cluster.caller(client), used_s=used_s).leader == 1
    elsewhere = cluster.discovery.choose(cluster.caller(f"{client},ws_az=b"), used_s=used_s)
    assert elsewhere.leader in (3, 4), "this agent is not of that zone"


def test_a_connection_that_was_used_some_time_ago_holds_nobody() -> None:
    cluster = two_zones()
    client = at_home_elsewhere(cluster)
    home = cluster.leader(client)
    assert cluster.discovery.choose(cluster.caller(client), used_s=cluster.clock.now_s - 16).leader == home


def test_a_client_that_works_here_goes_home_when_its_home_has_far_fewer_connections() -> None:
    cluster = two_zones()
    client = at_home_elsewhere(cluster)
    home = cluster.leader(client)
    caller = cluster.caller(client)
    cluster.load({number: 0 if number == home else 100 for number in cluster.agents})
    now_s = cluster.clock.now_s
    assert cluster.discovery.choose(caller, used_s=now_s).leader == home
    cluster.load(dict.fromkeys(cluster.agents, 100))
    assert cluster.discovery.choose(caller, used_s=now_s + 4).leader == home, "that was on its way"
    cluster.clock.now_s += 6
    assert cluster.discovery.choose(caller, used_s=cluster.clock.now_s).leader == 1, "it has come back"


def test_a_client_at_home_is_not_sent_away_for_the_sake_of_load() -> None:
    cluster = two_zones()
    client = next(client for client in CLIENTS if cluster.leader(client) == cluster.own)
    cluster.load({1: 10_000, 2: 0, 3: 0, 4: 0})
    for used_s in (None, cluster.clock.now_s):
        assert cluster.discovery.choose(cluster.caller(client), used_s=used_s).leader == 1


def test_a_client_does_not_leave_its_zone_for_the_sake_of_load() -> None:
    cluster = two_zones()
    client = at_home_elsewhere(cluster)
    caller = cluster.caller(client)
    caller.rack = "a"
    cluster.load({1: 100, 2: 100, 3: 0, 4: 0})
    assert cluster.discovery.choose(caller, used_s=cluster.clock.now_s).leader == 1


def test_connections_of_clients_that_work_elsewhere_are_counted() -> None:
    cluster = two_zones()
    callers = [cluster.caller(client) for client in CLIENTS]
    told = [cluster.discovery.choose(caller, used_s=None).leader for caller in callers]
    assert cluster.discovery.elsewhere == sum(leader != 1 for leader in told)
    index = next(index for index, leader in enumerate(told) if leader != 1)
    cluster.discovery.choose(callers[index], used_s=cluster.clock.now_s)
    assert cluster.discovery.elsewhere == sum(leader != 1 for leader in told) - 1
    for caller in callers:
        caller.leave()
    assert cluster.discovery.elsewhere == 0


def test_a_client_whose_partitions_are_spread_is_not_counted_as_elsewhere() -> None:
    cluster = two_zones()
    for number in range(20):
        cluster.discovery.choose(cluster.caller(f"ws_pas=consistent,{number}"), used_s=None)
    assert cluster.discovery.elsewhere == 0


def test_a_reader_that_is_sent_to_its_rack_counts_as_elsewhere() -> None:
    cluster = two_zones()
    caller = cluster.caller()
    assert cluster.discovery.nearer(caller, "b") in (3, 4)
    cluster.discovery.choose(caller, used_s=None)
    assert cluster.discovery.elsewhere == 1


def test_one_of_many_that_are_alike_which_has_left_is_told_of_another_agent_and_of_that_for_good() -> None:
    cluster = two_zones()
    caller, *_ = [cluster.caller("rdkafka") for _ in range(20)]
    assert cluster.discovery.choose(caller, used_s=cluster.clock.now_s).leader == 1
    used_s = cluster.clock.now_s
    cluster.clock.now_s += 119
    assert cluster.discovery.choose(caller, used_s=used_s).leader == 1, "it may only be slow"
    cluster.clock.now_s += 2
    other = cluster.discovery.choose(caller, used_s=used_s).leader
    assert other != 1
    for _ in range(5):
        cluster.clock.now_s += 300
        assert cluster.discovery.choose(caller, used_s=used_s).leader == other
