"""Asks a broker what the client library has no call for, with frames of our own, by the library's own settings.

librdkafka can neither name the broker that stands for the whole cluster nor ask about quotas. This client sends one
request after the other on one connection, over TLS and after SASL where the settings say so; they have the same names
and meanings as the library's, and what is not understood here is refused rather than left out.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from warp.cli.client import CLIENT_ID, Client, ClientError
from warp.cli.wire_sasl import MECHANISMS, exchange
from warp.config_values import Address, parse_address
from warp.errors import ErrorCode, UsageError
from warp.protocol import (
    APIS,
    DecodeError,
    Request,
    decode,
    encode_request_frame,
    response_body_offset,
)
from warp.protocol.messages.api_versions import ApiVersionsRequest
from warp.protocol.messages.sasl import SaslAuthenticateRequest, SaslHandshakeRequest

DEFAULT_PORT: Final = 9092
ANSWER_BYTES_MAX: Final = 64 * 2**20

_PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_TLS_SETTINGS: Final = (
    "enable.ssl.certificate.verification",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.endpoint.identification.algorithm",
    "ssl.key.location",
    "ssl.key.password",
)
_SASL_HANDSHAKE_VERSION: Final = 1
_SASL_AUTHENTICATE_VERSION: Final = 1


class WireClient:
    """One connection to the first of the brokers that answers. A context manager; made of a command's `Client`.

    Raises ClientError when no broker can be reached, or authentication fails, and UsageError for settings that only the
    client library understands.
    """

    def __init__(self, client: Client, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._options = dict(client.options)
        self._timeout_s = client.timeout_s
        self._correlation_id = 0
        self._ends_s = 0.0  # of the request at hand, by monotonic seconds
        self._versions: dict[int, tuple[int, int]] = {}
        protocol = self._options.get("security.protocol", "PLAINTEXT").upper()
        if protocol not in _PROTOCOLS:
            raise UsageError(f"security.protocol {protocol} is none of {', '.join(_PROTOCOLS)}")
        _check_settings(self._options, uses_tls=protocol.endswith("SSL"))
        self._socket, address = self._connect(client.bootstrap)
        self._peer = str(address)
        try:
            if protocol.endswith("SSL"):
                self._socket = _tls(self._socket, self._options, address)
            if protocol.startswith("SASL_"):
                self._authenticate(random_bytes)
        except BaseException:
            self._socket.close()
            raise

    def ask(self, request: Request) -> Any:
        """The answer to a request, in the newest version that both sides know. Raises ClientError."""
        if not self._versions:
            answer = self._ask(ApiVersionsRequest(), 0)
            self._versions = {api.api_key: (api.min_version, api.max_version) for api in answer.api_keys}
        low, high = APIS[request.api].versions
        least, most = self._versions.get(request.api, (0, -1))
        version = min(high, most)
        if version < max(low, least):
            raise ClientError(f"the broker at {self._peer} does not serve {APIS[request.api].name}")
        return self._ask(request, version)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def _connect(self, bootstrap: str) -> tuple[socket.socket, Address]:
        reason: OSError | None = None
        for text in bootstrap.split(","):
            try:
                address = _address(text)
            except ValueError as error:
                raise UsageError(f"--bootstrap: {error}") from None
            try:
                found = socket.create_connection((address.host, address.port), self._timeout_s)
            except OSError as error:
                reason = error
            else:
                return found, address
        why = os.strerror(reason.errno) if reason is not None and reason.errno else str(reason)
        raise ClientError(
            f"no broker answered at {bootstrap} within {self._timeout_s:g} s ({why}); is the agent running?"
        )

    def _authenticate(self, random_bytes: Callable[[int], bytes]) -> None:
        options = self._options
        mechanism = (options.get("sasl.mechanism") or options.get("sasl.mechanisms") or "").upper()
        if mechanism not in MECHANISMS:
            raise UsageError(
                f"this command authenticates by {', '.join(MECHANISMS)}, or by a certificate; sasl.mechanism is "
                f"{mechanism or 'not set'}"
            )
        if "sasl.username" not in options or "sasl.password" not in options:
            raise UsageError(f"{mechanism} needs sasl.username and sasl.password")
        shaken = self._ask(SaslHandshakeRequest(mechanism=mechanism), _SASL_HANDSHAKE_VERSION)
        if shaken.error_code:
            offered = ", ".join(shaken.mechanisms) or "none"
            raise ClientError(f"the broker does not authenticate by {mechanism}; it offers {offered}")
        talk = exchange(mechanism, options["sasl.username"], options["sasl.password"], random_bytes)
        try:
            token = next(talk)
            while True:
                answer = self._ask(SaslAuthenticateRequest(auth_bytes=token), _SASL_AUTHENTICATE_VERSION)
                if answer.error_code:
                    raise ClientError(f"authentication failed: {answer.error_message or 'no reason given'}")
                token = talk.send(bytes(answer.auth_bytes))
        except StopIteration:
            return
        except ValueError as error:
            raise ClientError(f"authentication failed: {error}") from None

    def _ask(self, request: Request, version: int) -> Any:
        self._correlation_id += 1
        frame = b"".join(encode_request_frame(self._correlation_id, CLIENT_ID, request, version))
        self._ends_s = time.monotonic() + self._timeout_s
        try:
            self._socket.settimeout(self._timeout_s)
            self._socket.sendall(frame)
            answer = self._frame()
        except TimeoutError:
            raise ClientError(f"no answer from {self._peer} within {self._timeout_s:g} s") from None
        except OSError as error:
            raise ClientError(
                f"the connection to {self._peer} broke ({error.strerror or error}); does security.protocol fit its "
                "listener?"
            ) from None
        if int.from_bytes(answer[:4], "big", signed=True) != self._correlation_id:
            raise ClientError(f"{self._peer} answers, but not to what it was asked")
        api = request.api
        try:
            return decode(APIS[api].response, version, answer, response_body_offset(api, version))
        except (DecodeError, ValueError) as error:
            raise ClientError(f"{self._peer} does not speak the Kafka protocol ({error})") from None

    def _frame(self) -> bytes:
        size_bytes = int.from_bytes(self._read(4), "big", signed=True)
        if not 4 <= size_bytes <= ANSWER_BYTES_MAX:
            raise ClientError(f"{self._peer} does not speak the Kafka protocol")
        return self._read(size_bytes)

    def _read(self, count: int) -> bytes:
        parts = []
        while count:
            # Each part has only what is left of the time: a broker must not stretch it by sending byte by byte.
            left_s = self._ends_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            self._socket.settimeout(left_s)
            part = self._socket.recv(min(count, 2**20))
            if not part:
                raise ConnectionError("closed by the broker")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


def check(code: int, message: str | None) -> None:
    """Raises ClientError for an error in an answer, as the client library words them."""
    if code != ErrorCode.NONE:
        name = ErrorCode(code).name if code in tuple(ErrorCode) else f"error {code}"
        raise ClientError(f"{message} ({name})" if message else name)


def _address(text: str) -> Address:
    """As the library reads them: perhaps with a protocol in front, and 9092 where no port is. Raises ValueError."""
    place = text.strip().rpartition("://")[2]
    has_port = place.rpartition("]")[2].count(":") == 1
    return parse_address(place if has_port else f"{place}:{DEFAULT_PORT}")


def _check_settings(options: Mapping[str, str], *, uses_tls: bool) -> None:
    """Raises UsageError for what would make the connection another one than the user wants."""
    if not uses_tls:
        return
    unknown = [name for name in options if name.startswith("ssl.") and name not in _TLS_SETTINGS]
    if unknown:
        raise UsageError(
            f"this command does not understand {unknown[0]}; it takes PEM files, by ssl.ca.location, "
            "ssl.certificate.location and ssl.key.location"
        )


def _tls(plain: socket.socket, options: Mapping[str, str], address: Address) -> ssl.SSLSocket:
    """The connection over TLS. Raises ClientError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        _load_files(context, options)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"the files of the TLS settings can't be used: {error}") from None
    context.check_hostname = options.get("ssl.endpoint.identification.algorithm", "https").lower() == "https"
    if options.get("enable.ssl.certificate.verification", "true").lower() == "false":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        return context.wrap_socket(plain, server_hostname=address.host)
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", None) or error.reason or error
        raise ClientError(f"no TLS connection to {address}: {reason}") from None
    except OSError as error:
        raise ClientError(f"no TLS connection to {address}: {error.strerror or error}") from None


def _load_files(context: ssl.SSLContext, options: Mapping[str, str]) -> None:
    # Whoever names authorities trusts these and no others, as with the library.
    if not {"ssl.ca.location", "ssl.ca.pem"} & options.keys():
        context.load_default_certs()
    if (authorities := options.get("ssl.ca.location")) is not None:
        is_directory = Path(authorities).is_dir()
        context.load_verify_locations(
            capath=authorities if is_directory else None, cafile=None if is_directory else authorities
        )
    if (text := options.get("ssl.ca.pem")) is not None:
        context.load_verify_locations(cadata=text)
    if (certificate := options.get("ssl.certificate.location")) is not None:
        # An empty password rather than none: OpenSSL would ask for one on the terminal.
        password = options.get("ssl.key.password", "")
        context.load_cert_chain(certificate, options.get("ssl.key.location"), password)
