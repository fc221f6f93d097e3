/* Record batches of magic 2: reading the header, reading and judging the records inside, writing varints.
 *
 * The wire layout (Kafka protocol, "Record Batch"), big-endian:
 *
 *    0 base offset       8 | 21 attributes           2 | 51 producer epoch  2
 *    8 batch length      4 | 23 last offset delta    4 | 53 base sequence   4
 *   12 leader epoch      4 | 27 base timestamp       8 | 57 record count    4
 *   16 magic             1 | 35 max timestamp        8 | 61 records
 *   17 CRC-32C           4 | 43 producer id          8 |
 *
 * The batch length counts what follows it; the CRC covers everything from the attributes on.
 *
 * A record: varint length, int8 attributes, varlong timestamp delta, varint offset delta, varint key length and key,
 * varint value length and value, varint header count, and for each header varint key length and key, varint value
 * length and value. All varints are zigzag; -1 as a length means null, which a header's key can't be.
 *
 * Nothing here reads at or past `end`, and no length is used before it is compared with the bytes that are left.
 * Functions that can fail return a fault, a constant string that says what is wrong, or NULL.
 */
#ifndef WARP_RECORDS_H
#define WARP_RECORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    BATCH_PREFIX_BYTES = 12, /* what the batch length does not count */
    BATCH_HEADER_BYTES = 61,
    BATCH_LENGTH_MIN = BATCH_HEADER_BYTES - BATCH_PREFIX_BYTES,
    BATCH_CRC_START = 21,
    BATCH_MAGIC_AT = 16,
    BATCH_ATTRIBUTES_AT = 21,
    RECORD_BYTES_MIN = 7,
    HEADER_BYTES_MIN = 2,
    CODEC_MASK = 0x07,
    LOG_APPEND_TIME_BIT = 0x08,
    TRANSACTIONAL_BIT = 0x10,
    CONTROL_BIT = 0x20,
    DELETE_HORIZON_BIT = 0x40,
    VARINT_BYTES_MAX = 5,
    VARLONG_BYTES_MAX = 10,
};

#define NO_TIMESTAMP INT64_C(-1)

typedef const char *fault;

/* ---- integers ---- */

static inline uint32_t load_u32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return __builtin_bswap32(value);
}

static inline uint64_t load_u64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return __builtin_bswap64(value);
}

static inline uint16_t load_u16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static inline void store_u16(uint8_t *at, uint16_t value)
{
    value = __builtin_bswap16(value);
    memcpy(at, &value, sizeof value);
}

static inline void store_u32(uint8_t *at, uint32_t value)
{
    value = __builtin_bswap32(value);
    memcpy(at, &value, sizeof value);
}

static inline void store_u64(uint8_t *at, uint64_t value)
{
    value = __builtin_bswap64(value);
    memcpy(at, &value, sizeof value);
}

/* The sum as Java's long gives it: it wraps. */
static inline int64_t wrapping_add(int64_t a, int64_t b)
{
    return (int64_t)((uint64_t)a + (uint64_t)b);
}

static inline int64_t saturating_add(int64_t a, int64_t b)
{
    int64_t sum;
    if (__builtin_add_overflow(a, b, &sum))
        return b < 0 ? INT64_MIN : INT64_MAX;
    return sum;
}

static inline int64_t saturating_subtract(int64_t a, int64_t b)
{
    int64_t difference;
    if (__builtin_sub_overflow(a, b, &difference))
        return b < 0 ? INT64_MAX : INT64_MIN;
    return difference;
}

/* ---- varints ---- */

/* Reads up to ten bytes of LEB128 whose value has at most `bits` bits. Longer forms than needed are allowed, as in
 * Kafka. Returns where the next field starts, or NULL. */
__attribute__((noinline)) static const uint8_t *read_long_varint(const uint8_t *at, const uint8_t *end, int bits, uint64_t *value)
{
    uint64_t sum = 0;
    for (int shift = 0; shift < bits; shift += 7) {
        if (at == end)
            return NULL;
        uint64_t part = *at & 0x7f;
        if (shift + 7 > bits && part >> (bits - shift))
            return NULL;
        sum |= part << shift;
        if (*at++ < 0x80) {
            *value = sum;
            return at;
        }
    }
    return NULL;
}

static inline int64_t unzigzag(uint64_t raw)
{
    return (int64_t)(raw >> 1) ^ -(int64_t)(raw & 1);
}

/* Reads LEB128. The usual sizes of up to three bytes stand here, in a form that is inlined; the rest is a call. */
static inline const uint8_t *read_unsigned(const uint8_t *at, const uint8_t *end, int bits, uint64_t *value)
{
    if (at == end)
        return NULL;
    if (at[0] < 0x80) {
        *value = at[0];
        return at + 1;
    }
    if (end - at >= 3) {
        const uint64_t two = (at[0] & 0x7fu) | (uint64_t)at[1] << 7;
        if (at[1] < 0x80) {
            *value = two;
            return at + 2;
        }
        if (at[2] < 0x80) {
            *value = (two & 0x3fffu) | (uint64_t)at[2] << 14;
            return at + 3;
        }
    }
    uint64_t longer = 0; /* of its own, so that *value can stay in a register */
    at = read_long_varint(at, end, bits, &longer);
    *value = longer;
    return at;
}

static inline const uint8_t *read_zigzag64(const uint8_t *at, const uint8_t *end, int64_t *value)
{
    uint64_t raw = 0;
    at = read_unsigned(at, end, 64, &raw);
    *value = unzigzag(raw);
    return at;
}

static inline const uint8_t *load_varint(const uint8_t *at, const uint8_t *end, int32_t *value)
{
    uint64_t raw = 0;
    at = read_unsigned(at, end, 32, &raw);
    *value = (int32_t)unzigzag(raw);
    return at;
}

static inline uint64_t zigzag(int64_t value)
{
    return ((uint64_t)value << 1) ^ (uint64_t)(value >> 63);
}

/* Writes at most VARLONG_BYTES_MAX bytes; returns how many. */
static inline size_t store_varint(uint8_t *at, int64_t value)
{
    uint64_t rest = zigzag(value);
    size_t count = 0;
    while (rest >= 0x80) {
        at[count++] = (uint8_t)(rest | 0x80);
        rest >>= 7;
    }
    at[count++] = (uint8_t)rest;
    return count;
}

/* ---- the header of a batch ---- */

typedef struct {
    int64_t base_offset;
    int32_t batch_length;
    int32_t leader_epoch;
    int8_t magic;
    uint32_t crc;
    int16_t attributes;
    int32_t last_offset_delta;
    int64_t base_timestamp;
    int64_t max_timestamp;
    int64_t producer_id;
    int16_t producer_epoch;
    int32_t base_sequence;
    int32_t record_count;
} batch_header;

/* The caller has seen to it that BATCH_HEADER_BYTES are there. */
static inline void load_header(const uint8_t *at, batch_header *header)
{
    header->base_offset = (int64_t)load_u64(at);
    header->batch_length = (int32_t)load_u32(at + 8);
    header->leader_epoch = (int32_t)load_u32(at + 12);
    header->magic = (int8_t)at[BATCH_MAGIC_AT];
    header->crc = load_u32(at + 17);
    header->attributes = (int16_t)load_u16(at + BATCH_ATTRIBUTES_AT);
    header->last_offset_delta = (int32_t)load_u32(at + 23);
    header->base_timestamp = (int64_t)load_u64(at + 27);
    header->max_timestamp = (int64_t)load_u64(at + 35);
    header->producer_id = (int64_t)load_u64(at + 43);
    header->producer_epoch = (int16_t)load_u16(at + 51);
    header->base_sequence = (int32_t)load_u32(at + 53);
    header->record_count = (int32_t)load_u32(at + 57);
}

static inline void store_header(uint8_t *at, const batch_header *header)
{
    store_u64(at, (uint64_t)header->base_offset);
    store_u32(at + 8, (uint32_t)header->batch_length);
    store_u32(at + 12, (uint32_t)header->leader_epoch);
    at[BATCH_MAGIC_AT] = (uint8_t)header->magic;
    store_u32(at + 17, header->crc);
    store_u16(at + BATCH_ATTRIBUTES_AT, (uint16_t)header->attributes);
    store_u32(at + 23, (uint32_t)header->last_offset_delta);
    store_u64(at + 27, (uint64_t)header->base_timestamp);
    store_u64(at + 35, (uint64_t)header->max_timestamp);
    store_u64(at + 43, (uint64_t)header->producer_id);
    store_u16(at + 51, (uint16_t)header->producer_epoch);
    store_u32(at + 53, (uint32_t)header->base_sequence);
    store_u32(at + 57, (uint32_t)header->record_count);
}

/* Reads a header and checks what every batch, from whomever, has to satisfy. The batch may be cut short after it. */
static fault read_header(const uint8_t *at, size_t count, batch_header *header)
{
    if (count < BATCH_HEADER_BYTES)
        return "batch is shorter than its header";
    load_header(at, header);
    if (header->magic != 2)
        return "batch has a magic other than 2";
    if (header->batch_length < BATCH_LENGTH_MIN)
        return "batch length is too small";
    if (header->last_offset_delta < 0 || header->record_count < 0)
        return "batch has a negative count";
    if (header->base_offset < 0 || header->base_offset > INT64_MAX - header->last_offset_delta)
        return "batch has offsets out of range";
    return NULL;
}

static inline size_t batch_bytes(const batch_header *header)
{
    return BATCH_PREFIX_BYTES + (size_t)header->batch_length;
}

/* As read_header, and the whole batch has to be there. */
static fault read_batch(const uint8_t *at, size_t count, batch_header *header)
{
    fault wrong = read_header(at, count, header);
    if (!wrong && batch_bytes(header) > count)
        return "batch is cut short";
    return wrong;
}

/* ---- records ---- */

typedef struct {
    int64_t timestamp_delta;
    int32_t offset_delta;
    int32_t key_bytes; /* -1: null */
    int32_t value_bytes;
    int32_t header_count;
    const uint8_t *key, *value, *headers;
} record_view;

/* Reads a length of at least `length_min` and steps over what it counts. */
static inline const uint8_t *read_bytes(
    const uint8_t *at, const uint8_t *end, int32_t length_min, const uint8_t **bytes, int32_t *length)
{
    uint64_t raw = 0;
    at = read_unsigned(at, end, 32, &raw);
    if (!at)
        return NULL;
    *bytes = at;
    if (raw & 1) { /* negative: only -1 is allowed, and that not everywhere */
        *length = -1;
        return raw == 1 && length_min < 0 ? at : NULL;
    }
    *length = (int32_t)(raw >> 1);
    return *length <= end - at ? at + *length : NULL;
}

static const uint8_t *skip_headers(const uint8_t *at, const uint8_t *end, int32_t count)
{
    const uint8_t *bytes;
    int32_t length;
    if (count < 0 || count > (end - at) / HEADER_BYTES_MIN)
        return NULL;
    while (at && count--) {
        at = read_bytes(at, end, 0, &bytes, &length);
        if (at)
            at = read_bytes(at, end, -1, &bytes, &length);
    }
    return at;
}

/* Reads a varint of up to three bytes, all of which are there. NULL: it is longer. */
static inline const uint8_t *read_short(const uint8_t *at, uint64_t *value)
{
    if (at[0] < 0x80) {
        *value = at[0];
        return at + 1;
    }
    const uint64_t two = (at[0] & 0x7fu) | (uint64_t)at[1] << 7;
    if (at[1] < 0x80) {
        *value = two;
        return at + 2;
    }
    *value = (two & 0x3fffu) | (uint64_t)at[2] << 14;
    return at[2] < 0x80 ? at + 3 : NULL;
}

/* The body of a record as nearly all are: short varints, a value, no headers. With one check for several fields it
 * takes five sixths of the time of read_any_record, to which everything unusual or wrong is left by returning false. */
static inline bool read_usual_record(const uint8_t *at, const uint8_t *end, record_view *record)
{
    uint64_t timestamp, offset, key, value;
    if (end - at < 10) /* the attributes, and three bytes for each of the first three varints */
        return false;
    if (!(at = read_short(at + 1, &timestamp)) || !(at = read_short(at, &offset)) || !(at = read_short(at, &key)))
        return false;
    record->timestamp_delta = unzigzag(timestamp);
    record->offset_delta = (int32_t)unzigzag(offset);
    record->key = at;
    record->key_bytes = -1;
    if (!(key & 1)) {
        record->key_bytes = (int32_t)(key >> 1);
        if (record->key_bytes > end - at)
            return false;
        at += record->key_bytes;
    } else if (key != 1) {
        return false;
    }
    if (end - at < 4) /* three bytes for the length of the value, one for the count of headers */
        return false;
    if (!(at = read_short(at, &value)) || (value & 1))
        return false;
    record->value = at;
    record->value_bytes = (int32_t)(value >> 1);
    record->headers = end;
    record->header_count = 0;
    return record->value_bytes == end - at - 1 && end[-1] == 0;
}

/* The body of a record, from its attributes to its end. */
static fault read_any_record(const uint8_t *at, const uint8_t *end, record_view *record)
{
    if (at == end)
        return "record is empty";
    at++; /* the attributes, of which none is defined */
    if (!(at = read_zigzag64(at, end, &record->timestamp_delta)))
        return "record has a malformed timestamp";
    if (!(at = load_varint(at, end, &record->offset_delta)))
        return "record has a malformed offset";
    if (!(at = read_bytes(at, end, -1, &record->key, &record->key_bytes)))
        return "record has a malformed key";
    if (!(at = read_bytes(at, end, -1, &record->value, &record->value_bytes)))
        return "record has a malformed value";
    if (!(at = load_varint(at, end, &record->header_count)))
        return "record has a malformed header count";
    record->headers = at;
    if (record->header_count && !(at = skip_headers(at, end, record->header_count)))
        return "record has malformed headers";
    return at == end ? NULL : "record does not end where its length says";
}

/* Reads the record at *cursor, its headers included, and moves on to the next one. */
static inline fault read_record(const uint8_t **cursor, const uint8_t *end, record_view *record)
{
    int32_t length;
    const uint8_t *at = load_varint(*cursor, end, &length);
    if (!at)
        return "record length is malformed or missing";
    if (length < 0 || length > end - at)
        return "record is longer than what is left";
    end = at + length;
    *cursor = end;
    return read_usual_record(at, end, record) ? NULL : read_any_record(at, end, record);
}

static inline int64_t record_timestamp(const batch_header *header, const record_view *record)
{
    if (header->attributes & LOG_APPEND_TIME_BIT)
        return header->max_timestamp;
    return wrapping_add(header->base_timestamp, record->timestamp_delta);
}

#endif
