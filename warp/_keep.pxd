# The C declarations of native/compaction.h; what they mean stands there.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from warp._batch cimport batch_header, fault

cdef extern from "native/compaction.h" nogil:
    enum:
        DELETE_HORIZON_BIT
        KEY_SLOT_BYTES
        RECORD_GROWTH_MAX
        SECRET_BYTES

    fault SHORT_OF_MEMORY

    ctypedef struct key_slot:
        int64_t end

    ctypedef struct key_map:
        key_slot* slots
        size_t slot_count
        size_t used
        size_t used_max
        uint64_t secret[2]

    ctypedef struct keep_rules:
        int64_t until_offset
        int64_t now_ms
        int64_t horizon_ms

    ctypedef struct keep_verdict:
        int32_t records
        int32_t tombstones
        int64_t min_timestamp
        int64_t max_timestamp
        bint gets_horizon

    ctypedef struct growing:
        uint8_t* bytes
        size_t count
        size_t capacity

    bint make_room(growing* buffer, size_t more)
    batch_header empty_batch(int64_t base_offset, int64_t until_offset, int64_t timestamp)
    int64_t newest_offset(const key_map* map, const uint8_t* key, size_t count)
    int64_t next_batch_offset(const batch_header* header)
    fault check_record_count(const batch_header* header, const uint8_t* at, const uint8_t* end)
    fault note_records(
        key_map* map, const batch_header* header, const uint8_t* at, const uint8_t* end, int64_t from_offset,
        int64_t until_offset, int64_t* stopped)
    fault judge_kept(
        const key_map* map, const keep_rules* rules, const batch_header* header, const uint8_t* at, const uint8_t* end,
        uint8_t* kept, keep_verdict* verdict)
    size_t write_kept(
        const batch_header* header, const uint8_t* at, const uint8_t* end, const uint8_t* kept, int64_t shift,
        uint8_t* target)
