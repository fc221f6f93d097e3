"""`python -m tests.load.probe SOCKET agent …`: the command `warp`, and a thread that answers what is in its process.

The thread takes connections on a Unix socket, reads one word of each, and answers with JSON:

* `facts`: what `Facts` says, after a full garbage collection, and after free buffers and what malloc holds free have
  gone back to the system: what is left is what somebody holds on to.
* `watch`: from now on, see how long the event loop is kept from its next turn.
* `hold`: the longest time since, in CPU seconds of the loop's own thread: others who use the machine don't count.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from warp import agent_log
from warp._blocks import set_free_bytes_max
from warp.cli.main import main
from warp.cli.signals import SignalThread
from warp.log import answer
from warp.log.cache import ChunkCache
from warp.log.claims import Claims

T = TypeVar("T")

TYPES_SHOWN = 400
"""The most frequent types of objects; leaks that matter are of frequent ones."""
HOLD_EVERY_S = 0.002


def serve(listening: socket.socket) -> None:
    """Answer for as long as the process lives. No signal may come to this thread: another one waits for them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        connection, _ = listening.accept()
        with connection, connection.makefile("rb") as words:
            answer = ANSWERS[words.readline().strip().decode()]()
            connection.sendall(json.dumps(answer).encode())


def facts() -> dict[str, Any]:
    """What is in this process; `tests.load.agent.Facts` says what each is."""
    # Twice: what the first pass finalizes may free more.
    gc.collect()
    gc.collect()
    types = Counter(_name(type(found)) for found in gc.get_objects())
    blocks = sys.getallocatedblocks()
    free_blocks.give_back()
    ctypes.CDLL(None).malloc_trim(0)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "resident_bytes": int(status["VmRSS"].split()[0]) * 1024,
        "blocks": blocks,
        "threads": threading.active_count(),
        "descriptors": _descriptors(),
        "tasks": _tasks(),
        "types": dict(types.most_common(TYPES_SHOWN)),
        "cached_bytes": sum(cache.used_bytes for cache in caches),
        "kept": _kept(),
    }


class FreeBlocks:
    """Large buffers that wait to be used again: the agent says how much memory they may take."""

    def __init__(self) -> None:
        self._bytes_max = 0

    def bound(self, bytes_max: int) -> None:
        """What the agent says."""
        self._bytes_max = bytes_max
        set_free_bytes_max(bytes_max)

    def give_back(self) -> None:
        """Return them to malloc now; as many may wait again from now on."""
        set_free_bytes_max(0)
        set_free_bytes_max(self._bytes_max)


class HoldWatch:
    """Asks the loop for a turn again and again, and measures what its thread does between two of them.

    That may be a few milliseconds more than one hold, and is never less.
    """

    def __init__(self) -> None:
        self._longest_s = 0.0
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self) -> None:
        """Begin."""
        self._longest_s = 0.0
        self._ending.clear()
        self._thread = threading.Thread(target=self._run, name="hold watch", daemon=True)
        self._thread.start()

    def hold(self) -> float:
        """End, after one more turn: the longest one, in CPU seconds."""
        assert self._thread is not None
        self._ending.set()
        self._thread.join()
        return self._longest_s

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        [loop] = _loops()
        main_clock = time.pthread_getcpuclockid(threading.main_thread().ident or 0)
        turn = threading.Event()
        last_s = time.clock_gettime(main_clock)
        is_last = False
        while not is_last:
            is_last = self._ending.wait(HOLD_EVERY_S)
            turn.clear()
            loop.call_soon_threadsafe(turn.set)
            turn.wait()
            # From the turn before, not from the question: that one may have waited for the interpreter's lock itself.
            now_s = time.clock_gettime(main_clock)
            self._longest_s = max(self._longest_s, now_s - last_s)
            last_s = now_s


free_blocks = FreeBlocks()
caches: list[ChunkCache] = []
claims: list[Claims] = []
_hold_watch = HoldWatch()
ANSWERS: dict[str, Callable[[], object]] = {
    "facts": facts,
    "watch": _hold_watch.watch,
    "hold": _hold_watch.hold,
}


def _kept() -> dict[str, int]:
    """What readers keep in the cache of record data, and others therefore can't have."""
    return {
        "bytes of views that are held": sum(cache.held_bytes for cache in caches),
        "chunks that may not be evicted": sum(len(cache._pins) for cache in caches),
        "chunks that are claimed": sum(each.claimed_chunks for each in claims),
    }


def _watched(module: ModuleType, name: str, made: list[T]) -> None:
    """From now on, note what a module makes of a class."""
    kind = vars(module)[name]

    def make(*arguments: Any, **options: Any) -> T:
        made.append(kind(*arguments, **options))
        return made[-1]

    vars(module)[name] = make


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _descriptors() -> dict[str, int]:
    """How many by kind: `socket`, `anon_inode`, `pipe`, or the directory of a file."""
    kinds: Counter[str] = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = entry.readlink()
        except FileNotFoundError:
            continue  # that of the listing itself
        kinds[str(target.parent) if target.is_absolute() else str(target).partition(":")[0]] += 1
    return dict(kinds)


def _tasks() -> dict[str, int]:
    """The tasks of the agent's loop, by the name of their coroutine."""
    tasks = [task for loop in _loops() for task in asyncio.all_tasks(loop)]
    return dict(Counter(getattr(task.get_coro(), "__qualname__", "?") for task in tasks))


def _loops() -> list[asyncio.AbstractEventLoop]:
    """The agent's, once it has one."""
    found = [thread.loop for thread in threading.enumerate() if isinstance(thread, SignalThread)]
    return [loop for loop in found if loop is not None]


if __name__ == "__main__":
    _watched(agent_log, "ChunkCache", caches)
    _watched(answer, "Claims", claims)
    vars(agent_log)["set_free_bytes_max"] = free_blocks.bound
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen()
    threading.Thread(target=serve, args=(listener,), name="probe", daemon=True).start()
    raise SystemExit(main(sys.argv[2:]))
