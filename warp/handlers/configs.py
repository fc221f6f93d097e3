"""DescribeConfigs and ListConfigResources: what is set, where each value comes from, and what it means.

Behaviour: names asked for that do not exist are left out; null or no names ask for all. A broker answers for itself
alone. The empty broker name asks for the configs of the whole cluster: those that were set, and no others. Resources
other than topics and brokers have no configs here, and are INVALID_REQUEST. A secret is named without its value.
Describing takes DESCRIBE_CONFIGS on the topic, for brokers on the cluster; who may not is not told whether a topic
exists. Listing takes DESCRIBE_CONFIGS on the cluster, and leaves out topics that the client may not know of, where
Kafka names all. An answer may be many times the size of its request, so it takes its memory from that for answers.

Version notes: v1 of DescribeConfigs has sources and synonyms (KIP-226), v3 types and documentation (KIP-569).
ListConfigResources v0 lists client metrics (KIP-714), of which there are none; v1 any type (KIP-1142).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from warp.cluster.broker_config import describe_broker, describe_dynamic
from warp.cluster.config_definition import ConfigEntry, shown
from warp.cluster.topic_config import describe_topic
from warp.cluster.topic_request import check_topic_name
from warp.errors import ErrorCode, KafkaError
from warp.handlers.access import allows_cluster, allows_topic
from warp.handlers.answer_memory import AnswerMemory
from warp.handlers.context import Held, RequestContext
from warp.protocol.messages.configs import (
    ConfigResource,
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResourceResult,
    DescribeConfigsResponse,
    DescribeConfigsResult,
    DescribeConfigsSynonym,
    ListConfigResourcesRequest,
    ListConfigResourcesResponse,
)
from warp.protocol.types import AclOperation, ConfigResourceType

WHOLE_CLUSTER = ""
"""The name of the broker that stands for all of them."""

_CONFIG_BYTES = 200
_SYNONYM_BYTES = 80
"""What one takes in an answer and while it is built, beside its texts."""

_LISTED = (ConfigResourceType.TOPIC, ConfigResourceType.BROKER)
_TYPES_SINCE = 1


async def describe_configs(context: RequestContext, request: DescribeConfigsRequest) -> Held:
    """Describe each resource asked for."""
    results = []
    with AnswerMemory(context.services.answer_memory) as memory:
        for resource in request.resources:
            # Nothing else here need ever wait, and there may be thousands: others get their turn after each.
            await asyncio.sleep(0)
            try:
                described = _described(request, resource, await _entries(context, resource))
                if not await memory.take(_size_bytes(described)):
                    raise KafkaError(
                        ErrorCode.REQUEST_TIMED_OUT, "No memory for so large an answer: ask for less"
                    )
            except KafkaError as error:
                described = _failed(context, resource, error.code, error.message)
            results.append(described)
    return memory.held(DescribeConfigsResponse(results=results))


async def _entries(context: RequestContext, resource: DescribeConfigsResource) -> Sequence[ConfigEntry]:
    """All configs of a resource. Raises KafkaError."""
    name = resource.resource_name
    catalogue = context.services.catalogue
    check_resource_access(context, AclOperation.DESCRIBE_CONFIGS, resource.resource_type, name)
    if resource.resource_type == ConfigResourceType.TOPIC:
        check_topic_name(name)
        info = (await catalogue.lookup(names=[name])).by_name.get(name)
        if info is None:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"Topic {name} does not exist")
        defaults = catalogue.defaults
        return describe_topic(info.topic.configs, defaults.static, defaults.dynamic)
    if name == WHOLE_CLUSTER:
        if not catalogue.is_fresh:
            await catalogue.look()
        return describe_dynamic(catalogue.defaults.dynamic)
    check_broker_id(context, name)
    return describe_broker(catalogue.defaults.static, catalogue.defaults.dynamic)


def check_resource_access(context: RequestContext, operation: AclOperation, kind: int, name: str) -> None:
    """Raises KafkaError unless it is a resource that has configs, and the client may do that to them."""
    if kind == ConfigResourceType.TOPIC:
        if not allows_topic(context, operation, name):
            raise KafkaError(ErrorCode.TOPIC_AUTHORIZATION_FAILED, "Topic authorization failed")
    elif kind == ConfigResourceType.BROKER:
        if not allows_cluster(context, operation):
            raise KafkaError(ErrorCode.CLUSTER_AUTHORIZATION_FAILED, "Cluster authorization failed")
    else:
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"Resource type {kind} has no configs here")


def check_broker_id(context: RequestContext, name: str) -> None:
    """Raises KafkaError (INVALID_REQUEST) unless it is this agent's."""
    if name != str(context.services.broker_id):
        problem = f"No broker {shown(name)}; this is broker {context.services.broker_id}"
        raise KafkaError(ErrorCode.INVALID_REQUEST, problem)


def _described(
    request: DescribeConfigsRequest, resource: DescribeConfigsResource, entries: Sequence[ConfigEntry]
) -> DescribeConfigsResult:
    wanted = frozenset(resource.configuration_keys or ())
    return DescribeConfigsResult(
        error_code=ErrorCode.NONE,
        error_message=None,
        resource_type=resource.resource_type,
        resource_name=resource.resource_name,
        configs=[_config(request, entry) for entry in entries if not wanted or entry.name in wanted],
    )


def _config(request: DescribeConfigsRequest, entry: ConfigEntry) -> DescribeConfigsResourceResult:
    synonyms = entry.synonyms if request.include_synonyms else ()
    return DescribeConfigsResourceResult(
        name=entry.name,
        value=entry.value,
        read_only=entry.is_read_only,
        config_source=entry.source,
        is_sensitive=entry.is_sensitive,
        synonyms=[DescribeConfigsSynonym(name=s.name, value=s.value, source=s.source) for s in synonyms],
        config_type=entry.type,
        documentation=entry.documentation if request.include_documentation else None,
    )


def _size_bytes(result: DescribeConfigsResult) -> int:
    """About how much memory a result takes; its texts are shared until they are written."""
    return sum(
        _CONFIG_BYTES
        + len(config.value or "")
        + len(config.documentation or "")
        + sum(_SYNONYM_BYTES + len(synonym.value or "") for synonym in config.synonyms)
        for config in result.configs
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


async def list_config_resources(
    context: RequestContext, request: ListConfigResourcesRequest
) -> ListConfigResourcesResponse:
    """List the resources that can have configs, of the types asked for; no types are all of them."""
    if not allows_cluster(context, AclOperation.DESCRIBE_CONFIGS):
        raise KafkaError(ErrorCode.CLUSTER_AUTHORIZATION_FAILED, "Cluster authorization failed")
    if context.version < _TYPES_SINCE:
        return ListConfigResourcesResponse(error_code=ErrorCode.NONE, config_resources=[])
    wanted = set(request.resource_types) or set(_LISTED)
    if not wanted.issubset(tuple(ConfigResourceType)):
        raise KafkaError(ErrorCode.UNSUPPORTED_VERSION, "Unknown resource type")
    resources = []
    if ConfigResourceType.TOPIC in wanted:
        topics = (await context.services.catalogue.everything()).by_name
        resources += [_listed(ConfigResourceType.TOPIC, name) for name in topics if _may_know(context, name)]
    if ConfigResourceType.BROKER in wanted:
        brokers = sorted(context.services.discovery.broker_ids())
        resources += [_listed(ConfigResourceType.BROKER, str(broker_id)) for broker_id in brokers]
    return ListConfigResourcesResponse(error_code=ErrorCode.NONE, config_resources=resources)


def _may_know(context: RequestContext, topic: str) -> bool:
    return any(
        allows_topic(context, operation, topic, is_asked_for=False)
        for operation in (AclOperation.DESCRIBE, AclOperation.DESCRIBE_CONFIGS)
    )


def _listed(kind: ConfigResourceType, name: str) -> ConfigResource:
    return ConfigResource(resource_name=name, resource_type=kind)


def list_config_resources_failed(
    context: RequestContext, request: ListConfigResourcesRequest, code: ErrorCode, message: str
) -> ListConfigResourcesResponse:
    """The whole request failed."""
    return ListConfigResourcesResponse(error_code=context.note(code), config_resources=[])
