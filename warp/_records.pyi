from typing import NamedTuple

from typing_extensions import Buffer

from warp._record_io import (
    InvalidBatch,
    Record,
    RecordIterator,
    build_batch,
    find_max_timestamp,
    find_offset_by_timestamp,
    iterate_records,
)

__all__ = [
    "BatchHeader",
    "BatchRules",
    "BatchSpan",
    "BatchTotals",
    "InvalidBatch",
    "Record",
    "RecordIterator",
    "ValidatedBatch",
    "build_batch",
    "find_max_timestamp",
    "find_offset_by_timestamp",
    "iterate_records",
    "needs_thread",
    "parse_header",
    "scan_batches",
    "stamp_batches",
    "validate_produce",
    "verify_batch",
    "verify_batches",
    "whole_batches",
]

class BatchSpan(NamedTuple):
    position: int
    size_bytes: int
    base_offset: int
    last_offset_delta: int
    max_timestamp: int
    attributes: int
    producer_id: int
    record_count: int

class BatchTotals(NamedTuple):
    size_bytes: int
    offset_count: int
    record_count: int
    first_timestamp: int
    max_timestamp: int
    untimed_batches: int

class BatchHeader:
    @property
    def base_offset(self) -> int: ...
    @property
    def batch_length(self) -> int: ...
    @property
    def leader_epoch(self) -> int: ...
    @property
    def magic(self) -> int: ...
    @property
    def crc(self) -> int: ...
    @property
    def attributes(self) -> int: ...
    @property
    def last_offset_delta(self) -> int: ...
    @property
    def base_timestamp(self) -> int: ...
    @property
    def max_timestamp(self) -> int: ...
    @property
    def producer_id(self) -> int: ...
    @property
    def producer_epoch(self) -> int: ...
    @property
    def base_sequence(self) -> int: ...
    @property
    def record_count(self) -> int: ...
    @property
    def codec(self) -> int: ...
    @property
    def is_log_append_time(self) -> bool: ...
    @property
    def is_transactional(self) -> bool: ...
    @property
    def is_control(self) -> bool: ...
    @property
    def size_bytes(self) -> int: ...

class ValidatedBatch(BatchHeader):
    @property
    def data(self) -> memoryview | bytes: ...

class BatchRules:
    def __init__(
        self,
        *,
        max_message_bytes: int,
        message_timestamp_type: int,
        now_ms: int,
        timestamp_before_max_ms: int,
        timestamp_after_max_ms: int,
        require_key: bool,
        decompressed_bytes_max: int,
        allow_zstd: bool = True,
    ) -> None: ...

def validate_produce(data: Buffer, rules: BatchRules) -> ValidatedBatch: ...
def needs_thread(data: Buffer) -> bool: ...
def parse_header(data: Buffer, offset: int = 0) -> BatchHeader: ...
def verify_batch(data: Buffer, offset: int = 0) -> BatchHeader: ...
def verify_batches(data: Buffer, offset: int, limit_bytes: int) -> BatchTotals: ...
def stamp_batches(buffer: Buffer, base_offset: int, leader_epoch: int = 0) -> int: ...
def scan_batches(data: Buffer) -> list[BatchSpan]: ...
def whole_batches(data: Buffer, limit_bytes: int, first_always: bool) -> int: ...
