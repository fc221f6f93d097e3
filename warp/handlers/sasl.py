"""SaslHandshake and SaslAuthenticate: how a client of a SASL listener says who it is (KIP-43, KIP-152).

Behaviour: what may come when is decided by the connection (`warp.server.authentication`), and what a token means by its
mechanism (`warp.security.mechanisms`). A mechanism that is not enabled is UNSUPPORTED_SASL_MECHANISM, with those that
are; a failure is SASL_AUTHENTICATION_FAILED, with a text that does not tell whether the user exists. Either ends the
connection. On listeners without SASL both are ILLEGAL_SASL_STATE.

Version notes: after SaslHandshake v0 tokens come as bare frames, after v1 in SaslAuthenticate. SaslAuthenticate v1
answers with the time after which the client has to authenticate again (KIP-368).
"""

from __future__ import annotations

from warp.errors import ErrorCode
from warp.handlers.context import RequestContext
from warp.protocol.messages.sasl import (
    SaslAuthenticateRequest,
    SaslAuthenticateResponse,
    SaslHandshakeRequest,
    SaslHandshakeResponse,
)

_NO_SASL = "this listener does not authenticate by SASL"


def sasl_handshake(context: RequestContext, request: SaslHandshakeRequest) -> SaslHandshakeResponse:
    """Choose a mechanism."""
    authentication = context.client.authentication
    if authentication is None:
        return sasl_handshake_failed(context, request, ErrorCode.ILLEGAL_SASL_STATE, _NO_SASL)
    error, mechanisms = authentication.handshake(request.mechanism, context.version)
    return SaslHandshakeResponse(error_code=context.note(error), mechanisms=list(mechanisms))


def sasl_handshake_failed(
    context: RequestContext, request: SaslHandshakeRequest, code: ErrorCode, message: str
) -> SaslHandshakeResponse:
    """The request failed; there is no place for the message."""
    return SaslHandshakeResponse(error_code=context.note(code), mechanisms=[])


async def sasl_authenticate(
    context: RequestContext, request: SaslAuthenticateRequest
) -> SaslAuthenticateResponse:
    """Take one token."""
    authentication = context.client.authentication
    if authentication is None:
        return sasl_authenticate_failed(context, request, ErrorCode.ILLEGAL_SASL_STATE, _NO_SASL)
    outcome = await authentication.authenticate(bytes(request.auth_bytes), context.version)
    return SaslAuthenticateResponse(
        error_code=context.note(outcome.error),
        error_message=outcome.message,
        auth_bytes=outcome.token,
        session_lifetime_ms=outcome.lifetime_ms,
    )


def sasl_authenticate_failed(
    context: RequestContext, request: SaslAuthenticateRequest, code: ErrorCode, message: str
) -> SaslAuthenticateResponse:
    """The request failed."""
    return SaslAuthenticateResponse(error_code=context.note(code), error_message=message, auth_bytes=b"")
