from collections.abc import Iterator, Sequence
from typing import Any

class DefaultRecordBatchBuilder:
    def __init__(
        self,
        magic: int,
        compression_type: int,
        is_transactional: int,
        producer_id: int,
        producer_epoch: int,
        base_sequence: int,
        batch_size: int,
    ) -> None: ...
    def append(
        self,
        offset: int,
        timestamp: int | None,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]],
    ) -> Any: ...
    def build(self) -> bytearray: ...

class DefaultRecord:
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]

class DefaultRecordBatch:
    base_offset: int
    crc: int
    attributes: int
    compression_type: int
    timestamp_type: int
    is_transactional: bool
    is_control_batch: bool
    last_offset_delta: int
    first_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    def __init__(self, buffer: bytes) -> None: ...
    def __iter__(self) -> Iterator[DefaultRecord]: ...
    def validate_crc(self) -> bool: ...
