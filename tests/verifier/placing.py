"""Who has sent what is there: every record is explained by one send, every acknowledged batch stands in its place.

Acknowledgements claim their offsets first. What is left can only be of batches whose outcome nobody knows; each send of
those accounts for one copy at most, and with idempotence all sends together do (P1, P4, P7).
"""

from __future__ import annotations

from array import array
from collections import defaultdict

from tests.verifier.context import Context
from tests.verifier.history import UNKNOWN
from tests.verifier.logs import SHOWN_MAX, FinalLog, Logs
from tests.verifier.timeline import NO_PLACE
from tests.verifier.topics import Standing


class Placing:
    """Where every batch stands: columns by the numbers of batches, and of placements."""

    def __init__(self, context: Context, logs: Logs) -> None:
        self._context = context
        self._history = context.history
        self._batches = context.history.batches
        self._timeline = context.timeline
        self._logs = logs.by_partition
        count = len(self._batches)
        self.copies = array("i", [0]) * count
        self.first_place = array("q", [UNKNOWN]) * count
        """Where its first copy stands, or stood."""
        self.placed_batch = array("q")
        self.placed_base = array("q")
        self.owners: dict[int, array[int]] = {
            partition: array("q", [UNKNOWN]) * log.end for partition, log in self._logs.items()
        }
        """By partition, the placement at each offset."""
        self._complaints: dict[tuple[str, int], int] = defaultdict(int)
        self._anywhere: dict[int, list[int]] | None = None
        self._left: dict[int, int] = {}
        """How many more copies of a batch there may be."""
        self._nameless: list[int] = []
        """Batches that were acknowledged without being told where."""
        for claim in range(len(self._timeline.claim_batch)):
            self._claim(claim)
        self._explain_the_rest()
        for batch in self._nameless:
            self._find_nameless(batch)
        self._count()

    def _count(self) -> None:
        """Say how much was looked at."""
        for batch, copies in enumerate(self.copies):
            if not copies:
                continue
            is_idempotent = self._batches.producer[batch] != UNKNOWN
            self._context.looked("once with idempotence" if is_idempotent else "copies have senders")
            if self._batches.count[batch] > 1:
                self._context.looked("batches are whole", copies)

    def place_of(self, log: FinalLog, offset: int) -> tuple[int, int] | None:
        """The batch that stands, or stood, at an offset, and the content that it has there."""
        placement = self.owners[log.partition][offset]
        if placement == UNKNOWN:
            return None
        batch = self.placed_batch[placement]
        return batch, self._batches.contents[
            self._batches.first[batch] + offset - self.placed_base[placement]
        ]

    def _complain(self, check: str, partition: int, text: str) -> None:
        """Tell some of one kind of each partition."""
        self._complaints[check, partition] += 1
        if self._complaints[check, partition] <= SHOWN_MAX:
            self._context.violate(check, text)

    def _place(self, log: FinalLog, batch: int, base: int) -> None:
        owners, placement = self.owners[log.partition], len(self.placed_batch)
        self.placed_batch.append(batch)
        self.placed_base.append(base)
        self.copies[batch] += 1
        if self.first_place[batch] == UNKNOWN:
            self.first_place[batch] = base
        end = min(base + self._batches.count[batch], log.end)
        if end - base == 1:
            owners[base] = placement
        else:
            for offset in range(base, end):
                owners[offset] = placement

    # Acknowledged batches.

    def _claim(self, claim: int) -> None:
        timeline = self._timeline
        batch, base = timeline.claim_batch[claim], timeline.claim_offset[claim]
        partition = self._batches.partition[batch]
        log = self._logs.get(partition)
        if log is None:
            return
        standing = self._context.topics.standing(
            partition, timeline.claim_sent[claim], timeline.claim_moment[claim]
        )
        if standing is Standing.GONE:
            return
        if base == NO_PLACE:
            if standing is Standing.HERE:
                self._nameless.append(batch)
            return
        if standing is Standing.PERHAPS:
            if self._fits(log, batch, base):
                self._place(log, batch, base)
            return
        self._context.checks["acknowledged records are there"] += self._batches.count[batch]
        if self._judge_claim(log, batch, base):
            self._place(log, batch, base)

    def _judge_claim(self, log: FinalLog, batch: int, base: int) -> bool:
        """Does an acknowledged batch stand where it should? True also where something may have taken it."""
        end = base + self._batches.count[batch]
        if end > log.end:
            self._miss(log, batch, f"was acknowledged at {base}, where the log ends at {log.end}")
            return False
        owners, known = self.owners[log.partition], log.known
        first = self._batches.first[batch] - base
        for offset in range(base, end):
            found = known[offset]
            if owners[offset] != UNKNOWN:
                other = self._history.name_of(self.placed_batch[owners[offset]])
                self._miss(log, batch, f"was acknowledged at {offset}, and so was {other}")
                return False
            if found == self._batches.contents[first + offset]:
                continue
            if found != UNKNOWN:
                what = self._history.contents.describe(found)
                self._miss(log, batch, f"was acknowledged at {base}, and at {offset} there is {what}")
                return False
            if offset >= log.last_start and self._context.rules_of(log.partition).is_dense:
                self._miss(log, batch, f"was acknowledged at {base}, and there is nothing at {offset}")
                return False
        return True

    def _miss(self, log: FinalLog, batch: int, text: str) -> None:
        name = self._history.name_of(batch)
        self._complain("acknowledged records are there", log.partition, f"{name} {text}")

    # All others.

    def _explain_the_rest(self) -> None:
        """Look for senders of what nobody has claimed."""
        candidates: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        self._left = self._sends_left()
        for batch in self._left:
            by_content = candidates[self._batches.partition[batch]]
            for content in dict.fromkeys(self._batches.records(batch)):
                by_content[content].append(batch)
        for partition, log in self._logs.items():
            owners, by_content = self.owners[partition], candidates[partition]
            self._context.looked("nothing comes from nowhere", log.end - log.start)
            for offset, content in enumerate(log.known):
                if content != UNKNOWN and owners[offset] == UNKNOWN:
                    self._explain(log, offset, content, by_content.get(content, []))

    def _sends_left(self) -> dict[int, int]:
        """Batches that may be there besides those that have their places, and how often."""
        left = {}
        for batch, doubts in enumerate(self._timeline.doubts):
            if doubts > 0 and self._may_be_here(batch):
                if self._batches.producer[batch] == UNKNOWN:
                    left[batch] = doubts
                elif not self._timeline.is_acknowledged[batch]:
                    left[batch] = 1
        for batch in self._nameless:
            left[batch] = left.get(batch, 0) + 1 if self._batches.producer[batch] == UNKNOWN else 1
        return left

    def _may_be_here(self, batch: int) -> bool:
        partition = self._batches.partition[batch]
        standing = self._context.topics.standing(
            partition, self._timeline.first_sent[batch], self._timeline.until(batch)
        )
        return standing is not Standing.GONE

    def _explain(self, log: FinalLog, offset: int, content: int, candidates: list[int]) -> None:
        torn: int | None = None
        for batch in candidates:
            if not self._left[batch]:
                continue
            for index, record in enumerate(self._batches.records(batch)):
                if record == content and self._fits(log, batch, offset - index):
                    self._left[batch] -= 1
                    self._place(log, batch, offset - index)
                    return
            torn = batch
        if torn is not None:
            self._context.looked("batches are whole")
            self._complain(
                "batches are whole",
                log.partition,
                f"{self._history.name_of(torn)} stands in part at {offset}",
            )
        else:
            self._accuse(log, offset, content)

    def _fits(self, log: FinalLog, batch: int, base: int) -> bool:
        """Can a batch have been stored from an offset on, as far as one can see?"""
        end = base + self._batches.count[batch]
        if base < 0 or end > log.end:
            return False
        records = self._batches.records(batch)
        if any(owner != UNKNOWN for owner in self.owners[log.partition][base:end]):
            return False
        return all(
            found in (content, UNKNOWN) for content, found in zip(records, log.known[base:end], strict=True)
        )

    def _accuse(self, log: FinalLog, offset: int, content: int) -> None:
        """Nobody has sent this, or not so often, or not to here."""
        partition = self._context.name(log.partition)
        what = f"{self._history.contents.describe(content)} at {partition} offset {offset}"
        senders = self._senders(content)
        here = [batch for batch in senders if self._batches.partition[batch] == log.partition]
        if not senders:
            self._complain("nothing comes from nowhere", log.partition, f"{what} was never sent")
            return
        if not here:
            other = self._history.name_of(senders[0])
            self._complain("nothing comes from nowhere", log.partition, f"{what} was sent elsewhere: {other}")
            return
        batch = next((b for b in here if self.copies[b]), here[0])
        name = self._history.name_of(batch)
        if not self._may_be_here(batch):
            self._complain("deleted topics stay away", log.partition, f"{what} is of a deleted topic: {name}")
        elif self._batches.producer[batch] != UNKNOWN and self.copies[batch]:
            text = f"{what} stands there again: {name} is at {self.first_place[batch]}"
            self._complain("once with idempotence", log.partition, text)
        elif self._timeline.is_acknowledged[batch]:
            places = f"acknowledged elsewhere, {self._timeline.sends[batch]} times sent"
            self._complain("copies have senders", log.partition, f"{what}: {name} was {places}")
        else:
            self._complain("copies have senders", log.partition, f"{what}: {name} was refused each time")

    def _senders(self, content: int) -> list[int]:
        if self._anywhere is None:
            self._anywhere = defaultdict(list)
            for batch in range(len(self._batches)):
                for each in dict.fromkeys(self._batches.records(batch)):
                    self._anywhere[each].append(batch)
        return self._anywhere.get(content, [])

    def _find_nameless(self, batch: int) -> None:
        self._context.looked("acknowledged records are there", self._batches.count[batch])
        partition = self._batches.partition[batch]
        if not self.copies[batch] and self._logs[partition].is_whole:
            text = f"{self._history.name_of(batch)} was acknowledged, and stands nowhere"
            self._complain("acknowledged records are there", partition, text)
