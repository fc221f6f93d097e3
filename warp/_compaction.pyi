from typing import NamedTuple

from typing_extensions import Buffer

class Compacted(NamedTuple):
    batches: bytearray
    end_offset: int
    record_count: int
    dropped_count: int
    horizon_count: int
    first_timestamp_ms: int
    max_timestamp_ms: int
    is_transactional: bool

class KeyMap:
    def __init__(self, bytes_max: int, secret: bytes) -> None: ...
    def __len__(self) -> int: ...
    @property
    def keys_max(self) -> int: ...
    def newest_offset(self, key: bytes) -> int | None: ...

def note_keys(
    batches: Buffer,
    base_offset: int,
    keys: KeyMap,
    *,
    from_offset: int,
    until_offset: int,
    decompressed_bytes_max: int,
) -> int: ...
def compact_batches(
    batches: Buffer,
    base_offset: int,
    keys: KeyMap,
    *,
    until_offset: int,
    now_ms: int,
    horizon_ms: int,
    decompressed_bytes_max: int,
) -> Compacted: ...
