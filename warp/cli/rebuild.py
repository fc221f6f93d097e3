"""`warp rebuild --from-bucket`: metadata made anew out of the segments' own footers and receipts."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from warp.cli.arguments import Parser, add_agent_options, agent_flags
from warp.config import AgentConfig, resolve
from warp.errors import StartError, UsageError

if TYPE_CHECKING:
    from warp.lifecycle.restore_plan import Plan
    from warp.metadata.restore_store import RestoreStore

EXAMPLES: Final = """\
  warp rebuild --from-bucket --data-dir /var/lib/warp
  warp rebuild --from-bucket --config /etc/warp.toml --yes
  warp rebuild --from-bucket --object-store 's3://bucket/prefix?region=eu-central-1' --metadata postgresql:///warp --yes

For when there is no backup of the metadata; with one, put it back and run `warp restore`. Takes the options, the
environment and the file of `warp agent`; the database that they name must be empty or not there. Stop all agents first.
docs/backup.md says what a bucket can tell and what it can't.
"""


def run(words: Sequence[str]) -> int:
    """Run the command; the exit code."""
    parser = Parser(
        "warp rebuild",
        "Make the metadata anew out of the bucket alone: topics, logs, where each record is, and what idempotent\n"
        "producers sent last. Without --yes it says what that would come to, and changes nothing.",
        EXAMPLES,
    )
    add_agent_options(parser)
    parser.add_argument(
        "--from-bucket", action="store_true", help="Read the object store: the one source there is."
    )
    parser.add_argument("--yes", action="store_true", help="Do it.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object.")
    found = parser.parse_all(words)
    if not found.from_bucket:
        raise UsageError(
            "say --from-bucket, which is what the metadata are made of (see warp rebuild --help)"
        )
    config = resolve(agent_flags(found), os.environ, found.config).config
    return _rebuild(config, does_it=found.yes, is_json=found.json)


def _rebuild(config: AgentConfig, *, does_it: bool, is_json: bool) -> int:
    # What opens stores is loaded only now, so that a mistake in the options is told at once.
    from warp.cli.fsck.command import run_until_told  # noqa: PLC0415
    from warp.cli.fsck.progress import ProgressBar  # noqa: PLC0415
    from warp.cli.restore_report import as_json, human  # noqa: PLC0415
    from warp.cli.restore_stores import held, refuse_memory  # noqa: PLC0415
    from warp.clock import SystemClock  # noqa: PLC0415

    refuse_memory(config)
    logging.getLogger("warp").addHandler(logging.NullHandler())
    clock = SystemClock()
    progress = ProgressBar(sys.stderr, clock.monotonic)
    epoch: int | None = None
    try:
        if does_it:
            with held(config, clock):
                plan, epoch = run_until_told(lambda: _do(config, progress))
        else:
            plan = run_until_told(lambda: _look(config, progress))
    finally:
        progress.clear()
    if is_json:
        print(json.dumps(as_json(plan, epoch=epoch), indent=2))
    else:
        print(human(plan, epoch=epoch, is_rebuild=True))
    return 0


async def _look(config: AgentConfig, progress: Callable[[str, int, int | None], None]) -> Plan:
    from warp.cli.fsck.stores import reading_metadata, reading_objects  # noqa: PLC0415
    from warp.cli.restore_stores import sqlite_path  # noqa: PLC0415
    from warp.clock import SystemClock  # noqa: PLC0415
    from warp.ids import IdSource  # noqa: PLC0415
    from warp.lifecycle.restore import make_plan  # noqa: PLC0415
    from warp.metadata.restore_store import RestoreStore  # noqa: PLC0415

    clock = SystemClock()
    path = sqlite_path(config.metadata)
    if path is not None and path.exists():
        async with reading_metadata(config) as database:
            await _expect_empty(RestoreStore(database))
    ids = IdSource(clock, os.urandom)
    async with reading_objects(config.object_store, clock=clock, ids=ids) as objects:
        return await make_plan(objects, None, progress)


async def _do(config: AgentConfig, progress: Callable[[str, int, int | None], None]) -> tuple[Plan, int]:
    from warp.cli.restore_stores import owner_of, writing  # noqa: PLC0415
    from warp.clock import SystemClock  # noqa: PLC0415
    from warp.cluster.marker import IS_MARKED  # noqa: PLC0415
    from warp.ids import IdSource  # noqa: PLC0415
    from warp.lifecycle.restore import Restore, make_plan  # noqa: PLC0415
    from warp.metadata.store import CLUSTER_ID  # noqa: PLC0415

    clock = SystemClock()
    ids = IdSource(clock, os.urandom)
    async with writing(config, config.metadata, clock=clock, ids=ids) as stores:
        await _expect_empty(stores.rows)
        owner = await owner_of(stores.objects, config.object_store)
        if owner is not None and config.cluster_id not in (None, owner):
            raise StartError(f"the object store belongs to cluster {owner}, not {config.cluster_id}")
        settings = {} if owner is None else {CLUSTER_ID: owner, IS_MARKED: "1"}
        plan = await make_plan(stores.objects, None, progress)
        restore = Restore(
            stores.objects, stores.metadata, stores.rows, ids, is_conditional=stores.is_conditional
        )
        return plan, await restore.carry_out(plan, clock.time_ms(), settings)


async def _expect_empty(rows: RestoreStore) -> None:
    if not await rows.is_empty():
        raise StartError(
            "the database that --metadata names holds topics or segments: a rebuild begins with an empty one. Name "
            "another, or move it away; if it is one that a rebuild was interrupted on, `warp restore` does the rest"
        )
