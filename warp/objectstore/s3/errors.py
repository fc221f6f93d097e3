"""What can go wrong with a request to S3. All of it is an ObjectStoreError to those who use the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from warp.errors import ObjectStoreError
from warp.objectstore.base import Buffer
from warp.objectstore.s3.documents import DocumentError, parse_error

MESSAGE_CHARACTERS_MAX = 200

SLOW_DOWN_STATUSES = frozenset({429, 503})
_TRANSIENT_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
_TRANSIENT_CODES = frozenset(
    {
        # Bytes that were damaged on their way, or did not come in time.
        "BadDigest",
        "IncompleteBody",
        "InternalError",
        "RequestTimeout",
        "RequestTimeoutException",
        "SlowDown",
        "ServiceUnavailable",
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "BandwidthLimitExceeded",
        "XAmzContentChecksumMismatch",
        "XAmzContentSHA256Mismatch",
    }
)
_STALE_CREDENTIALS_CODES = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired", "InvalidToken"}
)
_FULL_CODES = frozenset(
    {"QuotaExceeded", "XMinioStorageFull", "XMinioStorageQuotaExceeded", "InsufficientStorage"}
)


class CannotConnect(ObjectStoreError):
    """No connection to the server could be made; so nothing was sent. `reason` is one of the constants below."""

    NAME, REFUSED, TIMEOUT, CERTIFICATE, TLS = "name", "refused", "timeout", "certificate", "tls"

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Cut(ObjectStoreError):
    """No whole answer came: the connection was lost, or nothing moved for too long. The outcome is unknown."""

    def __init__(self, message: str, partial: Answer | None = None, *, is_timeout: bool = False) -> None:
        super().__init__(message)
        self.partial = partial
        """The head of the answer with as much of its body as came, if its head was complete."""
        self.is_timeout = is_timeout


class BadAnswer(ObjectStoreError):
    """The server's answer is not HTTP, not what was asked for, or larger than it may be."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's answer: its body whole, and no larger than was allowed."""

    status: int
    headers: Mapping[str, str]
    """By lower-case name."""
    body: Buffer

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300


class S3Error(ObjectStoreError):
    """The server refused. `code` is S3's error code, empty where the answer had none (as for HEAD)."""

    def __init__(self, operation: str, answer: Answer) -> None:
        found = _fields(answer)
        self.status = answer.status
        self.code = found.get("Code", "")
        self.region = answer.headers.get("x-amz-bucket-region") or found.get("Region", "")
        self.server_time_ms = _date_ms(answer.headers.get("date", ""))
        request_id = answer.headers.get("x-amz-request-id", found.get("RequestId", ""))
        words = [f"{operation}: S3 answered {self.status}", self.code, found.get("Message", "")]
        text = " ".join(filter(None, words)) + (f" (request {request_id})" if request_id else "")
        super().__init__(_printable(text, MESSAGE_CHARACTERS_MAX + len(operation)))

    @property
    def is_transient(self) -> bool:
        """The same request may succeed a little later."""
        return self.status in _TRANSIENT_STATUSES or self.code in _TRANSIENT_CODES

    @property
    def is_full(self) -> bool:
        return self.status == 507 or self.code in _FULL_CODES

    @property
    def are_credentials_stale(self) -> bool:
        """The credentials have run out, and newer ones would do."""
        return self.code in _STALE_CREDENTIALS_CODES

    @property
    def may_be_credentials(self) -> bool:
        """Newer credentials might do: they were changed, or their rights."""
        return self.are_credentials_stale or self.status == 403


def _fields(answer: Answer) -> Mapping[str, str]:
    """What the error document says; nothing when there is none, as from proxies and to HEAD."""
    try:
        return parse_error(answer.body) if len(answer.body) else {}
    except DocumentError:
        return {}


def _printable(text: str, characters_max: int) -> str:
    """Text from a server, on one line and of bounded length."""
    line = "".join(each if each.isprintable() else " " for each in text)
    return line if len(line) <= characters_max else line[: characters_max - 1] + "…"


def _date_ms(text: str) -> int | None:
    try:
        return int(parsedate_to_datetime(text).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None
