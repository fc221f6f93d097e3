"""What the decoder and the encoder share: plans, and the objects that they fill or read."""

from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport uint32_t


cdef enum Code:
    BOOLEAN, INT8, INT16, UINT16, INT32, UINT32, INT64, FLOAT64, UUID
    STRING, BYTES, RECORDS, ARRAY
    COMPACT_STRING, COMPACT_BYTES, COMPACT_RECORDS, COMPACT_ARRAY
    STRUCT, NULLABLE_STRUCT


cdef struct PlanData


cdef struct Op:
    Code code
    bint nullable
    bint ignorable
    uint32_t tag
    int field               # its index in the table
    Py_ssize_t slot         # offset of the field in an instance
    PyObject *initial       # its value when absent, borrowed from the layout; NULL: a new list
    PyObject *owner         # class and name, for messages
    PyObject *name
    Py_ssize_t width        # bytes of a value of fixed width, else 0
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
    cdef readonly object cls
    cdef readonly tuple fields
    cdef readonly object versions
    cdef readonly object flexible
    cdef dict plans
    cdef Slot *slots
    cdef int count

    cdef int find(self, PyObject *name, int first) except -1
    cdef Plan plan(self, int version)
    cdef Plan part(self, int version, bint flexible)


cdef class Plan:
    cdef PlanData data
    cdef Layout layout
    cdef list children
    cdef Op *storage
    cdef int used

    cdef Op *_fill(self, list indexes, int version, int *count) except NULL
    cdef int _complete(self, Op *op, int version) except -1


cdef object new_struct(PyTypeObject *cls)
