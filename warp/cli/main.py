"""The entry of the console script: finds the command, and turns every failure into one line and an exit code.

Exit codes: 0 clean, 2 a mistake in how the command was called, 1 anything else. Commands raise; only this module exits.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Final, NamedTuple

from warp import __version__
from warp.config import did_you_mean
from warp.errors import UsageError, WarpError

EXIT_CLEAN: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2


class Command(NamedTuple):
    """One command: `module` has `run(arguments) -> exit code`."""

    name: str
    module: str
    summary: str


COMMANDS: Final = (
    Command("agent", "warp.cli.agent", "Run a broker; with no options, on a local directory"),
    Command("demo", "warp.cli.demo", "Watch a broker, a producer and a consumer at work for a while"),
    Command("topic", "warp.cli.topic", "Create, list, describe, configure and delete topics"),
    Command("group", "warp.cli.group.command", "List, describe, reset and delete consumer groups"),
    Command("acl", "warp.cli.acl.command", "List, create and delete ACLs: who may do what"),
    Command("user", "warp.cli.user", "Create, list and delete users that authenticate by a password"),
    Command("quota", "warp.cli.quota", "Set, list and remove quotas of users, client ids and addresses"),
    Command(
        "cluster", "warp.cli.cluster", "Show the agents of a cluster and what each of them does; its configs"
    ),
    Command("produce", "warp.cli.produce", "Send lines from a file or standard input to a topic"),
    Command("consume", "warp.cli.consume", "Print the records of a topic"),
    Command("backup", "warp.cli.backup", "Copy the metadata of a data directory to a file, beside its agent"),
    Command("restore", "warp.cli.restore", "Put a database right that is older than its bucket"),
    Command("rebuild", "warp.cli.rebuild", "Make the metadata anew out of the bucket alone"),
    Command("bench", "warp.cli.bench.command", "Measure a Kafka broker, whichever it is"),
    Command("why-slow", "warp.cli.why_slow", "Say where the time of slow requests went"),
    Command(
        "cost", "warp.cli.cost.command", "Show what an agent asks of its object store, and what that costs"
    ),
    Command(
        "fsck", "warp.cli.fsck.command", "Prove that metadata and object store agree, and repair what can be"
    ),
    Command(
        "inspect", "warp.cli.inspect.command", "Show what is in a segment, or where the data of a log are"
    ),
    Command("config", "warp.cli.config", "Show what the agent's settings come to"),
    Command(
        "doctor", "warp.cli.doctor.command", "See whether this machine and its stores are fit for an agent"
    ),
)

HELP: Final = """usage: warp COMMAND [options]

Warp is a Kafka-protocol broker without disks and without leaders.

{commands}

Try it:
  warp demo                        see it work; needs no network
  warp agent                       a broker on 127.0.0.1:9092, data in ./warp-data
  echo hello | warp produce greetings
  warp consume greetings --from beginning

`warp COMMAND --help` explains each command. `warp --version` prints the version.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the console script with these arguments (the process's own by default); the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = "warp"
    try:
        command = _find(words)
        if command is None:
            return EXIT_CLEAN
        name = f"warp {command.name}"
        code: int = importlib.import_module(command.module).run(words[1:])
        sys.stdout.flush()
        return code
    except SystemExit as error:
        # How argparse ends after --help.
        return int(error.code or EXIT_CLEAN)
    except UsageError as error:
        return _fail(f"{name}: {error}", EXIT_USAGE)
    except BrokenPipeError:
        return _end_of_reader()
    except WarpError as error:
        return _fail(f"{name}: {error}", EXIT_FAILED)
    except KeyboardInterrupt:
        return _fail(f"{name}: interrupted", EXIT_FAILED)
    except Exception as error:  # noqa: BLE001 - the one place where a bug ends a command
        traceback.print_exc()
        return _fail(f"{name}: this is a bug, please report it with the lines above: {error!r}", EXIT_FAILED)


def _find(words: Sequence[str]) -> Command | None:
    """The command that is asked for; None when help or the version was printed instead."""
    if not words or words[0] in ("-h", "--help", "help"):
        width = max(len(command.name) for command in COMMANDS)
        rows = [f"  {command.name:<{width}}  {command.summary}" for command in COMMANDS]
        print(HELP.format(commands="\n".join(["Commands:", *rows])), end="")
        if not words:
            raise UsageError("no command was given")
        return None
    if words[0] in ("-V", "--version", "version"):
        print(f"warp {__version__}")
        return None
    for command in COMMANDS:
        if command.name == words[0]:
            return command
    kind = "option" if words[0].startswith("-") else "command"
    names = [command.name for command in COMMANDS] + ["--help", "--version"]
    raise UsageError(f"unknown {kind} {words[0]}{did_you_mean(words[0], names)}")


def _fail(line: str, code: int) -> int:
    try:
        sys.stdout.flush()
        print(" ".join(line.split("\n")), file=sys.stderr, flush=True)
    except OSError:
        # Nobody reads the error; the exit code still tells.
        return code
    return code


def _end_of_reader() -> int:
    """Whoever read our output has had enough, as `head` has: no error, and no second one at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_CLEAN
