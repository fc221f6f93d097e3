"""From a frame to its handler, and from the handler's result to the parts of the response.

What can go wrong is sorted here, once: the peer broke the protocol (ProtocolError, the connection is closed), the
request can't be served (the answer carries the code), we have a bug (logged, counted, answered with
UNKNOWN_SERVER_ERROR). Nothing here touches a socket.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from warp.errors import (
    ErrorCode,
    KafkaError,
    MetadataError,
    ObjectStoreError,
    ProtocolError,
)
from warp.handlers.api_versions import advertised
from warp.handlers.context import Client, NoAnswer, RequestContext, Services
from warp.handlers.table import ApiEntry, Order
from warp.protocol import (
    ApiKey,
    Buffer,
    DecodeError,
    EncodeError,
    RequestHeader,
    decode,
    encode_response_frame,
    parse_request_header,
)
from warp.protocol.messages.api_versions import ApiVersion, ApiVersionsResponse
from warp.protocol.messages.sasl import SaslAuthenticateRequest, SaslAuthenticateResponse
from warp.security.audit import Asker
from warp.server.limits import LogLimit
from warp.server.metering import metered, tell_throttle

if TYPE_CHECKING:
    from warp.clock import Clock

log = logging.getLogger("warp.server")

RequestObserver = Callable[[str, int, float, str], None]
"""Told of each request: API, version, seconds from its arrival to its answer, outcome.

The outcome is "NONE", the name of the first error code in the answer, "BUG", or "DROPPED" when the client was gone.
"""

OUTCOME_NONE = "NONE"
OUTCOME_BUG = "BUG"
OUTCOME_DROPPED = "DROPPED"


TOKEN_HEADER = parse_request_header(struct.pack(">hhih", ApiKey.SASL_AUTHENTICATE, 0, 0, -1))
"""In place of that of a bare token, which has none."""


class Call:
    """One request on its way to its answer."""

    __slots__ = ("context", "entry", "header", "outcome", "received_s", "request", "spent_s")

    def __init__(
        self, entry: ApiEntry, header: RequestHeader, context: RequestContext, request: Any, received_s: float
    ) -> None:
        self.entry = entry
        self.header = header
        self.context = context
        self.request = request
        self.received_s = received_s
        self.outcome: str | None = None
        self.spent_s = 0.0
        """Time of the loop that its handler has taken, where quotas ask for it."""


class Dispatcher:
    """Finds, calls and answers for the handlers of one agent."""

    def __init__(
        self,
        table: Sequence[ApiEntry],
        services: Services,
        clock: Clock,
        observe: RequestObserver | None = None,
    ) -> None:
        self._advertised = advertised(table)
        self._entries = {int(entry.key): entry for entry in table}
        self._services = services
        self.quotas = services.quotas
        self._clock = clock
        self._observe = observe
        self._unavailable_log = LogLimit(clock)
        self.bugs = 0
        """Exceptions that nobody expected, so far."""

    def order(self, frame: Buffer) -> Order:
        """How the request in `frame` relates to its neighbours; SERIAL for what will turn out to be no request."""
        entry = self._entries.get(int.from_bytes(frame[:2], "big"))
        return entry.order if entry is not None else Order.SERIAL

    def open(self, frame: Buffer, client: Client, received_s: float) -> Call:
        """Read a frame's header and body. Raises ProtocolError when it is no request that this agent serves."""
        try:
            header = parse_request_header(frame)
            entry = self._entries.get(header.api_key)
            if entry is None:
                raise ProtocolError(f"API key {header.api_key} is not served")
            version = header.api_version
            context = RequestContext(self._services, self._advertised, client, header.client_id, version)
            low, high = entry.served
            if low <= version <= high:
                # Kafka's parser leaves alone what follows the body, and librdkafka 2.x relies on it: its flexible
                # Metadata request for all topics is three bytes too long.
                request = decode(entry.request, version, frame, header.body_offset, allow_trailing=True)
            elif entry.key is ApiKey.API_VERSIONS:
                request = None
            else:
                raise ProtocolError(f"{entry.name} version {version} is not served, {low} to {high} are")
        except DecodeError as error:
            raise ProtocolError(f"a request that can't be read: {error}") from error
        return Call(entry, header, context, request, received_s)

    def open_token(self, token: Buffer, client: Client, received_s: float) -> Call:
        """A bare SASL token, as after SaslHandshake v0, as the SaslAuthenticate that it stands for (KIP-152)."""
        entry = self._entries.get(int(ApiKey.SASL_AUTHENTICATE))
        if entry is None:
            raise ProtocolError("a bare token, though SASL is not served")
        context = RequestContext(self._services, self._advertised, client, None, 0)
        request = SaslAuthenticateRequest(auth_bytes=bytes(token))
        return Call(entry, TOKEN_HEADER, context, request, received_s)

    def begin(self, call: Call) -> Any:
        """Call the handler: a response, NoAnswer, Later, or a coroutine that gives one of these."""
        if call.request is None:
            return _unknown_api_versions(call)
        # Before it is known who they are, all are one, and must not hold each other back.
        if self.quotas.limits_time and call.context.client.is_authenticated:
            return metered(call, self._handle, self._clock.monotonic)
        return self._handle(call)

    def _handle(self, call: Call) -> Any:
        return self.guarded(call, lambda: call.entry.handler(call.context, call.request))

    def guarded(self, call: Call, action: Callable[[], Any]) -> Any:
        """The result of `action`, or the answer that tells of its failure."""
        try:
            return action()
        except Exception as error:  # noqa: BLE001  the one place
            return self.refusal(call, error)

    def refusal(self, call: Call, error: Exception) -> Any:
        """What to answer when a request ended in `error`."""
        match error:
            case KafkaError():
                return self.failed(call, error.code, error.message)
            case ProtocolError():
                return NoAnswer(close=str(error))
            case MetadataError() | ObjectStoreError():
                if self._unavailable_log.passes():
                    log.warning("%s failed: %s%s", call.entry.name, error, self._unavailable_log.note())
                return self.failed(call, call.entry.unavailable, "a store is not available")
        self.bugs += 1
        call.outcome = OUTCOME_BUG
        log.error("bug in %s version %d", call.entry.name, call.header.api_version, exc_info=error)
        return self.failed(call, ErrorCode.UNKNOWN_SERVER_ERROR, "internal error, see the agent's log")

    def failed(self, call: Call, code: ErrorCode, message: str) -> Any:
        """The answer to a request that fails as a whole; where the API has no place for an error, the end."""
        call.context.note(code)
        try:
            response = call.entry.failed(call.context, call.request, code, message)
        except Exception as error:
            self.bugs += 1
            call.outcome = OUTCOME_BUG
            log.error("bug in the error answer of %s", call.entry.name, exc_info=error)
            response = None
        return response if response is not None else NoAnswer(close=f"{call.entry.name} failed: {code.name}")

    def encode(self, call: Call, response: Any) -> Sequence[Buffer] | NoAnswer:
        """The frame of a response, in parts that need not be joined."""
        if call.header is TOKEN_HEADER:
            return _bare_token(response)
        version = call.header.api_version if call.request is not None else 0
        if call.spent_s:
            self._charge_time(call)
        if call.context.throttle_ms:
            tell_throttle(response, call.context.throttle_ms)
        try:
            return encode_response_frame(call.header.correlation_id, response, version)
        except (EncodeError, ValueError, TypeError) as error:
            refused = self.refusal(call, error)
        if isinstance(refused, NoAnswer):
            return refused
        return encode_response_frame(call.header.correlation_id, refused, version)

    def ended(self, call: Call, outcome: str | None = None) -> None:
        """A request is over: tell the metrics, and the audit log what was refused."""
        if call.context.denied_count:
            self._audit(call)
        if call.spent_s:
            self._charge_time(call)
        if self._observe is None:
            return
        if outcome is None:
            error = call.context.error
            outcome = call.outcome or (OUTCOME_NONE if error is ErrorCode.NONE else error.name)
        seconds = self._clock.monotonic() - call.received_s
        self._observe(call.entry.name, call.header.api_version, seconds, outcome)

    def _charge_time(self, call: Call) -> None:
        """Count the time of the loop that a request has taken, once; before its answer, if it has one."""
        spent_s, call.spent_s = call.spent_s, 0.0
        context = call.context
        user = context.client.principal.name
        context.throttle(self.quotas.spent(user, context.client_id, spent_s))

    def _audit(self, call: Call) -> None:
        context = call.context
        client = context.client
        listener, api = f"{client.protocol}://{client.advertised}", call.entry.name
        asker = Asker(client.principal, client.address, listener, context.client_id, api, context.version)
        self._services.audit.denied(asker, context.denied, context.denied_count)


def _bare_token(response: SaslAuthenticateResponse) -> Sequence[Buffer] | NoAnswer:
    """The answer to a bare token: a token, or the end."""
    if response.error_code:
        return NoAnswer(close="")
    return [len(response.auth_bytes).to_bytes(4, "big") + response.auth_bytes]


def _unknown_api_versions(call: Call) -> ApiVersionsResponse:
    """The answer to ApiVersions in a version that is not served: version 0, and only its own range (KIP-511)."""
    low, high = call.entry.served
    code = call.context.note(ErrorCode.UNSUPPORTED_VERSION)
    own = ApiVersion(api_key=int(ApiKey.API_VERSIONS), min_version=low, max_version=high)
    return ApiVersionsResponse(error_code=code, api_keys=[own])
