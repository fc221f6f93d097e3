"""ApiVersions: what a broker serves."""

from warp.protocol.schema import Request, Response, Struct, boolean, field, int16, int32, int64, string
from warp.protocol.types import ApiKey


class ApiVersionsRequest(Request, api=ApiKey.API_VERSIONS, versions=(0, 4), flexible=3):
    """v3 names the client's software (KIP-511). v4 allows supported features whose lowest level is 0."""

    client_software_name: string = field(default="", since=3, ignorable=True)
    client_software_version: string = field(default="", since=3, ignorable=True)


class ApiVersion(Struct):
    api_key: int16
    min_version: int16
    max_version: int16


class SupportedFeatureKey(Struct):
    name: string
    min_version: int16
    max_version: int16


class FinalizedFeatureKey(Struct):
    name: string
    max_version_level: int16
    min_version_level: int16


class ApiVersionsResponse(Response, api=ApiKey.API_VERSIONS, versions=(0, 4), flexible=3):
    error_code: int16
    api_keys: list[ApiVersion]
    throttle_time_ms: int32 = field(default=0, since=1, ignorable=True)
    supported_features: list[SupportedFeatureKey] = field(
        default_factory=list, since=3, tag=0, ignorable=True
    )  # KIP-584
    finalized_features_epoch: int64 = field(default=-1, since=3, tag=1, ignorable=True)
    finalized_features: list[FinalizedFeatureKey] = field(
        default_factory=list, since=3, tag=2, ignorable=True
    )
    zk_migration_ready: boolean = field(default=False, since=3, tag=3, ignorable=True)  # KIP-866
