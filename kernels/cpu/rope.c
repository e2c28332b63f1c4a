/* rope.c - rotary position embedding (RoFormer, arXiv 2104.09864), half-rotate layout. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

typedef struct {
    float *cos, *sin;
    const int32_t *position;
    const float *inv_freq;
    int64_t half;
} table_job;

static void table_row(void *arg, int64_t r, int thread)
{
    (void)thread;
    const table_job *job = arg;
    for (int64_t i = 0; i < job->half; i++) {
        /* The angle is rounded to float32, as every released implementation does; at position
         * 4000 that is worth 1e-4 of a radian. */
        float angle = (float)job->position[r] * job->inv_freq[i];
        job->cos[r * job->half + i] = (float)cos(angle);
        job->sin[r * job->half + i] = (float)sin(angle);
    }
}

tt_status tt_cpu_rope_table(tt_stream *s, float *cos_out, float *sin_out, const int32_t *position,
                            const float *inv_freq, int64_t rows, int64_t half, tt_err *e)
{
    if (tt_cpu_bad_shape(rows, half, half))
        return tt_cpu_shape_error("rope_table", rows, half, half, e);
    table_job job = {cos_out, sin_out, position, inv_freq, half};
    tt_pool_run(s->pool, rows, table_row, &job);
    return TT_OK;
}

tt_status tt_cpu_rope_check(int64_t ld, int64_t rows, int64_t heads, int64_t head_dim, int64_t half,
                            tt_err *e)
{
    if (heads < 1 || head_dim < 1 || tt_cpu_bad_shape(rows, heads * head_dim, ld))
        return tt_cpu_shape_error("rope", rows, heads * head_dim, ld, e);
    if (half < 1 || 2 * half > head_dim)
        return tt_fail(e, TT_EINVAL, "rope: %lld channel pairs in heads of %lld", (long long)half,
                       (long long)head_dim);
    return TT_OK;
}

tt_status tt_cpu_rope(tt_stream *s, tt_act *x, int64_t ld, const float *cos_in, const float *sin_in,
                      int64_t rows, int64_t heads, int64_t head_dim, int64_t half, tt_err *e)
{
    (void)s;
    tt_status st = tt_cpu_rope_check(ld, rows, heads, head_dim, half, e);
    if (st)
        return st;
    for (int64_t r = 0; r < rows; r++) {
        const float *c = cos_in + r * half, *d = sin_in + r * half;
        for (int64_t h = 0; h < heads; h++) {
            float *lo = (float *)x + r * ld + h * head_dim, *hi = lo + half;
            for (int64_t i = 0; i < half; i++) {
                double a = lo[i], b = hi[i];
                lo[i] = (float)(a * c[i] - b * d[i]);
                hi[i] = (float)(b * c[i] + a * d[i]);
            }
        }
    }
    return TT_OK;
}

tt_status tt_cpu_rope_store(tt_stream *s, tt_act *x, int64_t ld, const float *cos_in,
                            const float *sin_in, int64_t rows, int64_t heads, int64_t kv_heads,
                            int64_t head_dim, int64_t half, const tt_store *store, int64_t stores,
                            const int32_t *column, tt_err *e)
{
    int64_t q = heads * head_dim, width = kv_heads * head_dim;
    if (kv_heads < 1 || tt_cpu_bad_shape(rows, q + 2 * width, ld))
        return tt_cpu_shape_error("rope_store", rows, q + 2 * width, ld, e);
    tt_status st = s->op.rope(s, x, ld, cos_in, sin_in, rows, heads + kv_heads, head_dim, half, e);
    for (int64_t i = 0; i < stores && !st; i++)
        for (int64_t r = store[i].row; r < store[i].row + store[i].rows; r++) {
            const float *k = (const float *)x + r * ld + q;
            int64_t at = column[r] * width;
            memcpy((float *)store[i].k + at, k, (size_t)width * sizeof *k);
            memcpy((float *)store[i].v + at, k + width, (size_t)width * sizeof *k);
        }
    return st;
}
