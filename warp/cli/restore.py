"""`warp restore`: a database that is older than its bucket is put right, and takes the bucket over."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from warp.cli.arguments import Parser, add_agent_options, agent_flags
from warp.config import AgentConfig, resolve
from warp.errors import OlderSchema, StartError, UsageError

if TYPE_CHECKING:
    from warp.lifecycle.restore_plan import Plan

EXAMPLES: Final = """\
  warp restore --data-dir /var/lib/warp --from /backups/warp-2031-05-01.sqlite
  warp restore --data-dir /var/lib/warp --from /backups/warp-2031-05-01.sqlite --yes
  warp restore --config /etc/warp.toml --yes          # an older database has been put back: PostgreSQL, for example

Takes the options, the environment and the file of `warp agent`. Stop all agents first. Who is interrupted runs it
again. docs/backup.md has the whole procedure, and what is lost in figures.
"""

_Progress = Callable[[str, int, int | None], None]


def run(words: Sequence[str]) -> int:
    """Run the command; the exit code."""
    parser = Parser(
        "warp restore",
        "Put right a database that is older than what its bucket holds: what was written since is made known to it\n"
        "again, ids go past all that was given out since, and agents can start. Without --yes it says what that would\n"
        "come to, and changes nothing.",
        EXAMPLES,
    )
    add_agent_options(parser)
    parser.add_argument(
        "--from",
        dest="backup",
        type=Path,
        metavar="FILE",
        help="A file of `warp backup`, to be put in the place of the SQLite database, which is kept beside it. Without "
        "one, the database that --metadata names is taken as it is.",
    )
    parser.add_argument("--yes", action="store_true", help="Do it.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object.")
    found = parser.parse_all(words)
    config = resolve(agent_flags(found), os.environ, found.config).config
    return _restore(config, found.backup, does_it=found.yes, is_json=found.json)


def _restore(config: AgentConfig, backup: Path | None, *, does_it: bool, is_json: bool) -> int:
    # What opens stores is loaded only now, so that a mistake in the options is told at once.
    from warp.cli.fsck.command import run_until_told  # noqa: PLC0415
    from warp.cli.fsck.progress import ProgressBar  # noqa: PLC0415
    from warp.cli.restore_report import as_json, human  # noqa: PLC0415
    from warp.cli.restore_stores import held, refuse_memory, sqlite_path  # noqa: PLC0415
    from warp.clock import SystemClock  # noqa: PLC0415

    refuse_memory(config)
    path = sqlite_path(config.metadata)
    if backup is not None and path is None:
        raise UsageError("--from takes a backup of SQLite; put a PostgreSQL database back with its own tools")
    if backup is None and path is not None and not path.exists():
        raise StartError(f"there is no database {path}: put one there, or name a backup with --from FILE")
    logging.getLogger("warp").addHandler(logging.NullHandler())
    clock = SystemClock()
    progress = ProgressBar(sys.stderr, clock.monotonic)
    epoch: int | None = None
    kept: Path | None = None
    try:
        if not does_it:
            url = config.metadata if backup is None else _url(backup.absolute())
            plan = run_until_told(lambda: _look(config, url, progress))
        else:
            with held(config, clock):
                plan, epoch, kept = _do_all(config, backup, path, progress)
    finally:
        progress.clear()
    if is_json:
        print(json.dumps({**as_json(plan, epoch=epoch), "kept": kept and str(kept)}, indent=2))
    else:
        print(human(plan, epoch=epoch, is_rebuild=False))
        if kept is not None:
            print(f"The database that was there before is kept as {kept}.")
    return 0


def _do_all(
    config: AgentConfig, backup: Path | None, path: Path | None, progress: _Progress
) -> tuple[Plan, int, Path | None]:
    """Restore; a backup in a file of its own, which takes the database's place when all is done."""
    from warp.cli.fsck.command import run_until_told  # noqa: PLC0415
    from warp.clock import SystemClock  # noqa: PLC0415
    from warp.metadata.sqlite_copy import copy_database, put_in_place  # noqa: PLC0415

    if backup is None or path is None:
        return *run_until_told(lambda: _do(config, config.metadata, progress)), None
    work = path.with_name(path.name + ".restoring").absolute()
    copy_database(backup, work)
    plan, epoch = run_until_told(lambda: _do(config, _url(work), progress))
    return plan, epoch, put_in_place(work, path, SystemClock().time_ms())


async def _look(config: AgentConfig, url: str, progress: _Progress) -> Plan:
    from warp.cli.fsck.stores import reading_objects  # noqa: PLC0415
    from warp.cli.restore_stores import expect_own  # noqa: PLC0415
    from warp.clock import SystemClock  # noqa: PLC0415
    from warp.ids import IdSource  # noqa: PLC0415
    from warp.lifecycle.restore import make_plan  # noqa: PLC0415
    from warp.metadata.readers import open_reader  # noqa: PLC0415
    from warp.metadata.restore_store import RestoreStore  # noqa: PLC0415

    ids = IdSource(SystemClock(), os.urandom)
    database = open_reader(url, timeout_s=config.metadata_timeout_ms / 1000)
    try:
        await database.open()
    except OlderSchema as error:
        # An agent would go on where they end, and give out offsets that the bucket has records at.
        raise StartError(
            "the metadata are of an older release, so what restoring comes to can't be told without changing them: "
            "with --yes they are brought up to date and restored. Start no agent on them before"
        ) from error
    try:
        rows = RestoreStore(database)
        async with reading_objects(config.object_store, clock=SystemClock(), ids=ids) as objects:
            await expect_own(rows, objects, config.object_store)
            return await make_plan(objects, rows, progress)
    finally:
        await database.close()


async def _do(config: AgentConfig, url: str, progress: _Progress) -> tuple[Plan, int]:
    from warp.cli.restore_stores import expect_own, writing  # noqa: PLC0415
    from warp.clock import SystemClock  # noqa: PLC0415
    from warp.ids import IdSource  # noqa: PLC0415
    from warp.lifecycle.restore import Restore, make_plan  # noqa: PLC0415

    clock = SystemClock()
    ids = IdSource(clock, os.urandom)
    async with writing(config, url, clock=clock, ids=ids) as stores:
        await expect_own(stores.rows, stores.objects, config.object_store)
        plan = await make_plan(stores.objects, stores.rows, progress)
        restore = Restore(
            stores.objects, stores.metadata, stores.rows, ids, is_conditional=stores.is_conditional
        )
        return plan, await restore.carry_out(plan, clock.time_ms())


def _url(path: Path) -> str:
    return path.as_uri().replace("file:", "sqlite:", 1)
