/* Weight gradient of a 5x5 depthwise convolution in channels-last layout:
 *
 *     dw[c][i][j] = sum over n, h, w of x[n][h * s + i - 2][w * s + j - 2][c] * g[n][h][w][c]
 *
 * Sixteen channels at a time, with one accumulator per tap in registers. The channels of each image
 * are first copied into a zero-padded buffer, so that the inner loop has no borders to ask about.
 */

#include <stdlib.h>
#include <string.h>

#include "_native.h"

#define K 5
#define MARGIN (K / 2)

struct problem {
    const float *x, *g;
    float *dw;
    long n, h, w, c, stride;
};

#define LOAD(target, from)                                                                         \
    do {                                                                                           \
        if (lanes == LANES)                                                                        \
            target = *(const vector *)(from);                                                      \
        else                                                                                       \
            memcpy(&target, from, lanes * sizeof(float));                                          \
    } while (0)

EVERY_PROCESSOR static void block(const struct problem *p, long c, vector *padded) {
    const long width = p->w + 2 * MARGIN;
    const long rows = (p->h + p->stride - 1) / p->stride;
    const long columns = (p->w + p->stride - 1) / p->stride;
    const long lanes = p->c - c < LANES ? p->c - c : LANES;
    vector sum[K * K];
    for (int t = 0; t < K * K; t++) sum[t] = (vector){0};
    for (long n = 0; n < p->n; n++) {
        const float *x = p->x + n * p->h * p->w * p->c + c;
        for (long h = 0; h < p->h; h++)
            for (long w = 0; w < p->w; w++) {
                vector pixel = {0};
                LOAD(pixel, x + (h * p->w + w) * p->c);
                padded[(h + MARGIN) * width + w + MARGIN] = pixel;
            }
        const float *g = p->g + n * rows * columns * p->c + c;
        for (long h = 0; h < rows; h++)
            for (long w = 0; w < columns; w++) {
                vector gradient = {0};
                LOAD(gradient, g + (h * columns + w) * p->c);
                const vector *at = padded + h * p->stride * width + w * p->stride;
                _Pragma("GCC unroll 5") for (int i = 0; i < K; i++)
                    _Pragma("GCC unroll 5") for (int j = 0; j < K; j++)
                        sum[i * K + j] += at[i * width + j] * gradient;
            }
    }
    for (int t = 0; t < K * K; t++)
        for (long lane = 0; lane < lanes; lane++) p->dw[(c + lane) * K * K + t] = sum[t][lane];
}

/* Returns 0, or 1 when there was no memory. */
int depthwise_weight_gradient(const float *x, const float *g, float *dw, long n, long h, long w,
                              long c, long stride, int threads) {
    const struct problem p = {x, g, dw, n, h, w, c, stride};
    const size_t bytes = (h + 2 * MARGIN) * (w + 2 * MARGIN) * sizeof(vector);
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        vector *padded = aligned_alloc(sizeof(vector), bytes);
        failed = padded == NULL;
        if (padded) memset(padded, 0, bytes);
#pragma omp for schedule(dynamic)
        for (long first = 0; first < c; first += LANES)
            if (padded) block(&p, first, padded);
        free(padded);
    }
    return failed;
}
