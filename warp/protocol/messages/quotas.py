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


class QuotaFilterComponent(Struct):
    entity_type: string
    match_type: int8
    match: string | None


class DescribeClientQuotasRequest(Request, api=ApiKey.DESCRIBE_CLIENT_QUOTAS, versions=(0, 1), flexible=1):
    """A filter of quotas by the entities that they belong to."""

    components: list[QuotaFilterComponent]
    strict: boolean


class QuotaEntity(Struct):
    entity_type: string
    entity_name: string | None


class QuotaValue(Struct):
    key: string
    value: float64


class QuotaEntry(Struct):
    entity: list[QuotaEntity]
    values: list[QuotaValue]


class DescribeClientQuotasResponse(Response, api=ApiKey.DESCRIBE_CLIENT_QUOTAS, versions=(0, 1), flexible=1):
    throttle_time_ms: int32 = field(default=0)
    error_code: int16
    error_message: string | None
    entries: list[QuotaEntry] | None


class AlterQuotaEntity(Struct):
    entity_type: string
    entity_name: string | None


class AlterQuotaOperation(Struct):
    key: string
    value: float64
    remove: boolean


class AlterQuotaEntry(Struct):
    entity: list[AlterQuotaEntity]
    ops: list[AlterQuotaOperation]


class AlterClientQuotasRequest(Request, api=ApiKey.ALTER_CLIENT_QUOTAS, versions=(0, 1), flexible=1):
    """Sets or removes quotas."""

    entries: list[AlterQuotaEntry]
    validate_only: boolean


class AlterQuotaEntityResponse(Struct):
    entity_type: string
    entity_name: string | None


class AlterQuotaEntryResponse(Struct):
    error_code: int16
    error_message: string | None
    entity: list[AlterQuotaEntityResponse]


class AlterClientQuotasResponse(Response, api=ApiKey.ALTER_CLIENT_QUOTAS, versions=(0, 1), flexible=1):
    throttle_time_ms: int32 = field(default=0)
    entries: list[AlterQuotaEntryResponse]
