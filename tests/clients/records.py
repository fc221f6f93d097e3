"""Records that every client test sends, chosen to be told apart when one is lost, doubled or changed."""

from __future__ import annotations

import random


def sample_records(count: int, seed: int = 7) -> list[tuple[bytes | None, bytes | None]]:
    """`count` records: some without key, one tombstone, values from 0 to about 2,000 bytes, compressible and not."""
    source = random.Random(seed)
    records: list[tuple[bytes | None, bytes | None]] = []
    for number in range(count):
        key = None if number % 5 == 0 else b"key-%d" % (number % 17)
        head = b"%08d:" % number
        body = source.randbytes(source.randrange(200)) if number % 2 else b"abcdefgh" * source.randrange(250)
        records.append((key, head + body))
    records.append((b"tombstone", None))
    return records
