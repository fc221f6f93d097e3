"""The codecs of record batches, each with a limit on what it may expand to.

Compressed bytes come from anybody, and a hundred bytes can announce or produce gigabytes. So nothing is given to a
library before its frames have been walked here: a walk reads only frame and block headers, finds where each frame ends
and how many bytes it can produce at most, and compares a declared size with both that and the caller's limit. The
libraries are imported when a codec is first used.

Formats: gzip is RFC 1952, zstd RFC 8878, lz4 the LZ4 frame format 1.6; snappy is either one raw block or the chunked
stream of the Java library, because Kafka's clients send both.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_FromStringAndSize
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t, uint64_t

cdef enum Codec:
    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4

cdef enum:
    # More frames, members or tiny chunks than this are no producer's work but an attempt to keep a core busy.
    FRAMES_MAX = 1024
    # Snappy chunks hold 32 KiB in practice; this much is asked of them on average once there are many.
    SNAPPY_CHUNK_AVERAGE_BYTES_MIN = 1024
    SNAPPY_CHUNK_BYTES = 32 * 1024
    SNAPPY_HEADER_BYTES = 16
    # Later gzip members are fed in pieces, because the library copies what follows the end of a member.
    GZIP_PIECE_BYTES = 16 * 1024
    # Deflate's best ratio.
    GZIP_RATIO_MAX = 1032
    ZSTD_BLOCK_BYTES_MAX = 128 * 1024
    # What libzstd, and so Kafka, accepts by default.
    ZSTD_WINDOW_BYTES_MAX = 1 << 27
    # A decompressor that has worked with a larger window is not kept.
    ZSTD_WINDOW_BYTES_KEPT = 1 << 21
    ZSTD_DECOMPRESSORS_KEPT = 4

cdef enum:
    GZIP_WBITS = 31  # zlib's way to say "gzip header and trailer"

cdef enum:
    SKIPPABLE_MAGIC = 0x184D2A50  # and the 15 that follow
    LZ4_MAGIC = 0x184D2204
    ZSTD_MAGIC = 0xFD2FB528

cdef const char* SNAPPY_MAGIC = b"\x82SNAPPY\x00"

cdef struct Frame:
    size_t size           # bytes that the frame takes in the input
    int64_t declared      # bytes that it says it holds, or -1
    int64_t bound         # bytes that its blocks can produce at most
    int64_t window        # zstd's window in bytes, where one is announced
    bint is_skippable

cdef list zstd_decompressors = []


class CompressionError(ValueError):
    """The bytes are not what their codec calls for: damaged, cut short, or followed by something else."""


class ExpansionLimitError(CompressionError):
    """The bytes hold more, or say that they hold more, than the caller allows."""


def decompress(int codec, data, int64_t limit_bytes):
    """What `data` holds under Kafka's codec number, at most `limit_bytes` bytes of it.

    Concatenated frames are read as one. Never more than twice `limit_bytes`, plus a constant, is allocated on the way.
    Codec 0 gives `data` itself back. Raises ExpansionLimitError, or CompressionError for anything else that is wrong.
    """
    if limit_bytes < 0:
        raise ValueError("limit_bytes is negative")
    view = memoryview(data).cast("B")
    if codec == NONE:
        if len(view) > limit_bytes:
            raise _too_large(limit_bytes)
        return data
    if not len(view):
        raise CompressionError("no compressed bytes")
    if codec == GZIP:
        return _gunzip(view, limit_bytes)
    if codec == SNAPPY:
        return _unsnappy(view, limit_bytes)
    if codec == LZ4 or codec == ZSTD:
        return _decompress_frames(codec, view, limit_bytes)
    raise CompressionError(f"unknown codec {codec}")


def compress(int codec, data, level=None):
    """`data` compressed under Kafka's codec number, in the form that every client reads. Codec 0 copies.

    `level` is the codec's own; None is its default. Snappy has none, and is written as the Java library's chunks.
    """
    if codec == NONE:
        return bytes(data)
    if codec == GZIP:
        import zlib
        packer = zlib.compressobj(-1 if level is None else level, zlib.DEFLATED, GZIP_WBITS)
        return packer.compress(data) + packer.flush()
    if codec == SNAPPY:
        if level is not None:
            raise ValueError("snappy has no levels")
        return _snappy_chunks(memoryview(data).cast("B"))
    if codec == LZ4:
        # Java's reader wants independent blocks; older ones stumble over a content size.
        import lz4.frame
        return lz4.frame.compress(
            data, compression_level=level or 0, block_size=lz4.frame.BLOCKSIZE_MAX64KB, block_linked=False,
            store_size=False,
        )
    if codec == ZSTD:
        import zstandard
        return zstandard.ZstdCompressor(level=3 if level is None else level).compress(data)
    raise ValueError(f"unknown codec {codec}")


cdef int64_t expansion_bound(int codec, const uint8_t* bytes, size_t count) noexcept nogil:
    """What these bytes can expand to at most, from their block headers alone; INT64_MAX when they are malformed.

    Gzip says nothing trustworthy about itself, so its answer is deflate's best ratio.
    """
    cdef Frame frame
    cdef int64_t total = 0
    cdef const char* fault
    if codec == NONE:
        return <int64_t> count
    if codec == GZIP:
        return <int64_t> count * GZIP_RATIO_MAX
    if codec == SNAPPY:
        if _has_snappy_header(bytes, count):
            fault = _walk_snappy_chunks(bytes, count, &total)
        else:
            fault = _read_snappy_size(bytes, count, &total)
        return INT64_MAX if fault != NULL else total
    while count:
        fault = _walk_lz4(bytes, count, &frame) if codec == LZ4 else _walk_zstd(bytes, count, &frame)
        if fault != NULL:
            return INT64_MAX
        total += frame.bound
        bytes += frame.size
        count -= frame.size
    return total


# ---- gzip ----

cdef object _gunzip(object view, int64_t limit_bytes):
    import zlib
    cdef list pieces = []
    cdef int64_t total = 0
    cdef Py_ssize_t position = 0, size = len(view), end
    cdef int members = 0
    unpacker = None
    try:
        # The whole input at once: nearly always it is one member, and then this is all.
        while True:
            if unpacker is None:
                members += 1
                if members > FRAMES_MAX:
                    raise CompressionError(f"more than {FRAMES_MAX} gzip members")
                unpacker = zlib.decompressobj(GZIP_WBITS)
            end = size if members == 1 else min(size, position + GZIP_PIECE_BYTES)
            piece = unpacker.decompress(view[position:end], limit_bytes - total + 1)
            total += len(piece)
            if total > limit_bytes:
                raise _too_large(limit_bytes)
            pieces.append(piece)
            position = end
            if unpacker.eof:
                position -= len(unpacker.unused_data)
                unpacker = None
                if position == size:
                    break
            elif position == size:
                raise CompressionError("gzip data is cut short")
    except zlib.error as error:
        raise CompressionError(f"gzip data is damaged: {error}") from None
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


# ---- snappy ----

cdef bint _has_snappy_header(const uint8_t* bytes, size_t count) noexcept nogil:
    """No raw block starts like this: it would have to copy from before its own beginning."""
    cdef size_t index
    if count < SNAPPY_HEADER_BYTES:
        return False
    for index in range(8):
        if bytes[index] != <uint8_t> SNAPPY_MAGIC[index]:
            return False
    return True


cdef const char* _read_snappy_size(const uint8_t* bytes, size_t count, int64_t* declared) noexcept nogil:
    """Read a raw block's preamble and refuse sizes that its bytes can't produce; gives the fault, or NULL."""
    cdef uint64_t value = 0
    cdef size_t index = 0
    while True:
        if index == count or index == 5:
            return b"snappy preamble is malformed"
        value |= <uint64_t> (bytes[index] & 0x7F) << (7 * index)
        index += 1
        if bytes[index - 1] < 0x80:
            break
    if value >> 32:
        return b"snappy preamble is malformed"
    # The densest element is a copy of 64 bytes in three.
    if value > (count - index) * 64 // 3:
        return b"snappy preamble announces more than its bytes can hold"
    declared[0] = <int64_t> value
    return NULL


cdef const char* _walk_snappy_chunks(const uint8_t* bytes, size_t count, int64_t* total) noexcept nogil:
    """Check the framing of the Java library's stream and add up what its chunks declare; gives the fault, or NULL."""
    cdef size_t position = 0, size
    cdef int64_t declared = 0, chunks = 0
    cdef const char* fault
    total[0] = 0
    while position < count:
        if _has_snappy_header(bytes + position, count - position):
            if _big_endian32(bytes + position + 8) < 1:
                return b"snappy stream has an unknown version"
            position += SNAPPY_HEADER_BYTES
            chunks += 1
            continue
        if count - position < 4:
            return b"snappy stream is cut short"
        size = _big_endian32(bytes + position)
        position += 4
        if size > count - position:
            return b"snappy chunk is longer than what is left"
        fault = _read_snappy_size(bytes + position, size, &declared)
        if fault != NULL:
            return fault
        position += size
        total[0] += declared
        chunks += 1
    if chunks > FRAMES_MAX + total[0] // SNAPPY_CHUNK_AVERAGE_BYTES_MIN:
        return b"snappy stream consists of too many tiny chunks"
    return NULL


cdef object _unsnappy(object view, int64_t limit_bytes):
    import cramjam
    cdef Py_buffer raw
    cdef const uint8_t* bytes
    cdef int64_t total = 0, declared = 0
    cdef size_t position = 0, size, count
    cdef bint is_chunked
    cdef const char* fault
    PyObject_GetBuffer(view, &raw, PyBUF_SIMPLE)
    try:
        bytes = <const uint8_t*> raw.buf
        count = <size_t> raw.len
        is_chunked = _has_snappy_header(bytes, count)
        if is_chunked:
            fault = _walk_snappy_chunks(bytes, count, &total)
        else:
            fault = _read_snappy_size(bytes, count, &total)
        if fault != NULL:
            raise CompressionError(fault.decode())
        if total > limit_bytes:
            raise _too_large(limit_bytes)
        output = PyByteArray_FromStringAndSize(NULL, total)
        try:
            if not is_chunked:
                _unsnappy_block(cramjam.snappy, view, output, total)
                return output
            target = memoryview(output)
            while position < count:
                if _has_snappy_header(bytes + position, count - position):
                    position += SNAPPY_HEADER_BYTES
                    continue
                size = _big_endian32(bytes + position)
                position += 4
                _read_snappy_size(bytes + position, size, &declared)
                _unsnappy_block(cramjam.snappy, view[position:position + size], target[:declared], declared)
                target = target[declared:]
                position += size
        except cramjam.DecompressionError as error:
            raise CompressionError(f"snappy data is damaged: {error}") from None
        target.release()
        return output
    finally:
        PyBuffer_Release(&raw)


cdef int _unsnappy_block(object snappy, object block, object target, int64_t declared) except -1:
    if not declared:
        # Then the block holds its preamble and nothing else.
        if len(block) != 1:
            raise CompressionError("snappy data is damaged: an empty block with elements")
        return 0
    if snappy.decompress_raw_into(block, target) != declared:
        raise CompressionError("snappy data is damaged: it holds less than its preamble announces")
    return 0


cdef object _snappy_chunks(object view):
    import cramjam
    version = (1).to_bytes(4, "big")
    cdef list parts = [bytes(SNAPPY_MAGIC[:8]), version, version]
    for start in range(0, len(view), SNAPPY_CHUNK_BYTES):
        packed = bytes(cramjam.snappy.compress_raw(view[start:start + SNAPPY_CHUNK_BYTES]))
        parts.append(len(packed).to_bytes(4, "big"))
        parts.append(packed)
    return b"".join(parts)


# ---- lz4 and zstd ----

cdef object _decompress_frames(int codec, object view, int64_t limit_bytes):
    cdef Py_buffer raw
    cdef Frame frame
    cdef const uint8_t* bytes
    cdef size_t position = 0, count
    cdef int64_t total = 0
    cdef int frames = 0
    cdef list pieces = []
    cdef const char* fault
    PyObject_GetBuffer(view, &raw, PyBUF_SIMPLE)
    try:
        bytes = <const uint8_t*> raw.buf
        count = <size_t> raw.len
        while position < count:
            if codec == LZ4:
                fault = _walk_lz4(bytes + position, count - position, &frame)
            else:
                fault = _walk_zstd(bytes + position, count - position, &frame)
            if fault != NULL:
                raise CompressionError(fault.decode())
            frames += 1
            if frames > FRAMES_MAX:
                raise CompressionError(f"more than {FRAMES_MAX} frames")
            if not frame.is_skippable:
                if frame.declared > frame.bound:
                    raise CompressionError("frame announces more than its blocks can hold")
                if frame.declared > limit_bytes - total:
                    raise _too_large(limit_bytes)
                whole = view if frame.size == count else view[position:position + frame.size]
                if codec == LZ4:
                    piece = _unlz4_frame(whole, &frame, limit_bytes - total)
                else:
                    piece = _unzstd_frame(whole, &frame, limit_bytes - total)
                total += len(piece)
                if total > limit_bytes:
                    raise _too_large(limit_bytes)
                pieces.append(piece)
            position += frame.size
    finally:
        PyBuffer_Release(&raw)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


cdef object _unlz4_frame(object view, Frame* frame, int64_t limit_bytes):
    import lz4.frame
    cdef int64_t size = frame.declared if frame.declared >= 0 else frame.bound
    # One byte more than is allowed shows that there is more; room for nothing is not understood by the library.
    size = max(min(size, limit_bytes + 1), 1)
    try:
        context = lz4.frame.create_decompression_context()
        piece, taken, is_at_end = lz4.frame.decompress_chunk(context, view, max_length=size)
    except RuntimeError as error:
        raise CompressionError(f"lz4 data is damaged: {error}") from None
    if len(piece) > limit_bytes or (not is_at_end and size > limit_bytes):
        raise _too_large(limit_bytes)
    if not is_at_end or taken != len(view):
        raise CompressionError("lz4 data is damaged: the frame does not end where its blocks do")
    return piece


cdef object _unzstd_frame(object view, Frame* frame, int64_t limit_bytes):
    import zstandard
    cdef bint is_kept = True
    cdef int64_t room = min(frame.bound, limit_bytes)
    if frame.declared == 0 or frame.bound == 0:
        # The library takes a declared size of nothing at its word.
        if frame.bound:
            raise CompressionError("zstd frame announces nothing and holds blocks")
        return b""
    if frame.declared < 0:
        if not room:
            raise _too_large(limit_bytes)
        if frame.window > ZSTD_WINDOW_BYTES_KEPT:
            is_kept = False
            view = _with_smaller_window(view, frame.window, room)
    unpacker = zstd_decompressors.pop() if zstd_decompressors else zstandard.ZstdDecompressor()
    try:
        piece = unpacker.decompress(view, max_output_size=0 if frame.declared >= 0 else room)
    except zstandard.ZstdError as error:
        # The frame is structurally whole; if its blocks may hold more than the room given, that is what happened.
        if frame.declared < 0 and frame.bound > room and "did not decompress full frame" in str(error):
            raise _too_large(limit_bytes) from None
        raise CompressionError(f"zstd data is damaged: {error}") from None
    if is_kept and len(zstd_decompressors) < ZSTD_DECOMPRESSORS_KEPT:
        zstd_decompressors.append(unpacker)
    return piece


cdef object _with_smaller_window(object view, int64_t window, int64_t room):
    """The frame with an announced window no larger than what it may produce: the library allocates the window.

    Nothing can refer back further than to the frame's beginning, so the meaning stays the same.
    """
    cdef int64_t needed = max(room, ZSTD_BLOCK_BYTES_MAX)
    cdef int log = 17
    while (<int64_t> 1) << log < needed:
        log += 1
    if (<int64_t> 1) << log >= window:
        return view
    frame = bytearray(view)
    frame[5] = (log - 10) << 3
    return frame


cdef const char* _walk_skippable(const uint8_t* bytes, size_t count, Frame* frame) noexcept nogil:
    if count < 8 or _little_endian32(bytes + 4) > count - 8:
        return b"skippable frame is cut short"
    frame.size = 8 + <size_t> _little_endian32(bytes + 4)
    frame.declared = 0
    frame.bound = 0
    frame.window = 0
    frame.is_skippable = True
    return NULL


cdef const char* _walk_lz4(const uint8_t* bytes, size_t count, Frame* frame) noexcept nogil:
    """Find the end of an LZ4 frame and what it can produce; gives the fault, or NULL.

    magic, flags, block descriptor, [content size], [dictionary id], header checksum; blocks, each a size with a bit
    for "stored", its bytes, [checksum]; a size of 0; [content checksum].
    """
    cdef uint8_t flags, descriptor
    cdef size_t position = 7, size
    cdef int64_t block_bytes_max
    if count < 7:
        return b"lz4 frame is cut short"
    if (_little_endian32(bytes) >> 4) == SKIPPABLE_MAGIC >> 4:
        return _walk_skippable(bytes, count, frame)
    if _little_endian32(bytes) != LZ4_MAGIC:
        return b"no lz4 frame where one has to be"
    flags = bytes[4]
    descriptor = bytes[5]
    if (flags >> 6) != 1 or (flags & 0x02) or (descriptor & 0x8F) or (descriptor >> 4) < 4:
        return b"lz4 frame header is malformed"
    if flags & 0x01:
        return b"lz4 frame asks for a dictionary"
    block_bytes_max = (<int64_t> 1) << (8 + 2 * (descriptor >> 4))
    frame.declared = -1
    frame.bound = 0
    frame.window = 0
    frame.is_skippable = False
    if flags & 0x08:
        if count < 15:
            return b"lz4 frame is cut short"
        frame.declared = _declared_size(_little_endian64(bytes + 6))
        position = 15
    while True:
        if count - position < 4:
            return b"lz4 frame is cut short"
        size = _little_endian32(bytes + position)
        position += 4
        if size == 0:
            break
        if size >> 31:
            size -= <size_t> 1 << 31
            frame.bound += <int64_t> size
        else:
            # A byte of LZ4 stands for 255 at most.
            frame.bound += min(block_bytes_max, <int64_t> size * 255)
        if <int64_t> size > block_bytes_max:
            return b"lz4 block is larger than its frame allows"
        if flags & 0x10:
            size += 4
        if size > count - position:
            return b"lz4 frame is cut short"
        position += size
    if flags & 0x04:
        if count - position < 4:
            return b"lz4 frame is cut short"
        position += 4
    frame.size = position
    return NULL


cdef const char* _walk_zstd(const uint8_t* bytes, size_t count, Frame* frame) noexcept nogil:
    """Find the end of a Zstandard frame and what it can produce (RFC 8878, section 3.1.1); the fault, or NULL.

    magic, descriptor, [window], [dictionary id], [content size]; blocks, each three bytes of last, type and size, then
    its bytes; [checksum].
    """
    cdef size_t position, size
    cdef uint8_t descriptor
    cdef uint32_t block
    cdef int64_t block_bytes_max
    cdef const char* fault
    if count < 4:
        return b"zstd frame is cut short"
    if (_little_endian32(bytes) >> 4) == SKIPPABLE_MAGIC >> 4:
        return _walk_skippable(bytes, count, frame)
    if _little_endian32(bytes) != ZSTD_MAGIC:
        return b"no zstd frame where one has to be"
    fault = _read_zstd_header(bytes, count, frame, &position)
    if fault != NULL:
        return fault
    descriptor = bytes[4]
    block_bytes_max = min(frame.window, ZSTD_BLOCK_BYTES_MAX)
    while True:
        if count - position < 3:
            return b"zstd frame is cut short"
        block = bytes[position] | (<uint32_t> bytes[position + 1] << 8) | (<uint32_t> bytes[position + 2] << 16)
        position += 3
        size = block >> 3
        if (block >> 1) & 3 == 3:
            return b"zstd block is of an unknown type"
        if (block >> 1) & 3 == 2:
            frame.bound += block_bytes_max
        else:
            frame.bound += <int64_t> size
        if <int64_t> size > block_bytes_max:
            return b"zstd block is larger than its frame allows"
        if (block >> 1) & 3 == 1:
            size = 1
        if size > count - position:
            return b"zstd frame is cut short"
        position += size
        if block & 1:
            break
    if descriptor & 0x04:
        if count - position < 4:
            return b"zstd frame is cut short"
        position += 4
    frame.size = position
    return NULL


cdef const char* _read_zstd_header(
    const uint8_t* bytes, size_t count, Frame* frame, size_t* end
) noexcept nogil:
    cdef uint8_t descriptor, window
    cdef size_t position = 5, index, size
    cdef uint64_t declared = 0
    cdef bint is_single
    if count < 5:
        return b"zstd frame is cut short"
    descriptor = bytes[4]
    is_single = (descriptor & 0x20) != 0
    frame.declared = -1
    frame.bound = 0
    frame.is_skippable = False
    if descriptor & 0x08:
        return b"zstd frame header is malformed"
    if descriptor & 0x03:
        return b"zstd frame asks for a dictionary"
    if not is_single:
        if count < 6:
            return b"zstd frame is cut short"
        window = bytes[5]
        position = 6
        frame.window = (<int64_t> 8 + (window & 7)) << (7 + (window >> 3))
    size = (<size_t> 1) << (descriptor >> 6)
    if size == 1:
        size = 1 if is_single else 0
    if count - position < size:
        return b"zstd frame is cut short"
    if size:
        for index in range(size):
            declared |= <uint64_t> bytes[position + index] << (8 * index)
        if size == 2:
            declared += 256
        frame.declared = _declared_size(declared)
        position += size
    if is_single:
        frame.window = frame.declared
    elif frame.window > ZSTD_WINDOW_BYTES_MAX:
        return b"zstd frame asks for too large a window"
    end[0] = position
    return NULL


cdef inline int64_t _declared_size(uint64_t size) noexcept nogil:
    return <int64_t> size if size <= <uint64_t> INT64_MAX else INT64_MAX


cdef inline uint32_t _little_endian32(const uint8_t* bytes) noexcept nogil:
    return bytes[0] | (<uint32_t> bytes[1] << 8) | (<uint32_t> bytes[2] << 16) | (<uint32_t> bytes[3] << 24)


cdef inline uint64_t _little_endian64(const uint8_t* bytes) noexcept nogil:
    return _little_endian32(bytes) | (<uint64_t> _little_endian32(bytes + 4) << 32)


cdef inline uint32_t _big_endian32(const uint8_t* bytes) noexcept nogil:
    return bytes[3] | (<uint32_t> bytes[2] << 8) | (<uint32_t> bytes[1] << 16) | (<uint32_t> bytes[0] << 24)


cdef object _too_large(int64_t limit_bytes):
    return ExpansionLimitError(f"more than {limit_bytes} bytes when decompressed")
