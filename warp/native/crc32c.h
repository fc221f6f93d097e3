/* CRC-32C (Castagnoli; RFC 3720 appendix B.4) with the best instructions that the CPU has, chosen at run time.
 *
 * Every function named crc32c_<implementation> takes and returns the raw shift register, that is the CRC without the
 * inversion before and after; crc32c_invert_and_run does the inversions. The functions that need newer instructions
 * are compiled for them by a target attribute, so the file needs no compiler flag and runs on any CPU of its
 * architecture. Tables and constants are made by crc32c_prepare, which has to run once before anything else.
 *
 * The mathematics, in the reflected bit order that the CRC uses: a 32-bit value r stands for the polynomial
 * sum(r[i] * x^(31-i)). Appending n zero bytes to a message multiplies its register by x^(8n) mod P. A carry-less
 * product of two reflected values comes out one bit short, which is why exponents below are one less than one expects.
 */
#ifndef WARP_CRC32C_H
#define WARP_CRC32C_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_acle.h>
#include <arm_neon.h>
#include <sys/auxv.h>
#ifndef HWCAP_PMULL
#define HWCAP_PMULL (1 << 4)
#endif
#ifndef HWCAP_CRC32
#define HWCAP_CRC32 (1 << 7)
#endif
#endif

#define CRC32C_POLYNOMIAL 0x82f63b78u /* reflected */

/* Three streams are computed side by side, because the CRC instruction takes three cycles but one can start in each.
 * A stream is at most this many 8-byte words long. */
#define CRC32C_STREAM_WORDS_MAX 256

/* Below this many bytes the start and end of folding cost more than it gains. */
#define CRC32C_FOLD_BYTES_MIN 512

typedef uint32_t (*crc32c_function)(uint32_t, const uint8_t *, size_t);

typedef struct {
    const char *name;
    crc32c_function run;
} crc32c_implementation;

static uint32_t crc32c_table[8][256];
/* crc32c_shift[n] multiplies by x^(64n) when a register is multiplied by it and the product is run through the CRC
 * instruction: x^(64n - 33). */
static uint32_t crc32c_shift[2 * CRC32C_STREAM_WORDS_MAX + 1];
/* Folding a 128-bit lane forward by n bytes: x^(8n + 31) for its first half, x^(8n - 33) for its second. */
static uint64_t crc32c_fold_256[2], crc32c_fold_64[2], crc32c_fold_16[2];
/* crc32c_zeros[k]: what 2^k zero bytes multiply a register by, x^(8 * 2^k). */
#define CRC32C_ZEROS_COUNT 64
static uint32_t crc32c_zeros[CRC32C_ZEROS_COUNT];

static uint32_t crc32c_times_x(uint32_t value)
{
    return (value >> 1) ^ ((value & 1) ? CRC32C_POLYNOMIAL : 0);
}

static uint32_t crc32c_power_of_x(unsigned exponent)
{
    uint32_t value = 0x80000000u;
    while (exponent--)
        value = crc32c_times_x(value);
    return value;
}

/* The product of two registers, modulo the polynomial. */
static uint32_t crc32c_product(uint32_t left, uint32_t right)
{
    uint32_t product = 0;
    for (int bit = 31; bit >= 0; bit--) {
        product ^= right & (0u - (left >> bit & 1));
        right = crc32c_times_x(right);
    }
    return product;
}

/* The CRC of two messages, one after the other, from the CRC of each: the first is moved forward by the length of the
 * second. The inversions of the CRCs cancel out. */
static inline uint32_t crc32c_combine(uint32_t first, uint32_t second, uint64_t second_count)
{
    for (int power = 0; second_count; power++, second_count >>= 1)
        if (second_count & 1)
            first = crc32c_product(first, crc32c_zeros[power]);
    return first ^ second;
}

static void crc32c_fold_constants(uint64_t constants[2], unsigned bytes)
{
    constants[0] = crc32c_power_of_x(8 * bytes + 31);
    constants[1] = crc32c_power_of_x(8 * bytes - 33);
}

static void crc32c_prepare(void)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        uint32_t value = byte;
        for (int bit = 0; bit < 8; bit++)
            value = crc32c_times_x(value);
        crc32c_table[0][byte] = value;
    }
    for (int slice = 1; slice < 8; slice++)
        for (unsigned byte = 0; byte < 256; byte++) {
            uint32_t before = crc32c_table[slice - 1][byte];
            crc32c_table[slice][byte] = (before >> 8) ^ crc32c_table[0][before & 0xff];
        }
    uint32_t shift = crc32c_power_of_x(64 - 33);
    for (int words = 1; words <= 2 * CRC32C_STREAM_WORDS_MAX; words++) {
        crc32c_shift[words] = shift;
        for (int bit = 0; bit < 64; bit++)
            shift = crc32c_times_x(shift);
    }
    crc32c_fold_constants(crc32c_fold_256, 256);
    crc32c_fold_constants(crc32c_fold_64, 64);
    crc32c_fold_constants(crc32c_fold_16, 16);
    crc32c_zeros[0] = crc32c_power_of_x(8);
    for (int power = 1; power < CRC32C_ZEROS_COUNT; power++)
        crc32c_zeros[power] = crc32c_product(crc32c_zeros[power - 1], crc32c_zeros[power - 1]);
}

static inline uint64_t crc32c_load(const uint8_t *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

/* ---- table: eight bytes at a time, on any CPU ---- */

static uint32_t crc32c_by_table(uint32_t crc, const uint8_t *bytes, size_t count)
{
    for (; count >= 8; bytes += 8, count -= 8) {
        uint64_t word = crc32c_load(bytes) ^ crc;
        crc = crc32c_table[7][word & 0xff] ^ crc32c_table[6][(word >> 8) & 0xff] ^
              crc32c_table[5][(word >> 16) & 0xff] ^ crc32c_table[4][(word >> 24) & 0xff] ^
              crc32c_table[3][(word >> 32) & 0xff] ^ crc32c_table[2][(word >> 40) & 0xff] ^
              crc32c_table[1][(word >> 48) & 0xff] ^ crc32c_table[0][word >> 56];
    }
    for (; count; bytes++, count--)
        crc = (crc >> 8) ^ crc32c_table[0][(crc ^ *bytes) & 0xff];
    return crc;
}

/* ---- x86_64 ---- */

#if defined(__x86_64__)

#define CRC32C_SSE42 __attribute__((target("sse4.2,pclmul")))
#define CRC32C_AVX512 __attribute__((target("sse4.2,pclmul,avx512f,vpclmulqdq")))

CRC32C_SSE42 static inline uint64_t crc32c_shift_sse42(uint64_t crc, size_t words)
{
    __m128i product =
        _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)crc), _mm_cvtsi32_si128((int)crc32c_shift[words]), 0);
    return (uint64_t)_mm_cvtsi128_si64(product);
}

CRC32C_SSE42 static uint32_t crc32c_by_sse42(uint32_t start, const uint8_t *bytes, size_t count)
{
    uint64_t crc = start;
    while (count >= 3 * 8 * 4) {
        size_t words = count / 24;
        if (words > CRC32C_STREAM_WORDS_MAX)
            words = CRC32C_STREAM_WORDS_MAX;
        const uint8_t *second = bytes + 8 * words, *third = second + 8 * words, *end = third + 8 * words;
        uint64_t crc_second = 0, crc_third = 0;
        for (; third < end; bytes += 8, second += 8, third += 8) {
            crc = _mm_crc32_u64(crc, crc32c_load(bytes));
            crc_second = _mm_crc32_u64(crc_second, crc32c_load(second));
            crc_third = _mm_crc32_u64(crc_third, crc32c_load(third));
        }
        uint64_t joined = crc32c_shift_sse42(crc, 2 * words) ^ crc32c_shift_sse42(crc_second, words);
        crc = _mm_crc32_u64(0, joined) ^ crc_third;
        bytes = end;
        count -= 24 * words;
    }
    for (; count >= 8; bytes += 8, count -= 8)
        crc = _mm_crc32_u64(crc, crc32c_load(bytes));
    for (; count; bytes++, count--)
        crc = _mm_crc32_u8((uint32_t)crc, *bytes);
    return (uint32_t)crc;
}

CRC32C_AVX512 static inline __m512i crc32c_fold(__m512i lanes, __m512i constants, __m512i next)
{
    __m512i first = _mm512_clmulepi64_epi128(lanes, constants, 0x00);
    __m512i second = _mm512_clmulepi64_epi128(lanes, constants, 0x11);
    return _mm512_ternarylogic_epi64(first, second, next, 0x96); /* exclusive or of three */
}

CRC32C_AVX512 static inline __m512i crc32c_constants(const uint64_t constants[2])
{
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)constants));
}

/* Four registers of four lanes hold 256 bytes; each step moves them 256 bytes forward and takes in what stands there. */
CRC32C_AVX512 static uint32_t crc32c_by_vpclmulqdq(uint32_t crc, const uint8_t *bytes, size_t count)
{
    if (count < CRC32C_FOLD_BYTES_MIN)
        return crc32c_by_sse42(crc, bytes, count);
    __m512i a = _mm512_xor_si512(_mm512_loadu_si512(bytes), _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)crc)));
    __m512i b = _mm512_loadu_si512(bytes + 64);
    __m512i c = _mm512_loadu_si512(bytes + 128);
    __m512i d = _mm512_loadu_si512(bytes + 192);
    __m512i constants = crc32c_constants(crc32c_fold_256);
    for (bytes += 256, count -= 256; count >= 256; bytes += 256, count -= 256) {
        a = crc32c_fold(a, constants, _mm512_loadu_si512(bytes));
        b = crc32c_fold(b, constants, _mm512_loadu_si512(bytes + 64));
        c = crc32c_fold(c, constants, _mm512_loadu_si512(bytes + 128));
        d = crc32c_fold(d, constants, _mm512_loadu_si512(bytes + 192));
    }
    constants = crc32c_constants(crc32c_fold_64);
    b = crc32c_fold(a, constants, b);
    c = crc32c_fold(b, constants, c);
    d = crc32c_fold(c, constants, d);
    for (; count >= 64; bytes += 64, count -= 64)
        d = crc32c_fold(d, constants, _mm512_loadu_si512(bytes));
    __m128i fold = _mm_loadu_si128((const __m128i *)crc32c_fold_16);
    __m128i lane = _mm512_castsi512_si128(d);
#define CRC32C_NEXT_LANE(index)                                                                                     \
    lane = _mm_xor_si128(                                                                                           \
        _mm_xor_si128(_mm_clmulepi64_si128(lane, fold, 0x00), _mm_clmulepi64_si128(lane, fold, 0x11)),              \
        _mm512_extracti32x4_epi32(d, index))
    CRC32C_NEXT_LANE(1);
    CRC32C_NEXT_LANE(2);
    CRC32C_NEXT_LANE(3);
#undef CRC32C_NEXT_LANE
    uint64_t rest = _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(lane));
    rest = _mm_crc32_u64(rest, (uint64_t)_mm_extract_epi64(lane, 1));
    return crc32c_by_sse42((uint32_t)rest, bytes, count);
}

static int crc32c_available(crc32c_implementation *found)
{
    int count = 0;
    __builtin_cpu_init();
    int has_sse42 = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul");
    if (has_sse42 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("vpclmulqdq"))
        found[count++] = (crc32c_implementation){"vpclmulqdq", crc32c_by_vpclmulqdq};
    if (has_sse42)
        found[count++] = (crc32c_implementation){"sse42", crc32c_by_sse42};
    found[count++] = (crc32c_implementation){"table", crc32c_by_table};
    return count;
}

/* ---- aarch64 ---- */

#elif defined(__aarch64__)

#define CRC32C_ARM_CRC __attribute__((target("+crc")))
#define CRC32C_ARM_CRC_PMULL __attribute__((target("+crc+crypto")))

CRC32C_ARM_CRC static inline uint32_t crc32c_arm_tail(uint32_t crc, const uint8_t *bytes, size_t count)
{
    for (; count >= 8; bytes += 8, count -= 8)
        crc = __crc32cd(crc, crc32c_load(bytes));
    for (; count; bytes++, count--)
        crc = __crc32cb(crc, *bytes);
    return crc;
}

CRC32C_ARM_CRC static uint32_t crc32c_by_armv8(uint32_t crc, const uint8_t *bytes, size_t count)
{
    return crc32c_arm_tail(crc, bytes, count);
}

CRC32C_ARM_CRC_PMULL static inline uint64_t crc32c_shift_pmull(uint32_t crc, size_t words)
{
    poly128_t product = vmull_p64((poly64_t)crc, (poly64_t)crc32c_shift[words]);
    return vgetq_lane_u64(vreinterpretq_u64_p128(product), 0);
}

CRC32C_ARM_CRC_PMULL static uint32_t crc32c_by_armv8_pmull(uint32_t crc, const uint8_t *bytes, size_t count)
{
    while (count >= 3 * 8 * 4) {
        size_t words = count / 24;
        if (words > CRC32C_STREAM_WORDS_MAX)
            words = CRC32C_STREAM_WORDS_MAX;
        const uint8_t *second = bytes + 8 * words, *third = second + 8 * words, *end = third + 8 * words;
        uint32_t crc_second = 0, crc_third = 0;
        for (; third < end; bytes += 8, second += 8, third += 8) {
            crc = __crc32cd(crc, crc32c_load(bytes));
            crc_second = __crc32cd(crc_second, crc32c_load(second));
            crc_third = __crc32cd(crc_third, crc32c_load(third));
        }
        uint64_t joined = crc32c_shift_pmull(crc, 2 * words) ^ crc32c_shift_pmull(crc_second, words);
        crc = __crc32cd(0, joined) ^ crc_third;
        bytes = end;
        count -= 24 * words;
    }
    return crc32c_arm_tail(crc, bytes, count);
}

static int crc32c_available(crc32c_implementation *found)
{
    int count = 0;
    unsigned long features = getauxval(AT_HWCAP);
    if ((features & HWCAP_CRC32) && (features & HWCAP_PMULL))
        found[count++] = (crc32c_implementation){"armv8-pmull", crc32c_by_armv8_pmull};
    if (features & HWCAP_CRC32)
        found[count++] = (crc32c_implementation){"armv8", crc32c_by_armv8};
    found[count++] = (crc32c_implementation){"table", crc32c_by_table};
    return count;
}

#else

static int crc32c_available(crc32c_implementation *found)
{
    found[0] = (crc32c_implementation){"table", crc32c_by_table};
    return 1;
}

#endif

#define CRC32C_IMPLEMENTATIONS_MAX 3

static inline uint32_t crc32c_invert_and_run(crc32c_function run, uint32_t crc, const uint8_t *bytes, size_t count)
{
    return ~run(~crc, bytes, count);
}

#endif
