/* wide.h - the row-wise operations, written once for any vector width in the words of vec_*.h.
 *
 * avx2.c and avx512.c include it with LEVEL(name) saying what the functions are called there. A
 * row is computed by one thread, its sums run over the lanes in a fixed order, so neither batch
 * nor threads show in the bits. */
#ifndef TT_CPU_WIDE_H
#define TT_CPU_WIDE_H

#include <math.h>

#include "kernels/cpu/cpu.h"

/* --- rmsnorm --- */

typedef struct {
    float *y;
    const float *x, *w;
    int64_t ldy, ldx, dim;
    float eps;
} norm_job;

static float sum_of_squares(const float *x, int64_t n)
{
    vf a = v_set(0), b = v_set(0), c = v_set(0), d = v_set(0);
    int64_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES) {
        vf p = v_load(x + i), q = v_load(x + i + LANES);
        vf r = v_load(x + i + 2 * LANES), s = v_load(x + i + 3 * LANES);
        a = v_fma(p, p, a);
        b = v_fma(q, q, b);
        c = v_fma(r, r, c);
        d = v_fma(s, s, d);
    }
    for (; i < n; i += LANES) {
        vf p = v_load_part(x + i, n - i);
        a = v_fma(p, p, a);
    }
    return v_sum(v_add(v_add(a, b), v_add(c, d)));
}

static void norm_rows(void *arg, int64_t first, int64_t count)
{
    const norm_job *job = arg;
    for (int64_t r = first; r < first + count; r++) {
        const float *x = job->x + r * job->ldx;
        float *y = job->y + r * job->ldy;
        float sum = sum_of_squares(x, job->dim);
        /* Squares outside float32's range: leave the row to the twin's double. */
        if (!(sum < 0x1p120f) || sum < 0x1p-100f) {
            tt_cpu_rmsnorm_row(y, x, job->w, job->dim, job->eps);
            continue;
        }
        vf inv = v_set(1.0f / sqrtf(sum / (float)job->dim + job->eps));
        for (int64_t i = 0; i < job->dim; i += LANES) {
            int64_t left = job->dim - i;
            vf v = v_mul(v_load_part(x + i, left), inv);
            v_store_part(y + i, v_mul(v_load_part(job->w + i, left), v), left);
        }
    }
}

tt_status LEVEL(rmsnorm)(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                         const float *w, int64_t rows, int64_t dim, float eps, tt_err *e)
{
    if (tt_cpu_bad_shape(rows, dim, ldx) || ldy < dim)
        return tt_cpu_shape_error("rmsnorm", rows, dim, ldx < ldy ? ldx : ldy, e);
    norm_job job = {y, x, w, ldy, ldx, dim, eps};
    tt_cpu_over_rows(s, rows, dim, norm_rows, &job);
    return TT_OK;
}

/* --- elementwise --- */

typedef struct {
    float *y;
    const float *a, *b;
    const float *scale;
    int64_t ldy, ld, dim;
} pair_job;

static void swiglu_rows(void *arg, int64_t first, int64_t count)
{
    const pair_job *job = arg;
    for (int64_t r = first; r < first + count; r++)
        for (int64_t i = 0; i < job->dim; i += LANES) {
            int64_t left = job->dim - i;
            vf gate = v_load_part(job->a + r * job->ld + i, left);
            vf up = v_load_part(job->b + r * job->ld + i, left);
            vf silu = v_div(gate, v_add(v_set(1), v_exp(v_sub(v_set(0), gate))));
            v_store_part(job->y + r * job->ldy + i, v_mul(silu, up), left);
        }
}

tt_status LEVEL(swiglu)(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *gate, const tt_act *up,
                        int64_t ld, int64_t rows, int64_t dim, tt_err *e)
{
    if (tt_cpu_bad_shape(rows, dim, ld) || ldy < dim)
        return tt_cpu_shape_error("swiglu", rows, dim, ld < ldy ? ld : ldy, e);
    pair_job job = {y, gate, up, NULL, ldy, ld, dim};
    tt_cpu_over_rows(s, rows, 4 * dim, swiglu_rows, &job);
    return TT_OK;
}

/* sqrt(2 / pi) (x + 0.044715 x^3), times two; inputs whose cube leaves float32 end as the exact
 * function does, at x or at 0. */
static void gelu_rows(void *arg, int64_t first, int64_t count)
{
    const pair_job *job = arg;
    vf linear = v_set(1.5957691f), cubic = v_set(0.07135481f);
    for (int64_t r = first; r < first + count; r++)
        for (int64_t i = 0; i < job->dim; i += LANES) {
            int64_t left = job->dim - i;
            vf x = v_load_part(job->a + r * job->ld + i, left);
            vf u = v_mul(x, v_fma(v_mul(x, x), cubic, linear));
            vf y = v_div(x, v_add(v_set(1), v_exp(v_sub(v_set(0), u))));
            v_store_part(job->y + r * job->ldy + i, y, left);
        }
}

tt_status LEVEL(gelu)(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                      int64_t rows, int64_t dim, tt_err *e)
{
    if (tt_cpu_bad_shape(rows, dim, ldx) || ldy < dim)
        return tt_cpu_shape_error("gelu", rows, dim, ldx < ldy ? ldx : ldy, e);
    pair_job job = {y, x, NULL, NULL, ldy, ldx, dim};
    tt_cpu_over_rows(s, rows, 4 * dim, gelu_rows, &job);
    return TT_OK;
}

static void mix_rows(void *arg, int64_t first, int64_t count)
{
    const pair_job *job = arg;
    for (int64_t r = first; r < first + count; r++) {
        vf factor = v_set(job->scale[r] + 1.0f);
        for (int64_t i = 0; i < job->dim; i += LANES) {
            int64_t left = job->dim - i;
            float *y = job->y + r * job->ldy + i;
            vf u = v_load_part(job->a + r * job->ld + i, left);
            v_store_part(y, v_fma(factor, v_sub(v_load_part(y, left), u), u), left);
        }
    }
}

tt_status LEVEL(cfg_mix)(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *u, int64_t ldu,
                         const float *scale, int64_t rows, int64_t dim, tt_err *e)
{
    if (tt_cpu_bad_shape(rows, dim, ldy) || ldu < dim)
        return tt_cpu_shape_error("cfg_mix", rows, dim, ldu < ldy ? ldu : ldy, e);
    pair_job job = {y, u, NULL, scale, ldy, ldu, dim};
    tt_cpu_over_rows(s, rows, dim, mix_rows, &job);
    return TT_OK;
}

/* --- GroupNorm: sums over runs of pixels by channel, put together by group in double --- */

enum { PIXELS = 256 }; /* pixels of a run: short enough for float32 sums */

typedef struct {
    float *y;
    const float *x, *w, *b;
    int64_t ldy, ldx, images, pixels, channels, groups, runs; /* runs: of an image */
    float *sums;        /* images x runs x 2 x channels: of differences from pixel 0, and squares */
    float *mean, *gain; /* images x channels */
    float eps;
    bool silu;
} group_job;

static void group_sums(void *arg, int64_t task, int thread)
{
    const group_job *job = arg;
    (void)thread;
    int64_t image = task / job->runs, first = task % job->runs * PIXELS, c = job->channels;
    int64_t last = first + PIXELS < job->pixels ? first + PIXELS : job->pixels;
    const float *zero = job->x + image * job->pixels * job->ldx;
    float *sum = job->sums + task * 2 * c, *square = sum + c;
    for (int64_t h = 0; h < c; h += LANES) {
        int64_t left = c - h;
        vf from = v_load_part(zero + h, left), a = v_set(0), b = v_set(0);
        for (int64_t r = first; r < last; r++) {
            vf d = v_sub(v_load_part(zero + r * job->ldx + h, left), from);
            a = v_add(a, d);
            b = v_fma(d, d, b);
        }
        v_store_part(sum + h, a, left);
        v_store_part(square + h, b, left);
    }
}

/* Mean and gain of an image's channels. */
static void group_statistics(const group_job *job, int64_t image)
{
    int64_t c = job->channels, wide = c / job->groups;
    const float *zero = job->x + image * job->pixels * job->ldx;
    for (int64_t g = 0; g < job->groups; g++) {
        double mean = 0, variance = 0, n = (double)job->pixels;
        for (int pass = 0; pass < 2; pass++)
            for (int64_t h = g * wide; h < (g + 1) * wide; h++) {
                double sum = 0, square = 0;
                for (int64_t r = 0; r < job->runs; r++) {
                    const float *at = job->sums + (image * job->runs + r) * 2 * c + h;
                    sum += at[0];
                    square += at[c];
                }
                double own = zero[h] + sum / n;
                if (!pass)
                    mean += own / (double)wide;
                else /* around the channel's own mean, then its distance from the group's */
                    variance += square / n - sum / n * (sum / n) + (own - mean) * (own - mean);
            }
        variance = variance > 0 ? variance / (double)wide : 0;
        for (int64_t h = g * wide; h < (g + 1) * wide; h++) {
            job->mean[image * c + h] = (float)mean;
            job->gain[image * c + h] = (float)(job->w[h] / sqrt(variance + job->eps));
        }
    }
}

static void group_apply(void *arg, int64_t task, int thread)
{
    const group_job *job = arg;
    (void)thread;
    int64_t image = task / job->runs, first = task % job->runs * PIXELS, c = job->channels;
    int64_t last = first + PIXELS < job->pixels ? first + PIXELS : job->pixels;
    for (int64_t r = image * job->pixels + first; r < image * job->pixels + last; r++)
        for (int64_t h = 0; h < c; h += LANES) {
            int64_t left = c - h;
            vf v = v_sub(v_load_part(job->x + r * job->ldx + h, left),
                         v_load_part(job->mean + image * c + h, left));
            v = v_fma(v, v_load_part(job->gain + image * c + h, left),
                      v_load_part(job->b + h, left));
            if (job->silu)
                v = v_div(v, v_add(v_set(1), v_exp(v_sub(v_set(0), v))));
            v_store_part(job->y + r * job->ldy + h, v, left);
        }
}

tt_status LEVEL(group_norm)(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                            const float *w, const float *b, int64_t images, int64_t pixels,
                            int64_t channels, int64_t groups, float eps, bool silu, tt_err *e)
{
    tt_status st = tt_cpu_group_norm_check(ldy, ldx, images, pixels, channels, groups, e);
    if (st || !images)
        return st;
    int64_t runs = (pixels + PIXELS - 1) / PIXELS, n = images * channels;
    group_job job = {y, x, w, b, ldy, ldx, images, pixels, channels, groups, runs, NULL, NULL,
                     NULL, eps, silu};
    void *scratch;
    st = tt_cpu_scratch(&s->scratch, &scratch, (size_t)(n * (2 * runs + 2)) * sizeof(float), e);
    if (st)
        return tt_context(e, st, "group_norm");
    job.sums = scratch;
    job.mean = job.sums + n * 2 * runs;
    job.gain = job.mean + n;
    tt_pool_run(s->pool, images * runs, group_sums, &job);
    for (int64_t i = 0; i < images; i++)
        group_statistics(&job, i);
    tt_pool_run(s->pool, images * runs, group_apply, &job);
    return TT_OK;
}

/* --- rope --- */

typedef struct {
    float *x;
    const float *cos, *sin;
    int64_t ld, heads, head_dim, half;
} rope_job;

static void rope_rows(void *arg, int64_t first, int64_t count)
{
    const rope_job *job = arg;
    for (int64_t r = first; r < first + count; r++)
        for (int64_t h = 0; h < job->heads; h++) {
            float *lo = job->x + r * job->ld + h * job->head_dim, *hi = lo + job->half;
            for (int64_t i = 0; i < job->half; i += LANES) {
                int64_t left = job->half - i;
                vf c = v_load_part(job->cos + r * job->half + i, left);
                vf d = v_load_part(job->sin + r * job->half + i, left);
                vf a = v_load_part(lo + i, left), b = v_load_part(hi + i, left);
                v_store_part(lo + i, v_sub(v_mul(a, c), v_mul(b, d)), left);
                v_store_part(hi + i, v_fma(b, c, v_mul(a, d)), left);
            }
        }
}

tt_status LEVEL(rope)(tt_stream *s, tt_act *x, int64_t ld, const float *cos_in, const float *sin_in,
                      int64_t rows, int64_t heads, int64_t head_dim, int64_t half, tt_err *e)
{
    tt_status st = tt_cpu_rope_check(ld, rows, heads, head_dim, half, e);
    if (st)
        return st;
    rope_job job = {x, cos_in, sin_in, ld, heads, head_dim, half};
    tt_cpu_over_rows(s, rows, heads * head_dim, rope_rows, &job);
    return TT_OK;
}

#endif
