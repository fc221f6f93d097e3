"""Requests to a whole agent, with its stores in memory: whatever decodes, no handler stumbles over it (P7).

The input is a list of requests, each an API and a version, then a body; they come on one connection. Nothing is a bug
of a handler, every answer can be decoded in the version of its request, answers come in order, and in the end nothing
is held for clients that have left.

The agent lives on from one input to the next, for some of them, as an agent does: to start one takes longer than all
that is done with it. So a find may need inputs before it; what was wrong stands in the agent's log, with its stack.
"""

from __future__ import annotations

import asyncio
import logging
import random
import struct
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from tests.broker.support import Broker, slots_taken
from tests.broker.test_every_version import NO_SUCH_ID, SAMPLES
from tests.fuzz.marks import mark
from tests.fuzz.script import Script
from tests.fuzz.target import Target
from tests.fuzz.targets.users import run
from tests.unit.server.support import MemoryTransport, settle
from warp.agent import Agent
from warp.agent_build import build_agent
from warp.clock import SystemClock
from warp.config import config_of
from warp.errors import ErrorCode
from warp.handlers.table import TABLE
from warp.ids import IdSource, TopicId
from warp.metrics import Metrics
from warp.protocol import (
    APIS,
    ApiKey,
    DecodeError,
    Request,
    decode,
    encode,
    parse_request_header,
    response_body_offset,
)

REQUESTS_MAX: Final = 4
INPUTS_MAX: Final = 500
"""Of one agent; then comes the next."""
TURNS_MAX: Final = 400
"""Of the loop, for the answers of one input. Requests that wait longer are given up with their connection."""
END_S_MAX: Final = 30.0
"""For what an agent has still to do for clients that have left."""
TOPIC: Final = "here"
CLIENT_ID: Final = b"fuzz"
VERSIONS: Final = tuple(
    (int(entry.key), version) for entry in TABLE for version in range(entry.served[0], entry.served[1] + 1)
)


class Failures(logging.Handler):
    """Keeps the stacks of bugs, for who has to find them."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.lines.append(logging.Formatter().format(record))


class Life:
    """An agent, and how many inputs it has had."""

    def __init__(self, agent: Agent, failures: Failures, directory: tempfile.TemporaryDirectory[str]) -> None:
        self.agent = agent
        self.failures = failures
        self.inputs = 0
        self._directory = directory

    async def end(self) -> None:
        """Stop the agent when it has done what was asked, and see that it holds nothing for anybody."""
        memory = self.agent.log.request_memory
        try:
            async with asyncio.timeout(END_S_MAX):
                while self.agent.server.connection_count or memory.used_bytes:  # noqa: ASYNC110  no event tells
                    await asyncio.sleep(0.001)
            assert self.agent.log.fetch_memory.used_bytes == 0
            assert self.agent.log.cache.held_bytes == 0
        finally:
            logging.getLogger("warp").removeHandler(self.failures)
            await self.agent.stop(1)
            self._directory.cleanup()


LIVES: list[Life] = []


async def _begun() -> Life:
    """A new agent with a topic, the same as every other."""
    clock = SystemClock()
    directory = tempfile.TemporaryDirectory(prefix="warp-fuzz-")
    stores = {"object_store": "mem://", "metadata": "mem://", "data_dir": str(Path(directory.name) / "data")}
    config = config_of(listen="127.0.0.1:0", http="off", **stores)
    agent = build_agent(
        config, clock=clock, ids=IdSource(clock, random.Random(1).randbytes), metrics=Metrics()
    )
    await agent.start()
    await slots_taken(agent)
    broker = Broker(agent)
    await broker.topic(TOPIC, partitions=2)
    for client in broker.clients:
        await client.close()
    failures = Failures()
    logging.getLogger("warp").addHandler(failures)
    return Life(agent, failures, directory)


def check(data: bytes) -> None:
    """Send the requests, read the answers."""
    run(_check(Script(data)))


async def _check(script: Script) -> None:
    if LIVES and LIVES[0].inputs >= INPUTS_MAX:
        await LIVES.pop().end()
    if not LIVES:
        LIVES.append(await _begun())
    life = LIVES[0]
    life.inputs += 1
    requests = list(_requests(script))
    await _ask(life, requests)
    if life.agent.server.handler_bugs or life.failures.lines:
        await LIVES.pop().end()
        raise AssertionError("a bug in a handler:\n" + "\n".join(life.failures.lines))


def _requests(script: Script) -> Iterable[tuple[int, int, bytes]]:
    for _ in range(REQUESTS_MAX):
        if not script:
            return
        key, version = VERSIONS[script.number(2) % len(VERSIONS)]
        yield key, version, script.take(script.number(2))


async def _ask(life: Life, requests: list[tuple[int, int, bytes]]) -> None:
    transport = MemoryTransport()
    connection = life.agent.server.connect()
    transport.protocol = connection
    connection.connection_made(transport)
    asked = {}
    for number, (key, version, body) in enumerate(requests):
        frame = _frame(number, key, version, body)
        asked[number] = key, version
        buffer = memoryview(connection.get_buffer(-1)).cast("B")
        if transport.is_closing() or transport.is_paused or len(frame) > len(buffer):
            break
        buffer[: len(frame)] = frame
        connection.buffer_updated(len(frame))
        await settle()
    for _ in range(TURNS_MAX):
        if transport.is_closing() or len(_frames(transport.written)) == len(asked):
            break
        await asyncio.sleep(0)
    try:
        _read(_frames(transport.written), asked)
    finally:
        # Also where the answer is a find: an agent is only through when all have left it.
        if not transport.is_closing():
            transport.abort()
        await settle()


def _frame(number: int, key: int, version: int, body: bytes) -> bytes:
    is_flexible = APIS[ApiKey(key)].request.is_flexible(version)
    header = (
        struct.pack(">hhih", key, version, number, len(CLIENT_ID))
        + CLIENT_ID
        + (b"\0" if is_flexible else b"")
    )
    frame = header + body
    assert parse_request_header(frame).body_offset == len(header)
    return len(frame).to_bytes(4, "big") + frame


def _frames(written: bytearray) -> list[bytes]:
    frames, data = [], bytes(written)
    while len(data) >= 4:
        size = int.from_bytes(data[:4], "big")
        frames.append(data[4 : 4 + size])
        data = data[4 + size :]
    return frames


def _read(frames: list[bytes], asked: dict[int, tuple[int, int]]) -> None:
    """Every answer, in the order of the questions; a Produce that wants none has none."""
    last = -1
    for frame in frames:
        number = int.from_bytes(frame[:4], "big")
        assert number > last, "answers out of order"
        last = number
        key, version = asked[number]
        api = ApiKey(key)
        try:
            answer = decode(APIS[api].response, version, frame, response_body_offset(api, version))
        except DecodeError as error:
            raise AssertionError(f"an answer to {api.name} v{version} that nobody can read") from error
        mark(key, version, _code(answer))
        assert _code(answer) != ErrorCode.UNKNOWN_SERVER_ERROR


def _code(answer: Any) -> int:
    """The first error code in it, however deep; 0 without any."""
    if code := getattr(answer, "error_code", 0):
        return int(code)
    for field in type(answer).__layout__.fields:
        value = getattr(answer, field.name)
        if field.struct is None or value is None:
            continue
        for element in value if field.is_array else (value,):
            if found := _code(element):
                return found
    return 0


def seeds() -> Iterable[bytes]:
    """A request of every API in every version, for a topic that is there and one that is not."""
    topic_id = TopicId(IdSource(SystemClock(), random.Random(1).randbytes).topic_id())
    for number, (key, version) in enumerate(VERSIONS):
        made = SAMPLES[ApiKey(key)]
        for name, known in ((TOPIC, topic_id), ("not-here", NO_SUCH_ID)):
            request: Request = made(version, name, known)
            body = encode(request, version)
            yield number.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body


TARGET = Target(
    check,
    seeds,
    words=(
        b"here", b"not-here", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0",
        b"\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\x80\0\0\0\0\0\0\0", b"\xff\xff", b"\0\x04here", b"\x05here", b"range", b"consumer", b"retention.ms",
        b"cleanup.policy", b"compact,delete", b"min.compaction.lag.ms", b"*", b"..", b"User:", b"\x7f\xf8\0\0\0\0\0\0",
        b"\xff\xf0\0\0\0\0\0\0", b"producer_byte_rate",
    ),
)  # fmt: skip
