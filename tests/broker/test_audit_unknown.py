"""The audit log of changes that may have been made though the store was lost before it said so."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from tests.broker.client import Client
from tests.broker.support import Broker, RunWithBroker
from tests.broker.test_acls import ENFORCED, ORDERS, create, creation, delete
from tests.broker.test_client_quotas import alteration as quota_alteration
from tests.broker.test_scram_credentials import upsertion
from warp.errors import ErrorCode, MetadataUnavailable
from warp.logs import extra_fields
from warp.protocol.messages.acls import CreateAclsRequest
from warp.protocol.messages.configs import (
    IncrementalAlterableConfig,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResource,
)
from warp.protocol.messages.quotas import AlterClientQuotasRequest
from warp.protocol.messages.scram import AlterUserScramCredentialsRequest
from warp.protocol.types import ConfigResourceType
from warp.security.acl import AclFilter

Ask = Callable[[Client], Awaitable[Any]]
Told = list[tuple[str, str]]


@pytest.fixture
def told() -> Iterator[Told]:
    """Messages of the audit log, and the things that they name."""
    lines: Told = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append((record.getMessage(), str(extra_fields(record)["items"])))

    logger, handler = logging.getLogger("warp.audit"), Lines()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(level)


class Loss:
    """Makes the metadata store fail from a change on, once the change is made."""

    def __init__(self, broker: Broker) -> None:
        self.store: Any = broker.agent._metadata

    async def fail(self, *_: object, **__: object) -> None:
        raise MetadataUnavailable("the database is away")

    def __enter__(self) -> None:
        for name in ("change_entries", "set_topic_configs"):
            setattr(self.store, name, self.losing(getattr(self.store, name)))

    def losing(self, change: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def losing(*arguments: Any) -> Any:
            self.store.catalogue_changes = self.fail
            return await change(*arguments)

        return losing

    def __exit__(self, *_: object) -> None:
        for name in ("change_entries", "set_topic_configs", "catalogue_changes"):
            self.store.__dict__.pop(name, None)


def alter_configs(kind: ConfigResourceType, resource: str, name: str, value: str) -> Ask:
    config = IncrementalAlterableConfig(name=name, config_operation=0, value=value)
    wanted = IncrementalAlterConfigsResource(resource_type=kind, resource_name=resource, configs=[config])
    return lambda client: client.ask(
        IncrementalAlterConfigsRequest(resources=[wanted], validate_only=False), 1
    )


READ_ORDERS = "ALLOW User:alice READ on LITERAL TOPIC orders from *"
CHANGES: dict[str, tuple[Ask, str, str]] = {
    "CreateAcls": (
        lambda client: client.ask(CreateAclsRequest(creations=[creation(ORDERS._replace(name="new"))]), 3),
        "created ACLs",
        READ_ORDERS.replace("orders", "new"),
    ),
    "DeleteAcls": (lambda client: delete(client, AclFilter(name="orders")), "deleted ACLs", READ_ORDERS),
    "AlterUserScramCredentials": (
        lambda client: client.ask(
            AlterUserScramCredentialsRequest(deletions=[], upsertions=[upsertion("alice")]), 0
        ),
        "altered credentials",
        "SCRAM-SHA-256 of alice set",
    ),
    "AlterClientQuotas": (
        lambda client: client.ask(
            AlterClientQuotasRequest(
                entries=[quota_alteration({"user": "alice"}, {"producer_byte_rate": 7.0})],
                validate_only=False,
            ),
            1,
        ),
        "altered client quotas",
        "alice",
    ),
    "configs of the cluster": (
        alter_configs(ConfigResourceType.BROKER, "", "num.partitions", "3"),
        "altered configs of the cluster",
        "num.partitions: (default) -> 3",
    ),
    "configs of a topic": (
        alter_configs(ConfigResourceType.TOPIC, "t", "retention.ms", "5"),
        "altered configs of a topic",
        "retention.ms: (default) -> 5",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_that_may_have_been_made_is_told_as_such(
    with_memory_broker: RunWithBroker, told: Told, name: str
) -> None:
    ask, action, item = CHANGES[name]

    async def test(broker: Broker) -> None:
        client = await broker.connect()
        await broker.topic("t")
        assert await create(client, ORDERS) == [(ErrorCode.NONE, None)]
        told.clear()
        with Loss(broker):
            await ask(client)
        [(message, items)] = told
        assert message == f"perhaps {action}"
        assert item in items
        told.clear()
        loss = Loss(broker)
        loss.store.catalogue_changes = loss.fail
        await ask(client)
        assert told == [], "it was not even begun"

    with_memory_broker(test, **ENFORCED)
