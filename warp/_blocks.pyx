"""Large buffers that are used again, in place of fresh ones from the system.

Frames and segments are large, short-lived, and come at the rate of the traffic. From malloc each would be a mapping of
its own, and touching fresh pages costs more than everything else that is done with the bytes; kept on malloc's heap
they would fragment it. So freed blocks wait here for the next of their size, up to a bound in bytes. Blocks are
writable for as long as they live: whoever shows one to others sees to it that nobody writes where somebody reads.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.memoryview cimport PyMemoryView_FromObject
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

cdef enum:
    # Smaller blocks are cheap to have from malloc, larger ones too rare to be worth keeping.
    KEPT_BYTES_MIN = 64 * 1024
    KEPT_BYTES_MAX = 16 * 1024 * 1024
    # Eight sizes from each power of two to the next, so that an eighth is wasted at most.
    STEPS = 8
    DOUBLINGS = 8
    CLASSES = STEPS * DOUBLINGS + 1

cdef struct free_block:
    free_block *next

cdef free_block *free_blocks[CLASSES]    # by size class; the link stands in the block itself
cdef Py_ssize_t free_bytes_now = 0
cdef Py_ssize_t free_bytes_bound = 32 * 1024 * 1024
cdef int victim = 0


def free_bytes():
    """How many bytes wait to be used again."""
    return free_bytes_now


def set_free_bytes_max(Py_ssize_t bytes_max):
    """Bound the bytes that wait to be used again; blocks beyond it go back to the system now."""
    global free_bytes_bound
    if bytes_max < 0:
        raise ValueError("free_bytes_max is negative")
    free_bytes_bound = bytes_max
    make_room(0)


cdef class Block:
    """A writable buffer of a fixed size, its bytes at first whatever they were."""

    def __cinit__(self, Py_ssize_t size):
        if size < 0:
            raise ValueError("a block has no negative size")
        self.size = size
        self.size_class = class_of(size)
        self.data = take(size, self.size_class)
        if self.data == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.data != NULL:
            give(self.data, self.size_class)

    def __len__(self):
        return self.size

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.data, self.size, 0, flags)

    def __releasebuffer__(self, Py_buffer *buffer):
        pass


def joined(list parts not None):
    """The bytes of `parts`, one after the other, in a block of their own; a view of all of it."""
    cdef Py_buffer view
    cdef Py_ssize_t size = 0, at = 0
    for part in parts:
        size += len(part)
    cdef Block block = new_block(size)
    for part in parts:
        PyObject_GetBuffer(part, &view, PyBUF_SIMPLE)
        if view.len > size - at:
            PyBuffer_Release(&view)
            raise ValueError("a part's items are larger than bytes")
        memcpy(block.data + at, view.buf, view.len)
        at += view.len
        PyBuffer_Release(&view)
    if at != size:
        raise ValueError("a part's items are smaller than bytes")
    return PyMemoryView_FromObject(block)


cdef Block new_block(Py_ssize_t size):
    return Block.__new__(Block, size)


cdef int class_of(Py_ssize_t size) noexcept:
    """The class whose blocks hold `size` bytes; -1 for sizes that are not kept."""
    cdef int doubling = 0
    cdef Py_ssize_t base = KEPT_BYTES_MIN
    if size < KEPT_BYTES_MIN or size > KEPT_BYTES_MAX:
        return -1
    while size > 2 * base:
        base *= 2
        doubling += 1
    return doubling * STEPS + <int>((size - base + base // STEPS - 1) // (base // STEPS))


cdef Py_ssize_t capacity_of(int size_class) noexcept:
    cdef Py_ssize_t base = <Py_ssize_t>KEPT_BYTES_MIN << (size_class // STEPS)
    return base + base // STEPS * (size_class % STEPS)


cdef char *take(Py_ssize_t size, int size_class) noexcept:
    global free_bytes_now
    cdef free_block *found
    if size_class < 0:
        return <char *>malloc(size if size > 0 else 1)
    found = free_blocks[size_class]
    if found == NULL:
        return <char *>malloc(capacity_of(size_class))
    free_blocks[size_class] = found.next
    free_bytes_now -= capacity_of(size_class)
    return <char *>found


cdef void give(char *data, int size_class) noexcept:
    global free_bytes_now
    cdef free_block *freed = <free_block *>data
    if size_class < 0 or capacity_of(size_class) > free_bytes_bound:
        free(data)
        return
    make_room(capacity_of(size_class))
    freed.next = free_blocks[size_class]
    free_blocks[size_class] = freed
    free_bytes_now += capacity_of(size_class)


cdef void make_room(Py_ssize_t size) noexcept:
    """Give blocks back to the system, of each size in turn, until `size` more bytes may wait."""
    global free_bytes_now, victim
    cdef free_block *found
    while free_bytes_now > 0 and free_bytes_now + size > free_bytes_bound:
        victim = (victim + 1) % CLASSES
        found = free_blocks[victim]
        if found != NULL:
            free_blocks[victim] = found.next
            free_bytes_now -= capacity_of(victim)
            free(found)
