"""SaslHandshake and SaslAuthenticate."""

from warp.protocol.schema import Request, Response, bytes_, field, int16, int64, string
from warp.protocol.types import ApiKey


class SaslHandshakeRequest(Request, api=ApiKey.SASL_HANDSHAKE, versions=(0, 1)):
    """After v0 raw tokens follow, after v1 SaslAuthenticate requests (KIP-152). Never flexible."""

    mechanism: string


class SaslHandshakeResponse(Response, api=ApiKey.SASL_HANDSHAKE, versions=(0, 1)):
    error_code: int16
    mechanisms: list[string]


class SaslAuthenticateRequest(Request, api=ApiKey.SASL_AUTHENTICATE, versions=(0, 2), flexible=2):
    """One token of the mechanism. v1 answers with the lifetime of the session (KIP-368)."""

    auth_bytes: bytes_


class SaslAuthenticateResponse(Response, api=ApiKey.SASL_AUTHENTICATE, versions=(0, 2), flexible=2):
    error_code: int16
    error_message: string | None
    auth_bytes: bytes_
    session_lifetime_ms: int64 = field(default=0, since=1, ignorable=True)
