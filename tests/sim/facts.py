"""What clients of a world's own topics write: told to the verifier, which knows what follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests import verifier
from tests.verifier import Op, Partition, Placed, Produce, Produced, Recorder

__all__ = ["Batch", "Facts", "Partition"]


@dataclass(slots=True, eq=False)
class Batch:
    """One batch that some producer sends, perhaps several times."""

    producer: str
    partition: Partition
    number: int
    """Its place among the batches of this producer to this partition."""
    values: list[bytes]
    data: bytes
    is_idempotent: bool
    base_sequence: int = -1
    base_offset: int | None = None
    """Where it was acknowledged."""
    timestamp_ms: int = -1
    """Of all its records; -1 where nobody has noted it."""
    recorded: verifier.Batch | None = None
    """As the verifier knows it."""


class Facts:
    """Sends and acknowledgements; `acknowledged` counts batches, `records_read` those that readers got."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.acknowledged = 0
        self.records_read = 0

    def sends(self, client: str, batches: Sequence[Batch], life: str) -> Op:
        """A request is about to be sent to an agent."""
        return self.recorder.begin(client, Produce([self._recorded(batch) for batch in batches]), life)

    def answered(
        self, op: Op, batches: Sequence[Batch], answers: Mapping[Partition, tuple[int, int]]
    ) -> None:
        """It was answered, with an error code and a base offset for each partition."""
        op.answered(Produced({place: Placed(code, offset) for place, (code, offset) in answers.items()}))
        for batch in batches:
            code, offset = answers.get(batch.partition, (-1, -1))
            if not code:
                self.acknowledged += 1
                if batch.base_offset is None:
                    batch.base_offset = offset

    def _recorded(self, batch: Batch) -> verifier.Batch:
        if batch.recorded is None:
            batch.recorded = self.recorder.batch(
                batch.partition,
                [(None, value) for value in batch.values],
                producer=batch.producer if batch.is_idempotent else "",
                base_sequence=batch.base_sequence,
                timestamp_ms=batch.timestamp_ms,
            )
        return batch.recorded
