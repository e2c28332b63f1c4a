/* latent.c - operations on states that go from pass to pass: copies between scattered rows, sums
 * of two rows, how far two rows are apart, noise. */
#include <string.h>

#include "kernels/cpu/cpu.h"

tt_status tt_cpu_copy_rows(tt_stream *s, tt_act *const *to, const tt_act *const *from, int64_t rows,
                           int64_t dim, tt_err *e)
{
    (void)s;
    if (tt_cpu_bad_shape(rows, dim, dim))
        return tt_cpu_shape_error("copy_rows", rows, dim, dim, e);
    for (int64_t r = 0; r < rows; r++)
        if (to[r] && from[r])
            memcpy(to[r], from[r], (size_t)dim * sizeof(float));
    return TT_OK;
}

tt_status tt_cpu_blend(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                       const float *a, const float *b, int64_t rows, int64_t dim, tt_err *e)
{
    (void)s;
    if (tt_cpu_bad_shape(rows, dim, ldx) || ldy < dim)
        return tt_cpu_shape_error("blend", rows, dim, ldx < ldy ? ldx : ldy, e);
    for (int64_t r = 0; r < rows; r++) {
        float *out = (float *)y + r * ldy;
        const float *in = (const float *)x + r * ldx;
        for (int64_t i = 0; i < dim; i++) {
            double sum = (double)a[r] * out[i];
            out[i] = (float)(b[r] != 0 ? sum + (double)b[r] * in[i] : sum);
        }
    }
    return TT_OK;
}

tt_status tt_cpu_row_products(tt_stream *s, tt_row_products *out, const tt_act *x, int64_t ldx,
                              const tt_act *y, int64_t ldy, int64_t rows, int64_t dim, tt_err *e)
{
    (void)s;
    if (tt_cpu_bad_shape(rows, dim, ldx) || ldy < dim)
        return tt_cpu_shape_error("row_products", rows, dim, ldx < ldy ? ldx : ldy, e);
    for (int64_t r = 0; r < rows; r++) {
        const float *a = (const float *)x + r * ldx, *b = (const float *)y + r * ldy;
        double xx = 0, yy = 0, xy = 0, dd = 0;
        for (int64_t i = 0; i < dim; i++) {
            double d = (double)a[i] - b[i];
            xx += (double)a[i] * a[i];
            yy += (double)b[i] * b[i];
            xy += (double)a[i] * b[i];
            dd += d * d;
        }
        out[r] = (tt_row_products){(float)xx, (float)yy, (float)xy, (float)dd};
    }
    return TT_OK;
}

typedef struct {
    float *y;
    const tt_rng_address *at;
    const float *scale;
    int64_t ldy, dim;
} noise_job;

static void noise_rows(void *arg, int64_t first, int64_t count)
{
    const noise_job *job = arg;
    for (int64_t r = first; r < first + count; r++) {
        float *y = job->y + r * job->ldy;
        if (job->scale[r] == 0) {
            memset(y, 0, (size_t)job->dim * sizeof *y);
            continue;
        }
        for (int64_t i = 0; i < job->dim; i += 4) {
            tt_rng_block b = tt_rng_at(job->at[r], (uint32_t)(i / 4));
            for (int64_t k = i; k < i + 4 && k < job->dim; k++)
                y[k] = job->scale[r] * tt_truncated_normal(b.v[k - i]);
        }
    }
}

tt_status tt_cpu_truncated_normal(tt_stream *s, tt_act *y, int64_t ldy, const tt_rng_address *at,
                                  const float *scale, int64_t rows, int64_t dim, tt_err *e)
{
    if (tt_cpu_bad_shape(rows, dim, ldy) || dim > INT32_MAX)
        return tt_cpu_shape_error("truncated_normal", rows, dim, ldy, e);
    noise_job job = {y, at, scale, ldy, dim};
    tt_cpu_over_rows(s, rows, 32 * dim, noise_rows, &job);
    return TT_OK;
}
