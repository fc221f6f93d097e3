from collections.abc import Mapping
from typing import Any

from botocore.compat import HTTPHeaders

class AWSRequest:
    headers: HTTPHeaders
    context: dict[str, Any]

    def __init__(
        self,
        method: str | None = ...,
        url: str | None = ...,
        headers: Mapping[str, str] | None = ...,
        data: Any = ...,
    ) -> None: ...
