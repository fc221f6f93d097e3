# The C declarations of native/records.h and native/validate.h; what they mean stands there.

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "native/records.h" nogil:
    ctypedef const char* fault

    enum:
        BATCH_PREFIX_BYTES
        BATCH_HEADER_BYTES
        BATCH_CRC_START
        BATCH_ATTRIBUTES_AT
        CODEC_MASK
        LOG_APPEND_TIME_BIT
        TRANSACTIONAL_BIT
        CONTROL_BIT
        VARLONG_BYTES_MAX

    ctypedef struct batch_header:
        int64_t base_offset
        int32_t batch_length
        int32_t leader_epoch
        int8_t magic
        uint32_t crc
        int16_t attributes
        int32_t last_offset_delta
        int64_t base_timestamp
        int64_t max_timestamp
        int64_t producer_id
        int16_t producer_epoch
        int32_t base_sequence
        int32_t record_count

    ctypedef struct record_view:
        int64_t timestamp_delta
        int32_t offset_delta
        int32_t key_bytes
        int32_t value_bytes
        int32_t header_count
        const uint8_t* key
        const uint8_t* value
        const uint8_t* headers

    void store_u32(uint8_t* at, uint32_t value)
    void store_u64(uint8_t* at, uint64_t value)
    size_t store_varint(uint8_t* at, int64_t value)
    void load_header(const uint8_t* at, batch_header* header)
    void store_header(uint8_t* at, const batch_header* header)
    fault read_header(const uint8_t* at, size_t count, batch_header* header)
    fault read_batch(const uint8_t* at, size_t count, batch_header* header)
    size_t batch_bytes(const batch_header* header)
    const uint8_t* read_bytes(
        const uint8_t* at, const uint8_t* end, int32_t length_min, const uint8_t** bytes, int32_t* length)
    fault read_record(const uint8_t** cursor, const uint8_t* end, record_view* record)
    int64_t record_timestamp(const batch_header* header, const record_view* record)

cdef extern from "native/validate.h" nogil:
    enum:
        OK
        CORRUPT_MESSAGE
        MESSAGE_TOO_LARGE
        INVALID_RECORD

    ctypedef enum finding_kind:
        MISSING_KEY
        WRONG_OFFSET
        TIMESTAMP_OUT_OF_RANGE
        TIMESTAMP_OVERFLOW

    ctypedef struct batch_rules:
        int64_t max_message_bytes
        int64_t now_ms
        int64_t before_max_ms
        int64_t after_max_ms
        int64_t decompressed_bytes_max
        bint is_log_append_time
        bint is_key_required
        bint is_zstd_allowed

    ctypedef struct record_finding:
        int32_t record
        finding_kind kind
        int64_t value

    ctypedef struct batch_verdict:
        batch_header header
        int code
        fault message
        int64_t max_timestamp
        int64_t faulty_record
        int64_t findings_total
        int findings_kept
        record_finding* findings

    void refuse(batch_verdict* verdict, int code, fault message)
    void judge_frame(const uint8_t* at, size_t count, const batch_rules* rules, batch_verdict* verdict)
    void judge_header(batch_verdict* verdict)
    void judge_records(
        const uint8_t* at, const uint8_t* end, const batch_rules* rules, batch_verdict* verdict)
