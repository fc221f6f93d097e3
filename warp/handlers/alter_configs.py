"""AlterConfigs and IncrementalAlterConfigs: topics' own configs, and those of the whole cluster.

Behaviour: each resource of a request has its own result, and one is changed wholly or not at all. AlterConfigs replaces
all that is set: names that it leaves out go back to their defaults. IncrementalAlterConfigs changes single configs
(KIP-339); adding items to a list that is not set adds them to the value that holds, and deleting what is not set does
nothing. A resource or a config named twice is INVALID_REQUEST. `validate_only` runs every check and changes nothing.

A change is made of the newest configs, and made anew when another agent has changed them meanwhile: none is lost. When
it is answered it is stored, and other agents follow it within a second.

The broker with the empty name stands for the whole cluster. A single broker id has no configs that could be set while
it runs: setting one is refused with the agent's option for it; deleting, and a replacement by nothing, succeed.
Altering takes ALTER_CONFIGS on the topic, for brokers on the cluster.

Version notes: versions differ in their encoding alone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from warp.cluster.cluster_config import dynamic_definition, dynamic_value, entry_changes, why_not_of_one_agent
from warp.cluster.config_change import ConfigChange, ConfigOperation, applied, check_changes, replacement
from warp.cluster.topic_config import check_topic_configs, effective, topic_definition
from warp.cluster.topic_request import check_topic_name
from warp.errors import ErrorCode, KafkaError
from warp.handlers.configs import WHOLE_CLUSTER, check_broker_id, check_resource_access
from warp.handlers.context import RequestContext
from warp.metadata.entries import EntryChange, EntryKind
from warp.protocol.messages.configs import (
    AlterConfigsRequest,
    AlterConfigsResource,
    AlterConfigsResourceResponse,
    AlterConfigsResponse,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResource,
    IncrementalAlterConfigsResourceResponse,
    IncrementalAlterConfigsResponse,
)
from warp.protocol.types import AclOperation, ConfigResourceType

Resource = TypeVar("Resource", AlterConfigsResource, IncrementalAlterConfigsResource)

NOT_SET = "(default)"
"""In the audit log: a config that is not set."""


class _Alteration(NamedTuple):
    """What is to become of the configs of one resource."""

    names: Sequence[str]
    """Those that are given a value."""
    of_topic: Callable[[Mapping[str, str]], Mapping[str, str]]
    """All overrides of a topic, by those that it has; not yet checked."""
    of_cluster: Callable[[Mapping[str, str]], Mapping[str, str]]
    """All configs of the whole cluster, by those that are set; not yet checked."""


async def alter_configs(context: RequestContext, request: AlterConfigsRequest) -> AlterConfigsResponse:
    """Replace the configs of each resource."""

    def plan(resource: AlterConfigsResource) -> _Alteration:
        wanted = replacement([(config.name, config.value) for config in resource.configs])
        return _Alteration(tuple(wanted), lambda _: wanted, lambda _: wanted)

    problems = await _alter(context, request.resources, plan, validate_only=request.validate_only)
    return AlterConfigsResponse(
        responses=[
            _replaced(context, resource, problem)
            for resource, problem in zip(request.resources, problems, strict=True)
        ]
    )


async def incremental_alter_configs(
    context: RequestContext, request: IncrementalAlterConfigsRequest
) -> IncrementalAlterConfigsResponse:
    """Change single configs of each resource."""
    defaults = context.services.catalogue.defaults

    def plan(resource: IncrementalAlterConfigsResource) -> _Alteration:
        changes = [
            ConfigChange(config.name, config.config_operation, config.value) for config in resource.configs
        ]
        check_changes(changes)
        return _Alteration(
            [change.name for change in changes if change.operation != ConfigOperation.DELETE],
            lambda configs: applied(
                changes, configs, topic_definition, lambda name: effective({}, defaults.values, name)
            ),
            lambda configs: applied(
                changes, configs, dynamic_definition, lambda name: dynamic_value(defaults.static, name)
            ),
        )

    problems = await _alter(context, request.resources, plan, validate_only=request.validate_only)
    return IncrementalAlterConfigsResponse(
        responses=[
            _altered(context, resource, problem)
            for resource, problem in zip(request.resources, problems, strict=True)
        ]
    )


async def _alter(
    context: RequestContext,
    resources: Sequence[Resource],
    plan: Callable[[Resource], _Alteration],
    *,
    validate_only: bool,
) -> list[KafkaError | None]:
    """Alter the resources one after the other; per resource why it was not, in order."""
    times = Counter((resource.resource_type, resource.resource_name) for resource in resources)
    problems: list[KafkaError | None] = []
    for resource in resources:
        # Nothing else here need ever wait, and there may be thousands: others get their turn after each.
        await asyncio.sleep(0)
        kind, name = resource.resource_type, resource.resource_name
        try:
            if times[kind, name] > 1:
                raise KafkaError(ErrorCode.INVALID_REQUEST, "Each resource must appear at most once")
            check_resource_access(context, AclOperation.ALTER_CONFIGS, kind, name)
            alteration = plan(resource)
            if kind == ConfigResourceType.TOPIC:
                await _alter_topic(context, name, alteration, validate_only=validate_only)
            elif name == WHOLE_CLUSTER:
                await _alter_cluster(context, alteration, validate_only=validate_only)
            else:
                check_broker_id(context, name)
                if alteration.names:
                    raise why_not_of_one_agent(alteration.names[0])
            problems.append(None)
        except KafkaError as error:
            problems.append(error)
    return problems


async def _alter_topic(
    context: RequestContext, name: str, alteration: _Alteration, *, validate_only: bool
) -> None:
    check_topic_name(name)
    catalogue = context.services.catalogue
    told: list[str] = []

    def decide(configs: Mapping[str, str]) -> Mapping[str, str]:
        after = check_topic_configs(alteration.of_topic(configs), catalogue.defaults.values, configs)
        told[:] = _told(configs, after)
        return after

    if validate_only:
        info = (await catalogue.lookup(names=[name])).by_name.get(name)
        if info is None:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"Topic {name} does not exist")
        decide(info.topic.configs)
        return
    with context.telling_each("altered configs of a topic", told, topic=name):
        await catalogue.set_topic_configs(name, decide)


async def _alter_cluster(context: RequestContext, alteration: _Alteration, *, validate_only: bool) -> None:
    catalogue = context.services.catalogue
    told: list[str] = []

    def decide(configs: Mapping[str, str]) -> Sequence[EntryChange]:
        after = alteration.of_cluster(configs)
        told[:] = _told(configs, after)
        return entry_changes(configs, after)

    if validate_only:
        decide(catalogue.entries(EntryKind.CONFIG))
        return
    with context.telling_each("altered configs of the cluster", told):
        await catalogue.change_entries(EntryKind.CONFIG, decide)


def _told(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """What changes, for the audit log. No config that can be altered is a secret."""
    return [
        f"{name}: {before.get(name, NOT_SET)} -> {after.get(name, NOT_SET)}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


def _replaced(
    context: RequestContext, resource: AlterConfigsResource, problem: KafkaError | None
) -> AlterConfigsResourceResponse:
    return AlterConfigsResourceResponse(
        error_code=ErrorCode.NONE if problem is None else context.note(problem.code),
        error_message=None if problem is None else problem.message,
        resource_type=resource.resource_type,
        resource_name=resource.resource_name,
    )


def _altered(
    context: RequestContext, resource: IncrementalAlterConfigsResource, problem: KafkaError | None
) -> IncrementalAlterConfigsResourceResponse:
    return IncrementalAlterConfigsResourceResponse(
        error_code=ErrorCode.NONE if problem is None else context.note(problem.code),
        error_message=None if problem is None else problem.message,
        resource_type=resource.resource_type,
        resource_name=resource.resource_name,
    )


def alter_configs_failed(
    context: RequestContext, request: AlterConfigsRequest, code: ErrorCode, message: str
) -> AlterConfigsResponse:
    """The whole request failed: each resource has the error."""
    problem = KafkaError(code, message)
    return AlterConfigsResponse(
        responses=[_replaced(context, resource, problem) for resource in request.resources]
    )


def incremental_alter_configs_failed(
    context: RequestContext, request: IncrementalAlterConfigsRequest, code: ErrorCode, message: str
) -> IncrementalAlterConfigsResponse:
    """The whole request failed: each resource has the error."""
    problem = KafkaError(code, message)
    return IncrementalAlterConfigsResponse(
        responses=[_altered(context, resource, problem) for resource in request.resources]
    )
