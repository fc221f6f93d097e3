"""Looking into segments without a database: whole ones, and what is left of damaged ones."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import pytest

from warp._records import build_batch, stamp_batches
from warp.cli.inspect import examine as examine_module
from warp.cli.inspect.examine import Examined, Wanted, examine
from warp.cli.inspect.segment import as_json, human, is_intact, time_text
from warp.cli.inspect.source import FileSource
from warp.cli.main import main
from warp.errors import StartError
from warp.ids import TopicId
from warp.log.segment import ExtentBatches, Receipt, ReceiptRun, build_segment

NOW_MS = 1_700_000_000_000
TOPIC = TopicId(bytes(range(16)))
ALL = Wanted(batches=True, records=True, limit=100)


def batch(*values: bytes | None, codec: int = 0, base_offset: int = 0, producer: int = -1) -> bytes:
    records = [
        (b"key", value, [("h", b"x")] if value == b"h" else [], NOW_MS + number)
        for number, value in enumerate(values)
    ]
    known = {} if producer < 0 else {"producer_id": producer, "producer_epoch": 2, "base_sequence": 5}
    data = bytearray(build_batch(records, codec=codec, **known))  # type: ignore[arg-type]  # names of its own
    stamp_batches(data, base_offset)
    return bytes(data)


def extent(partition: int, *batches: bytes, records: int, base: int = -1, end: int = -1) -> ExtentBatches:
    return ExtentBatches(TOPIC, "or\x1bders", partition, batches, records, NOW_MS, NOW_MS + 1, base, end)


def write(path: Path, *extents: ExtentBatches, level: int = 0, receipts: tuple[Receipt, ...] = ()) -> Path:
    parts = build_segment(extents, created_ms=NOW_MS, level=level, receipts=receipts)
    path.write_bytes(b"".join(bytes(part) for part in parts))
    return path


def look(path: Path, wanted: Wanted = ALL) -> Examined:
    return asyncio.run(examine(FileSource(path), wanted))


@pytest.fixture
def segment(tmp_path: Path) -> Path:
    receipts = (Receipt("segments/aa/b", [ReceiptRun(8, 100, 7, 3)]), Receipt("segments/aa/c", []))
    first = extent(0, batch(b"a", b"b"), batch(b"c", producer=9), records=3)
    return write(tmp_path / "segment", first, extent(1, batch(None, codec=4), records=1), receipts=receipts)


def test_a_whole_segment_is_shown_down_to_its_records(segment: Path) -> None:
    found = look(segment)
    assert is_intact(found)
    shown = human(found, 100)
    for text in (
        "level 0, sealed 2023-11-14T22:13:20.000Z, 2 extents, 2 receipts",
        "or\\x1bders-0",
        "2 records over 2 offsets, none",
        ", producer 9 epoch 2 sequence 5",
        "+1 2023-11-14T22:13:20.001Z 'key' = 'b'",
        "'key' = null",
        "1 records over 1 offsets, zstd",
        "    bytes 8 to 108: offsets 7..9",
        "  segments/aa/c: nothing of it was accepted",
    ):
        assert text in shown, text
    assert "\x1b" not in shown
    answer = json.loads(json.dumps(as_json(found, 100)))
    assert (answer["intact"], answer["extent_count"], answer["receipts"][0]["runs"][0]["base_offset"]) == (
        True,
        2,
        7,
    )
    assert answer["extents"][0]["batches"][1]["producer_id"] == 9


def test_without_being_asked_no_batch_is_read(segment: Path) -> None:
    found = look(segment, Wanted())
    assert all(not shown.batches for shown in found.extents)


def test_lists_are_cut_at_the_limit_and_say_so(segment: Path) -> None:
    shown = human(look(segment, Wanted(batches=True, limit=1)), 1)
    assert "... and 1 more extents" in shown
    assert "... and 1 more receipts" in shown
    assert "orders-1" not in shown


def test_a_merged_segment_is_shown_with_its_offsets(tmp_path: Path) -> None:
    merged = extent(
        0, batch(b"a", b"h", base_offset=40), batch(b"c", base_offset=42), records=3, base=40, end=43
    )
    found = look(write(tmp_path / "merged", merged, level=1))
    assert is_intact(found)
    shown = human(found, 100)
    assert "40..42" in shown
    assert "offset 42, " in shown
    assert "\n    41 2023" in shown
    assert "'key' = 'h' headers 1" in shown


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (
            extent(0, batch(b"a", base_offset=41), records=1, base=40, end=41),
            "says that it begins at offset 41, not at 40",
        ),
        (
            extent(0, batch(b"a", base_offset=40), records=1, base=40, end=44),
            "it ends at offset 41, the footer says 44",
        ),
        (
            extent(0, batch(b"a", base_offset=40), records=6, base=40, end=41),
            "it has 1 records, the footer says 6",
        ),
    ],
)
def test_a_footer_that_does_not_fit_its_batches_is_told(
    tmp_path: Path, made: ExtentBatches, text: str
) -> None:
    found = look(write(tmp_path / "odd", made, level=1))
    assert not is_intact(found)
    assert text in human(found, 100)


def test_every_flipped_bit_is_told_and_ends_nothing(segment: Path) -> None:
    whole = segment.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        segment.write_bytes(damaged)
        found = look(segment)
        assert not is_intact(found), f"byte {place}"
        human(found, 100)
        json.dumps(as_json(found, 100))


def test_every_cut_leaves_the_batches_before_it(segment: Path) -> None:
    whole = segment.read_bytes()
    sizes = [len(batch(b"a", b"b")), len(batch(b"c", producer=9)), len(batch(None, codec=4))]
    found = look(segment)
    ends = [8 + sum(sizes[:count]) for count in range(4)]
    for length in range(len(whole)):
        segment.write_bytes(whole[:length])
        found = look(segment)
        assert not is_intact(found)
        assert found.salvaged_batches == sum(end <= length for end in ends[1:]), f"{length} bytes"
        if length >= 8:
            assert "without its footer it still has" in human(found, 100)
    assert as_json(found, 100)["salvaged"] | {"first": []} == {
        "batches": 3, "records": 4, "end": ends[3], "first": [],
    }  # fmt: skip


def test_batches_are_salvaged_across_the_borders_of_what_is_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = random.Random(3)
    batches = [batch(source.randbytes(source.randrange(1, 400))) for _ in range(50)]
    path = write(tmp_path / "long", extent(0, *batches, records=50))
    path.write_bytes(path.read_bytes()[:-1])
    for window_bytes in (61, 100, 1000):
        monkeypatch.setattr(examine_module, "WINDOW_BYTES", window_bytes)
        found = look(path, Wanted(batches=True, limit=5))
        assert (found.salvaged_batches, found.salvaged_records, len(found.salvaged)) == (50, 50, 5)
        assert not any(shown.problem for shown in found.salvaged)


def test_what_is_no_segment_at_all_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for content in (b"", b"short", bytes(5000)):
        (tmp_path / "x").write_bytes(content)
        assert main(["inspect", "segment", str(tmp_path / "x")]) == 1
        assert "damaged: not a readable segment" in capsys.readouterr().out


def test_a_file_that_is_gone_or_cut_short_meanwhile_is_told(segment: Path) -> None:
    with pytest.raises(StartError, match="No such file"):
        FileSource(segment.with_name("gone"))
    source = FileSource(segment)
    segment.write_bytes(b"WARPSEG\x01")
    with pytest.raises(StartError, match="cut short while it was read"):
        asyncio.run(examine(source, ALL))


def test_times_that_no_calendar_has_are_shown_as_numbers() -> None:
    assert [time_text(value) for value in (None, -1, 2**62)] == ["-", "-", str(2**62)]
