"""Limits of the machine beside what the agent's settings ask for."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from typing import Final

from warp.agent_log import FREE_BLOCK_BYTES_MAX, SEALED_BYTES_MAX
from warp.cli.doctor.facts import MachineFacts
from warp.cli.doctor.finding import Finding, note, ok, problem, warning
from warp.cli.system import DESCRIPTORS_RESERVED
from warp.config import AgentConfig
from warp.groups.slots import CoordinatorLimits
from warp.metadata.cluster_model import JOBS
from warp.metadata.sqlite import OLDEST_SQLITE
from warp.units import approximate_size

MIB: Final = 2**20
CONNECTION_BYTES: Final = 6 * 1024
TLS_CONNECTION_BYTES: Final = 300 * 1024
"""While it sends, or its peer takes nothing."""
HTTP_TLS_BYTES_MAX: Final = 100 * MIB
"""Half a MiB for each of 200."""
JOB_BYTES_BESIDE: Final = 128 * MIB
"""One batch that is compacted, decompressed and written anew, beside --jobs-memory."""
LISTEN_QUEUE: Final = 1024
"""What the agent asks the kernel for."""
CONNECTIONS_MIN: Final = 64
"""With fewer an agent is of no use."""
CHECKSUM_TABLE: Final = "table"


def judge_machine(facts: MachineFacts, config: AgentConfig) -> Iterator[Finding]:
    """Findings on limits, memory, processors and software."""
    yield _judge_open_files(facts, config.connections_max)
    yield _judge_memory(facts, memory_bounds(config))
    yield _judge_processors(facts)
    yield _judge_swap(facts)
    yield _judge_listen_queue(facts)
    yield judge_checksum(facts)
    yield judge_software(facts)


def memory_bounds(config: AgentConfig) -> dict[str, int]:
    """What may be in memory at most, by the words of docs/operations.md, in bytes."""
    requests = config.request_memory_bytes_max
    return {
        "requests, from before they are read until they are answered": requests,
        "segments between seal and answer": min(SEALED_BYTES_MAX, requests // 2) + config.flush_bytes_max,
        "large buffers that wait to be used again": min(FREE_BLOCK_BYTES_MAX, requests // 8),
        "record data for consumers, in memory or being sent from there": config.cache_bytes_max,
        "answers that had to be copied": config.fetch_memory_bytes_max,
        "what background jobs hold": JOB_BYTES_BESIDE + config.jobs_memory_bytes_max
        if JOBS in config.roles
        else 0,
        "what members of groups make the agent keep": CoordinatorLimits().members_bytes_max,
        "buffers of the local store's writers": 8 * MIB,
        "checking large compressed batches, only where clients compress": 3 * 64 * MIB,
        "batches that change their codec": 64 * MIB,
        "open connections": config.connections_max * _connection_bytes(config),
        "connections to `--http`, with TLS": HTTP_TLS_BYTES_MAX if config.http_tls else 0,
        "the process itself": 100 * MIB,
    }


def _connection_bytes(config: AgentConfig) -> int:
    return TLS_CONNECTION_BYTES if any(listener.has_tls for listener in config.listen) else CONNECTION_BYTES


def _judge_open_files(facts: MachineFacts, connections_max: int) -> Finding:
    check, hard = "limits.open-files", facts.open_files_hard
    needed = connections_max + DESCRIPTORS_RESERVED
    measured = {"hard": hard, "soft": facts.open_files_soft, "needed": needed}
    if hard is None or hard >= needed:
        limit = "unlimited" if hard is None else str(hard)
        return ok(check, f"{limit}, enough for {connections_max} connections", measured=measured)
    remedy = (
        f"raise the hard limit to {needed} (LimitNOFILE= of systemd, ulimit -Hn), or lower --connections-max"
    )
    left = max(1, hard - DESCRIPTORS_RESERVED)
    text = f"{hard} allow {left} connections of the {connections_max} of --connections-max"
    if left < CONNECTIONS_MIN:
        return problem(check, text, remedy, measured=measured)
    return warning(check, text, remedy, measured=measured)


def _judge_memory(facts: MachineFacts, bounds: Mapping[str, int]) -> Finding:
    check, wanted = "limits.memory", sum(bounds.values())
    total, available = _memory(facts)
    measured = {"needed_bytes": wanted, "available_bytes": available, "total_bytes": total}
    text = f"the settings allow {approximate_size(wanted)}"
    if total is None or available is None:
        return note(check, f"{text}; how much there is could not be found out", measured=measured)
    remedy = "lower --request-memory, --cache-bytes and --fetch-memory, or give the agent more memory"
    if wanted > total:
        where = "the container may use" if total == facts.memory_limit_bytes else "there are"
        return problem(check, f"{text}, and {where} {approximate_size(total)}", remedy, measured=measured)
    if wanted > available:
        return warning(
            check,
            f"{text}, and {approximate_size(available)} of {approximate_size(total)} are free",
            remedy,
            measured=measured,
        )
    return ok(check, f"{text}; {approximate_size(available)} are free for it", measured=measured)


def _memory(facts: MachineFacts) -> tuple[int | None, int | None]:
    """What an agent could have, and what of it is free; what one that runs already holds counts as free."""
    total, available = facts.memory_total_bytes, facts.memory_available_bytes
    limit, used = facts.memory_limit_bytes, facts.memory_limit_used_bytes
    if total is not None and limit is not None and limit < total:
        total = limit
        if available is not None and used is not None:
            available = min(available, max(0, limit - used))
    if total is not None and available is not None:
        available = min(total, available + facts.agent_memory_bytes)
    return total, available


def _judge_processors(facts: MachineFacts) -> Finding:
    check, count, quota = "limits.processors", facts.processors, facts.processor_quota
    measured = {"processors": count, "quota": quota}
    usable = count if quota is None else min(count, quota)
    text = f"{count}" if quota is None else f"{count}, of which the container may use {quota:g}"
    if usable < 1:
        remedy = (
            "give the container one processor at least: it is held up for as long as its share is used up"
        )
        return warning(check, text, remedy, measured=measured)
    if usable < 2:
        return note(
            check, f"{text}: checks, compression and disk share it with the event loop", measured=measured
        )
    return ok(check, text, measured=measured)


def _judge_swap(facts: MachineFacts) -> Finding:
    check = "limits.swap"
    measured = {"total_bytes": facts.swap_total_bytes, "used_bytes": facts.swap_used_bytes}
    if not facts.swap_total_bytes:
        return ok(check, "none", measured=measured)
    text = (
        f"{approximate_size(facts.swap_total_bytes)}, {approximate_size(facts.swap_used_bytes or 0)} in use"
    )
    if facts.swap_used_bytes and facts.swap_used_bytes > facts.swap_total_bytes // 2:
        remedy = "take memory-hungry programs off this machine, or turn swap off (swapoff -a): a swapped agent stalls"
        return warning(check, text, remedy, measured=measured)
    return note(check, f"{text}; an agent that is swapped out stalls", measured=measured)


def _judge_listen_queue(facts: MachineFacts) -> Finding:
    check, limit = "limits.listen-queue", facts.listen_queue_max
    if limit is None:
        return note(check, "its limit could not be found out")
    text = f"{min(limit, LISTEN_QUEUE)} connections may wait to be accepted"
    if limit < LISTEN_QUEUE:
        remedy = f"sysctl -w net.core.somaxconn={LISTEN_QUEUE}, for when many clients come back at once"
        return warning(check, text, remedy, measured={"somaxconn": limit})
    return ok(check, text, measured={"somaxconn": limit})


def judge_checksum(facts: MachineFacts) -> Finding:
    """Which instructions the checksum of batches runs on: each byte that is produced passes through it."""
    check = "limits.checksum"
    measured = {"kernel": facts.checksum, "kernels": facts.checksums}
    if facts.checksum == CHECKSUM_TABLE:
        text = f"by table: this processor ({platform.machine()}) shows no instructions for it"
        remedy = "let the virtual machine pass the host's processor features on (SSE 4.2, or ARMv8 CRC)"
        return warning(check, text, remedy, measured=measured)
    return ok(check, f"by {facts.checksum}", measured=measured)


def judge_software(facts: MachineFacts) -> Finding:
    """Versions of what the agent runs on."""
    check = "limits.software"
    sqlite = ".".join(map(str, facts.sqlite))
    text = f"Warp {facts.warp}, {facts.python}, uvloop {facts.uvloop or 'missing'}, SQLite {sqlite}"
    measured = {
        "warp": facts.warp,
        "python": facts.python,
        "uvloop": facts.uvloop,
        "sqlite": sqlite,
        "confluent_kafka": facts.client_library,
    }
    if facts.sqlite < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE[:2]))
        return problem(check, text, f"use a Python whose SQLite is {oldest} or newer", measured=measured)
    if not facts.uvloop:
        return problem(check, text, "install uvloop, which the agent runs on", measured=measured)
    return ok(check, text, measured=measured)
