"""Where a bucket is, by botocore's endpoint rules: host, path and region to sign for.

Only the rules are loaded, not a botocore client, which would bring the whole description of S3's API: 0.1 s instead of
0.2 and 2 MiB instead of 11.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from botocore.endpoint_provider import EndpointProvider
from botocore.exceptions import BotoCoreError
from botocore.session import Session

from warp.errors import StartError
from warp.objectstore.s3.settings import S3Settings

REGION_OF_OTHERS = "us-east-1"
"""What servers other than AWS take for a region when they have none."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests for one bucket go, and what they are signed for."""

    is_tls: bool
    host: str
    port: int
    authority: str
    """The Host header."""
    path: str
    """Of the bucket: empty where the host names it."""
    region: str
    service: str
    ca_bundle: str

    @property
    def origin(self) -> str:
        return f"{'https' if self.is_tls else 'http'}://{self.authority}"

    def target(self, key: str) -> str:
        """The path of an object, encoded as it is signed and sent; of the bucket for an empty key."""
        return f"{self.path}/{quote(key, safe='/~')}"


def resolve(settings: S3Settings) -> Endpoint:
    """Find where the bucket is. Reads files: run it in a thread. Raises StartError."""
    try:
        return _resolve(settings, Session(profile=settings.profile or None))
    except BotoCoreError as error:
        raise StartError(f"object store {settings.describe()}: {error}") from error


def _resolve(settings: S3Settings, session: Session) -> Endpoint:
    server = settings.endpoint or _configured_endpoint(settings, session)
    region = settings.region or session.get_config_variable("region") or os.environ.get("AWS_REGION")
    if not region:
        if not server:
            raise StartError(
                f"object store {settings.describe()}: which region? Add ?region=… to its URL, or set AWS_DEFAULT_REGION"
            )
        region = REGION_OF_OTHERS
    loader = session.get_component("data_loader")
    rules = EndpointProvider(
        loader.load_service_model("s3", "endpoint-rule-set-1"), loader.load_data("partitions")
    )
    # As botocore's own clients do, `auto` uses paths for servers that are named.
    uses_path = settings.addressing == "path" or (settings.addressing == "auto" and bool(server))
    parameters: dict[str, object] = {
        "Bucket": settings.bucket,
        "Region": region,
        "ForcePathStyle": uses_path,
        "UseFIPS": not server and session.get_config_variable("use_fips_endpoint") is True,
        "UseDualStack": not server and session.get_config_variable("use_dualstack_endpoint") is True,
        "Accelerate": False,
        "UseGlobalEndpoint": False,
        # Directory buckets take ordinary signatures too.
        "DisableS3ExpressSessionAuth": True,
    }
    if server:
        parameters["Endpoint"] = server
    found = rules.resolve_endpoint(**parameters)
    scheme: dict[str, str] = next(
        (each for each in found.properties.get("authSchemes", []) if each["name"] == "sigv4"), {}
    )
    url = urlsplit(found.url)
    if not url.hostname:
        raise StartError(f"object store {settings.describe()}: its endpoint has no host: {found.url}")
    is_tls = url.scheme == "https"
    return Endpoint(
        is_tls=is_tls,
        host=url.hostname,
        port=url.port or (443 if is_tls else 80),
        authority=url.netloc,
        path=url.path.rstrip("/"),
        region=scheme.get("signingRegion", region),
        service=scheme.get("signingName", "s3"),
        ca_bundle=settings.ca_bundle or session.get_config_variable("ca_bundle") or "",
    )


def _configured_endpoint(settings: S3Settings, session: Session) -> str:
    """What the environment or the profile says, as botocore's clients read it. Raises StartError."""
    found = (
        os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
        or session.get_scoped_config().get("endpoint_url")
    )
    text = str(found or "")
    if text and not _is_server(text):
        raise StartError(
            f"object store {settings.describe()}: AWS_ENDPOINT_URL or the profile's endpoint_url is not a server; write"
            " it like https://s3.example.net:9000, without user name and password"
        )
    return text


def _is_server(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    has_user = parts.username is not None or parts.password is not None
    return parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0 and not has_user
