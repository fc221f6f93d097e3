"""Raw clients that administrate: topics come and go, records are deleted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from tests.faults.caller import Caller, Where
from tests.faults.topics import Topic
from tests.verifier import (
    CreateTopic,
    DeleteRecords,
    DeleteTopic,
    Done,
    Limit,
    Listed,
    ListOffsets,
    Partition,
    Produce,
    Produced,
    Recorder,
    Trimmed,
)
from tests.verifier.adapters import raw
from warp.errors import ErrorCode
from warp.protocol.messages.topics import (
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
    DeleteTopicsRequest,
    DeleteTopicState,
)

CREATE_VERSION, DELETE_VERSION = 7, 6
TIMEOUT_MS = 4_000
FLEETING_PARTITIONS = 2
FLEETING_BATCHES = 5
TRIM_KEEPS = 50
ADMIN_PAUSE_S = 1.0


class TopicMaker(Caller):
    """Creates topics, writes to them, and deletes them: `deleted` are those that are known to be gone."""

    def __init__(self, recorder: Recorder, name: str, agents: Sequence[Where], source: random.Random) -> None:
        super().__init__(recorder, name, agents, source)
        self.deleted: list[Topic] = []

    async def run(self, stopping: asyncio.Event) -> None:
        """Until told to stop; no topic is left over."""
        number = 0
        while not stopping.is_set():
            number += 1
            topic = Topic(f"fleeting-{number}", FLEETING_PARTITIONS)
            await self.create(topic)
            for turn in range(FLEETING_BATCHES):
                await self._write(topic, turn)
            await self.rest(ADMIN_PAUSE_S)
            await self._delete(topic)
            self.deleted.append(topic)
            self.score.done += 1
        self.hang_up()

    async def create(self, topic: Topic) -> None:
        """Until it is there."""
        configs = [CreatableTopicConfig(name=name, value=value) for name, value in topic.configs.items()]
        made = CreatableTopic(
            name=topic.name,
            num_partitions=topic.partitions,
            replication_factor=1,
            assignments=[],
            configs=configs,
        )
        request = CreateTopicsRequest(topics=[made], timeout_ms=TIMEOUT_MS)
        while True:
            answer = await self.ask(
                CreateTopic(topic.name), request, CREATE_VERSION,
                lambda response: int(response.topics[0].error_code) or Done(),
            )  # fmt: skip
            # It exists: an earlier try was carried out, and its answer was lost.
            if isinstance(answer, Done) or answer == ErrorCode.TOPIC_ALREADY_EXISTS:
                return
            self.judge(_error(answer), f"the making of {topic.name}")
            self.move()
            await self.rest()

    async def _write(self, topic: Topic, turn: int) -> None:
        """Once, whatever comes of it."""
        batches, sent = [], {}
        for place in topic.places:
            records: list[raw.Content] = [(None, b"%s %d" % (str(place).encode(), turn))]
            batches.append(self.recorder.batch(place, records))
            sent[place] = raw.encode_batch(records, 1_700_000_000_000)
        answer = await self.ask(
            Produce(batches), raw.produce(sent, TIMEOUT_MS), raw.VERSIONS["produce"],
            lambda response: raw.produced(batches, response),
        )  # fmt: skip
        if isinstance(answer, Produced):
            for error in sorted({placed.error_code for placed in answer.parts.values()}):
                self.judge(error, f"a batch of {topic.name}")
        self.move()

    async def _delete(self, topic: Topic) -> None:
        """Until it is known to be gone."""
        request = DeleteTopicsRequest(
            topics=[DeleteTopicState(name=topic.name, topic_id=bytes(16))], timeout_ms=TIMEOUT_MS
        )
        while True:
            answer = await self.ask(
                DeleteTopic(topic.name), request, DELETE_VERSION,
                lambda response: int(response.responses[0].error_code) or Done(),
            )  # fmt: skip
            if isinstance(answer, Done) or answer == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
                return
            self.judge(_error(answer), f"the deletion of {topic.name}")
            self.move()
            await self.rest()


class Trimmer(Caller):
    """Deletes the records of partitions but for the last ones, again and again."""

    def __init__(
        self, recorder: Recorder, name: str, agents: Sequence[Where], source: random.Random, topic: Topic
    ) -> None:
        super().__init__(recorder, name, agents, source)
        self._topic = topic

    async def run(self, stopping: asyncio.Event) -> None:
        """Until told to stop."""
        while not stopping.is_set():
            offsets = await self._trims()
            if offsets:
                answer = await self.ask(
                    DeleteRecords(offsets), raw.delete_records(offsets, TIMEOUT_MS),
                    raw.VERSIONS["delete records"], raw.trimmed,
                )  # fmt: skip
                if isinstance(answer, Trimmed):
                    errors = {part.error_code for part in answer.parts.values()}
                    for error in sorted(errors):
                        self.judge(error, "DeleteRecords")
                    self.score.done += errors == {0}
            self.move()
            await self.rest(ADMIN_PAUSE_S)
        self.hang_up()

    async def _trims(self) -> dict[Partition, int]:
        places = self._topic.places
        answer = await self.ask(
            ListOffsets(places), raw.list_offsets(places, Limit.LATEST),
            raw.VERSIONS["list offsets"], raw.listed,
        )  # fmt: skip
        if not isinstance(answer, Listed):
            return {}
        ends = {place: listed.offset for place, listed in answer.parts.items() if not listed.error_code}
        return {place: max(0, end - TRIM_KEEPS) for place, end in ends.items()}


def _error(answer: object) -> int:
    return answer if isinstance(answer, int) else 0
