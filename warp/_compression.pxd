from libc.stdint cimport int64_t, uint8_t

cdef int64_t expansion_bound(int codec, const uint8_t* bytes, size_t count) noexcept nogil
