"""What each API takes: on which resource which operation, and what a client without it is told.

Written from what is known of Kafka's brokers, not from the handlers. A row is about one resource that a request names;
what the request takes beside it is granted in `beside`. Topic and group of a request have the same name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tests.broker.test_every_version import SAMPLES
from warp.errors import ErrorCode
from warp.ids import TopicId
from warp.protocol import ApiKey, Request
from warp.protocol.messages.configs import (
    AlterableConfig,
    AlterConfigsRequest,
    AlterConfigsResource,
    DescribeConfigsRequest,
    DescribeConfigsResource,
    IncrementalAlterableConfig,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResource,
)
from warp.protocol.messages.groups import FindCoordinatorRequest
from warp.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from warp.protocol.messages.producers import InitProducerIdRequest
from warp.protocol.messages.quotas import (
    AlterClientQuotasRequest,
    AlterQuotaEntity,
    AlterQuotaEntry,
    AlterQuotaOperation,
    DescribeClientQuotasRequest,
)
from warp.protocol.messages.scram import (
    AlterUserScramCredentialsRequest,
    DescribeUserScramCredentialsRequest,
    ScramCredentialDeletion,
)
from warp.protocol.types import AclOperation, AclResourceType

TOPIC, GROUP = AclResourceType.TOPIC, AclResourceType.GROUP
CLUSTER, TRANSACTIONAL_ID = AclResourceType.CLUSTER, AclResourceType.TRANSACTIONAL_ID
NO_TOPIC, NO_GROUP = ErrorCode.TOPIC_AUTHORIZATION_FAILED, ErrorCode.GROUP_AUTHORIZATION_FAILED
NO_CLUSTER = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
NO_ID = ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED

Sample = Callable[[int, str, TopicId], Request]


class Row(NamedTuple):
    """One resource of an API: without `operation` on it, `code`."""

    api: ApiKey
    resource: AclResourceType
    operation: AclOperation
    code: ErrorCode
    beside: tuple[tuple[AclResourceType, AclOperation], ...] = ()
    """Resources of the request that have another row, and are allowed."""
    exists: bool = True
    """Whether the topic does."""
    sample: Sample | None = None
    """A request by version, name and topic id; without one that of the test of every version."""
    versions: tuple[int, int] | None = None
    """Those in which it is so; without them all."""
    about_any: bool = False
    """Any resource of the type will do, whatever the request names."""
    never_succeeds: bool = False
    """The code says something else as well."""

    @property
    def text(self) -> str:
        """The name of the case."""
        return f"{self.api.name}-{self.resource.name}-{self.operation.name}"

    def request(self, version: int, name: str, topic_id: TopicId) -> Request:
        """A request that names the resource."""
        sample: Any = self.sample or SAMPLES[self.api]
        request: Request = sample(version, name, topic_id)
        return request


def coordinator_of_group(version: int, name: str, topic_id: TopicId) -> Request:
    return (
        FindCoordinatorRequest(key=name) if version < 4 else FindCoordinatorRequest(coordinator_keys=[name])
    )


def coordinator_of_id(version: int, name: str, topic_id: TopicId) -> Request:
    if version < 4:
        return FindCoordinatorRequest(key=name, key_type=1)
    return FindCoordinatorRequest(coordinator_keys=[name], key_type=1)


def transactional_producer(version: int, name: str, topic_id: TopicId) -> Request:
    return InitProducerIdRequest(transactional_id=name, transaction_timeout_ms=1000)


def unknown_topic(version: int, name: str, topic_id: TopicId) -> Request:
    return MetadataRequest(topics=[MetadataRequestTopic(name=name)], allow_auto_topic_creation=True)


def configs_of_broker(version: int, name: str, topic_id: TopicId) -> Request:
    resource = DescribeConfigsResource(resource_type=4, resource_name="", configuration_keys=None)
    return DescribeConfigsRequest(resources=[resource])


def set_config_of_cluster(version: int, name: str, topic_id: TopicId) -> Request:
    config = AlterableConfig(name="message.max.bytes", value="2000000")
    resource = AlterConfigsResource(resource_type=4, resource_name="", configs=[config])
    return AlterConfigsRequest(resources=[resource], validate_only=True)


def change_config_of_cluster(version: int, name: str, topic_id: TopicId) -> Request:
    config = IncrementalAlterableConfig(name="message.max.bytes", config_operation=0, value="2000000")
    resource = IncrementalAlterConfigsResource(resource_type=4, resource_name="", configs=[config])
    return IncrementalAlterConfigsRequest(resources=[resource], validate_only=True)


def all_quotas(version: int, name: str, topic_id: TopicId) -> Request:
    return DescribeClientQuotasRequest(components=[], strict=False)


def one_quota(version: int, name: str, topic_id: TopicId) -> Request:
    entity = AlterQuotaEntity(entity_type="user", entity_name=name)
    quota = AlterQuotaOperation(key="producer_byte_rate", value=1e6, remove=False)
    return AlterClientQuotasRequest(
        entries=[AlterQuotaEntry(entity=[entity], ops=[quota])], validate_only=True
    )


def all_credentials(version: int, name: str, topic_id: TopicId) -> Request:
    return DescribeUserScramCredentialsRequest(users=None)


def no_credential(version: int, name: str, topic_id: TopicId) -> Request:
    return AlterUserScramCredentialsRequest(
        deletions=[ScramCredentialDeletion(name=name, mechanism=1)], upsertions=[]
    )


Api, Op = ApiKey, AclOperation

ROWS: tuple[Row, ...] = (
    Row(Api.PRODUCE, TOPIC, Op.WRITE, NO_TOPIC),
    Row(Api.FETCH, TOPIC, Op.READ, NO_TOPIC),
    Row(Api.LIST_OFFSETS, TOPIC, Op.DESCRIBE, NO_TOPIC),
    Row(Api.METADATA, TOPIC, Op.DESCRIBE, NO_TOPIC),
    Row(
        Api.METADATA, TOPIC, Op.CREATE, NO_TOPIC,
        beside=((TOPIC, Op.DESCRIBE),), exists=False, sample=unknown_topic, versions=(4, 13),
    ),
    Row(
        Api.METADATA, CLUSTER, Op.CREATE, NO_TOPIC,
        beside=((TOPIC, Op.DESCRIBE),), exists=False, sample=unknown_topic, versions=(4, 13),
    ),
    Row(Api.OFFSET_COMMIT, GROUP, Op.READ, NO_GROUP, beside=((TOPIC, Op.READ),)),
    Row(Api.OFFSET_COMMIT, TOPIC, Op.READ, NO_TOPIC, beside=((GROUP, Op.READ),)),
    Row(Api.OFFSET_FETCH, GROUP, Op.DESCRIBE, NO_GROUP, beside=((TOPIC, Op.DESCRIBE),)),
    Row(Api.OFFSET_FETCH, TOPIC, Op.DESCRIBE, NO_TOPIC, beside=((GROUP, Op.DESCRIBE),)),
    Row(Api.FIND_COORDINATOR, GROUP, Op.DESCRIBE, NO_GROUP, sample=coordinator_of_group),
    Row(Api.FIND_COORDINATOR, TRANSACTIONAL_ID, Op.DESCRIBE, NO_ID, sample=coordinator_of_id, versions=(1, 6)),
    Row(Api.JOIN_GROUP, GROUP, Op.READ, NO_GROUP),
    Row(Api.HEARTBEAT, GROUP, Op.READ, NO_GROUP),
    Row(Api.LEAVE_GROUP, GROUP, Op.READ, NO_GROUP),
    Row(Api.SYNC_GROUP, GROUP, Op.READ, NO_GROUP),
    Row(Api.DESCRIBE_GROUPS, GROUP, Op.DESCRIBE, NO_GROUP),
    Row(Api.CREATE_TOPICS, TOPIC, Op.CREATE, NO_TOPIC, exists=False),
    Row(Api.CREATE_TOPICS, CLUSTER, Op.CREATE, NO_TOPIC, exists=False),
    Row(Api.DELETE_TOPICS, TOPIC, Op.DELETE, NO_TOPIC),
    Row(Api.DELETE_TOPICS, CLUSTER, Op.DELETE, NO_TOPIC),
    Row(Api.DELETE_RECORDS, TOPIC, Op.DELETE, NO_TOPIC),
    Row(Api.INIT_PRODUCER_ID, CLUSTER, Op.IDEMPOTENT_WRITE, NO_CLUSTER),
    Row(Api.INIT_PRODUCER_ID, TOPIC, Op.WRITE, NO_CLUSTER, about_any=True),
    # Transactions are not served: the code is the same, for whoever may.
    Row(
        Api.INIT_PRODUCER_ID, TRANSACTIONAL_ID, Op.WRITE, NO_ID,
        sample=transactional_producer, never_succeeds=True,
    ),
    Row(Api.OFFSET_FOR_LEADER_EPOCH, TOPIC, Op.DESCRIBE, NO_TOPIC),
    Row(Api.OFFSET_FOR_LEADER_EPOCH, CLUSTER, Op.CLUSTER_ACTION, NO_TOPIC),
    Row(Api.DESCRIBE_ACLS, CLUSTER, Op.DESCRIBE, NO_CLUSTER),
    Row(Api.CREATE_ACLS, CLUSTER, Op.ALTER, NO_CLUSTER),
    Row(Api.DELETE_ACLS, CLUSTER, Op.ALTER, NO_CLUSTER),
    Row(Api.DESCRIBE_CONFIGS, TOPIC, Op.DESCRIBE_CONFIGS, NO_TOPIC),
    Row(Api.DESCRIBE_CONFIGS, CLUSTER, Op.DESCRIBE_CONFIGS, NO_CLUSTER, sample=configs_of_broker),
    Row(Api.ALTER_CONFIGS, TOPIC, Op.ALTER_CONFIGS, NO_TOPIC),
    Row(Api.ALTER_CONFIGS, CLUSTER, Op.ALTER_CONFIGS, NO_CLUSTER, sample=set_config_of_cluster),
    Row(Api.INCREMENTAL_ALTER_CONFIGS, TOPIC, Op.ALTER_CONFIGS, NO_TOPIC),
    Row(Api.INCREMENTAL_ALTER_CONFIGS, CLUSTER, Op.ALTER_CONFIGS, NO_CLUSTER, sample=change_config_of_cluster),
    Row(Api.CREATE_PARTITIONS, TOPIC, Op.ALTER, NO_TOPIC),
    Row(Api.DELETE_GROUPS, GROUP, Op.DELETE, NO_GROUP),
    Row(Api.OFFSET_DELETE, GROUP, Op.DELETE, NO_GROUP, beside=((TOPIC, Op.READ),)),
    Row(Api.OFFSET_DELETE, TOPIC, Op.READ, NO_TOPIC, beside=((GROUP, Op.DELETE),)),
    Row(Api.DESCRIBE_CLIENT_QUOTAS, CLUSTER, Op.DESCRIBE_CONFIGS, NO_CLUSTER, sample=all_quotas),
    Row(Api.ALTER_CLIENT_QUOTAS, CLUSTER, Op.ALTER_CONFIGS, NO_CLUSTER, sample=one_quota),
    Row(Api.DESCRIBE_USER_SCRAM_CREDENTIALS, CLUSTER, Op.DESCRIBE, NO_CLUSTER, sample=all_credentials),
    Row(Api.ALTER_USER_SCRAM_CREDENTIALS, CLUSTER, Op.ALTER, NO_CLUSTER, sample=no_credential),
    Row(Api.LIST_CONFIG_RESOURCES, CLUSTER, Op.DESCRIBE_CONFIGS, NO_CLUSTER),
    Row(Api.DESCRIBE_TOPIC_PARTITIONS, TOPIC, Op.DESCRIBE, NO_TOPIC),
)  # fmt: skip

NOBODY_IS_REFUSED = {
    Api.API_VERSIONS: "a client has to find out what it may ask for before anybody knows who it is",
    Api.SASL_HANDSHAKE: "the client is about to say who it is",
    Api.SASL_AUTHENTICATE: "the client says who it is",
    Api.DESCRIBE_CLUSTER: "every client needs addresses; what may be done to the cluster is told to those who may know",
    Api.LIST_GROUPS: "groups that the client may not describe are left out",
}
"""APIs without rows, and why."""
