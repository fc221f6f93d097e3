"""Targets notice what they are there for: a fault planted into the product is found by seeds alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.fuzz.table import TABLE
from tests.fuzz.targets import (
    answers,
    batches,
    codecs,
    compaction,
    frames,
    keys,
    messages,
    produce,
    segments,
    texts,
)
from warp._compaction import compact_batches
from warp._compression import decompress
from warp._frames import FrameSplitter
from warp._records import InvalidBatch
from warp.http.access import Access
from warp.log.segment import parse_index
from warp.objectstore.s3.heads import parse_usual_head
from warp.protocol import decode
from warp.security import scram
from warp.server.authentication import ConnectionAuthentication
from warp.server.dispatch import Dispatcher
from warp.server.pool import ConnectionPool


class DoubledFrames(FrameSplitter):
    """Hands out each frame twice."""

    def buffer_updated(self, nbytes: int) -> list[bytes | memoryview]:
        return FrameSplitter.buffer_updated(self, nbytes) * 2


def decode_less(*arguments: Any, **options: Any) -> Any:
    """Leaves the last element of each array out."""
    decoded: Any = decode(*arguments, **options)
    for field in decoded.__layout__.fields:
        value = getattr(decoded, field.name)
        if isinstance(value, list):
            setattr(decoded, field.name, value[:-1])
    return decoded


def refuse(*_: Any) -> Any:
    """Refuses every batch."""
    raise InvalidBatch(87, "no")


def decompress_more(codec: int, data: Any, limit_bytes: int) -> bytes:
    """Gives a byte too many."""
    return bytes(decompress(codec, data, limit_bytes)) + b"!"


def compact_shorter(*arguments: Any, **options: Any) -> Any:
    """Says that the offsets end earlier."""
    found = compact_batches(*arguments, **options)
    return found._replace(end_offset=found.end_offset - 1)


def parse_elsewhere(tail: Any, object_bytes: int) -> Any:
    """Reads other positions than those that stand there."""
    found = parse_index(tail, object_bytes)
    if isinstance(found, int):
        return found
    return found._replace(extents=[one._replace(position=one.position + 1) for one in found.extents])


def read_head_of_another(data: bytes, method: str) -> Any:
    """Takes every status for a success."""
    found = parse_usual_head(data, method)
    return found and (200, *found[1:])


def break_down() -> None:
    """Has a bug."""
    raise RuntimeError("a bug")


async def refuse_nobody(*_: Any, **__: Any) -> None:
    """Everybody may ask for everything."""


FAULTS: dict[str, tuple[Any, str, Any]] = {
    "frames": (frames, "FrameSplitter", DoubledFrames),
    "messages": (messages, "decode", decode_less),
    "produce": (produce, "validate_produce", refuse),
    "batches": (batches, "find_max_timestamp", lambda *_: (0, 0)),
    "codecs": (codecs, "decompress", decompress_more),
    "compaction": (compaction, "compact_batches", compact_shorter),
    "segments": (segments, "parse_index", parse_elsewhere),
    "requests": (Dispatcher, "_handle", lambda self, call: self.guarded(call, break_down)),
    "sasl": (scram, "is_proof", lambda *_: True),
    "keys": (keys, "verify", lambda *_: b"{}"),
    "handshake": (ConnectionAuthentication, "open", lambda self, *asked: self._dispatcher.open(*asked)),
    "tls": (ConnectionPool, "forget", lambda *_: None),
    "http": (Access, "refusal", refuse_nobody),
    "answers": (answers, "parse_usual_head", read_head_of_another),
    "texts": (texts, "prepare_name", lambda name: f"{name}\x01"),
}


def finds(name: str) -> Iterator[Exception]:
    target = TABLE[name].load()
    for data in target.seeds():
        try:
            target.check(data)
        except Exception as error:  # noqa: BLE001  whatever it is, it is a find
            yield error


def test_a_fault_is_planted_for_every_target() -> None:
    assert list(FAULTS) == list(TABLE)


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_noticed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    target = TABLE[name].load()
    target.check(next(iter(target.seeds())))  # so that what it keeps is made without the fault
    monkeypatch.setattr(*FAULTS[name])
    assert next(finds(name), None) is not None
