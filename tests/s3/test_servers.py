"""The S3 servers of the tests do what the tests of the S3 store rely on; where they differ from S3, it is said here."""

from __future__ import annotations

import base64
import hashlib
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import google_crc32c
import pytest

from tests.s3.conftest import AnyServer
from tests.support.http_log import count
from tests.support.rgw import RgwServer
from tests.support.s3 import ROOT, S3Server
from tests.support.sigv4 import Answer, ask

DELETE_TWO = (
    b'<?xml version="1.0" encoding="UTF-8"?><Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    b"<Quiet>true</Quiet><Object><Key>a/1</Key></Object><Object><Key>a/none</Key></Object></Delete>"
)


def code_of(answer: Answer) -> str:
    return ET.fromstring(answer.body).findtext("Code", "")


def md5(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def test_ranges_are_read_and_short_at_the_end(server: AnyServer) -> None:
    path = f"/{server.new_bucket()}/k"
    assert server.ask("PUT", path, body=b"0123456789").status == 200
    for header, status, body in [("bytes=2-5", 206, b"2345"), ("bytes=8-20", 206, b"89")]:
        answer = server.ask("GET", path, headers={"range": header})
        assert (answer.status, answer.body) == (status, body)
    answer = server.ask("GET", path, headers={"range": "bytes=10-20"})
    assert (answer.status, code_of(answer)) == (416, "InvalidRange")


def test_a_range_of_another_object_than_expected_is_refused(server: AnyServer) -> None:
    path = f"/{server.new_bucket()}/k"
    etag = server.ask("PUT", path, body=b"0123456789").headers["etag"]
    assert server.ask("GET", path, headers={"if-match": etag, "range": "bytes=1-1"}).body == b"1"
    server.ask("PUT", path, body=b"another")
    answer = server.ask("GET", path, headers={"if-match": etag, "range": "bytes=1-1"})
    assert (answer.status, code_of(answer)) == (412, "PreconditionFailed")


def test_a_conditional_put_has_a_single_winner(server: AnyServer) -> None:
    bucket = server.new_bucket()

    def create(number: int) -> int:
        path = f"/{bucket}/race-{number % 3}"
        return server.ask("PUT", path, body=b"%d" % number, headers={"if-none-match": "*"}).status

    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(create, range(48)))
    assert sorted(statuses) == [200] * 3 + [412] * 45
    for race in range(3):
        (winner,) = [number for number in range(race, 48, 3) if statuses[number] == 200]
        assert server.ask("GET", f"/{bucket}/race-{race}").body == b"%d" % winner


def test_a_damaged_body_is_refused(server: AnyServer) -> None:
    path = f"/{server.new_bucket()}/k"
    answer = server.ask("PUT", path, body=b"data", headers={"content-md5": md5(b"other")})
    assert (answer.status, code_of(answer)) == (400, "BadDigest")
    checksum = base64.b64encode(google_crc32c.value(b"data").to_bytes(4, "big")).decode()
    assert server.ask("PUT", path, body=b"data", headers={"x-amz-checksum-crc32c": checksum}).status == 200
    answer = server.ask("PUT", path, body=b"dat_", headers={"x-amz-checksum-crc32c": checksum})
    # This release of Ceph doesn't know the header; S3 does.
    assert answer.status == (200 if isinstance(server, RgwServer) else 400)


def test_a_torn_body_is_not_stored(server: AnyServer) -> None:
    path = f"/{server.new_bucket()}/k"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        raw.sendall(f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n".encode() + bytes(50))
        raw.shutdown(socket.SHUT_WR)
        while raw.recv(1000):
            pass
    assert server.ask("GET", path).status == 404


def test_listing_goes_on_page_by_page(server: AnyServer) -> None:
    bucket = server.new_bucket()
    keys = [f"a/{number:02}" for number in range(7)]
    for key in [*keys, "b/1"]:
        server.ask("PUT", f"/{bucket}/{key}", body=key.encode())
    found: list[str] = []
    query = {"list-type": "2", "prefix": "a/", "max-keys": "3"}
    pages = 0
    while True:
        answer = server.ask("GET", f"/{bucket}", query=query)
        page = ET.fromstring(answer.body)
        found += [key.text or "" for key in page.findall("{*}Contents/{*}Key")]
        pages += 1
        if page.findtext("{*}IsTruncated") == "false":
            break
        query["continuation-token"] = page.findtext("{*}NextContinuationToken", "")
    assert (found, pages) == (keys, 3)


def test_deleting_many_does_not_mind_what_is_gone(server: AnyServer) -> None:
    bucket = server.new_bucket()
    for key in ("a/1", "a/2"):
        server.ask("PUT", f"/{bucket}/{key}", body=b"x")
    headers = {"content-md5": md5(DELETE_TWO)}
    answer = server.ask("POST", f"/{bucket}", query={"delete": ""}, body=DELETE_TWO, headers=headers)
    assert answer.status == 200
    assert not ET.fromstring(answer.body).findall("{*}Error")
    assert server.ask("HEAD", f"/{bucket}/a/1").status == 404
    assert server.ask("HEAD", f"/{bucket}/a/2").status == 200


def test_what_is_not_there_has_its_error_code(server: AnyServer) -> None:
    bucket = server.new_bucket()
    assert code_of(server.ask("GET", f"/{bucket}/none")) == "NoSuchKey"
    assert code_of(server.ask("GET", "/no-such-bucket-anywhere/none")) == "NoSuchBucket"
    assert code_of(server.ask("PUT", "/no-such-bucket-anywhere/none", body=b"x")) == "NoSuchBucket"


def test_connections_stay_open_and_answer_without_delay(server: AnyServer) -> None:
    path = f"/{server.new_bucket()}/none"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        for _ in range(3):
            raw.sendall(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert raw.recv(10_000).startswith(b"HTTP/1.1 40")


@pytest.mark.rgw
def test_wrong_signatures_and_strangers_are_refused(rgw_server: RgwServer) -> None:
    path = f"/{rgw_server.new_bucket()}/k"
    forged = replace(rgw_server.credentials, secret_key="wrong")
    unknown = replace(rgw_server.credentials, access_key="unknown")
    for credentials, code in [
        (forged, "SignatureDoesNotMatch"),
        (unknown, "InvalidAccessKeyId"),
        (rgw_server.stranger, "AccessDenied"),
    ]:
        answer = ask(rgw_server.endpoint, credentials, "PUT", path, body=b"x")
        assert (answer.status, code_of(answer)) == (403, code)
    assert rgw_server.ask("GET", path).status == 404


def test_the_log_tells_what_was_asked(s3_server: S3Server) -> None:
    bucket = s3_server.new_bucket()
    s3_server.ask("PUT", f"/{bucket}/a/1", body=b"12345")
    s3_server.ask("GET", f"/{bucket}/a/1", headers={"range": "bytes=1-2"})
    s3_server.ask("GET", f"/{bucket}", query={"list-type": "2"})
    create, put, get, listing = s3_server.requests(bucket=bucket)
    assert (create.method, create.path) == ("PUT", f"/{bucket}")
    assert (put.path, put.status, put.bytes_in, put.bytes_out) == (f"/{bucket}/a/1", 200, 5, 0)
    assert (get.method, get.status, get.bytes_in, get.bytes_out) == ("GET", 206, 0, 2)
    assert (listing.path, listing.query) == (f"/{bucket}", "list-type=2")
    assert put.arrived_s <= get.arrived_s <= time.monotonic()
    assert count([create, put, get, listing], "PUT", under=f"/{bucket}/a/") == 1


STARTER = """
import sys, time
from pathlib import Path
from tests.support.{module} import {name}
server = {name}(Path(sys.argv[1]))
server.start()
print(*server.pids(), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("module", "name", "count"),
    [("s3", "S3Server", 1), pytest.param("rgw", "RgwServer", 3, marks=pytest.mark.rgw)],
)
def test_a_server_ends_with_the_process_that_started_it(
    request: pytest.FixtureRequest, tmp_path: Path, module: str, name: str, count: int
) -> None:
    if module == "rgw":
        request.getfixturevalue("rgw_server")  # skips where it is not installed
    command = [sys.executable, "-c", STARTER.format(module=module, name=name), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as starter:
        assert starter.stdout is not None
        pids = [int(word) for word in starter.stdout.readline().split()]
        starter.kill()
    assert len(pids) == count
    deadline = time.monotonic() + 30
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
