"""The object store: whether it can be used, what it can do, and what its speed means for producers and consumers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from warp.cli.doctor.facts import LARGE_BYTES, PlaceFacts, StoreFacts, Timing
from warp.cli.doctor.finding import Finding, note, ok, problem, warning
from warp.cli.doctor.judge.place import judge_file_system, judge_space
from warp.cli.doctor.latency import Latency, time_words

JITTER_RATIO: Final = 10.0
JITTER_FLOOR_S: Final = 0.25
"""A tail is a finding when p99 is above both: this, and so many times the median."""


class _Limits(NamedTuple):
    """Medians above these are slow."""

    small_s: float
    large_s: float


_DIRECTORY: Final = _Limits(0.030, 0.150)
_REMOTE: Final = _Limits(0.150, 0.600)
_SEE: Final = "docs/object-storage.md explains what the store says, and what to do"
_NAMES: Final = ("put-small", "put-large", "get-small", "get-large")


def judge_object_store(
    facts: StoreFacts, commit: Latency | None, flush_uploads_max: int
) -> Iterator[Finding]:
    """Findings on the store; `commit` is that of the metadata, which a Produce waits for as well."""
    if facts.refusal:
        # Stores say what to do after what is wrong.
        reason, _, remedy = facts.refusal.partition("; ")
        yield problem("object-store.open", reason, remedy or _SEE)
        return
    if facts.url.startswith("mem:"):
        yield note("object-store.open", "in the memory of the agent: all records are gone when it stops")
        return
    yield ok("object-store.open", f"{facts.url} can be written, read and deleted from")
    yield _judge_check(facts)
    yield _judge_abilities(facts)
    timings = (facts.put_small, facts.put_large, facts.get_small, facts.get_large)
    for name, timing in zip(_NAMES, timings, strict=True):
        if timing is not None:
            yield _judge_timing(f"object-store.{name}", timing, facts)
    yield from _judge_produce(facts, commit, flush_uploads_max)
    if facts.left_behind:
        yield warning(
            "object-store.open",
            f"the probe objects could not be removed: {facts.left_behind}",
            "allow this user to delete objects, and remove those below probe/ by hand",
            subject="(deleting)",
        )


def _judge_check(facts: StoreFacts) -> Finding:
    """The agent can start, but does it count as ready?"""
    check = "object-store.check"
    if not facts.check_refusal:
        return ok(check, "/v1/ready can ask it")
    remedy = "see the reason"
    if not facts.is_directory:
        remedy = (
            "allow s3:ListBucket on the bucket itself, under no condition that needs a prefix (s3:prefix)"
        )
    return problem(check, f"/v1/ready would always be 503: {facts.check_refusal}", remedy)


def _judge_abilities(facts: StoreFacts) -> Finding:
    check = "object-store.abilities"
    measured = {"conditional_create": facts.conditional_create, "checks_content": facts.checks_content}
    words = {"conditional create": facts.conditional_create, "content check": facts.checks_content}
    text = ", ".join(f"{name}: {'yes' if is_able else 'no'}" for name, is_able in words.items())
    if not facts.conditional_create:
        return warning(
            check,
            f"{text}; of two agents that create the same object, both would believe to be first",
            "use a store that honours If-None-Match: * on PUT, or give each cluster a bucket or prefix of its own",
            measured=measured,
        )
    if not facts.checks_content and not facts.is_directory:
        return note(check, f"{text}; damage on the way is found when records are read", measured=measured)
    return ok(check, text, measured=measured)


def _judge_timing(check: str, timing: Timing, facts: StoreFacts) -> Finding:
    latency = timing.latency
    measured: dict[str, float | str] = {"failures": timing.failures}
    if latency is None:
        failure = timing.failure or "there was nothing to read"
        return problem(check, f"failed: {failure}", _SEE, measured=measured)
    measured |= latency.measured()
    text = latency.words()
    if timing.failures:
        return problem(
            check,
            f"{timing.failures} failed ({timing.failure}); the others {text}",
            "find out why requests fail before clients do: producers wait while the agent tries again",
            measured=measured,
        )
    limits = _DIRECTORY if facts.is_directory else _REMOTE
    limit_s = limits.large_s if check.endswith("large") else limits.small_s
    if latency.p50_s > limit_s:
        return warning(check, f"{text}: slow", _slow_remedy(facts), measured=measured)
    if latency.p99_s > max(JITTER_FLOOR_S, JITTER_RATIO * latency.p50_s):
        return warning(check, f"{text}: uneven", _uneven_remedy(facts), measured=measured)
    return ok(check, text, measured=measured)


def _slow_remedy(facts: StoreFacts) -> str:
    if facts.is_directory:
        return (
            "put the object directory on a faster local disk (SSD); see that nothing else keeps this one busy"
        )
    return (
        "run the agent in the region of the bucket, through a VPC endpoint rather than a NAT gateway or proxy"
    )


def _uneven_remedy(facts: StoreFacts) -> str:
    if facts.is_directory:
        return (
            "see what else keeps this disk busy, and whether it is throttled (burst credits of cloud volumes)"
        )
    return (
        "see whether the store answers SlowDown (warp_object_store_errors_total), and what the network drops"
    )


def _judge_produce(facts: StoreFacts, commit: Latency | None, flush_uploads_max: int) -> Iterator[Finding]:
    """What a producer that waits for each answer will wait: one PUT and one commit; and what uploads can carry."""
    small = facts.put_small.latency if facts.put_small is not None else None
    large = facts.put_large.latency if facts.put_large is not None else None
    if small is None or large is None or commit is None:
        return
    p50_s, p99_s = small.p50_s + commit.p50_s, small.p99_s + commit.p99_s
    carried = LARGE_BYTES / large.p50_s
    text = (
        f"a lone producer is answered after about {time_words(p50_s)} (p50) to {time_words(p99_s)} (p99); "
        f"one upload at a time carries {carried / 1e6:.3g} MB/s, and up to {flush_uploads_max} run at once"
    )
    yield note(
        "object-store.produce",
        text,
        measured={
            "p50_ms": round(p50_s * 1000, 3),
            "p99_ms": round(p99_s * 1000, 3),
            "upload_bytes_per_s": round(carried),
        },
    )


def judge_object_directory(place: PlaceFacts, reserve_bytes: int) -> Iterator[Finding]:
    """The disk under a `file://` store."""
    yield from judge_file_system("object-store.file-system", place)
    yield from judge_space("object-store.space", place, reserve_bytes)
