"""CRC-32C, the checksum of record batches and segments, on the fastest instructions that the CPU has.

The arithmetic is plain C (native/crc32c.h), because each implementation is compiled for other instructions. This module
chooses one when it is imported and gives Python the choice of any, so that tests can hold all of them equal.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "native/crc32c.h" nogil:
    ctypedef uint32_t (*crc32c_function)(uint32_t, const uint8_t*, size_t) noexcept nogil

    ctypedef struct crc32c_implementation:
        const char* name
        crc32c_function run

    const int CRC32C_IMPLEMENTATIONS_MAX
    void crc32c_prepare()
    int crc32c_available(crc32c_implementation* found)
    uint32_t crc32c_invert_and_run(crc32c_function run, uint32_t crc, const uint8_t* bytes, size_t count)
    uint32_t crc32c_combine(uint32_t first, uint32_t second, uint64_t second_count)


cdef enum:
    # Below this, letting the interpreter lock go and taking it back costs more than others could gain.
    NOGIL_BYTES_MIN = 32 * 1024

cdef crc32c_implementation[CRC32C_IMPLEMENTATIONS_MAX] available
cdef int available_count
cdef crc32c_function chosen

crc32c_prepare()
available_count = crc32c_available(available)
chosen = available[0].run


cdef uint32_t crc32c_update(uint32_t crc, const uint8_t* bytes, size_t count) noexcept nogil:
    """The CRC of what `crc` covers followed by `count` bytes; 0 is the CRC of nothing."""
    return crc32c_invert_and_run(chosen, crc, bytes, count)


def crc32c(data, uint32_t crc=0):
    """The CRC-32C (RFC 3720, appendix B.4) of `data`, going on from `crc`, the CRC of the bytes before it."""
    return _run(chosen, data, crc)


def crc32c_joined(uint32_t first, uint32_t second, uint64_t second_bytes):
    """The CRC of two pieces of data, one after the other, from the CRC of each and the length of the second.

    In less than a microsecond, however long they are.
    """
    return crc32c_combine(first, second, second_bytes)


def crc32c_with(str name not None, data, uint32_t crc=0):
    """As `crc32c`, by the implementation of that name; ValueError when this CPU does not have it."""
    for index in range(available_count):
        if available[index].name == name.encode():
            return _run(available[index].run, data, crc)
    raise ValueError(f"no CRC-32C implementation {name!r} here, there is {', '.join(implementations())}")


def implementation():
    """The name of the implementation in use."""
    return available[0].name.decode()


def implementations():
    """The names of all implementations that this CPU can run, fastest first."""
    return tuple([available[index].name.decode() for index in range(available_count)])


cdef object _run(crc32c_function run, object data, uint32_t crc):
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if view.len >= NOGIL_BYTES_MIN:
            with nogil:
                crc = crc32c_invert_and_run(run, crc, <const uint8_t*> view.buf, <size_t> view.len)
        else:
            crc = crc32c_invert_and_run(run, crc, <const uint8_t*> view.buf, <size_t> view.len)
    finally:
        PyBuffer_Release(&view)
    return crc
