"""`warp backup`: a copy of the SQLite metadata, beside an agent at work, that can't be mistaken for what is in use."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from warp.cli.arguments import Parser, add_agent_options, agent_flags
from warp.config import AgentConfig, resolve
from warp.config_values import mask_url
from warp.errors import UsageError

EXAMPLES: Final = """\
  warp backup --to /backups/warp-2031-05-01.sqlite
  warp backup --data-dir /var/lib/warp --to /backups/warp-$(date +%F).sqlite --json

Takes the options, the environment and the file of `warp agent`, and runs beside an agent at work or without one. The
objects are not copied: they stay where they are, and the bucket has to keep them as long as the backup is to be of use
(--restore-window). PostgreSQL is backed up by its own tools, pg_dump for example. docs/backup.md has all of it.
"""


def run(words: Sequence[str]) -> int:
    """Run the command; the exit code."""
    parser = Parser(
        "warp backup",
        "Copy the SQLite database of the metadata, as it is at one moment, to a file; check the copy; and see to it\n"
        "that no agent takes it for the current one: `warp restore` puts it back.",
        EXAMPLES,
    )
    add_agent_options(parser)
    parser.add_argument("--to", type=Path, metavar="FILE", help="The file, which must not be there yet.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object.")
    found = parser.parse_all(words)
    if found.to is None:
        raise UsageError("say where to, with --to FILE (see warp backup --help)")
    config = resolve(agent_flags(found), os.environ, found.config).config
    return _backup(config, found.to, is_json=found.json)


def _backup(config: AgentConfig, target: Path, *, is_json: bool) -> int:
    # What opens stores is loaded only now, so that a mistake in the options is told at once.
    from warp.cli.fsck.progress import ProgressBar  # noqa: PLC0415
    from warp.cli.restore_stores import refuse_memory, sqlite_path  # noqa: PLC0415
    from warp.clock import SystemClock  # noqa: PLC0415
    from warp.metadata.sqlite_copy import copy_database  # noqa: PLC0415

    refuse_memory(config)
    path = sqlite_path(config.metadata)
    if path is None:
        raise UsageError(
            f"{mask_url(config.metadata)} is no SQLite database: back PostgreSQL up by its own tools, "
            "pg_dump for example, as docs/backup.md says"
        )
    if target.exists():
        raise UsageError(f"{target} is there already; name another file")
    logging.getLogger("warp").addHandler(logging.NullHandler())
    progress = ProgressBar(sys.stderr, SystemClock().monotonic)
    try:
        copy_database(path, target, lambda done, total: progress("pages", done, total))
    finally:
        progress.clear()
    # Only after the copy: the epoch that follows is what the copy does not know.
    epoch = asyncio.run(_begin_next_epoch(config, path))
    size_bytes = target.stat().st_size
    if is_json:
        print(json.dumps({"file": str(target), "bytes": size_bytes, "epoch": epoch}))
    else:
        print(
            f"{target}: {size_bytes / 1e6:,.1f} MB, checked. Put it back with: warp restore --from {target}"
        )
    return 0


async def _begin_next_epoch(config: AgentConfig, path: Path) -> int:
    from warp.agent_build import object_store_url  # noqa: PLC0415
    from warp.clock import SystemClock  # noqa: PLC0415
    from warp.errors import StartError  # noqa: PLC0415
    from warp.ids import IdSource  # noqa: PLC0415
    from warp.lifecycle.epoch import EpochRefused, EpochTaker  # noqa: PLC0415
    from warp.metadata.sqlite_copy import SqliteSettings  # noqa: PLC0415
    from warp.objectstore.urls import open_object_store  # noqa: PLC0415

    clock = SystemClock()
    ids = IdSource(clock, os.urandom)
    objects = open_object_store(object_store_url(config), clock=clock, ids=ids)
    try:
        abilities = await objects.open()
        taker = EpochTaker(objects, SqliteSettings(path), ids, is_conditional=abilities.conditional_create)
        return await taker.take(await taker.known_newest() or 0)
    except EpochRefused as refused:
        raise StartError(
            f"the copy was made, but the database is not the one that {mask_url(config.object_store)} lives by: "
            f"{refused}"
        ) from refused
    finally:
        await objects.close()
