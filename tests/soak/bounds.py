"""The bounds that hold when the jobs have caught up: how much there may be beside the live data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.soak.places import Facts
from tests.support.process import AgentProcess

MIB = 2**20
MEMORY_MIB_MAX = 350
"""An agent's own memory of about 60 MiB, 64 MiB for jobs, 32 MiB of cache, and what its few clients have sent."""
LEVEL_0_MAX = 64
"""So many are merged however small they are."""
SEGMENTS_MAX = LEVEL_0_MAX + 2 * 32 + 16
"""Of small segments 32 are merged on levels 1 and 2; on the highest lie as many as the data need."""
EXTENTS_PER_LOG_MAX = SEGMENTS_MAX
"""One in each segment, at worst."""
BYTES_FACTOR = 2.5
"""A merged segment is written anew when less than half of it is alive."""
BYTES_EXTRA = 16 * MIB
"""Level 0, which is merged however much of it is dead."""


@dataclass(frozen=True)
class Bounds:
    """What of the facts is out of proportion."""

    facts: Facts

    def broken(self) -> list[str]:
        """A line for each bound that does not hold."""
        facts = self.facts
        bytes_max = int(BYTES_FACTOR * facts.log_bytes) + BYTES_EXTRA
        bounds = {
            "segments that wait to be merged": (facts.level_0_segments, LEVEL_0_MAX),
            "live segments": (facts.live_segments, SEGMENTS_MAX),
            "bytes of live segments": (facts.live_segment_bytes, bytes_max),
            "bytes of objects": (facts.segment_object_bytes, bytes_max),
            "rows of the index": (facts.extents, EXTENTS_PER_LOG_MAX * facts.logs),
            "dead segments past their grace": (facts.old_dead_segments, 0),
            "logs of deleted topics": (facts.deleted_logs, 0),
            "quarantined extents": (facts.quarantined, 0),
            "objects beside those of segments": (
                facts.segment_objects,
                facts.live_segments + facts.dead_segments,
            ),
        }
        return [
            f"{name}: {found:,}, more than {most:,}" for name, (found, most) in bounds.items() if found > most
        ]


def memory_mib(agent: AgentProcess) -> float:
    """Resident memory of an agent, 0 while it does not run."""
    try:
        lines = Path(f"/proc/{agent.pid}/status").read_text().splitlines()
    except (AssertionError, FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))
