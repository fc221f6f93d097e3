"""An object store that refuses, hangs and cuts bodies, under everything that a cluster does with it."""

from __future__ import annotations

import time

import pytest

from tests.cluster.conftest import MakeCluster
from tests.support.cluster import eventually
from tests.support.cluster_load import ClusterLoad
from tests.support.fault_plan import INTERNAL_ERROR, SLOW_DOWN, CutAnswer, CutRequest, Fault, Hang, Moment
from tests.support.fault_proxy import FaultProxy

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(180)]

PUT_FAULTS: tuple[Fault, ...] = (
    SLOW_DOWN,
    INTERNAL_ERROR,
    CutRequest(100),
    CutAnswer(),  # stored, and nobody knows
    Hang(Moment.BEFORE_SERVER),
    Hang(Moment.AFTER_SERVER),
)
GET_FAULTS: tuple[Fault, ...] = (SLOW_DOWN, INTERNAL_ERROR, CutAnswer(), CutAnswer(40), Hang())
SHARE = 0.15
"""Of the requests that such a fault happens to, while all are in force."""
FAILED = 20
GONE_S = 1.0


def test_a_store_that_fails_in_every_way_loses_no_record_and_lets_nobody_starve(
    make_cluster: MakeCluster, bucket: str, proxy: FaultProxy
) -> None:
    # Of one zone: who has not written what it reads asks a peer first, which may have to ask the store.
    zones = ("zone-1", "zone-1", "zone-1")
    cluster = make_cluster(object_store=f"{bucket}&read_timeout=1s", zones=zones)
    with ClusterLoad(cluster) as load:
        rules = [proxy.fail(fault, "PUT", share=SHARE) for fault in PUT_FAULTS]
        rules += [proxy.fail(fault, "GET", share=SHARE) for fault in GET_FAULTS]
        eventually(lambda: all(rule.happened for rule in rules), "every fault has happened")
        load.go_on(10)
        for rule in rules:
            proxy.plan.remove(rule)
        # Nothing works for a time: refused, without an answer, and not even a connection.
        for fault in (SLOW_DOWN, Hang()):
            with proxy.failing(fault) as rule:
                eventually(lambda rule=rule: rule.happened > FAILED, "requests fail")  # type: ignore[misc]
        proxy.vanish()
        time.sleep(GONE_S)
        proxy.come_back()
        load.go_on()
    print(", ".join(f"{rule.method} {rule.fault}: {rule.happened}" for rule in rules))
    assert len(cluster.running) == len(cluster.agents)
