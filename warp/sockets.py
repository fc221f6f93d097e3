"""Listening sockets that are there before anybody accepts on them.

An agent tells others its addresses before it can serve: so its ports have to be known, and its own, by then. Who
connects meanwhile waits in the kernel's queue.
"""

from __future__ import annotations

import asyncio
import socket


async def listening_sockets(host: str, port: int, backlog: int) -> list[socket.socket]:
    """A socket that listens for each address of a host; port 0 is any free port, the same for all of them.

    `backlog` connections wait for their accept at most. Raises OSError, and leaves nothing open then.
    """
    infos = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    opened: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(infos):
            at = (address[0], port or (opened[0].getsockname()[1] if opened else 0), *address[2:])
            opened.append(_listen(socket.socket(family, kind, protocol), at, backlog))
    except OSError:
        for made in opened:
            made.close()
        raise
    return opened


def _listen(made: socket.socket, address: tuple[object, ...], backlog: int) -> socket.socket:
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setblocking(False)
        made.bind(address)
        made.listen(backlog)
    except BaseException:
        made.close()
        raise
    return made
