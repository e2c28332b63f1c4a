/* wide.h - the row-wise operations, written once for any vector width in the words of vec_*.h.
 *
 * avx2.c and avx512.c include it with LEVEL(name) saying what the functions are called there. A
 * row is computed by one thread, its sums run over the lanes in a fixed order, so neither batch
 * nor threads show in the bits. */
#ifndef TT_CPU_WIDE_H
#define TT_CPU_WIDE_H

#include <math.h>
#include <string.h>

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

/* --- the head's passes --- */

static tt_row_peak row_peak(float *row, int64_t n)
{
    vf none = v_set(-INFINITY), most = v_set(0x1.fffffep127f);
    vf max = none, second = none;
    vi at = v_seti(-1);
    for (int64_t i = 0; i < n; i += LANES) {
        int64_t left = n - i;
        vf raw = v_load_part(row + i, left), v = v_min(v_max(raw, none), most);
        if (v_any(v_differs(raw, v)))
            v_store_part(row + i, v, left);
        if (left < LANES)
            v = v_pick(v_gt(v_set((float)left), v_count()), v, none);
        second = v_max(second, v_min(max, v));
        at = v_picki(v_gt(v, max), v_seti((int32_t)i), at);
        max = v_max(max, v);
    }
    float lane_max[LANES], lane_second[LANES];
    int32_t lane_at[LANES];
    v_store(lane_max, max);
    v_store(lane_second, second);
    v_storei(lane_at, at);
    tt_row_peak p = {-INFINITY, -INFINITY, -1};
    int winner = -1;
    for (int j = 0; j < LANES; j++)
        if (lane_at[j] >= 0 &&
            (lane_max[j] > p.max || (lane_max[j] == p.max && lane_at[j] + j < p.at))) {
            p.max = lane_max[j];
            p.at = lane_at[j] + j;
            winner = j;
        }
    for (int j = 0; j < LANES; j++) {
        float other = j == winner ? lane_second[j] : lane_max[j];
        p.second = other > p.second ? other : p.second;
    }
    return p;
}

static void row_mass(double *sum, double *moment, const float *row, int64_t n, float max)
{
    enum { RUN = 4096 }; /* float sums this long, then double: the error stays below 1e-6 */
    *sum = *moment = 0;
    for (int64_t from = 0; from < n; from += RUN) {
        int64_t to = from + RUN < n ? from + RUN : n;
        vf s[2] = {v_set(0), v_set(0)}, t[2] = {v_set(0), v_set(0)};
        for (int64_t i = from; i < to; i += 2 * LANES)
            for (int64_t j = 0; j < 2; j++) {
                int64_t left = to - i - j * LANES;
                vf d = v_sub(v_load_part(row + i + j * LANES, left), v_set(max));
                if (left < LANES) /* absent lanes weigh nothing */
                    d = v_pick(v_gt(v_set((float)left), v_count()), d, v_set(-INFINITY));
                d = v_max(d, v_set(-104)); /* exp is zero here already, and 0 * -inf is not */
                vf p = v_exp(d);
                s[j] = v_add(s[j], p);
                t[j] = v_fma(p, d, t[j]);
            }
        *sum += v_sum(v_add(s[0], s[1]));
        *moment += v_sum(v_add(t[0], t[1]));
    }
}

/* Philox4x32-10 for LANES blocks starting at `block`; v becomes their words in order. */
static inline void philox(vi v[4], tt_rng_address a, uint32_t block)
{
    vi c0 = v_addi(v_seti((int32_t)block), v_lane_block()), c1 = v_seti((int32_t)a.position);
    vi c2 = v_seti((int32_t)a.step), c3 = v_seti((int32_t)a.sample);
    vi m0 = v_seti((int32_t)0xD2511F53u), m1 = v_seti((int32_t)0xCD9E8D57u);
    uint32_t k0 = (uint32_t)a.seed, k1 = (uint32_t)(a.seed >> 32);
    for (int round = 0; round < 10; round++) {
        vi high0, low0, high1, low1;
        v_mul_wide(c0, m0, &high0, &low0);
        v_mul_wide(c2, m1, &high1, &low1);
        c0 = v_xori(v_xori(high1, c1), v_seti((int32_t)k0));
        c1 = low1;
        c2 = v_xori(v_xori(high0, c3), v_seti((int32_t)k1));
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    v[0] = c0;
    v[1] = c1;
    v[2] = c2;
    v[3] = c3;
    v_interleave(v);
}

/* tt_log1p_fixed, lane by lane and bit by bit. */
static inline vf log1p_fixed(vf f, vf e)
{
    vf p = v_set(0x1.a957e6p-5f);
    p = v_fma(p, f, v_set(-0x1.bc3970p-4f));
    p = v_fma(p, f, v_set(0x1.f00b74p-4f));
    p = v_fma(p, f, v_set(-0x1.0110cap-3f));
    p = v_fma(p, f, v_set(0x1.2302f8p-3f));
    p = v_fma(p, f, v_set(-0x1.552f04p-3f));
    p = v_fma(p, f, v_set(0x1.99a542p-3f));
    p = v_fma(p, f, v_set(-0x1.000070p-2f));
    p = v_fma(p, f, v_set(0x1.555548p-2f));
    vf f2 = v_mul(f, f), r = v_mul(p, f);
    r = v_fma(r, f2, v_mul(e, v_set(-2.12194440e-4f)));
    r = v_fma(v_set(-0.5f), f2, r);
    r = v_add(r, f);
    return v_fma(e, v_set(0.693359375f), r);
}

static inline void log_reduce(vf x, vf *f, vf *e)
{
    vi shifted = v_subi(v_as_int(x), v_seti(0x3F3504F3));
    *e = v_float(v_sar(shifted, 23));
    vi m = v_addi(v_andi(shifted, v_seti(0x007FFFFF)), v_seti(0x3F3504F3));
    *f = v_sub(v_as_float(m), v_set(1));
}

/* tt_gumbel. */
static inline vf gumbel(vi x)
{
    vi down = v_xori(x, v_seti(-1));
    /* x >= 0xB504F334 unsigned */
    vm upper = v_gti(v_xori(x, v_seti(INT32_MIN)), v_seti((int32_t)(0xB504F333u ^ 0x80000000u)));
    vf f, e, half = v_set(0.5f);
    log_reduce(v_mul(v_add(v_floatu(x), half), v_set(0x1p-32f)), &f, &e);
    f = v_pick(upper, v_mul(v_add(v_floatu(down), half), v_set(-0x1p-32f)), f);
    e = v_pick(upper, v_set(0), e);
    vf minus_log_u = v_sub(v_set(0), log1p_fixed(f, e));
    log_reduce(minus_log_u, &f, &e);
    return v_sub(v_set(0), log1p_fixed(f, e));
}

/* The best candidate so far. */
typedef struct {
    float score;
    int32_t at;
} winner;

static void consider(winner *w, vf score, int64_t first, int64_t n)
{
    float s[LANES];
    v_store(s, score);
    for (int32_t j = 0; j < LANES && first + j < n; j++)
        if (s[j] > w->score || (s[j] == w->score && (int32_t)first + j < w->at))
            *w = (winner){s[j], (int32_t)first + j};
}

/* Four vectors of candidates from index i on. Noise costs far more than a comparison, so what
 * cannot win is found first: no noise exceeds 22.9, and for noise to reach g = (best - l) / T the
 * random word must have 1 - u <= -ln u <= exp(-g), for which 2^t <= (1 + fraction) 2^floor gives
 * a bound that is one addition. Both tests err on the side of computing. */
static inline void draw_run(winner *w, const float *row, int64_t i, int64_t n, float temperature,
                            float inverse, tt_rng_address a)
{
    /* A sum may round up to a tie with the mark: look a little below it. */
    float mark = w->score - fabsf(w->score) * 0x1p-22f;
    vf l[4];
    vm hope = v_gt(v_set(0), v_set(0));
    for (int j = 0; j < 4; j++) {
        int64_t left = n - i - j * LANES;
        l[j] = v_load_part(row + i + j * LANES, left);
        if (left < LANES)
            l[j] = v_pick(v_gt(v_set((float)left), v_count()), l[j], v_set(-INFINITY));
        hope = v_or(hope, v_ge(v_fma(v_set(temperature), v_set(22.9f), l[j]), v_set(mark)));
    }
    if (!v_any(hope))
        return;
    vi x[4];
    philox(x, a, (uint32_t)(i / 4));
    for (int j = 0; j < 4; j++) {
        vf t = v_mul(v_sub(l[j], v_set(mark)), v_set(inverse));
        t = v_min(v_max(t, v_set(-100)), v_set(1)); /* NaN, from -inf both, becomes -100 */
        vf bound = v_as_float(v_int(v_mul(v_add(t, v_set(127)), v_set(0x1p23f))));
        vf gap = v_floatu(v_xori(x[j], v_seti(-1)));
        if (v_any(v_ge(v_fma(bound, v_set(0x1.01p32f), v_set(4)), gap)))
            consider(w, v_fma(v_set(temperature), gumbel(x[j]), l[j]), i + j * LANES, n);
    }
}

static int32_t row_gumbel(const float *row, int64_t n, float temperature, tt_rng_address a,
                          int32_t argmax)
{
    winner w = {-INFINITY, -1};
    float inverse = 1.44269504f / temperature;
    inverse = inverse < 1e30f ? inverse : 1e30f;
    int64_t run = 4 * LANES, likely = argmax / run * run;
    draw_run(&w, row, likely, n, temperature, inverse, a); /* a high mark to beat early */
    for (int64_t i = 0; i < n; i += run)
        if (i != likely)
            draw_run(&w, row, i, n, temperature, inverse, a);
    return w.at;
}

const tt_cpu_rows LEVEL(rows) = {row_peak, row_mass, row_gumbel};

tt_status LEVEL(head)(tt_stream *s, tt_row_stats *stats, tt_id_value *top, int32_t n_top,
                      float *logits, const tt_act *x, int64_t ldx, int64_t rows, const tt_matrix *w,
                      const tt_draw *draw, tt_err *e)
{
    return tt_cpu_head_with(&LEVEL(rows), s, stats, top, n_top, logits, x, ldx, rows, w, draw, e);
}

#endif
