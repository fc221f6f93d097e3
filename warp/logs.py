"""Log lines that never stall the event loop, whatever happens to the pipe that they go to.

Callers format a line and put it into a bounded queue; one thread writes. When the reader of the pipe stops reading,
the thread waits, the queue fills, and further lines are dropped and counted: the count is logged once lines flow
again, and shows in the metrics. Lines are for people on a terminal and JSON, one object per line, elsewhere.

Attributes given as `extra={...}` become fields of the JSON object and `name=value` words of the human line.
"""

from __future__ import annotations

import collections
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

QUEUE_LINES_MAX: Final = 10_000
QUEUE_BYTES_MAX: Final = 8 * 1024 * 1024
LINE_CHARACTERS_MAX: Final = 256 * 1024
TEXT_CHARACTERS_MAX: Final = 12_000
"""Of a message, a field or an exception in a JSON line: however much is escaped, the line stays whole."""
WRITE_BYTES_MAX: Final = 64 * 1024

_PLAIN_ATTRIBUTES: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time (RFC 3339, UTC), level, logger, message, extra fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """The line without its newline. Values that JSON doesn't know are written as text."""
        fields: dict[str, Any] = {
            "time": _time_text(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _cut(record.getMessage()),
        }
        extra = extra_fields(record).items()
        fields.update((name, _cut(value)) for name, value in extra if name not in fields)
        if record.exc_info:
            fields["exception"] = _cut(self.formatException(record.exc_info))
        return json.dumps(fields, ensure_ascii=False)


class HumanFormatter(logging.Formatter):
    """`14:31:04.120 WARNING server: message name=value`, with a traceback below where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The line without its last newline; control characters of the message are escaped."""
        when = datetime.fromtimestamp(record.created).astimezone()
        clock = f"{when:%H:%M:%S}.{when.microsecond // 1000:03d}"
        words = "".join(f" {name}={value}" for name, value in extra_fields(record).items())
        name = record.name.removeprefix("warp.")
        line = f"{clock} {record.levelname:<7} {name}: {record.getMessage()}{words}"
        line = "".join(c if c.isprintable() or c == "\t" else _escaped(c) for c in line)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class QueuedHandler(logging.Handler):
    """Formats on the calling thread, writes to a file descriptor on its own.

    `write(data)` writes some of the bytes and returns how many, as os.write does; it may block for ever. `dropped`
    counts the lines that found the queue full or could not be written.
    """

    def __init__(self, write: Callable[[bytes], int], formatter: logging.Formatter) -> None:
        super().__init__()
        self.dropped = 0
        self._reported = 0
        self._write = write
        self._lines: collections.deque[bytes] = collections.deque()
        self._queued_bytes = 0
        self._writing = False
        self._closing = False
        self._condition = threading.Condition(threading.Lock())
        self.setFormatter(formatter)
        self._thread = threading.Thread(target=self._run, name="warp-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the line, or count it as dropped. Never waits for the writer."""
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001 - a bad format string must not take the caller down
            line = f"can't format a log line of {record.name}: {error!r}"
        self._put((line[:LINE_CHARACTERS_MAX] + "\n").encode("utf-8", "backslashreplace"))

    def flush(self) -> None:
        """Nothing: `drain` waits for the writer, callers of `flush` must not."""

    def drain(self, timeout_s: float) -> bool:
        """Wait until all queued lines are written. False when that took longer than `timeout_s`."""
        with self._condition:
            return self._condition.wait_for(lambda: not self._lines and not self._writing, timeout_s)

    def close(self) -> None:
        """Stop the thread once the queue is empty. Does not wait for it; further lines count as dropped."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        super().close()

    def _put(self, line: bytes) -> None:
        with self._condition:
            is_full = len(self._lines) >= QUEUE_LINES_MAX or self._queued_bytes + len(line) > QUEUE_BYTES_MAX
            if is_full or self._closing:
                self.dropped += 1
                return
            if not self._lines:
                self._condition.notify_all()
            self._lines.append(line)
            self._queued_bytes += len(line)

    def _run(self) -> None:
        while (chunk := self._next_chunk()) is not None:
            lines = chunk.count(b"\n")
            try:
                while chunk:
                    chunk = chunk[self._write(chunk) :]
            except OSError:
                # The reader is gone. There is nowhere left to say so but the metrics.
                with self._condition:
                    self.dropped += lines

    def _next_chunk(self) -> bytes | None:
        """Waits for lines; several in one write. None when closed and empty."""
        with self._condition:
            self._writing = False
            self._condition.notify_all()
            self._condition.wait_for(lambda: self._lines or self._closing)
            if not self._lines:
                return None
            self._writing = True
            parts: list[bytes] = []
            size = 0
            while self._lines and (not parts or size + len(self._lines[0]) <= WRITE_BYTES_MAX):
                parts.append(self._lines.popleft())
                size += len(parts[-1])
            self._queued_bytes -= size
            if self.dropped > self._reported and not self._lines:
                parts.append(self._dropped_line())
            return b"".join(parts)

    def _dropped_line(self) -> bytes:
        count, self._reported = self.dropped - self._reported, self.dropped
        record = logging.LogRecord(
            __name__,
            logging.WARNING,
            __file__,
            0,
            "%d log lines were dropped: nobody read them",
            (count,),
            None,
        )
        return (self.format(record) + "\n").encode("utf-8", "backslashreplace")


class RepeatLimiter:
    """Lets a line with the same key through once per interval, and says how many were held back in between.

    At most `keys_max` keys are remembered; when there are more, the oldest is forgotten (and may log again).
    """

    def __init__(
        self, monotonic: Callable[[], float], interval_s: float = 10.0, keys_max: int = 1_000
    ) -> None:
        self._monotonic = monotonic
        self._interval_s = interval_s
        self._keys_max = keys_max
        self._last: dict[object, tuple[float, int]] = {}

    def allows(self, key: object) -> int | None:
        """None when the line is to be held back; otherwise how many were held back since the last one."""
        now = self._monotonic()
        since, held_back = self._last.get(key, (-self._interval_s + now, 0))
        if now - since < self._interval_s:
            self._last[key] = (since, held_back + 1)
            return None
        self._last.pop(key, None)
        while len(self._last) >= self._keys_max:
            del self._last[next(iter(self._last))]
        self._last[key] = (now, 0)
        return held_back


def extra_fields(record: logging.LogRecord) -> Mapping[str, Any]:
    """What a caller gave as `extra`."""
    return {name: value for name, value in vars(record).items() if name not in _PLAIN_ATTRIBUTES}


def set_up_logging(level: str, log_format: str, descriptor: int = 2) -> QueuedHandler:
    """Send all log lines of the process to a file descriptor, through the queue. The caller drains it at the end.

    `log_format` is `human`, `json`, or `auto`: human when the descriptor is a terminal.
    """
    is_human = log_format == "human" or (log_format == "auto" and os.isatty(descriptor))
    handler = QueuedHandler(
        lambda data: os.write(descriptor, data), HumanFormatter() if is_human else JsonFormatter()
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[level])
    # Threads, processes and tasks in each record cost time and are not printed.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.captureWarnings(True)
    return handler


def log_uncaught_exceptions() -> None:
    """What would have been a bare traceback on standard error becomes a log line: of the main thread and of others."""
    logger = logging.getLogger("warp")

    def in_thread(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_value is not None:
            logger.error("a thread failed", exc_info=arguments.exc_value)

    threading.excepthook = in_thread
    sys.unraisablehook = lambda event: logger.error(
        "an error could not be raised: %s", event.err_msg or "in a finalizer", exc_info=event.exc_value
    )


def _escaped(character: str) -> str:
    """A character that a terminal would obey or that can't be seen: C1 codes and changes of direction are such, too."""
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _cut(value: Any) -> Any:
    """Numbers and truth values as they are; texts, and the texts of anything else, up to their longest."""
    if value is None or isinstance(value, (int, float)):
        return value
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= TEXT_CHARACTERS_MAX else text[:TEXT_CHARACTERS_MAX] + " …"


def _time_text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def wall_time_text(time_ms: int | None = None) -> str:
    """RFC 3339 of a wall-clock time in milliseconds, of now without one."""
    return _time_text(time.time() if time_ms is None else time_ms / 1000)
