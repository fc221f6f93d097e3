"""DescribeConfigs, AlterConfigs, IncrementalAlterConfigs and ListConfigResources."""

from warp.protocol.schema import Request, Response, Struct, boolean, field, int8, int16, int32, string
from warp.protocol.types import ApiKey


class DescribeConfigsResource(Struct):
    resource_type: int8
    resource_name: string
    configuration_keys: list[string] | None


class DescribeConfigsRequest(Request, api=ApiKey.DESCRIBE_CONFIGS, versions=(1, 4), flexible=4):
    """Null keys ask for all. v1 has synonyms (KIP-226), v3 types and documentation (KIP-569)."""

    resources: list[DescribeConfigsResource]
    include_synonyms: boolean = field(default=False)
    include_documentation: boolean = field(default=False, since=3)


class DescribeConfigsSynonym(Struct):
    name: string
    value: string | None
    source: int8


class DescribeConfigsResourceResult(Struct):
    name: string
    value: string | None
    read_only: boolean
    config_source: int8 = field(default=-1)
    is_sensitive: boolean
    synonyms: list[DescribeConfigsSynonym]
    config_type: int8 = field(default=0, since=3, ignorable=True)
    documentation: string | None = field(since=3, ignorable=True)


class DescribeConfigsResult(Struct):
    error_code: int16
    error_message: string | None
    resource_type: int8
    resource_name: string
    configs: list[DescribeConfigsResourceResult]


class DescribeConfigsResponse(Response, api=ApiKey.DESCRIBE_CONFIGS, versions=(1, 4), flexible=4):
    throttle_time_ms: int32 = field(default=0)
    results: list[DescribeConfigsResult]


class AlterableConfig(Struct):
    name: string
    value: string | None


class AlterConfigsResource(Struct):
    resource_type: int8
    resource_name: string
    configs: list[AlterableConfig]


class AlterConfigsRequest(Request, api=ApiKey.ALTER_CONFIGS, versions=(0, 2), flexible=2):
    """Replaces all configs of a resource; superseded by IncrementalAlterConfigs."""

    resources: list[AlterConfigsResource]
    validate_only: boolean


class AlterConfigsResourceResponse(Struct):
    error_code: int16
    error_message: string | None
    resource_type: int8
    resource_name: string


class AlterConfigsResponse(Response, api=ApiKey.ALTER_CONFIGS, versions=(0, 2), flexible=2):
    throttle_time_ms: int32 = field(default=0)
    responses: list[AlterConfigsResourceResponse]


class IncrementalAlterableConfig(Struct):
    name: string
    config_operation: int8
    value: string | None


class IncrementalAlterConfigsResource(Struct):
    resource_type: int8
    resource_name: string
    configs: list[IncrementalAlterableConfig]


class IncrementalAlterConfigsRequest(
    Request, api=ApiKey.INCREMENTAL_ALTER_CONFIGS, versions=(0, 1), flexible=1
):
    """Changes single configs (KIP-339)."""

    resources: list[IncrementalAlterConfigsResource]
    validate_only: boolean


class IncrementalAlterConfigsResourceResponse(Struct):
    error_code: int16
    error_message: string | None
    resource_type: int8
    resource_name: string


class IncrementalAlterConfigsResponse(
    Response, api=ApiKey.INCREMENTAL_ALTER_CONFIGS, versions=(0, 1), flexible=1
):
    throttle_time_ms: int32 = field(default=0)
    responses: list[IncrementalAlterConfigsResourceResponse]


class ListConfigResourcesRequest(Request, api=ApiKey.LIST_CONFIG_RESOURCES, versions=(0, 1), flexible=0):
    """v0 listed client metrics resources only (KIP-714); v1 lists any type (KIP-1142)."""

    resource_types: list[int8] = field(default_factory=list, since=1)


class ConfigResource(Struct):
    resource_name: string
    resource_type: int8 = field(default=16, since=1, ignorable=True)


class ListConfigResourcesResponse(Response, api=ApiKey.LIST_CONFIG_RESOURCES, versions=(0, 1), flexible=0):
    throttle_time_ms: int32 = field(default=0)
    error_code: int16
    config_resources: list[ConfigResource]
