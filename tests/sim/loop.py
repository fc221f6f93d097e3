"""An event loop without a selector, whose clock jumps to the next timer, and on which processes can die.

Callbacks run first in, first out, as asyncio promises. Timers that are due at one moment, whose order nobody promises,
run in an order that the seed decides. A callback belongs to the process that its context names; when a process has died
its callbacks never run again, so it stops at the await at which it stood, without a `finally` or a farewell. A frozen
process misses nothing: what came meanwhile happens all at once when it thaws.

Seconds per seed decide how much a simulation proves, and most of them would go into asyncio's own handles and timers,
which are made to be debugged and compared in Python: so the loop has its own.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
import sys
import warnings
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")

STEPS_MAX = 3_000_000
STANDSTILL_STEPS_MAX = 100_000
"""Without any time passing: somebody goes round in a circle."""


class Process:
    """One life of one program. Everything that it starts inherits `context`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_alive = True
        self.is_frozen = False
        self.postponed: list[Step] = []
        self.context = contextvars.Context()
        self.context.run(_PROCESS.set, self)
        self.steps_to_trap = 0
        self._trap: Callable[[], None] | None = None

    def set_trap(self, steps: int, trap: Callable[[], None]) -> None:
        """Have something happen at the n-th step from now on that it takes towards its stores."""
        self.steps_to_trap, self._trap = steps, trap

    def spring_trap(self) -> None:
        """What was to happen happens."""
        trap, self._trap = self._trap, None
        if trap is not None:
            trap()


_PROCESS: contextvars.ContextVar[Process] = contextvars.ContextVar("process")
OUTSIDE = contextvars.Context()
"""The context of what belongs to no process: the network, the stores, the simulation itself."""


async def at_a_step() -> None:
    """Called before and after whatever a process asks of its stores: something may have been set to happen there."""
    process = _PROCESS.get(None)
    if process is not None and process.steps_to_trap:
        process.steps_to_trap -= 1
        if not process.steps_to_trap:
            process.spring_trap()
            # Whoever has died goes no further than this.
            await asyncio.sleep(0)


class Stuck(Exception):
    """Nothing is left to happen, or it goes on for ever."""


class Step:
    """One callback that is to run: what asyncio calls a handle."""

    __slots__ = ("args", "callback", "context", "is_cancelled", "when_s")

    def __init__(
        self, callback: Callable[..., Any], args: Any, context: contextvars.Context, when_s: float
    ) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self.when_s = when_s
        self.is_cancelled = False

    def cancel(self) -> None:
        """Do not run it."""
        self.is_cancelled = True

    def cancelled(self) -> bool:
        """Has it been cancelled?"""
        return self.is_cancelled

    def when(self) -> float:
        """The virtual time at which it is due."""
        return self.when_s


class SimLoop(asyncio.BaseEventLoop):
    """The loop of one simulation."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.steps = 0
        self.problems: list[str] = []
        """What nobody caught: exceptions in callbacks and forgotten tasks."""
        self._chance = chance
        self._now = 0.0
        self._steps_max = STANDSTILL_STEPS_MAX
        self._is_over = False
        self._due: deque[Step] = deque()
        self._timers: list[tuple[float, int, Step]] = []
        self._timers_made = 0
        self._dropped: list[Step] = []
        self._tasks: list[tuple[asyncio.Task[Any], Process | None]] = []
        self.set_exception_handler(_note_problem)
        self.set_task_factory(_make_task)  # type: ignore[arg-type]

    def time(self) -> float:
        """Virtual seconds since the start."""
        return self._now

    def start(self, process: Process, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine as a part of a process."""
        return self.create_task(coroutine, context=process.context)

    def run_in_executor(  # type: ignore[override]  # a future of this loop, as the base class gives
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Run the call here, after a while."""
        result: asyncio.Future[T] = self.create_future()

        def call() -> None:
            if result.cancelled():
                return
            try:
                result.set_result(func(*args))
            except Exception as error:  # noqa: BLE001  it belongs to whoever awaits the result
                result.set_exception(error)

        self.call_later(self._chance.expovariate(1 / 0.003), call)
        return result

    def call_soon(  # type: ignore[override]  # does what a handle does
        self, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> Step:
        """As in asyncio; nothing is taken any more once the simulation is over."""
        # A context that nothing was ever set in is false.
        context = contextvars.copy_context() if context is None else context
        step = Step(callback, args, context, self._now)
        if not self._is_over:
            self._due.append(step)
        return step

    def call_at(  # type: ignore[override]  # does what a handle does
        self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> Step:
        """As in asyncio."""
        context = contextvars.copy_context() if context is None else context
        step = Step(callback, args, context, when)
        self._timers_made += 1
        heapq.heappush(self._timers, (when, self._timers_made, step))
        return step

    def call_later(  # type: ignore[override]  # does what a handle does
        self, delay: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> Step:
        """As in asyncio."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_soon_threadsafe(  # type: ignore[override]  # does what a handle does
        self, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> Step:
        """There is one thread."""
        return self.call_soon(callback, *args, context=context)

    def bury(self) -> None:
        """End everything that still waits, quietly: a dead process's `finally` blocks may run, but do nothing."""
        self._is_over = True
        self._due.clear()
        self._timers.clear()
        with warnings.catch_warnings():
            # A `finally` of the dead may make coroutines that nobody will run.
            warnings.simplefilter("ignore", RuntimeWarning)
            for task, _ in self._tasks:
                if not task.done():
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                    with suppress(BaseException):
                        task.get_coro().close()
        self._tasks.clear()
        self._dropped.clear()
        self.close()

    def waiting_places(self) -> list[str]:
        """Where each living task waits: the way from its first function to the innermost await."""
        places = []
        for task, process in self._tasks:
            if not task.done() and (process is None or process.is_alive):
                places.append(" > ".join(_await_chain(task.get_coro())))
        return places

    def keep(self, task: asyncio.Task[Any], process: Process | None) -> None:
        """Hold on to a task, so that one that waits in vain is not collected in the middle of the simulation."""
        self._tasks.append((task, process))
        if len(self._tasks) > 10_000:
            self._tasks = [kept for kept in self._tasks if not kept[0].done()]

    def run_forever(self) -> None:
        """Step after step, until `stop`."""
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(
            firstiter=self._asyncgen_firstiter_hook,  # type: ignore[attr-defined]
            finalizer=self._asyncgen_finalizer_hook,  # type: ignore[attr-defined]
        )
        asyncio._set_running_loop(self)
        try:
            while not self._stopping:  # type: ignore[has-type]
                self._step()
        finally:
            self._stopping = False
            asyncio._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)

    def _step(self) -> None:
        """Run one callback, unless its process can't."""
        if not self._due:
            self._pass_time()
        step = self._due.popleft()
        self.steps += 1
        if self.steps > self._steps_max:
            raise Stuck(f"more than {STEPS_MAX} steps, or {STANDSTILL_STEPS_MAX} without time passing")
        if step.is_cancelled:
            return
        process = step.context.get(_PROCESS)
        if process is not None and not process.is_alive:
            self._dropped.append(step)
            return
        if process is not None and process.is_frozen:
            process.postponed.append(step)
            return
        try:
            step.context.run(step.callback, *step.args)
        except Exception as error:  # noqa: BLE001  as asyncio does: whatever a callback raises is told and no more
            self.call_exception_handler({"message": f"Exception in {step.callback!r}", "exception": error})

    def freeze(self, process: Process, seconds: float) -> None:
        """Let nothing of a process run for a while."""
        process.is_frozen = True
        self.call_later(seconds, self._thaw, process, context=OUTSIDE)

    def _thaw(self, process: Process) -> None:
        process.is_frozen = False
        self._due.extend(process.postponed)
        process.postponed = []

    def _pass_time(self) -> None:
        """Jump to the next timer, and make all that are due then ready."""
        timers = self._timers
        due: list[Step] = []
        while timers and (not due or timers[0][0] <= self._now):
            when_s, _, step = heapq.heappop(timers)
            if not step.is_cancelled:
                self._now = max(self._now, when_s)
                due.append(step)
        if not due:
            raise Stuck("nothing is left to happen")
        self._steps_max = min(STEPS_MAX, self.steps + STANDSTILL_STEPS_MAX)
        if len(due) > 1:
            self._chance.shuffle(due)
        self._due.extend(due)

    def _write_to_self(self) -> None:
        """There is no selector to wake."""

    def _process_events(self, event_list: Any) -> None:
        """There is no selector."""


def _await_chain(awaited: Any) -> Iterator[str]:
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None:
            yield f"{frame.f_code.co_qualname}:{frame.f_lineno}"
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)


def _make_task(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
) -> asyncio.Task[Any]:
    task = asyncio.Task(coroutine, loop=loop, **options)
    assert isinstance(loop, SimLoop)
    context = options.get("context")
    loop.keep(task, _PROCESS.get(None) if context is None else context.get(_PROCESS))
    return task


def _note_problem(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    assert isinstance(loop, SimLoop)
    if not loop._is_over:
        error = context.get("exception")
        loop.problems.append(f"{context['message']}: {error!r}")


class SimClock:
    """A Clock on virtual time. Wall time starts at a fixed moment."""

    def __init__(self, loop: SimLoop, start_ms: int = 1_700_000_000_000) -> None:
        self._loop = loop
        self._start_ms = start_ms

    def time_ms(self) -> int:
        """Wall time."""
        return self._start_ms + int(self._loop.time() * 1000)

    def monotonic(self) -> float:
        """Virtual seconds."""
        return self._loop.time()

    def boottime(self) -> float:
        """Virtual seconds; the machine never sleeps."""
        return self._loop.time()
