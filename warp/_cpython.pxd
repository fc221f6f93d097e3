"""CPython's C API with raw pointers, for code that counts references by hand; shared by the native leaves.

Functions that return `PyObject *` give a new reference unless noted; `except NULL` raises what they raise.
"""

from cpython.object cimport PyObject, PyTypeObject


cdef extern from *:
    """
    #include <structmember.h>
    /* Where __slots__ put a field: the offset inside the instance, or -1 when it is no plain slot. */
    static CYTHON_INLINE Py_ssize_t slot_offset(PyObject *descriptor) {
        if (!Py_IS_TYPE(descriptor, &PyMemberDescr_Type)) return -1;
        PyMemberDef *member = ((PyMemberDescrObject *)descriptor)->d_member;
        return member->type == T_OBJECT_EX ? member->offset : -1;
    }
    #define slot_of(instance, offset) ((PyObject **)((char *)(instance) + (offset)))
    """
    Py_ssize_t slot_offset(object descriptor)
    PyObject **slot_of(PyObject *instance, Py_ssize_t offset)

    PyObject *Py_None
    PyObject *Py_True
    PyObject *Py_False
    void Py_XINCREF(PyObject *value)
    void Py_XDECREF(PyObject *value)
    void Py_DECREF(PyObject *value)
    PyTypeObject *Py_TYPE(PyObject *value)
    bint PyLong_Check(PyObject *value)
    bint PyFloat_Check(PyObject *value)
    bint PyUnicode_Check(PyObject *value)
    bint PyBytes_Check(PyObject *value)
    bint PyList_Check(PyObject *value)
    bint PyTuple_Check(PyObject *value)
    bint PyObject_CheckBuffer(PyObject *value)

    PyObject *PyLong_FromLong(long value) except NULL
    PyObject *PyLong_FromLongLong(long long value) except NULL
    PyObject *PyFloat_FromDouble(double value) except NULL
    PyObject *PyUnicode_DecodeUTF8(const char *data, Py_ssize_t size, const char *errors) except NULL
    PyObject *PyBytes_FromStringAndSize(const char *data, Py_ssize_t size) except NULL
    PyObject *PyList_New(Py_ssize_t size) except NULL
    PyObject *PyMemoryView_FromObject(PyObject *source) except NULL

    long long PyLong_AsLongLongAndOverflow(PyObject *value, int *overflow) except? -1
    double PyFloat_AsDouble(PyObject *value) except? -1.0
    const char *PyUnicode_AsUTF8AndSize(PyObject *value, Py_ssize_t *size) except NULL
    char *PyBytes_AS_STRING(PyObject *value)
    Py_ssize_t PyBytes_GET_SIZE(PyObject *value)
    Py_buffer *PyMemoryView_GET_BUFFER(PyObject *view)
    void PyList_SET_ITEM(PyObject *items, Py_ssize_t index, PyObject *value)  # takes the reference
    Py_ssize_t PySequence_Fast_GET_SIZE(PyObject *value)  # of a list or tuple
    PyObject *PySequence_Fast_GET_ITEM(PyObject *value, Py_ssize_t index)  # borrowed
    PyObject *PyTuple_GET_ITEM(PyObject *value, Py_ssize_t index)  # borrowed
    Py_ssize_t PyTuple_GET_SIZE(PyObject *value)
    int PyObject_RichCompareBool(PyObject *one, PyObject *other, int operation) except -1
