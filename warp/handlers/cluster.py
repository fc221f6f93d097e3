"""DescribeCluster: the cluster's id and its brokers (KIP-700).

Behaviour: brokers are the agents that the client may talk to (`warp.cluster.discovery`), known by the addresses of the
listener that the request came in on. The controller is the one that leads partitions in this client's eyes. Nobody is
refused this; who may not describe the cluster is told that it may do nothing to it.

Version notes: v1 says whether brokers or controllers are wanted (KIP-919); a broker knows of no controllers apart from
brokers. v2 can include fenced brokers (KIP-1073), of which there are none.
"""

from __future__ import annotations

from warp.errors import ErrorCode
from warp.handlers.context import RequestContext
from warp.handlers.leaders import agents_for, choice_for
from warp.handlers.operations import cluster_operations
from warp.protocol.messages.cluster import (
    DescribeClusterBroker,
    DescribeClusterRequest,
    DescribeClusterResponse,
)
from warp.protocol.types import AUTHORIZED_OPERATIONS_OMITTED

_BROKERS = 1
_CONTROLLERS = 2


def describe_cluster(context: RequestContext, request: DescribeClusterRequest) -> DescribeClusterResponse:
    """Describe the agents that live."""
    if request.endpoint_type == _CONTROLLERS:
        code = ErrorCode.MISMATCHED_ENDPOINT_TYPE
        return describe_cluster_failed(context, request, code, "this is a broker's endpoint")
    if request.endpoint_type != _BROKERS:
        code = ErrorCode.UNSUPPORTED_ENDPOINT_TYPE
        return describe_cluster_failed(context, request, code, f"no endpoint type {request.endpoint_type}")
    services = context.services
    asked = request.include_cluster_authorized_operations
    return DescribeClusterResponse(
        error_code=ErrorCode.NONE,
        cluster_id=services.cluster_id,
        controller_id=choice_for(context).leader,
        brokers=[
            DescribeClusterBroker(
                broker_id=agent.broker_id, host=agent.host, port=agent.port, rack=agent.rack
            )
            for agent in agents_for(context)
        ],
        cluster_authorized_operations=cluster_operations(context) if asked else AUTHORIZED_OPERATIONS_OMITTED,
    )


def describe_cluster_failed(
    context: RequestContext, request: DescribeClusterRequest, code: ErrorCode, message: str
) -> DescribeClusterResponse:
    """The whole request failed."""
    return DescribeClusterResponse(
        error_code=context.note(code), error_message=message, cluster_id="", brokers=[]
    )
