"""How a report of fsck is shown to people."""

from __future__ import annotations

from warp.cli.tables import printable
from warp.lifecycle.fsck_report import Kind, Report
from warp.units import approximate_size

NOTES_SHOWN = 20
WAITING = (
    "live segments without extents",
    "quarantined extents",
    "extents of deleted topics",
    "committed offsets to be removed",
    "objects of gone segments",
)
"""What jobs will see to; shown where there is any."""


def human(report: Report, *, repairs: bool) -> str:
    """Findings a line each, then notes, what was or would be repaired, and counts. `repairs`: --repair was given."""
    lines = [printable(finding.line) for finding in report.findings]
    hidden = report.found.total() - len(report.findings)
    if hidden:
        lines.append(f"... and {hidden} more")
    if lines:
        lines.append("")
    lines += [f"note: {printable(note)}" for note in report.notes[:NOTES_SHOWN]]
    for repair in report.repairs:
        done = "repaired" if repair in report.repaired else "right by now"
        lines.append(f"{done}: {repair.describe()}" if repairs else f"--repair would {repair.describe()}")
    return "\n".join([*lines, *counts(report), verdict(report)])


def counts(report: Report) -> list[str]:
    """What was looked at, in a few lines."""
    found = report.counts
    levels = [
        f"{found[name]} of {name.removeprefix('live segments, ')}"
        for name in sorted(found)
        if name.startswith("live segments, ")
    ]
    rows = (
        f"{found['topics']} topics, {found['logs']} logs, {found['extents']} extents, {found['producers']} producers, "
        f"{found['committed offsets']} committed offsets"
    )
    segments = (
        f"{found['live segments']} live segments ({', '.join(levels) or 'none'}), "
        f"{approximate_size(found['live bytes'])}; {found['dead segments']} dead, {found['gone segments']} gone"
    )
    objects = (
        f"{found['objects']} objects, {approximate_size(found['object bytes'])}: {found['receipts']} receipts, "
        f"{found['epochs']} epochs, {found['dead objects']} dead, {found['unknown objects, young']} young and unknown, "
        f"{found['orphans']} orphans ({approximate_size(found['orphan bytes'])}), {found['foreign objects']} foreign"
    )
    waiting = [f"{found[name]} {name}" for name in WAITING if found[name]]
    return [rows, segments, objects, *([", ".join(waiting)] if waiting else [])]


def verdict(report: Report) -> str:
    """The last line."""
    if report.is_clean:
        return "clean"
    total = report.found.total()
    by_kind = ", ".join(f"{number} {kind}" for kind, number in sorted(report.found.items()))
    said = f"{total} finding{'' if total == 1 else 's'}: {by_kind}"
    if report.found[Kind.UNREAD]:
        said += "; not everything could be looked at"
    return said + ("; all repaired" if report.is_repaired else "")
