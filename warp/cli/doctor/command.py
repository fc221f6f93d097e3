"""`warp doctor`: the command line of it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from warp import __version__
from warp.cli.arguments import Parser, add_agent_options, agent_flags, positive_count
from warp.config import AgentConfig, resolve
from warp.config_values import Address, mask_url, parse_address
from warp.errors import UsageError

SAMPLES: Final = 50
SAMPLES_MAX: Final = 10_000

EXAMPLES: Final = """\
  warp doctor
  warp doctor --config /etc/warp.toml
  warp doctor --object-store 's3://bucket/prefix?region=eu-central-1' --samples 200
  warp doctor --bootstrap broker.example:9092

Takes the options, the environment and the file of `warp agent`, and may run before the agent does, or beside it: it
changes nothing but objects and files of its own, which it removes. With --bootstrap it looks at a running cluster from
here as a client would, and at nothing else.

Exit code 0: no problem (there may be warnings); 1: a problem; 2: a mistake in how it was called.
"""


def run(words: Sequence[str]) -> int:
    """Run the command; the exit code."""
    parser = Parser(
        "warp doctor",
        "Look at everything that an agent depends on: clock, object store, disk, ports, the address that clients are\n"
        "told, limits. Each finding comes with its figure, and with what to do where something is wrong.",
        EXAMPLES,
    )
    add_agent_options(parser)
    parser.add_argument(
        "--bootstrap",
        metavar="HOST:PORT",
        help="Look at a running cluster as clients see it, and at nothing else.",
    )
    parser.add_argument(
        "--samples",
        type=positive_count,
        default=SAMPLES,
        metavar="N",
        help=f"How often each kind of request is timed; fewer when it takes long. Default: {SAMPLES}.",
    )
    parser.add_argument("--json", action="store_true", help="Print one JSON object.")
    found = parser.parse_all(words)
    if found.samples > SAMPLES_MAX:
        raise UsageError(f"--samples {found.samples} is above the maximum of {SAMPLES_MAX}")
    bootstrap = _bootstrap(found.bootstrap)
    flags = agent_flags(found)
    if bootstrap is not None and found.config is not None:
        raise UsageError("--bootstrap looks at a running cluster; --config has no part in that")
    if bootstrap is not None and flags:
        raise UsageError(f"--bootstrap looks at a running cluster; --{next(iter(flags))} has no part in that")
    config = None if bootstrap is not None else resolve(flags, os.environ, found.config).config
    code = _examine(config, bootstrap, found.samples, found.json)
    _leave_stuck_threads(code)
    return code


def _bootstrap(text: str | None) -> Address | None:
    if text is None:
        return None
    try:
        return parse_address(text)
    except ValueError as error:
        raise UsageError(f"--bootstrap: {error}") from None


def _examine(config: AgentConfig | None, bootstrap: Address | None, samples: int, is_json: bool) -> int:
    # What makes a broker is loaded only now, so that a mistake in the options is told at once.
    import uvloop  # noqa: PLC0415

    from warp.cli.doctor import report  # noqa: PLC0415
    from warp.cli.doctor.examine import Examination  # noqa: PLC0415
    from warp.cli.doctor.finding import Finding, Severity, count  # noqa: PLC0415
    from warp.clock import SystemClock  # noqa: PLC0415
    from warp.ids import IdSource  # noqa: PLC0415

    # What stores log while they are probed is told by the findings.
    logging.getLogger("warp").addHandler(logging.NullHandler())
    clock = SystemClock()
    progress = report.Progress(sys.stderr)
    visit = Examination(samples=samples, clock=clock, ids=IdSource(clock, os.urandom), say=progress)

    async def look() -> list[Finding]:
        task = asyncio.current_task()
        assert task is not None
        # As Ctrl-C does, so that probe objects are removed then as well.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        if bootstrap is not None:
            return await visit.cluster(bootstrap)
        assert config is not None
        return await visit.agent(config)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            findings = runner.run(look())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        progress.clear()
    looked_at = _looked_at(config, bootstrap)
    if is_json:
        print(report.as_json(looked_at, findings))
    else:
        title = (
            f"Warp {__version__} looks at {', '.join(f'{name} {value}' for name, value in looked_at.items())}"
        )
        print(report.human(title, findings, colour=report.wants_colour(sys.stdout, os.environ)))
    return 1 if count(findings, Severity.PROBLEM) else 0


def _looked_at(config: AgentConfig | None, bootstrap: Address | None) -> dict[str, str]:
    if config is None:
        return {"bootstrap": str(bootstrap)}
    return {
        "data-dir": str(Path(config.data_dir).absolute()),
        "object-store": mask_url(config.object_store),
        "metadata": mask_url(config.metadata),
    }


def _leave_stuck_threads(code: int) -> None:
    """End the process now if a thread of a store hangs in the kernel: the interpreter would wait for it for ever."""
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
