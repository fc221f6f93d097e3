"""Topics that are deleted and made again: which life of a topic an operation can have met.

Nothing is concluded that does not follow: a deletion whose outcome nobody knows may come at any later time, and what
was asked while a topic was deleted or made may have met either life.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from enum import Enum

from tests.verifier.figures import Findings
from tests.verifier.history import History
from tests.verifier.operations import CreateTopic, DeleteTopic
from tests.verifier.recorder import Op, State
from tests.verifier.timeline import NEVER, Timeline
from warp.errors import ErrorCode

AMBIGUOUS = -1
"""The number of no log."""


class Standing(Enum):
    """Where something is that was written in the life of a topic."""

    HERE = "of the life that is there in the end"
    PERHAPS = "nobody can tell"
    GONE = "of a life that is over"


@dataclass(slots=True)
class Life:
    """By moments: it began after `since`; from `known` to `doubted` it is there; by `gone` it is not any more."""

    since: int
    known: int = NEVER
    doubted: int = NEVER
    gone: int = NEVER


@dataclass(slots=True)
class Topic:
    """The lives of one topic, the first one first."""

    name: str
    lives: list[Life] = field(default_factory=lambda: [Life(since=-1)])
    deletions: int = 0
    """Those that are on their way."""
    lost_deletions: int = 0
    """Those that may yet come, whenever that is."""
    lost_creations: int = 0
    creations_begun: int = 0
    deletions_begun: int = 0
    made: int = 0
    """How many creations were answered without an error."""
    deleted: int = 0

    @property
    def living(self) -> list[Life]:
        """Those that may be there now."""
        return [life for life in self.lives if life.gone == NEVER]


class Topics:
    """All topics of a history. A log is a partition in one life of its topic; logs are numbered from 0."""

    def __init__(self, timeline: Timeline, findings: Findings) -> None:
        self._timeline = timeline
        self._history: History = timeline.history
        self._findings = findings
        self._topics: dict[str, Topic] = {}
        self._logs: dict[tuple[int, int], int] = {}
        self._only: dict[int, int] = {}
        """The log of a partition whose topic has but one life."""
        self.partition_of: list[int] = []
        """By log."""
        self._read_history()

    def log(self, partition: int, began: int, ended: int) -> int:
        """The one log that a request between two moments can have met, else AMBIGUOUS."""
        only = self._only.get(partition)
        if only is not None:
            return only
        topic = self._topics.get(self._history.partitions.all[partition].topic)
        if topic is None or (len(topic.lives) == 1 and topic.living):
            only = self._only[partition] = self._number(partition, 0)
            return only
        met = [n for n, life in enumerate(topic.lives) if life.since <= ended and life.gone >= began]
        return self._number(partition, met[0]) if len(met) == 1 else AMBIGUOUS

    def logs_of(self, partition: int) -> list[int]:
        """All that have been named."""
        return [log for (place, _), log in self._logs.items() if place == partition]

    def last_log(self, partition: int) -> int:
        """The log that is there in the end, if there is but one that can be."""
        return self.log(partition, NEVER, NEVER)

    def standing(self, partition: int, began: int, ended: int) -> Standing:
        """Of what was written between two moments."""
        topic = self._topics.get(self._history.partitions.all[partition].topic)
        if topic is None:
            return Standing.HERE
        met = [life for life in topic.lives if life.since <= ended and life.gone >= began]
        living = topic.living
        if not any(life in living for life in met):
            return Standing.GONE
        return Standing.HERE if len(met) == len(living) == 1 else Standing.PERHAPS

    def may_have_been(self, partition: int, began: int, ended: int) -> bool:
        """May its topic have been there at some time between two moments?"""
        topic = self._topics.get(self._history.partitions.all[partition].topic)
        return topic is None or any(life.since <= ended and life.gone >= began for life in topic.lives)

    def has_one_life(self, name: str) -> bool:
        """Has it never been deleted?"""
        topic = self._topics.get(name)
        return topic is None or (len(topic.lives) == 1 and topic.lives[0].doubted == NEVER)

    def is_over(self, name: str) -> bool:
        """Has it surely been deleted, and not been made again?"""
        topic = self._topics.get(name)
        return topic is not None and not topic.living

    def may_be_gone(self, name: str) -> bool:
        """May it not be there in the end?"""
        topic = self._topics.get(name)
        return topic is not None and all(life.doubted < NEVER or life.known == NEVER for life in topic.living)

    def is_surely_there(self, name: str, began: int, ended: int) -> bool:
        """Was it there all the time between two moments, as its deletions and creations tell?"""
        topic = self._topics.get(name)
        if topic is None:
            return False
        return any(life.known <= began and life.doubted >= ended for life in topic.lives)

    def _number(self, partition: int, life: int) -> int:
        log = self._logs.setdefault((partition, life), len(self.partition_of))
        if log == len(self.partition_of):
            self.partition_of.append(partition)
        return log

    def _read_history(self) -> None:
        began, ended = self._timeline.began, self._timeline.ended
        steps: dict[str, list[tuple[int, bool, Op]]] = defaultdict(list)
        for op in self._history.ops:
            if isinstance(op.operation, CreateTopic | DeleteTopic):
                steps[op.operation.topic].append((began[op.number], True, op))
                steps[op.operation.topic].append((ended[op.number], False, op))
        for name, found in steps.items():
            topic = self._topics[name] = Topic(name)
            # Those without an end come last, in the order of their beginnings.
            for moment, is_beginning, op in sorted(found, key=lambda step: (step[0], step[2].number)):
                if is_beginning:
                    self._began(topic, moment, op)
                else:
                    self._ended(topic, began[op.number], moment, op)

    # Creations and deletions of one topic, step by step.

    def _began(self, topic: Topic, moment: int, op: Op) -> None:
        if self._timeline.ended[op.number] == NEVER or self._is_unclear(op):
            # It may be carried out from now on, whenever that is.
            if isinstance(op.operation, DeleteTopic):
                topic.lost_deletions += 1
            else:
                topic.lost_creations += 1
        if isinstance(op.operation, CreateTopic):
            topic.creations_begun += 1
        if isinstance(op.operation, DeleteTopic):
            topic.deletions_begun += 1
            topic.deletions += 1
            for life in topic.living:
                life.doubted = min(life.doubted, moment)
        if topic.lost_creations and all(life.doubted < NEVER for life in topic.living):
            self._perhaps_created(topic, moment)

    def _is_unclear(self, op: Op) -> bool:
        if op.state is not State.FAILED:
            return False
        if isinstance(op.operation, CreateTopic):
            return op.error_code != ErrorCode.TOPIC_ALREADY_EXISTS
        return op.error_code != ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    def _perhaps_created(self, topic: Topic, moment: int) -> None:
        doubted = moment if topic.lost_deletions else NEVER
        topic.lives.append(Life(since=moment, doubted=doubted))

    def _ended(self, topic: Topic, began: int, moment: int, op: Op) -> None:
        if moment == NEVER or self._is_unclear(op):
            return
        if isinstance(op.operation, DeleteTopic):
            topic.deletions -= 1
        if op.state is State.ANSWERED:
            self._count(topic, op, moment)
        if isinstance(op.operation, CreateTopic):
            if op.state is State.ANSWERED:
                self._created(topic, began, moment)
            else:
                self._exists(topic, began, moment)
        elif op.state is State.ANSWERED:
            self._deleted(topic, began, moment)
        else:
            self._is_unknown(topic, began, moment)

    def _count(self, topic: Topic, op: Op, moment: int) -> None:
        """Between two creations there is a deletion, and the other way round; whoever asked, and however often."""
        check = "topics are made and deleted once"
        self._findings.looked(check)
        if isinstance(op.operation, CreateTopic):
            topic.made += 1
            if topic.made > 1 + topic.deletions_begun:
                asked = f"{topic.deletions_begun} deletions were asked for"
                text = f"{topic.name} was made {topic.made} times, and {asked}"
                self._findings.violate(check, text, self._timeline.time_s(moment))
        else:
            topic.deleted += 1
            if topic.deleted > 1 + topic.creations_begun:
                asked = f"{topic.creations_begun} creations were asked for"
                text = f"{topic.name} was deleted {topic.deleted} times, and {asked}"
                self._findings.violate(check, text, self._timeline.time_s(moment))

    def _created(self, topic: Topic, began: int, moment: int) -> None:
        """It was not there, and is now."""
        living = topic.living
        for life in living:
            if life.known <= began and life.doubted == NEVER:
                self._violate(f"{topic.name} was made though it was there", moment)
            life.gone = moment
        if any(life.known < NEVER for life in living) and topic.lost_deletions:
            # Nobody else has deleted what was there.
            topic.lost_deletions -= 1
            topic.deletions -= 1
        if all(life.since == -1 and life.known == NEVER for life in topic.lives):
            # There was nothing before.
            topic.lives.clear()
        doubted = began if topic.lost_deletions else NEVER
        topic.lives.append(Life(since=began, known=moment, doubted=doubted))

    def _exists(self, topic: Topic, began: int, moment: int) -> None:
        living = topic.living
        if not living and not topic.lost_creations:
            if all(life.gone < began for life in topic.lives):
                self._violate(f"{topic.name} is there again though it was deleted", moment)
            return
        if len(living) == 1 and living[0].doubted == NEVER:
            living[0].known = min(living[0].known, moment)

    def _deleted(self, topic: Topic, began: int, moment: int) -> None:
        for life in topic.living:
            if life.since < began:
                life.gone = moment
        if topic.lost_creations:
            self._perhaps_created(topic, began)

    def _is_unknown(self, topic: Topic, began: int, moment: int) -> None:
        """It was not there at some time between these moments."""
        for life in topic.living:
            if life.known <= began and not topic.deletions and life.doubted >= began:
                self._violate(f"{topic.name} was unknown though it was there", moment)
            elif life.since < began and life.known < NEVER:
                life.gone = moment
                if topic.lost_deletions:
                    topic.lost_deletions -= 1
                    topic.deletions -= 1

    def _violate(self, text: str, moment: int) -> None:
        self._findings.violate("deleted topics stay away", text, self._timeline.time_s(moment))
