"""Reads everything back through one agent: every log from its start to its end, and what groups have committed."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tests.broker.client import joined
from tests.faults.caller import Caller, Where
from tests.verifier import CommittedOffsets, Limit, Partition, Readback, Recorder
from tests.verifier.adapters import raw
from warp.errors import ErrorCode

PATIENCE_S = 30.0
PARTITION_BYTES = 1 << 20


async def read_back(
    recorder: Recorder,
    agent: Where,
    places: Sequence[Partition],
    groups: Mapping[str, Sequence[Partition]],
) -> Readback:
    """All of it, as this agent tells it: these logs, and what each group has committed for its own."""
    back = recorder.readback(agent.name)

    def new_caller() -> Caller:
        return Caller(recorder, "read-back", [agent], random.Random(1))

    await asyncio.gather(*(_read(new_caller(), back, place) for place in places))
    caller = new_caller()
    for group, committed_places in groups.items():
        await _committed(caller, back, group, committed_places)
    caller.hang_up()
    back.now_ms = int(time.time() * 1000)
    return back


async def _read(caller: Caller, back: Readback, place: Partition) -> None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not await _read_once(caller, back, place):
                await caller.rest()
    except TimeoutError:
        back.cannot_read(place, f"not read to its end within {PATIENCE_S:g} s")
    finally:
        caller.hang_up()


async def _read_once(caller: Caller, back: Readback, place: Partition) -> bool:
    """False: it has to be read anew, because retention was faster or nobody answered."""
    start = await _start(caller, place)
    if start is None:
        return False
    found: list[tuple[int, bytes | None, bytes | None]] = []
    position = start
    while True:
        request = raw.fetch({place: position}, partition_max_bytes=PARTITION_BYTES)
        response = await caller.ask_aside(request, raw.VERSIONS["fetch"])
        if response is None:
            return False
        [part] = response.responses[0].partitions
        if part.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
            back.does_not_know(place)
            return True
        if part.error_code:
            return False
        data = joined(part.records)
        if not data:
            log = back.log(place, start, part.high_watermark)
            for record in found:
                log.add(*record)
            return True
        records, position = raw.records_in(data, position)
        found += records


async def _start(caller: Caller, place: Partition) -> int | None:
    response = await caller.ask_aside(raw.list_offsets([place], Limit.EARLIEST), raw.VERSIONS["list offsets"])
    if response is None:
        return None
    [listed] = raw.listed(response).parts.values()
    if listed.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
        return 0  # and the fetch will say so
    return None if listed.error_code else listed.offset


async def _committed(caller: Caller, back: Readback, group: str, places: Sequence[Partition]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        response: Any = await caller.ask_aside(raw.offset_fetch(group, places), raw.VERSIONS["offset fetch"])
        answer = None if response is None else raw.committed_offsets(response)
        if isinstance(answer, CommittedOffsets):
            back.group(group, answer.offsets)
            return
        await caller.rest()
    raise AssertionError(f"nobody tells what {group} has committed")
