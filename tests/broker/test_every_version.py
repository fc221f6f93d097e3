"""Every API in every version: a request gets an answer that this version can carry, with and without content."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from tests.broker.client import fetch_request, produce_request
from tests.broker.support import Broker, RunWithBroker, batch
from warp.errors import ErrorCode
from warp.handlers.context import Client, Endpoint, NoAnswer
from warp.handlers.table import TABLE, ApiEntry
from warp.ids import NO_TOPIC_ID, TopicId
from warp.protocol import ApiKey, Request, encode_request_frame
from warp.protocol.messages.acls import (
    AclCreation,
    CreateAclsRequest,
    DeleteAclsFilter,
    DeleteAclsRequest,
    DescribeAclsRequest,
)
from warp.protocol.messages.api_versions import ApiVersionsRequest
from warp.protocol.messages.cluster import DescribeClusterRequest
from warp.protocol.messages.configs import (
    AlterableConfig,
    AlterConfigsRequest,
    AlterConfigsResource,
    DescribeConfigsRequest,
    DescribeConfigsResource,
    IncrementalAlterableConfig,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResource,
    ListConfigResourcesRequest,
)
from warp.protocol.messages.group_offsets import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestGroupTopic,
    OffsetFetchRequestTopic,
)
from warp.protocol.messages.groups import (
    DeleteGroupsRequest,
    DescribeGroupsRequest,
    FindCoordinatorRequest,
    HeartbeatRequest,
    JoinGroupRequest,
    JoinGroupRequestProtocol,
    LeaveGroupMember,
    LeaveGroupRequest,
    ListGroupsRequest,
    SyncGroupRequest,
    SyncGroupRequestAssignment,
)
from warp.protocol.messages.metadata import (
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsTopic,
    MetadataRequest,
    MetadataRequestTopic,
)
from warp.protocol.messages.offsets import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsTopic,
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsTopic,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)
from warp.protocol.messages.producers import InitProducerIdRequest
from warp.protocol.messages.quotas import (
    AlterClientQuotasRequest,
    AlterQuotaEntity,
    AlterQuotaEntry,
    AlterQuotaOperation,
    DescribeClientQuotasRequest,
    QuotaFilterComponent,
)
from warp.protocol.messages.sasl import SaslAuthenticateRequest, SaslHandshakeRequest
from warp.protocol.messages.scram import (
    AlterUserScramCredentialsRequest,
    DescribeScramUser,
    DescribeUserScramCredentialsRequest,
    ScramCredentialDeletion,
    ScramCredentialUpsertion,
)
from warp.protocol.messages.topics import (
    CreatableTopic,
    CreatePartitionsRequest,
    CreatePartitionsTopic,
    CreateTopicsRequest,
    DeleteTopicsRequest,
    DeleteTopicState,
)

HERE, NOT_HERE = "here", "not-here"
NO_SUCH_ID = TopicId(b"\x11" * 16)


def produce(version: int, name: str, topic_id: TopicId) -> Request:
    request = produce_request({name: {0: batch(b"v"), 7: batch(b"v")}})
    request.topic_data[0].topic_id = topic_id
    return request


def fetch(version: int, name: str, topic_id: TopicId) -> Request:
    request = fetch_request({name: {0: 0, 7: 0}})
    request.topics[0].topic_id = topic_id
    return request


def list_offsets(version: int, name: str, topic_id: TopicId) -> Request:
    partitions = [ListOffsetsPartition(partition_index=index, timestamp=-1) for index in (0, 7)]
    return ListOffsetsRequest(replica_id=-1, topics=[ListOffsetsTopic(name=name, partitions=partitions)])


def metadata(version: int, name: str, topic_id: TopicId) -> Request:
    topic = MetadataRequestTopic(name=name)
    if version >= 12:
        topic = MetadataRequestTopic(name=None, topic_id=topic_id)
    return MetadataRequest(topics=[topic], allow_auto_topic_creation=version < 4)


def offset_commit(version: int, name: str, topic_id: TopicId) -> Request:
    partitions = [
        OffsetCommitRequestPartition(partition_index=index, committed_offset=5, committed_metadata=None)
        for index in (0, 7)
    ]
    topic = OffsetCommitRequestTopic(name=name, topic_id=topic_id, partitions=partitions)
    return OffsetCommitRequest(group_id=name, member_id="", topics=[topic])


def offset_fetch(version: int, name: str, topic_id: TopicId) -> Request:
    if version < 8:
        topics = [OffsetFetchRequestTopic(name=name, partition_indexes=[0, 7])]
        return OffsetFetchRequest(group_id=name, topics=topics)
    topic = OffsetFetchRequestGroupTopic(name=name, topic_id=topic_id, partition_indexes=[0, 7])
    groups = [
        OffsetFetchRequestGroup(group_id=name, topics=[topic]),
        OffsetFetchRequestGroup(group_id=name, topics=None),
    ]
    return OffsetFetchRequest(groups=groups, require_stable=True)


def find_coordinator(version: int, name: str, topic_id: TopicId) -> Request:
    if version < 4:
        return FindCoordinatorRequest(key=name)
    return FindCoordinatorRequest(coordinator_keys=[name, "another"])


def join_group(version: int, name: str, topic_id: TopicId) -> Request:
    # With a member id that nobody has, so that nobody waits for others.
    protocols = [JoinGroupRequestProtocol(name="range", metadata=b"metadata")]
    return JoinGroupRequest(
        group_id=name,
        session_timeout_ms=10_000,
        rebalance_timeout_ms=10_000,
        member_id="nobody",
        group_instance_id="instance" if version >= 5 else None,
        protocol_type="consumer",
        protocols=protocols,
        reason="why not",
    )


def heartbeat(version: int, name: str, topic_id: TopicId) -> Request:
    return HeartbeatRequest(group_id=name, generation_id=1, member_id="nobody")


def leave_group(version: int, name: str, topic_id: TopicId) -> Request:
    if version < 3:
        return LeaveGroupRequest(group_id=name, member_id="nobody")
    members = [LeaveGroupMember(member_id="", group_instance_id="instance", reason="why not")]
    return LeaveGroupRequest(group_id=name, members=members)


def sync_group(version: int, name: str, topic_id: TopicId) -> Request:
    assignments = [SyncGroupRequestAssignment(member_id="nobody", assignment=b"share")]
    return SyncGroupRequest(
        group_id=name,
        generation_id=1,
        member_id="nobody",
        protocol_type="consumer",
        protocol_name="range",
        assignments=assignments,
    )


def describe_groups(version: int, name: str, topic_id: TopicId) -> Request:
    return DescribeGroupsRequest(groups=[name], include_authorized_operations=version >= 3)


def list_groups(version: int, name: str, topic_id: TopicId) -> Request:
    return ListGroupsRequest(
        states_filter=["Empty"] if version >= 4 else [], types_filter=["classic"] if version >= 5 else []
    )


def delete_groups(version: int, name: str, topic_id: TopicId) -> Request:
    return DeleteGroupsRequest(groups_names=[name])


def offset_delete(version: int, name: str, topic_id: TopicId) -> Request:
    partitions = [OffsetDeleteRequestPartition(partition_index=index) for index in (0, 7)]
    topic = OffsetDeleteRequestTopic(name=name, partitions=partitions)
    return OffsetDeleteRequest(group_id=name, topics=[topic])


def api_versions(version: int, name: str, topic_id: TopicId) -> Request:
    return ApiVersionsRequest(client_software_name="raw", client_software_version="1")


def create_topics(version: int, name: str, topic_id: TopicId) -> Request:
    topic = CreatableTopic(name=name, num_partitions=1, replication_factor=1, assignments=[], configs=[])
    return CreateTopicsRequest(topics=[topic], validate_only=True)


def delete_topics(version: int, name: str, topic_id: TopicId) -> Request:
    if version >= 6:
        topics = [DeleteTopicState(name=None, topic_id=topic_id)]
        return DeleteTopicsRequest(topics=topics, topic_names=[], timeout_ms=1000)
    return DeleteTopicsRequest(topic_names=[name], timeout_ms=1000)


def delete_records(version: int, name: str, topic_id: TopicId) -> Request:
    partitions = [DeleteRecordsPartition(partition_index=index, offset=-1) for index in (0, 7)]
    return DeleteRecordsRequest(
        topics=[DeleteRecordsTopic(name=name, partitions=partitions)], timeout_ms=1000
    )


def init_producer_id(version: int, name: str, topic_id: TopicId) -> Request:
    return InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=1000)


def offset_for_leader_epoch(version: int, name: str, topic_id: TopicId) -> Request:
    partitions = [OffsetForLeaderPartition(partition=index, leader_epoch=0) for index in (0, 7)]
    return OffsetForLeaderEpochRequest(topics=[OffsetForLeaderTopic(topic=name, partitions=partitions)])


def describe_acls(version: int, name: str, topic_id: TopicId) -> Request:
    return DescribeAclsRequest(
        resource_type_filter=2,
        resource_name_filter=name,
        pattern_type_filter=2,
        principal_filter=None,
        host_filter=None,
        operation=1,
        permission_type=1,
    )


def create_acls(version: int, name: str, topic_id: TopicId) -> Request:
    acl = AclCreation(
        resource_type=2,
        resource_name=name,
        resource_pattern_type=3,
        principal="User:nobody",
        host="*",
        operation=3,
        permission_type=3,
    )
    return CreateAclsRequest(creations=[acl])


def delete_acls(version: int, name: str, topic_id: TopicId) -> Request:
    one = DeleteAclsFilter(
        resource_type_filter=2,
        resource_name_filter=name,
        pattern_type_filter=3,
        principal_filter=None,
        host_filter=None,
        operation=1,
        permission_type=1,
    )
    return DeleteAclsRequest(filters=[one])


def describe_configs(version: int, name: str, topic_id: TopicId) -> Request:
    resource = DescribeConfigsResource(resource_type=2, resource_name=name, configuration_keys=None)
    return DescribeConfigsRequest(resources=[resource], include_synonyms=True)


def alter_configs(version: int, name: str, topic_id: TopicId) -> Request:
    config = AlterableConfig(name="retention.ms", value="5")
    resource = AlterConfigsResource(resource_type=2, resource_name=name, configs=[config])
    return AlterConfigsRequest(resources=[resource], validate_only=False)


def incremental_alter_configs(version: int, name: str, topic_id: TopicId) -> Request:
    config = IncrementalAlterableConfig(name="retention.ms", config_operation=0, value="5")
    resource = IncrementalAlterConfigsResource(resource_type=2, resource_name=name, configs=[config])
    return IncrementalAlterConfigsRequest(resources=[resource], validate_only=False)


def list_config_resources(version: int, name: str, topic_id: TopicId) -> Request:
    return ListConfigResourcesRequest(resource_types=[2, 4] if version >= 1 else [])


def create_partitions(version: int, name: str, topic_id: TopicId) -> Request:
    topic = CreatePartitionsTopic(name=name, count=3, assignments=None)
    return CreatePartitionsRequest(topics=[topic], timeout_ms=1000, validate_only=True)


def describe_cluster(version: int, name: str, topic_id: TopicId) -> Request:
    return DescribeClusterRequest(include_cluster_authorized_operations=True)


def describe_topic_partitions(version: int, name: str, topic_id: TopicId) -> Request:
    return DescribeTopicPartitionsRequest(topics=[DescribeTopicPartitionsTopic(name=name)])


def sasl_handshake(version: int, name: str, topic_id: TopicId) -> Request:
    return SaslHandshakeRequest(mechanism="PLAIN")


def sasl_authenticate(version: int, name: str, topic_id: TopicId) -> Request:
    return SaslAuthenticateRequest(auth_bytes=b"\0user\0password")


def describe_user_scram_credentials(version: int, name: str, topic_id: TopicId) -> Request:
    return DescribeUserScramCredentialsRequest(users=[DescribeScramUser(name=name)])


def alter_user_scram_credentials(version: int, name: str, topic_id: TopicId) -> Request:
    upsertion = ScramCredentialUpsertion(
        name=name, mechanism=1, iterations=4096, salt=b"salt", salted_password=bytes(32)
    )
    deletion = ScramCredentialDeletion(name=f"{name}-2", mechanism=2)
    return AlterUserScramCredentialsRequest(deletions=[deletion], upsertions=[upsertion])


def describe_client_quotas(version: int, name: str, topic_id: TopicId) -> Request:
    component = QuotaFilterComponent(entity_type="user", match_type=0, match=name)
    return DescribeClientQuotasRequest(components=[component], strict=False)


def alter_client_quotas(version: int, name: str, topic_id: TopicId) -> Request:
    entity = [AlterQuotaEntity(entity_type="user", entity_name=name)]
    operation = AlterQuotaOperation(key="producer_byte_rate", value=1e9, remove=False)
    entry = AlterQuotaEntry(entity=entity, ops=[operation])
    return AlterClientQuotasRequest(entries=[entry], validate_only=False)


SAMPLES: dict[ApiKey, Any] = {
    ApiKey.PRODUCE: produce,
    ApiKey.FETCH: fetch,
    ApiKey.LIST_OFFSETS: list_offsets,
    ApiKey.METADATA: metadata,
    ApiKey.OFFSET_COMMIT: offset_commit,
    ApiKey.OFFSET_FETCH: offset_fetch,
    ApiKey.FIND_COORDINATOR: find_coordinator,
    ApiKey.JOIN_GROUP: join_group,
    ApiKey.HEARTBEAT: heartbeat,
    ApiKey.LEAVE_GROUP: leave_group,
    ApiKey.SYNC_GROUP: sync_group,
    ApiKey.DESCRIBE_GROUPS: describe_groups,
    ApiKey.LIST_GROUPS: list_groups,
    ApiKey.SASL_HANDSHAKE: sasl_handshake,
    ApiKey.API_VERSIONS: api_versions,
    ApiKey.CREATE_TOPICS: create_topics,
    ApiKey.DELETE_TOPICS: delete_topics,
    ApiKey.DELETE_RECORDS: delete_records,
    ApiKey.INIT_PRODUCER_ID: init_producer_id,
    ApiKey.OFFSET_FOR_LEADER_EPOCH: offset_for_leader_epoch,
    ApiKey.DESCRIBE_ACLS: describe_acls,
    ApiKey.CREATE_ACLS: create_acls,
    ApiKey.DELETE_ACLS: delete_acls,
    ApiKey.DESCRIBE_CONFIGS: describe_configs,
    ApiKey.ALTER_CONFIGS: alter_configs,
    ApiKey.SASL_AUTHENTICATE: sasl_authenticate,
    ApiKey.CREATE_PARTITIONS: create_partitions,
    ApiKey.DELETE_GROUPS: delete_groups,
    ApiKey.INCREMENTAL_ALTER_CONFIGS: incremental_alter_configs,
    ApiKey.OFFSET_DELETE: offset_delete,
    ApiKey.DESCRIBE_CLIENT_QUOTAS: describe_client_quotas,
    ApiKey.ALTER_CLIENT_QUOTAS: alter_client_quotas,
    ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS: describe_user_scram_credentials,
    ApiKey.ALTER_USER_SCRAM_CREDENTIALS: alter_user_scram_credentials,
    ApiKey.DESCRIBE_CLUSTER: describe_cluster,
    ApiKey.LIST_CONFIG_RESOURCES: list_config_resources,
    ApiKey.DESCRIBE_TOPIC_PARTITIONS: describe_topic_partitions,
}


def test_there_is_a_sample_of_every_api() -> None:
    assert list(SAMPLES) == [entry.key for entry in TABLE]


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.name)
def test_every_version_is_answered_for_what_exists_and_what_does_not(
    with_memory_broker: RunWithBroker, entry: ApiEntry
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        low, high = entry.served
        for version in range(low, high + 1):
            name = await broker.topic(f"{HERE}-{version}")
            for asked, topic_id in ((name, broker.topic_id(name)), (NOT_HERE, NO_SUCH_ID)):
                await client.ask(SAMPLES[entry.key](version, asked, topic_id), version)

    with_memory_broker(test)


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.name)
def test_every_version_can_tell_of_a_failure_of_the_whole_request(
    with_memory_broker: RunWithBroker, entry: ApiEntry
) -> None:
    async def test(broker: Broker) -> None:
        dispatcher = broker.agent.server._dispatcher
        low, high = entry.served
        for version in range(low, high + 1):
            request = SAMPLES[entry.key](version, NOT_HERE, NO_TOPIC_ID)
            frame = b"".join(encode_request_frame(1, "raw", request, version))[4:]
            call = dispatcher.open(frame, Client("192.0.2.1:1", Endpoint("broker.test", 9092)), 0.0)
            answer = dispatcher.failed(call, ErrorCode.UNKNOWN_SERVER_ERROR, "a message")
            parts = dispatcher.encode(call, answer)
            assert call.context.error is ErrorCode.UNKNOWN_SERVER_ERROR
            assert not isinstance(parts, NoAnswer)

    with_memory_broker(test)


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.name)
def test_versions_next_to_those_served_close_the_connection(
    with_memory_broker: RunWithBroker, entry: ApiEntry
) -> None:
    async def test(broker: Broker) -> None:
        low, high = entry.served
        for version in (low - 1, high + 1):
            client = await broker.connect()
            body = struct.pack(">hhih", entry.key, version, 1, -1) + bytes(16)
            client.write(struct.pack(">i", len(body)) + body)
            if entry.key is ApiKey.API_VERSIONS:
                assert await client.frame()
            else:
                assert await client.is_closed()

    with_memory_broker(test)
