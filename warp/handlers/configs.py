"""DescribeConfigs: the configs of topics and brokers, where each value comes from, and what it means.

Behaviour: names asked for that do not exist are left out; null or no names ask for all. A broker answers for itself,
and for any other id too where its number is known (the agents of a cluster are configured alike). The empty broker name
asks for the cluster's dynamic defaults, of which there are none. Other resources than topics and brokers are
INVALID_REQUEST.

Version notes: v1 has sources and synonyms (KIP-226), v3 types and documentation (KIP-569).
"""

from __future__ import annotations

from collections.abc import Sequence

from warp.cluster.broker_config import describe_broker
from warp.cluster.config_definition import ConfigEntry
from warp.cluster.topic_config import describe_topic
from warp.cluster.topic_request import check_topic_name
from warp.errors import ErrorCode, KafkaError
from warp.handlers.context import RequestContext
from warp.protocol.messages.configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResourceResult,
    DescribeConfigsResponse,
    DescribeConfigsResult,
    DescribeConfigsSynonym,
)
from warp.protocol.types import ConfigResourceType

_CLUSTER_DEFAULT = ""


async def describe_configs(
    context: RequestContext, request: DescribeConfigsRequest
) -> DescribeConfigsResponse:
    """Describe each resource asked for."""
    results = []
    for resource in request.resources:
        try:
            entries = await _entries(context, resource)
        except KafkaError as error:
            results.append(_failed(context, resource, error.code, error.message))
        else:
            results.append(_described(request, resource, entries))
    return DescribeConfigsResponse(results=results)


async def _entries(context: RequestContext, resource: DescribeConfigsResource) -> Sequence[ConfigEntry]:
    """All configs of a resource. Raises KafkaError."""
    name = resource.resource_name
    catalogue = context.services.catalogue
    if resource.resource_type == ConfigResourceType.TOPIC:
        check_topic_name(name)
        info = (await catalogue.lookup(names=[name])).by_name.get(name)
        if info is None:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"Topic {name} does not exist")
        return describe_topic(info.topic.configs, catalogue.broker)
    if resource.resource_type == ConfigResourceType.BROKER:
        if name == _CLUSTER_DEFAULT:
            return ()
        if name != str(context.services.broker_id):
            problem = f"No broker {name}; this is broker {context.services.broker_id}"
            raise KafkaError(ErrorCode.INVALID_REQUEST, problem)
        return describe_broker(catalogue.broker)
    raise KafkaError(ErrorCode.INVALID_REQUEST, f"Resource type {resource.resource_type} has no configs here")


def _described(
    request: DescribeConfigsRequest, resource: DescribeConfigsResource, entries: Sequence[ConfigEntry]
) -> DescribeConfigsResult:
    wanted = resource.configuration_keys or None
    return DescribeConfigsResult(
        error_code=ErrorCode.NONE,
        error_message=None,
        resource_type=resource.resource_type,
        resource_name=resource.resource_name,
        configs=[_config(request, entry) for entry in entries if wanted is None or entry.name in wanted],
    )


def _config(request: DescribeConfigsRequest, entry: ConfigEntry) -> DescribeConfigsResourceResult:
    synonyms = entry.synonyms if request.include_synonyms else ()
    return DescribeConfigsResourceResult(
        name=entry.name,
        value=entry.value,
        read_only=entry.is_read_only,
        config_source=entry.source,
        is_sensitive=False,
        synonyms=[DescribeConfigsSynonym(name=s.name, value=s.value, source=s.source) for s in synonyms],
        config_type=entry.type,
        documentation=entry.documentation if request.include_documentation else None,
    )


def _failed(
    context: RequestContext, resource: DescribeConfigsResource, code: ErrorCode, message: str
) -> DescribeConfigsResult:
    return DescribeConfigsResult(
        error_code=context.note(code),
        error_message=message,
        resource_type=resource.resource_type,
        resource_name=resource.resource_name,
        configs=[],
    )


def describe_configs_failed(
    context: RequestContext, request: DescribeConfigsRequest, code: ErrorCode, message: str
) -> DescribeConfigsResponse:
    """The whole request failed: each resource has the error."""
    return DescribeConfigsResponse(
        results=[_failed(context, resource, code, message) for resource in request.resources]
    )
