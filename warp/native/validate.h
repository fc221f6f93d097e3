/* What a broker asks of a batch that a producer sends, in the order in which Kafka asks it.
 *
 * Three steps, because the CRC and the decompression between them belong to others: judge_frame, then the CRC over
 * everything from BATCH_CRC_START on; judge_header; then, decompressed where need be, judge_records. A step that finds
 * something wrong sets the verdict's error code, and the steps after it must not run.
 */
#ifndef WARP_VALIDATE_H
#define WARP_VALIDATE_H

#include "records.h"

enum {
    OK = 0,
    CORRUPT_MESSAGE = 2,
    MESSAGE_TOO_LARGE = 10,
    INVALID_TIMESTAMP = 32,
    UNSUPPORTED_COMPRESSION_TYPE = 76,
    INVALID_RECORD = 87,
    CODEC_ZSTD = 4,
    RECORD_FINDINGS_MAX = 64,
};

typedef struct {
    int64_t max_message_bytes;
    int64_t now_ms;
    int64_t before_max_ms;
    int64_t after_max_ms;
    int64_t decompressed_bytes_max;
    bool is_log_append_time;
    bool is_key_required;
    bool is_zstd_allowed;
} batch_rules;

typedef enum { MISSING_KEY, WRONG_OFFSET, TIMESTAMP_OUT_OF_RANGE, TIMESTAMP_OVERFLOW } finding_kind;

typedef struct {
    int32_t record;
    finding_kind kind;
    int64_t value;
} record_finding;

typedef struct {
    batch_header header;
    int code;
    fault message;
    int64_t max_timestamp; /* of the records; NO_TIMESTAMP when none has one */
    int64_t faulty_record; /* the record at which reading had to stop, or -1 */
    int64_t findings_total;
    int findings_kept;
    record_finding findings[RECORD_FINDINGS_MAX];
} batch_verdict;

static inline void refuse(batch_verdict *verdict, int code, fault message)
{
    verdict->code = code;
    verdict->message = message;
}

/* What Produce checks before anything else: that there is exactly one batch, of magic 2, under an allowed codec. */
static inline void judge_frame(const uint8_t *at, size_t count, const batch_rules *rules, batch_verdict *verdict)
{
    verdict->code = OK;
    verdict->message = NULL;
    verdict->max_timestamp = NO_TIMESTAMP;
    verdict->faulty_record = -1;
    verdict->findings_total = 0;
    verdict->findings_kept = 0;
    if (count == 0)
        return refuse(verdict, INVALID_RECORD, "there is no batch");
    if (count > BATCH_MAGIC_AT && at[BATCH_MAGIC_AT] != 2)
        return refuse(verdict, INVALID_RECORD, "batch has a magic other than 2");
    if (count < BATCH_HEADER_BYTES)
        return refuse(verdict, CORRUPT_MESSAGE, "batch is shorter than its header");
    batch_header *header = &verdict->header;
    load_header(at, header);
    if (!rules->is_zstd_allowed && (header->attributes & CODEC_MASK) == CODEC_ZSTD)
        return refuse(verdict, UNSUPPORTED_COMPRESSION_TYPE, "this version of Produce can't carry zstd");
    bool is_length_sane = header->batch_length >= BATCH_LENGTH_MIN;
    if (is_length_sane && batch_bytes(header) < count)
        return refuse(verdict, INVALID_RECORD, "there is more than one batch");
    if (header->base_offset != 0)
        return refuse(verdict, INVALID_RECORD, "batch has a base offset other than 0");
    if ((uint64_t)count > (uint64_t)rules->max_message_bytes)
        return refuse(verdict, MESSAGE_TOO_LARGE, "batch is larger than max.message.bytes");
    if (!is_length_sane || batch_bytes(header) != count)
        refuse(verdict, CORRUPT_MESSAGE, "batch length does not agree with the bytes that came");
}

static inline void judge_header(batch_verdict *verdict)
{
    const batch_header *header = &verdict->header;
    if (header->record_count <= 0 || header->last_offset_delta != header->record_count - 1)
        return refuse(verdict, INVALID_RECORD, "record count does not agree with the last offset delta");
    if (header->attributes & CONTROL_BIT)
        return refuse(verdict, INVALID_RECORD, "clients can't write control batches");
    if (header->attributes & DELETE_HORIZON_BIT)
        return refuse(verdict, INVALID_RECORD, "clients can't set a delete horizon");
    if (header->producer_id < -1)
        return refuse(verdict, INVALID_RECORD, "batch has a malformed producer id");
    if (header->producer_id >= 0 && (header->base_sequence < 0 || header->producer_epoch < 0))
        return refuse(verdict, INVALID_RECORD, "batch of an idempotent producer lacks its epoch or sequence");
    if ((header->attributes & TRANSACTIONAL_BIT) && header->producer_id < 0)
        return refuse(verdict, INVALID_RECORD, "transactional batch lacks a producer id");
    if (header->attributes & LOG_APPEND_TIME_BIT)
        return refuse(verdict, INVALID_TIMESTAMP, "producers can't set the timestamp type to log append time");
    if ((header->attributes & CODEC_MASK) > CODEC_ZSTD)
        refuse(verdict, UNSUPPORTED_COMPRESSION_TYPE, "batch has an unknown codec");
}

__attribute__((noinline, cold, unused)) static void note(batch_verdict *verdict, int32_t record, finding_kind kind, int64_t value)
{
    bool is_about_time = kind == TIMESTAMP_OUT_OF_RANGE || kind == TIMESTAMP_OVERFLOW;
    if (verdict->findings_total++ < RECORD_FINDINGS_MAX)
        verdict->findings[verdict->findings_kept++] = (record_finding){record, kind, value};
    /* One bad timestamp makes it an INVALID_TIMESTAMP, whatever else is wrong. */
    if (is_about_time || verdict->code == OK)
        verdict->code = is_about_time ? INVALID_TIMESTAMP : INVALID_RECORD;
}

/* Reads the records that stand from `at` to `end`, notes what is wrong with each, and finds the largest timestamp. */
static inline void judge_records(const uint8_t *at, const uint8_t *end, const batch_rules *rules, batch_verdict *verdict)
{
    const batch_header *header = &verdict->header;
    const int64_t earliest = saturating_subtract(rules->now_ms, rules->before_max_ms);
    const int64_t latest = saturating_add(rules->now_ms, rules->after_max_ms);
    int64_t max_timestamp = NO_TIMESTAMP;
    for (int32_t index = 0; index < header->record_count; index++) {
        record_view record;
        int64_t timestamp;
        fault wrong = read_record(&at, end, &record);
        if (wrong) {
            verdict->faulty_record = index;
            return refuse(verdict, INVALID_RECORD, wrong);
        }
        if (record.offset_delta != index)
            note(verdict, index, WRONG_OFFSET, record.offset_delta);
        if (rules->is_key_required && record.key_bytes < 0)
            note(verdict, index, MISSING_KEY, 0);
        if (rules->is_log_append_time)
            continue;
        if (__builtin_add_overflow(header->base_timestamp, record.timestamp_delta, &timestamp)) {
            note(verdict, index, TIMESTAMP_OVERFLOW, record.timestamp_delta);
            continue;
        }
        if ((timestamp < earliest || timestamp > latest) && timestamp != NO_TIMESTAMP)
            note(verdict, index, TIMESTAMP_OUT_OF_RANGE, timestamp);
        if (timestamp > max_timestamp)
            max_timestamp = timestamp;
    }
    verdict->max_timestamp = max_timestamp;
    if (at != end) /* whatever else is wrong, as where a record can't be read */
        refuse(verdict, INVALID_RECORD, "bytes are left after the last record");
    else if (verdict->findings_total)
        verdict->message = "one or more records have been rejected";
}

#endif
