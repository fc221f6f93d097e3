"""`warp fsck`: the command line of it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from warp.cli.arguments import Parser, add_agent_options, agent_flags
from warp.config import AgentConfig, is_shared, resolve
from warp.errors import MetadataError, ObjectStoreError, StartError, UsageError

if TYPE_CHECKING:
    from warp.lifecycle.fsck import Scope
    from warp.lifecycle.fsck_report import Report

T = TypeVar("T")

EXIT_CLEAN: Final = 0
EXIT_FOUND: Final = 1
EXIT_CANNOT_RUN: Final = 2

EXAMPLES: Final = """\
  warp fsck
  warp fsck --data-dir /var/lib/warp --deep
  warp fsck --config /etc/warp.toml --json
  warp fsck --repair

Takes the options, the environment and the file of `warp agent`, and runs beside agents at work or without any. It only
reads, unless --repair is given: on SQLite that needs the agent to be stopped, on PostgreSQL it doesn't.

Exit code 0: clean, or all that was found was repaired; 1: findings; 2: it could not look, or was called wrongly.
"""


def run(words: Sequence[str]) -> int:
    """Run the command; the exit code."""
    parser = Parser(
        "warp fsck",
        "Prove that metadata and object store agree: what the index refers to is there, whole, and what is there is\n"
        "accounted for. A line for each finding: what is wrong, and what to do.",
        EXAMPLES,
    )
    add_agent_options(parser)
    parser.add_argument(
        "--deep", action="store_true", help="Read every byte that the index refers to, and its CRCs."
    )
    parser.add_argument("--quick", action="store_true", help="Read no segments, not even their footers.")
    parser.add_argument(
        "--repair",
        action="store_true",
        help="Put right what can be worked out anew. Without it, say what that is.",
    )
    parser.add_argument("--json", action="store_true", help="Print one JSON object.")
    found = parser.parse_all(words)
    if found.deep and found.quick:
        raise UsageError("--deep and --quick exclude each other")
    config = resolve(agent_flags(found), os.environ, found.config).config
    try:
        return _fsck(
            config, is_deep=found.deep, is_quick=found.quick, repairs=found.repair, is_json=found.json
        )
    except (StartError, MetadataError, ObjectStoreError) as error:
        raise UsageError(str(error)) from error  # which ends with the exit code of what could not run


def _fsck(config: AgentConfig, *, is_deep: bool, is_quick: bool, repairs: bool, is_json: bool) -> int:
    # What reads stores is loaded only now, so that a mistake in the options is told at once.
    from warp.cli.fsck.progress import ProgressBar  # noqa: PLC0415
    from warp.cli.fsck.report import human  # noqa: PLC0415
    from warp.clock import SystemClock  # noqa: PLC0415
    from warp.lifecycle.fsck import DEEP, NORMAL, QUICK  # noqa: PLC0415

    logging.getLogger("warp").addHandler(logging.NullHandler())
    scope = DEEP if is_deep else QUICK if is_quick else NORMAL
    progress = ProgressBar(sys.stderr, SystemClock().monotonic)
    try:
        with _held(config, repairs):
            report = run_until_told(lambda: _look(config, scope, repairs, progress))
    finally:
        progress.clear()
    print(json.dumps(report.as_json(), indent=2) if is_json else human(report, repairs=repairs))
    if report.is_clean or report.is_repaired:
        return EXIT_CLEAN
    return EXIT_FOUND if report.is_whole or len(report.found) > 1 else EXIT_CANNOT_RUN


def run_until_told(look: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine on a loop of its own; SIGTERM ends it as Ctrl-C does."""
    import uvloop  # noqa: PLC0415

    async def whole() -> T:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await look()

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(whole())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _look(
    config: AgentConfig, scope: Scope, repairs: bool, progress: Callable[[str, int, int | None], None]
) -> Report:
    from warp.cli.fsck.stores import expect_same_cluster, reading_metadata, reading_objects  # noqa: PLC0415
    from warp.clock import SystemClock  # noqa: PLC0415
    from warp.ids import IdSource  # noqa: PLC0415
    from warp.lifecycle.fsck import check  # noqa: PLC0415
    from warp.lifecycle.fsck_report import note_damage  # noqa: PLC0415
    from warp.metadata.fsck_store import FsckStore  # noqa: PLC0415
    from warp.metadata.sqlite_reader import SqliteReader  # noqa: PLC0415

    clock = SystemClock()
    ids = IdSource(clock, os.urandom)
    async with reading_objects(config.object_store, clock=clock, ids=ids) as objects:
        async with reading_metadata(config) as database:
            store = FsckStore(database)
            await expect_same_cluster(store, objects, config.object_store)
            report = await check(
                store, objects, clock, scope=scope, orphan_age_ms=config.orphan_age_ms, progress=progress
            )
            if scope.is_deep and isinstance(database, SqliteReader):
                progress("database", 0, None)
                note_damage(report, config.metadata, await database.damage())
        if repairs and report.repairs:
            await _repair(config, report)
    return report


async def _repair(config: AgentConfig, report: Report) -> None:
    from warp.clock import SystemClock  # noqa: PLC0415
    from warp.lifecycle.fsck_repair import repair  # noqa: PLC0415
    from warp.metadata.fsck_repairs import FsckRepairs  # noqa: PLC0415
    from warp.metadata.urls import open_database  # noqa: PLC0415

    timeout_s = config.metadata_timeout_ms / 1000
    database = open_database(config.metadata, SystemClock(), connections_max=2, timeout_s=timeout_s)
    await database.open()
    try:
        await repair(report, FsckRepairs(database))
    finally:
        await database.close()


@contextmanager
def _held(config: AgentConfig, repairs: bool) -> Iterator[None]:
    """Keep an agent from the data directory while its metadata are written. Raises StartError when one is there."""
    if not repairs or is_shared(config.metadata):
        yield
        return
    from warp.agent_build import directories_in_use  # noqa: PLC0415
    from warp.clock import SystemClock  # noqa: PLC0415
    from warp.data_directory import DirectoryLock  # noqa: PLC0415

    locks = [DirectoryLock(path) for path in directories_in_use(config) if path.is_dir()]
    held: list[DirectoryLock] = []
    try:
        for lock in locks:
            lock.acquire(SystemClock().time_ms())
            held.append(lock)
        yield
    finally:
        for lock in held:
            lock.release()
