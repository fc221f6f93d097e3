"""What the S3 store costs in processor time beside botocore's own client, for objects of 4 MiB.

    python -m benchmarks.macro.bench_s3_client [--quick]

The server is a process of its own that drops what it is sent and answers with zeros; only the client's time counts, of
all its threads. Contenders take turns, each in a fresh process, pinned to another processor than the server's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import uvloop
from botocore.config import Config
from botocore.session import Session

from benchmarks.macro.harness import Table, median
from tests.support.tls import Certificate
from warp.clock import SystemClock
from warp.ids import IdSource
from warp.objectstore.s3.store import S3Store
from warp.objectstore.urls import open_object_store

OBJECT_BYTES = 4 * 2**20
PARTS = 8
AT_A_TIME = 4
WARM_UP = 4
SERVER_CPU, CLIENT_CPU = 0, 1
STORE, STORE_SIGNED = "warp's S3 store", "warp's S3 store, sign_payload=true"
BOTOCORE, BOTOCORE_LEAN = "botocore, default", "botocore, unsigned payload"
CONTENDERS = (STORE, STORE_SIGNED, BOTOCORE, BOTOCORE_LEAN)
WANTED = 0.2


def s3_client(count: int, rounds: int) -> Table:
    """CPU-seconds per GB of a PUT and of a ranged GET, over http and https."""
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as directory:
        certificate = Certificate(Path(directory))
        server = _spawn(SERVER_CPU, "serve", directory)
        try:
            assert server.stdout is not None
            ports = json.loads(server.stdout.readline())
            for _ in range(rounds):
                for scheme, port in ports.items():
                    for name in CONTENDERS:
                        url = f"{scheme}://localhost:{port}"
                        run = _spawn(CLIENT_CPU, "ask", name, url, str(certificate.ca_file), str(count))
                        output, _ = run.communicate(timeout=300)
                        if run.returncode != 0:
                            sys.exit(f"{name} failed over {scheme}")
                        found.setdefault((name, scheme), []).append(json.loads(output))
        finally:
            server.kill()
            server.wait()
    rows: list[list[object]] = []
    for (name, scheme), runs in found.items():
        put, get = (median([run[what] for run in runs]) for what in ("put", "get"))
        yardstick = [median([run[what] for run in found[BOTOCORE, scheme]]) for what in ("put", "get")]
        rows.append([name, scheme, put, put / yardstick[0], get, get / yardstick[1]])
    return Table(
        "s3-client",
        f"S3 client, objects of 4 MiB, CPU-s/GB (wanted over http: PUT ≤ {WANTED} × botocore's default)",
        ["client", "", "PUT", "× botocore", "GET", "× botocore"],
        rows,
    )


def _spawn(cpu: int, *arguments: str) -> subprocess.Popen[bytes]:
    pin = ["taskset", "-c", str(cpu)] if (os.cpu_count() or 1) > 1 else []
    return subprocess.Popen(
        [*pin, sys.executable, "-m", "benchmarks.macro.bench_s3_client", *arguments],
        stdout=subprocess.PIPE,
        env={**os.environ, "AWS_ACCESS_KEY_ID": "benchmark", "AWS_SECRET_ACCESS_KEY": "benchmark"},
    )


# ---- the clients ----


def _ask(name: str, url: str, ca_file: str, count: int) -> None:
    data = os.urandom(OBJECT_BYTES)
    if name in (STORE, STORE_SIGNED):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            took = runner.run(_ask_store(url, ca_file, data, count, sign_payload=name == STORE_SIGNED))
    else:
        took = _ask_botocore(url, ca_file, data, count, is_lean=name == BOTOCORE_LEAN)
    print(json.dumps(took))


async def _ask_store(
    url: str, ca_file: str, data: bytes, count: int, *, sign_payload: bool
) -> dict[str, float]:
    clock = SystemClock()
    signing = "&sign_payload=true" if sign_payload else ""
    store = open_object_store(
        f"s3://bucket?region=us-east-1&endpoint={url}&ca_bundle={ca_file}{signing}",
        clock=clock,
        ids=IdSource(clock, os.urandom),
    )
    assert isinstance(store, S3Store)
    await store.connect()
    # An object comes in parts, as segments do.
    size = OBJECT_BYTES // PARTS
    parts = [memoryview(data)[start : start + size] for start in range(0, OBJECT_BYTES, size)]

    async def put() -> None:
        await store.put("k", parts)

    async def get() -> None:
        assert len(await store.get("k", 0, OBJECT_BYTES)) == OBJECT_BYTES

    took: dict[str, float] = {}
    for what, run in (("put", put), ("get", get)):
        for _ in range(WARM_UP):
            await run()
        begin = time.process_time()

        async def some(run: Callable[[], object] = run) -> None:
            for _ in range(count // AT_A_TIME):
                await run()  # type: ignore[misc]

        await asyncio.gather(*(some() for _ in range(AT_A_TIME)))
        took[what] = _per_gb(begin, count // AT_A_TIME * AT_A_TIME)
    await store.close()
    return took


def _ask_botocore(url: str, ca_file: str, data: bytes, count: int, *, is_lean: bool) -> dict[str, float]:
    lean = {"payload_signing_enabled": False} if is_lean else {}
    config = Config(s3={"addressing_style": "path", **lean})
    client = Session().create_client(
        "s3", region_name="us-east-1", endpoint_url=url, verify=ca_file, config=config
    )

    def put() -> None:
        client.put_object(Bucket="bucket", Key="k", Body=data)

    def get() -> None:
        answer = client.get_object(Bucket="bucket", Key="k", Range=f"bytes=0-{OBJECT_BYTES - 1}")
        assert len(answer["Body"].read()) == OBJECT_BYTES

    took: dict[str, float] = {}
    for what, run in (("put", put), ("get", get)):
        for _ in range(WARM_UP):
            run()
        begin = time.process_time()
        for _ in range(count):
            run()
        took[what] = _per_gb(begin, count)
    return took


def _per_gb(begin: float, count: int) -> float:
    return (time.process_time() - begin) / (count * OBJECT_BYTES / 1e9)


# ---- the server ----


class _Drain(asyncio.BufferedProtocol):
    """Drops bodies, with a length or chunked; answers GET with as many zeros as its range has."""

    zeros = memoryview(bytes(OBJECT_BYTES))

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(2**18))
        self._head = bytearray()
        self._left = 0
        self._tail: bytes | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = self._buffer[:nbytes]
        if self._tail is not None:
            self._tail = (self._tail + bytes(data[-8:]))[-8:]
            if self._tail.endswith(b"\r\n\r\n"):
                self._answer()
        elif self._left:
            self._left -= nbytes
            if not self._left:
                self._answer()
        else:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end >= 0:
                self._begin(end + 4)

    def _begin(self, end: int) -> None:
        head = bytes(self._head[:end]).lower()
        if b"100-continue" in head:
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if b"\r\ntransfer-encoding: chunked" in head:
            self._tail = bytes(self._head[end:])
        else:
            self._left = int(_field(head, b"content-length") or 0) - (len(self._head) - end)
            if self._left <= 0:
                self._answer()

    def _answer(self) -> None:
        head = bytes(self._head)
        self._head.clear()
        self._tail = None
        if not head.startswith(b"GET"):
            self._write(b'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: "e"\r\n\r\n')
            return
        first, last = map(int, _field(head.lower(), b"range").removeprefix(b"bytes=").split(b"-"))
        self._write(
            b"HTTP/1.1 206 Partial Content\r\nContent-Length: %d\r\nContent-Range: bytes %d-%d/%d\r\n"
            b'ETag: "e"\r\n\r\n' % (last - first + 1, first, last, OBJECT_BYTES)
        )
        self._write(self.zeros[first : last + 1])

    def _write(self, data: bytes | memoryview) -> None:
        self._transport.write(data)  # type: ignore[attr-defined]


def _field(head: bytes, name: bytes) -> bytes:
    return head.partition(b"\r\n" + name + b": ")[2].partition(b"\r\n")[0]


async def _serve(directory: str) -> None:
    loop = asyncio.get_running_loop()
    ports: dict[str, int] = {}
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(Path(directory) / "certificate.pem", Path(directory) / "key.pem")
    contexts = {"http": None, "https": tls}
    servers = [await loop.create_server(_Drain, "127.0.0.1", 0, ssl=each) for each in contexts.values()]
    for scheme, server in zip(contexts, servers, strict=True):
        ports[scheme] = server.sockets[0].getsockname()[1]
    print(json.dumps(ports), flush=True)
    await asyncio.Event().wait()


def main(arguments: Sequence[str]) -> None:
    """Measure; or be one of the processes that this takes."""
    match arguments:
        case ["serve", directory]:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_serve(directory))
        case ["ask", name, url, ca_file, count]:
            _ask(name, url, ca_file, int(count))
        case _:
            parser = argparse.ArgumentParser(description=__doc__)
            parser.add_argument("--quick", action="store_true", help="fewer objects, one round")
            quick = parser.parse_args(arguments).quick
            s3_client(*((20, 1) if quick else (120, 5))).print()


if __name__ == "__main__":
    main(sys.argv[1:])
