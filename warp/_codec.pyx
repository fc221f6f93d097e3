# cython: freethreading_compatible=False
"""The schema engine: decodes and encodes every Kafka message from the tables in warp/protocol/messages.

A table (class body) becomes a `Layout`: where each field lives in an instance. A layout and a version become a `Plan`:
a C array with one operation per field, in wire order. Decoding writes straight into the slots of the new instance and
encoding reads from them, so that no Python code runs per field.

Nothing from the wire is trusted: a length is compared with the bytes left before anything is allocated, the number of
array elements of a message is bounded, and depth is bounded by the tables, which are finite trees.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.dict cimport PyDict_GetItemWithError
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Realloc
from cpython.object cimport Py_EQ, PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport (INT8_MAX, INT8_MIN, INT16_MAX, INT16_MIN, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN, UINT16_MAX, UINT32_MAX,
                          int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t)
from libc.string cimport memcpy, memmove

from warp._wire cimport (UVARINT_BYTES_MAX, Cursor, bits_of_double, double_of_bits, left, load16, load32, load64,
                         put_uvarint, read_uvarint, store16, store32, store64)

cdef extern from *:
    """
    #include <structmember.h>
    /* Where __slots__ put a field: the offset inside the instance, or -1 when it is no plain slot. */
    static Py_ssize_t slot_offset(PyObject *descriptor) {
        if (!Py_IS_TYPE(descriptor, &PyMemberDescr_Type)) return -1;
        PyMemberDef *member = ((PyMemberDescrObject *)descriptor)->d_member;
        return member->type == T_OBJECT_EX ? member->offset : -1;
    }
    #define slot_of(instance, offset) ((PyObject **)((char *)(instance) + (offset)))
    """
    Py_ssize_t slot_offset(object descriptor)
    PyObject **slot_of(PyObject *instance, Py_ssize_t offset)
    object allocate "PyType_GenericAlloc"(PyTypeObject *cls, Py_ssize_t items)
    PyObject *PyLong_FromLong(long value) except NULL
    PyObject *PyLong_FromLongLong(long long value) except NULL
    PyObject *PyFloat_FromDouble(double value) except NULL
    PyObject *PyUnicode_DecodeUTF8(const char *data, Py_ssize_t size, const char *errors) except NULL
    PyObject *raw_bytes "PyBytes_FromStringAndSize"(const char *data, Py_ssize_t size) except NULL
    PyObject *raw_list "PyList_New"(Py_ssize_t size) except NULL
    PyObject *raw_view "PyMemoryView_FromObject"(PyObject *source) except NULL
    void list_set "PyList_SET_ITEM"(PyObject *items, Py_ssize_t index, PyObject *value)
    Py_buffer *view_buffer "PyMemoryView_GET_BUFFER"(PyObject *view)
    long long PyLong_AsLongLongAndOverflow(PyObject *value, int *overflow) except? -1
    double PyFloat_AsDouble(PyObject *value) except? -1.0
    const char *PyUnicode_AsUTF8AndSize(PyObject *value, Py_ssize_t *size) except NULL
    bint PyLong_Check(PyObject *value)
    bint PyFloat_Check(PyObject *value)
    bint PyUnicode_Check(PyObject *value)
    bint PyBytes_Check(PyObject *value)
    bint PyList_Check(PyObject *value)
    bint PyTuple_Check(PyObject *value)
    bint raw_check_buffer "PyObject_CheckBuffer"(PyObject *value)
    Py_ssize_t sequence_size "PySequence_Fast_GET_SIZE"(PyObject *value)
    PyObject *sequence_item "PySequence_Fast_GET_ITEM"(PyObject *value, Py_ssize_t index)
    PyTypeObject *Py_TYPE(PyObject *value)
    char *raw_bytes_data "PyBytes_AS_STRING"(PyObject *value)
    Py_ssize_t raw_bytes_size "PyBytes_GET_SIZE"(PyObject *value)
    void Py_XINCREF(PyObject *value)
    void Py_XDECREF(PyObject *value)
    void Py_DECREF(PyObject *value)
    PyObject *Py_None
    PyObject *Py_True
    PyObject *Py_False
    int compare "PyObject_RichCompareBool"(PyObject *one, PyObject *other, int operation) except -1


DECODE_ELEMENTS_MAX = 1 << 18
"""Array elements in one message, all arrays together: what a decoded message may cost beyond its own bytes."""

REFERENCE_BYTES_MIN = 4096
"""Record data from this size on is passed on by reference instead of being copied into a part."""

STRING_BYTES_MAX = INT16_MAX


class DecodeError(ValueError):
    """The bytes are not a message of that class and version."""


class EncodeError(ValueError):
    """The values can't be written as a message of that class and version."""


cdef enum Code:
    BOOLEAN, INT8, INT16, UINT16, INT32, UINT32, INT64, FLOAT64, UUID
    STRING, BYTES, RECORDS, ARRAY
    COMPACT_STRING, COMPACT_BYTES, COMPACT_RECORDS, COMPACT_ARRAY
    STRUCT, NULLABLE_STRUCT


cdef dict CODES = {
    "boolean": BOOLEAN, "int8": INT8, "int16": INT16, "uint16": UINT16, "int32": INT32, "uint32": UINT32,
    "int64": INT64, "float64": FLOAT64, "uuid": UUID, "string": STRING, "bytes": BYTES, "records": RECORDS,
    "struct": STRUCT,
}
cdef dict COMPACT = {STRING: COMPACT_STRING, BYTES: COMPACT_BYTES, RECORDS: COMPACT_RECORDS, ARRAY: COMPACT_ARRAY}
cdef dict SIZE_MIN = {
    BOOLEAN: 1, INT8: 1, INT16: 2, UINT16: 2, INT32: 4, UINT32: 4, INT64: 8, FLOAT64: 8, UUID: 16,
    STRING: 2, BYTES: 4, RECORDS: 4, ARRAY: 4,
    COMPACT_STRING: 1, COMPACT_BYTES: 1, COMPACT_RECORDS: 1, COMPACT_ARRAY: 1, NULLABLE_STRUCT: 1,
}


cdef struct PlanData


cdef struct Op:
    Code code
    bint nullable
    bint ignorable
    uint32_t tag
    Py_ssize_t slot         # offset of the field in an instance
    PyObject *initial       # its value when absent, borrowed from the layout; NULL: a new list
    PyObject *owner         # class and name, for messages
    PyObject *name
    Py_ssize_t size_min     # bytes of the shortest element of an array
    Op *element             # of an array
    PlanData *child         # of a struct


cdef struct PlanData:
    PyTypeObject *cls
    int op_count
    int tag_count
    int absent_count
    bint flexible
    Py_ssize_t size_min     # bytes of the shortest encoding
    Op *ops                 # fields in line, in wire order
    Op *tags                # tagged fields, by tag
    Op *absent              # fields that this version lacks


cdef struct Slot:
    PyObject *name
    PyObject *initial
    Py_ssize_t offset
    bint required


cdef class Layout:
    """Where the fields of one struct class live, what they hold when absent, and the plans made so far.

    `fields` are descriptions with the attributes of `warp.protocol.schema.Field`, in wire order; `versions` and
    `flexible` (the first flexible version or None) belong to messages and are None for inner structs.
    """

    cdef readonly object cls
    cdef readonly tuple fields
    cdef readonly object versions
    cdef readonly object flexible
    cdef dict plans
    cdef Slot *slots
    cdef int count

    def __cinit__(self, cls, tuple fields, versions, flexible):
        self.cls = cls
        self.fields = fields
        self.versions = versions
        self.flexible = flexible
        self.plans = {}
        self.count = len(fields)
        self.slots = <Slot *>PyMem_Calloc(max(self.count, 1), sizeof(Slot))
        if self.slots == NULL:
            raise MemoryError
        for index, field in enumerate(fields):
            self.slots[index].name = <PyObject *>field.name
            self.slots[index].offset = slot_offset(cls.__dict__[field.name])
            self.slots[index].initial = NULL if field.starts_as_list else <PyObject *>field.initial
            self.slots[index].required = field.required
            if self.slots[index].offset < 0:
                raise TypeError(f"{cls.__name__}.{field.name} is not a slot")

    def __dealloc__(self):
        PyMem_Free(self.slots)

    cdef Plan plan(self, int version):
        """The plan for a version of this message."""
        found = self.plans.get(version)
        if found is not None:
            return <Plan>found
        if self.versions is None:
            raise TypeError(f"{self.cls.__name__} is a part of messages and has no versions of its own")
        low, high = self.versions
        if not low <= version <= high:
            raise ValueError(f"{self.cls.__name__} has versions {low} to {high}, not {version}")
        made = Plan(self, version, self.flexible is not None and version >= self.flexible)
        self.plans[version] = made
        return made

    cdef Plan part(self, int version, bint flexible):
        """The plan for this struct inside a message of that version."""
        key = (version, flexible)
        found = self.plans.get(key)
        if found is None:
            found = self.plans[key] = Plan(self, version, flexible)
        return <Plan>found


cdef class Plan:
    """The operations for one struct in one version; owns its C arrays and keeps the plans of its children."""

    cdef PlanData data
    cdef Layout layout
    cdef list children
    cdef Op *storage
    cdef int used

    def __cinit__(self, Layout layout, int version, bint flexible):
        self.layout = layout
        self.children = []
        self.storage = <Op *>PyMem_Calloc(2 * layout.count + 1, sizeof(Op))  # an array takes two
        if self.storage == NULL:
            raise MemoryError
        self.data.cls = <PyTypeObject *>layout.cls
        self.data.flexible = flexible
        self.data.size_min = flexible
        present = [index for index, field in enumerate(layout.fields) if field.since <= version <= field.until]
        inline = [index for index in present if layout.fields[index].tag is None]
        tagged = [index for index in present if layout.fields[index].tag is not None]
        tagged.sort(key=lambda index: layout.fields[index].tag)
        absent = [index for index in range(layout.count) if index not in present]
        self.data.ops = self._fill(inline, version, &self.data.op_count)
        self.data.tags = self._fill(tagged, version, &self.data.tag_count)
        self.data.absent = self._fill(absent, version, &self.data.absent_count)
        for index in range(self.data.op_count + self.data.tag_count):
            self._complete(&self.storage[index], version)
        for index in range(self.data.op_count):
            self.data.size_min += encoded_size_min(&self.storage[index])

    def __dealloc__(self):
        PyMem_Free(self.storage)

    cdef Op *_fill(self, list indexes, int version, int *count) except NULL:
        cdef Op *first = &self.storage[self.used]
        cdef Op *op
        for index in indexes:
            field = self.layout.fields[index]
            op = &self.storage[self.used]
            self.used += 1
            op.slot = self.layout.slots[<int>index].offset
            op.initial = self.layout.slots[<int>index].initial
            op.owner = <PyObject *>self.layout.cls
            op.name = <PyObject *>field.name
            op.code = ARRAY if field.is_array else <Code><int>CODES[field.kind]
            op.nullable = field.nullable is not None and version >= field.nullable
            op.ignorable = field.ignorable
            op.tag = 0 if field.tag is None else field.tag
            op.size_min = index  # until `_complete` replaces it
        count[0] = len(indexes)
        return first

    cdef int _complete(self, Op *op, int version) except -1:
        """Give an operation its element, its child plan and its compact form."""
        field = self.layout.fields[op.size_min]
        cdef Op *leaf = op
        if op.code == ARRAY:
            leaf = op.element = &self.storage[self.used]
            self.used += 1
            leaf.owner, leaf.name, leaf.slot = op.owner, op.name, op.slot
            leaf.code = <Code><int>CODES[field.kind]
        elif op.code == STRUCT and op.nullable:
            op.code = NULLABLE_STRUCT
        if field.struct is not None:
            child = (<Layout>field.struct.__layout__).part(version, self.data.flexible)
            self.children.append(child)
            leaf.child = &(<Plan>child).data
        if self.data.flexible:
            op.code = <Code><int>COMPACT.get(op.code, op.code)
            leaf.code = <Code><int>COMPACT.get(leaf.code, leaf.code)
        op.size_min = 0
        if op.element != NULL:
            op.size_min = max(encoded_size_min(leaf), 1)
        return 0


cdef Py_ssize_t encoded_size_min(const Op *op) except -1:
    return op.child.size_min if op.code == STRUCT else SIZE_MIN[op.code]


# ---- decoding ----

cdef struct Reader:
    Cursor cursor
    Py_ssize_t elements_left
    PyObject *source        # the buffer that is read
    PyObject *view          # a memoryview of it, made when the first record data turns up


cdef int refuse(Reader *reader, const Op *op, str text) except -1:
    """Say which field can't be decoded, where, and why."""
    owner, name = (<object>op.owner).__name__, <str>op.name
    raise DecodeError(f"{owner}.{name} at byte {reader.cursor.at - reader.cursor.start}: {text}")


cdef inline int need(Reader *reader, const Op *op, Py_ssize_t size) except -1:
    if left(&reader.cursor) < size:
        refuse(reader, op, f"{size} bytes wanted where {left(&reader.cursor)} are left")
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
    if length > STRING_BYTES_MAX:
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
    value = raw_bytes(<const char *>reader.cursor.at, length)
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
    if reader.view == NULL:
        reader.view = raw_view(reader.source)
        if view_buffer(reader.view).itemsize != 1 or view_buffer(reader.view).ndim != 1:
            raise TypeError("a message is decoded from plain bytes")
    # A second view of the same buffer, narrowed in place: what slicing does, without a slice object.
    view = raw_view(reader.view)
    buffer = view_buffer(view)
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
    items_raw = raw_list(length)
    items = <list>items_raw
    Py_DECREF(items_raw)  # `items` holds it
    for index in range(length):
        list_set(items_raw, index, read_value(reader, element))
    Py_INCREF(items)
    return <PyObject *>items


cdef PyObject *read_value(Reader *reader, const Op *op) except NULL:
    cdef const uint8_t *at = reader.cursor.at
    cdef PyObject *value
    cdef Code code = op.code
    if code == INT32:
        need(reader, op, 4)
        value = PyLong_FromLong(<int32_t>load32(at))
        reader.cursor.at = at + 4
    elif code == INT16:
        need(reader, op, 2)
        value = PyLong_FromLong(<int16_t>load16(at))
        reader.cursor.at = at + 2
    elif code == INT64:
        need(reader, op, 8)
        value = PyLong_FromLongLong(<int64_t>load64(at))
        reader.cursor.at = at + 8
    elif code == INT8:
        need(reader, op, 1)
        value = PyLong_FromLong(<int8_t>at[0])
        reader.cursor.at = at + 1
    elif code == BOOLEAN:
        need(reader, op, 1)
        value = Py_True if at[0] else Py_False
        Py_XINCREF(value)
        reader.cursor.at = at + 1
    elif code == UINT16:
        need(reader, op, 2)
        value = PyLong_FromLong(load16(at))
        reader.cursor.at = at + 2
    elif code == UINT32:
        need(reader, op, 4)
        value = PyLong_FromLongLong(load32(at))
        reader.cursor.at = at + 4
    elif code == FLOAT64:
        need(reader, op, 8)
        value = PyFloat_FromDouble(double_of_bits(load64(at)))
        reader.cursor.at = at + 8
    elif code == UUID:
        need(reader, op, 16)
        value = raw_bytes(<const char *>at, 16)
        reader.cursor.at = at + 16
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
    cdef object made = allocate(plan.cls, 0)
    cdef PyObject *instance = <PyObject *>made
    cdef const Op *op
    cdef int index
    for index in range(plan.op_count):
        op = &plan.ops[index]
        slot_of(instance, op.slot)[0] = read_value(reader, op)
    for index in range(plan.absent_count):
        set_initial(instance, &plan.absent[index])
    if plan.flexible:
        read_tags(reader, plan, instance)
    Py_INCREF(made)
    return instance


cdef int set_initial(PyObject *instance, const Op *op) except -1:
    cdef PyObject *value = op.initial
    if value == NULL:
        value = raw_list(0)
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
    if left(&reader.cursor) > 0 and reader.cursor.at[0] == 0:
        reader.cursor.at += 1
        count = 0
    elif not read_uvarint(&reader.cursor, &count):
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


def decode(cls, int version, buffer, Py_ssize_t offset=0, *, Py_ssize_t elements_max=DECODE_ELEMENTS_MAX):
    """Decode `buffer` from `offset` to its end as one message.

    `records` fields become memoryviews of the buffer, which stays alive (and locked, if it is a bytearray) as long as
    they do; everything else is copied. Raises DecodeError when the bytes are not exactly one message of that class
    and version, ValueError when the class has no such version, TypeError when it is no message class.
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
        if reader.cursor.at != reader.cursor.end:
            raise DecodeError(f"{cls.__name__} v{version}: {left(&reader.cursor)} bytes after the end")
        return made
    finally:
        PyBuffer_Release(&data)


# ---- encoding ----

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
    if not raw_check_buffer(value):
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
        if value == Py_None or writer.splits == NULL or not raw_check_buffer(value):
            return write_bytes(writer, op, value)
        buffers = (<object>value,)
    else:
        buffers = tuple(<object>value)
    for buffer in buffers:
        if not PyObject_CheckBuffer(buffer):
            reject(op, f"{buffer!r} is no bytes")
        length += byte_count(buffer)
    write_length(writer, op, length)
    for buffer in buffers:
        if writer.splits == NULL or byte_count(buffer) < REFERENCE_BYTES_MIN:
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
    write_length(writer, op, sequence_size(value))
    while index < sequence_size(value):
        write_value(writer, op.element, sequence_item(value, index))
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
        if not PyBytes_Check(value) or raw_bytes_size(value) != 16:
            reject(op, f"{<object>value!r} is no UUID of 16 bytes")
        memcpy(at, raw_bytes_data(value), 16)
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
        return (PyList_Check(value) or PyTuple_Check(value)) and sequence_size(value) == 0
    return value == op.initial or compare(value, op.initial, Py_EQ)


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
        return PyBytes_FromStringAndSize(<char *>writer.data, writer.size)
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
        put(&writer, PyBytes_AS_STRING(prefix), len(prefix))
        write_struct(&writer, NULL, &plan.data, <PyObject *>message)
        if writer.size - 4 + writer.referenced > INT32_MAX:
            raise EncodeError(f"a frame of {writer.size - 4 + writer.referenced} bytes")
        store32(writer.data, <uint32_t>(writer.size - 4 + writer.referenced))
        for position, buffer in splits:
            if position > done:
                parts.append(PyBytes_FromStringAndSize(<char *>writer.data + done, position - done))
            parts.append(buffer)
            done = position
        if writer.size > done:
            parts.append(PyBytes_FromStringAndSize(<char *>writer.data + done, writer.size - done))
        return parts
    finally:
        PyMem_Free(writer.data)


# ---- instances ----

cdef class StructBase:
    """Base of every message and of its parts: fields by keyword, equality and repr. See warp.protocol.schema."""

    def __init__(self, **values):
        cdef Layout layout = <Layout?>type(self).__layout__
        cdef PyObject *instance = <PyObject *>self
        cdef PyObject **place
        cdef PyObject *value
        cdef PyObject *old
        cdef Slot *slot
        cdef int index
        cdef Py_ssize_t used = 0
        for index in range(layout.count):
            slot = &layout.slots[index]
            value = PyDict_GetItemWithError(values, <object>slot.name)
            if value != NULL:
                used += 1
                Py_XINCREF(value)
            elif slot.required:
                raise TypeError(f"{layout.cls.__name__} needs {<str>slot.name}")
            elif slot.initial == NULL:
                value = raw_list(0)
            else:
                value = slot.initial
                Py_XINCREF(value)
            place = slot_of(instance, slot.offset)
            old = place[0]
            place[0] = value
            Py_XDECREF(old)
        if used != len(values):
            unknown = sorted(set(values) - {field.name for field in layout.fields})
            raise TypeError(f"{layout.cls.__name__} has no {', '.join(unknown)}")

    def __eq__(self, other):
        if type(self) is not type(other):
            return NotImplemented
        return all([getattr(self, field.name) == getattr(other, field.name) for field in type(self).__layout__.fields])

    __hash__ = None

    def __repr__(self):
        fields = type(self).__layout__.fields
        return f"{type(self).__name__}({', '.join([f'{f.name}={getattr(self, f.name)!r}' for f in fields])})"


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
