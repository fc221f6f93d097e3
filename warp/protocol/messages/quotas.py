"""DescribeClientQuotas and AlterClientQuotas (KIP-546)."""

from warp.protocol.schema import (
    Request,
    Response,
    Struct,
    boolean,
    field,
    float64,
    int8,
    int16,
    int32,
    string,
)
from warp.protocol.types import ApiKey


class DescribeClientQuotasComponentData(Struct):
    entity_type: string
    match_type: int8
    match: string | None


class DescribeClientQuotasRequest(Request, api=ApiKey.DESCRIBE_CLIENT_QUOTAS, versions=(0, 1), flexible=1):
    """A filter of quotas by the entities that they belong to."""

    components: list[DescribeClientQuotasComponentData]
    strict: boolean


class DescribeClientQuotasEntityData(Struct):
    entity_type: string
    entity_name: string | None


class DescribeClientQuotasValueData(Struct):
    key: string
    value: float64


class DescribeClientQuotasEntryData(Struct):
    entity: list[DescribeClientQuotasEntityData]
    values: list[DescribeClientQuotasValueData]


class DescribeClientQuotasResponse(Response, api=ApiKey.DESCRIBE_CLIENT_QUOTAS, versions=(0, 1), flexible=1):
    throttle_time_ms: int32 = field(default=0)
    error_code: int16
    error_message: string | None
    entries: list[DescribeClientQuotasEntryData] | None


class AlterClientQuotasEntityData(Struct):
    entity_type: string
    entity_name: string | None


class OpData(Struct):
    key: string
    value: float64
    remove: boolean


class AlterClientQuotasEntryData(Struct):
    entity: list[AlterClientQuotasEntityData]
    ops: list[OpData]


class AlterClientQuotasRequest(Request, api=ApiKey.ALTER_CLIENT_QUOTAS, versions=(0, 1), flexible=1):
    """Sets or removes quotas."""

    entries: list[AlterClientQuotasEntryData]
    validate_only: boolean


class AlterClientQuotasAlterClientQuotasEntityData(Struct):
    entity_type: string
    entity_name: string | None


class AlterClientQuotasAlterClientQuotasEntryData(Struct):
    error_code: int16
    error_message: string | None
    entity: list[AlterClientQuotasAlterClientQuotasEntityData]


class AlterClientQuotasResponse(Response, api=ApiKey.ALTER_CLIENT_QUOTAS, versions=(0, 1), flexible=1):
    throttle_time_ms: int32 = field(default=0)
    entries: list[AlterClientQuotasAlterClientQuotasEntryData]
