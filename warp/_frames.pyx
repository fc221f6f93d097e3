"""Frames out of a byte stream: the sans-IO core of a connection, for asyncio.BufferedProtocol.

Connections receive into one buffer that they share, so that an idle connection holds none. Frames that arrive whole
are cut out of it. A frame that is not complete gets a buffer of exactly its size and the rest of it is received
straight into that, with no copy per chunk. Large ones are blocks, whose memory is used again (`warp._blocks`). Memory
is asked for, through `reserve`, before it is allocated.
"""

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.memoryview cimport PyMemoryView_FromObject
from libc.stdint cimport int32_t, uint8_t
from libc.string cimport memcpy

from warp._blocks cimport Block, new_block
from warp._codec import DecodeError
from warp._wire cimport load32

cdef enum:
    SIZE_BYTES = 4
    _BLOCK_BYTES_MIN = 64 * 1024

BLOCK_BYTES_MIN = _BLOCK_BYTES_MIN
"""Frames of this size and more are views of blocks (`warp._blocks`), whose memory is used again."""

FRAME_BYTES_MIN = 8
"""The shortest request: API key, version and correlation id."""

cdef Py_ssize_t _FRAME_BYTES_MIN = FRAME_BYTES_MIN


cdef class SharedReceiveBuffer:
    """Memory that all connections of one event loop receive into, one after the other."""

    cdef char *data
    cdef readonly Py_ssize_t size

    def __cinit__(self, Py_ssize_t size_bytes=256 * 1024):
        if size_bytes < SIZE_BYTES:
            raise ValueError("a receive buffer holds at least the size of a frame")
        self.data = <char *>PyMem_Malloc(size_bytes)
        if self.data == NULL:
            raise MemoryError
        self.size = size_bytes

    def __dealloc__(self):
        PyMem_Free(self.data)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.data, self.size, 0, flags)

    def __releasebuffer__(self, Py_buffer *buffer):
        pass


cdef class _Unfinished:
    """A frame on its way in: memory of its exact size, for the transport to write to until it is complete."""

    cdef object frame
    cdef char *data
    cdef Py_ssize_t size
    cdef Py_ssize_t filled
    cdef bint complete

    def __cinit__(self, Py_ssize_t size):
        self.frame = new_frame(size, &self.data)
        self.size = size

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if self.complete:
            raise BufferError("the frame is complete")
        PyBuffer_FillInfo(buffer, self, self.data + self.filled, self.size - self.filled, 0, flags)

    def __releasebuffer__(self, Py_buffer *buffer):
        pass

    cdef object finish(self):
        """The whole frame, which from here on the transport does not get to write to."""
        self.complete = True
        return self.frame


cdef object new_frame(Py_ssize_t size, char **data):
    """Memory for a frame and where it is: bytes, or a view of a block if it is large."""
    cdef Block block
    cdef bytes small
    if size < _BLOCK_BYTES_MIN:
        small = PyBytes_FromStringAndSize(NULL, size)
        data[0] = PyBytes_AS_STRING(small)
        return small
    block = new_block(size)
    data[0] = block.data
    return PyMemoryView_FromObject(block)


cdef object copied_frame(const char *source, Py_ssize_t size):
    cdef char *data
    cdef object frame = new_frame(size, &data)
    memcpy(data, source, size)
    return frame


cdef class FrameSplitter:
    """Splits what one connection receives into frames; the core of an asyncio.BufferedProtocol.

    `shared` is the buffer to receive into, `frame_bytes_max` the largest size that a peer may announce, and
    `reserve(nbytes)` is asked for memory before it is taken: once for the frames that one read completed, together,
    and once for each frame that is still on its way. When it says False the splitter is `blocked`: it keeps what has
    been received, `get_buffer` must not be called (pause reading), and `resume` goes on once `wanted_bytes` have been
    reserved for it. The owner gives the memory back, `len(frame)` bytes for every frame handed out, and
    `reserved_bytes` when it drops the splitter. `reserve` and the limits may be changed between reads; the smallest
    frame is FRAME_BYTES_MIN unless `frame_bytes_min`, at least 1, says otherwise.
    """

    cdef SharedReceiveBuffer shared
    cdef object shared_view
    cdef public object reserve
    cdef _Unfinished unfinished
    cdef bytes held             # received, not yet split: while blocked
    cdef uint8_t size_bytes[SIZE_BYTES]
    cdef Py_ssize_t size_bytes_count
    cdef public Py_ssize_t frame_bytes_min
    cdef public Py_ssize_t frame_bytes_max
    cdef readonly Py_ssize_t wanted_bytes

    def __init__(self, SharedReceiveBuffer shared not None, Py_ssize_t frame_bytes_max, reserve):
        self.shared = shared
        self.shared_view = memoryview(shared)
        self.reserve = reserve
        self.frame_bytes_min = _FRAME_BYTES_MIN
        self.frame_bytes_max = frame_bytes_max

    @property
    def blocked(self):
        """Whether it waits for memory, see `resume`."""
        return self.wanted_bytes > 0

    @property
    def reserved_bytes(self):
        """Memory that was reserved for a frame that is still on its way."""
        return 0 if self.unfinished is None else self.unfinished.size

    @property
    def held_bytes(self):
        """Memory that is held without having been reserved: what had been received when the splitter blocked."""
        return 0 if self.held is None else len(self.held)

    def get_buffer(self, Py_ssize_t sizehint):
        """Where to receive: the rest of the frame on its way, or the shared buffer. Never empty.

        Valid until the next call of any method of a splitter that shares the buffer.
        """
        if self.wanted_bytes:
            raise RuntimeError("receiving while blocked")
        if self.unfinished is not None:
            return memoryview(self.unfinished)
        return self.shared_view

    def buffer_updated(self, Py_ssize_t nbytes):
        """Take `nbytes` that were received into `get_buffer`; the frames that are complete now, without their sizes.

        Raises DecodeError when a size is below `frame_bytes_min` or above `frame_bytes_max`; the connection is then
        beyond help.
        """
        if self.unfinished is None:
            if not 0 <= nbytes <= self.shared.size:
                raise ValueError(f"{nbytes} bytes in a buffer of {self.shared.size}")
            return self._split(self.shared.data, nbytes)
        if not 0 <= nbytes <= self.unfinished.size - self.unfinished.filled:
            raise ValueError(f"{nbytes} bytes where {self.unfinished.size - self.unfinished.filled} are missing")
        self.unfinished.filled += nbytes
        if self.unfinished.filled < self.unfinished.size:
            return []
        frame, self.unfinished = self.unfinished.finish(), None
        return [frame]

    def resume(self):
        """Go on after `wanted_bytes` were reserved; the frames that are complete now. May block again."""
        if not self.wanted_bytes:
            raise RuntimeError("not blocked")
        cdef bytes held = self.held
        cdef Py_ssize_t granted = self.wanted_bytes
        self.held = None
        self.wanted_bytes = 0
        return self._split(PyBytes_AS_STRING(held), len(held), granted)

    def close(self):
        """Let go of everything that is held; the owner first gives back `reserved_bytes`."""
        self.unfinished = None
        self.held = None
        self.wanted_bytes = 0
        self.size_bytes_count = 0

    cdef list _split(self, const char *data, Py_ssize_t size, Py_ssize_t granted=0):
        """The whole frames in `data`, and the beginning of an unfinished one put aside.

        The size field may have begun in an earlier read; `granted` bytes have been reserved already.
        """
        cdef list frames = []
        cdef Py_ssize_t whole_end = 0, whole_bytes = 0, announced, at
        # First look and allocate nothing: how far do whole frames go, and what do they need?
        while True:
            at = whole_end
            announced = self._announced(data, size, &at, whole_end == 0)
            if announced < 0 or size - at < announced:
                break
            whole_bytes += announced
            whole_end = at + announced
        if whole_bytes:
            if granted == 0 and not self.reserve(whole_bytes):
                return self._block(data, size, whole_bytes, frames)
            granted = 0
            at = 0
            while at < whole_end:
                announced = self._announced(data, size, &at, at == 0)
                frames.append(copied_frame(data + at, announced))
                at += announced
            self.size_bytes_count = 0
            at = whole_end
            announced = self._announced(data, size, &at, False)
        if announced < 0:
            memcpy(self.size_bytes + self.size_bytes_count, data + whole_end, size - whole_end)
            self.size_bytes_count += size - whole_end
        elif granted == 0 and not self.reserve(announced):
            return self._block(data + whole_end, size - whole_end, announced, frames)
        else:
            self.unfinished = _Unfinished(announced)
            self.unfinished.filled = size - at
            memcpy(self.unfinished.data, data + at, size - at)
            self.size_bytes_count = 0
        return frames

    cdef Py_ssize_t _announced(self, const char *data, Py_ssize_t size, Py_ssize_t *at, bint first) except -2:
        """Read the size field at `at` and move past it; -1 when it is not all there.

        The first one may have begun in an earlier read.
        """
        cdef uint8_t field[SIZE_BYTES]
        cdef Py_ssize_t early = self.size_bytes_count if first else 0
        cdef Py_ssize_t announced
        if size - at[0] < SIZE_BYTES - early:
            return -1
        memcpy(field, self.size_bytes, early)
        memcpy(field + early, data + at[0], SIZE_BYTES - early)
        announced = <int32_t>load32(field)
        if announced < self.frame_bytes_min or announced > self.frame_bytes_max:
            raise DecodeError(
                f"a frame of {announced} bytes; {self.frame_bytes_min} to {self.frame_bytes_max} are allowed")
        at[0] += SIZE_BYTES - early
        return announced

    cdef list _block(self, const char *data, Py_ssize_t size, Py_ssize_t wanted, list frames):
        """Keep what has been received until the memory that it needs has been reserved."""
        self.held = PyBytes_FromStringAndSize(<char *>self.size_bytes, self.size_bytes_count) + \
            PyBytes_FromStringAndSize(data, size)
        self.size_bytes_count = 0
        self.wanted_bytes = wanted
        return frames
