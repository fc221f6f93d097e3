"""The APIs: which messages each key stands for.

One explicit list. What an agent serves and advertises of it stands in warp/handlers/table.py.
"""

from __future__ import annotations

import dataclasses

from warp.protocol.messages import (
    acls,
    api_versions,
    cluster,
    configs,
    consumer_groups,
    fetch,
    group_offsets,
    groups,
    metadata,
    offsets,
    produce,
    producers,
    quotas,
    sasl,
    scram,
    telemetry,
    topics,
    transactions,
)
from warp.protocol.schema import Request, Response
from warp.protocol.types import ApiKey


@dataclasses.dataclass(frozen=True, slots=True)
class Api:
    """One API: its key, and the classes whose tables give its versions and the first flexible one."""

    key: ApiKey
    request: type[Request]
    response: type[Response]

    @property
    def name(self) -> str:
        """Kafka's name of the API, such as "FindCoordinator"."""
        return self.request.__name__.removesuffix("Request")

    @property
    def versions(self) -> tuple[int, int]:
        """First and last version that the tables know."""
        return self.request.versions

    @property
    def flexible(self) -> int | None:
        """The first flexible version."""
        return self.request.flexible


_REQUESTS_AND_RESPONSES: tuple[tuple[type[Request], type[Response]], ...] = (
    (produce.ProduceRequest, produce.ProduceResponse),
    (fetch.FetchRequest, fetch.FetchResponse),
    (offsets.ListOffsetsRequest, offsets.ListOffsetsResponse),
    (metadata.MetadataRequest, metadata.MetadataResponse),
    (group_offsets.OffsetCommitRequest, group_offsets.OffsetCommitResponse),
    (group_offsets.OffsetFetchRequest, group_offsets.OffsetFetchResponse),
    (groups.FindCoordinatorRequest, groups.FindCoordinatorResponse),
    (groups.JoinGroupRequest, groups.JoinGroupResponse),
    (groups.HeartbeatRequest, groups.HeartbeatResponse),
    (groups.LeaveGroupRequest, groups.LeaveGroupResponse),
    (groups.SyncGroupRequest, groups.SyncGroupResponse),
    (groups.DescribeGroupsRequest, groups.DescribeGroupsResponse),
    (groups.ListGroupsRequest, groups.ListGroupsResponse),
    (sasl.SaslHandshakeRequest, sasl.SaslHandshakeResponse),
    (api_versions.ApiVersionsRequest, api_versions.ApiVersionsResponse),
    (topics.CreateTopicsRequest, topics.CreateTopicsResponse),
    (topics.DeleteTopicsRequest, topics.DeleteTopicsResponse),
    (offsets.DeleteRecordsRequest, offsets.DeleteRecordsResponse),
    (producers.InitProducerIdRequest, producers.InitProducerIdResponse),
    (offsets.OffsetForLeaderEpochRequest, offsets.OffsetForLeaderEpochResponse),
    (transactions.AddPartitionsToTxnRequest, transactions.AddPartitionsToTxnResponse),
    (transactions.AddOffsetsToTxnRequest, transactions.AddOffsetsToTxnResponse),
    (transactions.EndTxnRequest, transactions.EndTxnResponse),
    (transactions.WriteTxnMarkersRequest, transactions.WriteTxnMarkersResponse),
    (transactions.TxnOffsetCommitRequest, transactions.TxnOffsetCommitResponse),
    (acls.DescribeAclsRequest, acls.DescribeAclsResponse),
    (acls.CreateAclsRequest, acls.CreateAclsResponse),
    (acls.DeleteAclsRequest, acls.DeleteAclsResponse),
    (configs.DescribeConfigsRequest, configs.DescribeConfigsResponse),
    (configs.AlterConfigsRequest, configs.AlterConfigsResponse),
    (cluster.DescribeLogDirsRequest, cluster.DescribeLogDirsResponse),
    (sasl.SaslAuthenticateRequest, sasl.SaslAuthenticateResponse),
    (topics.CreatePartitionsRequest, topics.CreatePartitionsResponse),
    (groups.DeleteGroupsRequest, groups.DeleteGroupsResponse),
    (topics.ElectLeadersRequest, topics.ElectLeadersResponse),
    (configs.IncrementalAlterConfigsRequest, configs.IncrementalAlterConfigsResponse),
    (topics.AlterPartitionReassignmentsRequest, topics.AlterPartitionReassignmentsResponse),
    (topics.ListPartitionReassignmentsRequest, topics.ListPartitionReassignmentsResponse),
    (group_offsets.OffsetDeleteRequest, group_offsets.OffsetDeleteResponse),
    (quotas.DescribeClientQuotasRequest, quotas.DescribeClientQuotasResponse),
    (quotas.AlterClientQuotasRequest, quotas.AlterClientQuotasResponse),
    (scram.DescribeUserScramCredentialsRequest, scram.DescribeUserScramCredentialsResponse),
    (scram.AlterUserScramCredentialsRequest, scram.AlterUserScramCredentialsResponse),
    (cluster.DescribeQuorumRequest, cluster.DescribeQuorumResponse),
    (cluster.UpdateFeaturesRequest, cluster.UpdateFeaturesResponse),
    (cluster.DescribeClusterRequest, cluster.DescribeClusterResponse),
    (producers.DescribeProducersRequest, producers.DescribeProducersResponse),
    (transactions.DescribeTransactionsRequest, transactions.DescribeTransactionsResponse),
    (transactions.ListTransactionsRequest, transactions.ListTransactionsResponse),
    (consumer_groups.ConsumerGroupHeartbeatRequest, consumer_groups.ConsumerGroupHeartbeatResponse),
    (consumer_groups.ConsumerGroupDescribeRequest, consumer_groups.ConsumerGroupDescribeResponse),
    (telemetry.GetTelemetrySubscriptionsRequest, telemetry.GetTelemetrySubscriptionsResponse),
    (telemetry.PushTelemetryRequest, telemetry.PushTelemetryResponse),
    (configs.ListConfigResourcesRequest, configs.ListConfigResourcesResponse),
    (metadata.DescribeTopicPartitionsRequest, metadata.DescribeTopicPartitionsResponse),
)

APIS: dict[ApiKey, Api] = {
    request.api: Api(request.api, request, response) for request, response in _REQUESTS_AND_RESPONSES
}
"""Every API, by key, in the order of the keys."""
