from typing import Final, TypeVar

from warp._codec import StructBase

_Message = TypeVar("_Message", bound=StructBase)
_Buffer = bytes | bytearray | memoryview

DECODE_ELEMENTS_MAX: Final[int]
RECORDS_COPIED_BYTES_MAX: Final[int]
STRING_BYTES_MAX: Final[int]

class RequestHeader:
    @property
    def api_key(self) -> int: ...
    @property
    def api_version(self) -> int: ...
    @property
    def correlation_id(self) -> int: ...
    @property
    def client_id(self) -> str | None: ...
    @property
    def body_offset(self) -> int: ...

def decode(
    cls: type[_Message],
    version: int,
    buffer: _Buffer,
    offset: int = 0,
    *,
    elements_max: int = ...,
    allow_trailing: bool = False,
) -> _Message: ...
def read_request_header(
    frame: _Buffer, flexible_from: tuple[int | None, ...], api_versions_max: int
) -> RequestHeader: ...
