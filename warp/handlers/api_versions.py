"""ApiVersions: what this agent serves; usually the first request on a connection.

Behaviour: the list is the table of APIs. No features are named: `transaction.version` would make clients use the
second transaction protocol, and readers of v0 to v3 stumble over supported features that begin at 0.

Version notes: v0 has no throttle time. v3 tells the client's software (KIP-511), whose name and version must match
KIP-511's pattern. A version that is not served is answered in the dispatcher, in the layout of v0. The header of the
response is v0 in every version.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from warp.errors import ErrorCode, KafkaError
from warp.handlers.context import RequestContext
from warp.protocol.messages.api_versions import ApiVersion, ApiVersionsRequest, ApiVersionsResponse

if TYPE_CHECKING:
    from warp.handlers.table import ApiEntry

_SOFTWARE = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")
_SOFTWARE_CHARACTERS_MAX = 64


def api_versions(context: RequestContext, request: ApiVersionsRequest) -> ApiVersionsResponse:
    """Say what is served, and note what the client is."""
    if context.version >= 3:
        for text in (request.client_software_name, request.client_software_version):
            if not _SOFTWARE.fullmatch(text):
                raise KafkaError(ErrorCode.INVALID_REQUEST, "malformed client software name or version")
        software = f"{request.client_software_name} {request.client_software_version}"
        context.client.software = software[:_SOFTWARE_CHARACTERS_MAX]
    return ApiVersionsResponse(error_code=ErrorCode.NONE, api_keys=context.advertised)


def api_versions_failed(
    context: RequestContext, request: ApiVersionsRequest, code: ErrorCode, message: str
) -> ApiVersionsResponse:
    """The whole request failed."""
    return ApiVersionsResponse(error_code=code, api_keys=[])


def advertised(table: Sequence[ApiEntry]) -> list[ApiVersion]:
    """The table as the protocol lists it."""
    return [
        ApiVersion(api_key=entry.key, min_version=entry.advertised[0], max_version=entry.advertised[1])
        for entry in table
    ]
