"""Who is at the other end of a connection, as log lines and tools are told."""

from __future__ import annotations

import asyncio
import re
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
