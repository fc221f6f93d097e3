"""What one request has written is seen together: whoever has seen a part of it sees the rest from then on (P2).

Which agent he asks does not matter, as long as he asks for an end, or is given nothing: such answers are fresh.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from tests.verifier.context import Context
from tests.verifier.freshness import Freshness
from tests.verifier.notes import Heights
from tests.verifier.placing import Placing
from tests.verifier.timeline import NEVER


def judge_together(
    context: Context, freshness: Freshness, placing: Placing, requests: Sequence[Sequence[int]]
) -> None:
    """Hold all looks at ends of logs against requests, which are batches by their numbers."""
    floors = _floors(context, freshness, placing, requests)
    for look in freshness.looks:
        heights = floors.get(look.log)
        if heights is None:
            continue
        context.looked("requests are seen as one")
        floor = heights.before(look.began)
        if look.end < floor:
            text = f"{look.text}; others had seen a part of a request that goes to {floor} here"
            context.violate("requests are seen as one", text, look.began)


def _floors(
    context: Context, freshness: Freshness, placing: Placing, requests: Sequence[Sequence[int]]
) -> dict[int, Heights]:
    """By log, what had to be seen of it from which moment on, because the rest of a request had been seen."""
    batches, topics = context.history.batches, context.topics
    found: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for request in requests:
        partitions = [batches.partition[batch] for batch in request]
        if not all(
            topics.has_one_life(context.history.partitions.all[number].topic) for number in partitions
        ):
            continue
        logs = [topics.last_log(number) for number in partitions]
        places = [placing.first_place[batch] for batch in request]
        seen = min(freshness.seen[log].when_above(at) for log, at in zip(logs, places, strict=True))
        if seen < NEVER:
            for batch, log, place in zip(request, logs, places, strict=True):
                found[log].append((seen, place + batches.count[batch]))
    floors: dict[int, Heights] = {}
    for log, steps in found.items():
        heights = floors[log] = Heights()
        for moment, height in sorted(steps):
            heights.reach(height, moment)
    return floors
