"""Wire primitives that the native leaves share: big-endian loads and stores, and a cursor that knows its end.

Nothing here checks bounds by itself except `read_uvarint`; callers ask `left()` before they load.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from * nogil:
    """
    #include <stdint.h>
    #include <string.h>

    #if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    #error "the wire helpers are written for little-endian machines"
    #endif

    static inline uint16_t wire_load16(const void *at) {
        uint16_t value; memcpy(&value, at, 2); return __builtin_bswap16(value);
    }
    static inline uint32_t wire_load32(const void *at) {
        uint32_t value; memcpy(&value, at, 4); return __builtin_bswap32(value);
    }
    static inline uint64_t wire_load64(const void *at) {
        uint64_t value; memcpy(&value, at, 8); return __builtin_bswap64(value);
    }
    static inline void wire_store16(void *at, uint16_t value) {
        value = __builtin_bswap16(value); memcpy(at, &value, 2);
    }
    static inline void wire_store32(void *at, uint32_t value) {
        value = __builtin_bswap32(value); memcpy(at, &value, 4);
    }
    static inline void wire_store64(void *at, uint64_t value) {
        value = __builtin_bswap64(value); memcpy(at, &value, 8);
    }
    static inline double wire_double(uint64_t bits) {
        double value; memcpy(&value, &bits, 8); return value;
    }
    static inline uint64_t wire_double_bits(double value) {
        uint64_t bits; memcpy(&bits, &value, 8); return bits;
    }
    """
    uint16_t load16 "wire_load16"(const void *at)
    uint32_t load32 "wire_load32"(const void *at)
    uint64_t load64 "wire_load64"(const void *at)
    void store16 "wire_store16"(void *at, uint16_t value)
    void store32 "wire_store32"(void *at, uint32_t value)
    void store64 "wire_store64"(void *at, uint64_t value)
    double double_of_bits "wire_double"(uint64_t bits)
    uint64_t bits_of_double "wire_double_bits"(double value)


cdef struct Cursor:
    const uint8_t *at
    const uint8_t *end
    const uint8_t *start


cdef enum:
    UVARINT_BYTES_MAX = 5


cdef inline Py_ssize_t left(const Cursor *cursor) noexcept nogil:
    return cursor.end - cursor.at


cdef inline bint read_uvarint(Cursor *cursor, uint32_t *value) noexcept nogil:
    """Read an unsigned LEB128 varint of at most 32 bits; false when it is cut short or too long."""
    cdef uint32_t result
    cdef int shift = 7
    cdef const uint8_t *at = cursor.at
    if at >= cursor.end:
        return False
    result = at[0] & 0x7F
    while at[0] & 0x80:
        at += 1
        if at >= cursor.end or shift > 28 or (shift == 28 and at[0] > 0x0F):
            return False
        result |= <uint32_t>(at[0] & 0x7F) << shift
        shift += 7
    cursor.at = at + 1
    value[0] = result
    return True


cdef inline int put_uvarint(uint8_t *at, uint32_t value) noexcept nogil:
    """Write `value` at `at`, where UVARINT_BYTES_MAX bytes must be free; the number of bytes written."""
    cdef int size = 0
    while value > 0x7F:
        at[size] = <uint8_t>(value & 0x7F) | 0x80
        value >>= 7
        size += 1
    at[size] = <uint8_t>value
    return size + 1
