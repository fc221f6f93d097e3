"""The metadata store on SQLite: commits by their number of logs, reads of the index, a catalogue of 10,000 partitions.

Commits go to a file and are synced. Their yardstick is the least that a durable commit can be: one row in one table
with the same settings. The catalogue's is what most lookups cost, the version that has not changed.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.micro.common import Comparison, Contender, compare, main
from warp.clock import SystemClock
from warp.cluster.catalogue import CatalogueService
from warp.ids import IdSource, LogId, ProducerId
from warp.metadata import sqlite_sync
from warp.metadata.model import BatchEntry, ExtentQuery, NewTopic, SegmentCommit, Topic
from warp.metadata.sqlite import SqliteDatabase
from warp.metadata.store import MetadataStore

CLOCK = SystemClock()
IDS = IdSource(CLOCK, os.urandom)


def run(quick: bool) -> list[Comparison]:
    """The comparisons, in the order in which they are printed."""
    return [commits(quick), reads(quick), catalogue(quick)]


def commits(quick: bool) -> Comparison:
    """One segment per commit, one batch of an idempotent producer per log."""
    with opened_store() as (store, folder):
        topic = create_topics(store, 1, 1000)[0]
        appender = Appender(store, topic)
        bare = BareCommit(folder / "bare.sqlite")
        contenders = [
            Contender("one row in one table", bare),
            *(
                Contender(f"a commit of {logs} logs", lambda logs=logs: appender(logs))  # type: ignore[misc]
                for logs in (1, 64, 1000)
            ),
        ]
        result = compare("Commits, synced to disk", contenders, work=1, unit="commits", quick=quick)
        bare.close()
    return result


def reads(quick: bool) -> Comparison:
    """Reads of the index of logs with 50 extents each."""
    with opened_store() as (store, _):
        topic = create_topics(store, 1, 1000)[0]
        appender = Appender(store, topic)
        for _ in range(50):
            appender(1000)

        def read(logs: int, bytes_max: int) -> Callable[[], object]:
            queries = [ExtentQuery(log_id, 200, bytes_max) for log_id in topic.logs[:logs]]
            return lambda: finish(store.read_extents(queries))

        contenders = [
            Contender("the next extent of 1 log", read(1, 1)),
            Contender("the next 30 extents of 1 log", read(1, 30_000)),
            Contender("the next extent of 100 logs", read(100, 1)),
            Contender("the ends of 100 logs", lambda: finish(store.log_states(topic.logs[:100]))),
            Contender(
                "the first extent of a time", lambda: finish(store.extents_for_time(topic.logs[7], 25, 1))
            ),
        ]
        return compare("Reads of the index", contenders, work=1, unit="reads", quick=quick)


def catalogue(quick: bool) -> Comparison:
    """10,000 partitions in 1,000 topics, as an agent loads them when it starts and afterwards."""
    with opened_store() as (store, _):
        topics = create_topics(store, 1000, 10)
        known = CatalogueService(store, CLOCK, IDS)
        finish(known.refresh())

        def change_one() -> None:
            finish(store.set_topic_configs(topics[500].topic_id, {}))
            finish(known.refresh())

        contenders = [
            Contender("the version, unchanged", lambda: finish(known.refresh())),
            Contender("one topic changed (and the change itself)", change_one),
            Contender("everything", lambda: finish(CatalogueService(store, CLOCK, IDS).refresh())),
        ]
        return compare(
            "The catalogue of 10,000 partitions in 1,000 topics",
            contenders,
            work=1,
            unit="refreshes",
            quick=quick,
        )


class Appender:
    """Commits segments with one batch for each of the first so many logs."""

    def __init__(self, store: MetadataStore, topic: Topic) -> None:
        self._store = store
        self._topic = topic
        self._sequences: dict[LogId, int] = dict.fromkeys(topic.logs, 0)
        self._commits = 0

    def __call__(self, logs: int) -> None:
        self._commits += 1
        batches = []
        for place, log_id in enumerate(self._topic.logs[:logs]):
            sequence = self._sequences[log_id]
            self._sequences[log_id] = sequence + 10
            batches.append(
                BatchEntry(log_id, 1000 * place, 1000, 10, self._commits, ProducerId(1), 0, sequence)
            )
        segment = SegmentCommit(IDS.segment_key(), 1000 * logs, self._commits, batches)
        result = finish(self._store.commit([segment], self._commits))
        assert result.outcomes[0][-1].error == 0


class BareCommit:
    """One row into one table, synced: what a commit can't go below."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute("pragma synchronous = full")
        self._connection.execute("create table t (a integer primary key, b integer)")

    def __call__(self) -> None:
        self._connection.execute("insert into t (b) values (1)")

    def close(self) -> None:
        self._connection.close()


@contextmanager
def opened_store() -> Iterator[tuple[MetadataStore, Path]]:
    """A new store on a file, and its folder. Every sync runs inline: there is no event loop to keep free."""
    sqlite_sync.SLOW_SYNC_S = float("inf")
    with tempfile.TemporaryDirectory(
        prefix="warp-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")
    ) as folder:
        path = Path(folder) / "metadata.sqlite"
        store = MetadataStore(SqliteDatabase(path, now_ms=CLOCK.time_ms), CLOCK, IDS)
        finish(store.open())
        yield store, Path(folder)
        finish(store.close())


def create_topics(store: MetadataStore, topics: int, partitions: int) -> list[Topic]:
    new = [NewTopic(f"topic-{number:04}", IDS.topic_id(), partitions) for number in range(topics)]
    return [topic for topic in finish(store.create_topics(new)) if isinstance(topic, Topic)]


def finish(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that never waits, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise RuntimeError("the coroutine waited")


if __name__ == "__main__":
    sys.exit(main("metadata", run))
