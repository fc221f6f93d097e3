"""How a segment is shown: for people, and as one JSON object."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from warp._records import Record
from warp.cli.inspect.examine import Examined, ShownBatch, ShownExtent
from warp.cli.tables import printable, table
from warp.ids import uuid_text
from warp.log.segment import NO_OFFSET, Receipt

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
VALUE_CHARACTERS_MAX = 60


def time_text(time_ms: int | None) -> str:
    """UTC, to the millisecond; `-` for none."""
    if time_ms is None or time_ms < 0:
        return "-"
    try:
        return (
            datetime.fromtimestamp(time_ms / 1000, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z")
        )
    except (OverflowError, OSError, ValueError):
        return str(time_ms)


def human(found: Examined, limit: int) -> str:
    """Lines for people."""
    lines = [f"{printable(found.name)}: {found.size_bytes:,} bytes"]
    if found.index is not None:
        index = found.index
        lines[0] += (
            f", level {index.level}, sealed {time_text(index.created_ms)}, {len(index.extents)} extents, "
            f"{len(index.receipts)} receipts"
        )
    lines += [f"damaged: {problem}" for problem in found.problems]
    if found.index is None and found.salvaged_end:
        lines.append(
            f"without its footer it still has {found.salvaged_batches} batches with {found.salvaged_records} records, "
            f"up to byte {found.salvaged_end:,}; of which partitions and offsets, nobody can tell from it"
        )
        lines += _batch_lines(found.salvaged, found.salvaged_batches)
    if found.extents:
        lines += [
            "",
            table(_EXTENT_HEADER, [_extent_cells(n, s) for n, s in enumerate(found.extents[:limit])]),
        ]
        lines += _more(len(found.extents), limit, "extents")
    for number, shown in enumerate(found.extents[:limit]):
        if shown.problem:
            lines += ["", f"damaged: extent {number}: {shown.problem}"]
        if shown.batches:
            lines += ["", f"batches of extent {number}, {printable(_partition(shown))}:"]
            lines += _batch_lines(shown.batches, len(shown.batches))
    if found.index is not None and found.index.receipts:
        lines += ["", *_receipt_lines(found.index.receipts[:limit])]
        lines += _more(len(found.index.receipts), limit, "receipts")
    return "\n".join(lines)


def as_json(found: Examined, limit: int) -> dict[str, Any]:
    """One object; docs/fsck.md names its fields."""
    answer: dict[str, Any] = {
        "name": found.name,
        "bytes": found.size_bytes,
        "intact": is_intact(found),
        "problems": [*found.problems, *(shown.problem for shown in found.extents if shown.problem)],
    }
    if found.index is None:
        return answer | {
            "salvaged": {
                "batches": found.salvaged_batches,
                "records": found.salvaged_records,
                "end": found.salvaged_end,
                "first": [_batch_json(batch) for batch in found.salvaged],
            }
        }
    index = found.index
    return answer | {
        "level": index.level,
        "created_ms": index.created_ms,
        "extent_count": len(index.extents),
        "receipt_count": len(index.receipts),
        "extents": [_extent_json(shown) for shown in found.extents[:limit]],
        "receipts": [
            {"key": receipt.key, "runs": [run._asdict() for run in receipt.runs]}
            for receipt in index.receipts[:limit]
        ],
    }


def is_intact(found: Examined) -> bool:
    """Nothing that was read is damaged."""
    return not found.problems and not any(shown.problem for shown in found.extents)


_EXTENT_HEADER = (
    "EXTENT",
    "PARTITION",
    "POSITION",
    "BYTES",
    "RECORDS",
    "OFFSETS",
    "FIRST TIME",
    "MAX TIME",
    "CRC",
)


def _extent_cells(number: int, shown: ShownExtent) -> Sequence[str]:
    extent = shown.extent
    offsets = "-" if extent.base_offset == NO_OFFSET else f"{extent.base_offset}..{extent.end_offset - 1}"
    return (
        str(number),
        _partition(shown),
        str(extent.position),
        str(extent.size_bytes),
        str(extent.record_count),
        offsets,
        time_text(extent.first_timestamp_ms),
        time_text(extent.max_timestamp_ms),
        f"{extent.crc:08x}",
    )


def _partition(shown: ShownExtent) -> str:
    return f"{shown.extent.topic}-{shown.extent.partition}"


def _batch_lines(batches: Sequence[ShownBatch], total: int) -> list[str]:
    lines = []
    for batch in batches:
        lines.append(f"  {_batch_text(batch)}")
        lines += [f"    {_record_text(record, batch)}" for record in batch.records]
    return lines + _more(total, len(batches), "batches")


def _batch_text(batch: ShownBatch) -> str:
    header = batch.header
    if header is None:
        return f"byte {batch.position}: {batch.problem}"
    offset = "" if batch.base_offset == NO_OFFSET else f"offset {batch.base_offset}, "
    producer = "" if header.producer_id < 0 else (
        f", producer {header.producer_id} epoch {header.producer_epoch} sequence {header.base_sequence}"
    )  # fmt: skip
    kind = " control" if header.is_control else " transactional" if header.is_transactional else ""
    problem = f", DAMAGED: {batch.problem}" if batch.problem else ""
    return (
        f"byte {batch.position}: {offset}{header.size_bytes} bytes,{kind} {header.record_count} records over "
        f"{header.last_offset_delta + 1} offsets, {_codec(header.codec)}, up to {time_text(header.max_timestamp)}"
        f"{producer}{problem}"
    )


def _codec(number: int) -> str:
    return CODECS[number] if number < len(CODECS) else f"codec {number}"


def _record_text(record: Record, batch: ShownBatch) -> str:
    offset = record.offset if batch.base_offset == NO_OFFSET else batch.base_offset + _delta(record, batch)
    headers = f" headers {len(record.headers)}" if record.headers else ""
    return (
        f"{'+' if batch.base_offset == NO_OFFSET else ''}{offset} {time_text(record.timestamp)} "
        f"{_blob(record.key)} = {_blob(record.value)}{headers}"
    )


def _delta(record: Record, batch: ShownBatch) -> int:
    return record.offset - (batch.header.base_offset if batch.header is not None else 0)


def _blob(data: bytes | None) -> str:
    if data is None:
        return "null"
    text = printable(data[:VALUE_CHARACTERS_MAX].decode("utf-8", "backslashreplace"))
    return f"'{text}'" + ("..." if len(data) > VALUE_CHARACTERS_MAX else "")


def _receipt_lines(receipts: Sequence[Receipt]) -> list[str]:
    lines = ["receipts of commits:"]
    for receipt in receipts:
        lines.append(f"  {printable(receipt.key)}" + ("" if receipt.runs else ": nothing of it was accepted"))
        lines += [
            f"    bytes {run.position} to {run.position + run.size_bytes}: offsets "
            f"{run.base_offset}..{run.base_offset + run.offset_count - 1}"
            for run in receipt.runs
        ]
    return lines


def _more(total: int, shown: int, what: str) -> list[str]:
    return [f"... and {total - shown} more {what}"] if total > shown else []


def _extent_json(shown: ShownExtent) -> dict[str, Any]:
    fields = shown.extent._asdict() | {"topic_id": uuid_text(shown.extent.topic_id), "problem": shown.problem}
    return fields | ({"batches": [_batch_json(batch) for batch in shown.batches]} if shown.batches else {})


def _batch_json(batch: ShownBatch) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "position": batch.position,
        "problem": batch.problem,
        "base_offset": batch.base_offset,
    }
    header = batch.header
    if header is None:
        return fields
    fields |= {
        name: getattr(header, name)
        for name in (
            "size_bytes", "last_offset_delta", "record_count", "base_timestamp", "max_timestamp", "producer_id",
            "producer_epoch", "base_sequence", "is_control", "is_transactional",
        )
    }  # fmt: skip
    fields["codec"] = _codec(header.codec)
    return fields | (
        {"records": [_record_json(record, batch) for record in batch.records]} if batch.records else {}
    )


def _record_json(record: Record, batch: ShownBatch) -> dict[str, Any]:
    return {
        "offset_delta": _delta(record, batch),
        "timestamp": record.timestamp,
        "key_base64": _base64(record.key),
        "value_base64": _base64(record.value),
        "headers": [{"name": name, "value_base64": _base64(value)} for name, value in record.headers],
    }


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode("ascii")
