"""What the agent asks of the operating system once, before it serves: descriptors and memory allocation."""

from __future__ import annotations

import ctypes
import logging
import resource
from typing import Final

log = logging.getLogger("warp.agent")

DESCRIPTORS_RESERVED: Final = 256
"""Kept for files, listeners, HTTP and the object store; the rest may be Kafka connections."""

_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
MMAP_THRESHOLD_BYTES: Final = 256 * 1024
ARENAS_MAX: Final = 2


def raise_descriptor_limit() -> int:
    """Raise the limit on open files to the hard one; what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError) as error:
            log.warning("can't raise the limit on file descriptors from %d to %d: %s", soft, hard, error)
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def connection_limit(wanted: int, descriptors: int) -> int:
    """How many connections the descriptors allow, at most as many as wanted, at least one; logged."""
    allowed = max(1, min(wanted, descriptors - DESCRIPTORS_RESERVED))
    if descriptors == resource.RLIM_INFINITY:
        allowed = wanted
    log.info("at most %d connections (%d wanted, %d file descriptors)", allowed, wanted, descriptors)
    return allowed


def set_allocator() -> None:
    """Make glibc's malloc give large buffers back to the system (docs/adr/0002-allocator.md).

    A fixed threshold keeps every large buffer in a mapping of its own; by default the threshold grows with the first
    large buffer that is freed, and from then on they fragment the heap. Elsewhere than on glibc nothing is done.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        log.debug("the C library has no mallopt")
        return
    mallopt.argtypes = [ctypes.c_int, ctypes.c_int]
    mallopt.restype = ctypes.c_int
    for parameter, value in ((_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES), (_M_ARENA_MAX, ARENAS_MAX)):
        if mallopt(parameter, value) != 1:
            log.debug("mallopt refused %d = %d", parameter, value)
