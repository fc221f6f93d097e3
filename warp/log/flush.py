"""The write path behind one door: requests go in, and come out stored, committed and answered.

    stage -> open buffer -> seal -> PUT (several at once) -> commit (in seal order) -> tell the readers -> answer

What holds everywhere here:
* Segments commit strictly in the order of their seals, whatever the order in which their PUTs end.
* A request that has timed out is answered at once. It takes part in no commit that has not begun, so the answer of one
  whose batches may still be committed is REQUEST_TIMED_OUT or a closed connection, never another error.
* When a segment fails, the waiting requests with batches of the same producers and logs fail too: none overtakes.
* Sealed segments are bounded in number and bytes; beyond that the buffer fills, and then whoever stages waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from warp.clock import Clock
from warp.errors import ErrorCode, ObjectStoreError
from warp.ids import IdSource
from warp.log.buffer import (
    NEVER,
    OpenBuffer,
    ProducerOfLog,
    Unit,
    fail_followers,
    late_units,
    time_out,
    time_out_in_order,
)
from warp.log.committer import CommitFailure, CommitLimits, CommitStore, Committer
from warp.log.hedge import HedgeLimits
from warp.log.observer import FlushObserver
from warp.log.pacing import Decision, Hold, Pacer, PacingLimits
from warp.log.race import HedgedRequests
from warp.log.receipts import ReceiptsWriter
from warp.log.sealed import SealedSegment
from warp.log.tasks import Tasks
from warp.log.trace import RequestTrace
from warp.log.upload import Uploader, UploadLimits
from warp.metadata.model import CommitResult
from warp.objectstore.base import ObjectStore

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FlushLimits:
    """The bounds of the write path."""

    pacing: PacingLimits = field(default_factory=PacingLimits)
    upload: UploadLimits = field(default_factory=UploadLimits)
    hedge: HedgeLimits = field(default_factory=HedgeLimits)
    commit: CommitLimits = field(default_factory=CommitLimits)
    uploads_max: int = 8
    """Segments that are uploaded at a time; some of them may be hedged besides."""
    sealed_segments_max: int = 16
    """Segments between seal and answer: one slow PUT must not stop those behind it too soon."""
    sealed_bytes_max: int = 64 * 2**20
    """No segment is sealed while those before it hold as much; so there may be one more than this."""
    receipts_idle_s: float = 10.0
    """Receipts that no PUT has taken along for so long are written alone."""


class Flusher:
    """Owns the open buffer and every segment on its way to the answer. One per agent, on one loop."""

    def __init__(
        self,
        store: ObjectStore,
        metadata: CommitStore,
        clock: Clock,
        ids: IdSource,
        *,
        limits: FlushLimits | None = None,
        observers: Iterable[FlushObserver] = (),
        trace: RequestTrace | None = None,
    ) -> None:
        self._limits = limits or FlushLimits()
        self._clock = clock
        self._ids = ids
        self._observers = tuple(observers)
        self._pacer = Pacer(
            self._limits.pacing, requests_are_free=store.requests_are_free, now=clock.monotonic()
        )
        self.trace = trace or RequestTrace(clock)
        self._uploader = Uploader(
            store,
            ids,
            self._limits.upload,
            hedges=None if store.requests_are_free else HedgedRequests(clock, self._limits.hedge),
            may_spend=lambda: self._pacer.try_spend(clock.monotonic()),
        )
        self._committer = Committer(metadata, clock, self._limits.commit, self._committed, self._fail)
        self._buffer = OpenBuffer()
        self._backlog: deque[tuple[Unit, asyncio.Future[None]]] = deque()
        self._backlog_bytes = 0
        self._sealed: dict[int, SealedSegment] = {}
        self._sealed_bytes = 0
        self._sealed_count = 0
        self._uploads = 0
        self._committing: Sequence[SealedSegment] = ()
        self._tasks = Tasks(self._tell_if_idle)
        self._receipts = ReceiptsWriter(
            self._uploader,
            clock,
            ids,
            self._tasks,
            idle_s=self._limits.receipts_idle_s,
            is_quiet=lambda: not self._sealed,
            spend=lambda: self._pacer.spend(clock.monotonic()),
        )
        self._pump_is_due = False
        self._held_by: Hold | None = None
        self._flush_timer: asyncio.TimerHandle | None = None
        self._deadline_timer: asyncio.TimerHandle | None = None
        self._deadline_due = NEVER
        self._idle: asyncio.Future[None] | None = None
        self._is_closing = False
        self.committed_bytes = 0
        """Bytes of batches that were given offsets."""
        self.committed_batches = 0
        self.committed_segments = 0
        self.failed_segments = 0
        self.timed_out_requests = 0

    @property
    def waiting_bytes(self) -> int:
        """Bytes that are not sealed yet."""
        return self._buffer.size_bytes + self._backlog_bytes

    @property
    def sealed_bytes(self) -> int:
        """Bytes of the segments between seal and answer."""
        return self._sealed_bytes

    @property
    def failed_puts(self) -> int:
        """PUTs that failed, also those that were made good."""
        return self._uploader.failed_puts

    @property
    def put_hedges(self) -> HedgedRequests | None:
        """The second PUTs of slow ones; None where requests are free."""
        return self._uploader.hedges

    @property
    def failed_commits(self) -> int:
        """Commits that failed, also those that were made good."""
        return self._committer.failed_commits

    async def add(self, unit: Unit) -> None:
        """Take a request in, in order of the calls; waits while the bounds are reached.

        Cancelled while it waits, the request is forgotten. Returns also when the request timed out meanwhile.
        """
        if self._is_closing:
            unit.fail(ErrorCode.NOT_LEADER_OR_FOLLOWER, "this agent is shutting down")
            return
        self._watch_deadline(unit.deadline)
        unit.staged_at = self._clock.monotonic()
        if not self._backlog and self._fits(unit):
            self._buffer.add(unit, unit.staged_at)
            self._schedule_pump()
            return
        entered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._backlog.append((unit, entered))
        self._backlog_bytes += unit.size_bytes
        self._pump()
        try:
            await entered
        except asyncio.CancelledError:
            unit.abandon()
            self._clean_waiting()
            raise

    async def drain(self, timeout_s: float) -> bool:
        """Take nothing more in, and finish what is there; then write the last receipts.

        False when that was not done within `timeout_s`.
        """
        self._is_closing = True
        self._receipts.stop()
        self._pump()
        try:
            async with asyncio.timeout(timeout_s):
                while not self._is_idle:
                    self._idle = asyncio.get_running_loop().create_future()
                    await self._idle
                if self._receipts.pending:
                    await self._receipts.write()
        except TimeoutError:
            _log.error(
                "not finished after %g s: %d segments, %d bytes not sealed",
                timeout_s,
                len(self._sealed),
                self.waiting_bytes,
            )
            return False
        return True

    async def close(self) -> None:
        """Stop at once. Requests that may have been committed are abandoned, the others are answered with an error."""
        self._is_closing = True
        self._receipts.stop()
        for timer in (self._flush_timer, self._deadline_timer):
            if timer is not None:
                timer.cancel()
        await self._tasks.close()
        await self._uploader.close()
        for segment in self._sealed.values():
            if segment.may_be_committed:
                for unit in segment.units:
                    unit.abandon()
        for unit in self._waiting_units(after=-1):
            unit.fail(ErrorCode.NOT_LEADER_OR_FOLLOWER, "this agent is shutting down")
        self._clean_waiting()
        self._sealed.clear()
        self._sealed_bytes = 0

    # Sealing

    def _fits(self, unit: Unit) -> bool:
        together = self._buffer.size_bytes + unit.size_bytes
        return not self._buffer.units or together <= self._limits.pacing.flush_bytes

    def _full(self) -> Hold | None:
        """Which bound keeps a segment from being sealed, if one does."""
        if self._uploads >= self._limits.uploads_max:
            return Hold.UPLOADS
        if (
            len(self._sealed) < self._limits.sealed_segments_max
            and self._sealed_bytes < self._limits.sealed_bytes_max
        ):
            return None
        return Hold.SEALED_SEGMENTS

    def _schedule_pump(self) -> None:
        """Decide about a flush after everything that this turn of the loop brings has come in."""
        if not self._pump_is_due:
            self._pump_is_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        """Seal what is to be sealed now, let the backlog in, and set a timer for the next decision."""
        self._pump_is_due = False
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        # Room comes from sealing, but also from requests in the buffer that have timed out.
        self._admit(self._clock.monotonic())
        while self._buffer.units:
            now = self._clock.monotonic()
            due, held_by = self._decide(now)
            self._held_by = held_by or self._held_by
            if due is None:
                break
            if due > now:
                self._flush_timer = asyncio.get_running_loop().call_later(due - now, self._pump)
                break
            self._seal(now)
            self._admit(now)
        self._tell_if_idle()

    def _decide(self, now: float) -> Decision:
        full = self._full()
        if full is not None:
            return Decision(None, full)
        if self._is_closing:
            return Decision(now)
        return self._pacer.decide(
            now,
            waiting_bytes=self.waiting_bytes,
            waiting_since=self._buffer.since,
            in_flight=len(self._sealed),
        )

    def _admit(self, now: float) -> None:
        """Move requests from the backlog into the buffer, in order, as far as they fit."""
        while self._backlog and self._fits(self._backlog[0][0]):
            unit, entered = self._backlog.popleft()
            self._backlog_bytes -= unit.size_bytes
            self._buffer.add(unit, now)
            if not entered.done():
                entered.set_result(None)

    def _seal(self, now: float) -> None:
        since = self._buffer.since
        segment = SealedSegment(
            self._sealed_count,
            self._buffer.take(),
            self._receipts.pending.take(),
            created_ms=self._clock.time_ms(),
            sealed_at=now,
            sealed_boottime=self._clock.boottime(),
            held_by=self._held_by,
        )
        self._held_by = None
        segment.built_at = self._clock.monotonic()
        self._pacer.spend(now, segment.size_bytes)
        self._sealed_count += 1
        self._sealed[segment.number] = segment
        self._sealed_bytes += segment.size_bytes
        self._uploads += 1
        self._tasks.start(self._upload(segment))
        for observer in self._observers:
            observer.sealed(segment.size_bytes)
            observer.phase_done("wait", now - since)
            observer.phase_done("seal", segment.built_at - now)

    # Uploading

    async def _upload(self, segment: SealedSegment) -> None:
        try:
            segment.key = await self._uploader.upload(
                segment.image, lambda: segment.is_wanted, segment.upload_note
            )
        except ObjectStoreError as error:
            self._fail(segment, CommitFailure(ErrorCode.KAFKA_STORAGE_ERROR, f"not stored: {error}"), "put")
        except Exception:  # noqa: BLE001 - a bug, ours or the store's: logged, counted, answered
            _log.exception("storing a segment failed unexpectedly")
            self._fail(segment, CommitFailure(ErrorCode.UNKNOWN_SERVER_ERROR, "not stored"), "put")
        else:
            segment.uploaded_at = self._receipts.last_put_at = self._clock.monotonic()
            for observer in self._observers:
                observer.phase_done("put", segment.uploaded_at - segment.sealed_at)
        finally:
            self._uploads -= 1
        if self._sealed and not self._committing:
            self._committing = self._ready()
            if self._committing:
                self._tasks.start(self._commit())
        self._schedule_pump()

    # Committing

    def _ready(self) -> list[SealedSegment]:
        """The segments that may be committed next: uploaded, and nothing before them that is not."""
        ready = []
        for segment in self._sealed.values():
            if segment.key is None:
                break
            ready.append(segment)
        return ready

    async def _commit(self) -> None:
        while self._committing:
            begin = self._clock.monotonic()
            for segment in self._committing:
                segment.commit_began_at = begin
                assert segment.uploaded_at is not None, "a segment is committed after it was uploaded"
                for observer in self._observers:
                    observer.phase_done("order", begin - segment.uploaded_at)
            try:
                await self._committer.commit(self._committing)
            except Exception:  # noqa: BLE001 - a bug: logged, counted, and its connections are closed
                _log.exception("a commit was not followed up as it should")
                self._give_up(self._committing)
            for observer in self._observers:
                observer.phase_done("commit", self._clock.monotonic() - begin)
            self._committing = self._ready()
            self._pump()

    def _committed(self, segments: Sequence[SealedSegment], result: CommitResult) -> None:
        """Tell the readers, then answer."""
        committed_at = self._clock.monotonic()
        images = {segment.key or "": segment.image for segment in segments}
        for observer in self._observers:
            observer.committed(result, images)
        for place, segment in enumerate(segments):
            refused = result.refused.get(place)
            if refused is not None:
                self._fail(segment, CommitFailure(refused.error, refused.message))
                continue
            waiting = segment.waiting_units
            self._receipts.pending.add(segment.acknowledge(result.outcomes[place]))
            self.trace.produced(waiting, segment, committed_at=committed_at)
            self.committed_segments += 1
            self.committed_bytes += segment.accepted_bytes
            self.committed_batches += segment.accepted_batches
            self._remove(segment)
        self._receipts.watch()

    # Failing

    def _fail(self, segment: SealedSegment, failure: CommitFailure, phase: str = "commit") -> None:
        """Answer a segment's requests with its failure, and so the later requests of the same producers and logs."""
        self.failed_segments += 1
        self._receipts.pending.put_back(segment.receipts)
        producers: set[ProducerOfLog] = set()
        waiting = segment.waiting_units
        for unit in segment.units:
            producers.update(unit.producers)
            if failure.is_unknown:
                unit.abandon()
            else:
                unit.fail(failure.error, failure.message)
        self.trace.produced(waiting, segment)
        self._remove(segment)
        if producers:
            error = ErrorCode.KAFKA_STORAGE_ERROR if failure.is_unknown else failure.error
            fail_followers(producers, list(self._waiting_units(after=segment.number)), error)
            self._clean_waiting()
        for observer in self._observers:
            observer.phase_failed(phase)

    def _give_up(self, segments: Sequence[SealedSegment]) -> None:
        """A bug has left these segments behind, perhaps committed: nobody can be told more, and others go on."""
        failure = CommitFailure(ErrorCode.UNKNOWN_SERVER_ERROR, "internal error", is_unknown=True)
        for segment in segments:
            if segment.number in self._sealed:
                segment.is_unknown = True
                self._fail(segment, failure, "commit")

    def _remove(self, segment: SealedSegment) -> None:
        del self._sealed[segment.number]
        now = self._clock.monotonic()
        self._pacer.finished(now, now - segment.sealed_at)
        self._sealed_bytes -= segment.size_bytes

    def _waiting_units(self, after: int) -> Iterator[Unit]:
        """Requests whose commit has certainly not begun, in order, from the segment after `after` on."""
        for number, segment in self._sealed.items():
            if number > after and not segment.may_be_committed:
                yield from segment.units
        yield from self._unsealed_units()

    def _unsealed_units(self) -> Iterator[Unit]:
        yield from self._buffer.units
        for unit, _ in self._backlog:
            yield unit

    def _clean_waiting(self) -> None:
        """Let go of requests that were answered before they were sealed."""
        self._buffer.drop_settled()
        waiting = self._backlog
        self._backlog = deque()
        self._backlog_bytes = 0
        for unit, entered in waiting:
            if not unit.is_settled:
                self._backlog.append((unit, entered))
                self._backlog_bytes += unit.size_bytes
            elif not entered.done():
                entered.set_result(None)
        self._schedule_pump()

    # Deadlines

    def _watch_deadline(self, deadline: float) -> None:
        """See to it that somebody looks when `deadline` has come. One timer serves all requests."""
        if deadline >= self._deadline_due:
            return
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
        self._deadline_due = deadline
        delay_s = max(0.0, deadline - self._clock.monotonic())
        self._deadline_timer = asyncio.get_running_loop().call_later(delay_s, self._expire)

    def _expire(self) -> None:
        """Answer the requests whose time is over."""
        now = self._clock.monotonic()
        self._deadline_timer = None
        self._deadline_due = NEVER
        late: list[tuple[SealedSegment | None, list[Unit]]] = [
            (segment, late_units(segment.units, now)) for segment in self._sealed.values()
        ]
        late.append((None, late_units(self._unsealed_units(), now)))
        timed_out = time_out_in_order(list(self._waiting_units(after=-1)), now)
        if timed_out:
            self._clean_waiting()
        next_deadline = min(
            (unit.deadline for unit, _ in self._backlog), default=self._buffer.earliest_deadline
        )
        for segment in self._sealed.values():
            if segment.earliest_deadline <= now:
                timed_out += time_out(segment.units, now)
                waiting = (unit.deadline for unit in segment.units if not unit.is_settled)
                segment.earliest_deadline = min(waiting, default=NEVER)
            next_deadline = min(next_deadline, segment.earliest_deadline)
        for place, units in late:
            self.trace.produced(units, place, held_by=self._held_by)
        self.timed_out_requests += timed_out
        self._watch_deadline(min(next_deadline, self._buffer.earliest_deadline))

    # Coming to rest

    @property
    def _is_idle(self) -> bool:
        return not (self._sealed or self._buffer.units or self._backlog or self._tasks)

    def _tell_if_idle(self) -> None:
        if self._idle is not None and self._is_idle:
            if not self._idle.done():
                self._idle.set_result(None)
            self._idle = None
