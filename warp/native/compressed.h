/* What compressed bytes say about themselves: where their frames end, and how much they can expand to at most.
 *
 * A walk reads frame and block headers only. Compressed bytes come from anybody and a hundred of them can announce, or
 * produce, gigabytes; so nothing is given to a library before it has been walked here. Nothing is read at or past
 * `at + count`. Functions return a fault, a constant string that says what is wrong, or NULL.
 */
#ifndef WARP_COMPRESSED_H
#define WARP_COMPRESSED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    CODEC_NONE = 0,
    CODEC_GZIP = 1,
    CODEC_SNAPPY = 2,
    CODEC_LZ4 = 3,
    CODEC_ZSTD = 4,
    /* More frames or members than this are no producer's work but an attempt to keep a core busy. */
    COMPRESSED_FRAMES_MAX = 1024,
    /* The Java library's snappy chunks hold 32 KiB; where there are many, at least this is asked for on average. */
    SNAPPY_CHUNK_AVERAGE_BYTES_MIN = 1024,
    SNAPPY_HEADER_BYTES = 16,
    SNAPPY_PREAMBLE_BYTES_MAX = 5,
    GZIP_RATIO_MAX = 1032, /* deflate's best */
    LZ4_RATIO_MAX = 255,
    ZSTD_BLOCK_BYTES_MAX = 128 * 1024,
    ZSTD_WINDOW_LOG_MAX = 27, /* what libzstd, and so Kafka, accepts by default */
};

#define LZ4_FRAME_MAGIC 0x184d2204u
#define ZSTD_FRAME_MAGIC 0xfd2fb528u
#define SKIPPABLE_FRAME_MAGIC 0x184d2a50u /* and the 15 that follow */
#define NOT_DECLARED INT64_C(-1)

typedef const char *compressed_fault;

typedef struct {
    size_t size;      /* bytes that the frame takes up */
    int64_t declared; /* bytes that it says it holds, or NOT_DECLARED */
    int64_t bound;    /* bytes that its blocks can produce at most */
    int64_t window;   /* of zstd, in bytes */
    bool is_skippable;
} compressed_frame;

static inline uint32_t little_endian_u32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static inline uint32_t big_endian_u32(const uint8_t *at)
{
    return __builtin_bswap32(little_endian_u32(at));
}

static inline int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t declared_size(uint64_t size)
{
    return size > (uint64_t)INT64_MAX ? INT64_MAX : (int64_t)size;
}

/* ---- snappy ---- */

/* No raw block starts like the Java library's stream: it would have to copy from before its own beginning. */
static bool has_snappy_header(const uint8_t *at, size_t count)
{
    return count >= SNAPPY_HEADER_BYTES && memcmp(at, "\x82SNAPPY\0", 8) == 0;
}

/* Reads a raw block's preamble and refuses a size that its bytes can't produce. */
static compressed_fault read_snappy_size(const uint8_t *at, size_t count, int64_t *declared)
{
    uint64_t value = 0;
    size_t index = 0;
    do {
        if (index == count || index == SNAPPY_PREAMBLE_BYTES_MAX)
            return "snappy preamble is malformed";
        value |= (uint64_t)(at[index] & 0x7f) << (7 * index);
    } while (at[index++] & 0x80);
    if (value >> 32)
        return "snappy preamble is malformed";
    /* The densest element is a copy of 64 bytes in three. */
    if (value > (uint64_t)(count - index) * 64 / 3)
        return "snappy preamble announces more than its bytes can hold";
    *declared = (int64_t)value;
    return NULL;
}

/* One step through the Java library's stream: either a header, then *chunk_size is 0, or the length of a chunk. */
static compressed_fault next_snappy_chunk(const uint8_t *at, size_t count, size_t *step, size_t *chunk_size)
{
    *chunk_size = 0;
    *step = SNAPPY_HEADER_BYTES;
    if (has_snappy_header(at, count))
        return big_endian_u32(at + 8) < 1 ? "snappy stream has an unknown version" : NULL;
    *step = 4;
    if (count < 4)
        return "snappy stream is cut short";
    *chunk_size = big_endian_u32(at);
    if (*chunk_size == 0)
        return "snappy chunk is empty";
    return *chunk_size > count - 4 ? "snappy chunk is longer than what is left" : NULL;
}

/* Checks the framing of the Java library's stream and adds up what its chunks declare. */
static compressed_fault walk_snappy_chunks(const uint8_t *at, size_t count, int64_t *total)
{
    int64_t chunks = 0, declared;
    size_t step, size;
    *total = 0;
    for (; count; chunks++) {
        compressed_fault wrong = next_snappy_chunk(at, count, &step, &size);
        if (wrong)
            return wrong;
        if (size) {
            if ((wrong = read_snappy_size(at + step, size, &declared)))
                return wrong;
            *total += declared;
        }
        at += step + size;
        count -= step + size;
    }
    if (chunks > COMPRESSED_FRAMES_MAX + *total / SNAPPY_CHUNK_AVERAGE_BYTES_MIN)
        return "snappy stream consists of too many tiny chunks";
    return NULL;
}

static compressed_fault walk_snappy(const uint8_t *at, size_t count, int64_t *total)
{
    return has_snappy_header(at, count) ? walk_snappy_chunks(at, count, total) : read_snappy_size(at, count, total);
}

/* ---- lz4 and zstd ---- */

static bool is_skippable(const uint8_t *at, size_t count)
{
    return count >= 4 && little_endian_u32(at) >> 4 == SKIPPABLE_FRAME_MAGIC >> 4;
}

static compressed_fault walk_skippable(const uint8_t *at, size_t count, compressed_frame *frame)
{
    if (count < 8 || little_endian_u32(at + 4) > count - 8)
        return "skippable frame is cut short";
    *frame = (compressed_frame){.size = 8 + (size_t)little_endian_u32(at + 4), .is_skippable = true};
    return NULL;
}

/* LZ4 frame format 1.6: magic, flags, block descriptor, [content size], [dictionary id], header checksum; blocks, each
 * a size whose highest bit means "stored", its bytes, [checksum]; a size of 0; [content checksum]. */
static compressed_fault walk_lz4(const uint8_t *at, size_t count, compressed_frame *frame)
{
    enum { VERSION = 0x40, BLOCK_CHECKSUM = 0x10, CONTENT_SIZE = 0x08, CONTENT_CHECKSUM = 0x04, DICTIONARY = 0x01 };
    static const char *const cut_short = "lz4 frame is cut short";
    if (count < 7)
        return cut_short;
    if (little_endian_u32(at) != LZ4_FRAME_MAGIC)
        return "no lz4 frame where one has to be";
    const uint8_t flags = at[4], descriptor = at[5];
    if ((flags & 0xc2) != VERSION || (descriptor & 0x8f) || descriptor >> 4 < 4)
        return "lz4 frame header is malformed";
    if (flags & DICTIONARY)
        return "lz4 frame asks for a dictionary";
    *frame = (compressed_frame){.declared = NOT_DECLARED};
    const int64_t block_bytes_max = INT64_C(1) << (8 + 2 * (descriptor >> 4));
    size_t position = 7;
    if (flags & CONTENT_SIZE) {
        if (count < 15)
            return cut_short;
        frame->declared = declared_size(little_endian_u32(at + 6) | (uint64_t)little_endian_u32(at + 10) << 32);
        position = 15;
    }
    for (;;) {
        if (count - position < 4)
            return cut_short;
        const uint32_t word = little_endian_u32(at + position);
        const size_t size = word & 0x7fffffffu, checksum = flags & BLOCK_CHECKSUM ? 4 : 0;
        position += 4;
        if (word == 0)
            break;
        if ((int64_t)size > block_bytes_max)
            return "lz4 block is larger than its frame allows";
        if (size + checksum > count - position)
            return cut_short;
        frame->bound += word >> 31 ? (int64_t)size : smaller(block_bytes_max, (int64_t)size * LZ4_RATIO_MAX);
        position += size + checksum;
    }
    if (flags & CONTENT_CHECKSUM) {
        if (count - position < 4)
            return cut_short;
        position += 4;
    }
    frame->size = position;
    return NULL;
}

/* Reads a zstd frame header up to the first block. */
static compressed_fault read_zstd_header(const uint8_t *at, size_t count, compressed_frame *frame, size_t *position)
{
    enum { SINGLE_SEGMENT = 0x20, RESERVED = 0x08, DICTIONARY = 0x03 };
    static const char *const cut_short = "zstd frame is cut short";
    if (count < 6)
        return cut_short;
    if (little_endian_u32(at) != ZSTD_FRAME_MAGIC)
        return "no zstd frame where one has to be";
    const uint8_t descriptor = at[4];
    if (descriptor & RESERVED)
        return "zstd frame header is malformed";
    if (descriptor & DICTIONARY)
        return "zstd frame asks for a dictionary";
    const bool is_single = descriptor & SINGLE_SEGMENT;
    const unsigned size_flag = descriptor >> 6;
    const size_t size_bytes = size_flag ? (size_t)1 << size_flag : is_single;
    uint64_t declared = 0;
    *frame = (compressed_frame){.declared = NOT_DECLARED};
    *position = is_single ? 5 : 6;
    if (count - *position < size_bytes)
        return cut_short;
    for (size_t index = 0; index < size_bytes; index++)
        declared |= (uint64_t)at[*position + index] << (8 * index);
    if (size_bytes)
        frame->declared = declared_size(declared + (size_bytes == 2 ? 256 : 0));
    *position += size_bytes;
    frame->window = is_single ? frame->declared : (int64_t)(8 + (at[5] & 7)) << (7 + (at[5] >> 3));
    if (!is_single && frame->window > INT64_C(1) << ZSTD_WINDOW_LOG_MAX)
        return "zstd frame asks for too large a window";
    return NULL;
}

/* RFC 8878, section 3.1.1: magic, descriptor, [window], [dictionary id], [content size]; blocks, each three bytes of
 * last, type and size, then its bytes; [checksum]. */
static compressed_fault walk_zstd(const uint8_t *at, size_t count, compressed_frame *frame)
{
    enum { RAW, RUN_LENGTH, COMPRESSED, UNKNOWN, CHECKSUM = 0x04 };
    enum { ZSTD_COMPRESSED_BYTES_MIN = 2 }; /* a header of literals, and how many sequences there are */
    static const char *const cut_short = "zstd frame is cut short";
    size_t position;
    compressed_fault wrong = read_zstd_header(at, count, frame, &position);
    if (wrong)
        return wrong;
    const int64_t block_bytes_max = smaller(frame->window, ZSTD_BLOCK_BYTES_MAX);
    uint32_t block;
    do {
        if (count - position < 3)
            return cut_short;
        block = at[position] | (uint32_t)at[position + 1] << 8 | (uint32_t)at[position + 2] << 16;
        position += 3;
        const int64_t size = block >> 3;
        const unsigned type = block >> 1 & 3;
        if (type == UNKNOWN)
            return "zstd block is of an unknown type";
        if (size > block_bytes_max)
            return "zstd block is larger than its frame allows";
        if (type == COMPRESSED && size < ZSTD_COMPRESSED_BYTES_MIN)
            return "zstd block is too short";
        const size_t stored = type == RUN_LENGTH ? 1 : (size_t)size;
        if (stored > count - position)
            return cut_short;
        frame->bound += type == COMPRESSED ? block_bytes_max : size;
        position += stored;
    } while (!(block & 1));
    if (at[4] & CHECKSUM) {
        if (count - position < 4)
            return cut_short;
        position += 4;
    }
    frame->size = position;
    return NULL;
}

static compressed_fault walk_frame(int codec, const uint8_t *at, size_t count, compressed_frame *frame)
{
    if (is_skippable(at, count))
        return walk_skippable(at, count, frame);
    return codec == CODEC_LZ4 ? walk_lz4(at, count, frame) : walk_zstd(at, count, frame);
}

/* What these bytes can expand to at most; INT64_MAX when they are malformed. Gzip says nothing trustworthy about
 * itself, so its answer is deflate's best ratio. */
static int64_t compressed_bound(int codec, const uint8_t *at, size_t count)
{
    int64_t total = 0;
    switch (codec) {
    case CODEC_NONE:
        return (int64_t)count;
    case CODEC_GZIP:
        return (int64_t)count * GZIP_RATIO_MAX;
    case CODEC_SNAPPY:
        return walk_snappy(at, count, &total) ? INT64_MAX : total;
    case CODEC_LZ4:
    case CODEC_ZSTD:
        while (count) {
            compressed_frame frame;
            if (walk_frame(codec, at, count, &frame))
                return INT64_MAX;
            total += frame.bound;
            at += frame.size;
            count -= frame.size;
        }
        return total;
    default:
        return INT64_MAX;
    }
}

#endif
