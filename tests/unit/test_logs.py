"""Log lines: their two forms, the bounded queue in front of a stuck pipe, and the limit on repeated lines."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import select
import sys
import threading
from collections.abc import Iterator

import pytest

from warp import logs
from warp.logs import HumanFormatter, JsonFormatter, QueuedHandler, RepeatLimiter


def record(message: str, *args: object, level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("warp.server", level, __file__, 1, message, args, None)
    made.created = 1_700_000_000.123
    vars(made).update(extra)
    return made


class Pipe:
    """A writer that can be stuck: what QueuedHandler sees of a pipe that nobody reads."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Event()
        self.written = b""
        self.piece_bytes = 100

    def write(self, data: bytes) -> int:
        self.entered.set()
        assert self.open.wait(60)
        piece = data[: self.piece_bytes]
        self.written += piece
        return len(piece)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    # Whoever is stuck is not to keep later tests from the interpreter with a queue full of small pieces.
    made.piece_bytes = 2**30
    made.open.set()


def test_json_lines_carry_time_level_logger_message_and_fields() -> None:
    line = JsonFormatter().format(record("closed %s", "it", level=logging.WARNING, client="a", api=b"\x00"))
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.123Z",
        "level": "warning",
        "logger": "warp.server",
        "message": "closed it",
        "client": "a",
        "api": "b'\\x00'",
    }


def test_json_stays_one_line_whatever_the_message_holds() -> None:
    line = JsonFormatter().format(record("a\nb\x00", level=logging.ERROR))
    assert "\n" not in line
    assert json.loads(line)["message"] == "a\nb\x00"


def test_a_huge_message_is_cut_and_its_line_is_still_json() -> None:
    made = record("\x01" * 1_000_000, field="\x02" * 1_000_000)
    try:
        raise ValueError("\x03" * 1_000_000)
    except ValueError:
        made.exc_info = sys.exc_info()
    line = JsonFormatter().format(made)
    assert len(line) <= logs.LINE_CHARACTERS_MAX
    assert json.loads(line)["message"].endswith("\x01 …")


def test_exceptions_are_part_of_the_line() -> None:
    made = record("failed")
    try:
        raise ValueError("why")
    except ValueError:
        made.exc_info = sys.exc_info()
    assert "ValueError: why" in json.loads(JsonFormatter().format(made))["exception"]
    assert HumanFormatter().format(made).endswith("ValueError: why")


def test_human_lines_are_short_and_escape_control_characters() -> None:
    line = HumanFormatter().format(record("closed \x1b[2J", level=logging.WARNING, client="a"))
    assert line.split(" ", 1)[1] == "WARNING server: closed \\x1b[2J client=a"
    line = HumanFormatter().format(record("\x9b2J\x7f\u202e\u2028 é", level=logging.WARNING, client="a"))
    assert line.split(" ", 1)[1] == "WARNING server: \\x9b2J\\x7f\\u202e\\u2028 é client=a"


def test_lines_are_written_in_order_and_whole(pipe: Pipe) -> None:
    handler = QueuedHandler(pipe.write, logging.Formatter("%(message)s"))
    for number in range(500):
        handler.emit(record("line %d", number))
    pipe.open.set()
    assert handler.drain(60)
    assert pipe.written.decode().split() == " ".join(f"line {n}" for n in range(500)).split()
    handler.close()


def test_a_stuck_pipe_drops_lines_counts_them_and_says_so_later(pipe: Pipe) -> None:
    handler = QueuedHandler(pipe.write, logging.Formatter("%(message)s"))
    handler.emit(record("first"))
    assert pipe.entered.wait(60)
    for number in range(logs.QUEUE_LINES_MAX + 7):
        handler.emit(record("%d", number))
    assert handler.dropped == 7
    assert not handler.drain(0.01)
    pipe.open.set()
    assert handler.drain(60)
    lines = pipe.written.decode().splitlines()
    assert lines[0] == "first"
    assert lines[-1] == "7 log lines were dropped: nobody read them"
    assert len(lines) == 1 + logs.QUEUE_LINES_MAX + 1
    handler.close()


def test_the_queue_is_bounded_in_bytes_and_each_line_in_length(pipe: Pipe) -> None:
    handler = QueuedHandler(pipe.write, logging.Formatter("%(message)s"))
    handler.emit(record("first"))
    assert pipe.entered.wait(60)
    lines = logs.QUEUE_BYTES_MAX // logs.LINE_CHARACTERS_MAX + 5
    for _ in range(lines):
        handler.emit(record("x" * (2 * logs.LINE_CHARACTERS_MAX)))
    assert handler.dropped >= 5
    handler.close()


def test_a_closed_pipe_counts_lines_and_disturbs_nobody() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    handler = QueuedHandler(lambda data: os.write(writer, data), logging.Formatter("%(message)s"))
    handler.emit(record("into nothing"))
    assert handler.drain(60)
    assert handler.dropped == 1
    handler.close()
    os.close(writer)


def test_a_real_full_pipe_does_not_stall_the_caller() -> None:
    reader, writer = os.pipe()
    size = fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)
    handler = QueuedHandler(lambda data: os.write(writer, data), logging.Formatter("%(message)s"))
    for _ in range(2 * size // 1000):
        handler.emit(record("x" * 1000))
    assert not handler.drain(0.01)
    received = b""
    # The writer may be done before it says so: reading then would wait for ever.
    while not handler.drain(0.01):
        if select.select([reader], [], [], 0)[0]:
            received += os.read(reader, size)
    handler.close()
    os.close(reader)
    os.close(writer)


def test_a_line_that_cannot_be_formatted_is_reported_not_raised(pipe: Pipe) -> None:
    pipe.open.set()
    handler = QueuedHandler(pipe.write, logging.Formatter("%(message)s"))
    handler.emit(record("%d", "not a number"))
    assert handler.drain(60)
    assert pipe.written.startswith(b"can't format a log line of warp.server")
    handler.close()


def test_lines_after_close_count_as_dropped(pipe: Pipe) -> None:
    pipe.open.set()
    handler = QueuedHandler(pipe.write, logging.Formatter("%(message)s"))
    handler.close()
    handler.emit(record("late"))
    assert handler.dropped == 1


def test_repeated_lines_are_held_back_and_counted() -> None:
    now = 100.0
    limiter = RepeatLimiter(lambda: now, interval_s=10)
    assert limiter.allows("a") == 0
    assert limiter.allows("a") is None
    assert limiter.allows("a") is None
    assert limiter.allows("b") == 0
    now = 110.0
    assert limiter.allows("a") == 2
    assert limiter.allows("a") is None


def test_the_limiter_forgets_the_oldest_key_at_its_bound() -> None:
    limiter = RepeatLimiter(lambda: 0.0, interval_s=10, keys_max=2)
    assert [limiter.allows(key) for key in "abc"] == [0, 0, 0]
    assert limiter.allows("c") is None
    assert limiter.allows("a") == 0
