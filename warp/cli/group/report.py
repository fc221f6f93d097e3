"""How groups are shown: columns for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from warp.cli.group.facts import Description, Listing, Member, Place, Progress, total_lag, uncommitted_of
from warp.cli.group.reset import Move
from warp.cli.tables import printable, table

NONE = "-"


def list_text(rows: Sequence[Listing]) -> str:
    """A line for each group."""
    return table(("GROUP", "STATE", "TYPE"), [(row.name, row.state, _kind(row)) for row in rows])


def list_json(rows: Sequence[Listing]) -> list[dict[str, Any]]:
    """The same for programs."""
    return [
        {"group": row.name, "state": row.state, "type": row.kind, "simple": row.is_simple} for row in rows
    ]


def description_text(group: Description, rows: tuple[Progress, ...] | None, *, has_members: bool) -> str:
    """A group: what it is in a few lines, then its members, then its offsets (None: not asked for)."""
    parts = [_head(group, rows)]
    if has_members and group.members:
        parts.append(_members_text(group.members))
    if rows:
        parts.append(_offsets_text(rows))
    elif rows is not None:
        parts.append("Nothing is committed.")
    return "\n\n".join(parts)


def description_json(
    group: Description, rows: tuple[Progress, ...] | None, *, has_members: bool
) -> dict[str, Any]:
    """The same for programs; what can't be told is null."""
    told: dict[str, Any] = {
        "group": group.name,
        "state": group.state,
        "type": group.kind,
        "assignor": group.assignor,
        "coordinator": group.coordinator,
        "member_count": len(group.members),
    }
    if has_members:
        told["members"] = [_member_json(member) for member in group.members]
    if rows is not None:
        told["lag"] = total_lag(rows)
        told["uncommitted_partition_count"] = uncommitted_of(rows)
        told["offsets"] = [_progress_json(row) for row in rows]
    return told


def moves_text(moves: Sequence[Move]) -> str:
    """A line for each partition, from its old offset to its new one."""
    lines = [
        (move.place.topic, str(move.place.partition), _number(move.old), "->", str(move.new), move.note)
        for move in moves
    ]
    return table(("TOPIC", "PARTITION", "OLD", "", "NEW", ""), lines)


def moves_json(name: str, moves: Sequence[Move], *, is_executed: bool) -> dict[str, Any]:
    """The same for programs."""
    rows = [
        {
            "topic": move.place.topic,
            "partition": move.place.partition,
            "old": move.old,
            "new": move.new,
            "note": move.note or None,
        }
        for move in moves
    ]
    return {"group": name, "executed": is_executed, "offsets": rows}


def count(number: int, noun: str) -> str:
    """`1 member`, `2 members`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _kind(row: Listing) -> str:
    return f"{row.kind}, never had a member" if row.is_simple else row.kind


def _head(group: Description, rows: tuple[Progress, ...] | None) -> str:
    lag = "" if rows is None else f", lag {total_lag(rows):,}"
    if unknown := uncommitted_of(rows or ()):
        lag += f" without the {count(unknown, 'partition')} of which nothing is committed"
    first = f"group {printable(group.name)}: {group.state}, {count(len(group.members), 'member')}{lag}"
    facts = [("coordinator", group.coordinator), ("assignor", group.assignor), ("type", group.kind)]
    return "\n".join([first, *(f"  {name:<11}  {printable(value)}" for name, value in facts if value)])


def _members_text(members: Sequence[Member]) -> str:
    lines = [
        (
            member.member_id,
            member.client_id or NONE,
            member.host or NONE,
            member.instance_id or NONE,
            _places(member.places) or NONE,
        )
        for member in members
    ]
    return table(("MEMBER", "CLIENT ID", "HOST", "INSTANCE ID", "READS"), lines)


def _places(places: Iterable[Place]) -> str:
    by_topic: dict[str, list[str]] = {}
    for place in places:
        by_topic.setdefault(place.topic, []).append(str(place.partition))
    return " ".join(f"{topic}:{','.join(numbers)}" for topic, numbers in by_topic.items())


def _offsets_text(rows: Sequence[Progress]) -> str:
    lines = [
        (
            row.place.topic,
            str(row.place.partition),
            _number(row.committed),
            "no such partition" if row.end is None else str(row.end),
            _number(row.lag),
            NONE if row.member is None else row.member.member_id,
        )
        for row in rows
    ]
    return table(("TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "MEMBER"), lines)


def _number(number: int | None) -> str:
    return NONE if number is None else str(number)


def _member_json(member: Member) -> dict[str, Any]:
    return {
        "member_id": member.member_id,
        "client_id": member.client_id,
        "host": member.host,
        "instance_id": member.instance_id,
        "assignment": [{"topic": place.topic, "partition": place.partition} for place in member.places],
    }


def _progress_json(row: Progress) -> dict[str, Any]:
    return {
        "topic": row.place.topic,
        "partition": row.place.partition,
        "committed_offset": row.committed,
        "end_offset": row.end,
        "lag": row.lag,
        "member_id": None if row.member is None else row.member.member_id,
    }
