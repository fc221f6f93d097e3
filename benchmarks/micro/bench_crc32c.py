"""CRC-32C of 1 MiB, and of small inputs, beside other libraries' and pure Python."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence

import aiokafka.record.util
import crc32c as pypi_crc32c
import google_crc32c

from benchmarks.micro.common import Comparison, Contender, Target, compare, main
from tests.reference.crc32c import crc32c as slow_crc32c
from warp._crc32c import crc32c, crc32c_with, implementation, implementations

MIB = 1 << 20
OURS = f"warp ({implementation()})"
SSE42, PYPI = "warp, forced to sse42", "crc32c (PyPI)"
PURE = "pure Python"


def run(quick: bool) -> list[Comparison]:
    """The comparisons, in the order in which they are printed."""
    data = random.Random(1).randbytes(MIB)
    return [large(data, quick), *(small(data[:size], quick) for size in (100, 16 * 1024))]


def large(data: bytes, quick: bool) -> Comparison:
    """1 MiB: the size at which only the instructions count."""
    targets = [Target(OURS, PURE, 2000)]
    if "vpclmulqdq" in implementations():
        targets.append(Target(OURS, PYPI, 1.6))
    if "sse42" in implementations():
        targets.append(Target(SSE42, PYPI, 0.95))
    return compare(
        "CRC-32C of 1 MiB",
        [*ours(data), *others(data)],
        work=len(data),
        unit="B",
        targets=targets,
        quick=quick,
    )


def small(data: bytes, quick: bool) -> Comparison:
    """Sizes at which the call counts too."""
    contenders = [Contender(OURS, lambda: crc32c(data)), *others(data)[:-1]]
    return compare(f"CRC-32C of {len(data)} bytes", contenders, work=len(data), unit="B", quick=quick)


def ours(data: bytes) -> Sequence[Contender]:
    forced = [name for name in implementations() if name != implementation()]
    return [
        Contender(OURS, lambda: crc32c(data)),
        *(Contender(f"warp, forced to {name}", lambda name=name: crc32c_with(name, data)) for name in forced),  # type: ignore[misc]
    ]


def others(data: bytes) -> Sequence[Contender]:
    return [
        Contender(PYPI, lambda: pypi_crc32c.crc32c(data)),
        Contender("google-crc32c", lambda: google_crc32c.value(data)),
        Contender("aiokafka", lambda: aiokafka.record.util.calc_crc32c(data)),
        Contender(PURE, lambda: slow_crc32c(data), slow=True),
    ]


if __name__ == "__main__":
    sys.exit(main("crc32c", run))
