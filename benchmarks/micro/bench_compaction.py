"""Compaction by key: what it takes to note the keys of records and to write them without those that are superseded.

Each record is gone through twice, as a pass over a log does: once for its key, once to be kept or dropped. Records have
keys of 16 bytes and values of 100; half of them are superseded by later ones, as at Kafka's default dirty ratio. The
reference does the same record by record in Python. What a pass costs beside this, in reading extents and writing
segments, is in the macro benchmarks.
"""

from __future__ import annotations

import random
import sys

from benchmarks.micro.common import Comparison, Contender, Target, compare, main
from tests.reference import compaction as reference
from warp._compaction import KeyMap, compact_batches, note_keys
from warp._compression import compress, decompress
from warp._records import build_batch, parse_header, scan_batches
from warp.lifecycle.compact_log import SLOT_BYTES

NOW_MS = 1_700_000_000_000
OURS, PURE = "warp", "pure Python"
CODEC_NAMES = {0: "no codec", 1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}
RECORDS_PER_BATCH = 130
"""About 16 KiB, as clients make them by default."""
RECORDS = 130 * 240
SECRET = bytes(16)
FLOOR_RECORDS_PER_S = 500_000
LIMIT_BYTES = 64 * 2**20
HEADER_BYTES = 61


def extent(codec: int, records: int = RECORDS) -> bytes:
    """Batches in which every other record is superseded by a later one of the extent."""
    source = random.Random(1)
    numbers = [*range(records // 2), *range(records // 2)]
    source.shuffle(numbers)
    values = (source.randbytes(33).hex() + " status=ok region=eu-west-1 latency" for _ in numbers)
    pairs = [(b"key-%012d" % n, value.encode()[:100]) for n, value in zip(numbers, values, strict=True)]
    return b"".join(
        build_batch(
            [(key, value, (), NOW_MS) for key, value in pairs[start : start + RECORDS_PER_BATCH]], codec=codec
        )
        for start in range(0, records, RECORDS_PER_BATCH)
    )


def ours(data: bytes, map_bytes: int) -> int:
    """A pass over one extent; how many records are left."""
    keys = KeyMap(map_bytes, SECRET)
    until = note_keys(data, 0, keys, from_offset=0, until_offset=2**62, decompressed_bytes_max=LIMIT_BYTES)
    kept = compact_batches(
        data,
        0,
        keys,
        until_offset=until,
        now_ms=NOW_MS,
        horizon_ms=NOW_MS,
        decompressed_bytes_max=LIMIT_BYTES,
    )
    return kept.record_count


def pure(data: bytes) -> int:
    """The same in Python."""
    newest: dict[bytes, int] = {}
    reference.note(data, 0, newest, 2**62)
    kept = reference.compact(data, 0, newest, until_offset=2**62, now_ms=NOW_MS, horizon_ms=NOW_MS)
    return sum(span.record_count for span in scan_batches(kept))


def codec_alone(codec: int, data: bytes) -> int:
    """What the codec takes of it: every batch decompressed twice, and half of its bytes compressed."""
    done = 0
    for span in scan_batches(data):
        payload = memoryview(data)[span.position + HEADER_BYTES : span.position + span.size_bytes]
        decompress(codec, payload, LIMIT_BYTES)
        records = memoryview(decompress(codec, payload, LIMIT_BYTES))
        done += len(compress(codec, bytes(records[: len(records) // 2])))
    return done


def run(quick: bool) -> list[Comparison]:
    """The comparisons, in the order in which they are printed."""
    return [by_reference(quick), *(by_codec(codec, quick) for codec in CODEC_NAMES)]


def by_reference(quick: bool) -> Comparison:
    """Beside pure Python, on an extent small enough for it."""
    records = RECORDS // 30
    data = extent(0, records)
    assert ours(data, 2**20) == pure(data)
    return compare(
        f"Note and filter {records:,} records without a codec",
        [Contender(OURS, lambda: ours(data, 2**20)), Contender(PURE, lambda: pure(data), slow=True)],
        work=records,
        unit="records",
        targets=[Target(OURS, PURE, 50)],
        quick=quick,
    )


def by_codec(codec: int, quick: bool) -> Comparison:
    """An extent of a usual size, in a map as large as a pass makes it for so many; and what the codec itself takes."""
    data = extent(codec)
    assert parse_header(data).codec == codec
    contenders = [Contender(OURS, lambda: ours(data, SLOT_BYTES * RECORDS))]
    if codec:
        contenders.append(Contender("the codec alone", lambda: codec_alone(codec, data)))
    return compare(
        f"Note and filter {RECORDS:,} records, {CODEC_NAMES[codec]}, {len(data):,} bytes",
        contenders,
        work=RECORDS,
        unit="records",
        quick=quick,
    )


def floor(quick: bool) -> list[Comparison]:
    """All comparisons; says where fewer records are done per second than wanted."""
    comparisons = run(quick)
    for comparison in comparisons:
        for row in comparison.rows:
            if row.contender == OURS and row.rate < FLOOR_RECORDS_PER_S:
                print(f"below {FLOOR_RECORDS_PER_S:,} records/s: {comparison.title}", file=sys.stderr)
    return comparisons


if __name__ == "__main__":
    sys.exit(main("compaction", floor))
