"""Record batches of magic 2: validation of what producers send, stamping, and what headers alone tell.

The produce path works on C structs and pointers alone (native/records.h, native/validate.h): a batch becomes no Python
object per record, and large ones are judged without the interpreter lock. Whatever the bytes are, the worst that
happens is InvalidBatch.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport INT64_MAX, int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t

from warp._batch cimport (
    BATCH_ATTRIBUTES_AT, BATCH_CRC_START, BATCH_HEADER_BYTES, BATCH_PREFIX_BYTES, CODEC_MASK, CONTROL_BIT,
    CORRUPT_MESSAGE, LOG_APPEND_TIME_BIT, MISSING_KEY, OK, TIMESTAMP_OVERFLOW, TRANSACTIONAL_BIT, WRONG_OFFSET,
    batch_bytes, batch_header, batch_rules, batch_verdict, fault, judge_frame, judge_header, judge_records, load_header,
    read_batch, read_header, record_finding, refuse, store_u32, store_u64,
)
from warp._compression cimport expansion_bound
from warp._crc32c cimport crc32c_update
from warp._record_io cimport check_fault, decompressed_records, finish_header, named_tuple

from typing import NamedTuple

from warp._record_io import (
    InvalidBatch, Record, RecordIterator, build_batch, find_max_timestamp, find_offset_by_timestamp, iterate_records,
)

__all__ = [
    "BatchHeader", "BatchRules", "BatchSpan", "BatchTotals", "InvalidBatch", "Record", "RecordIterator",
    "ValidatedBatch", "build_batch", "find_max_timestamp", "find_offset_by_timestamp", "iterate_records",
    "needs_thread", "parse_header", "scan_batches", "stamp_batches", "validate_produce", "verify_batch",
    "verify_batches", "whole_batches",
]

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


class BatchTotals(NamedTuple):
    """What the headers of consecutive batches say together. A timestamp is -1 when no batch has any."""

    size_bytes: int
    offset_count: int
    record_count: int
    first_timestamp: int
    max_timestamp: int
    untimed_batches: int


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
    cdef object payload = decompressed_records(
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
        finish_header(copy, size, header)
    _fill_header(batch, header)
    return batch


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
        check_fault(read_header(<const uint8_t*> view.buf + offset, view.len - offset, &header))
    finally:
        PyBuffer_Release(&view)
    _fill_header(result, &header)
    return result


def verify_batch(data, Py_ssize_t offset=0):
    """The header of the batch that starts at `offset`, which has to be there as a whole and under its right CRC.

    The records inside are not looked at. Raises InvalidBatch.
    """
    cdef Py_buffer view
    cdef const uint8_t* bytes
    cdef batch_header header
    cdef uint32_t crc
    cdef size_t size
    cdef BatchHeader result = BatchHeader.__new__(BatchHeader)
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if offset < 0 or offset > view.len:
            raise InvalidBatch(CORRUPT_MESSAGE, "offset lies outside the buffer")
        bytes = <const uint8_t*> view.buf + offset
        check_fault(read_batch(bytes, view.len - offset, &header))
        size = batch_bytes(&header) - BATCH_CRC_START
        bytes += BATCH_CRC_START
        if size >= NOGIL_BYTES_MIN:
            with nogil:
                crc = crc32c_update(0, bytes, size)
        else:
            crc = crc32c_update(0, bytes, size)
        if crc != header.crc:
            raise InvalidBatch(CORRUPT_MESSAGE, "batch has a wrong CRC")
    finally:
        PyBuffer_Release(&view)
    _fill_header(result, &header)
    return result


def verify_batches(data, Py_ssize_t offset, Py_ssize_t limit_bytes):
    """Check batches from `offset` on as `verify_batch` does, until `limit_bytes` are reached or nothing is left.

    Returns BatchTotals of at least one. Raises InvalidBatch when one is wrong or cut short.
    """
    cdef Py_buffer view
    cdef batch_totals totals
    cdef fault wrong
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if offset < 0 or offset >= view.len:
            raise InvalidBatch(CORRUPT_MESSAGE, "offset lies outside the buffer")
        if min(view.len - offset, limit_bytes) >= NOGIL_BYTES_MIN:
            with nogil:
                wrong = _verify(<const uint8_t*> view.buf + offset, view.len - offset, limit_bytes, &totals)
        else:
            wrong = _verify(<const uint8_t*> view.buf + offset, view.len - offset, limit_bytes, &totals)
        check_fault(wrong)
    finally:
        PyBuffer_Release(&view)
    return named_tuple(BatchTotals, (
        totals.size_bytes, totals.offset_count, totals.record_count, totals.first_timestamp, totals.max_timestamp,
        totals.untimed_batches,
    ))


cdef struct batch_totals:
    size_t size_bytes
    int64_t offset_count, record_count, first_timestamp, max_timestamp, untimed_batches


cdef fault _verify(const uint8_t* bytes, size_t count, Py_ssize_t limit_bytes, batch_totals* totals) noexcept nogil:
    cdef batch_header header
    cdef fault wrong
    cdef size_t size
    totals.size_bytes = 0
    totals.offset_count = totals.record_count = totals.untimed_batches = 0
    totals.first_timestamp = totals.max_timestamp = -1
    while totals.size_bytes < count and (<Py_ssize_t> totals.size_bytes < limit_bytes or totals.size_bytes == 0):
        wrong = read_batch(bytes, count - totals.size_bytes, &header)
        if wrong != NULL:
            return wrong
        size = batch_bytes(&header)
        if crc32c_update(0, bytes + BATCH_CRC_START, size - BATCH_CRC_START) != header.crc:
            return b"batch has a wrong CRC"
        totals.size_bytes += size
        totals.offset_count += <int64_t> header.last_offset_delta + 1
        totals.record_count += header.record_count
        if header.base_timestamp != -1 and (
            totals.first_timestamp == -1 or header.base_timestamp < totals.first_timestamp
        ):
            totals.first_timestamp = header.base_timestamp
        if header.max_timestamp == -1:
            totals.untimed_batches += 1
        elif header.max_timestamp > totals.max_timestamp:
            totals.max_timestamp = header.max_timestamp
        bytes += size
    return NULL


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
            check_fault(read_batch(bytes + position, count - position, &header))
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
            check_fault(read_header(bytes + position, count - position, &header))
            size = batch_bytes(&header)
            if size > count - position:
                break
            spans.append(named_tuple(BatchSpan, (
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
            check_fault(read_header(bytes + position, count - position, &header))
            size = batch_bytes(&header)
            if size > count - position:
                break
            if <int64_t> (position + size) > limit_bytes and not (first_always and position == 0):
                break
            position += size
    finally:
        PyBuffer_Release(&view)
    return position
