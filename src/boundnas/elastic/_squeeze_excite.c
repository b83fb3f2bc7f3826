/* Gradients of y[n][p][c] = x[n][p][c] * s[n][c], the channels of every image scaled:
 *
 *     dx[n][p][c] = g[n][p][c] * s[n][c],  ds[n][c] = sum over p of g[n][p][c] * x[n][p][c]
 *
 * in one pass over x and g = dL/dy.
 */

/* scratch and sums: (c). */
ON_PROCESSOR static void image(const float *restrict x, const float *restrict g,
                               const float *restrict s, float *restrict dx, float *restrict ds,
                               float *restrict scratch, double *restrict sums, long pixels,
                               long c) {
    memset(sums, 0, c * sizeof(double));
    for (long first = 0; first < pixels; first += FLUSH) {
        memset(scratch, 0, c * sizeof(float));
        for (long p = first; p < pixels && p < first + FLUSH; p++)
            for (long i = 0; i < c; i++) {
                const float gradient = g[p * c + i];
                dx[p * c + i] = gradient * s[i];
                scratch[i] += gradient * x[p * c + i];
            }
        for (long i = 0; i < c; i++) sums[i] += scratch[i];
    }
    for (long i = 0; i < c; i++) ds[i] = sums[i];
}

/* x, g, dx: (n, pixels, c); s, ds: (n, c). Returns 0, or 1 when there was no memory. */
static int scale_gradients(const float *x, const float *g, const float *s, float *dx, float *ds,
                           long n, long pixels, long c, int threads) {
    const long size = pixels * c;
    if (n * size < WORTH_THREADS) threads = 1;
    float *scratch = malloc(threads * c * sizeof(float));
    double *sums = malloc(threads * c * sizeof(double));
    if (scratch && sums) {
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
        for (int t = 0; t < threads; t++)
            for (long k = n * t / threads; k < n * (t + 1) / threads; k++)
                image(x + k * size, g + k * size, s + k * c, dx + k * size, ds + k * c,
                      scratch + t * c, sums + t * c, pixels, c);
    }
    const int failed = !scratch || !sums;
    free(scratch), free(sums);
    return failed;
}
