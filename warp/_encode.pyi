from typing import Final

from warp._codec import StructBase

_Buffer = bytes | bytearray | memoryview

REFERENCE_BYTES_MIN: Final[int]

def encode(message: StructBase, version: int) -> bytes: ...
def encode_parts(message: StructBase, version: int, prefix: bytes = b"") -> list[_Buffer]: ...
