"""Made-up measurements of a machine on which nothing is wrong, to be changed one fact at a time."""

from __future__ import annotations

from collections.abc import Iterable

from warp.cli.doctor.facts import (
    BrokerAddress,
    BrokerFacts,
    ClientFacts,
    DatabaseFacts,
    Holder,
    HolderState,
    MachineFacts,
    PlaceFacts,
    StoreFacts,
    Timing,
)
from warp.cli.doctor.finding import Finding, Severity
from warp.cli.doctor.latency import Latency
from warp.config_values import Address

GIB = 2**30
NOBODY = Holder(HolderState.NOBODY)
HELD = Holder(HolderState.HELD, 4711, "process 4711 on host, started then")
UNKNOWN = Holder(HolderState.UNKNOWN)
LISTEN = Address("0.0.0.0", 9092)
TOLD = Address("broker.example", 9092)
CLUSTER = "enMpwSXcQ9Wiv72J1uvhQg"


def milliseconds(*times_ms: float) -> Latency:
    found = Latency.of(time_ms / 1000 for time_ms in times_ms)
    assert found is not None
    return found


def timing(*times_ms: float) -> Timing:
    return Timing(milliseconds(*times_ms))


def severities(findings: Iterable[Finding]) -> dict[str, Severity]:
    """By check; of several findings of one check the last."""
    return {finding.check: finding.severity for finding in findings}


def bad(findings: Iterable[Finding]) -> dict[str, Severity]:
    """Those that somebody has to do something about."""
    return {
        check: severity
        for check, severity in severities(findings).items()
        if severity in (Severity.WARNING, Severity.PROBLEM)
    }


BUCKET = StoreFacts(
    "s3://bucket/prefix",
    is_directory=False,
    conditional_create=True,
    checks_content=True,
    put_small=timing(20, 25, 30),
    put_large=timing(80, 90, 100),
    get_small=timing(10, 11, 12),
    get_large=timing(40, 50, 60),
)
PLACE = PlaceFacts(
    "/var/lib/warp", "/var/lib/warp", True, "ext4", 100 * GIB, 10**6, fsync=milliseconds(0.5, 0.6, 2)
)
DATABASE = DatabaseFacts("/var/lib/warp/metadata.sqlite", True, "", True, True, 10**6, 10**5)
BROKER = BrokerFacts(
    TOLD,
    ("192.0.2.1",),
    True,
    "",
    CLUSTER,
    (BrokerAddress(1, TOLD),),
    milliseconds(1, 2, 3),
)
CLIENTS = ClientFacts(TOLD, LISTEN, True, CLUSTER, BROKER, (BROKER,))
MACHINE = MachineFacts(
    open_files_soft=1024,
    open_files_hard=2**20,
    memory_total_bytes=8 * GIB,
    memory_available_bytes=6 * GIB,
    memory_limit_bytes=None,
    memory_limit_used_bytes=None,
    agent_memory_bytes=0,
    processors=4,
    processor_quota=None,
    swap_total_bytes=0,
    swap_used_bytes=0,
    listen_queue_max=4096,
    checksum="sse42",
    checksums=("sse42", "table"),
    python="CPython 3.12.0",
    uvloop="0.22",
    sqlite=(3, 45, 0),
    warp="0.1.0",
    client_library="2.6",
)
