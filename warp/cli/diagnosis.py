"""Says in a sentence where the time of a traced request went, and what could be done. Pure: rows in, words out.

Rows are those of /v1/trace/last, and settings its `settings`; docs/operations.md describes both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from warp.units import format_size

PRODUCE_PHASES: Final = ("check", "backlog", "buffer", "seal", "upload", "order", "commit", "answer")
FETCH_PHASES: Final = ("index", "load", "memory")

_BUSY: Final = "the agent was busy with other work: see warp_loop_lag_seconds"


def diagnose_produce(row: Mapping[str, Any], trace: Mapping[str, Any]) -> str:
    """One sentence about a Produce request."""
    phase = max(PRODUCE_PHASES, key=lambda name: row[f"{name}_ms"] or 0.0)
    took = seconds(row[f"{phase}_ms"] or 0.0)
    sentence = {
        "check": f"checking its batches took {took}: large compressed ones wait for threads",
        "backlog": f"waited {took} for room in the buffer: more is produced than the object store takes",
        "seal": f"making its segment took {took}: {_BUSY}",
        "order": f"waited {took} for the commit of an earlier segment",
        "commit": _commit(row, took),
        "answer": f"telling readers of it took {took}: {_BUSY}",
        "buffer": _buffer(row, took, trace["settings"]),
        "upload": _upload(row, took, trace.get("put")),
    }[phase]
    return sentence if row["outcome"] == "NONE" else f"{row['outcome']}; {sentence}"


def diagnose_fetch(row: Mapping[str, Any]) -> str:
    """One sentence about a Fetch request."""
    times = {name: row[f"{name}_ms"] for name in FETCH_PHASES}
    times["other"] = row["total_ms"] - sum(times.values())
    phase = max(times, key=lambda name: times[name])
    took = seconds(times[phase])
    sentence = {
        "index": f"the metadata store took {took} to say where the records are: see warp_metadata_seconds",
        "load": _load(row, took),
        "memory": f"waited {took} for memory to copy the answer into: raise --fetch-memory",
        "other": f"{took} went by beside its waits: {_BUSY}",
    }[phase]
    return sentence if row["outcome"] == "NONE" else f"{row['outcome']}; {sentence}"


def seconds(milliseconds: float) -> str:
    """A time for people: `0.4 ms`, `240 ms`, `1.9 s`."""
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:.1f} s"
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"


def _buffer(row: Mapping[str, Any], took: str, settings: Mapping[str, Any]) -> str:
    interval = seconds(settings["flush_interval_ms"])
    match row["held_by"]:
        case "request_budget":
            return (
                f"waited {took} for the request budget, which grants a PUT per {interval} and per "
                f"{format_size(settings['bytes_per_request'])}: a lower --flush-interval grants more"
            )
        case "flush_in_flight" if settings["requests_are_free"]:
            return f"waited {took} for the flush before it: the object store or the disk is slow"
        case "flush_in_flight":
            return (
                f"waited {took} for the flush before it, with too few bytes for a request of its own: "
                f"a lower --flush-interval ({interval}) bounds that wait"
            )
        case "uploads":
            return (
                f"waited {took} while {settings['uploads_max']} uploads were under way: raise --flush-uploads-max, "
                "unless the uploads themselves are slow"
            )
        case "sealed_segments":
            return (
                f"waited {took} while {settings['sealed_segments_max']} segments or "
                f"{format_size(settings['sealed_bytes_max'])} waited for their commits: an earlier one is slow"
            )
        case _:
            return f"waited {took} in the buffer: {_BUSY}"


def _upload(row: Mapping[str, Any], took: str, put: Mapping[str, Any] | None) -> str:
    sentence = f"the PUT took {took}"
    if row["put_attempts"] > 1:
        sentence = f"the PUTs took {took} in {row['put_attempts']} attempts, the others failed: see the log"
    if row["hedged_after_ms"] is not None:
        end = "which won" if row["is_hedge_won"] else "but the first one won"
        return f"{sentence}, hedged after {seconds(row['hedged_after_ms'])} by a second one, {end}"
    if row["is_hedge_denied"]:
        return f"{sentence}, and no second one was allowed: too many PUTs are slow, so it is the store"
    usual = _usual_p95_ms(row["segment_bytes"], put)
    return sentence if usual is None else f"{sentence}; 95 % of such PUTs take less than {seconds(usual)}"


def _usual_p95_ms(size_bytes: int, put: Mapping[str, Any] | None) -> float | None:
    for known in () if put is None else put["latencies"]:
        if known["size_bytes_max"] is None or size_bytes <= known["size_bytes_max"]:
            return float(known["p95_ms"])
    return None


def _commit(row: Mapping[str, Any], took: str) -> str:
    if row["commit_attempts"] > 1:
        return f"the commit took {took} in {row['commit_attempts']} attempts: see the log for why they failed"
    return f"the commit took {took}: the metadata store or its disk is slow (warp_metadata_seconds)"


def _load(row: Mapping[str, Any], took: str) -> str:
    sentence = f"waited {took} for {row['gets']} GETs of what was not in the cache"
    if row["hedged_gets"]:
        return f"{sentence}, {row['hedged_gets']} of them hedged ({row['hedges_won']} won by the second)"
    return sentence
