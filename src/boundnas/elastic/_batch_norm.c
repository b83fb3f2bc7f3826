/* Batch normalization in training, with the ReLU that may follow it, of rows of channels:
 *
 *     y[m][c] = relu((x[m][c] - mean[c]) * inverse[c] * weight[c] + bias[c])
 *
 * The time it takes is that of memory: forward reads x twice and writes y; backward reads x and dL/dy
 * twice and writes dL/dx. The ReLU's mask is computed again in the backward pass, not kept.
 *
 * Rows are folded together until they are whole vectors, so that a few channels are as quick as
 * many; what is left at the end is copied to a padded row of its own.
 */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "_native.h"

#define GROUP 4             /* folded rows that share the loading of parameters */
#define FLUSH 64            /* folded rows that are summed in single precision, then in double */
#define WORTH_THREADS 32768 /* elements */

struct rows {
    const float *x, *gradient; /* (count, columns) */
    float *out;                /* likewise */
    long count;
};

struct columns {
    long count;
    int relu;
    const float *center;                /* what sums are taken about */
    const float *scale, *shift;         /* x to y before the ReLU */
    const float *slope, *curve, *level; /* dL/dx = slope * dL/dy + curve * (x - center) + level */
};

INLINE vector load(const float *from) { return *(const vector *)from; }
INLINE void store(float *to, vector v) { *(vector *)to = v; }

/* v where z is positive or not a number, zero elsewhere. */
INLINE vector where_positive(vector z, vector v) { return (vector)(~(z <= 0) & (mask)v); }

INLINE vector masked_gradient(const struct columns p, vector x, vector gradient, long i, int relu) {
    return relu ? where_positive(x * load(p.scale + i) + load(p.shift + i), gradient) : gradient;
}

/* Sums of d and d * d forward, of g and g * d backward, with d = x - center, g = dL/dy masked. */
INLINE void add_row_group(const struct columns p, const float *x, const float *gradient, long rows,
                          float *first, float *second, int relu) {
    for (long i = 0; i < p.count; i += LANES) {
        vector a = load(first + i), b = load(second + i);
        for (long r = 0; r < rows; r++) {
            const vector value = load(x + r * p.count + i), d = value - load(p.center + i);
            const vector factor =
                gradient ? masked_gradient(p, value, load(gradient + r * p.count + i), i, relu) : d;
            a += factor;
            b += factor * d;
        }
        store(first + i, a), store(second + i, b);
    }
}

INLINE void add_rows(const struct columns p, struct rows rows, double *sums, float *scratch,
                     int backward, int relu) {
    const long n = p.count;
    for (long start = 0; start < rows.count; start += FLUSH) {
        const long end = start + FLUSH < rows.count ? start + FLUSH : rows.count;
        memset(scratch, 0, 2 * n * sizeof(float));
        long row = start;
        for (; row + GROUP <= end; row += GROUP)
            add_row_group(p, rows.x + row * n, backward ? rows.gradient + row * n : NULL, GROUP,
                          scratch, scratch + n, relu);
        for (; row < end; row++)
            add_row_group(p, rows.x + row * n, backward ? rows.gradient + row * n : NULL, 1, scratch,
                          scratch + n, relu);
        for (long i = 0; i < 2 * n; i++) sums[i] += scratch[i];
    }
}

EVERY_PROCESSOR static void add(const struct columns p, struct rows rows, double *sums,
                                float *scratch) {
    if (!rows.gradient)
        add_rows(p, rows, sums, scratch, 0, 0);
    else if (p.relu)
        add_rows(p, rows, sums, scratch, 1, 1);
    else
        add_rows(p, rows, sums, scratch, 1, 0);
}

INLINE void write_row_group(const struct columns p, const float *x, const float *gradient,
                            float *out, long rows, int relu) {
    for (long i = 0; i < p.count; i += LANES)
        for (long at = i; at < i + rows * p.count; at += p.count) {
            const vector value = load(x + at);
            vector result;
            if (gradient) {
                const vector masked = masked_gradient(p, value, load(gradient + at), i, relu);
                result = load(p.slope + i) * masked +
                         load(p.curve + i) * (value - load(p.center + i)) + load(p.level + i);
            } else {
                result = value * load(p.scale + i) + load(p.shift + i);
                if (relu) result = where_positive(result, result);
            }
            store(out + at, result);
        }
}

/* From the last row to the first: the last ones are in the cache from the sums. */
INLINE void write_rows(const struct columns p, struct rows rows, int backward, int relu) {
    const long n = p.count;
    long row = rows.count;
    for (; row >= GROUP; row -= GROUP) {
        const long at = (row - GROUP) * n;
        write_row_group(p, rows.x + at, backward ? rows.gradient + at : NULL, rows.out + at, GROUP,
                        relu);
    }
    for (; row; row--) {
        const long at = (row - 1) * n;
        write_row_group(p, rows.x + at, backward ? rows.gradient + at : NULL, rows.out + at, 1, relu);
    }
}

EVERY_PROCESSOR static void write(const struct columns p, struct rows rows) {
    if (!rows.gradient && !p.relu)
        write_rows(p, rows, 0, 0);
    else if (!rows.gradient)
        write_rows(p, rows, 0, 1);
    else if (!p.relu)
        write_rows(p, rows, 1, 0);
    else
        write_rows(p, rows, 1, 1);
}

/* A tensor of m rows of c channels as folded rows, and what the passes over it need. */
struct work {
    struct rows body, tail; /* the tail is one padded row, or none */
    struct columns columns;
    long fold, left, c; /* rows in a folded row; rows and channels in the tail */
    int threads;
    float *parameters; /* (6, columns): center, scale, shift, slope, curve, level */
    float *tail_row;   /* (3, columns): x, gradient, out */
    double *sums;      /* (threads + 1, 2, columns); the last is the tail's */
    float *scratch;    /* (threads, 2, columns) */
};

static int prepare(struct work *w, const float *x, const float *gradient, float *out, long m, long c,
                   int relu, int threads) {
    w->c = c;
    w->fold = 1;
    while (w->fold * c % LANES) w->fold *= 2;
    const long n = w->fold * c, count = m / w->fold;
    w->left = m - count * w->fold;
    w->threads = m * c < WORTH_THREADS ? 1 : threads;
    w->body = (struct rows){x, gradient, out, count};
    w->sums = calloc((w->threads + 1) * 2 * n, sizeof(double));
    w->parameters = aligned_alloc(sizeof(vector), (6 + 3 + 2 * w->threads) * n * sizeof(float));
    if (!w->sums || !w->parameters) {
        free(w->sums), free(w->parameters);
        return 1;
    }
    w->tail_row = w->parameters + 6 * n;
    w->scratch = w->tail_row + 3 * n;
    w->columns = (struct columns){n, relu, w->parameters, w->parameters + n, w->parameters + 2 * n,
                                  w->parameters + 3 * n, w->parameters + 4 * n, w->parameters + 5 * n};
    return 0;
}

static void finish(struct work *w) { free(w->sums), free(w->parameters); }

/* Repeat the first c entries of a row of parameters over all columns. */
static void spread(const struct work *w, float *row) {
    for (long i = w->c; i < w->columns.count; i++) row[i] = row[i - w->c];
}

/* The padding is at the center, with a gradient of zero: it adds nothing to any sum. */
static void copy_tail(struct work *w) {
    const long n = w->columns.count, used = w->left * w->c, at = w->body.count * n;
    float *x = w->tail_row, *gradient = x + n;
    memcpy(x, w->columns.center, n * sizeof(float));
    memcpy(x, w->body.x + at, used * sizeof(float));
    memset(gradient, 0, n * sizeof(float));
    if (w->body.gradient) memcpy(gradient, w->body.gradient + at, used * sizeof(float));
    w->tail = (struct rows){x, w->body.gradient ? gradient : NULL, gradient + n, w->left ? 1 : 0};
}

static struct rows share(const struct work *w, int thread) {
    const long n = w->columns.count, from = w->body.count * thread / w->threads,
               to = w->body.count * (thread + 1) / w->threads;
    const struct rows all = w->body;
    return (struct rows){all.x + from * n, all.gradient ? all.gradient + from * n : NULL,
                         all.out ? all.out + from * n : NULL, to - from};
}

/* Both sums per channel, in the first 2 * c entries of w->sums. */
static void sum(struct work *w) {
    const long n = w->columns.count;
    copy_tail(w);
#pragma omp parallel for num_threads(w->threads) schedule(static) if (w->threads > 1)
    for (int t = 0; t < w->threads; t++)
        add(w->columns, share(w, t), w->sums + 2 * n * t, w->scratch + 2 * n * t);
    add(w->columns, w->tail, w->sums + 2 * n * w->threads, w->scratch);
    for (long which = 0; which < 2; which++)
        for (long c = 0; c < w->c; c++) {
            double total = 0;
            for (int t = 0; t <= w->threads; t++)
                for (long i = c; i < n; i += w->c) total += w->sums[(2 * t + which) * n + i];
            w->sums[which * w->c + c] = total;
        }
}

static void write_all(struct work *w) {
#pragma omp parallel for num_threads(w->threads) schedule(static) if (w->threads > 1)
    for (int t = 0; t < w->threads; t++) write(w->columns, share(w, t));
    write(w->columns, w->tail);
    memcpy(w->body.out + w->body.count * w->columns.count, w->tail.out,
           w->left * w->c * sizeof(float));
}

/* Mean and variance per channel, in the first 2 * c entries of w->sums. */
static void moments(struct work *w, const float *x, long m) {
    float *center = w->parameters;
    memcpy(center, x, w->c * sizeof(float)); /* about any value of the data, nothing cancels */
    spread(w, center);
    sum(w);
    for (long i = 0; i < w->c; i++) {
        const double about = w->sums[i] / m, variance = w->sums[w->c + i] / m - about * about;
        w->sums[i] = center[i] + about;
        w->sums[w->c + i] = variance > 0 ? variance : variance * 0; /* not a number stays so */
    }
}

/* x: (m, c); mean, variance: (c). Returns 0, or 1 when there was no memory. */
int batch_moments(const float *x, float *mean, float *variance, long m, long c, int threads) {
    struct work w;
    if (prepare(&w, x, NULL, NULL, m, c, 0, threads)) return 1;
    moments(&w, x, m);
    for (long i = 0; i < c; i++) mean[i] = w.sums[i], variance[i] = w.sums[c + i];
    finish(&w);
    return 0;
}

/* x, y: (m, c); everything else: (c). Returns 0, or 1 when there was no memory. */
int batch_norm_forward(const float *x, const float *weight, const float *bias, float *y, float *mean,
                       float *inverse, long m, long c, float eps, int relu, int threads) {
    struct work w;
    if (prepare(&w, x, NULL, y, m, c, relu, threads)) return 1;
    float *scale = w.parameters + w.columns.count, *shift = scale + w.columns.count;
    moments(&w, x, m);
    for (long i = 0; i < c; i++) {
        mean[i] = w.sums[i];
        inverse[i] = 1 / sqrt(w.sums[c + i] + eps);
        scale[i] = inverse[i] * weight[i];
        shift[i] = bias[i] - mean[i] * scale[i];
    }
    spread(&w, scale), spread(&w, shift);
    write_all(&w);
    finish(&w);
    return 0;
}

/* x, gradient, dx: (m, c); everything else: (c). Returns 0, or 1 when there was no memory. */
int batch_norm_backward(const float *x, const float *gradient, const float *weight,
                        const float *bias, const float *mean, const float *inverse, float *dx,
                        float *dweight, float *dbias, long m, long c, int relu, int threads) {
    struct work w;
    if (prepare(&w, x, gradient, dx, m, c, relu, threads)) return 1;
    const long n = w.columns.count;
    float *center = w.parameters, *scale = center + n, *shift = scale + n, *slope = shift + n,
          *curve = slope + n, *level = curve + n;
    for (long i = 0; i < c; i++) {
        center[i] = mean[i];
        scale[i] = slope[i] = inverse[i] * weight[i];
        shift[i] = bias[i] - mean[i] * scale[i];
    }
    spread(&w, center), spread(&w, scale), spread(&w, shift), spread(&w, slope);
    sum(&w);
    for (long i = 0; i < c; i++) {
        dbias[i] = w.sums[i];
        dweight[i] = w.sums[c + i] * inverse[i];
        curve[i] = -slope[i] * (double)inverse[i] * inverse[i] * w.sums[c + i] / m;
        level[i] = -slope[i] * w.sums[i] / m;
    }
    spread(&w, curve), spread(&w, level);
    write_all(&w);
    finish(&w);
    return 0;
}
