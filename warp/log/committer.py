"""Commits uploaded segments in the order that they are given, until the fate of each is known.

Several that are ready go into one metadata transaction. When that fails, each is tried alone, so that one that can't be
committed does not take the others with it. An attempt whose outcome is unknown is repeated under the same key until the
store says what became of it; an attempt that changed nothing is repeated while somebody waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from warp.clock import Clock
from warp.errors import ErrorCode, MetadataError, MetadataUnavailable, OutcomeUnknown
from warp.log.sealed import SealedSegment
from warp.metadata.model import CommitResult, SegmentCommit

_log = logging.getLogger(__name__)


class CommitStore(Protocol):
    """The part of the metadata store that the write path needs."""

    async def commit(self, segments: Sequence[SegmentCommit], now_ms: int) -> CommitResult:
        """Give the batches of segments their offsets, in one transaction, once per key."""


@dataclass(frozen=True, slots=True)
class CommitLimits:
    """How long a commit is tried."""

    segment_age_max_s: float = 900.0
    """By boot time since the seal: an older segment is never committed, because its object may be swept."""
    retry_delay_s: float = 0.02
    """After the first failure; doubled up to the longest."""
    retry_delay_max_s: float = 1.0
    bug_attempts_max: int = 3
    """How often a segment is tried whose commit fails in a way that nobody expects."""


@dataclass(frozen=True, slots=True)
class CommitFailure:
    """Why a segment was not committed. `is_unknown`: it may have been after all, so no error may be answered."""

    error: ErrorCode
    message: str
    is_unknown: bool = False


class Committer:
    """Runs commit transactions, one at a time.

    Each segment is told of once: by `on_committed(segments, result)`, also when the store refused it as a whole
    (`result.refused`), or by `on_failed(segment, failure)`.
    """

    def __init__(
        self,
        metadata: CommitStore,
        clock: Clock,
        limits: CommitLimits,
        on_committed: Callable[[Sequence[SealedSegment], CommitResult], None],
        on_failed: Callable[[SealedSegment, CommitFailure], None],
    ) -> None:
        self._metadata = metadata
        self._clock = clock
        self._limits = limits
        self._on_committed = on_committed
        self._on_failed = on_failed
        self._is_away = False
        self.failed_commits = 0
        """Attempts that failed, also those that a later one made good."""

    async def commit(self, segments: Sequence[SealedSegment]) -> None:
        """Commit segments, which are uploaded, in their order; returns when the fate of each is known."""
        wanted = [segment for segment in segments if not self._refuse(segment)]
        if len(wanted) > 1 and await self._commit_together(wanted):
            return
        for segment in wanted:
            await self._commit_alone(segment)

    async def _commit_together(self, segments: Sequence[SealedSegment]) -> bool:
        """One attempt for all; False: it failed, and each has to be tried alone."""
        try:
            result = await self._attempt(segments)
        except OutcomeUnknown:
            for segment in segments:
                segment.is_unknown = True
            return False
        except Exception:  # noqa: BLE001 - told by _attempt; tried again one by one, where it counts
            for segment in segments:
                segment.forget_commit()
            return False
        self._on_committed(segments, result)
        return True

    async def _commit_alone(self, segment: SealedSegment) -> None:
        delay_s = self._limits.retry_delay_s
        bugs = 0
        while not self._refuse(segment):
            try:
                result = await self._attempt([segment])
            except OutcomeUnknown:
                segment.is_unknown = True
            except MetadataUnavailable:
                # Says nothing about an earlier attempt of unknown outcome.
                if not segment.is_unknown:
                    segment.forget_commit()
            except Exception as error:  # noqa: BLE001 - told by _attempt; answered when it stays
                bugs += 1
                if bugs == self._limits.bug_attempts_max:
                    self._on_failed(segment, _failure(error, segment))
                    return
            else:
                self._on_committed([segment], result)
                return
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, self._limits.retry_delay_max_s)

    async def _attempt(self, segments: Sequence[SealedSegment]) -> CommitResult:
        """One transaction. What it raises has been logged and counted."""
        commits = [segment.commit() for segment in segments]
        for segment in segments:
            segment.is_committing = True
            segment.commit_attempts += 1
        try:
            result = await self._metadata.commit(commits, self._clock.time_ms())
        except asyncio.CancelledError:
            for segment in segments:
                segment.is_unknown = True
            raise
        except (MetadataUnavailable, OutcomeUnknown) as error:
            self.failed_commits += 1
            # A store that stays away is told of once.
            level = logging.DEBUG if self._is_away else logging.WARNING
            _log.log(level, "commit of %d segments failed: %s: %s", len(commits), type(error).__name__, error)
            self._is_away = True
            raise
        except Exception:
            self.failed_commits += 1
            _log.exception("commit of %d segments failed unexpectedly", len(commits))
            raise
        finally:
            for segment in segments:
                segment.is_committing = False
        if self._is_away:
            self._is_away = False
            _log.warning("the metadata store takes commits again")
        return result

    def _refuse(self, segment: SealedSegment) -> bool:
        """Give up a segment that must not, or need not, be committed any more."""
        failure = self._refusal(segment)
        if failure is not None:
            self._on_failed(segment, failure)
        return failure is not None

    def _refusal(self, segment: SealedSegment) -> CommitFailure | None:
        """Why a segment must not, or need not, be committed now."""
        age_s = self._clock.boottime() - segment.sealed_boottime
        if age_s > self._limits.segment_age_max_s:
            message = f"the segment was not committed within {self._limits.segment_age_max_s:g} s"
            return CommitFailure(ErrorCode.REQUEST_TIMED_OUT, message, segment.is_unknown)
        if not segment.is_unknown and not segment.is_wanted:
            return CommitFailure(ErrorCode.REQUEST_TIMED_OUT, "nobody waits for the segment any more")
        return None


def _failure(error: Exception, segment: SealedSegment) -> CommitFailure:
    code = (
        ErrorCode.KAFKA_STORAGE_ERROR if isinstance(error, MetadataError) else ErrorCode.UNKNOWN_SERVER_ERROR
    )
    return CommitFailure(code, "the metadata store failed", segment.is_unknown)
