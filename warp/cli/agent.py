"""`warp agent`: one broker process."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence

from warp.cli.arguments import Parser, add_agent_options, agent_flags
from warp.config import resolve

EXAMPLES = """\
  warp agent
  warp agent --listen 0.0.0.0:9092 --advertise broker.example:9092 --data-dir /var/lib/warp
  warp agent --config /etc/warp.toml

Every option is also an environment variable (WARP_FLUSH_BYTES) and a key of the TOML file (flush-bytes).
`warp config show` prints what they come to. SIGTERM and Ctrl-C finish what is in progress and exit with code 0;
SIGUSR1 writes to the log what the agent is doing.
"""


def run(words: Sequence[str]) -> int:
    """Run the command; the exit code."""
    parser = Parser(
        "warp agent",
        "Run a broker. With no options it keeps its data in ./warp-data and serves Kafka clients on 127.0.0.1:9092.",
        EXAMPLES,
    )
    add_agent_options(parser)
    found = parser.parse_all(words)
    config = resolve(agent_flags(found), os.environ, found.config).config
    # What makes a broker is loaded only now, so that a mistake in the options is told at once; and without collections,
    # because all of it stays. AgentProcess turns them on again.
    gc.disable()
    from warp.cli.process import AgentProcess  # noqa: PLC0415

    return AgentProcess(config).run()
