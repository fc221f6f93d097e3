"""Every message in every version that the tables know: what the tests of this folder range over."""

from __future__ import annotations

from warp.protocol import APIS, Message
from warp.protocol.messages.consumer_groups import ConsumerProtocolAssignment, ConsumerProtocolSubscription

MESSAGES: tuple[type[Message], ...] = (
    *(message for api in APIS.values() for message in (api.request, api.response)),
    ConsumerProtocolSubscription,
    ConsumerProtocolAssignment,
)


def versions_of(message: type[Message]) -> range:
    return range(message.versions[0], message.versions[1] + 1)


MESSAGE_VERSIONS: tuple[tuple[type[Message], int], ...] = tuple(
    (message, version) for message in MESSAGES for version in versions_of(message)
)
