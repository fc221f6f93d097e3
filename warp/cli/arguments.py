"""Argument parsing as the console script promises it: exact names, one line per mistake, the nearest name offered."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from warp.config import CLIENT_CONFIG_VARIABLE, CONFIG_FILE_VARIABLE, did_you_mean
from warp.config_options import OPTIONS
from warp.errors import UsageError

DEFAULT_BOOTSTRAP = "127.0.0.1:9092"


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises UsageError instead of printing its usage and exiting."""

    def __init__(self, prog: str, description: str, examples: str = "", **arguments: Any) -> None:
        arguments.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        epilog = f"examples:\n{examples}" if examples else None
        super().__init__(prog=prog, description=description, epilog=epilog, allow_abbrev=False, **arguments)

    def error(self, message: str) -> NoReturn:
        """argparse: something does not fit."""
        raise UsageError(f"{message} (see {self.prog} --help)")

    def parse_all(self, words: Sequence[str]) -> argparse.Namespace:
        """All words, or UsageError that names the first one that has no meaning."""
        found, unknown = self.parse_known_args(words)
        if unknown:
            word = unknown[0].partition("=")[0]
            if not word.startswith("-"):
                raise UsageError(f"unexpected argument {unknown[0]!r} (see {self.prog} --help)")
            raise UsageError(f"unknown option {word}{did_you_mean(word, self._option_string_actions)}")
        return found


def action_of(command: str, words: Sequence[str], actions: Iterable[str], examples: str) -> str | None:
    """The action that the words of a command begin with; None when help was asked for, and printed.

    Raises UsageError when there is none.
    """
    if not words or words[0] in ("-h", "--help"):
        Parser(f"{command} ACTION", f"Actions: {', '.join(actions)}.", examples).print_help()
        if not words:
            raise UsageError("no action was given")
        return None
    if words[0] not in actions:
        raise UsageError(f"unknown action {words[0]}{did_you_mean(words[0], actions)}")
    return words[0]


def add_agent_options(parser: Parser) -> None:
    """Every option of the table, and --config."""
    for option in OPTIONS:
        default = f" Default: {option.default_text}." if option.default_text != "none" else ""
        parser.add_argument(
            option.flag,
            dest=option.name,
            action="append",
            metavar=option.kind.metavar,
            help=(option.help + default).replace("%", "%%"),
        )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"TOML file with any of these options, without the dashes. Also {CONFIG_FILE_VARIABLE}.",
    )


def agent_flags(found: argparse.Namespace) -> dict[str, list[str]]:
    """The options that were given, by name."""
    return {option.name: texts for option in OPTIONS if (texts := getattr(found, option.name)) is not None}


def add_client_options(parser: Parser) -> None:
    """What every command that talks to a broker takes."""
    parser.add_argument(
        "-b",
        "--bootstrap",
        metavar="HOST:PORT",
        help=f"Address of any broker. Default: bootstrap.servers of --client-config, or {DEFAULT_BOOTSTRAP}.",
    )
    parser.add_argument(
        "--client-config",
        type=Path,
        metavar="FILE",
        help="File with settings of the client library (librdkafka), a NAME=VALUE on each line. Also "
        f"{CLIENT_CONFIG_VARIABLE}.",
    )
    parser.add_argument(
        "-X",
        "--client-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="One such setting, as security.protocol=SSL, which goes before the file; no secrets. May be repeated.",
    )
    parser.add_argument(
        "--client-password-file",
        type=Path,
        metavar="FILE",
        help="File whose first line is the password (sasl.password). Without one, a terminal asks for it when needed.",
    )
    parser.add_argument(
        "--timeout",
        type=positive_seconds,
        default=10.0,
        metavar="SECONDS",
        help="How long to wait for the broker. Default: 10.",
    )


def positive_seconds(text: str) -> float:
    """Type of arguments that are a time in seconds."""
    try:
        seconds = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0 < seconds <= 10**6:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1000000 seconds")
    return seconds


def positive_count(text: str) -> int:
    """Type of arguments that count something."""
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 10**18:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)
