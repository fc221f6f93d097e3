"""What a worker process is told to do, and what it tells: one JSON object a line, over its standard input and output.

To a worker: its task; `{"start_ns": …}` when every worker is ready; `{"stops": {…}}` to a consumer when the producers
have ended; `{"stop": true}` to end early. End of input ends it too, so that no worker outlives the command.

From a worker: `{"ready": true}`; an interval about once a second; `{"ended": …}` last. Instead of any of them
`{"failure": "one line"}`. Times are nanoseconds of the machine's monotonic clock, which all processes share.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from warp.cli.bench.histogram import Histogram

Phase = Literal["warm-up", "measured", "drain"]


@dataclass(frozen=True, slots=True)
class ProducerTask:
    """Load of one producer process.

    Without `records_per_s` it sends as fast as the client library takes records. With a `run_id` records begin with a
    stamp for the consumers of the same run.
    """

    topic: str
    config: dict[str, Any]
    record_bytes: int
    compressible: float
    seed: int
    keys: int
    records_per_s: float | None
    phase: float
    run_id: int | None
    warmup_s: float
    duration_s: float
    drain_s: float


@dataclass(frozen=True, slots=True)
class ConsumerTask:
    """Reads of one consumer process: from `begins` on, to `stops` or for `duration_s`, whatever is given.

    With a `run_id` only the records of that run count.
    """

    topic: str
    config: dict[str, Any]
    begins: dict[int, int]
    stops: dict[int, int] | None
    run_id: int | None
    warmup_s: float
    duration_s: float | None
    drain_s: float


@dataclass(slots=True)
class Interval:
    """What happened since the last interval of the same worker. `number` is the second that it ends, 1 being the first
    that is measured; `latency` are records that count, `early_latency` those that were due in the warm-up."""

    number: int
    phase: Phase
    seconds: float
    records: int = 0
    bytes: int = 0
    cpu_s: float = 0.0
    backlog: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    latency: Histogram = field(default_factory=Histogram)
    early_latency: Histogram = field(default_factory=Histogram)

    def to_json(self) -> dict[str, Any]:
        """What `interval_of` takes."""
        fields = {name: getattr(self, name) for name in _PLAIN_FIELDS}
        return {**fields, "latency": self.latency.to_json(), "early_latency": self.early_latency.to_json()}


_PLAIN_FIELDS = ("number", "phase", "seconds", "records", "bytes", "cpu_s", "backlog", "errors")


def interval_of(content: dict[str, Any]) -> Interval:
    """The interval that a worker has told."""
    latency, early = Histogram.from_json(content["latency"]), Histogram.from_json(content["early_latency"])
    return Interval(**{name: content[name] for name in _PLAIN_FIELDS}, latency=latency, early_latency=early)


def task_to_json(task: ProducerTask | ConsumerTask) -> dict[str, Any]:
    """What `task_of` takes."""
    return {"role": "producer" if isinstance(task, ProducerTask) else "consumer", **asdict(task)}


def task_of(content: dict[str, Any]) -> ProducerTask | ConsumerTask:
    """The task that a worker is told. JSON has turned partition numbers into text."""
    fields = {name: value for name, value in content.items() if name != "role"}
    if content["role"] == "producer":
        return ProducerTask(**fields)
    fields["begins"] = offsets_of(fields["begins"])
    fields["stops"] = None if fields["stops"] is None else offsets_of(fields["stops"])
    return ConsumerTask(**fields)


def offsets_of(content: dict[str, int]) -> dict[int, int]:
    """Offsets by partition, as JSON has carried them."""
    return {int(partition): offset for partition, offset in content.items()}
