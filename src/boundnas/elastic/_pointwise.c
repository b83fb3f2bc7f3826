/* Products of rows of channels with the weight w of a 1x1 convolution or a linear layer, a slice whose
 * rows are `stride` apart, and what the gradients of gates come to, where table[j][i] says whether
 * option j contains input i:
 *
 *     pointwise:        y[m][o] = sum over i of x[m][i] * w[o][i]
 *     input_products:   z[j] = scale * sum over m, o, i of table[j][i] * x[m][i] * g[m][o] * w[o][i]
 *     weight_products:  z[j] = sum over o, i of table[j][i] * w[o][i] * g[o][i]
 *     inner_product:    z = scale * sum over all of a * b
 *
 * For the first two the weight is copied into panels as wide as a register, padded with zeros, so that
 * the inner loop has no strides and no borders to ask about.
 */

#define ROWS 6            /* of a tile */
#define BLOCK (16 * ROWS) /* rows that meet a panel while it is in the cache */
#define PIECE 4096        /* elements summed in single precision, then in double */
#define RESIDENT 16384    /* floats of all panels that stay in the cache */

/* a: (m, k) rows; panels of b (k, n): (n / LANES rounded up, k, LANES). */
struct product {
    const float *a, *panels;
    long m, k, n;
};

INLINE long least(long a, long b) { return a < b ? a : b; }

/* The last panel starts early enough to be whole, where there are columns enough. */
INLINE long start(const struct product *p, long c) {
    return c + LANES <= p->n || p->n < LANES ? c : p->n - LANES;
}

/* Some rows, from `row` on, of a panel's columns of a * b. */
INLINE void tile(const struct product *p, long row, int rows, const float *panel, vector *sum) {
    const float *a = p->a + row * p->k;
    for (int r = 0; r < rows; r++) sum[r] = (vector){0};
    for (long k = 0; k < p->k; k++) {
        const vector b = *(const vector *)(panel + k * LANES);
        _Pragma("GCC unroll 6") for (int r = 0; r < rows; r++) sum[r] += a[r * p->k + k] * b;
    }
}

/* The floats from `out` to the end of what may be written are `left`. */
INLINE void write_tile(const struct product *p, long row, int rows, const float *panel, float *out,
                       long left) {
    vector sum[ROWS];
    tile(p, row, rows, panel, sum);
    _Pragma("GCC unroll 6") for (int r = 0; r < rows; r++, out += p->n, left -= p->n)
        if (left >= LANES)
            *(vector *)out = sum[r];
        else
            memcpy(out, &sum[r], left * sizeof(float));
}

/* The floats from `x` to its end are `left`; what is read of a next row meets a panel's zeros. */
INLINE vector tile_products(const struct product *p, long row, int rows, const float *panel,
                            const float *x, long left) {
    vector sum[ROWS], total = {0};
    tile(p, row, rows, panel, sum);
    _Pragma("GCC unroll 6") for (int r = 0; r < rows; r++, x += p->n, left -= p->n) {
        vector value = {0};
        if (left >= LANES)
            value = *(const vector *)x;
        else
            memcpy(&value, x, left * sizeof(float));
        total += value * sum[r];
    }
    return total;
}

/* With fewer columns than lanes, what a row writes too far is written again by the next one. */
ON_PROCESSOR static void write_tiles(const struct product *p, long from, long to, float *y) {
    const long together = p->k * p->n > RESIDENT ? BLOCK : ROWS;
    for (long first = from; first < to; first += together) {
        const long last = least(first + together, to);
        for (long c = 0; c < p->n; c += LANES)
            for (long row = first; row < last; row += ROWS) {
                const float *panel = p->panels + c * p->k;
                const long at = row * p->n + start(p, c), left = to * p->n - at;
                if (row + ROWS <= last)
                    write_tile(p, row, ROWS, panel, y + at, left);
                else
                    write_tile(p, row, last - row, panel, y + at, left);
            }
    }
}

/* Add the columns' sums of x * (a * b) over the rows; x: (m, n). */
ON_PROCESSOR static void add_tiles(const struct product *p, long from, long to, const float *x,
                                   double *sums) {
    for (long first = from; first < to; first += BLOCK) {
        const long last = least(first + BLOCK, to);
        for (long c = 0; c < p->n; c += LANES) {
            const long lanes = least(p->n - c, LANES);
            vector total = {0};
            for (long row = first; row < last; row += ROWS) {
                const float *panel = p->panels + c * p->k;
                const long at = row * p->n + c, left = p->m * p->n - at;
                total += row + ROWS <= last
                             ? tile_products(p, row, ROWS, panel, x + at, left)
                             : tile_products(p, row, last - row, panel, x + at, left);
            }
            for (long lane = 0; lane < lanes; lane++) sums[c + lane] += total[lane];
        }
    }
}

/* Add the columns' sums of a * b over the rows of both. */
ON_PROCESSOR static void add_products(const float *a, const float *b, long rows, long columns,
                                      float *scratch, double *sums) {
    for (long first = 0; first < rows; first += FLUSH) {
        memset(scratch, 0, columns * sizeof(float));
        for (long row = first; row < least(first + FLUSH, rows); row++) {
            const float *u = a + row * columns, *v = b + row * columns;
            for (long c = 0; c < columns; c++) scratch[c] += u[c] * v[c];
        }
        for (long c = 0; c < columns; c++) sums[c] += scratch[c];
    }
}

ON_PROCESSOR static float inner(const float *a, const float *b, long n) {
    vector sum = {0}, other = {0};
    float total = 0;
    long i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        sum += *(const vector *)(a + i) * *(const vector *)(b + i);
        other += *(const vector *)(a + i + LANES) * *(const vector *)(b + i + LANES);
    }
    for (; i < n; i++) total += a[i] * b[i];
    sum += other;
    for (int lane = 0; lane < LANES; lane++) total += sum[lane];
    return total;
}

/* Columns [c, c + LANES) of b, zero where there are none: b[k][c] is at w[k * down + c * across]. */
static void pack(const struct product *p, const float *w, long down, long across, long c,
                 float *panel) {
    const long lanes = least(p->n - c, LANES);
    for (long k = 0; k < p->k; k++, w += down, panel += LANES) {
        for (long lane = 0; lane < lanes; lane++) panel[lane] = w[(c + lane) * across];
        for (long lane = lanes; lane < LANES; lane++) panel[lane] = 0;
    }
}

static float *panels(long k, long n) {
    return aligned_alloc(sizeof(vector), (n + LANES - 1) / LANES * LANES * k * sizeof(float));
}

/* z = scale * table * (the sum of the threads' sums). */
static void choose(const double *sums, int threads, const float *table, long table_stride,
                   long options, long n, float scale, float *z) {
    for (long j = 0; j < options; j++) {
        double total = 0;
        for (int t = 0; t < threads; t++)
            for (long c = 0; c < n; c++) total += table[j * table_stride + c] * sums[t * n + c];
        z[j] = scale * total;
    }
}

/* x: (m, i), w: (o, i), y: (m, o). Returns 0, or 1 when there was no memory. */
static int pointwise(const float *x, const float *w, long stride, float *y, long m, long i, long o,
                     int threads) {
    float *packed = panels(i, o);
    if (!packed) return 1;
    const struct product p = {x, packed, m, i, o};
    if (m * o * i < WORTH_THREADS_COMPUTING) threads = 1;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
#pragma omp for schedule(static)
        for (long c = 0; c < o; c += LANES) pack(&p, w, 1, stride, start(&p, c), packed + c * i);
#pragma omp for schedule(static)
        for (int t = 0; t < threads; t++)
            write_tiles(&p, m * t / threads, m * (t + 1) / threads, y);
    }
    free(packed);
    return 0;
}

/* g: (m, o), x: (m, i), w: (o, i), table: (options, i). Returns 0, or 1 when there was no memory. */
static int input_products(const float *g, const float *x, const float *w, long stride,
                          const float *table, long table_stride, float *z, long m, long o, long i,
                          long options, float scale, int threads) {
    float *packed = panels(o, i);
    if (m * o * i < WORTH_THREADS_COMPUTING) threads = 1;
    double *sums = calloc(threads * i, sizeof(double));
    if (packed && sums) {
        const struct product p = {g, packed, m, o, i};
#pragma omp parallel num_threads(threads) if (threads > 1)
        {
#pragma omp for schedule(static)
            for (long c = 0; c < i; c += LANES) pack(&p, w, stride, 1, c, packed + c * o);
#pragma omp for schedule(static)
            for (int t = 0; t < threads; t++)
                add_tiles(&p, m * t / threads, m * (t + 1) / threads, x, sums + t * i);
        }
        choose(sums, threads, table, table_stride, options, i, scale, z);
    }
    const int failed = !packed || !sums;
    free(packed), free(sums);
    return failed;
}

/* w, g: (o, i), table: (options, i). Returns 0, or 1 when there was no memory. */
static int weight_products(const float *w, const float *g, const float *table, long table_stride,
                           float *z, long o, long i, long options, int threads) {
    if (o * i < WORTH_THREADS_COMPUTING / 8) threads = 1; /* as long as memory takes */
    double *sums = calloc(threads * i, sizeof(double));
    float *scratch = malloc(threads * i * sizeof(float));
    if (sums && scratch) {
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
        for (int t = 0; t < threads; t++) {
            const long from = o * t / threads, to = o * (t + 1) / threads;
            add_products(w + from * i, g + from * i, to - from, i, scratch + t * i, sums + t * i);
        }
        choose(sums, threads, table, table_stride, options, i, 1, z);
    }
    const int failed = !sums || !scratch;
    free(sums), free(scratch);
    return failed;
}

/* z = scale * (the sum of a * b). Returns 0, or 1 when there was no memory. */
static int inner_product(const float *a, const float *b, float *z, long n, float scale,
                         int threads) {
    const long pieces = (n + PIECE - 1) / PIECE;
    float *sums = malloc((pieces + 1) * sizeof(float));
    if (!sums) return 1;
    if (n < WORTH_THREADS_COMPUTING / 8) threads = 1;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (long piece = 0; piece < pieces; piece++) {
        const long from = piece * PIECE;
        sums[piece] = inner(a + from, b + from, least(PIECE, n - from));
    }
    double total = 0;
    for (long piece = 0; piece < pieces; piece++) total += sums[piece];
    *z = scale * total;
    free(sums);
    return 0;
}
