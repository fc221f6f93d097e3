"""`python -m tests.load.probe SOCKET agent …`: the command `warp`, and a thread that answers what is in its process.

The thread takes connections on a Unix socket, and answers each with one JSON object (`Facts`), after a full garbage
collection and after what malloc holds free has gone back to the system: what is left is what somebody holds on to.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import signal
import socket
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from warp.cli.main import main
from warp.cli.signals import SignalThread

TYPES_SHOWN = 400
"""The most frequent types of objects; leaks that matter are of frequent ones."""


def serve(listening: socket.socket) -> None:
    """Answer for as long as the process lives. No signal may come to this thread: the agent waits for them elsewhere."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        connection, _ = listening.accept()
        with connection:
            connection.sendall(json.dumps(facts()).encode())


def facts() -> dict[str, Any]:
    """What is in this process; `tests.load.agent.Facts` says what each is."""
    # Twice: what the first pass finalizes may free more.
    gc.collect()
    gc.collect()
    types = Counter(_name(type(found)) for found in gc.get_objects())
    blocks = sys.getallocatedblocks()
    ctypes.CDLL(None).malloc_trim(0)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "resident_bytes": int(status["VmRSS"].split()[0]) * 1024,
        "blocks": blocks,
        "threads": threading.active_count(),
        "descriptors": _descriptors(),
        "tasks": _tasks(),
        "types": dict(types.most_common(TYPES_SHOWN)),
    }


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _descriptors() -> dict[str, int]:
    """How many by kind: `socket`, `anon_inode`, `pipe`, or the directory of a file."""
    kinds: Counter[str] = Counter()
    for entry in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{entry}")
        except FileNotFoundError:
            continue  # that of the listing itself
        kinds[target.partition(":")[0] if not target.startswith("/") else os.path.dirname(target)] += 1
    return dict(kinds)


def _tasks() -> dict[str, int]:
    """The tasks of the agent's loop, by the name of their coroutine."""
    loops = [thread.loop for thread in threading.enumerate() if isinstance(thread, SignalThread)]
    tasks = [task for loop in loops if loop is not None for task in asyncio.all_tasks(loop)]
    return dict(Counter(getattr(task.get_coro(), "__qualname__", "?") for task in tasks))


if __name__ == "__main__":
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen()
    threading.Thread(target=serve, args=(listener,), name="probe", daemon=True).start()
    raise SystemExit(main(sys.argv[2:]))
