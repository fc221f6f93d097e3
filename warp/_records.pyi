from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from typing_extensions import Buffer, Self

class InvalidBatch(ValueError):
    error_code: int
    message: str
    record_errors: list[tuple[int, str]]
    def __init__(self, error_code: int, message: str, record_errors: Iterable[tuple[int, str]] = ()) -> None: ...

class BatchSpan(NamedTuple):
    position: int
    size_bytes: int
    base_offset: int
    last_offset_delta: int
    max_timestamp: int
    attributes: int
    producer_id: int
    record_count: int

class Record(NamedTuple):
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]

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

class RecordIterator:
    def __iter__(self) -> Self: ...
    def __next__(self) -> Record: ...

def validate_produce(data: Buffer, rules: BatchRules) -> ValidatedBatch: ...
def needs_thread(data: Buffer) -> bool: ...
def parse_header(data: Buffer, offset: int = 0) -> BatchHeader: ...
def stamp_batches(buffer: Buffer, base_offset: int, leader_epoch: int = 0) -> int: ...
def scan_batches(data: Buffer) -> list[BatchSpan]: ...
def whole_batches(data: Buffer, limit_bytes: int, first_always: bool) -> int: ...
def iterate_records(
    batch: Buffer, decompressed_bytes_max: int, *, skip_control: bool = False
) -> Iterator[Record]: ...
def find_offset_by_timestamp(
    batch: Buffer, timestamp: int, decompressed_bytes_max: int, *, from_offset: int = 0
) -> tuple[int, int] | None: ...
def find_max_timestamp(batch: Buffer, decompressed_bytes_max: int) -> tuple[int, int]: ...
def build_batch(
    records: Iterable[
        tuple[bytes | None, bytes | None, Sequence[tuple[str | bytes, bytes | None]], int]
    ],
    *,
    codec: int = 0,
    level: int | None = None,
    base_offset: int = 0,
    leader_epoch: int = -1,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
    is_transactional: bool = False,
    is_control: bool = False,
    log_append: bool = False,
    append_time_ms: int | None = None,
) -> bytes: ...
