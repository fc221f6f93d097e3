"""The topics in a consumer's metadata, for those who need to know which topics are in use.

To the broker metadata is opaque, and a client may put anything into it. So this reads no more than it needs: of
ConsumerProtocolSubscription the version and the list of topics, which all versions begin with (KIP-429 and later only
append). What does not look like that is None, never an exception.
"""

from __future__ import annotations

import struct
from typing import Final

_INT16: Final = struct.Struct(">h")
_INT32: Final = struct.Struct(">i")
_NAME_BYTES_MIN: Final = 2  # The length of an empty name.


def subscribed(metadata: bytes) -> list[str] | None:
    """The topics that a member subscribes to, in its order; None when the bytes are no subscription."""
    try:
        (version,) = _INT16.unpack_from(metadata)
        (count,) = _INT32.unpack_from(metadata, 2)
        if version < 0 or count < 0 or count * _NAME_BYTES_MIN > len(metadata):
            return None
        topics = []
        position = 6
        for _ in range(count):
            (size,) = _INT16.unpack_from(metadata, position)
            position += 2
            end = position + size
            if size < 0 or end > len(metadata):
                return None
            topics.append(metadata[position:end].decode("utf-8"))
            position = end
    except (struct.error, UnicodeDecodeError):
        return None
    return topics
