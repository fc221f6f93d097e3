"""The console script's contract: exit codes, one line per mistake, help without loading what it explains."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from warp import __version__
from warp.cli.main import COMMANDS, main
from warp.errors import StartError


def test_version_and_help_succeed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"warp {__version__}\n"
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(command.name in shown for command in COMMANDS)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "warp: no command was given"),
        (["agnet"], "warp: unknown command agnet; did you mean agent?"),
        (["--verson"], "warp: unknown option --verson; did you mean --version?"),
        (
            ["agent", "--fush-bytes", "1MiB"],
            "warp agent: unknown option --fush-bytes; did you mean --flush-bytes?",
        ),
        (
            ["agent", "--flush-byte=1MiB"],
            "warp agent: unknown option --flush-byte; did you mean --flush-bytes?",
        ),
        (["agent", "x"], "warp agent: unexpected argument 'x' (see warp agent --help)"),
        (["agent", "--zone"], "warp agent: argument --zone: expected one argument (see warp agent --help)"),
        (["agent", "--flush-bytes", "8"], "warp agent: --flush-bytes: '8' has no unit"),
        (
            ["agent", "--listen", "0.0.0.0:9092"],
            "warp agent: --listen 0.0.0.0:9092 takes connections on every interface",
        ),
        (["config"], "warp config: say `warp config show`"),
        (["config", "shwo"], "warp config: unknown command shwo; did you mean show?"),
        (["topic"], "warp topic: no action was given"),
        (["topic", "crate"], "warp topic: unknown action crate; did you mean create?"),
        (
            ["topic", "create", "t", "-p", "0"],
            "warp topic: argument -p/--partitions: '0' is not a whole number above 0",
        ),
        (["topic", "create", "t", "-c", "x"], "warp topic: --config 'x' is not NAME=VALUE"),
        (["produce"], "warp produce: the following arguments are required: TOPIC"),
        (["produce", "t", "-X", "nonsense"], "warp produce: --client-option 'nonsense' is not NAME=VALUE"),
        (
            ["produce", "t", "-X", "no.such=1"],
            "warp produce: the client library refuses its settings: No such configuration",
        ),
        (
            ["produce", "t", "--json", "-k", ":"],
            "warp produce: --json and --key-separator exclude each other",
        ),
        (["produce", "t", "-f", "/nowhere"], "warp produce: can't read /nowhere: No such file or directory"),
        (["consume", "t", "--from", "x"], "warp consume: argument --from: 'x' is no place to start or stop"),
        (["consume", "t", "--timeout", "0"], "warp consume: argument --timeout: '0' is not between"),
        (["demo", "--seconds", "x"], "warp demo: argument -s/--seconds: 'x' is not a number of seconds"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith(line)
    assert error.count("\n") == 1


def test_a_failure_is_one_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(words: list[str]) -> int:
        raise StartError("no\nway")

    monkeypatch.setattr(importlib.import_module("warp.cli.config"), "run", fail)
    assert main(["config", "show"]) == 1
    assert capsys.readouterr().err == "warp config: no way\n"


def test_a_bug_says_that_it_is_one_and_shows_where(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(words: list[str]) -> int:
        raise KeyError("x")

    monkeypatch.setattr(importlib.import_module("warp.cli.config"), "run", fail)
    assert main(["config", "show"]) == 1
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert error.splitlines()[-1].startswith("warp config: this is a bug")


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"warp {command}" in capsys.readouterr().out


def test_a_reader_that_has_had_enough_is_no_error() -> None:
    command = [sys.executable, "-m", "warp", "config", "show"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(__file__).parents[3]
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert (process.wait(60), error) == (0, b"")


def test_help_loads_neither_broker_nor_client_library() -> None:
    script = "import sys; from warp.cli.main import main; main(['--help']); main(['config', 'show'])\n"
    script += "print([m for m in ('uvloop', 'confluent_kafka', 'sqlite3', 'prometheus_client') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert done.stdout.splitlines()[-1] == "[]"
