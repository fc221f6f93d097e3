"""The codecs of record batches, each with a limit on what it may expand to.

Compressed bytes come from anybody, and a hundred bytes can announce or produce gigabytes. So their frames are walked
first (native/compressed.h): what a frame declares is compared with what its blocks can hold and with the caller's
limit before a library sees it. The libraries are imported when a codec is first used.

Formats: gzip is RFC 1952, zstd RFC 8878, lz4 the LZ4 frame format 1.6; snappy is either one raw block or the chunked
stream of the Java library, because Kafka's clients send both.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t

cdef extern from "native/compressed.h" nogil:
    ctypedef const char* compressed_fault

    enum:
        CODEC_NONE
        CODEC_GZIP
        CODEC_SNAPPY
        CODEC_LZ4
        CODEC_ZSTD
        COMPRESSED_FRAMES_MAX
        ZSTD_BLOCK_BYTES_MAX

    ctypedef struct compressed_frame:
        size_t size
        int64_t declared
        int64_t bound
        int64_t window
        bint is_skippable

    bint has_snappy_header(const uint8_t* at, size_t count)
    compressed_fault read_snappy_size(const uint8_t* at, size_t count, int64_t* declared)
    compressed_fault next_snappy_chunk(const uint8_t* at, size_t count, size_t* step, size_t* chunk_size)
    compressed_fault walk_snappy(const uint8_t* at, size_t count, int64_t* total)
    compressed_fault walk_frame(int codec, const uint8_t* at, size_t count, compressed_frame* frame)
    int64_t compressed_bound(int codec, const uint8_t* at, size_t count)

cdef enum:
    GZIP_WBITS = 31  # zlib's way to say "gzip header and trailer"
    # Later gzip members are fed in pieces, because the library copies what follows the end of a member.
    GZIP_PIECE_BYTES = 16 * 1024
    SNAPPY_CHUNK_BYTES = 32 * 1024
    ZSTD_DECOMPRESSORS_KEPT = 4
    # A decompressor keeps its window; one that has worked with a larger window than this is not kept.
    ZSTD_WINDOW_BYTES_KEPT = 1 << 21
    ZSTD_WINDOW_LOG_MIN = 10
    ZSTD_DESCRIPTOR_AT = 4
    ZSTD_CHECKSUM_BIT = 0x04
    ZSTD_WINDOW_BYTE_AT = 5

cdef bytes ZSTD_CHECKSUM_OF_NOTHING = b"\x99\xe9\xd8\x51"  # the low half of XXH64, little-endian

# Decompressors that nobody uses at the moment. Making one costs more than decompressing a small batch.
cdef list zstd_decompressors = []


class CompressionError(ValueError):
    """The bytes are not what their codec calls for: damaged, cut short, or followed by something else."""


class ExpansionLimitError(CompressionError):
    """The bytes hold more, or say that they hold more, than the caller allows."""


def decompress(int codec, data, int64_t limit_bytes):
    """What `data` holds under Kafka's codec number, if that is at most `limit_bytes` bytes; as bytes or bytearray.

    Concatenated frames are read as one. Some libraries copy their result, so twice `limit_bytes`, plus a constant, may
    be allocated on the way, but never more. Codec 0 gives `data` itself back.

    Raises ExpansionLimitError, or CompressionError for anything else that is wrong with the bytes.
    """
    if limit_bytes < 0:
        raise ValueError("limit_bytes is negative")
    view = memoryview(data).cast("B")
    if codec == CODEC_NONE:
        if len(view) > limit_bytes:
            raise _too_large(limit_bytes)
        return data
    if not len(view):
        raise CompressionError("no compressed bytes")
    if codec == CODEC_GZIP:
        return _gunzip(view, limit_bytes)
    if codec == CODEC_SNAPPY:
        return _unsnappy(view, limit_bytes)
    if codec == CODEC_LZ4 or codec == CODEC_ZSTD:
        return _decompress_frames(codec, view, limit_bytes)
    raise CompressionError(f"unknown codec {codec}")


def compress(int codec, data, level=None):
    """`data` compressed under Kafka's codec number, in the form that every client reads. Codec 0 copies.

    `level` is the codec's own; None is its default. Snappy has none, and is written as the Java library's chunks.
    """
    if codec == CODEC_NONE:
        return bytes(data)
    if codec == CODEC_GZIP:
        import zlib
        packer = zlib.compressobj(-1 if level is None else level, zlib.DEFLATED, GZIP_WBITS)
        return packer.compress(data) + packer.flush()
    if codec == CODEC_SNAPPY:
        if level is not None:
            raise ValueError("snappy has no levels")
        return _snappy_stream(memoryview(data).cast("B"))
    if codec == CODEC_LZ4:
        # Java's reader wants independent blocks; older ones stumble over a content size.
        import lz4.frame
        return lz4.frame.compress(
            data, compression_level=level or 0, block_size=lz4.frame.BLOCKSIZE_MAX64KB, block_linked=False,
            store_size=False,
        )
    if codec == CODEC_ZSTD:
        import zstandard
        return zstandard.ZstdCompressor(level=3 if level is None else level).compress(data)
    raise ValueError(f"unknown codec {codec}")


cdef int64_t expansion_bound(int codec, const uint8_t* bytes, size_t count) noexcept nogil:
    """What these bytes can expand to at most, from their block headers alone; INT64_MAX when they are malformed."""
    return compressed_bound(codec, bytes, count)


# ---- gzip ----

cdef object _gunzip(object view, int64_t limit_bytes):
    import zlib
    cdef list pieces = []
    cdef int64_t total = 0
    cdef Py_ssize_t position = 0, size = len(view), end
    cdef int members = 0
    unpacker = None
    while position < size or unpacker is not None:
        if unpacker is None:
            members += 1
            if members > COMPRESSED_FRAMES_MAX:
                raise CompressionError(f"more than {COMPRESSED_FRAMES_MAX} gzip members")
            unpacker = zlib.decompressobj(GZIP_WBITS)
        # The whole input at first: nearly always it is one member, and then this is all.
        end = size if members == 1 else min(size, position + GZIP_PIECE_BYTES)
        try:
            piece = unpacker.decompress(view[position:end], limit_bytes - total + 1)
        except zlib.error as error:
            raise CompressionError(f"gzip data is damaged: {error}") from None
        total += len(piece)
        if total > limit_bytes:
            raise _too_large(limit_bytes)
        pieces.append(piece)
        position = end
        if unpacker.eof:
            position -= len(unpacker.unused_data)
            unpacker = None
        elif position == size:
            raise CompressionError("gzip data is cut short")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


# ---- snappy ----

cdef object _unsnappy(object view, int64_t limit_bytes):
    import cramjam
    cdef Py_buffer raw
    cdef int64_t total = 0
    PyObject_GetBuffer(view, &raw, PyBUF_SIMPLE)
    try:
        _check(walk_snappy(<const uint8_t*> raw.buf, raw.len, &total))
        if total > limit_bytes:
            raise _too_large(limit_bytes)
        output = PyByteArray_FromStringAndSize(NULL, total)
        with memoryview(output) as target:
            try:
                if has_snappy_header(<const uint8_t*> raw.buf, raw.len):
                    _unsnappy_chunks(cramjam.snappy, view, <const uint8_t*> raw.buf, raw.len, target)
                else:
                    _unsnappy_block(cramjam.snappy, view, target)
            except cramjam.DecompressionError as error:
                raise CompressionError(f"snappy data is damaged: {error}") from None
        return output
    finally:
        PyBuffer_Release(&raw)


cdef int _unsnappy_chunks(object snappy, object view, const uint8_t* bytes, size_t count, object target) except -1:
    cdef size_t position = 0, step = 0, size = 0
    cdef int64_t declared = 0, written = 0
    while position < count:
        _check(next_snappy_chunk(bytes + position, count - position, &step, &size))
        position += step
        if size:
            _check(read_snappy_size(bytes + position, size, &declared))
            with target[written:written + declared] as part:
                _unsnappy_block(snappy, view[position:position + size], part)
            written += declared
        position += size
    return 0


cdef int _unsnappy_block(object snappy, object block, object target) except -1:
    """Decompress a raw block that declares exactly the size of `target`."""
    if not len(target):
        # Nothing may follow the preamble then.
        if len(block) != 1:
            raise CompressionError("snappy data is damaged: an empty block with elements")
        return 0
    # The output is memory as it was found, so each byte of it has to be written.
    if snappy.decompress_raw_into(block, target) != len(target):
        raise CompressionError("snappy data is damaged: it holds less than its preamble announces")
    return 0


cdef object _snappy_stream(object view):
    import cramjam
    cdef list parts = [b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01"]
    # Not even nothing goes without a chunk: some readers do not take a bare header for a stream.
    for start in range(0, max(len(view), 1), SNAPPY_CHUNK_BYTES):
        packed = bytes(cramjam.snappy.compress_raw(view[start:start + SNAPPY_CHUNK_BYTES]))
        parts.append(len(packed).to_bytes(4, "big"))
        parts.append(packed)
    return b"".join(parts)


# ---- lz4 and zstd ----

cdef object _decompress_frames(int codec, object view, int64_t limit_bytes):
    cdef Py_buffer raw
    cdef compressed_frame frame
    cdef size_t position = 0, count = len(view)
    cdef int64_t total = 0
    cdef int frames = 0
    cdef list pieces = []
    PyObject_GetBuffer(view, &raw, PyBUF_SIMPLE)
    try:
        while position < count:
            _check(walk_frame(codec, <const uint8_t*> raw.buf + position, count - position, &frame))
            frames += 1
            if frames > COMPRESSED_FRAMES_MAX:
                raise CompressionError(f"more than {COMPRESSED_FRAMES_MAX} frames")
            if not frame.is_skippable:
                piece = _decompress_frame(codec, view[position:position + frame.size], &frame, limit_bytes - total)
                total += len(piece)
                pieces.append(piece)
            position += frame.size
    finally:
        PyBuffer_Release(&raw)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


cdef object _decompress_frame(int codec, object view, const compressed_frame* frame, int64_t limit_bytes):
    if frame.declared > frame.bound:
        raise CompressionError("frame announces more than its blocks can hold")
    if frame.declared > limit_bytes:
        raise _too_large(limit_bytes)
    if codec == CODEC_LZ4:
        return _unlz4_frame(view, frame, limit_bytes)
    return _unzstd_frame(view, frame, limit_bytes)


cdef object _unlz4_frame(object view, const compressed_frame* frame, int64_t limit_bytes):
    import lz4.frame
    cdef int64_t size = frame.declared if frame.declared >= 0 else frame.bound
    # One byte more than is allowed shows that there is more; the library does not take 0 for a size.
    size = max(min(size, limit_bytes + 1), 1)
    try:
        context = lz4.frame.create_decompression_context()
        piece, taken, is_at_end = lz4.frame.decompress_chunk(context, view, max_length=size)
    except RuntimeError as error:
        raise CompressionError(f"lz4 data is damaged: {error}") from None
    if len(piece) > limit_bytes:
        raise _too_large(limit_bytes)
    if not is_at_end or taken != len(view):
        raise CompressionError("lz4 data is damaged: the frame does not end where its blocks do")
    return piece


cdef object _unzstd_frame(object view, const compressed_frame* frame, int64_t limit_bytes):
    import zstandard
    cdef bint is_declared = frame.declared >= 0
    cdef int64_t room = frame.declared if is_declared else min(frame.bound, limit_bytes)
    if room == 0:
        # The library takes a declared size of nothing at its word, and an allowed size of nothing for no limit.
        if frame.bound == 0:
            if view[ZSTD_DESCRIPTOR_AT] & ZSTD_CHECKSUM_BIT and view[len(view) - 4:] != ZSTD_CHECKSUM_OF_NOTHING:
                raise CompressionError("zstd data is damaged: the checksum of nothing is wrong")
            return b""
        raise CompressionError("zstd frame announces nothing and holds blocks") if is_declared else _too_large(0)
    if not is_declared and frame.window > ZSTD_WINDOW_BYTES_KEPT:
        view = _with_smaller_window(view, frame.window, room)
    unpacker = zstd_decompressors.pop() if zstd_decompressors else zstandard.ZstdDecompressor()
    try:
        piece = unpacker.decompress(view, max_output_size=room)
    except zstandard.ZstdError as error:
        # The frame is structurally whole, so where its output did not fit, there was too much of it.
        if not is_declared and frame.bound > room and "did not decompress full frame" in str(error):
            raise _too_large(limit_bytes) from None
        raise CompressionError(f"zstd data is damaged: {error}") from None
    if len(zstd_decompressors) < ZSTD_DECOMPRESSORS_KEPT and (is_declared or frame.window <= ZSTD_WINDOW_BYTES_KEPT):
        zstd_decompressors.append(unpacker)
    return piece


cdef object _with_smaller_window(object view, int64_t window, int64_t room):
    """The frame with an announced window no larger than what it may produce: the library allocates the window.

    Nothing can refer back further than to the frame's beginning, so the meaning stays the same.
    """
    cdef int log = ZSTD_WINDOW_LOG_MIN
    while (<int64_t> 1) << log < max(room, ZSTD_BLOCK_BYTES_MAX):
        log += 1
    if (<int64_t> 1) << log >= window:
        return view
    frame = bytearray(view)
    frame[ZSTD_WINDOW_BYTE_AT] = (log - ZSTD_WINDOW_LOG_MIN) << 3
    return frame


cdef int _check(compressed_fault wrong) except -1:
    if wrong != NULL:
        raise CompressionError(wrong.decode())
    return 0


cdef object _too_large(int64_t limit_bytes):
    return ExpansionLimitError(f"more than {limit_bytes} bytes when decompressed")
