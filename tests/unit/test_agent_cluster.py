"""What an agent tells its cluster of itself."""

from __future__ import annotations

from warp.agent_cluster import LastCommit, LoadMeter, fixed_facts
from warp.config import config_of
from warp.config_values import Address
from warp.errors import ErrorCode
from warp.handlers.context import Endpoint
from warp.metadata.cluster_model import AgentFacts
from warp.metadata.model import CommitRefused, CommitResult


class HandClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s

    def boottime(self) -> float:
        return self.now_s

    def time_ms(self) -> int:
        return int(self.now_s * 1000)


def test_load_is_bytes_per_second_since_it_was_last_measured() -> None:
    clock = HandClock()
    load = LoadMeter(clock)
    assert load.rates(500, 100) == (0, 0)
    clock.now_s += 2
    assert load.rates(1000, 300) == (500, 150)
    clock.now_s += 0.5
    assert load.rates(9000, 9000) == (500, 150)
    clock.now_s += 1.5
    assert load.rates(1000, 700) == (0, 200)


def test_the_last_commit_is_the_last_segment_that_was_not_refused() -> None:
    last = LastCommit()
    refused = CommitRefused(ErrorCode.INVALID_REQUEST, "no")
    result = CommitResult(outcomes=(), extents=(), logs=(), refused={1: refused})
    last.committed(result, {"a": [], "b": []})
    assert last.key == "a"
    last.committed(CommitResult(outcomes=(), extents=(), logs=(), refused={0: refused}), {"c": []})
    assert last.key == "a"


def test_facts_name_addresses_zone_group_and_roles() -> None:
    config = config_of(zone="z", agent_group="g", roles=["jobs", "fetch"])
    facts = fixed_facts(config, [Endpoint("a.example", 1), Endpoint("::1", 2)], Address("0.0.0.0", 8080), 7)
    assert facts.endpoints == ("a.example:1", "[::1]:2")
    assert (facts.peer, facts.zone, facts.group, facts.started_ms) == ("a.example:8080", "z", "g", 7)
    assert facts.roles == ("fetch", "jobs")
    assert facts.peer_certificate == ""


def test_facts_tell_of_the_certificate_that_peers_have_to_see() -> None:
    where = config_of(), [Endpoint("a.example", 1)], Address("0.0.0.0", 8080), 7
    facts = fixed_facts(*where, "ab" * 32)
    assert (facts.peer, facts.peer_certificate) == ("https://a.example:8080", "ab" * 32)
    assert AgentFacts.from_json(facts.to_json()) == facts
    alone = fixed_facts(config_of(), [Endpoint("a.example", 1)], Address("127.0.0.1", 8080), 7, "ab" * 32)
    assert alone.peer is None
