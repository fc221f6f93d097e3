"""Names of objects: which of them this system can have made."""

from __future__ import annotations

import random

import pytest

from warp.clock import SystemClock
from warp.ids import IdSource, segment_key_time_ms

TAIL = "00112233445566778899"


def test_a_segment_key_tells_when_it_was_made() -> None:
    clock = SystemClock()
    before_ms = clock.time_ms()
    key = IdSource(clock, random.Random(1).randbytes).segment_key()
    time_ms = segment_key_time_ms(key)
    assert time_ms is not None
    assert before_ms <= time_ms <= clock.time_ms()


@pytest.mark.parametrize(
    "time", ["018bcf_56800", "+18bcfe56800", "-18bcfe56800", " 18bcfe56800", "0x8bcfe56800", "018BCFE56800"]
)
def test_what_int_would_take_for_a_number_is_no_time_of_a_key(time: str) -> None:
    assert segment_key_time_ms(f"segments/0f/{'018bcfe56800'}-{TAIL}") == 0x018BCFE56800
    assert segment_key_time_ms(f"segments/0f/{time}-{TAIL}") is None
