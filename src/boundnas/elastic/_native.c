/* The kernels as a Python module: functions of tensors and numbers, run without the interpreter lock.
 *
 * Called so often that the way to a kernel counts: in a training step, with cold caches, ctypes takes
 * longer than the smaller kernels themselves.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "_native.h"

union value {
    void *p;
    long l;
    int i;
    float f;
};

static PyObject *data_ptr; /* the name of the method */

/* The memory of a tensor; NULL for None, or with an exception set. */
static void *memory_of(PyObject *tensor) {
    if (tensor == Py_None) return NULL;
    PyObject *address = PyObject_CallMethodNoArgs(tensor, data_ptr);
    if (!address) return NULL;
    void *memory = PyLong_AsVoidPtr(address);
    Py_DECREF(address);
    return memory;
}

/* The arguments by their signature: p tensor or None, l long, i int, f float. Returns 0, or -1 with an
 * exception set. */
static int parse(PyObject *const *arguments, Py_ssize_t count, const char *signature,
                 union value *values) {
    if (count != (Py_ssize_t)strlen(signature)) {
        PyErr_Format(PyExc_TypeError, "expected %zd arguments, found %zd", strlen(signature), count);
        return -1;
    }
    for (Py_ssize_t k = 0; k < count; k++) {
        if (signature[k] == 'f')
            values[k].f = PyFloat_AsDouble(arguments[k]);
        else if (signature[k] == 'l')
            values[k].l = PyLong_AsLong(arguments[k]);
        else if (signature[k] == 'i')
            values[k].i = PyLong_AsLong(arguments[k]);
        else
            values[k].p = memory_of(arguments[k]);
    }
    return PyErr_Occurred() ? -1 : 0;
}

#define KERNEL(name, signature, ...)                                                              \
    static PyObject *call_##name(PyObject *module, PyObject *const *arguments, Py_ssize_t count) { \
        union value v[sizeof signature];                                                           \
        int failed;                                                                                \
        if (parse(arguments, count, signature, v)) return NULL;                                    \
        Py_BEGIN_ALLOW_THREADS failed = name(__VA_ARGS__);                                         \
        Py_END_ALLOW_THREADS if (failed) return PyErr_NoMemory();                                  \
        Py_RETURN_NONE;                                                                            \
    }

KERNEL(depthwise, "ppplllllii", v[0].p, v[1].p, v[2].p, v[3].l, v[4].l, v[5].l, v[6].l, v[7].l, v[8].i,
       v[9].i)
KERNEL(depthwise_weight_gradient, "pppllllli", v[0].p, v[1].p, v[2].p, v[3].l, v[4].l, v[5].l, v[6].l,
       v[7].l, v[8].i)
KERNEL(batch_moments, "ppplli", v[0].p, v[1].p, v[2].p, v[3].l, v[4].l, v[5].i)
KERNEL(batch_norm_forward, "ppppppllfii", v[0].p, v[1].p, v[2].p, v[3].p, v[4].p, v[5].p, v[6].l, v[7].l,
       v[8].f, v[9].i, v[10].i)
KERNEL(batch_norm_backward, "pppppppppllii", v[0].p, v[1].p, v[2].p, v[3].p, v[4].p, v[5].p, v[6].p,
       v[7].p, v[8].p, v[9].l, v[10].l, v[11].i, v[12].i)
KERNEL(activation_products, "ppppppppllfi", v[0].p, v[1].p, v[2].p, v[3].p, v[4].p, v[5].p, v[6].p,
       v[7].p, v[8].l, v[9].l, v[10].f, v[11].i)
KERNEL(scale_gradients, "pppppllli", v[0].p, v[1].p, v[2].p, v[3].p, v[4].p, v[5].l, v[6].l, v[7].l,
       v[8].i)
KERNEL(pointwise, "pplpllli", v[0].p, v[1].p, v[2].l, v[3].p, v[4].l, v[5].l, v[6].l, v[7].i)
KERNEL(input_products, "ppplplpllllfi", v[0].p, v[1].p, v[2].p, v[3].l, v[4].p, v[5].l, v[6].p, v[7].l,
       v[8].l, v[9].l, v[10].l, v[11].f, v[12].i)
KERNEL(weight_products, "ppplpllli", v[0].p, v[1].p, v[2].p, v[3].l, v[4].p, v[5].l, v[6].l, v[7].l,
       v[8].i)
KERNEL(inner_product, "ppplfi", v[0].p, v[1].p, v[2].p, v[3].l, v[4].f, v[5].i)

#define METHOD(name) {#name, (PyCFunction)(void (*)(void))call_##name, METH_FASTCALL, NULL}

static PyMethodDef methods[] = {
    METHOD(depthwise),           METHOD(depthwise_weight_gradient), METHOD(batch_moments),
    METHOD(batch_norm_forward),  METHOD(batch_norm_backward),       METHOD(activation_products),
    METHOD(scale_gradients),     METHOD(pointwise),                 METHOD(input_products),
    METHOD(weight_products),     METHOD(inner_product),             {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_native", NULL, -1, methods};

PyMODINIT_FUNC PyInit__native(void) {
    data_ptr = PyUnicode_InternFromString("data_ptr");
    return data_ptr ? PyModule_Create(&definition) : NULL;
}
