"""What restoring comes to, in words and as JSON: what is recovered, what is lost, and what that means."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from warp.lifecycle.restore_plan import RECENT_MS, Plan

NAMES_MAX: Final = 10

LOST_BY_REBUILD: Final = (
    "Not in the bucket, and so lost: configs of topics and of the cluster, consumer groups and their committed "
    "offsets, ACLs, users, quotas, and which records DeleteRecords or retention had removed (they are back as far as "
    "their segments were still there; topics deleted of late too). Partitions that never held a record are gone."
)
LOST_BY_RESTORE: Final = (
    "What changed since the backup and is not in the bucket is lost: configs, committed offsets (consumers read "
    "again what they have read since), ACLs, users, quotas, deletions of topics and records."
)


def human(plan: Plan, *, epoch: int | None, is_rebuild: bool) -> str:
    """The report. Without an epoch nothing has been changed yet."""
    lines = [*_bucket(plan), *_recovered(plan), *_lost(plan)]
    lines.append(LOST_BY_REBUILD if is_rebuild else LOST_BY_RESTORE)
    if epoch is None:
        lines.append("Nothing was changed. Run it with --yes to do this.")
    else:
        lines.append(
            f"Done: the bucket is in epoch {epoch}. Agents on this database can start; no other can."
        )
    return "\n".join(lines)


def as_json(plan: Plan, *, epoch: int | None) -> dict[str, Any]:
    """The same for programs."""
    bucket = plan.bucket
    return {
        "is_done": epoch is not None,
        "epoch": epoch,
        "bucket": {
            "segments": len(bucket.keys),
            "bytes": bucket.size_bytes,
            "read": len(bucket.segments),
            "damaged": dict(sorted(bucket.damaged.items())),
            "foreign": bucket.foreign,
        },
        **asdict(plan.counts),
    }


def _bucket(plan: Plan) -> list[str]:
    bucket = plan.bucket
    size = f"{_count(len(bucket.keys), 'segment')} of {bucket.size_bytes / 1e6:,.1f} MB"
    lines = [f"The bucket holds {size}; {len(bucket.segments):,} of them unknown to the database."]
    for key, reason in sorted(bucket.damaged.items())[:NAMES_MAX]:
        lines.append(f"  can't be read, and is left where it is: {key}: {reason}")
    if len(bucket.damaged) > NAMES_MAX:
        lines.append(f"  and {len(bucket.damaged) - NAMES_MAX:,} more")
    return lines


def _recovered(plan: Plan) -> list[str]:
    counts = plan.counts
    places = f"{_count(counts.segments, 'segment')}, in {_count(counts.logs, 'partition')}"
    lines = [f"Recovered: {_count(counts.kept, 'offset')}, each as it was, out of {places}."]
    if counts.moved:
        lines.append(
            f"  {_count(counts.moved, 'record')} more came without a receipt of their offsets: they get new ones "
            f"behind all that may have been given out, {counts.reserved:,} offsets on. Consumers that had read some of "
            "them read them again."
        )
    if counts.repeated:
        lines.append(
            f"  {_count(counts.repeated, 'record')} that are there already (merged, or sent twice) were left out."
        )
    if counts.topics_new:
        lines.append(
            f"  Topics made anew, without their configs, to be kept for ever until you set some: "
            f"{_names(counts.topics_new)}."
        )
    for name, own in counts.topics_renamed.items():
        lines.append(
            f"  A topic {name} is now called {own}, for another one has its name: most likely it was deleted."
        )
    if counts.topics_grown:
        lines.append(f"  Topics with more partitions than the database knew: {_names(counts.topics_grown)}.")
    return lines


def _lost(plan: Plan) -> list[str]:
    counts = plan.counts
    lines = []
    if counts.lost:
        lines.append(
            f"Lost: {_count(counts.lost, 'offset')} whose bytes are nowhere; consumers pass over them."
        )
    if counts.extents_gone:
        lines.append(
            f"  {_count(counts.extents_gone, 'extent')} of the database lay in objects that are gone: merged since, or "
            "deleted."
        )
    if counts.started_later:
        lines.append(
            f"  Log starts move on by {_count(counts.started_later, 'offset')} in all, deleted since."
        )
    if counts.logs_without_tail:
        lines.append(
            f"  Of {_count(counts.logs_without_tail, 'partition')} the newest data are gone; their next offsets are a "
            "million on."
        )
    if counts.segments_left:
        minutes = RECENT_MS // 60_000
        lines.append(
            f"  {_count(counts.segments_left, 'segment')} without a receipt, more than {minutes} minutes older than "
            "the newest, were most likely never committed; they are left to the orphan sweep."
        )
    if counts.batches_damaged:
        lines.append(f"  {_count(counts.batches_damaged, 'extent')} could not be read for their producers.")
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _names(names: list[str]) -> str:
    more = f", and {len(names) - NAMES_MAX:,} more" if len(names) > NAMES_MAX else ""
    return ", ".join(sorted(names)[:NAMES_MAX]) + more
