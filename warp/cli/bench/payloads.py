"""The contents of records: the same for the same seed, made before the load begins, as compressible as was asked for.

The random parts are as long together as POOL_BYTES, so that no codec finds one record again in the batches after it.
"""

from __future__ import annotations

from random import Random
from struct import Struct
from typing import Final

POOL_BYTES: Final = 16 * 1024 * 1024
POOL_RECORDS_MIN: Final = 2
POOL_RECORDS_MAX: Final = 65_536
STAMP: Final = Struct(">QQ")
"""What an end-to-end record begins with: id of its run, and when it was due on the machine's monotonic clock, in ns."""
KEY_FORMAT: Final = "key-{:08d}"
KEY_BYTES: Final = len(KEY_FORMAT.format(0))
FILLER: Final = b"The quick brown fox jumps over the lazy dog. "


def make_payloads(record_bytes: int, compressible: float, seed: int) -> list[bytes]:
    """Record values, to be sent in turn. `compressible` is the share of each that is the same in all of them."""
    filler_bytes = int(record_bytes * compressible)
    random_bytes = record_bytes - filler_bytes
    filler = (FILLER * (filler_bytes // len(FILLER) + 1))[:filler_bytes]
    count = max(POOL_RECORDS_MIN, min(POOL_RECORDS_MAX, POOL_BYTES // max(1, record_bytes)))
    random = Random(seed)
    return [random.randbytes(random_bytes) + filler for _ in range(count)]


def make_keys(count: int) -> list[bytes]:
    """So many different keys of KEY_BYTES bytes each."""
    return [KEY_FORMAT.format(number).encode() for number in range(count)]
