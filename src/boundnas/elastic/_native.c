/* The kernels as a Python module: functions of tensors and numbers, run without the interpreter lock.
 *
 * Called so often that the way to a kernel counts: in a training step, with cold caches, ctypes takes
 * longer than the smaller kernels themselves.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "_native.h"

static const struct kernels *kernels;

struct value {
    void *p;
    long l;
    int i;
    float f;
    long elements; /* of a tensor; -1 of None */
};

/* Attributes and methods of tensors, and what is looked for. */
static PyObject *data_ptr, *dtype, *is_cpu, *dim, *numel, *is_contiguous, *stride, *with_format, *float32,
    *channels_last;

/* Whether an attribute is this object; -1 with an exception set. */
static int is(PyObject *tensor, PyObject *attribute, PyObject *expected) {
    PyObject *found = PyObject_GetAttr(tensor, attribute);
    if (!found) return -1;
    const int same = found == expected;
    Py_DECREF(found);
    return same;
}

/* A number that a method gives; -1 with an exception set. */
static long number(PyObject *tensor, PyObject *method, long argument) {
    PyObject *index = argument < 0 ? NULL : PyLong_FromLong(argument);
    PyObject *found = index ? PyObject_CallMethodOneArg(tensor, method, index)
                            : PyObject_CallMethodNoArgs(tensor, method);
    Py_XDECREF(index);
    const long value = found ? PyLong_AsLong(found) : -1;
    Py_XDECREF(found);
    return value;
}

static int contiguous(PyObject *tensor, PyObject *format) {
    PyObject *arguments[] = {tensor, format};
    PyObject *found =
        PyObject_VectorcallMethod(is_contiguous, arguments, 1, format ? with_format : NULL);
    const int yes = found == Py_True;
    Py_XDECREF(found);
    return yes;
}

/* Whether a tensor lies in memory as its kind says:
 *
 *     m  a map, channels-last, or rows: without gaps
 *     p  anything without gaps
 *     o  likewise, or None
 *     s  rows as far apart as the next argument says, each in one piece
 */
static int laid_out(PyObject *tensor, char kind, long apart) {
    if (kind == 'm' && number(tensor, dim, -1) == 4) return contiguous(tensor, channels_last);
    if (kind != 's') return contiguous(tensor, NULL);
    return number(tensor, dim, -1) >= 2 && number(tensor, stride, 0) == apart &&
           (number(tensor, stride, 1) == 1 || number(tensor, numel, -1) == 0);
}

/* Take a tensor. Returns what is wrong with it, if anything. */
static const char *take(PyObject *tensor, char kind, long apart, struct value *value) {
    value->elements = -1;
    if (tensor == Py_None) return kind == 'o' ? NULL : "is missing";
    if (is(tensor, dtype, float32) != 1) return "is not a float32 tensor";
    if (is(tensor, is_cpu, Py_True) != 1) return "is not in the CPU's memory";
    if (!laid_out(tensor, kind, apart)) return "does not lie in memory as the kernel reads it";
    value->elements = number(tensor, numel, -1);
    PyObject *address = PyObject_CallMethodNoArgs(tensor, data_ptr);
    value->p = address ? PyLong_AsVoidPtr(address) : NULL;
    Py_XDECREF(address);
    return NULL;
}

static int refuse(const char *kernel, Py_ssize_t argument, const char *what) {
    if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_AttributeError))
        PyErr_Format(PyExc_RuntimeError, "kernel %s: argument %zd %s", kernel, argument + 1, what);
    return -1;
}

/* The arguments by their signature: kinds of tensors, l long, i int, f float. Returns 0, or -1 with an
 * exception set. */
static int parse(const char *kernel, PyObject *const *arguments, Py_ssize_t count,
                 const char *signature, struct value *values) {
    if (count != (Py_ssize_t)strlen(signature)) {
        PyErr_Format(PyExc_TypeError, "kernel %s: expected %zd arguments, found %zd", kernel,
                     strlen(signature), count);
        return -1;
    }
    for (Py_ssize_t k = count - 1; k >= 0; k--) { /* backwards: distances come after their rows */
        const char *fault = NULL;
        values[k] = (struct value){0};
        if (signature[k] == 'f')
            values[k].f = PyFloat_AsDouble(arguments[k]);
        else if (signature[k] == 'l')
            values[k].l = PyLong_AsLong(arguments[k]);
        else if (signature[k] == 'i')
            values[k].i = PyLong_AsLong(arguments[k]);
        else
            fault = take(arguments[k], signature[k], k + 1 < count ? values[k + 1].l : 0, values + k);
        if (fault) return refuse(kernel, k, fault);
        if (PyErr_Occurred()) return -1;
    }
    return 0;
}

/* Whether every tensor has as many elements as the kernel's numbers say; else an exception is set. */
static int fit(const char *kernel, const char *signature, const struct value *values,
               const long *sizes) {
    for (Py_ssize_t k = 0; signature[k]; k++)
        if (strchr("mpos", signature[k]) && *sizes++ != values[k].elements && values[k].elements >= 0)
            return refuse(kernel, k, "is not of the size that the others ask for"), 0;
    return 1;
}

#define LIST(...) {__VA_ARGS__}

/* sizes: of the tensors. */
#define KERNEL(name, signature, sizes, ...)                                                        \
    static PyObject *call_##name(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {  \
        struct value v[sizeof signature];                                                           \
        int failed;                                                                                 \
        if (parse(#name, arguments, count, signature, v)) return NULL;                              \
        const long elements[] = sizes;                                                              \
        if (!fit(#name, signature, v, elements)) return NULL;                                       \
        Py_BEGIN_ALLOW_THREADS failed = kernels->name(__VA_ARGS__);                               \
        Py_END_ALLOW_THREADS if (failed) return PyErr_NoMemory();                                   \
        Py_RETURN_NONE;                                                                             \
    }

/* Pixels of a map of n images, h by w, and what a stride leaves of them. */
static long strided(long n, long h, long w, long stride) {
    return n * ((h + stride - 1) / stride) * ((w + stride - 1) / stride);
}

KERNEL(depthwise, "mpmlllllii",
       LIST(v[3].l * v[4].l * v[5].l * v[6].l, v[6].l * v[8].i * v[8].i,
            v[6].l * strided(v[3].l, v[4].l, v[5].l, v[7].l)),
       v[0].p, v[1].p, v[2].p, v[3].l, v[4].l, v[5].l, v[6].l, v[7].l, v[8].i, v[9].i)
KERNEL(depthwise_weight_gradient, "mmpllllli",
       LIST(v[3].l * v[4].l * v[5].l * v[6].l, v[6].l * strided(v[3].l, v[4].l, v[5].l, v[7].l),
            v[6].l * 25),
       v[0].p, v[1].p, v[2].p, v[3].l, v[4].l, v[5].l, v[6].l, v[7].l, v[8].i)
KERNEL(batch_moments, "mpplli", LIST(v[3].l * v[4].l, v[4].l, v[4].l), v[0].p, v[1].p, v[2].p, v[3].l,
       v[4].l, v[5].i)
KERNEL(batch_norm_forward, "mppmppllfii",
       LIST(v[6].l * v[7].l, v[7].l, v[7].l, v[6].l * v[7].l, v[7].l, v[7].l), v[0].p, v[1].p, v[2].p,
       v[3].p, v[4].p, v[5].p, v[6].l, v[7].l, v[8].f, v[9].i, v[10].i)
KERNEL(batch_norm_backward, "mmppppmppllii",
       LIST(v[9].l * v[10].l, v[9].l * v[10].l, v[10].l, v[10].l, v[10].l, v[10].l, v[9].l * v[10].l,
            v[10].l, v[10].l),
       v[0].p, v[1].p, v[2].p, v[3].p, v[4].p, v[5].p, v[6].p, v[7].p, v[8].p, v[9].l, v[10].l, v[11].i,
       v[12].i)
KERNEL(activation_products, "mmppppoollfi",
       LIST(v[8].l * v[9].l, v[8].l * v[9].l, v[9].l, v[9].l, v[9].l, v[9].l, 1, 1), v[0].p, v[1].p,
       v[2].p, v[3].p, v[4].p, v[5].p, v[6].p, v[7].p, v[8].l, v[9].l, v[10].f, v[11].i)
KERNEL(scale_gradients, "mmpmpllli",
       LIST(v[5].l * v[6].l * v[7].l, v[5].l * v[6].l * v[7].l, v[5].l * v[7].l,
            v[5].l * v[6].l * v[7].l, v[5].l * v[7].l),
       v[0].p, v[1].p, v[2].p, v[3].p, v[4].p, v[5].l, v[6].l, v[7].l, v[8].i)
KERNEL(pointwise, "mslmllli", LIST(v[4].l * v[5].l, v[5].l * v[6].l, v[4].l * v[6].l), v[0].p, v[1].p,
       v[2].l, v[3].p, v[4].l, v[5].l, v[6].l, v[7].i)
KERNEL(input_products, "mmslslpllllfi",
       LIST(v[7].l * v[8].l, v[7].l * v[9].l, v[8].l * v[9].l, v[10].l * v[9].l, v[10].l), v[0].p,
       v[1].p, v[2].p, v[3].l, v[4].p, v[5].l, v[6].p, v[7].l, v[8].l, v[9].l, v[10].l, v[11].f,
       v[12].i)
KERNEL(weight_products, "ppslpllli",
       LIST(v[5].l * v[6].l, v[5].l * v[6].l, v[7].l * v[6].l, v[7].l), v[0].p, v[1].p, v[2].p, v[3].l,
       v[4].p, v[5].l, v[6].l, v[7].l, v[8].i)
KERNEL(inner_product, "mmplfi", LIST(v[3].l, v[3].l, 1), v[0].p, v[1].p, v[2].p, v[3].l, v[4].f, v[5].i)

#define METHOD(name) {#name, (PyCFunction)(void (*)(void))call_##name, METH_FASTCALL, NULL}

static PyMethodDef methods[] = {
    METHOD(depthwise),           METHOD(depthwise_weight_gradient), METHOD(batch_moments),
    METHOD(batch_norm_forward),  METHOD(batch_norm_backward),       METHOD(activation_products),
    METHOD(scale_gradients),     METHOD(pointwise),                 METHOD(input_products),
    METHOD(weight_products),     METHOD(inner_product),             {NULL, NULL, 0, NULL},
};

/* Those of the processor that PyTorch found, or was told of by ATEN_CPU_CAPABILITY; NULL with an
 * exception set. */
static const struct kernels *suitable(void) {
    const struct kernels *found = NULL;
    PyObject *cpu = PyImport_ImportModule("torch.backends.cpu");
    PyObject *kind = cpu ? PyObject_CallMethod(cpu, "get_cpu_capability", NULL) : NULL;
    const char *name = kind ? PyUnicode_AsUTF8(kind) : NULL;
    if (name) found = &kernels_any;
#ifdef KINDS_OF_X86
    if (name && !strcmp(name, "AVX2")) found = &kernels_avx2;
    if (name && !strncmp(name, "AVX512", 6)) found = &kernels_avx512;
#endif
    Py_XDECREF(cpu);
    Py_XDECREF(kind);
    return found;
}

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_native", NULL, -1, methods};

PyMODINIT_FUNC PyInit__native(void) {
    PyObject *torch = PyImport_ImportModule("torch");
    if (!torch || !(kernels = suitable())) return NULL;
    float32 = PyObject_GetAttrString(torch, "float32");
    channels_last = PyObject_GetAttrString(torch, "channels_last");
    Py_DECREF(torch);
    with_format = Py_BuildValue("(s)", "memory_format");
    data_ptr = PyUnicode_InternFromString("data_ptr");
    dtype = PyUnicode_InternFromString("dtype");
    is_cpu = PyUnicode_InternFromString("is_cpu");
    dim = PyUnicode_InternFromString("dim");
    numel = PyUnicode_InternFromString("numel");
    is_contiguous = PyUnicode_InternFromString("is_contiguous");
    stride = PyUnicode_InternFromString("stride");
    return PyErr_Occurred() ? NULL : PyModule_Create(&definition);
}
