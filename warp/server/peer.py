"""Who is at the other end of a connection, as log lines and tools are told."""

from __future__ import annotations

import asyncio

from warp.handlers.context import Endpoint


def peer_text(transport: asyncio.BaseTransport) -> str:
    """HOST:PORT of the other side."""
    peer = transport.get_extra_info("peername")
    return str(Endpoint(peer[0], peer[1])) if isinstance(peer, tuple) and len(peer) >= 2 else "a local peer"
