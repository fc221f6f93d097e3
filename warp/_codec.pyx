"""The message codec: tables become plans, which say how each struct class is laid out and what each version writes.

A table (class body) becomes a `Layout`: where each field lives in an instance. A layout and a version become a `Plan`:
a C array with one operation per field, in wire order, which `_decode` and `_encode` walk without running Python code.
"""

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport Py_EQ, PyObject, PyTypeObject

from warp._cpython cimport (Py_XDECREF, Py_XINCREF, PyList_New, PyObject_RichCompareBool, PyTuple_GET_ITEM,
                            PyTuple_GET_SIZE, slot_of, slot_offset)

cdef extern from "struct_memory.h":
    object struct_alloc(PyTypeObject *cls)
    int struct_memory_adopt(PyTypeObject *cls, Py_ssize_t count, void *call) except -1


class DecodeError(ValueError):
    """The bytes are not a message of that class and version."""


class EncodeError(ValueError):
    """The values can't be written as a message of that class and version."""


cdef dict CODES = {
    "boolean": BOOLEAN, "int8": INT8, "int16": INT16, "uint16": UINT16, "int32": INT32, "uint32": UINT32,
    "int64": INT64, "float64": FLOAT64, "uuid": UUID, "string": STRING, "bytes": BYTES, "records": RECORDS,
    "struct": STRUCT,
}
cdef dict COMPACT = {STRING: COMPACT_STRING, BYTES: COMPACT_BYTES, RECORDS: COMPACT_RECORDS, ARRAY: COMPACT_ARRAY}
cdef dict WIDTHS = {BOOLEAN: 1, INT8: 1, INT16: 2, UINT16: 2, INT32: 4, UINT32: 4, INT64: 8, FLOAT64: 8, UUID: 16}
cdef dict SIZE_MIN = {
    STRING: 2, BYTES: 4, RECORDS: 4, ARRAY: 4,
    COMPACT_STRING: 1, COMPACT_BYTES: 1, COMPACT_RECORDS: 1, COMPACT_ARRAY: 1, NULLABLE_STRUCT: 1,
}


cdef class Layout:
    """Where the fields of one struct class live, what they hold when absent, and the plans made so far.

    `fields` are descriptions with the attributes of `warp.protocol.schema.Field`, in wire order; `versions` and
    `flexible` (the first flexible version or None) belong to messages and are None for inner structs.
    """

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
        struct_memory_adopt(<PyTypeObject *>cls, self.count, <void *>call_struct)

    def __dealloc__(self):
        PyMem_Free(self.slots)

    cdef int find(self, PyObject *name, int first) except -1:
        """The index of a field; arguments mostly come in the order of the fields, so the search begins at `first`."""
        cdef int index, candidate
        for index in range(self.count):
            candidate = (first + index) % self.count
            if self.slots[candidate].name == name:
                return candidate
        for index in range(self.count):
            if PyObject_RichCompareBool(self.slots[index].name, name, Py_EQ):
                return index
        raise TypeError(f"{self.cls.__name__} has no {<str>name}")

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
            op.field = index
        count[0] = len(indexes)
        return first

    cdef int _complete(self, Op *op, int version) except -1:
        """Give an operation its element, its child plan and its compact form."""
        field = self.layout.fields[op.field]
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
        op.width = WIDTHS.get(op.code, 0)
        leaf.width = WIDTHS.get(leaf.code, 0)
        if op.element != NULL:
            op.size_min = max(encoded_size_min(leaf), 1)
        return 0


cdef Py_ssize_t encoded_size_min(const Op *op) except -1:
    if op.code == STRUCT:
        return op.child.size_min
    return op.width or SIZE_MIN[op.code]


# ---- instances ----

cdef class StructBase:
    """Base of every message and of its parts: fields by keyword, equality and repr. See warp.protocol.schema."""

    def __init__(self, **values):
        # Calls come here where they are not made as vector calls, see `call_struct`.
        cdef Layout layout = <Layout?>type(self).__layout__
        for name, value in values.items():
            set_field(layout, <PyObject *>self, layout.find(<PyObject *>name, 0), <PyObject *>value)
        fill_initial(layout, <PyObject *>self)

    def __eq__(self, other):
        if type(self) is not type(other):
            return NotImplemented
        return all([getattr(self, field.name) == getattr(other, field.name) for field in type(self).__layout__.fields])

    __hash__ = None

    def __reduce__(self):
        cls = type(self)
        return _rebuild, (cls, {field.name: getattr(self, field.name) for field in cls.__layout__.fields})

    def __repr__(self):
        fields = type(self).__layout__.fields
        return f"{type(self).__name__}({', '.join([f'{f.name}={getattr(self, f.name)!r}' for f in fields])})"


def _rebuild(cls, values):
    """The other half of copying and pickling a struct."""
    return cls(**values)


cdef object new_struct(PyTypeObject *cls):
    """A new instance of a struct class, all fields unset."""
    return struct_alloc(cls)


cdef object call_struct(PyObject *cls, PyObject **arguments, size_t count_and_flag, PyObject *names):
    """`Class(name=value, ...)` as a vector call: values go straight into their slots, with no dict in between."""
    cdef Layout layout = <Layout?>(<object>cls).__layout__
    cdef object made = struct_alloc(<PyTypeObject *>cls)
    cdef PyObject *instance = <PyObject *>made
    cdef Py_ssize_t given = 0 if names == NULL else PyTuple_GET_SIZE(names)
    cdef Py_ssize_t index
    cdef int found = -1
    if count_and_flag << 1:  # the highest bit is a flag
        raise TypeError(f"{layout.cls.__name__} takes its fields by keyword")
    for index in range(given):
        found = layout.find(PyTuple_GET_ITEM(names, index), found + 1)
        set_field(layout, instance, found, arguments[index])
    if given < layout.count:
        fill_initial(layout, instance)
    return made


cdef inline int set_field(Layout layout, PyObject *instance, int index, PyObject *value) noexcept:
    cdef PyObject **place = slot_of(instance, layout.slots[index].offset)
    cdef PyObject *old = place[0]
    Py_XINCREF(value)
    place[0] = value
    Py_XDECREF(old)
    return 0


cdef int fill_initial(Layout layout, PyObject *instance) except -1:
    """Give the fields that are still unset what they hold when absent."""
    cdef Slot *slot
    cdef PyObject **place
    cdef int index
    for index in range(layout.count):
        slot = &layout.slots[index]
        place = slot_of(instance, slot.offset)
        if place[0] != NULL:
            continue
        if slot.required:
            raise TypeError(f"{layout.cls.__name__} needs {<str>slot.name}")
        if slot.initial == NULL:
            place[0] = PyList_New(0)
        else:
            Py_XINCREF(slot.initial)
            place[0] = slot.initial
    return 0
