"""Who is at the other end of a connection, as log lines and tools are told."""

from __future__ import annotations

import asyncio
import re
import socket
from typing import Final

from warp.handlers.context import Endpoint
from warp.protocol import DecodeError


def peer_text(transport: asyncio.BaseTransport) -> str:
    """HOST:PORT of the other side."""
    peer = transport.get_extra_info("peername")
    return str(Endpoint(peer[0], peer[1])) if isinstance(peer, tuple) and len(peer) >= 2 else "a local peer"


_SIZE: Final = re.compile(r"a frame of (-?[0-9]{1,10}) bytes")
_HTTP_WORDS: Final = (b"GET ", b"POST", b"PUT ", b"HEAD", b"OPTI", b"DELE", b"PRI ")


def frame_error(error: DecodeError) -> str:
    """What is wrong with a frame; in words, where its size is the beginning of another protocol."""
    found = _SIZE.match(str(error))
    first = (int(found[1]) & 0xFFFFFFFF).to_bytes(4, "big") if found else b""
    if first.startswith(b"\x16\x03"):
        return "it speaks TLS, to a listener without"
    if first in _HTTP_WORDS:
        return "it speaks HTTP, to a listener for Kafka"
    return str(error)


# tcpi_state, the first byte of Linux's struct tcp_info, while neither side has ended or cut the connection.
_ESTABLISHED: Final = 1


def has_left(transport: asyncio.BaseTransport) -> bool:
    """Whether the other side has ended or cut the connection, as far as that can be told without reading from it."""
    of_transport = transport.get_extra_info("socket")
    if of_transport is None or of_transport.fileno() < 0 or not hasattr(socket, "TCP_INFO"):
        return False
    if of_transport.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    # What uvloop has there only stands for a socket and can't be asked. This one can, and does not own it.
    try:
        asked = socket.socket(fileno=of_transport.fileno())
    except OSError:
        return True  # it is being closed, and its number may be another file's by now
    try:
        return asked.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _ESTABLISHED
    finally:
        asked.detach()
