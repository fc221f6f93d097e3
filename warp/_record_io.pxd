from libc.stdint cimport int64_t, uint8_t

from warp._batch cimport batch_header, fault

cdef int check_fault(fault wrong) except -1
cdef object decompressed_records(object payload, int codec, int64_t limit_bytes)
cdef void finish_header(uint8_t* bytes, size_t count, batch_header* header) noexcept nogil
cdef object named_tuple(object kind, tuple values)
