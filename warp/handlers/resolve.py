"""From the names and ids in a request to the partitions that they stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warp.errors import ErrorCode
from warp.ids import NO_TOPIC_ID, TopicId
from warp.log.model import LogTarget

if TYPE_CHECKING:
    from warp.cluster.catalogue import Catalogue, TopicInfo


def topic_of(catalogue: Catalogue, name: str, topic_id: bytes, *, by_id: bool) -> TopicInfo | ErrorCode:
    """The topic that a request names, by id where its version has ids."""
    if by_id:
        return catalogue.by_id.get(TopicId(topic_id), ErrorCode.UNKNOWN_TOPIC_ID)
    return catalogue.by_name.get(name, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)


def target_of(topic: TopicInfo | ErrorCode, partition: int) -> LogTarget | ErrorCode:
    """One partition of a topic that was looked up."""
    if isinstance(topic, ErrorCode):
        return topic
    return topic.target(partition) or ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def may_be_new(topic: TopicInfo | ErrorCode, target: LogTarget | ErrorCode) -> bool:
    """Whether a partition is only missing from a topic that is there: another agent may have added it since."""
    return isinstance(target, ErrorCode) and not isinstance(topic, ErrorCode)


def is_given(topic_id: bytes) -> bool:
    """Whether a topic id says something; all zeros mean none."""
    return topic_id != NO_TOPIC_ID
