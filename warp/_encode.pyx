"""Encoding: messages to bytes, as their plans say. Large record data is passed on by reference, never copied."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize as bytes_of
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport Py_EQ, PyObject
from libc.stdint cimport (INT8_MAX, INT8_MIN, INT16_MAX, INT16_MIN, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN,
                          UINT16_MAX, UINT32_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t)
from libc.string cimport memcpy, memmove

from warp._cpython cimport (Py_None, Py_True, Py_False, Py_TYPE, PyBytes_AS_STRING, PyBytes_Check, PyBytes_GET_SIZE,
                            PyFloat_AsDouble, PyFloat_Check, PyList_Check, PyLong_AsLongLongAndOverflow, PyLong_Check,
                            PyObject_CheckBuffer, PyObject_RichCompareBool, PySequence_Fast_GET_ITEM,
                            PySequence_Fast_GET_SIZE, PyTuple_Check, PyUnicode_AsUTF8AndSize, PyUnicode_Check, slot_of)
from warp._codec cimport (ARRAY, BOOLEAN, BYTES, COMPACT_ARRAY, COMPACT_BYTES, COMPACT_RECORDS, COMPACT_STRING, FLOAT64,
                          INT8, INT16, INT32, INT64, RECORDS, STRING, STRUCT, UINT16, UINT32, UUID, Code, Layout, Op,
                          Plan, PlanData)
from warp._codec import EncodeError
from warp._wire cimport UVARINT_BYTES_MAX, bits_of_double, put_uvarint, store16, store32, store64

cdef enum:
    _REFERENCE_BYTES_MIN = 4096

REFERENCE_BYTES_MIN = _REFERENCE_BYTES_MIN
"""Record data from this size on is passed on by reference instead of being copied into a part."""


cdef struct Writer:
    uint8_t *data
    Py_ssize_t size
    Py_ssize_t capacity
    Py_ssize_t referenced   # bytes passed on by reference
    PyObject *splits        # list of (position, buffer): where they belong; NULL: everything is copied


cdef int reject(const Op *op, str text) except -1:
    """Say which field can't be encoded, and why."""
    raise EncodeError(f"{(<object>op.owner).__name__}.{<str>op.name}: {text}")


cdef int grow(Writer *writer, Py_ssize_t size) except -1:
    cdef Py_ssize_t capacity = max(writer.size + size, 2 * writer.capacity, 512)
    cdef uint8_t *data = <uint8_t *>PyMem_Realloc(writer.data, capacity)
    if data == NULL:
        raise MemoryError
    writer.data = data
    writer.capacity = capacity
    return 0


cdef inline int room(Writer *writer, Py_ssize_t size) except -1:
    if writer.capacity - writer.size < size:
        grow(writer, size)
    return 0


cdef inline int put(Writer *writer, const void *data, Py_ssize_t size) except -1:
    room(writer, size)
    memcpy(writer.data + writer.size, data, size)
    writer.size += size
    return 0


cdef int64_t whole_number(const Op *op, PyObject *value, int64_t low, int64_t high) except? -1:
    cdef int overflow = 0
    cdef int64_t number
    if not PyLong_Check(value):
        reject(op, f"{<object>value!r} is no int")
    number = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow or number < low or number > high:
        reject(op, f"{<object>value!r} does not fit")
    return number


cdef int write_length(Writer *writer, const Op *op, Py_ssize_t length) except -1:
    """The length of a string, bytes or array, in whichever form; -1 is null."""
    if length < 0 and not op.nullable:
        reject(op, "null where the version knows none")
    if length > (INT16_MAX if op.code == STRING or op.code == COMPACT_STRING else INT32_MAX):
        reject(op, f"a length of {length}")
    room(writer, UVARINT_BYTES_MAX)
    if op.code >= COMPACT_STRING:
        writer.size += put_uvarint(writer.data + writer.size, <uint32_t>(length + 1))
    elif op.code == STRING:
        store16(writer.data + writer.size, <uint16_t>length)
        writer.size += 2
    else:
        store32(writer.data + writer.size, <uint32_t>length)
        writer.size += 4
    return 0


cdef int write_string(Writer *writer, const Op *op, PyObject *value) except -1:
    cdef Py_ssize_t length = 0
    cdef const char *data = NULL
    if value == Py_None:
        return write_length(writer, op, -1)
    if not PyUnicode_Check(value):
        reject(op, f"{<object>value!r} is no str")
    try:
        data = PyUnicode_AsUTF8AndSize(value, &length)
    except UnicodeEncodeError as error:
        reject(op, f"not UTF-8: {error.reason}")
    write_length(writer, op, length)
    return put(writer, data, length)


cdef int write_bytes(Writer *writer, const Op *op, PyObject *value) except -1:
    cdef Py_buffer data
    if value == Py_None:
        return write_length(writer, op, -1)
    if not PyObject_CheckBuffer(value):
        reject(op, f"{<object>value!r} is no bytes")
    PyObject_GetBuffer(<object>value, &data, PyBUF_SIMPLE)
    try:
        write_length(writer, op, data.len)
        return put(writer, data.buf, data.len)
    finally:
        PyBuffer_Release(&data)


cdef int write_records(Writer *writer, const Op *op, PyObject *value) except -1:
    """A buffer, or a list or tuple of buffers, one after the other; large ones by reference where allowed."""
    cdef Py_ssize_t length = 0
    if PyBytes_Check(value) or not (PyList_Check(value) or PyTuple_Check(value)):
        if value == Py_None or writer.splits == NULL or not PyObject_CheckBuffer(value):
            return write_bytes(writer, op, value)
        buffers = (<object>value,)
    else:
        buffers = tuple(<object>value)
    for buffer in buffers:
        if not PyObject_CheckBuffer(<PyObject *>buffer):
            reject(op, f"{buffer!r} is no bytes")
        length += byte_count(buffer)
    write_length(writer, op, length)
    for buffer in buffers:
        if writer.splits == NULL or byte_count(buffer) < _REFERENCE_BYTES_MIN:
            put_buffer(writer, buffer)
        else:
            (<list>writer.splits).append((writer.size, buffer))
            writer.referenced += byte_count(buffer)
    return 0


cdef Py_ssize_t byte_count(buffer) except -1:
    cdef Py_buffer data
    if type(buffer) is bytes:
        return len(<bytes>buffer)
    PyObject_GetBuffer(buffer, &data, PyBUF_SIMPLE)
    size = data.len
    PyBuffer_Release(&data)
    return size


cdef int put_buffer(Writer *writer, buffer) except -1:
    cdef Py_buffer data
    PyObject_GetBuffer(buffer, &data, PyBUF_SIMPLE)
    try:
        return put(writer, data.buf, data.len)
    finally:
        PyBuffer_Release(&data)


cdef int write_array(Writer *writer, const Op *op, PyObject *value) except -1:
    cdef Py_ssize_t index = 0
    if value == Py_None:
        return write_length(writer, op, -1)
    if not (PyList_Check(value) or PyTuple_Check(value)):
        reject(op, f"{<object>value!r} is no list")
    write_length(writer, op, PySequence_Fast_GET_SIZE(value))
    while index < PySequence_Fast_GET_SIZE(value):
        write_value(writer, op.element, PySequence_Fast_GET_ITEM(value, index))
        index += 1
    return 0


cdef int write_value(Writer *writer, const Op *op, PyObject *value) except -1:
    cdef Code code = op.code
    cdef uint8_t *at
    room(writer, 16)
    at = writer.data + writer.size
    if code == INT32:
        store32(at, <uint32_t>whole_number(op, value, INT32_MIN, INT32_MAX))
        writer.size += 4
    elif code == INT16:
        store16(at, <uint16_t>whole_number(op, value, INT16_MIN, INT16_MAX))
        writer.size += 2
    elif code == INT64:
        store64(at, <uint64_t>whole_number(op, value, INT64_MIN, INT64_MAX))
        writer.size += 8
    elif code == INT8:
        at[0] = <uint8_t>whole_number(op, value, INT8_MIN, INT8_MAX)
        writer.size += 1
    elif code == BOOLEAN:
        if value != Py_True and value != Py_False:
            reject(op, f"{<object>value!r} is no bool")
        at[0] = value == Py_True
        writer.size += 1
    elif code == UINT16:
        store16(at, <uint16_t>whole_number(op, value, 0, UINT16_MAX))
        writer.size += 2
    elif code == UINT32:
        store32(at, <uint32_t>whole_number(op, value, 0, UINT32_MAX))
        writer.size += 4
    elif code == FLOAT64:
        if not PyFloat_Check(value):
            reject(op, f"{<object>value!r} is no float")
        store64(at, bits_of_double(PyFloat_AsDouble(value)))
        writer.size += 8
    elif code == UUID:
        if not PyBytes_Check(value) or PyBytes_GET_SIZE(value) != 16:
            reject(op, f"{<object>value!r} is no UUID of 16 bytes")
        memcpy(at, PyBytes_AS_STRING(value), 16)
        writer.size += 16
    elif code == STRING or code == COMPACT_STRING:
        write_string(writer, op, value)
    elif code == BYTES or code == COMPACT_BYTES:
        write_bytes(writer, op, value)
    elif code == RECORDS or code == COMPACT_RECORDS:
        write_records(writer, op, value)
    elif code == ARRAY or code == COMPACT_ARRAY:
        write_array(writer, op, value)
    elif code == STRUCT:
        write_struct(writer, op, op.child, value)
    else:
        at[0] = 0xFF if value == Py_None else 1
        writer.size += 1
        if value != Py_None:
            write_struct(writer, op, op.child, value)
    return 0


cdef int write_struct(Writer *writer, const Op *op, const PlanData *plan, PyObject *instance) except -1:
    cdef PyObject *value
    cdef int index
    if Py_TYPE(instance) != plan.cls:
        reject(op, f"{<object>instance!r} is no {(<object>plan.cls).__name__}")
    for index in range(plan.op_count):
        write_value(writer, &plan.ops[index], field_value(instance, &plan.ops[index]))
    for index in range(plan.absent_count):
        op = &plan.absent[index]
        if not op.ignorable:
            value = field_value(instance, op)
            if value != op.initial and not is_initial(op, value):
                reject(op, f"{<object>value!r} in a version without the field")
    if plan.flexible:
        write_tags(writer, plan, instance)
    return 0


cdef inline PyObject *field_value(PyObject *instance, const Op *op) except NULL:
    cdef PyObject *value = slot_of(instance, op.slot)[0]
    if value == NULL:
        reject(op, "deleted")
    return value


cdef bint is_initial(const Op *op, PyObject *value) except -1:
    """Whether a field holds what readers assume when it is not on the wire."""
    if op.initial == NULL:
        return (PyList_Check(value) or PyTuple_Check(value)) and PySequence_Fast_GET_SIZE(value) == 0
    return value == op.initial or PyObject_RichCompareBool(value, op.initial, Py_EQ)


cdef int write_tags(Writer *writer, const PlanData *plan, PyObject *instance) except -1:
    """The tagged section: the fields that don't hold their default."""
    cdef Py_ssize_t start = writer.size
    cdef uint32_t count = 0
    cdef PyObject *value
    cdef int index
    put(writer, b"\0", 1)
    for index in range(plan.tag_count):
        value = field_value(instance, &plan.tags[index])
        if not is_initial(&plan.tags[index], value):
            write_tag(writer, &plan.tags[index], value)
            count += 1
    writer.data[start] = <uint8_t>count  # tables have fewer than 128 tags
    return 0


cdef int write_tag(Writer *writer, const Op *op, PyObject *value) except -1:
    cdef PyObject *splits = writer.splits
    cdef uint8_t size_bytes[UVARINT_BYTES_MAX]
    cdef Py_ssize_t start, size
    cdef int width
    room(writer, UVARINT_BYTES_MAX)
    writer.size += put_uvarint(writer.data + writer.size, op.tag)
    start = writer.size
    writer.splits = NULL  # the size goes in front of it, so it has to be in one piece
    try:
        write_value(writer, op, value)
    finally:
        writer.splits = splits
    size = writer.size - start
    width = put_uvarint(size_bytes, <uint32_t>size)
    room(writer, width)
    memmove(writer.data + start + width, writer.data + start, size)
    memcpy(writer.data + start, size_bytes, width)
    writer.size += width
    return 0


cdef Plan plan_of(message, int version):
    return (<Layout?>type(message).__layout__).plan(version)


def encode(message, int version):
    """Encode `message` as the body of that version.

    Raises EncodeError when a value does not fit its field, is null where the version knows no null, or is not the
    default of a field that the version lacks and that is not ignorable; ValueError when the class has no such version.
    """
    cdef Plan plan = plan_of(message, version)
    cdef Writer writer = Writer(NULL, 0, 0, 0, NULL)
    try:
        write_struct(&writer, NULL, &plan.data, <PyObject *>message)
        return bytes_of(<char *>writer.data, writer.size)
    finally:
        PyMem_Free(writer.data)


def encode_parts(message, int version, bytes prefix=b""):
    """Encode a whole frame as a list of parts: the int32 size of the rest, `prefix` (a header), the body.

    Record data from REFERENCE_BYTES_MIN bytes on is a part of its own, the very object that was given; the caller
    keeps it unchanged until the parts are sent. Raises as `encode` does.
    """
    cdef Plan plan = plan_of(message, version)
    cdef list splits = []
    cdef list parts = []
    cdef Writer writer = Writer(NULL, 0, 0, 0, <PyObject *>splits)
    cdef Py_ssize_t done = 0, position
    try:
        put(&writer, b"\0\0\0\0", 4)
        put(&writer, <const char *>prefix, len(prefix))
        write_struct(&writer, NULL, &plan.data, <PyObject *>message)
        if writer.size - 4 + writer.referenced > INT32_MAX:
            raise EncodeError(f"a frame of {writer.size - 4 + writer.referenced} bytes")
        store32(writer.data, <uint32_t>(writer.size - 4 + writer.referenced))
        for position, buffer in splits:
            if position > done:
                parts.append(bytes_of(<char *>writer.data + done, position - done))
            parts.append(buffer)
            done = position
        if writer.size > done:
            parts.append(bytes_of(<char *>writer.data + done, writer.size - done))
        return parts
    finally:
        PyMem_Free(writer.data)
