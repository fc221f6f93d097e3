"""Notices between the agents of one world: lost, late, twice, and overtaking each other, as the seed has it."""

from __future__ import annotations

import contextvars
import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.sim.loop import OUTSIDE, Process, SimLoop
from warp.errors import MetadataUnavailable

NOTICE_BYTES_MAX = 7_999


@dataclass(slots=True)
class NoticeWeather:
    """How notices travel right now: chances between 0 and 1, a mean delay in seconds."""

    delay_s: float = 0.001
    lost: float = 0.0
    """On the way to one listener, who is not told of it."""
    doubled: float = 0.0
    publish_fails: float = 0.0

    @classmethod
    def rough(cls, chance: random.Random) -> NoticeWeather:
        """Some of everything, never the same."""
        return cls(
            delay_s=chance.choice((0.001, 0.05, 1.0)),
            lost=chance.choice((0.0, 0.3, 1.0)),
            doubled=chance.choice((0.0, 0.5)),
            publish_fails=chance.choice((0.0, 0.0, 0.7)),
        )


class NoticeBus:
    """What the database is to the notices of all agents."""

    def __init__(self, loop: SimLoop, chance: random.Random) -> None:
        self.weather = NoticeWeather()
        self.carried = 0
        self._loop = loop
        self._chance = chance
        self._all: list[SimNotices] = []

    def join(self, process: Process | None = None) -> SimNotices:
        """The notices of one more agent; what it hears it hears as this process, as long as that lives."""
        joined = SimNotices(self, OUTSIDE if process is None else process.context)
        self._all = [one for one in self._all if process is None or one.context is not process.context]
        self._all.append(joined)
        return joined

    def cut(self, notices: SimNotices, seconds: float) -> None:
        """Let an agent neither hear nor publish for a while, and then tell it so."""
        notices.is_connected = False
        self._loop.call_later(seconds, notices.mend, context=notices.context)

    def carry(self, text: str) -> None:
        """Bring a text to everybody, or not."""
        if self._chance.random() < self.weather.publish_fails:
            raise MetadataUnavailable("the notice could not be sent")
        self.carried += 1
        for listener in self._all:
            times = 1 + (self._chance.random() < self.weather.doubled)
            for _ in range(times):
                if self._chance.random() >= self.weather.lost:
                    delay_s = self._chance.expovariate(1 / self.weather.delay_s)
                    self._loop.call_later(delay_s, listener.hear, text, context=listener.context)


class SimNotices:
    """One agent's end. `Notices` in warp/metadata/session.py says what the methods mean."""

    bytes_max = NOTICE_BYTES_MAX

    def __init__(self, bus: NoticeBus, context: contextvars.Context) -> None:
        self.is_connected = True
        self.context = context
        self._bus = bus
        self._listeners: list[tuple[Callable[[str], None], Callable[[], None]]] = []

    def listen(self, heard: Callable[[str], None], interrupted: Callable[[], None]) -> None:
        """See Notices."""
        self._listeners.append((heard, interrupted))

    async def publish(self, text: str) -> None:
        """See Notices."""
        assert len(text.encode()) <= self.bytes_max
        if not self.is_connected:
            raise MetadataUnavailable("no connection for notices")
        self._bus.carry(text)

    def hear(self, text: str) -> None:
        """A text has come."""
        if self.is_connected:
            for heard, _ in self._listeners:
                heard(text)

    def mend(self) -> None:
        """Hear again, after a break in which things may have been missed."""
        self.is_connected = True
        for _, interrupted in self._listeners:
            interrupted()
