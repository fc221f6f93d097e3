"""An S3 server as a program: moto behind a door that is as strict as S3 where moto is not.

    python -m tests.support.s3_moto LOG_FILE

Listens on a free loopback port, prints it, and appends a line to the log file for every request before it is answered.
It ends with the process that started it. What moto alone gets wrong, and this door mends:

* `If-None-Match: *` is checked and then acted upon: one request at a time goes in, so that one writer wins.
* A body that ended early is stored as far as it came: refused as IncompleteBody.
* Checksums are noted and not compared: a wrong one is refused as BadDigest.
* Connections are closed after every answer: kept open.

What remains: signatures are not looked at, and answers are never slow. Ceph (`tests.support.rgw`) does both.
"""

from __future__ import annotations

import base64
import ctypes
import hashlib
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, TextIO

import google_crc32c
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app

from tests.support.http_log import LoggedRequest

BODY_BYTES_MAX = 2**30
_PR_SET_PDEATHSIG = 1
_ERROR = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
)

Environ = dict[str, Any]
StartResponse = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """Of one request, complete."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class StrictDoor:
    """Around a WSGI application: checks a request that has been read whole, then lets it in alone."""

    def __init__(self, inner: Callable[[Environ, StartResponse], Iterable[bytes]], log: TextIO) -> None:
        self._inner = inner
        self._log = log
        self._lock = threading.Lock()

    def ask(self, environ: Environ) -> Answer:
        """The answer to a request; it is in the log by then."""
        path, _, query = environ["RAW_URI"].partition("?")
        request = LoggedRequest(environ["REQUEST_METHOD"], path, query, arrived_s=time.monotonic())
        body = _body(environ)
        request.bytes_in = len(body)
        answer = _refusal(environ, body)
        with self._lock:
            if answer is None:
                answer = self._let_in(environ, body)
            request.status = answer.status
            request.bytes_out = 0 if request.method == "HEAD" else len(answer.body)
            request.took_s = time.monotonic() - request.arrived_s
            self._log.write(request.to_json() + "\n")
            self._log.flush()
        return answer

    def _let_in(self, environ: Environ, body: bytes) -> Answer:
        environ["wsgi.input"] = io.BytesIO(body)
        begun: list[tuple[str, list[tuple[str, str]]]] = []
        chunks = self._inner(environ, lambda status, headers, *_: begun.append((status, headers)))
        try:
            answer = b"".join(chunks)
        finally:
            if hasattr(chunks, "close"):
                chunks.close()
        status, headers = begun[-1]
        return Answer(int(status.split()[0]), headers, answer)


def _body(environ: Environ) -> bytes:
    """As much as came of the length that was announced."""
    wanted = min(int(environ.get("CONTENT_LENGTH") or 0), BODY_BYTES_MAX)
    stream, parts = environ["wsgi.input"], []
    while wanted:
        try:
            part = stream.read(min(wanted, 1 << 20))
        except OSError:  # the connection was lost
            break
        if not part:
            break
        parts.append(part)
        wanted -= len(part)
    return b"".join(parts)


def _refusal(environ: Environ, body: bytes) -> Answer | None:
    """The error that S3 answers with when a body is not what its headers say."""
    if "HTTP_TRANSFER_ENCODING" in environ:
        return _error(501, "NotImplemented", "Transfer-Encoding is not implemented")
    if len(body) != int(environ.get("CONTENT_LENGTH") or 0):
        return _error(400, "IncompleteBody", "fewer bytes came than Content-Length says")
    for name, digest in _DIGESTS.items():
        if name in environ and environ[name] != base64.b64encode(digest(body)).decode():
            return _error(400, "BadDigest", "the checksum did not match")
    signed = environ.get("HTTP_X_AMZ_CONTENT_SHA256", "")
    if len(signed) == 64 and signed != hashlib.sha256(body).hexdigest():
        return _error(400, "XAmzContentSHA256Mismatch", "the SHA-256 did not match")
    return None


def _crc32c(body: bytes) -> bytes:
    value: int = google_crc32c.value(body)
    return value.to_bytes(4, "big")


def _md5(body: bytes) -> bytes:
    return hashlib.md5(body, usedforsecurity=False).digest()


_DIGESTS = {"HTTP_X_AMZ_CHECKSUM_CRC32C": _crc32c, "HTTP_CONTENT_MD5": _md5}


def _error(status: int, code: str, message: str) -> Answer:
    headers = [("Content-Type", "application/xml"), ("Connection", "close")]
    return Answer(status, headers, _ERROR.format(code=code, message=message).encode())


class _Handler(MotoRequestHandler):
    """Keeps connections open, which werkzeug doesn't dare: it can't know that a body was read to its end."""

    disable_nagle_algorithm = True
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    door: StrictDoor

    def run_wsgi(self) -> None:
        answer = self.door.ask(self.make_environ())
        self.send_response_only(answer.status)
        self.send_header("Date", self.date_time_string())
        for name, value in answer.headers:
            if name.lower() not in ("content-length", "date") or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD" and answer.status not in (204, 304):
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024
    # What werkzeug's handler asks of its server.
    ssl_context = None
    multithread = True
    multiprocess = False


def end_with_parent() -> None:
    """Be killed when the process that started this one ends, in whatever way."""
    parent = os.getppid()
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent or parent == 1:
        sys.exit("the process that started this one has ended")


def main() -> None:
    """Serve until killed."""
    end_with_parent()
    with Path(sys.argv[1]).open("a", encoding="utf-8") as log:
        _Handler.door = StrictDoor(DomainDispatcherApplication(create_backend_app), log)
        server = _Server(("127.0.0.1", 0), _Handler)
        print(server.server_port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
