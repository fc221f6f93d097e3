# python-lz4, frame format.
from typing import Final

from typing_extensions import Buffer

BLOCKSIZE_DEFAULT: Final[int]
BLOCKSIZE_MAX64KB: Final[int]
BLOCKSIZE_MAX256KB: Final[int]
BLOCKSIZE_MAX1MB: Final[int]
BLOCKSIZE_MAX4MB: Final[int]
COMPRESSIONLEVEL_MIN: Final[int]
COMPRESSIONLEVEL_MINHC: Final[int]
COMPRESSIONLEVEL_MAX: Final[int]

def compress(
    data: Buffer,
    compression_level: int = ...,
    block_size: int = ...,
    content_checksum: bool = ...,
    block_linked: bool = ...,
    block_checksum: bool = ...,
    store_size: bool = ...,
) -> bytes: ...
def decompress(data: Buffer) -> bytes: ...

class LZ4FrameDecompressor:
    eof: bool
    needs_input: bool
    unused_data: bytes | None
    def decompress(self, data: Buffer, max_length: int = ...) -> bytes: ...
