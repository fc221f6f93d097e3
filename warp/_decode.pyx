"""Decoding: bytes to messages, as their plans say. Values go straight into the slots of new instances.

Nothing from the wire is trusted: a length is compared with the bytes left before anything is allocated, the number of
array elements of a message is bounded, and depth is bounded by the tables, which are finite trees.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport INT16_MAX, int8_t, int16_t, int32_t, int64_t, uint8_t, uint32_t

from warp._cpython cimport (Py_DECREF, Py_False, Py_None, Py_True, Py_XDECREF, Py_XINCREF, PyBytes_FromStringAndSize,
                            PyFloat_FromDouble, PyList_New, PyList_SET_ITEM, PyLong_FromLong, PyLong_FromLongLong,
                            PyMemoryView_FromObject, PyMemoryView_GET_BUFFER, PyUnicode_DecodeUTF8, slot_of)
from warp._codec cimport (ARRAY, BOOLEAN, BYTES, COMPACT_ARRAY, COMPACT_BYTES, COMPACT_RECORDS, COMPACT_STRING, FLOAT64,
                          INT8, INT16, INT32, INT64, RECORDS, STRING, STRUCT, UINT16, UINT32, UUID, Code, Layout, Op,
                          Plan, PlanData, new_struct)
from warp._codec import DecodeError
from warp._wire cimport Cursor, double_of_bits, left, load16, load32, load64, read_uvarint

cdef enum:
    _ELEMENTS_MAX = 1 << 18
    _RECORDS_COPIED_BYTES_MAX = 512

DECODE_ELEMENTS_MAX = _ELEMENTS_MAX
"""Array elements in one message, all arrays together: what a decoded message may cost beyond its own bytes."""

RECORDS_COPIED_BYTES_MAX = _RECORDS_COPIED_BYTES_MAX
"""Record data up to this size is copied: that takes less time and memory than a view that keeps the frame alive."""

STRING_BYTES_MAX = INT16_MAX


cdef struct Reader:
    Cursor cursor
    Py_ssize_t elements_left
    PyObject *source        # the buffer that is read
    PyObject *view          # a memoryview of it, made when the first record data turns up


cdef int refuse(Reader *reader, const Op *op, str text) except -1:
    """Say which field can't be decoded, where, and why."""
    owner, name = (<object>op.owner).__name__, <str>op.name
    raise DecodeError(f"{owner}.{name} at byte {reader.cursor.at - reader.cursor.start}: {text}")


cdef int refuse_short(Reader *reader, const Op *op, Py_ssize_t size) except -1:
    return refuse(reader, op, f"{size} bytes wanted where {left(&reader.cursor)} are left")


cdef inline int need(Reader *reader, const Op *op, Py_ssize_t size) except -1:
    if left(&reader.cursor) < size:
        return refuse_short(reader, op, size)
    return 0


cdef Py_ssize_t read_length(Reader *reader, const Op *op) except -2:
    """The length of a string, bytes or array, in whichever form; -1 for null, which is refused where it is illegal."""
    cdef uint32_t plus_one = 0
    cdef Py_ssize_t length
    if op.code >= COMPACT_STRING:
        if not read_uvarint(&reader.cursor, &plus_one):
            refuse(reader, op, "the length is no unsigned varint")
        length = <Py_ssize_t>plus_one - 1
    elif op.code == STRING:
        need(reader, op, 2)
        length = <int16_t>load16(reader.cursor.at)
        reader.cursor.at += 2
    else:
        need(reader, op, 4)
        length = <int32_t>load32(reader.cursor.at)
        reader.cursor.at += 4
    if length < 0 and (length < -1 or not op.nullable):
        refuse(reader, op, "null where the version knows none" if length == -1 else f"a length of {length}")
    return length


cdef PyObject *read_string(Reader *reader, const Op *op) except NULL:
    cdef Py_ssize_t length = read_length(reader, op)
    cdef PyObject *value = NULL
    if length < 0:
        Py_XINCREF(Py_None)
        return Py_None
    need(reader, op, length)
    if length > INT16_MAX:
        refuse(reader, op, f"a string of {length} bytes; Kafka allows {STRING_BYTES_MAX}")
    try:
        value = PyUnicode_DecodeUTF8(<const char *>reader.cursor.at, length, NULL)
    except UnicodeDecodeError as error:
        refuse(reader, op, f"not UTF-8: {error.reason}")
    reader.cursor.at += length
    return value


cdef PyObject *read_bytes(Reader *reader, const Op *op) except NULL:
    cdef Py_ssize_t length = read_length(reader, op)
    cdef PyObject *value
    if length < 0:
        Py_XINCREF(Py_None)
        return Py_None
    need(reader, op, length)
    value = PyBytes_FromStringAndSize(<const char *>reader.cursor.at, length)
    reader.cursor.at += length
    return value


cdef PyObject *read_records(Reader *reader, const Op *op) except NULL:
    """A memoryview of the buffer's own bytes."""
    cdef Py_ssize_t length = read_length(reader, op)
    cdef PyObject *view
    cdef Py_buffer *buffer
    if length < 0:
        Py_XINCREF(Py_None)
        return Py_None
    need(reader, op, length)
    if length <= _RECORDS_COPIED_BYTES_MAX:
        view = PyBytes_FromStringAndSize(<const char *>reader.cursor.at, length)
        reader.cursor.at += length
        return view
    if reader.view == NULL:
        reader.view = PyMemoryView_FromObject(reader.source)
        if PyMemoryView_GET_BUFFER(reader.view).itemsize != 1 or PyMemoryView_GET_BUFFER(reader.view).ndim != 1:
            raise TypeError("a message is decoded from plain bytes")
    # A second view of the same buffer, narrowed in place: what slicing does, without a slice object.
    view = PyMemoryView_FromObject(reader.view)
    buffer = PyMemoryView_GET_BUFFER(view)
    buffer.buf = <char *>buffer.buf + (reader.cursor.at - reader.cursor.start)
    buffer.len = length
    buffer.shape[0] = length
    reader.cursor.at += length
    return view


cdef PyObject *read_array(Reader *reader, const Op *op) except NULL:
    cdef Py_ssize_t length = read_length(reader, op)
    cdef list items
    cdef PyObject *items_raw
    cdef Py_ssize_t index
    cdef const Op *element = op.element
    if length < 0:
        Py_XINCREF(Py_None)
        return Py_None
    if length > left(&reader.cursor) // op.size_min:
        refuse(reader, op, f"{length} elements where {left(&reader.cursor)} bytes are left")
    if length > reader.elements_left:
        refuse(reader, op, f"{length} elements; the message may hold {reader.elements_left} more")
    reader.elements_left -= length
    items_raw = PyList_New(length)
    items = <list>items_raw
    Py_DECREF(items_raw)  # `items` holds it
    for index in range(length):
        PyList_SET_ITEM(items_raw, index, read_value(reader, element))
    Py_INCREF(items)
    return <PyObject *>items


cdef PyObject *read_value(Reader *reader, const Op *op) except NULL:
    cdef const uint8_t *at = reader.cursor.at
    cdef PyObject *value = NULL
    cdef Code code = op.code
    need(reader, op, op.width)
    if code == INT32:
        value = PyLong_FromLong(<int32_t>load32(at))
        reader.cursor.at = at + op.width
    elif code == INT16:
        value = PyLong_FromLong(<int16_t>load16(at))
        reader.cursor.at = at + op.width
    elif code == INT64:
        value = PyLong_FromLongLong(<int64_t>load64(at))
        reader.cursor.at = at + op.width
    elif code == INT8:
        value = PyLong_FromLong(<int8_t>at[0])
        reader.cursor.at = at + op.width
    elif code == BOOLEAN:
        value = Py_True if at[0] else Py_False
        Py_XINCREF(value)
        reader.cursor.at = at + op.width
    elif code == UINT16:
        value = PyLong_FromLong(load16(at))
        reader.cursor.at = at + op.width
    elif code == UINT32:
        value = PyLong_FromLongLong(load32(at))
        reader.cursor.at = at + op.width
    elif code == FLOAT64:
        value = PyFloat_FromDouble(double_of_bits(load64(at)))
        reader.cursor.at = at + op.width
    elif code == UUID:
        value = PyBytes_FromStringAndSize(<const char *>at, op.width)
        reader.cursor.at = at + op.width
    elif code == STRING or code == COMPACT_STRING:
        value = read_string(reader, op)
    elif code == BYTES or code == COMPACT_BYTES:
        value = read_bytes(reader, op)
    elif code == RECORDS or code == COMPACT_RECORDS:
        value = read_records(reader, op)
    elif code == ARRAY or code == COMPACT_ARRAY:
        value = read_array(reader, op)
    elif code == STRUCT:
        value = read_struct(reader, op.child)
    else:
        value = read_nullable_struct(reader, op)
    return value


cdef PyObject *read_nullable_struct(Reader *reader, const Op *op) except NULL:
    """One byte, -1 for null and 1 otherwise, then the struct."""
    need(reader, op, 1)
    mark = <int8_t>reader.cursor.at[0]
    if mark != -1 and mark != 1:
        refuse(reader, op, f"{mark} where 1 or -1 says whether a struct follows")
    reader.cursor.at += 1
    if mark == 1:
        return read_struct(reader, op.child)
    Py_XINCREF(Py_None)
    return Py_None


cdef PyObject *read_struct(Reader *reader, const PlanData *plan) except NULL:
    cdef object made = new_struct(plan.cls)
    cdef PyObject *instance = <PyObject *>made
    cdef const Op *op
    cdef int index
    for index in range(plan.op_count):
        op = &plan.ops[index]
        slot_of(instance, op.slot)[0] = read_value(reader, op)
    for index in range(plan.absent_count):
        set_initial(instance, &plan.absent[index])
    if plan.flexible:
        if plan.tag_count == 0 and left(&reader.cursor) > 0 and reader.cursor.at[0] == 0:
            reader.cursor.at += 1
        else:
            read_tags(reader, plan, instance)
    Py_INCREF(made)
    return instance


cdef int set_initial(PyObject *instance, const Op *op) except -1:
    cdef PyObject *value = op.initial
    if value == NULL:
        value = PyList_New(0)
    else:
        Py_XINCREF(value)
    slot_of(instance, op.slot)[0] = value
    return 0


cdef int read_tags(Reader *reader, const PlanData *plan, PyObject *instance) except -1:
    """The tagged section: known tags into their slots, unknown ones skipped; tags rise strictly."""
    cdef uint32_t count = 0, tag = 0, size = 0
    cdef int64_t last = -1
    cdef int known = 0
    cdef const uint8_t *end = reader.cursor.end
    if not read_uvarint(&reader.cursor, &count):
        refuse_tags(reader, plan, "the number of tags is no unsigned varint")
    for _ in range(count):
        if not read_uvarint(&reader.cursor, &tag) or not read_uvarint(&reader.cursor, &size):
            refuse_tags(reader, plan, "a tag or its size is no unsigned varint")
        if tag <= last:
            refuse_tags(reader, plan, f"tag {tag} after tag {last}")
        if size > left(&reader.cursor):
            refuse_tags(reader, plan, f"tag {tag} of {size} bytes where {left(&reader.cursor)} are left")
        last = tag
        while known < plan.tag_count and plan.tags[known].tag < tag:
            set_initial(instance, &plan.tags[known])
            known += 1
        if known < plan.tag_count and plan.tags[known].tag == tag:
            reader.cursor.end = reader.cursor.at + size
            slot_of(instance, plan.tags[known].slot)[0] = read_value(reader, &plan.tags[known])
            known += 1
            if reader.cursor.at != reader.cursor.end:
                refuse_tags(reader, plan, f"{left(&reader.cursor)} bytes too many in tag {tag}")
            reader.cursor.end = end
        else:
            reader.cursor.at += size
    for index in range(known, plan.tag_count):
        set_initial(instance, &plan.tags[index])
    return 0


cdef int refuse_tags(Reader *reader, const PlanData *plan, str text) except -1:
    at = reader.cursor.at - reader.cursor.start
    raise DecodeError(f"tagged fields of {(<object>plan.cls).__name__} at byte {at}: {text}")


def decode(
    cls,
    int version,
    buffer,
    Py_ssize_t offset=0,
    *,
    Py_ssize_t elements_max=_ELEMENTS_MAX,
    bint allow_trailing=False,
):
    """Decode `buffer` from `offset` to its end as one message.

    Record data of more than RECORDS_COPIED_BYTES_MAX bytes becomes a memoryview of the buffer, which stays alive (and
    locked, if it is a bytearray) as long as it does; everything else is copied. Raises DecodeError when the bytes are
    not exactly one message of that class and version (with `allow_trailing`: do not begin with one), ValueError when
    the class has no such version, TypeError when it is a part of messages only.
    """
    cdef Plan plan = (<Layout?>cls.__layout__).plan(version)
    cdef Py_buffer data
    cdef Reader reader
    cdef PyObject *message = NULL
    PyObject_GetBuffer(buffer, &data, PyBUF_SIMPLE)
    try:
        if not 0 <= offset <= data.len:
            raise DecodeError(f"offset {offset} in a buffer of {data.len} bytes")
        reader.cursor.start = <const uint8_t *>data.buf
        reader.cursor.at = reader.cursor.start + offset
        reader.cursor.end = reader.cursor.start + data.len
        reader.elements_left = elements_max
        reader.source = <PyObject *>buffer
        reader.view = NULL
        try:
            message = read_struct(&reader, &plan.data)
            made = <object>message
            Py_DECREF(message)
        finally:
            Py_XDECREF(reader.view)
        if reader.cursor.at != reader.cursor.end and not allow_trailing:
            raise DecodeError(f"{cls.__name__} v{version}: {left(&reader.cursor)} bytes after the end")
        return made
    finally:
        PyBuffer_Release(&data)


# ---- request headers ----

cdef class RequestHeader:
    """Who asks for what; `body_offset` is where the body begins in the frame."""

    cdef readonly int api_key
    cdef readonly int api_version
    cdef readonly int correlation_id
    cdef readonly object client_id
    cdef readonly Py_ssize_t body_offset

    def __repr__(self):
        return (f"RequestHeader(api_key={self.api_key}, api_version={self.api_version}, "
                f"correlation_id={self.correlation_id}, client_id={self.client_id!r}, body_offset={self.body_offset})")


def read_request_header(frame, tuple flexible_from not None, int api_versions_max):
    """Read a request header v1, or v2 where the version is flexible.

    `flexible_from` holds the first flexible version (or None) by API key. See warp.protocol.frames.
    """
    cdef Py_buffer data
    PyObject_GetBuffer(frame, &data, PyBUF_SIMPLE)
    try:
        return request_header(<const uint8_t *>data.buf, data.len, flexible_from, api_versions_max)
    finally:
        PyBuffer_Release(&data)


cdef RequestHeader request_header(const uint8_t *start, Py_ssize_t size, tuple flexible_from, int api_versions_max):
    cdef RequestHeader header = RequestHeader.__new__(RequestHeader)
    cdef Cursor cursor = Cursor(start + 10, start + size, start)
    cdef int client_id_size
    if size < 10:
        raise DecodeError(f"a request header of {size} bytes")
    header.api_key = <int16_t>load16(start)
    header.api_version = <int16_t>load16(start + 2)
    header.correlation_id = <int32_t>load32(start + 4)
    client_id_size = <int16_t>load16(start + 8)
    if client_id_size >= 0:
        if client_id_size > left(&cursor):
            raise DecodeError(f"a client id of {client_id_size} bytes where {left(&cursor)} are left")
        try:
            header.client_id = cursor.at[:client_id_size].decode("utf-8")
        except UnicodeDecodeError as error:
            raise DecodeError(f"the client id is not UTF-8: {error.reason}") from None
        cursor.at += client_id_size
    elif client_id_size != -1:
        raise DecodeError(f"a client id of {client_id_size} bytes")
    if 0 <= header.api_key < len(flexible_from) and (header.api_key != 18 or header.api_version <= api_versions_max):
        first = flexible_from[header.api_key]
        if first is not None and header.api_version >= first:
            skip_header_tags(&cursor)
    header.body_offset = cursor.at - start
    return header


cdef int skip_header_tags(Cursor *cursor) except -1:
    cdef uint32_t count = 0, tag = 0, size = 0
    cdef int64_t last = -1
    if not read_uvarint(cursor, &count):
        raise DecodeError("the number of tags of the header is no unsigned varint")
    for _ in range(count):
        if not read_uvarint(cursor, &tag) or not read_uvarint(cursor, &size) or tag <= last or size > left(cursor):
            raise DecodeError("a tagged field of the header is malformed")
        last = tag
        cursor.at += size
    return 0
