cdef class Block:
    cdef char *data
    cdef Py_ssize_t size
    cdef int size_class


cdef Block new_block(Py_ssize_t size)
