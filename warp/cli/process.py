"""The process around an agent: event loop, signals, log, memory, and its orderly end."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any, Final

import uvloop

from warp import __version__
from warp.agent import Agent
from warp.agent_build import build_agent
from warp.cli.pauses import GcWatch, watch_loop_lag
from warp.cli.signals import SignalThread, block_signals
from warp.cli.system import connection_limit, raise_descriptor_limit, set_allocator
from warp.clock import SystemClock
from warp.config import AgentConfig, is_in_memory, is_shared
from warp.config_values import mask_url
from warp.errors import StartError
from warp.ids import IdSource
from warp.logs import RepeatLimiter, log_uncaught_exceptions, set_up_logging
from warp.metadata.cluster_model import JOBS
from warp.metrics import Metrics

log = logging.getLogger("warp.agent")

LOG_DRAIN_S: Final = 1.0
ORDERLY_SHARE: Final = 0.9
"""Of the time to stop, what the agent gets for stopping in order; the rest is for leaving."""

SWITCH_INTERVAL_S: Final = 0.0005
"""How long a thread that stores an object may have to wait for the interpreter after each of its system calls while the
loop is at work. Python's default is 5 ms: a put has six such calls, and took up to 20 ms beside 30 ms of merging."""


class AgentProcess:
    """Runs one agent until a signal ends it."""

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self._began = monotonic()
        self._metrics = Metrics()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_stopping = False
        self._ended: str | None = None
        self._repeats = RepeatLimiter(monotonic)
        self._stop: asyncio.Event | None = None

    def run(self) -> int:
        """Start, serve, stop; the exit code. Raises UsageError and StartError."""
        config = self._config
        # Before any thread starts: it would take the signals that are meant for the one that waits for them.
        block_signals()
        handler = set_up_logging(config.log_level, config.log_format)
        self._metrics.log_lines_dropped.read = lambda: handler.dropped
        log_uncaught_exceptions()
        set_allocator()
        try:
            signals = SignalThread(
                config.shutdown_timeout_ms / 1000, self._request_stop, lambda: handler.drain(LOG_DRAIN_S)
            )
            signals.start()
            sys.setswitchinterval(SWITCH_INTERVAL_S)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve(signals))
        finally:
            handler.drain(LOG_DRAIN_S)
        return 0

    def _request_stop(self) -> None:
        """Called on the thread of the signals; before the loop runs, it only leaves a note."""
        self._is_stopping = True
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)

    def _agent_ended(self, reason: str) -> None:
        """Called on the loop: the agent must not serve any longer. It leaves to others what it has not finished."""
        log.error("stopping: %s", reason)
        self._ended = reason
        if self._stop is not None:
            self._stop.set()

    def _on_loop_error(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What no task or protocol has caught: counted, and logged as often as helps."""
        self._metrics.loop_errors.add(1)
        error = context.get("exception")
        message = context.get("message", "")
        held_back = self._repeats.allows((message, type(error)))
        if held_back is not None:
            more = f" ({held_back} more like it not logged)" if held_back else ""
            log.error("an error reached the event loop: %s%s", message, more, exc_info=error)

    async def _serve(self, signals: SignalThread) -> None:
        self._stop = asyncio.Event()
        self._loop = signals.loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._on_loop_error)
        if self._is_stopping:
            return
        descriptors = raise_descriptor_limit()
        config = replace(
            self._config, connections_max=connection_limit(self._config.connections_max, descriptors)
        )
        clock = SystemClock()
        agent = build_agent(
            config,
            clock=clock,
            ids=IdSource(clock, os.urandom),
            metrics=self._metrics,
            ended=self._agent_ended,
        )
        if not await self._start(agent):
            return
        self._settle_memory()
        watch = GcWatch(self._metrics)
        watch.open()
        lag = asyncio.create_task(watch_loop_lag(self._metrics))
        self._announce(agent)
        await self._stop.wait()
        lag.cancel()
        watch.close()
        if self._ended is not None:
            try:
                async with asyncio.timeout(ORDERLY_SHARE * config.shutdown_timeout_ms / 1000):
                    await agent.close()
            except TimeoutError:
                log.warning("not everything could be closed in time")
            raise StartError(self._ended)
        finished = await agent.stop(ORDERLY_SHARE * config.shutdown_timeout_ms / 1000)
        log.info("stopped%s", "" if finished else "; what was not finished in time was cut")

    async def _start(self, agent: Agent) -> bool:
        """False when a signal came first."""
        assert self._stop is not None
        starting = asyncio.create_task(agent.start())
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not starting.done():
            starting.cancel()
            await asyncio.wait([starting])
            if self._ended is not None:
                raise StartError(self._ended)
            log.info("stopped while starting")
            return False
        starting.result()
        return True

    def _settle_memory(self) -> None:
        """What was loaded to start stays for good: later collections need not look at it again."""
        gc.collect()
        gc.freeze()
        gc.enable()
        self._metrics.watch_process()

    def _announce(self, agent: Agent) -> None:
        """The one line that says that the agent serves, and where; on standard output, for people and scripts."""
        line = serving_line(agent)
        log.info(
            "serving after %.2f s",
            monotonic() - self._began,
            extra={"cluster": agent.cluster_id, "broker": agent.broker_id},
        )
        try:
            print(line, flush=True)
        except OSError:
            log.warning("nobody reads standard output: %s", line)


def serving_line(agent: Agent) -> str:
    """`Warp 0.1.0 serves Kafka on …, HTTP on …; data in …`."""
    kafka = ", ".join(
        ("" if listener.config.protocol == "PLAINTEXT" else f"{listener.config.protocol}://")
        + f"{listener.bound}"
        + (f" (told to clients as {listener.advertised})" if listener.advertised != listener.bound else "")
        for listener in agent.server.listeners
    )
    http = f"; HTTP on {agent.http_url}" if agent.http_url is not None else ""
    return f"Warp {__version__} serves Kafka on {kafka}{http}; {storage_words(agent.config)}"


def storage_words(config: AgentConfig) -> str:
    """Where the data is, and what becomes of it, for the line that says that the agent serves."""
    if is_in_memory(config.object_store):
        return "data in memory alone, gone when it stops"
    directory = Path(config.data_dir).absolute()
    default = (directory / "objects").as_uri()
    place = str(directory) if config.object_store == default else mask_url(config.object_store)
    fate = "records go when their topics' configs say so"
    if JOBS not in config.roles:
        fate = "this agent runs no jobs (--roles), so others have to merge and delete"
        if not is_shared(config.metadata):
            fate = "nothing is ever deleted: this agent runs no jobs (--roles)"
    return f"data in {place}; {fate}"
