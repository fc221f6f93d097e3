/* Memory of message structs.

   Decoding one request makes and drops a hundred small objects. Python's way of making and dropping instances of a
   class costs more than decoding them, so struct classes get their own: blocks are kept in free lists by number of
   fields, and instances are not tracked by the cycle collector (messages are trees).

   A struct class has slots only, each of them one PyObject pointer right behind the object header, and nothing else:
   no dict, no weak references, no finalizer. `struct_memory_adopt` checks the parts of that which it can see. */

#include <Python.h>

#define STRUCT_FIELDS_MAX 24    /* classes with more fields don't use the free lists */
#define STRUCT_BLOCKS_MAX 256   /* blocks kept for each number of fields */

typedef struct struct_block { struct struct_block *next; } struct_block;

static struct_block *struct_blocks[STRUCT_FIELDS_MAX + 1];
static int struct_block_counts[STRUCT_FIELDS_MAX + 1];

#define STRUCT_SLOTS(self) ((PyObject **)((char *)(self) + sizeof(PyObject)))
#define STRUCT_FIELD_COUNT(cls) (((cls)->tp_basicsize - (Py_ssize_t)sizeof(PyObject)) / (Py_ssize_t)sizeof(PyObject *))

/* A new instance, all slots empty; not tracked. */
static inline PyObject *struct_alloc(PyTypeObject *cls) {
    Py_ssize_t count = STRUCT_FIELD_COUNT(cls);
    PyObject *self;
    if (count <= STRUCT_FIELDS_MAX && struct_blocks[count] != NULL) {
        struct_block *block = struct_blocks[count];
        struct_blocks[count] = block->next;
        struct_block_counts[count]--;
        block->next = NULL;
        self = (PyObject *)((char *)block - sizeof(PyObject));
#ifdef Py_REF_DEBUG
        return PyObject_Init(self, cls);
#else
        Py_SET_REFCNT(self, 1);
        Py_SET_TYPE(self, cls);
        Py_INCREF(cls);
        return self;
#endif
    }
    self = PyObject_GC_New(PyObject, cls);
    if (self != NULL) memset(STRUCT_SLOTS(self), 0, count * sizeof(PyObject *));
    return self;
}

static void struct_dealloc(PyObject *self) {
    PyTypeObject *cls = Py_TYPE(self);
    Py_ssize_t count = STRUCT_FIELD_COUNT(cls);
    PyObject **slots = STRUCT_SLOTS(self);
    if (PyObject_GC_IsTracked(self)) PyObject_GC_UnTrack(self);
    for (Py_ssize_t index = 0; index < count; index++) Py_CLEAR(slots[index]);
    if (count > 0 && count <= STRUCT_FIELDS_MAX && struct_block_counts[count] < STRUCT_BLOCKS_MAX) {
        /* The first slot of a kept block holds the link, the others stay empty. */
        struct_block *block = (struct_block *)slots;
        block->next = struct_blocks[count];
        struct_blocks[count] = block;
        struct_block_counts[count]++;
    } else {
        PyObject_GC_Del(self);
    }
    Py_DECREF(cls);
}

/* Let the instances of a class be made (by `call`, a vectorcallfunc) and dropped here; -1 with an error when it is no class of slots alone. */
static int struct_memory_adopt(PyTypeObject *cls, Py_ssize_t count, void *call) {
    if (STRUCT_FIELD_COUNT(cls) != count || cls->tp_dictoffset || cls->tp_weaklistoffset || cls->tp_itemsize
            || !PyType_IS_GC(cls) || cls->tp_finalize || cls->tp_del) {
        PyErr_Format(PyExc_TypeError, "%s does not consist of slots alone", cls->tp_name);
        return -1;
    }
    cls->tp_dealloc = struct_dealloc;
    /* Calling the class: metaclasses written in Python don't inherit the flag that lets a class be a vector call. */
    cls->tp_vectorcall = (vectorcallfunc)call;
    Py_TYPE(cls)->tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL;
    Py_TYPE(cls)->tp_vectorcall_offset = offsetof(PyTypeObject, tp_vectorcall);
    return 0;
}
