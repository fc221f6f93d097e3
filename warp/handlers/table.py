"""Every API that an agent serves: one explicit list, which drives dispatch, ApiVersions and the docs.

What is not in it is not advertised, and asking for it closes the connection. The versions served are those of the
message tables; the advertised ones are the same but where a client needs more (see `ApiEntry.advertised_from`).
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from warp.errors import ErrorCode
from warp.handlers import (
    acls,
    alter_configs,
    api_versions,
    client_quotas,
    cluster,
    configs,
    fetch,
    group_admin,
    group_offsets,
    groups,
    metadata,
    offsets,
    produce,
    producers,
    sasl,
    scram_credentials,
    topics,
)
from warp.handlers.context import RequestContext
from warp.protocol import APIS, ApiKey, Request

Handler = Callable[[RequestContext, Any], Any]
"""Takes the request and gives a response, Held, NoAnswer or Later, or a coroutine that gives one of these."""

FailedAnswer = Callable[[RequestContext, Any, ErrorCode, str], Any]
"""Builds the response to a request that failed as a whole; None where the API has no place for an error."""


class Order(enum.Enum):
    """How far a request holds back those behind it on its connection. Answers leave in order in any case."""

    SERIAL = enum.auto()
    """Until it is answered."""
    STAGED = enum.auto()
    """Until its handler has returned; what it returned (Later) is waited for in the background."""
    CONCURRENT = enum.auto()
    """Not at all; given up when its client is gone."""


@dataclass(frozen=True, slots=True)
class ApiEntry:
    """One API: who serves it, and how."""

    key: ApiKey
    handler: Handler
    failed: FailedAnswer
    order: Order = Order.SERIAL
    advertised_from: int | None = None
    """The first version to advertise, where it is lower than the first one served."""
    unavailable: ErrorCode = ErrorCode.REQUEST_TIMED_OUT
    """What to answer while a store can't be reached: an error that clients of this API retry."""
    parts: Callable[[Any], int] | None = None
    """How many parts of a request wait together for its answer, each at its own cost in memory."""
    name: str = field(init=False)
    """Kafka's name of the API."""
    request: type[Request] = field(init=False)
    """The class of its requests."""
    served: tuple[int, int] = field(init=False)
    """First and last version that is answered."""

    def __post_init__(self) -> None:
        api = APIS[self.key]
        object.__setattr__(self, "name", api.name)
        object.__setattr__(self, "request", api.request)
        object.__setattr__(self, "served", api.versions)

    @property
    def advertised(self) -> tuple[int, int]:
        """First and last version in the answer to ApiVersions."""
        low, high = self.served
        return (low if self.advertised_from is None else self.advertised_from, high)


TABLE: tuple[ApiEntry, ...] = (
    ApiEntry(
        ApiKey.PRODUCE,
        produce.produce,
        produce.produce_failed,
        Order.STAGED,
        # librdkafka before 2.11.1 compresses only where Produce v0 is advertised, as it is by Kafka 4.
        advertised_from=0,
        unavailable=ErrorCode.NOT_ENOUGH_REPLICAS,
        parts=produce.batches_of,
    ),
    ApiEntry(
        ApiKey.FETCH,
        fetch.fetch,
        fetch.fetch_failed,
        Order.CONCURRENT,
        unavailable=ErrorCode.KAFKA_STORAGE_ERROR,
    ),
    ApiEntry(
        ApiKey.LIST_OFFSETS,
        offsets.list_offsets,
        offsets.list_offsets_failed,
        unavailable=ErrorCode.LEADER_NOT_AVAILABLE,
    ),
    ApiEntry(
        ApiKey.METADATA,
        metadata.metadata,
        metadata.metadata_failed,
        unavailable=ErrorCode.LEADER_NOT_AVAILABLE,
    ),
    ApiEntry(
        ApiKey.OFFSET_COMMIT,
        group_offsets.offset_commit,
        group_offsets.offset_commit_failed,
        unavailable=ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ),
    ApiEntry(
        ApiKey.OFFSET_FETCH,
        group_offsets.offset_fetch,
        group_offsets.offset_fetch_failed,
        unavailable=ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ),
    ApiEntry(
        ApiKey.FIND_COORDINATOR,
        group_admin.find_coordinator,
        group_admin.find_coordinator_failed,
        unavailable=ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ),
    ApiEntry(
        ApiKey.JOIN_GROUP,
        groups.join_group,
        groups.join_group_failed,
        unavailable=ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ),
    ApiEntry(
        ApiKey.HEARTBEAT,
        groups.heartbeat,
        groups.heartbeat_failed,
        unavailable=ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ),
    ApiEntry(
        ApiKey.LEAVE_GROUP,
        groups.leave_group,
        groups.leave_group_failed,
        # So that one that a client has sent before it hung up is heeded, though its JoinGroup may still wait.
        Order.STAGED,
        unavailable=ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ),
    ApiEntry(
        ApiKey.SYNC_GROUP,
        groups.sync_group,
        groups.sync_group_failed,
        unavailable=ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ),
    ApiEntry(
        ApiKey.DESCRIBE_GROUPS,
        group_admin.describe_groups,
        group_admin.describe_groups_failed,
        unavailable=ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ),
    ApiEntry(
        ApiKey.LIST_GROUPS,
        group_admin.list_groups,
        group_admin.list_groups_failed,
        unavailable=ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ),
    ApiEntry(ApiKey.SASL_HANDSHAKE, sasl.sasl_handshake, sasl.sasl_handshake_failed),
    ApiEntry(ApiKey.API_VERSIONS, api_versions.api_versions, api_versions.api_versions_failed),
    ApiEntry(ApiKey.CREATE_TOPICS, topics.create_topics, topics.create_topics_failed),
    ApiEntry(ApiKey.DELETE_TOPICS, topics.delete_topics, topics.delete_topics_failed),
    ApiEntry(ApiKey.DELETE_RECORDS, offsets.delete_records, offsets.delete_records_failed),
    ApiEntry(
        ApiKey.INIT_PRODUCER_ID,
        producers.init_producer_id,
        producers.init_producer_id_failed,
        unavailable=ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ),
    ApiEntry(
        ApiKey.OFFSET_FOR_LEADER_EPOCH,
        offsets.offset_for_leader_epoch,
        offsets.offset_for_leader_epoch_failed,
        unavailable=ErrorCode.LEADER_NOT_AVAILABLE,
    ),
    ApiEntry(ApiKey.DESCRIBE_ACLS, acls.describe_acls, acls.describe_acls_failed),
    ApiEntry(ApiKey.CREATE_ACLS, acls.create_acls, acls.create_acls_failed),
    ApiEntry(ApiKey.DELETE_ACLS, acls.delete_acls, acls.delete_acls_failed),
    ApiEntry(ApiKey.DESCRIBE_CONFIGS, configs.describe_configs, configs.describe_configs_failed),
    ApiEntry(ApiKey.ALTER_CONFIGS, alter_configs.alter_configs, alter_configs.alter_configs_failed),
    ApiEntry(ApiKey.SASL_AUTHENTICATE, sasl.sasl_authenticate, sasl.sasl_authenticate_failed),
    ApiEntry(ApiKey.CREATE_PARTITIONS, topics.create_partitions, topics.create_partitions_failed),
    ApiEntry(
        ApiKey.DELETE_GROUPS,
        group_admin.delete_groups,
        group_admin.delete_groups_failed,
        unavailable=ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ),
    ApiEntry(
        ApiKey.INCREMENTAL_ALTER_CONFIGS,
        alter_configs.incremental_alter_configs,
        alter_configs.incremental_alter_configs_failed,
    ),
    ApiEntry(
        ApiKey.OFFSET_DELETE,
        group_offsets.offset_delete,
        group_offsets.offset_delete_failed,
        unavailable=ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ),
    ApiEntry(
        ApiKey.DESCRIBE_CLIENT_QUOTAS,
        client_quotas.describe_client_quotas,
        client_quotas.describe_client_quotas_failed,
    ),
    ApiEntry(
        ApiKey.ALTER_CLIENT_QUOTAS,
        client_quotas.alter_client_quotas,
        client_quotas.alter_client_quotas_failed,
    ),
    ApiEntry(
        ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS,
        scram_credentials.describe_user_scram_credentials,
        scram_credentials.describe_user_scram_credentials_failed,
    ),
    ApiEntry(
        ApiKey.ALTER_USER_SCRAM_CREDENTIALS,
        scram_credentials.alter_user_scram_credentials,
        scram_credentials.alter_user_scram_credentials_failed,
    ),
    ApiEntry(ApiKey.DESCRIBE_CLUSTER, cluster.describe_cluster, cluster.describe_cluster_failed),
    ApiEntry(
        ApiKey.LIST_CONFIG_RESOURCES, configs.list_config_resources, configs.list_config_resources_failed
    ),
    ApiEntry(
        ApiKey.DESCRIBE_TOPIC_PARTITIONS,
        metadata.describe_topic_partitions,
        metadata.describe_topic_partitions_failed,
        unavailable=ErrorCode.LEADER_NOT_AVAILABLE,
    ),
)
