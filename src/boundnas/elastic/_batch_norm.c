/* Batch normalization in training, with the activation f that may follow it, of rows of channels:
 *
 *     y[m][c] = f(t[m][c]),  t[m][c] = (x[m][c] - mean[c]) * inverse[c] * weight[c] + bias[c]
 *
 * The time it takes is that of memory: forward reads x twice and writes y; backward reads x and dL/dy
 * twice and writes dL/dx. What f needs in the backward pass is computed again, not kept; so are the
 * gradients of a choice between activations, the sums of relu(t) * dL/dy and of swish(t) * dL/dy.
 *
 * Rows are folded together until they are whole vectors, so that a few channels are as quick as
 * many; what is left at the end is copied to a padded row of its own.
 */

#define GROUP 4             /* folded rows that share the loading of parameters */

enum activation { NONE, RELU, SWISH };
enum purpose { MOMENTS, GRADIENTS, CHOICES }; /* what sums are taken for */

struct rows {
    const float *x, *gradient; /* (count, columns) */
    float *out;                /* likewise */
    long count;
};

struct columns {
    long count;
    enum activation activation;
    const float *center;                /* what sums are taken about */
    const float *scale, *shift;         /* x to t */
    const float *slope, *curve, *level; /* dL/dx = slope * dL/dt + curve * (x - center) + level */
};

INLINE vector load(const float *from) { return *(const vector *)from; }
INLINE void store(float *to, vector v) { *(vector *)to = v; }

/* v where z is positive or not a number, zero elsewhere. A loop, like the next one: without AVX-512
 * GCC compares vectors of this length number by number. */
INLINE vector where_positive(vector z, vector v) {
    for (int lane = 0; lane < LANES; lane++) v[lane] = z[lane] <= 0 ? 0 : v[lane];
    return v;
}

/* v where it is within the bounds or not a number. */
INLINE vector clamped(vector v, float low, float high) {
    for (int lane = 0; lane < LANES; lane++) {
        const float raised = v[lane] < low ? low : v[lane];
        v[lane] = raised > high ? high : raised;
    }
    return v;
}

/* 1 / (1 + exp(-t)). With -t = n * log(2) + r, |r| <= log(2) / 2, exp(-t) is 2^n times the first terms
 * of the series of exp(r); n is rounded in the last bits of a float of 2^23 and more, from where it
 * is moved to an exponent's place. */
INLINE vector sigmoid(vector t) {
    const float shift = 1.5f * (1 << 23);
    t = clamped(t, -87, 87);
    const vector shifted = shift - t * 1.44269504f, n = shifted - shift;
    const vector r = n * 2.12194440e-4f - (t + n * 0.693359375f); /* log(2) in two parts */
    vector series = 1 / 720.0f + r * (1 / 5040.0f);
    series = 1 / 120.0f + r * series;
    series = 1 / 24.0f + r * series;
    series = 1 / 6.0f + r * series;
    series = 1 / 2.0f + r * series;
    series = 1 + r * series;
    series = 1 + r * series;
    return 1 / (1 + series * (vector)(((mask)shifted + 127) << 23));
}

INLINE vector activated(vector t, enum activation f) {
    if (f == RELU) return where_positive(t, t);
    if (f == SWISH) return t * sigmoid(t);
    return t;
}

/* dL/dt, where g is dL/dy. */
INLINE vector before_activation(const struct columns p, vector x, vector g, long i,
                                enum activation f) {
    if (f == NONE) return g;
    const vector t = x * load(p.scale + i) + load(p.shift + i);
    if (f == RELU) return where_positive(t, g);
    const vector s = sigmoid(t);
    return g * (s + s * t * (1 - s));
}

/* With d = x - center: sums of d and d * d for moments, of dL/dt and dL/dt * d for gradients,
 * of dL/dy * relu(t) and dL/dy * swish(t) for choices. */
INLINE void add_row_group(const struct columns p, const float *x, const float *gradient, long rows,
                          float *first, float *second, enum purpose purpose, enum activation f) {
    for (long i = 0; i < p.count; i += LANES) {
        vector a = load(first + i), b = load(second + i);
        for (long at = i; at < i + rows * p.count; at += p.count) {
            const vector value = load(x + at), d = value - load(p.center + i);
            if (purpose == CHOICES) {
                const vector t = value * load(p.scale + i) + load(p.shift + i);
                a += load(gradient + at) * activated(t, RELU);
                b += load(gradient + at) * activated(t, SWISH);
            } else {
                const vector factor =
                    purpose == MOMENTS ? d : before_activation(p, value, load(gradient + at), i, f);
                a += factor;
                b += factor * d;
            }
        }
        store(first + i, a), store(second + i, b);
    }
}

INLINE void add_rows(const struct columns p, struct rows rows, double *sums, float *scratch,
                     enum purpose purpose, enum activation f) {
    const int backward = purpose != MOMENTS;
    const long n = p.count;
    for (long start = 0; start < rows.count; start += FLUSH) {
        const long end = start + FLUSH < rows.count ? start + FLUSH : rows.count;
        memset(scratch, 0, 2 * n * sizeof(float));
        long row = start;
        for (; row + GROUP <= end; row += GROUP)
            add_row_group(p, rows.x + row * n, backward ? rows.gradient + row * n : NULL, GROUP,
                          scratch, scratch + n, purpose, f);
        for (; row < end; row++)
            add_row_group(p, rows.x + row * n, backward ? rows.gradient + row * n : NULL, 1, scratch,
                          scratch + n, purpose, f);
        for (long i = 0; i < 2 * n; i++) sums[i] += scratch[i];
    }
}

ON_PROCESSOR static void add(const struct columns p, struct rows rows, double *sums, float *scratch,
                             enum purpose purpose) {
    if (purpose == MOMENTS)
        add_rows(p, rows, sums, scratch, MOMENTS, NONE);
    else if (purpose == CHOICES)
        add_rows(p, rows, sums, scratch, CHOICES, NONE);
    else if (p.activation == RELU)
        add_rows(p, rows, sums, scratch, GRADIENTS, RELU);
    else if (p.activation == SWISH)
        add_rows(p, rows, sums, scratch, GRADIENTS, SWISH);
    else
        add_rows(p, rows, sums, scratch, GRADIENTS, NONE);
}

INLINE void write_row_group(const struct columns p, const float *x, const float *gradient,
                            float *restrict out, long rows, enum activation f) {
    for (long i = 0; i < p.count; i += LANES)
        for (long at = i; at < i + rows * p.count; at += p.count) {
            const vector value = load(x + at);
            vector result;
            if (gradient) {
                const vector g = before_activation(p, value, load(gradient + at), i, f);
                result = load(p.slope + i) * g + load(p.curve + i) * (value - load(p.center + i)) +
                         load(p.level + i);
            } else {
                result = activated(value * load(p.scale + i) + load(p.shift + i), f);
            }
            store(out + at, result);
        }
}

/* From the last row to the first: the last ones are in the cache from the sums. */
INLINE void write_rows(const struct columns p, struct rows rows, int backward, enum activation f) {
    const long n = p.count;
    long row = rows.count;
    for (; row >= GROUP; row -= GROUP) {
        const long at = (row - GROUP) * n;
        write_row_group(p, rows.x + at, backward ? rows.gradient + at : NULL, rows.out + at, GROUP,
                        f);
    }
    for (; row; row--) {
        const long at = (row - 1) * n;
        write_row_group(p, rows.x + at, backward ? rows.gradient + at : NULL, rows.out + at, 1, f);
    }
}

ON_PROCESSOR static void write(const struct columns p, struct rows rows) {
    const int backward = rows.gradient != NULL;
    if (p.activation == RELU && backward)
        write_rows(p, rows, 1, RELU);
    else if (p.activation == RELU)
        write_rows(p, rows, 0, RELU);
    else if (p.activation == SWISH && backward)
        write_rows(p, rows, 1, SWISH);
    else if (p.activation == SWISH)
        write_rows(p, rows, 0, SWISH);
    else if (backward)
        write_rows(p, rows, 1, NONE);
    else
        write_rows(p, rows, 0, NONE);
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

static int prepare(struct work *w, const float *x, const float *gradient, float *out, long m,
                   long c, enum activation activation, int threads) {
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
    float *p = w->parameters;
    w->columns = (struct columns){n, activation, p, p + n, p + 2 * n, p + 3 * n, p + 4 * n, p + 5 * n};
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
static void sum(struct work *w, enum purpose purpose) {
    const long n = w->columns.count;
    copy_tail(w);
#pragma omp parallel for num_threads(w->threads) schedule(static) if (w->threads > 1)
    for (int t = 0; t < w->threads; t++)
        add(w->columns, share(w, t), w->sums + 2 * n * t, w->scratch + 2 * n * t, purpose);
    add(w->columns, w->tail, w->sums + 2 * n * w->threads, w->scratch, purpose);
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
    sum(w, MOMENTS);
    for (long i = 0; i < w->c; i++) {
        const double about = w->sums[i] / m, variance = w->sums[w->c + i] / m - about * about;
        w->sums[i] = center[i] + about;
        w->sums[w->c + i] = variance > 0 ? variance : variance * 0; /* not a number stays so */
    }
}

/* x: (m, c); mean, variance: (c). Returns 0, or 1 when there was no memory. */
static int batch_moments(const float *x, float *mean, float *variance, long m, long c,
                         int threads) {
    struct work w;
    if (prepare(&w, x, NULL, NULL, m, c, NONE, threads)) return 1;
    moments(&w, x, m);
    for (long i = 0; i < c; i++) mean[i] = w.sums[i], variance[i] = w.sums[c + i];
    finish(&w);
    return 0;
}

/* Set what sums are taken about, and how x becomes t. */
static void normalize(struct work *w, const float *weight, const float *bias, const float *mean,
                      const float *inverse) {
    float *center = w->parameters, *scale = center + w->columns.count,
          *shift = scale + w->columns.count;
    for (long i = 0; i < w->c; i++) {
        center[i] = mean[i];
        scale[i] = inverse[i] * weight[i];
        shift[i] = bias[i] - mean[i] * scale[i];
    }
    spread(w, center), spread(w, scale), spread(w, shift);
}

/* x, y: (m, c); everything else: (c). Returns 0, or 1 when there was no memory. */
static int batch_norm_forward(const float *x, const float *weight, const float *bias, float *y,
                              float *mean, float *inverse, long m, long c, float eps,
                              int activation, int threads) {
    struct work w;
    if (prepare(&w, x, NULL, y, m, c, activation, threads)) return 1;
    moments(&w, x, m);
    for (long i = 0; i < c; i++) {
        mean[i] = w.sums[i];
        inverse[i] = 1 / sqrt(w.sums[c + i] + eps);
    }
    normalize(&w, weight, bias, mean, inverse);
    write_all(&w);
    finish(&w);
    return 0;
}

/* x, gradient, dx: (m, c); everything else: (c). Returns 0, or 1 when there was no memory. */
static int batch_norm_backward(const float *x, const float *gradient, const float *weight,
                               const float *bias, const float *mean, const float *inverse,
                               float *dx, float *dweight, float *dbias, long m, long c,
                               int activation, int threads) {
    struct work w;
    if (prepare(&w, x, gradient, dx, m, c, activation, threads)) return 1;
    const long n = w.columns.count;
    float *slope = w.parameters + 3 * n, *curve = slope + n, *level = curve + n;
    normalize(&w, weight, bias, mean, inverse);
    memcpy(slope, w.columns.scale, n * sizeof(float));
    sum(&w, GRADIENTS);
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

/* The sums of scale * dL/dy * f(t) with ReLU and with Swish for f; NULL is for one not wanted.
 * x, gradient: (m, c); everything else: (c). Returns 0, or 1 when there was no memory. */
static int activation_products(const float *x, const float *gradient, const float *weight,
                               const float *bias, const float *mean, const float *inverse,
                               float *relu, float *swish, long m, long c, float scale,
                               int threads) {
    struct work w;
    if (prepare(&w, x, gradient, NULL, m, c, NONE, threads)) return 1;
    normalize(&w, weight, bias, mean, inverse);
    sum(&w, CHOICES);
    double totals[2] = {0};
    for (long i = 0; i < 2 * c; i++) totals[i / c] += w.sums[i];
    if (relu) *relu = scale * totals[0];
    if (swish) *swish = scale * totals[1];
    finish(&w);
    return 0;
}
