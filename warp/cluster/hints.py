"""Hints between agents: that logs have grown, that their starts have moved, that the catalogue has changed.

Each agent tells the others through the notices of their database, after its commits and never in them. What comes while
a notice is on its way goes with the next one, the newest of each log; beyond a bound of logs one hint to look at
everything takes the place of all. Hints make readers look into the store sooner, and nothing else: one that is lost,
late, repeated or overtaken changes no answer.

A notice is a letter for its format, the sender's broker id, ";" and items with "," between them, all numbers hex:

    a1f;2c.3e8,2d.5.1.2,v11     logs as log.next[.start[.unstable]], the last two left out while they are 0, where
                                `unstable` is how far the last stable offset lies behind the next; `.` and numbers may
                                be missing where nothing is said; the catalogue's version after a `v`
    a1f;*                       look at everything

A release that wants to say more takes another letter. Formats that are not known are ignored, and counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from warp.cluster.catalogue import CatalogueObserver
from warp.errors import MetadataError
from warp.ids import BrokerId, LogId
from warp.log.hints import LogHint
from warp.log.observer import FlushObserver
from warp.metadata.model import CommitResult, LogState
from warp.metadata.session import Notices
from warp.objectstore.base import Buffer

logger = logging.getLogger(__name__)

FORMAT = "a"
LOOK = "*"
_OFFSET_MAX = 2**63 - 1
_SHORT = 16
"""So few characters hold no number that is too large."""

SENT, RECEIVED = "sent", "received"
LOG_KIND, CATALOGUE_KIND, LOOK_KIND, UNKNOWN_KIND = "log", "catalogue", "look", "unknown"


class HintReader(Protocol):
    """What hints about logs are for: `FetchService`."""

    def hinted(self, hints: Sequence[LogHint]) -> None:
        """Logs have come so far."""

    def look_again(self) -> None:
        """Any log may have changed."""

    def log_starts_at(self, log_id: LogId, start_offset: int) -> None:
        """This agent has deleted the records before an offset."""

    def logs_gone(self, log_ids: Sequence[LogId]) -> None:
        """Logs were deleted."""


class HintedCatalogue(Protocol):
    """What hints about the catalogue are for: `CatalogueService`."""

    def hinted(self, version: int | None) -> None:
        """It has this version; None: perhaps another one than before."""


@dataclass(frozen=True, slots=True)
class HintLimits:
    """The bounds of sending."""

    logs_waiting_max: int = 10_000
    """Logs that wait to be told of; more of them become one hint to look at everything."""
    interval_s: float = 0.005
    """From one notice to the next: they cost all agents something, and what comes meanwhile goes together."""
    publish_s_max: float = 5.0
    """A notice that is not out by then has failed."""
    retry_s: float = 0.5
    """After a failure, until the others are told to look at everything."""


class Notice(NamedTuple):
    """A notice, read: what one agent has to say."""

    sender: int
    logs: Sequence[LogHint]
    catalogue_version: int | None
    look: bool


class UnknownFormat(ValueError):
    """A notice that this release can't read."""


class HintBus(FlushObserver, CatalogueObserver):
    """Sends the hints of one agent and passes on those of others.

    It observes the agent's flushes and its catalogue, and is told of deleted records. From `start` on it listens;
    nothing that it is told ever waits or fails.
    """

    def __init__(
        self,
        notices: Notices,
        broker_id: BrokerId,
        reader: HintReader,
        catalogue: HintedCatalogue,
        limits: HintLimits | None = None,
    ) -> None:
        self.hints: Counter[tuple[str, str]] = Counter()
        """How many, by direction and kind; closed lists, the constants of this module."""
        self.published = 0
        """Notices that went out."""
        self.failed = 0
        """Notices that did not."""
        self._notices = notices
        self._broker_id = broker_id
        self._reader = reader
        self._catalogue = catalogue
        self._limits = limits or HintLimits()
        self._waiting = _Waiting(self._limits.logs_waiting_max)
        self._task: asyncio.Task[None] | None = None
        self._is_failing = False
        self._is_closed = False

    def start(self) -> None:
        """Listen from now on."""
        self._notices.listen(self._heard, self._interrupted)

    async def close(self) -> None:
        """Stop telling and passing on; what still waits is lost."""
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    # What this agent does

    def committed(self, result: CommitResult, images: Mapping[str, Sequence[Buffer]]) -> None:
        """Logs have grown here."""
        self._waiting.grown(result.logs)
        self._send_soon()

    def log_starts_at(self, log_id: LogId, start_offset: int) -> None:
        """Records before an offset were deleted here: tell this agent's readers, and the others."""
        self._reader.log_starts_at(log_id, start_offset)
        self._waiting.starts_at(log_id, start_offset)
        self._send_soon()

    def catalogue_changed(self, version: int) -> None:
        """This agent has changed the catalogue."""
        self._waiting.catalogue_at(version)
        self._send_soon()

    def logs_gone(self, log_ids: Sequence[LogId]) -> None:
        """The catalogue has lost topics: tell this agent's readers. The others find out as it did."""
        self._reader.logs_gone(log_ids)

    # Sending

    def _send_soon(self) -> None:
        if self._task is None and not self._is_closed:
            self._task = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        """Send until nothing waits."""
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, _Waiting(self._limits.logs_waiting_max)
                if await self._publish(waiting):
                    await asyncio.sleep(self._limits.interval_s)
                else:
                    await asyncio.sleep(self._limits.retry_s)
                    self._waiting.look_at_everything()
        finally:
            self._task = None

    async def _publish(self, waiting: _Waiting) -> bool:
        """Send the notices that it takes; False when one could not be sent, which loses the rest of them."""
        for text in encode(self._broker_id, waiting.items(self.hints), self._notices.bytes_max):
            try:
                async with asyncio.timeout(self._limits.publish_s_max):
                    await self._notices.publish(text)
            except (MetadataError, TimeoutError) as error:
                self._failed(str(error) or f"not done after {self._limits.publish_s_max:g} s")
                return False
            except Exception:  # a bug: logged, counted; commits and readers go on without hints
                logger.exception("sending hints failed unexpectedly")
                self._failed("internal error")
                return False
            self.published += 1
        if self._is_failing:
            self._is_failing = False
            logger.info("other agents can be told of commits again")
        return True

    def _failed(self, reason: str) -> None:
        self.failed += 1
        if not self._is_failing:
            self._is_failing = True
            logger.warning(
                "other agents can't be told of commits at present (%s): their consumers get records later",
                reason,
            )

    # Receiving

    def _heard(self, text: str) -> None:
        """A notice of some agent."""
        if self._is_closed:
            return
        try:
            notice = decode(text)
        except UnknownFormat as error:
            self.hints[RECEIVED, UNKNOWN_KIND] += 1
            logger.debug("a notice can't be read: %s", error)
            return
        if notice.sender == self._broker_id:
            return
        if notice.look:
            self.hints[RECEIVED, LOOK_KIND] += 1
            self._reader.look_again()
            self._catalogue.hinted(None)
        if notice.logs:
            self.hints[RECEIVED, LOG_KIND] += len(notice.logs)
            self._reader.hinted(notice.logs)
        if notice.catalogue_version is not None:
            self.hints[RECEIVED, CATALOGUE_KIND] += 1
            self._catalogue.hinted(notice.catalogue_version)

    def _interrupted(self) -> None:
        """Notices may have been lost."""
        if not self._is_closed:
            self._reader.look_again()
            self._catalogue.hinted(None)


class _Waiting:
    """Hints that wait for their notice: the newest of each log."""

    def __init__(self, logs_max: int) -> None:
        self._logs_max = logs_max
        self._grown: dict[LogId, LogState] = {}
        self._starts: dict[LogId, int] = {}
        self._catalogue_version = -1
        self._look = False

    def __bool__(self) -> bool:
        return bool(self._grown or self._starts or self._look or self._catalogue_version >= 0)

    def grown(self, states: Sequence[LogState]) -> None:
        """Logs are as these states say; an agent's commits come in order, so each is newer than those before."""
        if not self._look:
            for state in states:
                self._grown[state.log_id] = state
            self._bound()

    def starts_at(self, log_id: LogId, start_offset: int) -> None:
        """A log starts at an offset, or later."""
        if not self._look:
            self._starts[log_id] = max(start_offset, self._starts.get(log_id, 0))
            self._bound()

    def catalogue_at(self, version: int) -> None:
        """The catalogue has a version, or a later one."""
        self._catalogue_version = max(version, self._catalogue_version)

    def look_at_everything(self) -> None:
        """Say that anything may have changed."""
        self._look = True
        self._grown.clear()
        self._starts.clear()

    def items(self, counted: Counter[tuple[str, str]]) -> Iterator[str]:
        """The items of the notices, counted as sent."""
        if self._look:
            counted[SENT, LOOK_KIND] += 1
            yield LOOK
        if self._catalogue_version >= 0:
            counted[SENT, CATALOGUE_KIND] += 1
            yield f"v{self._catalogue_version:x}"
        counted[SENT, LOG_KIND] += len(self._grown.keys() | self._starts.keys())
        for log_id, state in self._grown.items():
            start_offset = max(state.start_offset, self._starts.pop(log_id, 0))
            yield encode_log(LogHint(log_id, state.next_offset, start_offset, state.last_stable_offset))
        for log_id, start_offset in self._starts.items():
            yield encode_log(LogHint(log_id, 0, start_offset, 0))

    def _bound(self) -> None:
        if len(self._grown) + len(self._starts) > self._logs_max:
            self.look_at_everything()


def encode(sender: BrokerId, items: Iterator[str], bytes_max: int) -> Iterator[str]:
    """Put items into notices, as many into each as it holds. All of it is ASCII."""
    head = f"{FORMAT}{sender:x};"
    together: list[str] = []
    size_bytes = len(head)
    for item in items:
        if together and size_bytes + len(item) > bytes_max:
            yield head + ",".join(together)
            together, size_bytes = [], len(head)
        together.append(item)
        size_bytes += len(item) + 1
    if together:
        yield head + ",".join(together)


def encode_log(hint: LogHint) -> str:
    """One log's item."""
    unstable = max(hint.next_offset - hint.last_stable_offset, 0)
    if hint.next_offset and not (hint.start_offset or unstable):
        return f"{hint.log_id:x}.{hint.next_offset:x}"
    numbers = (hint.log_id, hint.next_offset, hint.start_offset, unstable)
    return ".".join(f"{number:x}" if number else "" for number in numbers).rstrip(".")


def decode(text: str) -> Notice:
    """Read a notice. Raises UnknownFormat."""
    head, separator, body = text.partition(";")
    if not head.startswith(FORMAT) or not separator:
        raise UnknownFormat(text[:80])
    logs: list[LogHint] = []
    version: int | None = None
    look = False
    try:
        sender = _number(head[len(FORMAT) :])
        for item in body.split(","):
            if item == LOOK:
                look = True
            elif item.startswith("v"):
                version = _number(item[1:])
            else:
                logs.append(_decode_log(item))
    except ValueError as error:
        raise UnknownFormat(f"{text[:80]}: {error}") from error
    return Notice(sender, logs, version, look)


def _decode_log(item: str) -> LogHint:
    numbers = item.split(".")
    if len(numbers) == 2 and len(item) < _SHORT:
        # By far the most are like this, and there may be thousands in a second.
        log_number, end = int(numbers[0], 16), int(numbers[1], 16)
        if log_number > 0 <= end:
            return LogHint(LogId(log_number), end, 0, end)
    log_id, *others = map(_number, numbers)
    if not log_id or len(others) > 3:
        raise ValueError(f"no log: {item[:80]}")
    next_offset, start_offset, unstable = (*others, 0, 0, 0)[:3]
    return LogHint(LogId(log_id), next_offset, start_offset, max(next_offset - unstable, 0))


def _number(digits: str) -> int:
    """A number in hex, nothing for 0. Raises ValueError."""
    number = int(digits, 16) if digits else 0
    if not 0 <= number <= _OFFSET_MAX:
        raise ValueError(f"out of range: {digits[:80]}")
    return number
