"""Measures what stops the event loop: garbage collections, and anything else that makes it late."""

from __future__ import annotations

import asyncio
import gc
from time import perf_counter
from typing import Final

from warp.metrics import Metrics

LAG_INTERVAL_S: Final = 0.25


class GcWatch:
    """Observes the duration of every garbage collection while it is open."""

    def __init__(self, metrics: Metrics) -> None:
        self._seconds = [metrics.gc_pause_seconds.of(str(generation)) for generation in range(3)]
        self._began = 0.0

    def open(self) -> None:
        """Begin to observe."""
        gc.callbacks.append(self._on_collection)

    def close(self) -> None:
        """Observe nothing more."""
        gc.callbacks.remove(self._on_collection)

    def _on_collection(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = perf_counter()
        else:
            self._seconds[info["generation"]].observe(perf_counter() - self._began)


async def watch_loop_lag(metrics: Metrics) -> None:
    """Observe, four times a second until it is cancelled, how late the loop wakes a task whose time has come."""
    loop = asyncio.get_running_loop()
    lag_seconds = metrics.loop_lag_seconds.of()
    while True:
        due = loop.time() + LAG_INTERVAL_S
        await asyncio.sleep(LAG_INTERVAL_S)
        lag_seconds.observe(max(0.0, loop.time() - due))
