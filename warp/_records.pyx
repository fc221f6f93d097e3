"""Record batches of magic 2: validation, stamping, look-ups, iteration and building.

The produce path works on C structs and pointers alone (native/records.h, native/validate.h): a batch becomes no Python
object per record, and large ones are judged without the interpreter lock. Whatever the bytes are, the worst that
happens is InvalidBatch.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.stdint cimport INT32_MAX, INT64_MAX, int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from warp._batch cimport (
    BATCH_ATTRIBUTES_AT, BATCH_CRC_START, BATCH_HEADER_BYTES, BATCH_PREFIX_BYTES, CODEC_MASK, CONTROL_BIT,
    CORRUPT_MESSAGE, INVALID_RECORD, LOG_APPEND_TIME_BIT, MESSAGE_TOO_LARGE, MISSING_KEY, OK, TIMESTAMP_OVERFLOW,
    TRANSACTIONAL_BIT, VARLONG_BYTES_MAX, WRONG_OFFSET, batch_bytes, batch_header, batch_rules, batch_verdict, fault,
    judge_frame, judge_header, judge_records, load_header, read_batch, read_bytes, read_header, read_record,
    record_finding, record_timestamp, record_view, refuse, store_header, store_u32, store_u64, write_varint,
)
from warp._compression cimport expansion_bound
from warp._crc32c cimport crc32c_update

from collections.abc import Sequence
from typing import NamedTuple

from warp._compression import CompressionError, ExpansionLimitError, compress, decompress

cdef enum:
    # Below this, letting the interpreter lock go and taking it back costs more than others could gain.
    NOGIL_BYTES_MIN = 32 * 1024
    # About 0.3 ms of decompression each; handing work to a thread and back costs about 0.1 ms. Gzip says nothing
    # about what it holds, so its threshold is on the compressed size, with deflate's worst ratio in mind.
    THREAD_GZIP_BYTES = 8 * 1024
    THREAD_LZ4_EXPANDED_BYTES = 1024 * 1024
    THREAD_EXPANDED_BYTES = 256 * 1024

cdef enum:
    GZIP = 1
    LZ4 = 3


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


class BatchSpan(NamedTuple):
    """Where a batch stands in a buffer, and what fetching it needs to know of its header."""

    position: int
    size_bytes: int
    base_offset: int
    last_offset_delta: int
    max_timestamp: int
    attributes: int
    producer_id: int
    record_count: int


class Record(NamedTuple):
    """One record. `timestamp` is in milliseconds, -1 when there is none; a null key or value is None.

    Header names are text; bytes in them that are not UTF-8 survive as surrogate escapes.
    """

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


cdef class BatchHeader:
    """The fixed part of a record batch, field by field. `size_bytes` counts the whole batch."""

    cdef readonly int64_t base_offset
    cdef readonly int32_t batch_length
    cdef readonly int32_t leader_epoch
    cdef readonly int magic
    cdef readonly uint32_t crc
    cdef readonly int16_t attributes
    cdef readonly int32_t last_offset_delta
    cdef readonly int64_t base_timestamp
    cdef readonly int64_t max_timestamp
    cdef readonly int64_t producer_id
    cdef readonly int16_t producer_epoch
    cdef readonly int32_t base_sequence
    cdef readonly int32_t record_count
    cdef readonly int codec
    cdef readonly bint is_log_append_time
    cdef readonly bint is_transactional
    cdef readonly bint is_control
    cdef readonly size_t size_bytes

    def __repr__(self):
        return (
            f"{type(self).__name__}(base_offset={self.base_offset}, size_bytes={self.size_bytes}, "
            f"record_count={self.record_count}, codec={self.codec}, attributes={self.attributes:#x}, "
            f"max_timestamp={self.max_timestamp}, producer_id={self.producer_id}, "
            f"producer_epoch={self.producer_epoch}, base_sequence={self.base_sequence})"
        )


cdef class ValidatedBatch(BatchHeader):
    """A batch that may be stored: its header, and in `data` its bytes exactly as they will be stored.

    `data` is a view of the producer's buffer, or a stamped copy where the header had to change.
    """

    cdef readonly object data


cdef class BatchRules:
    """What a topic, and the moment, ask of a batch.

    `max_message_bytes`: the largest batch, as it comes. `message_timestamp_type`: 0 create time, 1 log append time.
    `now_ms`: the present, which bounds timestamps with `timestamp_before_max_ms` and `timestamp_after_max_ms`, and is
    the log append time. `require_key`: every record needs a key, as in compacted topics. `decompressed_bytes_max`:
    the most that a compressed batch may hold. `allow_zstd`: False for Produce below version 7.
    """

    cdef batch_rules limits

    def __init__(
        self, *, int64_t max_message_bytes, int message_timestamp_type, int64_t now_ms,
        int64_t timestamp_before_max_ms, int64_t timestamp_after_max_ms, bint require_key,
        int64_t decompressed_bytes_max, bint allow_zstd=True,
    ):
        if min(max_message_bytes, timestamp_before_max_ms, timestamp_after_max_ms, decompressed_bytes_max) < 0:
            raise ValueError("a limit is negative")
        if message_timestamp_type not in (0, 1):
            raise ValueError(f"unknown timestamp type {message_timestamp_type}")
        self.limits.max_message_bytes = max_message_bytes
        self.limits.now_ms = now_ms
        self.limits.before_max_ms = timestamp_before_max_ms
        self.limits.after_max_ms = timestamp_after_max_ms
        self.limits.decompressed_bytes_max = decompressed_bytes_max
        self.limits.is_log_append_time = message_timestamp_type == 1
        self.limits.is_key_required = require_key
        self.limits.is_zstd_allowed = allow_zstd


# ---- produce ----

def validate_produce(data, BatchRules rules not None):
    """Check one partition's records of a Produce request as Kafka does, and make them ready to be stored.

    `data` has to hold exactly one batch. The records inside are checked too, also compressed ones. The producer's
    buffer is never changed: with log append time, or where the header states a wrong maximum timestamp, `data` of the
    result is a copy with a fresh CRC. Raises InvalidBatch with the error code that the first failed check calls for.
    """
    cdef Py_buffer view
    cdef batch_verdict verdict
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if view.len > NOGIL_BYTES_MIN:
            with nogil:
                _judge(<const uint8_t*> view.buf, view.len, &rules.limits, &verdict)
        else:
            _judge(<const uint8_t*> view.buf, view.len, &rules.limits, &verdict)
        if verdict.code == OK and verdict.header.attributes & CODEC_MASK:
            _judge_compressed(data, &rules.limits, &verdict)
        if verdict.code != OK:
            raise _refusal(&verdict, &rules.limits)
        return _validated(data, &view, &rules.limits, &verdict)
    finally:
        PyBuffer_Release(&view)


def needs_thread(data):
    """Whether validating these records takes so long that a worker thread pays: many compressed bytes.

    Reads the batch's header and those of the compressed blocks, nothing else.
    """
    cdef Py_buffer view
    cdef const uint8_t* bytes
    cdef size_t count
    cdef int codec
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if view.len <= BATCH_HEADER_BYTES:
            return False
        bytes = <const uint8_t*> view.buf
        codec = bytes[BATCH_ATTRIBUTES_AT + 1] & CODEC_MASK
        bytes += BATCH_HEADER_BYTES
        count = <size_t> view.len - BATCH_HEADER_BYTES
        if codec == 0:
            return False
        if codec == GZIP:
            return count >= THREAD_GZIP_BYTES
        return expansion_bound(codec, bytes, count) >= (
            THREAD_LZ4_EXPANDED_BYTES if codec == LZ4 else THREAD_EXPANDED_BYTES)
    finally:
        PyBuffer_Release(&view)


cdef void _judge(
    const uint8_t* bytes, size_t count, const batch_rules* rules, batch_verdict* verdict
) noexcept nogil:
    """All checks but those of compressed records."""
    judge_frame(bytes, count, rules, verdict)
    if verdict.code != OK:
        return
    if crc32c_update(0, bytes + BATCH_CRC_START, count - BATCH_CRC_START) != verdict.header.crc:
        refuse(verdict, CORRUPT_MESSAGE, b"batch has a wrong CRC")
        return
    judge_header(verdict)
    if verdict.code == OK and not verdict.header.attributes & CODEC_MASK:
        judge_records(bytes + BATCH_HEADER_BYTES, bytes + count, rules, verdict)


cdef int _judge_compressed(object data, const batch_rules* rules, batch_verdict* verdict) except -1:
    cdef Py_buffer view
    cdef const uint8_t* bytes
    cdef object payload = _decompressed(
        memoryview(data).cast("B")[BATCH_HEADER_BYTES:], verdict.header.attributes & CODEC_MASK,
        rules.decompressed_bytes_max)
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    try:
        bytes = <const uint8_t*> view.buf
        if view.len > NOGIL_BYTES_MIN:
            with nogil:
                judge_records(bytes, bytes + view.len, rules, verdict)
        else:
            judge_records(bytes, bytes + view.len, rules, verdict)
    finally:
        PyBuffer_Release(&view)
    return 0


cdef object _decompressed(object payload, int codec, int64_t limit_bytes):
    try:
        return decompress(codec, payload, limit_bytes)
    except ExpansionLimitError as error:
        raise InvalidBatch(MESSAGE_TOO_LARGE, f"records can't be decompressed: {error}") from None
    except CompressionError as error:
        raise InvalidBatch(INVALID_RECORD, f"records can't be decompressed: {error}") from None


cdef object _refusal(batch_verdict* verdict, const batch_rules* rules):
    cdef int index
    message = verdict.message.decode()
    if verdict.faulty_record >= 0:
        message = f"record {verdict.faulty_record} of {verdict.header.record_count}: {message}"
    errors = []
    for index in range(verdict.findings_kept):
        errors.append((verdict.findings[index].record, _describe(&verdict.findings[index], rules)))
    return InvalidBatch(verdict.code, message, errors)


cdef str _describe(const record_finding* finding, const batch_rules* rules):
    if finding.kind == MISSING_KEY:
        return "a compacted topic can't take a record without a key"
    if finding.kind == WRONG_OFFSET:
        return f"offset delta is {finding.value}, not {finding.record}"
    if finding.kind == TIMESTAMP_OVERFLOW:
        return "timestamp does not fit into 64 bits"
    return (
        f"timestamp {finding.value} is not within {rules.before_max_ms} ms before "
        f"and {rules.after_max_ms} ms after {rules.now_ms}"
    )


cdef ValidatedBatch _validated(
    object data, const Py_buffer* view, const batch_rules* rules, batch_verdict* verdict
):
    cdef ValidatedBatch batch = ValidatedBatch.__new__(ValidatedBatch)
    cdef batch_header* header = &verdict.header
    cdef uint8_t* copy
    cdef size_t size = view.len
    if rules.is_log_append_time:
        header.attributes |= LOG_APPEND_TIME_BIT
        verdict.max_timestamp = rules.now_ms
    elif verdict.max_timestamp == header.max_timestamp:
        batch.data = memoryview(data).cast("B")
        _fill_header(batch, header)
        return batch
    header.max_timestamp = verdict.max_timestamp
    batch.data = PyBytes_FromStringAndSize(<const char*> view.buf, size)
    copy = <uint8_t*> PyBytes_AS_STRING(batch.data)
    with nogil:
        _finish_header(copy, size, header)
    _fill_header(batch, header)
    return batch


cdef void _finish_header(uint8_t* bytes, size_t count, batch_header* header) noexcept nogil:
    """Write the header over the first bytes of a batch whose records are in place, with its CRC."""
    store_header(bytes, header)
    header.crc = crc32c_update(0, bytes + BATCH_CRC_START, count - BATCH_CRC_START)
    store_header(bytes, header)


cdef int _fill_header(BatchHeader target, const batch_header* header) except -1:
    target.base_offset = header.base_offset
    target.batch_length = header.batch_length
    target.leader_epoch = header.leader_epoch
    target.magic = header.magic
    target.crc = header.crc
    target.attributes = header.attributes
    target.last_offset_delta = header.last_offset_delta
    target.base_timestamp = header.base_timestamp
    target.max_timestamp = header.max_timestamp
    target.producer_id = header.producer_id
    target.producer_epoch = header.producer_epoch
    target.base_sequence = header.base_sequence
    target.record_count = header.record_count
    target.codec = header.attributes & CODEC_MASK
    target.is_log_append_time = (header.attributes & LOG_APPEND_TIME_BIT) != 0
    target.is_transactional = (header.attributes & TRANSACTIONAL_BIT) != 0
    target.is_control = (header.attributes & CONTROL_BIT) != 0
    target.size_bytes = batch_bytes(header)
    return 0


# ---- headers: reading, stamping, walking ----

def parse_header(data, Py_ssize_t offset=0):
    """The header of the batch that starts at `offset`. The batch itself may be cut short after it.

    Raises InvalidBatch when it is no header of a batch of magic 2.
    """
    cdef Py_buffer view
    cdef batch_header header
    cdef BatchHeader result = BatchHeader.__new__(BatchHeader)
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if offset < 0 or offset > view.len:
            raise InvalidBatch(CORRUPT_MESSAGE, "offset lies outside the buffer")
        _check(read_header(<const uint8_t*> view.buf + offset, view.len - offset, &header))
    finally:
        PyBuffer_Release(&view)
    _fill_header(result, &header)
    return result


def stamp_batches(buffer, int64_t base_offset, int32_t leader_epoch=0):
    """Give all batches in a writable buffer consecutive offsets from `base_offset`, in place; returns the next offset.

    Base offset and leader epoch lie outside the CRC, so nothing else changes. The buffer has to hold whole batches and
    nothing else; otherwise InvalidBatch is raised and nothing is changed.
    """
    cdef Py_buffer view
    cdef uint8_t* bytes
    cdef batch_header header
    cdef size_t position = 0, count
    cdef int64_t next_offset = base_offset
    if base_offset < 0:
        raise ValueError("base_offset is negative")
    PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
    try:
        bytes = <uint8_t*> view.buf
        count = <size_t> view.len
        while position < count:
            _check(read_batch(bytes + position, count - position, &header))
            if header.last_offset_delta >= INT64_MAX - next_offset:
                raise InvalidBatch(CORRUPT_MESSAGE, "offsets run out")
            next_offset += <int64_t> header.last_offset_delta + 1
            position += batch_bytes(&header)
        next_offset = base_offset
        position = 0
        while position < count:
            load_header(bytes + position, &header)
            store_u64(bytes + position, <uint64_t> next_offset)
            store_u32(bytes + position + BATCH_PREFIX_BYTES, <uint32_t> leader_epoch)
            next_offset += <int64_t> header.last_offset_delta + 1
            position += batch_bytes(&header)
    finally:
        PyBuffer_Release(&view)
    return next_offset


def scan_batches(data):
    """A BatchSpan for each whole batch in `data`, from headers alone; a last batch that is cut short is left out."""
    cdef Py_buffer view
    cdef const uint8_t* bytes
    cdef batch_header header
    cdef size_t position = 0, count, size
    cdef list spans = []
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        bytes = <const uint8_t*> view.buf
        count = <size_t> view.len
        while count - position >= BATCH_HEADER_BYTES:
            _check(read_header(bytes + position, count - position, &header))
            size = batch_bytes(&header)
            if size > count - position:
                break
            spans.append(tuple.__new__(BatchSpan, (
                position, size, header.base_offset, header.last_offset_delta, header.max_timestamp,
                header.attributes, header.producer_id, header.record_count,
            )))
            position += size
    finally:
        PyBuffer_Release(&view)
    return spans


def whole_batches(data, int64_t limit_bytes, bint first_always):
    """How many bytes of whole batches, from the start of `data`, fit into `limit_bytes`.

    With `first_always` the first batch counts even when it alone is larger than the limit (KIP-74).
    """
    cdef Py_buffer view
    cdef const uint8_t* bytes
    cdef batch_header header
    cdef size_t position = 0, count, size
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        bytes = <const uint8_t*> view.buf
        count = <size_t> view.len
        while count - position >= BATCH_HEADER_BYTES:
            _check(read_header(bytes + position, count - position, &header))
            size = batch_bytes(&header)
            if size > count - position:
                break
            if <int64_t> (position + size) > limit_bytes and not (first_always and position == 0):
                break
            position += size
    finally:
        PyBuffer_Release(&view)
    return position


cdef int _check(fault wrong) except -1:
    if wrong != NULL:
        raise InvalidBatch(CORRUPT_MESSAGE, wrong.decode())
    return 0


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
        _check(read_batch(bytes + self.position, count - self.position, &self.header))
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
            payload = _decompressed(
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
        return tuple.__new__(Record, (
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
    cdef int index
    if record.header_count == 0:
        return ()
    cdef list headers = []
    for index in range(record.header_count):
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
        capacity = max(2 * self.capacity, self.count + more, 1024)
        bytes = <uint8_t*> PyMem_Realloc(self.bytes, capacity)
        if bytes == NULL:
            raise MemoryError
        self.bytes = bytes
        self.capacity = capacity
        return 0

    cdef int put_varint(self, int64_t value) except -1:
        self.reserve(VARLONG_BYTES_MAX)
        self.count += write_varint(self.bytes + self.count, value)
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
    _finish_header(bytes_of, size, header)
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
