"""`warp inspect`: the command line of it."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from warp.cli.arguments import Parser, action_of, add_agent_options, agent_flags, positive_count
from warp.cli.fsck.command import run_until_told
from warp.config import AgentConfig, resolve
from warp.errors import ObjectNotFound, ObjectStoreError, StartError

if TYPE_CHECKING:
    from warp.cli.inspect.examine import Examined, Wanted
    from warp.cli.inspect.log import LogView

ACTIONS: Final = ("segment", "log")
LIMIT: Final = 100
LOG_LIMIT: Final = 1000

EXAMPLES: Final = """\
  warp inspect segment segments/5e/0190a1b2c3d4-00112233445566778899
  warp inspect segment ./copy-of-an-object --batches
  warp inspect segment KEY --records --limit 5 --object-store 's3://bucket/prefix?region=eu-central-1'
  warp inspect log orders 3
  warp inspect log orders 3 --from 1000000 --limit 20 --json

`segment` needs no database: it reads a file of that name, or an object of the store that the agent's options name; a
damaged one too, as far as that can be read. `log` reads the metadata, beside agents at work. Exit code 1: damage seen.
"""


def run(words: Sequence[str]) -> int:
    """Run the command; the exit code."""
    action = action_of("warp inspect", words, ACTIONS, EXAMPLES)
    if action is None:
        return 0
    return (_segment if action == "segment" else _log)(words[1:])


def _segment(words: Sequence[str]) -> int:
    parser = Parser(
        "warp inspect segment", "Show what is in a segment: its footer, and what that leads to.", EXAMPLES
    )
    parser.add_argument("segment", metavar="KEY|FILE", help="The key of an object, or the path of a file.")
    parser.add_argument(
        "--batches", action="store_true", help="Read all batches, check their CRCs, show the first."
    )
    parser.add_argument("--records", action="store_true", help="And show the first records of those.")
    _add_limit(parser, LIMIT, "Show at most N extents, batches of each, records of each, and receipts.")
    add_agent_options(parser)
    found = parser.parse_all(words)
    config = resolve(agent_flags(found), os.environ, found.config).config
    from warp.cli.inspect.examine import Wanted  # noqa: PLC0415
    from warp.cli.inspect.segment import as_json, human, is_intact  # noqa: PLC0415

    wanted = Wanted(found.batches or found.records, found.records, found.limit)
    examined = run_until_told(lambda: _examine(found.segment, config, wanted))
    print(
        json.dumps(as_json(examined, found.limit), indent=2) if found.json else human(examined, found.limit)
    )
    return 0 if is_intact(examined) else 1


async def _examine(name: str, config: AgentConfig, wanted: Wanted) -> Examined:
    from warp.cli.fsck.stores import reading_objects  # noqa: PLC0415
    from warp.cli.inspect.examine import examine  # noqa: PLC0415
    from warp.cli.inspect.source import FileSource, ObjectSource, is_file  # noqa: PLC0415
    from warp.clock import SystemClock  # noqa: PLC0415
    from warp.ids import IdSource  # noqa: PLC0415

    if is_file(name):
        return await examine(FileSource(Path(name)), wanted)
    clock = SystemClock()
    async with reading_objects(config.object_store, clock=clock, ids=IdSource(clock, os.urandom)) as objects:
        try:
            source = ObjectSource(objects, name, (await objects.head(name)).size_bytes)
            return await examine(source, wanted)
        except (ValueError, ObjectNotFound):
            raise StartError(f"there is neither a file nor an object of the name {name!r}") from None
        except ObjectStoreError as error:
            raise StartError(f"can't read {name}: {error}") from error


def _log(words: Sequence[str]) -> int:
    parser = Parser(
        "warp inspect log", "Show where the data of a partition are: its extents, by offset.", EXAMPLES
    )
    parser.add_argument("topic", metavar="TOPIC")
    parser.add_argument("partition", metavar="PARTITION", type=_partition)
    parser.add_argument(
        "--from",
        dest="start",
        type=_offset,
        metavar="OFFSET",
        help="Begin with the extent that holds this offset.",
    )
    _add_limit(parser, LOG_LIMIT, "Show at most N extents.")
    add_agent_options(parser)
    found = parser.parse_all(words)
    config = resolve(agent_flags(found), os.environ, found.config).config
    from warp.cli.inspect.log import as_json, human  # noqa: PLC0415

    view = run_until_told(lambda: _read_log(found, config))
    print(json.dumps(as_json(view), indent=2) if found.json else human(view))
    return 0


async def _read_log(found: argparse.Namespace, config: AgentConfig) -> LogView:
    from warp.cli.fsck.stores import reading_metadata  # noqa: PLC0415
    from warp.cli.inspect.log import read_log  # noqa: PLC0415
    from warp.metadata.fsck_store import FsckStore  # noqa: PLC0415

    async with reading_metadata(config) as database:
        return await read_log(FsckStore(database), found.topic, found.partition, found.start, found.limit)


def _add_limit(parser: Parser, limit: int, text: str) -> None:
    help_text = f"{text} Default: {limit}."
    parser.add_argument("--limit", type=positive_count, default=limit, metavar="N", help=help_text)
    parser.add_argument("--json", action="store_true", help="Print one JSON object.")


def _partition(text: str) -> int:
    return _whole(text, 2**31, "a partition")


def _offset(text: str) -> int:
    return _whole(text, 2**63, "an offset")


def _whole(text: str, end: int, what: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) >= end:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return int(text)
