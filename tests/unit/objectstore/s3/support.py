"""A store in front of a scripted server, for the tests beside this file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import uvloop

from tests.support.s3_scripted import BUCKET, FakeServer, Respond, fake_server
from warp.clock import Clock, SystemClock
from warp.objectstore.s3.credentials import Credentials, Source
from warp.objectstore.s3.settings import S3Settings
from warp.objectstore.s3.store import S3Store

CREDENTIALS = Credentials("AKIDEXAMPLE", "a secret that nobody may see", "a token that nobody may see")
T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run on the loop that the agent runs on."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


@dataclass
class FixedSource:
    """Gives one set of credentials after the other: the next one with each `reload`."""

    credentials: list[Credentials] = field(default_factory=lambda: [CREDENTIALS])
    runs_out: bool = False
    reloads: int = 0

    def load(self) -> Credentials:
        return self.credentials[0]

    def reload(self) -> Credentials:
        self.reloads += 1
        if len(self.credentials) > 1:
            self.credentials.pop(0)
        return self.credentials[0]


def make_store(
    endpoint: str,
    *,
    clock: Clock | None = None,
    random: Callable[[], float] = lambda: 0.0,
    source: Source | None = None,
    **settings: Any,
) -> S3Store:
    """A store in the bucket of scripted servers, that doesn't pause between attempts."""
    return S3Store(
        S3Settings(**{"bucket": BUCKET, "region": "us-east-1", "endpoint": endpoint, **settings}),
        clock=clock or SystemClock(),
        random=random,
        token="t1",
        source=source or FixedSource(),
    )


@asynccontextmanager
async def store_before(respond: Respond, **options: Any) -> AsyncIterator[tuple[S3Store, FakeServer]]:
    """A connected store, not probed, and the server that it speaks to."""
    async with fake_server(respond) as server:
        store = await connected(server.endpoint, **options)
        try:
            yield store, server
        finally:
            await store.close()


def check(respond: Respond, test: Callable[[S3Store, FakeServer], Awaitable[T]], **options: Any) -> T:
    """Run a test of a connected store."""

    async def whole() -> T:
        async with store_before(respond, **options) as (store, server):
            return await test(store, server)

    return run(whole())


async def connected(endpoint: str, **options: Any) -> S3Store:
    """A store that is ready for requests; whoever asks for it closes it."""
    store = make_store(endpoint, **options)
    await store.connect()
    return store
