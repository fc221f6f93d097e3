"""Records one by one, as Python objects: iteration, look-ups inside batches, and building.

For tools, tests, ListOffsets and compaction. The produce path does not come here: see _records, which also gives these
names on.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport INT32_MAX, int16_t, int32_t, int64_t, uint8_t
from libc.string cimport memcpy

from warp._batch cimport (
    BATCH_CRC_START, BATCH_HEADER_BYTES, BATCH_PREFIX_BYTES, CODEC_MASK, CONTROL_BIT, CORRUPT_MESSAGE, INVALID_RECORD,
    LOG_APPEND_TIME_BIT, MESSAGE_TOO_LARGE, TRANSACTIONAL_BIT, VARLONG_BYTES_MAX, batch_bytes, batch_header, fault,
    read_batch, read_bytes, read_record, record_timestamp, record_view, store_header, store_varint,
)
from warp._crc32c cimport crc32c_update

from collections.abc import Sequence
from typing import NamedTuple

from warp._compression import CompressionError, ExpansionLimitError, compress, decompress


class InvalidBatch(ValueError):
    """Bytes that are not one acceptable record batch.

    `error_code` is Kafka's code for it, `message` says what is wrong, `record_errors` lists what is wrong with single
    records as (index in the batch, message): the first 64 of them.
    """

    def __init__(self, error_code, message, record_errors=()):
        super().__init__(message)
        self.error_code = error_code
        self.message = message
        self.record_errors = list(record_errors)


class Record(NamedTuple):
    """One record. `timestamp` is in milliseconds, -1 when there is none; a null key or value is None.

    Header names are text; bytes in them that are not UTF-8 survive as surrogate escapes.
    """

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


# ---- records: look-ups and iteration ----

cdef class _Reader:
    """Goes through the records of consecutive whole batches. Holds one decompressed batch at a time."""

    cdef object data
    cdef Py_buffer source
    cdef Py_buffer payload
    cdef bint has_source
    cdef bint has_payload
    cdef int64_t decompressed_bytes_max
    cdef size_t start           # of the current batch
    cdef size_t position        # of the batch after it
    cdef batch_header header
    cdef int64_t left           # records of the current batch that have not been read
    cdef const uint8_t* cursor
    cdef const uint8_t* end

    def __cinit__(self, data, int64_t decompressed_bytes_max):
        self.data = memoryview(data).cast("B")
        self.decompressed_bytes_max = decompressed_bytes_max
        PyObject_GetBuffer(self.data, &self.source, PyBUF_SIMPLE)
        self.has_source = True

    def __dealloc__(self):
        self.close_records()
        if self.has_source:
            PyBuffer_Release(&self.source)

    cdef void close_records(self) noexcept:
        if self.has_payload:
            self.has_payload = False
            PyBuffer_Release(&self.payload)

    cdef bint next_batch(self) except -1:
        """Step to the next batch and read its header; False at the end."""
        cdef const uint8_t* bytes = <const uint8_t*> self.source.buf
        cdef size_t count = <size_t> self.source.len
        if self.position >= count:
            return False
        check_fault(read_batch(bytes + self.position, count - self.position, &self.header))
        self.start = self.position
        self.position += batch_bytes(&self.header)
        self.left = 0
        return True

    cdef int open_records(self) except -1:
        """Make the records of the current batch readable."""
        cdef int codec = self.header.attributes & CODEC_MASK
        cdef object payload
        self.close_records()
        if codec and self.header.record_count:
            payload = decompressed_records(
                self.data[self.start + BATCH_HEADER_BYTES:self.position], codec, self.decompressed_bytes_max)
            PyObject_GetBuffer(payload, &self.payload, PyBUF_SIMPLE)
            self.has_payload = True
            self.cursor = <const uint8_t*> self.payload.buf
            self.end = self.cursor + self.payload.len
        else:
            self.cursor = <const uint8_t*> self.source.buf + self.start + BATCH_HEADER_BYTES
            self.end = <const uint8_t*> self.source.buf + self.position
        self.left = self.header.record_count
        return 0

    cdef bint next_record(self, record_view* record) except -1:
        """Read the next record of the current batch; False when there is none."""
        cdef fault wrong
        if self.left == 0:
            return False
        wrong = read_record(&self.cursor, self.end, record)
        if wrong == NULL and not 0 <= record.offset_delta <= self.header.last_offset_delta:
            wrong = b"record lies outside the offsets of its batch"
        if wrong == NULL and self.left == 1 and self.cursor != self.end:
            wrong = b"bytes are left after the last record"
        if wrong != NULL:
            self.left = 0
            raise InvalidBatch(INVALID_RECORD, wrong.decode())
        self.left -= 1
        return True


cdef class RecordIterator:
    """The records of consecutive batches, read as they are asked for."""

    cdef _Reader reader
    cdef bint skip_control

    def __iter__(self):
        return self

    def __next__(self):
        cdef record_view record
        while not self.reader.next_record(&record):
            if not self.reader.next_batch():
                raise StopIteration
            if not (self.skip_control and self.reader.header.attributes & CONTROL_BIT):
                self.reader.open_records()
        return named_tuple(Record, (
            self.reader.header.base_offset + record.offset_delta,
            record_timestamp(&self.reader.header, &record),
            _nullable(record.key, record.key_bytes),
            _nullable(record.value, record.value_bytes),
            _headers(&record, self.reader.end),
        ))


def iterate_records(batch, int64_t decompressed_bytes_max, *, bint skip_control=False):
    """An iterator over the records of one or more consecutive whole batches.

    A compressed batch that holds more than `decompressed_bytes_max`, or anything malformed, raises InvalidBatch when
    the iteration gets there. The CRC is not looked at.
    """
    cdef RecordIterator records = RecordIterator.__new__(RecordIterator)
    records.reader = _Reader(batch, decompressed_bytes_max)
    records.skip_control = skip_control
    return records


def find_offset_by_timestamp(batch, int64_t timestamp, int64_t decompressed_bytes_max, *, int64_t from_offset=0):
    """(offset, timestamp) of the first record, in offset order, whose timestamp is at least `timestamp`; or None.

    `batch` is one or more consecutive whole batches; records below `from_offset` are passed over. In a batch with log
    append time every record has the batch's maximum timestamp. Raises InvalidBatch.
    """
    cdef _Reader reader = _Reader(batch, decompressed_bytes_max)
    cdef record_view record
    cdef int64_t offset
    while reader.next_batch():
        if reader.header.max_timestamp < timestamp:
            continue
        if reader.header.base_offset + reader.header.last_offset_delta < from_offset:
            continue
        reader.open_records()
        while reader.next_record(&record):
            offset = reader.header.base_offset + record.offset_delta
            if offset >= from_offset and record_timestamp(&reader.header, &record) >= timestamp:
                return offset, record_timestamp(&reader.header, &record)
    return None


def find_max_timestamp(batch, int64_t decompressed_bytes_max):
    """(offset, timestamp) of the first record that has the largest timestamp; (-1, -1) when no record has any.

    `batch` is one or more consecutive whole batches. Raises InvalidBatch.
    """
    cdef _Reader reader = _Reader(batch, decompressed_bytes_max)
    cdef record_view record
    cdef int64_t best_offset = -1, best_timestamp = -1
    while reader.next_batch():
        if reader.header.max_timestamp <= best_timestamp:
            continue
        reader.open_records()
        while reader.next_record(&record):
            if record_timestamp(&reader.header, &record) > best_timestamp:
                best_timestamp = record_timestamp(&reader.header, &record)
                best_offset = reader.header.base_offset + record.offset_delta
    return best_offset, best_timestamp


cdef object _nullable(const uint8_t* bytes, int32_t count):
    return None if count < 0 else PyBytes_FromStringAndSize(<const char*> bytes, count)


cdef tuple _headers(const record_view* record, const uint8_t* end):
    """The headers of a record that has been read, and so checked."""
    cdef const uint8_t* at = record.headers
    cdef const uint8_t* bytes = NULL
    cdef int32_t count = 0
    cdef int _index
    if record.header_count == 0:
        return ()
    cdef list headers = []
    for _index in range(record.header_count):
        at = read_bytes(at, end, 0, &bytes, &count)
        name = PyBytes_FromStringAndSize(<const char*> bytes, count).decode("utf-8", "surrogateescape")
        at = read_bytes(at, end, -1, &bytes, &count)
        headers.append((name, _nullable(bytes, count)))
    return tuple(headers)


# ---- building ----

cdef class _Writer:
    """Bytes that grow."""

    cdef uint8_t* bytes
    cdef size_t count
    cdef size_t capacity

    def __dealloc__(self):
        PyMem_Free(self.bytes)

    cdef int reserve(self, size_t more) except -1:
        cdef size_t capacity
        cdef uint8_t* bytes
        if more <= self.capacity - self.count:
            return 0
        if self.count + more > INT32_MAX:
            raise ValueError("batch is larger than 2 GiB")
        capacity = max(2 * self.capacity, self.count + more, <size_t> 1024)
        bytes = <uint8_t*> PyMem_Realloc(self.bytes, capacity)
        if bytes == NULL:
            raise MemoryError
        self.bytes = bytes
        self.capacity = capacity
        return 0

    cdef int put_varint(self, int64_t value) except -1:
        self.reserve(VARLONG_BYTES_MAX)
        self.count += store_varint(self.bytes + self.count, value)
        return 0

    cdef int put_nullable(self, bytes value) except -1:
        if value is None:
            return self.put_varint(-1)
        self.put_varint(len(value))
        self.reserve(len(value))
        memcpy(self.bytes + self.count, PyBytes_AS_STRING(value), len(value))
        self.count += len(value)
        return 0

    cdef int put_writer(self, _Writer other) except -1:
        self.put_varint(other.count)
        self.reserve(other.count)
        memcpy(self.bytes + self.count, other.bytes, other.count)
        self.count += other.count
        return 0


def build_batch(
    records, *, int codec=0, level=None, int64_t base_offset=0, int32_t leader_epoch=-1, int64_t producer_id=-1,
    int16_t producer_epoch=-1, int32_t base_sequence=-1, bint is_transactional=False, bint is_control=False,
    bint log_append=False, append_time_ms=None,
):
    """A batch of the records given as (key, value, headers, timestamp), in bytes.

    Keys and values are bytes or None; headers are pairs of name (text or bytes) and value (bytes or None); timestamps
    are in milliseconds, -1 for none. Offsets follow one another from `base_offset`. With `log_append` the batch carries
    `append_time_ms`, by default the largest timestamp, as log append time. Raises ValueError when there is no record or
    when the batch would be larger than 2 GiB.
    """
    cdef _Writer body = _Writer.__new__(_Writer)
    cdef _Writer record = _Writer.__new__(_Writer)
    cdef batch_header header
    cdef int64_t timestamp
    cdef int32_t count = 0
    header.max_timestamp = -1
    header.base_timestamp = -1
    for key, value, headers, timestamp_ms in records:
        timestamp = timestamp_ms
        if count == 0:
            header.base_timestamp = timestamp
        header.max_timestamp = max(header.max_timestamp, timestamp)
        _put_record(record, count, timestamp - header.base_timestamp, key, value, headers)
        body.put_writer(record)
        count += 1
    if count == 0:
        raise ValueError("a batch needs a record")
    if log_append and append_time_ms is not None:
        header.max_timestamp = append_time_ms
    header.base_offset = base_offset
    header.leader_epoch = leader_epoch
    header.magic = 2
    header.crc = 0
    header.attributes = (
        codec | (LOG_APPEND_TIME_BIT if log_append else 0) | (TRANSACTIONAL_BIT if is_transactional else 0)
        | (CONTROL_BIT if is_control else 0)
    )
    header.last_offset_delta = count - 1
    header.producer_id = producer_id
    header.producer_epoch = producer_epoch
    header.base_sequence = base_sequence
    header.record_count = count
    payload = PyBytes_FromStringAndSize(<const char*> body.bytes, body.count)
    return _assembled(&header, compress(codec, payload, level) if codec else payload)


cdef bytes _assembled(batch_header* header, bytes payload):
    cdef size_t size = BATCH_HEADER_BYTES + len(payload)
    if size - BATCH_PREFIX_BYTES > INT32_MAX:
        raise ValueError("batch is larger than 2 GiB")
    cdef bytes batch = PyBytes_FromStringAndSize(NULL, size)
    cdef uint8_t* bytes_of = <uint8_t*> PyBytes_AS_STRING(batch)
    header.batch_length = <int32_t> (size - BATCH_PREFIX_BYTES)
    memcpy(bytes_of + BATCH_HEADER_BYTES, PyBytes_AS_STRING(payload), len(payload))
    finish_header(bytes_of, size, header)
    return batch


cdef int _put_record(
    _Writer record, int32_t offset_delta, int64_t timestamp_delta, object key, object value, object headers
) except -1:
    record.count = 0
    record.reserve(1)
    record.bytes[0] = 0
    record.count = 1
    record.put_varint(timestamp_delta)
    record.put_varint(offset_delta)
    record.put_nullable(key)
    record.put_nullable(value)
    record.put_varint(len(headers))
    for name, header_value in headers:
        record.put_nullable(name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape"))
        record.put_nullable(header_value)
    return 0


# ---- what _records uses too ----

cdef object named_tuple(object kind, tuple values):
    """What `kind(*values)` gives, without the call of the Python function that a NamedTuple's constructor is."""
    cdef tuple arguments = (values,)
    return (<PyTypeObject*> tuple).tp_new(kind, <PyObject*> arguments, NULL)


cdef int check_fault(fault wrong) except -1:
    if wrong != NULL:
        raise InvalidBatch(CORRUPT_MESSAGE, wrong.decode())
    return 0


cdef object decompressed_records(object payload, int codec, int64_t limit_bytes):
    try:
        return decompress(codec, payload, limit_bytes)
    except ExpansionLimitError as error:
        raise InvalidBatch(MESSAGE_TOO_LARGE, f"records can't be decompressed: {error}") from None
    except CompressionError as error:
        raise InvalidBatch(INVALID_RECORD, f"records can't be decompressed: {error}") from None


cdef void finish_header(uint8_t* bytes, size_t count, batch_header* header) noexcept nogil:
    """Write the header over the first bytes of a batch whose records are in place, with its CRC."""
    store_header(bytes, header)
    header.crc = crc32c_update(0, bytes + BATCH_CRC_START, count - BATCH_CRC_START)
    store_header(bytes, header)
