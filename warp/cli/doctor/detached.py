"""Calls that may hang in the kernel, as on a disk that does not answer, without hanging whoever waits for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

T = TypeVar("T")


async def detached(call: Callable[[], T], *, timeout_s: float, late: T) -> T:
    """What `call` returns or raises, run in a thread of its own; `late` when it takes too long.

    The thread is left behind then, and does not keep the process from ending.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def work() -> None:
        try:
            result = call()
        except Exception as error:  # noqa: BLE001 - handed to whoever waits
            _tell(loop, partial(_fail, future, error))
        else:
            _tell(loop, partial(_succeed, future, result))

    threading.Thread(target=work, daemon=True, name="warp-doctor").start()
    try:
        async with asyncio.timeout(timeout_s):
            return await future
    except TimeoutError:
        if future.done() and not future.cancelled():
            raise
        return late


def _succeed(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[T], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        # Nobody waits any more: the loop has been closed.
        return
