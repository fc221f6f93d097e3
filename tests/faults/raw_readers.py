"""Raw clients that read and look: fetches from anywhere through anybody, ends of logs, committed offsets."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from tests.faults.caller import Caller, Where
from tests.verifier import (
    Committed,
    CommittedOffsets,
    Fetch,
    Fetched,
    Limit,
    Listed,
    ListOffsets,
    OffsetCommit,
    OffsetFetch,
    Partition,
    Recorder,
)
from tests.verifier.adapters import raw
from warp.errors import ErrorCode

FETCHES = 12
"""In a row, each from where the last one ended."""
MAX_WAIT_MS = 300
PARTITION_BYTES = 64 << 10
PLACES_MAX = 3
COMMIT_ATTEMPT_S = 1.0
"""Less than leases live: when they have gone elsewhere, what was sent before may still be on its way."""
LOOKS_MAX = 3
"""Before the next commit, which covers one that has come late."""


class RawReader(Caller):
    """Reads a while from anywhere in some partitions, and begins elsewhere."""

    def __init__(
        self,
        recorder: Recorder,
        name: str,
        agents: Sequence[Where],
        source: random.Random,
        places: Sequence[Partition],
        pause_s: float,
    ) -> None:
        super().__init__(recorder, name, agents, source)
        self._places = list(places)
        self._pause_s = pause_s

    async def run(self, stopping: asyncio.Event) -> None:
        """Until told to stop."""
        while not stopping.is_set():
            places = self.source.sample(self._places, self.source.randint(1, PLACES_MAX))
            limit = self.source.choice(list(Limit))
            positions = await self._ends(places, limit)
            for _ in range(FETCHES):
                if not positions or stopping.is_set():
                    break
                positions = await self._read(positions)
                await self.rest(self._pause_s)
            self.move()
            await self.rest(self._pause_s)
        self.hang_up()

    async def _ends(self, places: Sequence[Partition], limit: Limit) -> dict[Partition, int]:
        answer = await self.ask(
            ListOffsets(places, limit),
            raw.list_offsets(places, limit),
            raw.VERSIONS["list offsets"],
            raw.listed,
        )
        if not isinstance(answer, Listed):
            return {}
        for listed in answer.parts.values():
            self.judge(listed.error_code, "ListOffsets")
        return {place: listed.offset for place, listed in answer.parts.items() if not listed.error_code}

    async def _read(self, positions: dict[Partition, int]) -> dict[Partition, int]:
        """From where to go on."""
        request = raw.fetch(positions, max_wait_ms=MAX_WAIT_MS, partition_max_bytes=PARTITION_BYTES)
        answer = await self.ask(
            Fetch(positions), request, raw.VERSIONS["fetch"],
            lambda response: raw.fetched(self.recorder, positions, response),
        )  # fmt: skip
        if not isinstance(answer, Fetched):
            return {}
        found = {}
        for place, part in answer.parts.items():
            # What retention and DeleteRecords have taken meanwhile is out of range.
            if part.error_code != ErrorCode.OFFSET_OUT_OF_RANGE:
                self.judge(part.error_code, f"Fetch of {place}")
            if not part.error_code:
                found[place] = max(part.next_offset, positions[place])
        self.score.done += 1
        return found


class Committer(Caller):
    """Commits ever higher offsets for a group that has no members; any agent is asked for them."""

    def __init__(
        self,
        recorder: Recorder,
        name: str,
        agents: Sequence[Where],
        source: random.Random,
        places: Sequence[Partition],
        pause_s: float,
    ) -> None:
        super().__init__(recorder, name, agents, source)
        self.group = name
        self._places = list(places)
        self._pause_s = pause_s
        self._watch = Caller(recorder, f"watch of {name}", agents, source)

    async def run(self, stopping: asyncio.Event) -> None:
        """Until told to stop; what was begun is finished."""
        offset, is_found = 0, False
        while not stopping.is_set():
            is_found = is_found or await self.go_to_coordinator(self.group, stopping)
            is_found = is_found and await self._commit(offset + 1)
            if is_found:
                offset += 1
                self.score.done += 1
            await self.rest(self._pause_s)
            for _ in range(self.source.randint(1, LOOKS_MAX)):
                await self._look()
        self.hang_up()
        self._watch.hang_up()

    async def _commit(self, offset: int) -> bool:
        offsets = dict.fromkeys(self._places, offset)
        answer = await self.ask(
            OffsetCommit(self.group, offsets),
            raw.offset_commit(self.group, offsets),
            raw.VERSIONS["offset commit"],
            raw.committed,
            COMMIT_ATTEMPT_S,
        )
        if not isinstance(answer, Committed):
            return False
        errors = set(answer.parts.values()) - {0}
        for error in sorted(errors):
            self.judge(error, f"the commit of {offset}")
        return not errors

    async def _look(self) -> None:
        self._watch.move()
        answer = await self._watch.ask(
            OffsetFetch(self.group, self._places),
            raw.offset_fetch(self.group, self._places),
            raw.VERSIONS["offset fetch"],
            raw.committed_offsets,
        )
        if not isinstance(answer, CommittedOffsets):
            self.judge(answer or 0, "a look at offsets")  # type: ignore[arg-type]  # else it is an error
