/* The kernels. They are compiled once for each kind of processor, with vectors as long as its registers:
 * longer ones GCC keeps in memory, which takes two to twelve times as long. */

#ifndef BOUNDNAS_NATIVE_H
#define BOUNDNAS_NATIVE_H

/* Of which each file beside this one says what it computes. */
struct kernels {
    int (*depthwise)(const float *x, const float *weight, float *y, long n, long h, long w, long c,
                     long stride, int k, int threads);
    int (*depthwise_weight_gradient)(const float *x, const float *g, float *dw, long n, long h,
                                     long w, long c, long stride, int threads);
    int (*batch_moments)(const float *x, float *mean, float *variance, long m, long c, int threads);
    int (*batch_norm_forward)(const float *x, const float *weight, const float *bias, float *y,
                              float *mean, float *inverse, long m, long c, float eps,
                              int activation, int threads);
    int (*batch_norm_backward)(const float *x, const float *gradient, const float *weight,
                               const float *bias, const float *mean, const float *inverse, float *dx,
                               float *dweight, float *dbias, long m, long c, int activation,
                               int threads);
    int (*activation_products)(const float *x, const float *gradient, const float *weight,
                               const float *bias, const float *mean, const float *inverse, float *relu,
                               float *swish, long m, long c, float scale, int threads);
    int (*scale_gradients)(const float *x, const float *g, const float *s, float *dx, float *ds,
                           long n, long pixels, long c, int threads);
    int (*pointwise)(const float *x, const float *w, long stride, float *y, long m, long i, long o,
                     int threads);
    int (*input_products)(const float *g, const float *x, const float *w, long stride,
                          const float *table, long table_stride, float *z, long m, long o, long i,
                          long options, float scale, int threads);
    int (*weight_products)(const float *w, const float *g, const float *table, long table_stride,
                           float *z, long o, long i, long options, int threads);
    int (*inner_product)(const float *a, const float *b, float *z, long n, float scale,
                         int threads);
};

extern const struct kernels kernels_any;
#if defined(__x86_64__) && !defined(__clang__)
#define KINDS_OF_X86
extern const struct kernels kernels_avx2, kernels_avx512;
#endif

#endif
