/* A depthwise convolution in channels-last layout, and the weight gradient of one of 5x5:
 *
 *     y[n][h][w][c] = sum over i, j of x[n][h * s + i - k / 2][w * s + j - k / 2][c] * weight[c][i][j]
 *     dw[c][i][j] = sum over n, h, w of x[n][h * s + i - 2][w * s + j - 2][c] * g[n][h][w][c]
 *
 * As many channels at a time as a register holds. Those of each image are first copied into a
 * zero-padded buffer, so that the inner loop has no borders to ask about; sums stay in registers, of
 * four pixels forward, of all taps backward.
 */

#define K 5
#define MARGIN (K / 2)
#define PIXELS 4 /* that share the loading of a tap */

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

/* Copy `lanes` channels of an image into the middle of a buffer whose margin is zero. */
INLINE void pad(const float *x, long rows, long columns, long c, long lanes, long margin,
                vector *padded) {
    for (long h = 0; h < rows; h++)
        for (long w = 0; w < columns; w++) {
            vector pixel = {0};
            LOAD(pixel, x + (h * columns + w) * c);
            padded[(h + margin) * (columns + 2 * margin) + w + margin] = pixel;
        }
}

struct filter {
    const float *x, *weight;
    float *y;
    long n, h, w, c, stride;
};

/* Some neighbouring pixels of the output. */
INLINE void filter_pixels(const vector *at, const vector *taps, long width, long stride, int k,
                          int pixels, float *y, long c, long lanes) {
    vector sum[PIXELS];
    for (int r = 0; r < pixels; r++) sum[r] = (vector){0};
    for (int i = 0; i < k; i++)
        for (int j = 0; j < k; j++) {
            const vector tap = taps[i * k + j];
            _Pragma("GCC unroll 4") for (int r = 0; r < pixels; r++)
                sum[r] += at[i * width + r * stride + j] * tap;
        }
    for (int r = 0; r < pixels; r++, y += c)
        if (lanes == LANES)
            *(vector *)y = sum[r];
        else
            memcpy(y, &sum[r], lanes * sizeof(float));
}

INLINE void filter_image(const struct filter *p, long n, long c, int k, vector *padded,
                         vector *taps) {
    const long margin = k / 2, width = p->w + 2 * margin;
    const long rows = (p->h + p->stride - 1) / p->stride;
    const long columns = (p->w + p->stride - 1) / p->stride;
    const long lanes = p->c - c < LANES ? p->c - c : LANES;
    pad(p->x + n * p->h * p->w * p->c + c, p->h, p->w, p->c, lanes, margin, padded);
    for (int t = 0; t < k * k; t++) {
        taps[t] = (vector){0};
        for (long lane = 0; lane < lanes; lane++)
            taps[t][lane] = p->weight[(c + lane) * k * k + t];
    }
    for (long h = 0; h < rows; h++) {
        const vector *at = padded + h * p->stride * width;
        float *y = p->y + (n * rows + h) * columns * p->c + c;
        long w = 0;
        for (; w + PIXELS <= columns; w += PIXELS)
            filter_pixels(at + w * p->stride, taps, width, p->stride, k, PIXELS, y + w * p->c, p->c,
                          lanes);
        for (; w < columns; w++)
            filter_pixels(at + w * p->stride, taps, width, p->stride, k, 1, y + w * p->c, p->c, lanes);
    }
}

ON_PROCESSOR static void filter_block(const struct filter *p, long n, long c, int k, vector *padded,
                                      vector *taps) {
    if (k == 3)
        filter_image(p, n, c, 3, padded, taps);
    else if (k == 5)
        filter_image(p, n, c, 5, padded, taps);
    else
        filter_image(p, n, c, k, padded, taps);
}

/* x: (n, h, w, c), weight: (c, k, k), y: (n, rows, columns, c). Returns 0, or 1 when there was no
 * memory. */
static int depthwise(const float *x, const float *weight, float *y, long n, long h, long w, long c,
                     long stride, int k, int threads) {
    const struct filter p = {x, weight, y, n, h, w, c, stride};
    const size_t size = (h + k - 1) * (w + k - 1);
    const long blocks = (c + LANES - 1) / LANES;
    if (n * h * w * c * k * k < WORTH_THREADS_COMPUTING) threads = 1;
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed) if (threads > 1)
    {
        vector *padded = aligned_alloc(sizeof(vector), (size + k * k) * sizeof(vector));
        failed = padded == NULL;
        if (padded) memset(padded, 0, size * sizeof(vector));
#pragma omp for schedule(dynamic)
        for (long task = 0; task < n * blocks; task++)
            if (padded)
                filter_block(&p, task / blocks, task % blocks * LANES, k, padded, padded + size);
        free(padded);
    }
    return failed;
}

ON_PROCESSOR static void block(const struct problem *p, long c, vector *padded) {
    const long width = p->w + 2 * MARGIN;
    const long rows = (p->h + p->stride - 1) / p->stride;
    const long columns = (p->w + p->stride - 1) / p->stride;
    const long lanes = p->c - c < LANES ? p->c - c : LANES;
    vector sum[K * K];
    for (int t = 0; t < K * K; t++) sum[t] = (vector){0};
    for (long n = 0; n < p->n; n++) {
        pad(p->x + n * p->h * p->w * p->c + c, p->h, p->w, p->c, lanes, MARGIN, padded);
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
static int depthwise_weight_gradient(const float *x, const float *g, float *dw, long n, long h,
                                     long w, long c, long stride, int threads) {
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
