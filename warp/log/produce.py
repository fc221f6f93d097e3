"""Produce, in two phases: `stage` checks a request's batches and puts them in line; the outcomes follow on their own.

Whoever awaits one `stage` after the other keeps the order of a connection, however long the batches of one request take
to be checked. Small and uncompressed batches are checked on the loop. Large compressed ones go to a thread, which lets
the interpreter lock go for the decompression; as many are decompressed at a time as there are threads, and none may
expand beyond `decompressed_bytes_max`, so memory stays bounded. Batches that change their codec are new bytes, a
thousand times as many perhaps as the client sent: memory for them is set aside before, and they are made one by one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from warp._records import (
    BatchHeader,
    BatchRules,
    InvalidBatch,
    needs_thread,
    parse_header,
    validate_produce,
)
from warp.clock import Clock
from warp.errors import ErrorCode
from warp.log.buffer import Unit, WaitingBatch
from warp.log.flush import Flusher
from warp.log.memory import MemoryBudget
from warp.log.model import Append, AppendOutcome
from warp.log.observer import FlushObserver
from warp.log.recompress import CODEC_AT, CODEC_MASK, CODECS, recompress
from warp.objectstore.base import Buffer

RECOMPRESSED_INLINE_BYTES_MAX = 16 * 1024
"""Larger batches that have to change their codec do so in a thread."""

_TIMEOUT_MAX_MS = 600_000
"""Well below the age beyond which a segment is not committed."""


Checked = tuple[BatchHeader, Buffer] | AppendOutcome
"""A batch ready to be stored, as its header and all its bytes; or why it is refused."""


@dataclass(frozen=True, slots=True)
class ProduceLimits:
    """What checking batches may cost."""

    threads: int = 2
    decompressed_bytes_max: int = 64 * 2**20
    """The most that the records of one compressed batch may hold."""
    recompressed_bytes_max: int = 64 * 2**20
    """What all batches that change their codec may take until they are stored. A larger one waits to be alone."""


class Staged(NamedTuple):
    """A request in line. `outcomes` has one outcome per part, in their order.

    It is cancelled when nobody can know what became of the request: then its connection has to be closed.
    """

    outcomes: asyncio.Future[list[AppendOutcome]]


class ProduceService:
    """Checks batches and hands them to the flusher."""

    def __init__(
        self,
        flusher: Flusher,
        clock: Clock,
        *,
        limits: ProduceLimits | None = None,
        observer: FlushObserver | None = None,
    ) -> None:
        self._flusher = flusher
        self._clock = clock
        self._limits = limits or ProduceLimits()
        self._observer = observer or FlushObserver()
        self._threads = ThreadPoolExecutor(self._limits.threads, thread_name_prefix="warp-validate")
        self._recompressed = MemoryBudget(self._limits.recompressed_bytes_max)
        self.refused_batches = 0

    async def stage(self, appends: Sequence[Append], timeout_ms: int) -> Staged:
        """Check the parts of one Produce request, and put those that pass in line, as one.

        Returns when its place is certain, which takes as long as the agent's buffers are full. A part that fails has
        its error and takes no part. `timeout_ms` counts from now; parts that are not committed by then are answered
        with REQUEST_TIMED_OUT.
        """
        begin = self._clock.monotonic()
        deadline = begin + min(max(timeout_ms, 0), _TIMEOUT_MAX_MS) / 1000
        loop = asyncio.get_running_loop()
        outcomes: list[AppendOutcome | None] = [None] * len(appends)
        room = _Room(self._recompressed, self._recompressed_bytes(appends))
        await room.reserve()
        batches = []
        try:
            for part, checking in enumerate(self._check_all(loop, appends)):
                if isinstance(checking, BatchRules):
                    checked = await self._recompress(loop, appends[part], checking, room)
                else:
                    checked = checking if isinstance(checking, tuple) else await checking
                if isinstance(checked, AppendOutcome):
                    outcomes[part] = checked
                    self.refused_batches += 1
                else:
                    batches.append(WaitingBatch(part, appends[part].target, *checked))
        except BaseException:
            room.release()
            raise
        self._observer.validated(self._clock.monotonic() - begin)
        unit = Unit(batches, outcomes, deadline, loop.create_future(), begin)
        room.release_with(unit.result)
        if batches:
            await self._flusher.add(unit)
        else:
            unit.settle()
        return Staged(unit.result)

    def close(self) -> None:
        """Let go of the threads; batches that they still check are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _check_all(
        self, loop: asyncio.AbstractEventLoop, appends: Sequence[Append]
    ) -> list[Checked | asyncio.Future[Checked] | BatchRules]:
        """Check every part, or have a thread check it; the rules alone for those that change their codec."""
        now_ms = self._clock.time_ms()
        checks: list[Checked | asyncio.Future[Checked] | BatchRules] = []
        made: dict[tuple[int, bool], BatchRules] = {}
        for append in appends:
            kind = (id(append.target.rules), append.allow_zstd)
            rules = made.get(kind)
            if rules is None:
                rules = made[kind] = self._batch_rules(append, now_ms)
            if _changes_codec(append):
                checks.append(rules)
            elif needs_thread(append.records):
                checks.append(
                    loop.run_in_executor(
                        self._threads, check, append, rules, self._limits.decompressed_bytes_max
                    )
                )
            else:
                checks.append(check(append, rules, self._limits.decompressed_bytes_max))
        return checks

    def _recompressed_bytes(self, appends: Sequence[Append]) -> int:
        """The most that a request's batches under other codecs may take: one alone, or several in the bounds of all."""
        largest = [
            min(
                append.target.rules.max_message_bytes,
                self._limits.decompressed_bytes_max + len(append.records),
            )
            for append in appends
            if _changes_codec(append)
        ]
        return max(*largest, min(sum(largest), self._limits.recompressed_bytes_max)) if largest else 0

    async def _recompress(
        self, loop: asyncio.AbstractEventLoop, append: Append, rules: BatchRules, room: _Room
    ) -> Checked:
        """Check a part and bring it under its topic's codec, if there is room for the result."""
        limit = self._limits.decompressed_bytes_max
        # What a topic's own level costs can't be told by the size.
        is_costly = append.target.rules.compression_level is not None
        if is_costly or len(append.records) > RECOMPRESSED_INLINE_BYTES_MAX or needs_thread(append.records):
            checked = await loop.run_in_executor(self._threads, check, append, rules, limit)
        else:
            checked = check(append, rules, limit)
        if isinstance(checked, AppendOutcome) or room.take(len(checked[1])):
            return checked
        return AppendOutcome(
            ErrorCode.MESSAGE_TOO_LARGE,
            message=f"the request's batches take more than {room.reserved_bytes} bytes under their topics' "
            "compression.type: send less at a time",
        )

    def _batch_rules(self, append: Append, now_ms: int) -> BatchRules:
        rules = append.target.rules
        return BatchRules(
            max_message_bytes=rules.max_message_bytes,
            message_timestamp_type=rules.timestamp_type,
            now_ms=now_ms,
            timestamp_before_max_ms=rules.timestamp_before_max_ms,
            timestamp_after_max_ms=rules.timestamp_after_max_ms,
            require_key=rules.is_compacted,
            decompressed_bytes_max=self._limits.decompressed_bytes_max,
            allow_zstd=append.allow_zstd,
        )


class _Room:
    """Memory that is set aside for one request's new bytes, in one go: two that waited for more would wait for ever."""

    def __init__(self, budget: MemoryBudget, reserved_bytes: int) -> None:
        self._budget = budget
        self.reserved_bytes = reserved_bytes
        self._used_bytes = 0

    async def reserve(self) -> None:
        """Wait until it is there."""
        if self.reserved_bytes:
            await self._budget.reserve(self.reserved_bytes)

    def take(self, size_bytes: int) -> bool:
        """Use a part of it; False when there is not so much left."""
        if self._used_bytes + size_bytes > self.reserved_bytes:
            return False
        self._used_bytes += size_bytes
        return True

    def release_with(self, result: asyncio.Future[list[AppendOutcome]]) -> None:
        """Give back what was not used now, and the rest once the request is answered."""
        if self.reserved_bytes:
            self._budget.release(self.reserved_bytes - self._used_bytes)
            self.reserved_bytes = self._used_bytes
            result.add_done_callback(lambda _: self.release())

    def release(self) -> None:
        """Give all of it back."""
        if self.reserved_bytes:
            self._budget.release(self.reserved_bytes)
            self.reserved_bytes = self._used_bytes = 0


def check(append: Append, rules: BatchRules, decompressed_bytes_max: int) -> Checked:
    """One part's batch, ready to be stored, or why it is refused."""
    topic = append.target.rules
    try:
        batch = validate_produce(append.records, rules)
    except InvalidBatch as error:
        return AppendOutcome(
            ErrorCode(error.error_code), message=error.message, record_errors=tuple(error.record_errors)
        )
    header: BatchHeader = batch
    data: Buffer = batch.data
    if topic.compression != "producer":
        codec = CODECS[topic.compression]
        data = recompress(batch, data, codec, decompressed_bytes_max, topic.compression_level)
        header = parse_header(data)
        if header.size_bytes > topic.max_message_bytes:
            return AppendOutcome(
                ErrorCode.MESSAGE_TOO_LARGE,
                message="batch is larger than max.message.bytes under the topic's compression.type",
            )
    if header.size_bytes > topic.segment_bytes:
        return AppendOutcome(
            ErrorCode.RECORD_LIST_TOO_LARGE, message="batch is larger than the topic's segment.bytes"
        )
    return header, data


def _changes_codec(append: Append) -> bool:
    """Whether the batch, if it is one, is stored under another codec than it came with."""
    topic = append.target.rules
    if topic.compression == "producer" or len(append.records) <= CODEC_AT:
        return False
    return memoryview(append.records)[CODEC_AT] & CODEC_MASK != CODECS[topic.compression]
