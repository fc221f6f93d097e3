"""The bound on an agent's memory that docs/operations.md states, as a sum of what its settings allow."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20
PROCESS_MIB = 100
LOCAL_WRITERS_MIB = 8
IDLE_CONNECTION_KIB = 6
IDLE_TLS_CONNECTION_KIB = 23
BUSY_TLS_CONNECTION_KIB = 300


@dataclass(frozen=True)
class Memory:
    """The settings that bound it, in MiB; for clients that don't compress, and topics that don't change codecs."""

    requests: int
    fetches: int
    cache: int
    request: int = 8
    """The largest one."""
    flush: int = 8
    jobs: int = 64
    """0 for an agent without the role."""

    def options(self) -> tuple[str, ...]:
        """Of `warp agent`."""
        return (
            "--request-memory", f"{self.requests}MiB", "--request-bytes-max", f"{self.request}MiB",
            "--fetch-memory", f"{self.fetches}MiB", "--cache-bytes", f"{self.cache}MiB",
            "--flush-bytes", f"{self.flush}MiB",
            *(("--jobs-memory", f"{self.jobs}MiB") if self.jobs else ("--roles", "produce,fetch")),
        )  # fmt: skip

    def bound_bytes(self, connections: int, *, answer_bytes: int = 0) -> int:
        """With so many connections in the clear; `answer_bytes` is the largest answer that had to be copied."""
        sealed = min(self.requests // 2, 64) + self.flush
        blocks = min(self.requests // 8, 32)
        buffers = self.requests + sealed + blocks + LOCAL_WRITERS_MIB
        total = buffers + self.cache + self.fetches + self.jobs + PROCESS_MIB
        return total * MIB + answer_bytes + connections * IDLE_CONNECTION_KIB * 1024
