"""The cluster as it is shown to people and to Prometheus."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

from tests.unit.cluster.membership_support import LIMITS, Rig, in_virtual_time
from warp.cluster.describe import describe
from warp.cluster.membership_metrics import beat_counter, show_membership
from warp.metadata.group_model import coordinator_lease
from warp.metrics import Metrics

A, B, C, D = "a.example:9092", "b.example:9092", "c.example:9092", "d.example:9092"


def test_agents_leases_and_the_own_session_are_shown() -> None:
    async def main(rig: Rig) -> None:
        a, b, c, d = await rig.serving(A, B, C, D)
        b.facts = replace(
            b.facts,
            roles=("fetch",),
            version="0.4.0",
            group="blue",
            peer="b.example:8080",
            connections=3,
            produced_bytes_per_s=10,
            fetched_bytes_per_s=20,
        )
        await rig.store.take_leases([coordinator_lease(slot) for slot in range(3)], b.own)
        await rig.store.take_leases([coordinator_lease(slot) for slot in range(3, 5)], c.own)
        await rig.store.take_leases(["jobs/merge"], b.own)
        await rig.store.take_leases(["jobs/sweep"], c.own)
        await b.membership.leave()
        c.kill()
        await d.membership.close()
        await asyncio.sleep(10)
        shown = describe(a.membership, a.clock.time_ms())
        assert json.loads(json.dumps(shown)) == shown
        assert [(agent["name"], agent["state"], agent["slots"]) for agent in shown["agents"]] == [
            (A, "serving", 0),
            (B, "leaving", 3),
            (C, "lost", 2),
            (D, "gone", 0),
        ]
        leaving, lost = shown["agents"][1:3]
        assert leaving == {
            "broker_id": b.own,
            "name": B,
            "state": "leaving",
            "endpoints": [B],
            "peer": "b.example:8080",
            "zone": "z1",
            "group": "blue",
            "roles": ["fetch"],
            "version": "0.4.0",
            "uptime_s": leaving["uptime_s"],
            "silent_s": leaving["silent_s"],
            "connections": 3,
            "produced_bytes_per_s": 10,
            "fetched_bytes_per_s": 20,
            "slots": 3,
        }
        assert 10 <= leaving["uptime_s"] <= 13
        assert leaving["silent_s"] <= LIMITS.beat_s
        assert lost["uptime_s"] is None
        assert 9 <= lost["silent_s"] <= 11
        assert shown["slots"] == {"total": 64, "held": 3, "free": 61}
        assert shown["jobs"] == [
            {"name": "jobs/merge", "holder": b.own, "epoch": 1},
            {"name": "jobs/sweep", "holder": None, "epoch": 1},
        ]
        own = shown["own"]
        assert own == {
            "broker_id": a.own,
            "name": A,
            "is_shared": True,
            "session": "live",
            "session_lapses": 0,
            "beat_age_s": own["beat_age_s"],
            "clock_skew_ms": 0,
            "is_clock_trusted": True,
        }
        a.clock.slept_s += 60
        own = describe(a.membership, a.clock.time_ms())["own"]
        assert own["session"] == "lapsed"
        assert own["beat_age_s"] >= 60

    in_virtual_time(main)


def test_an_agent_without_a_cluster_shows_itself() -> None:
    async def main(rig: Rig) -> None:
        member = rig.member("embedded", is_shared=False)
        await member.membership.join()
        member.membership.start()
        await asyncio.sleep(5)
        shown = describe(member.membership, member.clock.time_ms())
        [agent] = shown["agents"]
        assert (agent["name"], agent["state"], agent["uptime_s"]) == ("embedded", "serving", 5.0)
        assert (shown["own"]["is_shared"], shown["own"]["session"], shown["jobs"]) == (False, "live", [])

    in_virtual_time(main)


def test_metrics_follow_the_membership() -> None:
    async def main(rig: Rig) -> None:
        a, b, c = await rig.serving(A, B, C)
        metrics = Metrics()
        count = beat_counter(metrics)
        show_membership(metrics, a.membership)
        for outcome in a.outcomes:
            count(outcome)
        assert metrics.cluster_beats.value("ok") == len(a.outcomes) > 0
        assert metrics.cluster_beats.value("failed") == 0
        await b.membership.leave()
        c.kill()
        a.clock.skew_ms = 2_500
        await asyncio.sleep(10)
        text = metrics.render().decode()
        for line in (
            'warp_cluster_agents{state="serving"} 1.0',
            'warp_cluster_agents{state="leaving"} 1.0',
            'warp_cluster_agents{state="lost"} 1.0',
            "warp_cluster_session_live 1.0",
            "warp_cluster_session_lapses_total 0.0",
            'warp_cluster_beats_total{outcome="bug"} 0.0',
        ):
            assert line in text, line
        [skew] = [line for line in text.splitlines() if line.startswith("warp_cluster_clock_skew_seconds ")]
        assert 2.4 < float(skew.split()[1]) <= 2.5
        a.clock.slept_s += 60
        assert "warp_cluster_session_live 0.0" in metrics.render().decode()
        await asyncio.sleep(1)
        assert "warp_cluster_session_lapses_total 1.0" in metrics.render().decode()

    in_virtual_time(main)
