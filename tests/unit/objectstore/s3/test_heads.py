"""Heads that are written and read without h11 are those that h11 would write and read in the same way."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given, strategies as st

from warp.errors import ObjectStoreError
from warp.objectstore.s3.heads import parse_usual_head, request_head


def by_h11(data: bytes, method: str) -> tuple[int, dict[str, str]] | None:
    """Status and headers as h11 reads them; None when it refuses them."""
    parser = h11.Connection(h11.CLIENT)
    parser.send(h11.Request(method=method, target="/", headers=[("host", "h")]))
    try:
        parser.receive_data(data)
        event = parser.next_event()
    except h11.RemoteProtocolError:
        return None
    if not isinstance(event, h11.Response):
        return None
    headers: dict[str, str] = {}
    for raw_name, raw_value in event.headers:
        name, value = raw_name.decode(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return event.status_code, headers


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_usual_answer_is_read(method: str) -> None:
    data = b'HTTP/1.1 200 OK\r\nETag:  "a" \r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 3\r\n\r\nabc'
    headers = {"etag": '"a"', "x-a": "1, 2", "content-length": "3"}
    assert parse_usual_head(data, method) == (200, headers, 3 if method == "GET" else 0, data.index(b"abc"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n",
        b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Hints\r\nlink: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: +3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3, 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length : 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\r\n folded\r\ncontent-length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\ncontent-length: 3\n\n",
        b"HTTP/1.1 200 OK\r\nx: a\nb: c\r\ncontent-length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: \x00\r\ncontent-length: 3\r\n\r\n",
    ],
)
def test_what_is_not_usual_is_left_to_h11(data: bytes) -> None:
    assert parse_usual_head(data, "GET") is None


PIECES = st.sampled_from(
    [b"HTTP/1.1 ", b"HTTP/1.0 ", b"200", b"206 ", b" OK", b"\r\n", b"\n", b"\r", b"content-length: ", b"3", b"x", b":",
     b" ", b"\t", b"etag", b"transfer-encoding: chunked", b"\x00", b"\xe9", b"abc", b"\r\n\r\n"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=12), st.sampled_from(["GET", "HEAD", "PUT"]))
def test_nothing_is_read_that_h11_would_read_otherwise(pieces: list[bytes], method: str) -> None:
    for data in (
        b"".join(pieces),
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n" + b"".join(pieces) + b"\r\n\r\n",
    ):
        found = parse_usual_head(data, method)
        if found is not None:
            status, headers, length, begin = found
            assert by_h11(data, method) == (status, headers)
            assert data[:begin].endswith(b"\r\n\r\n")
            assert length == (0 if method == "HEAD" else int(headers["content-length"]))


def test_a_request_is_written() -> None:
    head = request_head("PUT", "/bucket/k%20?a=b", [("host", "h:1"), ("x-empty", "")])
    assert head == b"PUT /bucket/k%20?a=b HTTP/1.1\r\nhost: h:1\r\nx-empty: \r\n\r\n"


@pytest.mark.parametrize(
    ("target", "header", "named"),
    [
        ("/k", ("x-amz-security-token", "secret\r\nx: y"), "in x-amz-security-token$"),
        ("/k", ("x-amz-security-token", "secret\n"), "in x-amz-security-token$"),
        ("/k", ("x", "ü"), "in x$"),
        ("/k HTTP/1.1\r\nx: y", ("x", "y"), "in its target$"),
        ("/ü", ("x", "y"), "in its target$"),
    ],
)
def test_what_would_change_the_request_is_not_sent(target: str, header: tuple[str, str], named: str) -> None:
    with pytest.raises(ObjectStoreError, match=named) as caught:
        request_head("PUT", target, [("host", "h"), header])
    assert "secret" not in str(caught.value)
