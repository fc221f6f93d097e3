"""Background tasks that somebody owns: none is collected while it runs, none fails unseen, all can be stopped."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine

_log = logging.getLogger(__name__)


class Tasks:
    """The tasks of one owner. `when_ended` is called after each."""

    def __init__(self, when_ended: Callable[[], None]) -> None:
        self._when_ended = when_ended
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[None, None, None]) -> None:
        """Run something in the background. It handles what it expects; anything else it raises is a bug."""
        number = self._count
        self._count += 1
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[number] = task
        task.add_done_callback(self._ended(number))

    async def close(self) -> None:
        """Cancel all, and wait until they are gone."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        for task in tasks:
            await asyncio.wait([task])

    def _ended(self, number: int) -> Callable[[asyncio.Task[None]], None]:
        def ended(task: asyncio.Task[None]) -> None:
            del self._tasks[number]
            if not task.cancelled() and task.exception() is not None:
                _log.critical("the write path has a bug", exc_info=task.exception())
            self._when_ended()

        return ended
