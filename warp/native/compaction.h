/* Compaction by key: the map of the newest offset per key, and what is kept of a batch.
 *
 * The map has a fixed number of slots and never grows: 128 bits of a keyed hash (SipHash-2-4) stand for a key, so that
 * the memory does not depend on how long keys are, and nobody who does not know the secret can make two keys meet.
 * Two of a billion keys meet by chance with a probability of 10^-21.
 *
 * The rules are those of Kafka's cleaner: of each key the newest record is kept; a record without key is dropped; a
 * record without value, which marks its key as deleted, is dropped once the delete horizon in its batch's header has
 * passed (KIP-534). Nothing is judged at or above `until_offset`.
 */
#ifndef WARP_COMPACTION_H
#define WARP_COMPACTION_H

#include <stdlib.h>

#include "records.h"

enum {
    SECRET_BYTES = 16,
    KEY_SLOT_BYTES = 24,
    /* What a record can grow by when its batch gets another base timestamp: its timestamp, and its own length. */
    RECORD_GROWTH_MAX = VARLONG_BYTES_MAX + VARINT_BYTES_MAX,
};

/* ---- SipHash-2-4 with 128 bits of output (Aumasson and Bernstein, 2012) ---- */

typedef struct {
    uint64_t low, high;
} key_digest;

static inline uint64_t load_little_u64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value; /* setup.py refuses to build on big-endian machines */
}

static inline uint64_t rotated(uint64_t value, int bits)
{
    return value << bits | value >> (64 - bits);
}

static inline void sip_rounds(uint64_t v[4], int count)
{
    while (count--) {
        v[0] += v[1];
        v[2] += v[3];
        v[1] = rotated(v[1], 13) ^ v[0];
        v[3] = rotated(v[3], 16) ^ v[2];
        v[0] = rotated(v[0], 32);
        v[2] += v[1];
        v[0] += v[3];
        v[1] = rotated(v[1], 17) ^ v[2];
        v[3] = rotated(v[3], 21) ^ v[0];
        v[2] = rotated(v[2], 32);
    }
}

static inline key_digest digest_key(const uint64_t secret[2], const uint8_t *at, size_t count)
{
    uint64_t v[4] = {
        secret[0] ^ UINT64_C(0x736f6d6570736575),
        secret[1] ^ UINT64_C(0x646f72616e646f6d) ^ 0xee,
        secret[0] ^ UINT64_C(0x6c7967656e657261),
        secret[1] ^ UINT64_C(0x7465646279746573),
    };
    uint64_t last = (uint64_t)count << 56;
    key_digest digest;
    for (; count >= 8; at += 8, count -= 8) {
        const uint64_t word = load_little_u64(at);
        v[3] ^= word;
        sip_rounds(v, 2);
        v[0] ^= word;
    }
    for (size_t index = 0; index < count; index++)
        last |= (uint64_t)at[index] << (8 * index);
    v[3] ^= last;
    sip_rounds(v, 2);
    v[0] ^= last;
    v[2] ^= 0xee;
    sip_rounds(v, 4);
    digest.low = v[0] ^ v[1] ^ v[2] ^ v[3];
    v[1] ^= 0xdd;
    sip_rounds(v, 4);
    digest.high = v[0] ^ v[1] ^ v[2] ^ v[3];
    return digest;
}

/* ---- the map ---- */

typedef struct {
    key_digest digest;
    int64_t end; /* the newest offset of the key, plus 1; 0 where the slot is free */
} key_slot;

typedef struct {
    key_slot *slots;
    size_t slot_count; /* of those in use; the memory may hold more */
    size_t used;
    size_t used_max; /* below slot_count, so every search ends at a free slot */
    uint64_t secret[2];
} key_map;

/* The slot that holds the digest, or the free one where it belongs. */
static inline key_slot *find_slot(const key_map *map, key_digest digest)
{
    size_t index = (size_t)(((unsigned __int128)digest.low * map->slot_count) >> 64);
    for (;;) {
        key_slot *slot = &map->slots[index];
        if (!slot->end || (slot->digest.high == digest.high && slot->digest.low == digest.low))
            return slot;
        if (++index == map->slot_count)
            index = 0;
    }
}

/* The newest offset of the key; -1 when it is not in the map. */
static inline int64_t newest_offset(const key_map *map, const uint8_t *key, size_t count)
{
    return find_slot(map, digest_key(map->secret, key, count))->end - 1;
}

/* Remembers an offset of the key if it is the newest. False: the key is new, and the map is full. */
static inline bool note_key(key_map *map, const uint8_t *key, size_t count, int64_t offset)
{
    const key_digest digest = digest_key(map->secret, key, count);
    key_slot *slot = find_slot(map, digest);
    if (!slot->end) {
        if (map->used == map->used_max)
            return false;
        map->used++;
        slot->digest = digest;
    }
    if (offset >= slot->end)
        slot->end = offset + 1;
    return true;
}

/* ---- reading the records of a batch ---- */

static inline int64_t next_batch_offset(const batch_header *header)
{
    return header->base_offset + header->last_offset_delta + 1;
}

/* Reads one record and checks that its offset lies in its batch, above the record before. */
static inline fault read_kept_record(
    const uint8_t **cursor, const uint8_t *end, const batch_header *header, int64_t *last_delta, record_view *record)
{
    fault wrong = read_record(cursor, end, record);
    if (wrong)
        return wrong;
    if (record->offset_delta <= *last_delta || record->offset_delta > header->last_offset_delta)
        return "record lies outside the offsets of its batch, or out of order";
    *last_delta = record->offset_delta;
    return NULL;
}

static inline fault check_record_count(const batch_header *header, const uint8_t *at, const uint8_t *end)
{
    return header->record_count > (end - at) / RECORD_BYTES_MIN ? "batch has fewer bytes than records" : NULL;
}

/* Notes the keys of the records from `from_offset` on and below `until_offset`. Where the map is full before the end,
 * *stopped is the offset of the first record that was not noted; otherwise it is left alone. */
static inline fault note_records(
    key_map *map, const batch_header *header, const uint8_t *at, const uint8_t *end, int64_t from_offset,
    int64_t until_offset, int64_t *stopped)
{
    int64_t last_delta = -1;
    fault wrong = check_record_count(header, at, end);
    if (wrong)
        return wrong;
    for (int32_t index = 0; index < header->record_count; index++) {
        record_view record;
        if ((wrong = read_kept_record(&at, end, header, &last_delta, &record)))
            return wrong;
        const int64_t offset = header->base_offset + record.offset_delta;
        if (offset < from_offset || record.key_bytes < 0)
            continue;
        if (offset >= until_offset)
            return NULL;
        if (!note_key(map, record.key, (size_t)record.key_bytes, offset)) {
            *stopped = offset;
            return NULL;
        }
    }
    return at == end ? NULL : "bytes are left after the last record";
}

/* ---- judging the records of a batch ---- */

typedef struct {
    int64_t until_offset; /* what lies here and above is kept as it is */
    int64_t now_ms;
    int64_t horizon_ms; /* of tombstones that have none yet; NO_TIMESTAMP: they get none */
} keep_rules;

typedef struct {
    int32_t records; /* that are kept */
    int32_t tombstones; /* among them */
    int64_t min_timestamp, max_timestamp; /* of those that are kept; NO_TIMESTAMP without any */
    bool gets_horizon;
} keep_verdict;

static inline bool has_passed(const batch_header *header, const keep_rules *rules)
{
    return (header->attributes & DELETE_HORIZON_BIT) && header->base_timestamp <= rules->now_ms;
}

static inline bool is_kept(
    const key_map *map, const keep_rules *rules, const record_view *record, int64_t offset, bool has_horizon_passed)
{
    if (offset >= rules->until_offset)
        return true;
    if (record->key_bytes < 0 || (record->value_bytes < 0 && has_horizon_passed))
        return false;
    return offset >= newest_offset(map, record->key, (size_t)record->key_bytes);
}

/* Decides about each record of a batch: kept[i] is 1 where record i is kept. `kept` has room for all of them. */
static inline fault judge_kept(
    const key_map *map, const keep_rules *rules, const batch_header *header, const uint8_t *at, const uint8_t *end,
    uint8_t *kept, keep_verdict *verdict)
{
    const bool has_horizon_passed = has_passed(header, rules);
    int64_t last_delta = -1;
    *verdict = (keep_verdict){.min_timestamp = NO_TIMESTAMP, .max_timestamp = NO_TIMESTAMP};
    for (int32_t index = 0; index < header->record_count; index++) {
        record_view record;
        fault wrong = read_kept_record(&at, end, header, &last_delta, &record);
        if (wrong)
            return wrong;
        kept[index] = is_kept(map, rules, &record, header->base_offset + record.offset_delta, has_horizon_passed);
        if (!kept[index])
            continue;
        const int64_t timestamp = record_timestamp(header, &record);
        if (!verdict->records++ || timestamp < verdict->min_timestamp)
            verdict->min_timestamp = timestamp;
        if (timestamp > verdict->max_timestamp)
            verdict->max_timestamp = timestamp;
        verdict->tombstones += record.value_bytes < 0;
    }
    verdict->gets_horizon = verdict->tombstones && rules->horizon_ms != NO_TIMESTAMP
        && !(header->attributes & DELETE_HORIZON_BIT) && next_batch_offset(header) <= rules->until_offset;
    return at == end ? NULL : "bytes are left after the last record";
}

/* ---- writing what is kept ---- */

static const char SHORT_OF_MEMORY[] = "there is no memory";

/* Bytes that grow. Freed by their owner. */
typedef struct {
    uint8_t *bytes;
    size_t count, capacity;
} growing;

/* Makes room for `more` bytes. False: there is no memory, and nothing has changed. */
static inline bool make_room(growing *buffer, size_t more)
{
    if (more <= buffer->capacity - buffer->count)
        return true;
    const size_t by_half = buffer->capacity + buffer->capacity / 2;
    const size_t needed = buffer->count + more;
    const size_t capacity = by_half > needed ? by_half : needed;
    uint8_t *bytes = realloc(buffer->bytes, capacity);
    if (!bytes)
        return false;
    buffer->bytes = bytes;
    buffer->capacity = capacity;
    return true;
}

/* The header of a batch without records, from an offset up to another, or as far as one can reach. */
static inline batch_header empty_batch(int64_t base_offset, int64_t until_offset, int64_t timestamp)
{
    const int64_t delta = until_offset - 1 - base_offset;
    return (batch_header){
        .base_offset = base_offset,
        .batch_length = BATCH_LENGTH_MIN,
        .magic = 2,
        .last_offset_delta = delta < INT32_MAX ? (int32_t)delta : INT32_MAX,
        .base_timestamp = timestamp,
        .max_timestamp = timestamp,
        .producer_id = -1,
        .producer_epoch = -1,
        .base_sequence = -1,
    };
}

/* Writes the records that are kept, which judge_kept has read before; with `shift` taken from their timestamps' deltas.
 * There has to be room for what stands from `at` to `end`, and RECORD_GROWTH_MAX more for each record. Returns how many
 * bytes it wrote. */
static inline size_t write_kept(
    const batch_header *header, const uint8_t *at, const uint8_t *end, const uint8_t *kept, int64_t shift, uint8_t *target)
{
    uint8_t *to = target;
    for (int32_t index = 0; index < header->record_count; index++) {
        const uint8_t *start = at;
        int64_t delta;
        uint8_t head[VARLONG_BYTES_MAX];
        int32_t length = 0;
        const uint8_t *body = load_varint(at, end, &length);
        at = body + length;
        if (!kept[index])
            continue;
        if (!shift) {
            memcpy(to, start, (size_t)(at - start));
            to += at - start;
            continue;
        }
        const uint8_t *rest = read_zigzag64(body + 1, at, &delta); /* after the attributes */
        const size_t head_bytes = store_varint(head, (int64_t)((uint64_t)delta - (uint64_t)shift));
        to += store_varint(to, (int64_t)(1 + head_bytes + (size_t)(at - rest)));
        *to++ = *body;
        memcpy(to, head, head_bytes);
        memcpy(to + head_bytes, rest, (size_t)(at - rest));
        to += head_bytes + (size_t)(at - rest);
    }
    return (size_t)(to - target);
}

#endif
