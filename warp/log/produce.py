"""Produce, in two phases: `stage` checks a request's batches and puts them in line; the outcomes follow on their own.

Whoever awaits one `stage` after the other keeps the order of a connection, however long the batches of one request take
to be checked. Small and uncompressed batches are checked on the loop. Large compressed ones go to a thread, which lets
the interpreter lock go for the decompression; as many are decompressed at a time as there are threads, and none may
expand beyond `decompressed_bytes_max`, so memory stays bounded.
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
from warp.log.model import Append, AppendOutcome
from warp.log.observer import FlushObserver
from warp.log.recompress import CODECS, recompress
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
        batches = []
        for part, checking in enumerate(self._check_all(loop, appends)):
            checked = checking if isinstance(checking, tuple) else await checking
            if isinstance(checked, AppendOutcome):
                outcomes[part] = checked
                self.refused_batches += 1
            else:
                batches.append(WaitingBatch(part, appends[part].target, *checked))
        self._observer.validated(self._clock.monotonic() - begin)
        unit = Unit(batches, outcomes, deadline, loop.create_future())
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
    ) -> list[Checked | asyncio.Future[Checked]]:
        """Check every part, or have a thread check it."""
        now_ms = self._clock.time_ms()
        checks: list[Checked | asyncio.Future[Checked]] = []
        made: dict[tuple[int, bool], BatchRules] = {}
        for append in appends:
            kind = (id(append.target.rules), append.allow_zstd)
            rules = made.get(kind)
            if rules is None:
                rules = made[kind] = self._batch_rules(append, now_ms)
            if _needs_thread(append):
                checks.append(
                    loop.run_in_executor(
                        self._threads, check, append, rules, self._limits.decompressed_bytes_max
                    )
                )
            else:
                checks.append(check(append, rules, self._limits.decompressed_bytes_max))
        return checks

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
        data = recompress(batch, data, CODECS[topic.compression], decompressed_bytes_max)
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


def _needs_thread(append: Append) -> bool:
    changes_codec = append.target.rules.compression != "producer"
    if changes_codec and len(append.records) > RECOMPRESSED_INLINE_BYTES_MAX:
        return True
    return needs_thread(append.records)
