"""DescribeAcls, CreateAcls and DeleteAcls."""

from warp.protocol.schema import Request, Response, Struct, field, int8, int16, int32, string
from warp.protocol.types import ApiKey


class DescribeAclsRequest(Request, api=ApiKey.DESCRIBE_ACLS, versions=(1, 3), flexible=2):
    """A filter of ACLs; null matches everything. v1 has pattern types (KIP-290), v3 users as resources (KIP-373)."""

    resource_type_filter: int8
    resource_name_filter: string | None
    pattern_type_filter: int8 = field(default=3)
    principal_filter: string | None
    host_filter: string | None
    operation: int8
    permission_type: int8


class AclDescription(Struct):
    principal: string
    host: string
    operation: int8
    permission_type: int8


class DescribeAclsResource(Struct):
    resource_type: int8
    resource_name: string
    pattern_type: int8 = field(default=3)
    acls: list[AclDescription]


class DescribeAclsResponse(Response, api=ApiKey.DESCRIBE_ACLS, versions=(1, 3), flexible=2):
    throttle_time_ms: int32 = field(default=0)
    error_code: int16
    error_message: string | None
    resources: list[DescribeAclsResource]


class AclCreation(Struct):
    resource_type: int8
    resource_name: string
    resource_pattern_type: int8 = field(default=3)
    principal: string
    host: string
    operation: int8
    permission_type: int8


class CreateAclsRequest(Request, api=ApiKey.CREATE_ACLS, versions=(1, 3), flexible=2):
    """v1 has pattern types (KIP-290), v3 users as resources (KIP-373)."""

    creations: list[AclCreation]


class AclCreationResult(Struct):
    error_code: int16
    error_message: string | None


class CreateAclsResponse(Response, api=ApiKey.CREATE_ACLS, versions=(1, 3), flexible=2):
    throttle_time_ms: int32 = field(default=0)
    results: list[AclCreationResult]


class DeleteAclsFilter(Struct):
    resource_type_filter: int8
    resource_name_filter: string | None
    pattern_type_filter: int8 = field(default=3)
    principal_filter: string | None
    host_filter: string | None
    operation: int8
    permission_type: int8


class DeleteAclsRequest(Request, api=ApiKey.DELETE_ACLS, versions=(1, 3), flexible=2):
    """Deletes what any of the filters matches. v1 has pattern types (KIP-290), v3 users as resources (KIP-373)."""

    filters: list[DeleteAclsFilter]


class DeleteAclsMatchingAcl(Struct):
    error_code: int16
    error_message: string | None
    resource_type: int8
    resource_name: string
    pattern_type: int8 = field(default=3)
    principal: string
    host: string
    operation: int8
    permission_type: int8


class DeleteAclsFilterResult(Struct):
    error_code: int16
    error_message: string | None
    matching_acls: list[DeleteAclsMatchingAcl]


class DeleteAclsResponse(Response, api=ApiKey.DELETE_ACLS, versions=(1, 3), flexible=2):
    throttle_time_ms: int32 = field(default=0)
    filter_results: list[DeleteAclsFilterResult]
