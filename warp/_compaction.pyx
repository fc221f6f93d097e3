"""Compaction by key, natively: noting which record of each key is the newest, and writing batches without the others.

What is kept, and why, stands in native/compaction.h; docs/adr/0014-compaction-by-key.md has the reasons. Batches come
as an extent holds them and go out so that they tile the same offsets: a reader gives each batch the offset at which the
one before it ended, so where batches have gone, the one before is stretched over their offsets, or an empty one stands
in their place.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_FromStringAndSize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport INT32_MAX, INT64_MAX, int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from warp._batch cimport (
    BATCH_CRC_START, BATCH_HEADER_BYTES, BATCH_PREFIX_BYTES, CODEC_MASK, CONTROL_BIT, CORRUPT_MESSAGE,
    LOG_APPEND_TIME_BIT, TRANSACTIONAL_BIT, batch_bytes, batch_header, fault, load_header, read_batch, store_u32,
    store_u64,
)
from warp._crc32c cimport crc32c_update
from warp._keep cimport (
    DELETE_HORIZON_BIT, KEY_SLOT_BYTES, RECORD_GROWTH_MAX, SECRET_BYTES, SHORT_OF_MEMORY, check_record_count,
    empty_batch, growing, judge_kept, keep_rules, keep_verdict, key_map, key_slot, make_room, newest_offset,
    next_batch_offset, note_records, write_kept,
)
from warp._record_io cimport decompressed_records, finish_header, named_tuple

from typing import NamedTuple

from warp._compression import compress
from warp._record_io import InvalidBatch

cdef enum:
    # Below this, letting the interpreter lock go and taking it back costs more than others could gain.
    NOGIL_BYTES_MIN = 32 * 1024
    # One slot stays free, so that every search ends; one key has to fit.
    KEY_SLOTS_MIN = 2
    NO_TIME = -1
    NO_SEQUENCE = -1
    LEADER_EPOCH = 0


cdef enum step_end:
    AT_END          # of the batches, or at a fault
    AT_BUDGET       # more bytes come than should be gone through under the interpreter lock
    AT_RECORDS      # which have to be decompressed


class Compacted(NamedTuple):
    """What is left of an extent's batches.

    `batches` tile the same offsets, which are stamped into them. `record_count` counts what is kept, `dropped_count`
    what is not, `horizon_count` batches whose tombstones were given a delete horizon. `first_timestamp_ms` is the
    smallest of the records, -1 without any; `max_timestamp_ms` the largest, and of an extent without records what it
    was. `is_transactional` says that there are batches of transactions, which are kept and supersede nothing.
    """

    batches: bytearray
    end_offset: int
    record_count: int
    dropped_count: int
    horizon_count: int
    first_timestamp_ms: int
    max_timestamp_ms: int
    is_transactional: bool


cdef class KeyMap:
    """The newest offset of each key, in a fixed number of bytes.

    `bytes_max` is what the map may take, at least 48. `secret` (16 random bytes) keeps writers of keys from making
    them collide. A map is used by one thread at a time.
    """

    cdef key_map map
    cdef bint is_busy

    def __cinit__(self, Py_ssize_t bytes_max, bytes secret not None):
        if bytes_max < KEY_SLOTS_MIN * KEY_SLOT_BYTES:
            raise ValueError(f"a map of keys needs {KEY_SLOTS_MIN * KEY_SLOT_BYTES} bytes")
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"a secret has {SECRET_BYTES} bytes")
        cdef size_t slots = <size_t> bytes_max // KEY_SLOT_BYTES
        # Large ones are zeroed by the system, page by page, as they are touched.
        self.map.slots = <key_slot*> calloc(slots, KEY_SLOT_BYTES)
        if self.map.slots == NULL:
            raise MemoryError
        memcpy(self.map.secret, <const char*> secret, SECRET_BYTES)
        self.map.slot_count = slots
        # Three quarters: fuller, searches become long.
        self.map.used_max = max(slots - slots // 4 - 1, <size_t> 1)

    def __dealloc__(self):
        free(self.map.slots)

    def __len__(self):
        return self.map.used

    @property
    def keys_max(self):
        """How many keys fit in."""
        return self.map.used_max

    def newest_offset(self, bytes key not None):
        """The newest offset that was noted of a key; None without any."""
        cdef int64_t offset = newest_offset(&self.map, <const uint8_t*> <const char*> key, len(key))
        return None if offset < 0 else offset


def note_keys(
    batches, int64_t base_offset, KeyMap keys not None, *, int64_t from_offset, int64_t until_offset,
    int64_t decompressed_bytes_max,
):
    """Note the keys of an extent's records from `from_offset` on and below `until_offset`.

    Returns the offset up to which they are noted: the end of the batches or `until_offset`, whichever comes first, or
    less where the map is full. Records without key, and batches of transactions, are passed over. Raises InvalidBatch
    when the bytes are not whole batches under their right CRCs, or when one holds more than `decompressed_bytes_max`.
    """
    cdef _Noting work = _Noting(batches, base_offset, keys, decompressed_bytes_max)
    work.from_offset = from_offset
    work.until_offset = until_offset
    work.stopped = -1
    work.run()
    return work.stopped if work.stopped >= 0 else min(until_offset, work.next_offset)


def compact_batches(
    batches, int64_t base_offset, KeyMap keys not None, *, int64_t until_offset, int64_t now_ms, int64_t horizon_ms,
    int64_t decompressed_bytes_max,
):
    """Write an extent's batches without the records that nobody needs any more, as Compacted.

    Dropped are, below `until_offset`: records of whose key a newer one was noted, records without key, and tombstones
    of batches whose delete horizon lies at or before `now_ms`. A batch that is left with tombstones and has no horizon
    gets `horizon_ms` for one, unless that is -1 or a batch of a transaction comes before it. Batches of control records
    and of transactions are kept as they are. Raises InvalidBatch as note_keys does.
    """
    cdef _Filtering work = _Filtering(batches, base_offset, keys, decompressed_bytes_max)
    work.rules.until_offset = until_offset
    work.rules.now_ms = now_ms
    work.rules.horizon_ms = horizon_ms
    work.run()
    return work.result()


# ---- going through an extent ----

cdef class _Batches:
    """Goes through the batches of an extent, giving each the offset at which the one before ended."""

    cdef KeyMap keys
    cdef object source
    cdef Py_buffer view
    cdef bint has_view
    cdef int64_t decompressed_bytes_max
    cdef size_t start                # of the batch at hand
    cdef size_t position             # of the batch after it
    cdef int64_t next_offset         # of the batch after it
    cdef batch_header header
    cdef bint is_done

    def __cinit__(self, batches, int64_t base_offset, KeyMap keys, int64_t decompressed_bytes_max):
        if base_offset < 0:
            raise ValueError("base_offset is negative")
        self.source = memoryview(batches).cast("B")
        PyObject_GetBuffer(self.source, &self.view, PyBUF_SIMPLE)
        self.has_view = True
        self.keys = keys
        self.next_offset = base_offset
        self.decompressed_bytes_max = decompressed_bytes_max

    def __dealloc__(self):
        if self.has_view:
            PyBuffer_Release(&self.view)

    cdef int run(self) except -1:
        """Go through all batches, or until `is_done`."""
        cdef step_end end
        cdef fault wrong = NULL
        if self.keys.is_busy:
            raise ValueError("another thread works with this map")
        self.keys.is_busy = True
        try:
            while True:
                end = self.go_on(NOGIL_BYTES_MIN, &wrong)
                if end == AT_BUDGET:
                    with nogil:
                        end = self.go_on(<size_t> self.view.len, &wrong)
                if end == AT_RECORDS:
                    wrong = self.open_batch()
                if wrong != NULL:
                    raise MemoryError if wrong == SHORT_OF_MEMORY else InvalidBatch(CORRUPT_MESSAGE, wrong.decode())
                if end == AT_END:
                    return 0
        finally:
            self.keys.is_busy = False

    cdef step_end go_on(self, size_t budget_bytes, fault* wrong) noexcept nogil:
        """Go through batches until there is something to do that needs Python."""
        cdef const uint8_t* at
        cdef size_t size
        while self.position < <size_t> self.view.len and not self.is_done:
            at = <const uint8_t*> self.view.buf + self.position
            wrong[0] = self.read_next(at, budget_bytes)
            if wrong[0] != NULL:
                return AT_END
            size = batch_bytes(&self.header)
            if size > budget_bytes:
                return AT_BUDGET
            budget_bytes -= size
            self.start = self.position
            self.position += size
            self.next_offset = next_batch_offset(&self.header)
            if self.needs_records() and self.header.attributes & CODEC_MASK:
                return AT_RECORDS
            wrong[0] = self.visit(at + BATCH_HEADER_BYTES, at + size)
            if wrong[0] != NULL:
                return AT_END
        return AT_END

    cdef fault read_next(self, const uint8_t* at, size_t budget_bytes) noexcept nogil:
        """Read and check the header of the next batch, and its CRC if it fits into the budget."""
        cdef fault wrong = read_batch(at, <size_t> self.view.len - self.position, &self.header)
        if wrong != NULL:
            return wrong
        cdef size_t size = batch_bytes(&self.header)
        if self.header.last_offset_delta >= INT64_MAX - self.next_offset:
            return b"offsets run out"
        self.header.base_offset = self.next_offset
        if size > budget_bytes:
            return NULL
        if crc32c_update(0, at + BATCH_CRC_START, size - BATCH_CRC_START) != self.header.crc:
            return b"batch has a wrong CRC"
        if not self.header.attributes & CODEC_MASK:
            return check_record_count(&self.header, at + BATCH_HEADER_BYTES, at + size)
        return NULL

    cdef fault open_batch(self) except? NULL:
        """Visit a compressed batch with its records decompressed."""
        cdef Py_buffer records
        cdef const uint8_t* at
        cdef const uint8_t* end
        cdef fault wrong
        payload = decompressed_records(
            self.source[self.start + BATCH_HEADER_BYTES:self.position], self.header.attributes & CODEC_MASK,
            self.decompressed_bytes_max)
        PyObject_GetBuffer(payload, &records, PyBUF_SIMPLE)
        try:
            at = <const uint8_t*> records.buf
            end = at + records.len
            wrong = check_record_count(&self.header, at, end)
            if wrong == NULL and records.len >= NOGIL_BYTES_MIN:
                with nogil:
                    wrong = self.visit(at, end)
            elif wrong == NULL:
                wrong = self.visit(at, end)
        finally:
            PyBuffer_Release(&records)
        if wrong == NULL:
            self.finish_visit()
        return wrong

    cdef bint needs_records(self) noexcept nogil:
        """Whether the records of the batch at hand have to be looked at."""
        return False

    cdef fault visit(self, const uint8_t* at, const uint8_t* end) noexcept nogil:
        """Do what is to be done with the batch at hand, whose records, decompressed, stand from `at` to `end`."""
        return NULL

    cdef int finish_visit(self) except -1:
        """After the visit to a compressed batch."""
        return 0


cdef class _Noting(_Batches):
    """Notes keys."""

    cdef int64_t from_offset
    cdef int64_t until_offset
    cdef int64_t stopped         # the offset that found the map full, or -1

    cdef bint needs_records(self) noexcept nogil:
        return (
            self.header.record_count > 0 and not self.header.attributes & (CONTROL_BIT | TRANSACTIONAL_BIT)
            and self.next_offset > self.from_offset
        )

    cdef fault visit(self, const uint8_t* at, const uint8_t* end) noexcept nogil:
        cdef fault wrong = NULL
        if self.needs_records():
            wrong = note_records(
                &self.keys.map, &self.header, at, end, self.from_offset, self.until_offset, &self.stopped)
        self.is_done = self.stopped >= 0 or self.next_offset >= self.until_offset
        return wrong


# ---- writing what is kept ----

cdef class _Filtering(_Batches):
    """Writes the batches without the records that are dropped."""

    cdef keep_rules rules
    cdef keep_verdict verdict
    cdef growing output
    cdef growing kept            # one byte per record of the batch at hand
    cdef growing packed          # the records of the batch at hand that are to be compressed
    cdef int64_t covered         # the offset up to which the output tiles
    cdef size_t last_start       # of the batch in the output that may be stretched
    cdef bint has_last
    cdef int64_t gone_max_timestamp
    cdef int64_t min_timestamp
    cdef int64_t max_timestamp
    cdef int64_t kept_records
    cdef int64_t dropped_records
    cdef int64_t horizons
    cdef bint is_transactional

    def __cinit__(self, batches, int64_t base_offset, *_rest):
        self.covered = base_offset
        self.gone_max_timestamp = NO_TIME
        self.min_timestamp = NO_TIME
        self.max_timestamp = NO_TIME

    def __dealloc__(self):
        free(self.output.bytes)
        free(self.kept.bytes)
        free(self.packed.bytes)

    cdef bint needs_records(self) noexcept nogil:
        return (
            self.header.record_count > 0 and not self.header.attributes & (CONTROL_BIT | TRANSACTIONAL_BIT)
            and self.header.base_offset < self.rules.until_offset
        )

    cdef fault visit(self, const uint8_t* at, const uint8_t* end) noexcept nogil:
        cdef fault wrong
        self.packed.count = 0
        self.verdict.records = 0
        if self.header.record_count and not self.needs_records():
            return self.keep_unread()
        if not make_room(&self.kept, self.header.record_count):
            return SHORT_OF_MEMORY
        wrong = judge_kept(&self.keys.map, &self.rules, &self.header, at, end, self.kept.bytes, &self.verdict)
        if wrong != NULL:
            return wrong
        self.dropped_records += self.header.record_count - self.verdict.records
        if not self.verdict.records:
            self.gone_max_timestamp = max(self.gone_max_timestamp, self.header.max_timestamp)
            return NULL
        self.count_kept(self.verdict.records, self.verdict.min_timestamp, self.verdict.max_timestamp)
        if self.verdict.records == self.header.record_count and not self.verdict.gets_horizon:
            return self.copy_batch()
        return self.rewrite(at, end)

    cdef fault keep_unread(self) noexcept nogil:
        """Keep a batch whose records are not looked at."""
        cdef int64_t first = self.header.base_timestamp
        if self.header.attributes & (DELETE_HORIZON_BIT | LOG_APPEND_TIME_BIT):
            first = self.header.max_timestamp
        if self.header.attributes & TRANSACTIONAL_BIT and not self.header.attributes & CONTROL_BIT:
            # Whether it was aborted is not known here: it supersedes nothing, so a tombstone after it has to stay.
            self.is_transactional = True
            self.rules.horizon_ms = NO_TIME
        self.count_kept(self.header.record_count, first, self.header.max_timestamp)
        return self.copy_batch()

    cdef void count_kept(self, int32_t records, int64_t first, int64_t last) noexcept nogil:
        self.min_timestamp = first if not self.kept_records else min(self.min_timestamp, first)
        self.max_timestamp = max(self.max_timestamp, last)
        self.kept_records += records

    cdef fault copy_batch(self) noexcept nogil:
        """Append the batch at hand as it is, with its offset stamped."""
        cdef size_t size = batch_bytes(&self.header)
        cdef uint8_t* target
        if not self.cover(self.header.base_offset, NO_TIME) or not make_room(&self.output, size):
            return SHORT_OF_MEMORY
        target = self.output.bytes + self.output.count
        memcpy(target, <const uint8_t*> self.view.buf + self.start, size)
        store_u64(target, <uint64_t> self.header.base_offset)
        store_u32(target + BATCH_PREFIX_BYTES, LEADER_EPOCH)
        self.append_batch(size)
        return NULL

    cdef fault rewrite(self, const uint8_t* at, const uint8_t* end) noexcept nogil:
        """Write the kept records of the batch at hand: into the output, or to where they are compressed from."""
        cdef size_t room = <size_t> (end - at) + <size_t> self.verdict.records * RECORD_GROWTH_MAX
        cdef int64_t shift = 0
        if not self.cover(self.header.base_offset, NO_TIME):
            return SHORT_OF_MEMORY
        if self.verdict.gets_horizon:
            shift = <int64_t> (<uint64_t> self.rules.horizon_ms - <uint64_t> self.header.base_timestamp)
        if self.header.attributes & CODEC_MASK:
            if not make_room(&self.packed, room):
                return SHORT_OF_MEMORY
            self.packed.count = write_kept(&self.header, at, end, self.kept.bytes, shift, self.packed.bytes)
            return NULL
        if not make_room(&self.output, BATCH_HEADER_BYTES + room):
            return SHORT_OF_MEMORY
        self.close_batch(write_kept(
            &self.header, at, end, self.kept.bytes, shift, self.output.bytes + self.output.count + BATCH_HEADER_BYTES))
        return NULL

    cdef int finish_visit(self) except -1:
        """Compress what was written of the batch at hand, if its records changed."""
        if not self.packed.count:
            return 0
        cdef bytes payload = compress(
            self.header.attributes & CODEC_MASK,
            PyBytes_FromStringAndSize(<const char*> self.packed.bytes, self.packed.count))
        cdef size_t size = len(payload)
        if not make_room(&self.output, BATCH_HEADER_BYTES + size):
            raise MemoryError
        memcpy(self.output.bytes + self.output.count + BATCH_HEADER_BYTES, PyBytes_AS_STRING(payload), size)
        self.close_batch(size)
        return 0

    cdef void close_batch(self, size_t records_bytes) noexcept nogil:
        """Write the header of a batch whose kept records are in place; offsets and producer fields stay."""
        cdef size_t size = BATCH_HEADER_BYTES + records_bytes
        self.header.batch_length = <int32_t> (size - BATCH_PREFIX_BYTES)
        self.header.leader_epoch = LEADER_EPOCH
        self.header.record_count = self.verdict.records
        if not self.header.attributes & LOG_APPEND_TIME_BIT:
            self.header.max_timestamp = self.verdict.max_timestamp
        if self.verdict.gets_horizon:
            self.header.attributes |= DELETE_HORIZON_BIT
            self.header.base_timestamp = self.rules.horizon_ms
            self.horizons += 1
        finish_header(self.output.bytes + self.output.count, size, &self.header)
        self.append_batch(size)

    cdef void append_batch(self, size_t size) noexcept nogil:
        """The batch at hand stands at the end of the output."""
        self.last_start = self.output.count
        # A batch of a transaction, or a control batch, stays as it is to the byte.
        self.has_last = not self.header.attributes & (CONTROL_BIT | TRANSACTIONAL_BIT)
        self.output.count += size
        self.covered = self.next_offset

    cdef bint cover(self, int64_t until_offset, int64_t max_timestamp) noexcept nogil:
        """Let the output tile up to `until_offset`. False: there is no memory."""
        cdef batch_header header
        if self.covered == until_offset:
            return True
        if self.has_last:
            load_header(self.output.bytes + self.last_start, &header)
            if until_offset - 1 - header.base_offset <= INT32_MAX:
                header.last_offset_delta = <int32_t> (until_offset - 1 - header.base_offset)
                # The last sequence can't be told from the last offset any more.
                header.base_sequence = NO_SEQUENCE
                finish_header(self.output.bytes + self.last_start, self.output.count - self.last_start, &header)
                self.covered = until_offset
                return True
        while self.covered < until_offset:
            # As Kafka leaves them behind; one does, unless it can't reach that far.
            if not make_room(&self.output, BATCH_HEADER_BYTES):
                return False
            header = empty_batch(self.covered, until_offset, max_timestamp)
            finish_header(self.output.bytes + self.output.count, BATCH_HEADER_BYTES, &header)
            self.output.count += BATCH_HEADER_BYTES
            self.covered = next_batch_offset(&header)
            self.has_last = False
        return True

    cdef object result(self):
        cdef int64_t last = self.max_timestamp if self.kept_records else self.gone_max_timestamp
        if not self.cover(self.next_offset, NO_TIME if self.kept_records else self.gone_max_timestamp):
            raise MemoryError
        return named_tuple(Compacted, (
            PyByteArray_FromStringAndSize(<const char*> self.output.bytes, self.output.count),
            self.next_offset,
            self.kept_records,
            self.dropped_records,
            self.horizons,
            self.min_timestamp,
            last,
            self.is_transactional,
        ))
