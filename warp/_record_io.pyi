from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Self

from typing_extensions import Buffer

class InvalidBatch(ValueError):
    error_code: int
    message: str
    record_errors: list[tuple[int, str]]
    def __init__(
        self, error_code: int, message: str, record_errors: Iterable[tuple[int, str]] = ()
    ) -> None: ...

class Record(NamedTuple):
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]

class RecordIterator:
    def __iter__(self) -> Self: ...
    def __next__(self) -> Record: ...

def iterate_records(
    batch: Buffer, decompressed_bytes_max: int, *, skip_control: bool = False
) -> Iterator[Record]: ...
def find_offset_by_timestamp(
    batch: Buffer, timestamp: int, decompressed_bytes_max: int, *, from_offset: int = 0
) -> tuple[int, int] | None: ...
def find_max_timestamp(batch: Buffer, decompressed_bytes_max: int) -> tuple[int, int]: ...
def build_batch(
    records: Iterable[tuple[bytes | None, bytes | None, Sequence[tuple[str | bytes, bytes | None]], int]],
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
