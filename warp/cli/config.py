"""`warp config show`: what every setting comes to, and where it came from."""

from __future__ import annotations

import os
from collections.abc import Sequence

from warp.cli.arguments import Parser, add_agent_options, agent_flags
from warp.config import Resolved, did_you_mean, resolve
from warp.errors import UsageError

EXAMPLES = """\
  warp config show
  warp config show --config warp.toml --flush-bytes 16MiB
"""


def run(words: Sequence[str]) -> int:
    """Run the command; the exit code."""
    parser = Parser(
        "warp config show",
        "Print each of the agent's settings with its source; passwords and keys inside URLs are masked.\n"
        "Takes the options of `warp agent`, and refuses wrong names and values as it would; the stores are not opened.",
        EXAMPLES,
    )
    add_agent_options(parser)
    if not words or words[0] != "show":
        if words and words[0] in ("-h", "--help"):
            parser.parse_all(words)
        if not words:
            raise UsageError("say `warp config show`")
        raise UsageError(f"unknown command {words[0]}{did_you_mean(words[0], ['show'])}")
    found = parser.parse_all(words[1:])
    print(table(resolve(agent_flags(found), os.environ, found.config)))
    return 0


def table(resolved: Resolved) -> str:
    """Options, values and sources in three columns."""
    rows = [
        ("OPTION", "VALUE", "SOURCE"),
        *((name, value or "-", source) for name, value, source in resolved.rows()),
    ]
    name_width, value_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(
        f"{name:<{name_width}}  {value:<{value_width}}  {source}" for name, value, source in rows
    )
