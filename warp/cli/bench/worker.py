"""A worker process of `warp bench`: `python -m warp.cli.bench.worker`, talked to as `tasks` says.

A process of its own for each, because one interpreter feeds about one core's worth of librdkafka.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final, TextIO

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from warp.cli.bench.consuming import Consuming
from warp.cli.bench.producing import Producing
from warp.cli.bench.tasks import ConsumerTask, Interval, ProducerTask, offsets_of, task_of

SWITCH_INTERVAL_S: Final = 0.0005
"""How long one of the two threads of a producer may keep the other waiting; Python's default is 5 ms."""

Work = Producing | Consuming


class Worker:
    """One worker. Lines come on `source`, go to `sink`."""

    def __init__(self, source: TextIO, sink: TextIO) -> None:
        self._source = source
        self._sink = sink
        self._lock = threading.Lock()
        self._started = threading.Event()
        self._start_ns: int | None = None
        self._last_error = ""

    def run(self) -> None:
        """Do what the first line says. Failures are told, not raised."""
        try:
            task = task_of(json.loads(self._source.readline()))
            client, work = self._open(task)
            threading.Thread(target=self._listen, args=(work,), name="bench-listen", daemon=True).start()
            client.list_topics(task.topic, timeout=float(task.config["socket.timeout.ms"]) / 1000)
            self._tell({"ready": True})
            self._started.wait()
            if self._start_ns is not None:
                self._tell({"ended": work.run(self._start_ns)})
        except KafkaException as error:
            self._tell({"failure": self._describe(error)})
        except BrokenPipeError:
            # The command is gone, and with it whoever wanted to know.
            return

    def _open(self, task: ProducerTask | ConsumerTask) -> tuple[Producer | Consumer, Work]:
        config = {**task.config, "error_cb": self._note_error}
        clock, cpu = time.monotonic_ns, time.process_time
        if isinstance(task, ProducerTask):
            sys.setswitchinterval(SWITCH_INTERVAL_S)
            producer = Producer(config)
            return producer, Producing(
                task, producer, clock_ns=clock, sleep_s=time.sleep, cpu_s=cpu, emit=self._emit
            )
        consumer = Consumer(config)
        return consumer, Consuming(task, consumer, clock_ns=clock, cpu_s=cpu, emit=self._emit)

    def _listen(self, work: Work) -> None:
        """Take the lines that come while the work is done; the end of them ends it."""
        for line in self._source:
            told: dict[str, Any] = json.loads(line)
            if "start_ns" in told:
                self._start_ns = told["start_ns"]
                self._started.set()
            elif "stops" in told and isinstance(work, Consuming):
                work.stops = offsets_of(told["stops"])
            elif "stop" in told:
                work.stop()
        work.stop()
        self._started.set()

    def _emit(self, interval: Interval) -> None:
        self._tell(interval.to_json())

    def _tell(self, content: dict[str, Any]) -> None:
        with self._lock:
            self._sink.write(json.dumps(content, separators=(",", ":")) + "\n")
            self._sink.flush()

    def _note_error(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN or not self._last_error:
            self._last_error = error.str()

    def _describe(self, error: KafkaException) -> str:
        reason = error.args[0]
        assert isinstance(reason, KafkaError)
        why = f" ({self._last_error})" if self._last_error and self._last_error != reason.str() else ""
        return f"{reason.str()} ({reason.name()}){why}"


def main(leave: Callable[[int], None] = os._exit) -> None:
    """Run a worker on this process's standard input and output.

    It leaves without taking the client apart: that would wait for brokers that may not answer.
    """
    Worker(sys.stdin, sys.stdout).run()
    sys.stdout.flush()
    leave(0)


if __name__ == "__main__":
    main()
