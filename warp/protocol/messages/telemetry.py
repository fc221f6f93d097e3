"""GetTelemetrySubscriptions and PushTelemetry (KIP-714)."""

from warp.protocol.schema import Request, Response, boolean, bytes_, field, int8, int16, int32, string, uuid
from warp.protocol.types import ApiKey


class GetTelemetrySubscriptionsRequest(
    Request, api=ApiKey.GET_TELEMETRY_SUBSCRIPTIONS, versions=(0, 0), flexible=0
):
    """Asks which metrics to push; the zero id asks for a client instance id too."""

    client_instance_id: uuid


class GetTelemetrySubscriptionsResponse(
    Response, api=ApiKey.GET_TELEMETRY_SUBSCRIPTIONS, versions=(0, 0), flexible=0
):
    throttle_time_ms: int32 = field(default=0)
    error_code: int16
    client_instance_id: uuid
    subscription_id: int32
    accepted_compression_types: list[int8]
    push_interval_ms: int32
    telemetry_max_bytes: int32
    delta_temporality: boolean
    requested_metrics: list[string]


class PushTelemetryRequest(Request, api=ApiKey.PUSH_TELEMETRY, versions=(0, 0), flexible=0):
    """Metrics of a client, in the format of OpenTelemetry, perhaps compressed."""

    client_instance_id: uuid
    subscription_id: int32
    terminating: boolean
    compression_type: int8
    metrics: bytes_


class PushTelemetryResponse(Response, api=ApiKey.PUSH_TELEMETRY, versions=(0, 0), flexible=0):
    throttle_time_ms: int32 = field(default=0)
    error_code: int16
