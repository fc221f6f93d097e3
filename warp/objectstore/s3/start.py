"""What is said when a store can't be used at start: one line, what is wrong and what to do."""

from __future__ import annotations

from warp.clock import Clock
from warp.errors import ObjectStoreError, StartError
from warp.objectstore.s3.endpoint import Endpoint
from warp.objectstore.s3.errors import CannotConnect, Cut, S3Error
from warp.objectstore.s3.settings import S3Settings

_BAD_SECRET_CODES = ("SignatureDoesNotMatch", "InvalidSecurity")
_WRONG_REGION_CODES = (
    "PermanentRedirect",
    "TemporaryRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "InvalidRegionName",
)


def start_error(
    error: ObjectStoreError, action: str, settings: S3Settings, endpoint: Endpoint, clock: Clock
) -> StartError:
    """The error to stop a start with. `action` is the permission that the failed request needs."""
    if isinstance(error, CannotConnect):
        text = _connecting(error)
    elif isinstance(error, Cut):
        text = f"{error}; is {endpoint.origin} an S3 server, and can it be reached?"
    elif isinstance(error, S3Error):
        text = _refused(error, action, settings, endpoint, clock)
    else:
        text = str(error)
    return StartError(f"object store {settings.describe()}: {text}")


def _connecting(error: CannotConnect) -> str:
    remedies = {
        CannotConnect.NAME: "check endpoint= in its URL, and this machine's DNS",
        CannotConnect.REFUSED: "check endpoint= in its URL, and that the server runs",
        CannotConnect.TIMEOUT: "check endpoint= in its URL, and firewalls; connect_timeout= sets how long to wait",
        CannotConnect.CERTIFICATE: "give the file that certifies it with ca_bundle= in its URL, or in AWS_CA_BUNDLE",
        CannotConnect.TLS: "does the server speak TLS at this port? If not, use endpoint=http://…",
    }
    return f"{error}; {remedies[error.reason]}"


def _refused(error: S3Error, action: str, settings: S3Settings, endpoint: Endpoint, clock: Clock) -> str:
    code = error.code
    if code == "NoSuchBucket":
        return f"there is no bucket {settings.bucket!r} at {endpoint.origin}; create it, or correct the URL"
    if code in _WRONG_REGION_CODES or error.status in (301, 307):
        return _wrong_region(error, settings, endpoint)
    if code == "RequestTimeTooSkewed":
        return _skewed(error, clock)
    if error.are_credentials_stale:
        return (
            f"the credentials have run out ({code}); renew them, or name other ones with profile= in the URL"
        )
    if code == "InvalidAccessKeyId":
        return "the server does not know the access key; check AWS_ACCESS_KEY_ID or profile="
    if code in _BAD_SECRET_CODES:
        return f"the secret key does not belong to the access key ({code}); check AWS_SECRET_ACCESS_KEY or profile="
    if error.status in (401, 403):
        return (
            f"access denied; allow {action} on {_resource(action, settings)} to these credentials ({error})"
        )
    if error.status == 400 and not code:
        return f"{error}; is {endpoint.origin} an S3 server that speaks {'TLS' if endpoint.is_tls else 'plain HTTP'}?"
    return f"{error}; this server can't be used as it is"


def _resource(action: str, settings: S3Settings) -> str:
    """As a policy names it."""
    bucket = f"arn:aws:s3:::{settings.bucket}"
    return bucket if action == "s3:ListBucket" else f"{bucket}/{settings.prefix}*"


def _wrong_region(error: S3Error, settings: S3Settings, endpoint: Endpoint) -> str:
    if error.region and error.region != endpoint.region:
        where = f"in {error.region}, not in {endpoint.region}"
        return f"the bucket {settings.bucket!r} is {where}; set region={error.region}"
    return f"{error}; set region= and endpoint= to where the bucket is"


def _skewed(error: S3Error, clock: Clock) -> str:
    remedy = "set it right, for instance with an NTP client"
    if error.server_time_ms is None:
        return f"this machine's clock differs too much from the server's; {remedy}"
    skew_s = (clock.time_ms() - error.server_time_ms) / 1000
    direction = "ahead of" if skew_s > 0 else "behind"
    return f"this machine's clock is {abs(skew_s):.0f} s {direction} the server's; {remedy}"
