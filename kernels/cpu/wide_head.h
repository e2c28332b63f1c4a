/* wide_head.h - the head's passes over a row of logits (tt_cpu_rows), for any vector width;
 * included like wide.h.
 *
 * The product makes a row of 8192 logits in 23 microseconds on one core; these passes have to stay
 * well below that. So noise is computed only where it could win, and nothing is sorted but a
 * handful. */
#ifndef TT_CPU_WIDE_HEAD_H
#define TT_CPU_WIDE_HEAD_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

/* --- peak and mass --- */

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

/* In base 2: d = (l - max) log2(e), so the moment comes out in bits. */
static inline __attribute__((always_inline)) void add_mass(vf *sum, vf *moment, vf l, float max)
{
    vf d = v_mul(v_sub(l, v_set(max)), v_set(1.44269504f));
    d = v_max(d, v_set(-150)); /* 2^d is zero here already, and 0 * -inf is not */
    vf p = v_exp2_quick(d);
    *sum = v_add(*sum, p);
    *moment = v_fma(p, d, *moment);
}

static void row_mass(double *sum, double *moment, const float *row, int64_t n, float max)
{
    enum { SPAN = 4096 }; /* float sums this long, then double: the error stays below 1e-6 */
    *sum = *moment = 0;
    for (int64_t i = 0; i < n;) {
        int64_t to = i + SPAN < n ? i + SPAN : n;
        vf s0 = v_set(0), s1 = s0, t0 = s0, t1 = s0;
        for (; i + 2 * LANES <= to; i += 2 * LANES) {
            add_mass(&s0, &t0, v_load(row + i), max);
            add_mass(&s1, &t1, v_load(row + i + LANES), max);
        }
        for (; i < to; i += LANES) { /* absent lanes weigh nothing */
            vm in = v_gt(v_set((float)(to - i)), v_count());
            add_mass(&s0, &t0, v_pick(in, v_load_part(row + i, to - i), v_set(-INFINITY)), max);
        }
        *sum += v_sum(v_add(s0, s1));
        *moment += v_sum(v_add(t0, t1)) * 0.69314718055994531;
    }
}

/* --- noise --- */

/* Philox4x32-10 of one address. The words sit in the low halves of 64-bit lanes, where the
 * multiplier wants them; what is in the high halves never matters. */
typedef struct {
    vi position, step, sample, key[10][2];
} stream_of_words;

static void open_words(stream_of_words *p, tt_rng_address a)
{
    uint32_t k0 = (uint32_t)a.seed, k1 = (uint32_t)(a.seed >> 32);
    p->position = v_seti((int32_t)a.position);
    p->step = v_seti((int32_t)a.step);
    p->sample = v_seti((int32_t)a.sample);
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        p->key[round][0] = v_seti((int32_t)k0);
        p->key[round][1] = v_seti((int32_t)k1);
    }
}

/* The words of LANES blocks from `block` on, in order. Two halves at once keep the multiplier
 * busy. */
static inline __attribute__((always_inline)) void words(vi out[4], const stream_of_words *p,
                                                        uint32_t block)
{
    const vi m0 = v_seti((int32_t)0xD2511F53u), m1 = v_seti((int32_t)0xCD9E8D57u);
    vi a[4] = {v_addi(v_seti((int32_t)block), v_block_numbers()), p->position, p->step, p->sample};
    vi b[4] = {v_addi(a[0], v_seti(LANES / 2)), p->position, p->step, p->sample};
#pragma GCC unroll 10
    for (int round = 0; round < 10; round++) {
        vi a0 = v_mul_low(a[0], m0), a2 = v_mul_low(a[2], m1);
        vi b0 = v_mul_low(b[0], m0), b2 = v_mul_low(b[2], m1);
        a[0] = v_xor3(v_high(a2), a[1], p->key[round][0]);
        b[0] = v_xor3(v_high(b2), b[1], p->key[round][0]);
        a[2] = v_xor3(v_high(a0), a[3], p->key[round][1]);
        b[2] = v_xor3(v_high(b0), b[3], p->key[round][1]);
        a[1] = a2;
        b[1] = b2;
        a[3] = a0;
        b[3] = b0;
    }
    v_join(a, out);
    v_join(b, out + 2);
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

static void consider(winner *w, vf score, int64_t first)
{
    float most = v_top(score);
    if (most < w->score || most == -INFINITY)
        return;
    int32_t at = (int32_t)first + __builtin_ctz(v_bits(v_ge(score, v_set(most))));
    if (most > w->score || at < w->at)
        *w = (winner){most, at};
}

/* Random words below this cannot win with a logit of at most `most`. Noise must reach
 * g = (best - most) / T, so 1 - u <= -ln u <= exp(-g); as a bound from above, 2^t <= (1 + fraction
 * of t) 2^floor(t) is one addition to the exponent. Errs on the side of computing. */
static inline uint32_t least_word(float most, float best, float inverse)
{
    float t = (most - best) * inverse; /* inverse: log2(e) / T */
    t = t > -100 ? t : -100;           /* NaN too, from two infinities */
    if (t > 0)
        return 0;
    int32_t bits = (int32_t)((t + 127) * 0x1p23f);
    float bound;
    memcpy(&bound, &bits, sizeof bound);
    float gap = bound * 0x1.01p32f + 4;
    return gap < 0x1p32f ? 0xFFFFFFFFu - (uint32_t)gap : 0;
}

enum { RUN = 4 * LANES };

/* Candidates at x, RUN of them, whose indexes start at first. Noise costs far more than a
 * comparison, so what cannot win is found before: no noise exceeds 22.9, and few random words are
 * large enough. */
static inline __attribute__((always_inline)) void draw_run(winner *w, const float *x, int64_t first,
                                                           float temperature, float inverse,
                                                           const stream_of_words *p)
{
    /* A sum may round up to a tie with the best: look a little below it. */
    float mark = w->score - fabsf(w->score) * 0x1p-22f;
    vf low = v_max(v_load(x), v_load(x + LANES));
    vf high = v_max(low, v_max(v_load(x + 2 * LANES), v_load(x + 3 * LANES)));
    if (!v_any(v_ge(high, v_set(mark - 22.9f * temperature))))
        return;
    uint32_t least = least_word(v_top(high), mark, inverse);
    vi word[4];
    words(word, p, (uint32_t)(first / 4));
    vm any = v_or(v_or(v_ge_unsigned(word[0], least), v_ge_unsigned(word[1], least)),
                  v_or(v_ge_unsigned(word[2], least), v_ge_unsigned(word[3], least)));
    if (!v_any(any))
        return;
    for (int j = 0; j < 4; j++)
        if (v_any(v_ge_unsigned(word[j], least)))
            consider(w, v_fma(v_set(temperature), gumbel(word[j]), v_load(x + j * LANES)),
                     first + j * LANES);
}

static int32_t row_gumbel(const float *row, int64_t n, float temperature, tt_rng_address a,
                          int32_t argmax)
{
    winner w = {-INFINITY, -1};
    float inverse = 1.44269504f / temperature, tail[RUN];
    inverse = inverse < 1e30f ? inverse : 1e30f;
    stream_of_words p;
    open_words(&p, a);
    int64_t whole = n / RUN * RUN, likely = argmax / RUN * RUN;
    for (int64_t i = 0; i < RUN; i++)
        tail[i] = whole + i < n ? row[whole + i] : -INFINITY;
    /* The run of the largest logit first: a high mark to beat early. */
    int64_t i = likely;
    for (int64_t next = 0;; i = next, next += RUN) {
        draw_run(&w, i < whole ? row + i : tail, i, temperature, inverse, &p);
        next += next == likely ? RUN : 0;
        if (next >= n)
            return w.at;
    }
}

/* --- filters --- */

static void swap(float *a, float *b)
{
    float t = *a;
    *a = *b;
    *b = t;
}

/* The k-th largest (k from 1) of n values, which are moved about. */
static float kth_largest(float *x, int64_t n, int64_t k)
{
    int64_t lo = 0, hi = n - 1, at = k - 1;
    while (lo < hi) {
        float pivot = x[lo + (hi - lo) / 2];
        int64_t i = lo, above = lo, below = hi; /* [lo, above) >, (below, hi] < pivot */
        while (i <= below) {
            if (x[i] > pivot)
                swap(&x[i++], &x[above++]);
            else if (x[i] < pivot)
                swap(&x[i], &x[below--]);
            else
                i++;
        }
        if (at >= above && at <= below)
            return pivot;
        if (at < above)
            hi = above - 1;
        else
            lo = below + 1;
    }
    return x[at];
}

/* Values of row that are at least `least`, in order, to out; returns how many. */
static int64_t collect(float *out, const float *row, int64_t n, float least)
{
    int64_t count = 0;
    for (int64_t i = 0; i < n; i += LANES) {
        vm in = v_ge(v_load_part(row + i, n - i), v_set(least));
        for (unsigned bits = v_bits(in); bits; bits &= bits - 1) {
            int64_t at = i + __builtin_ctz(bits);
            if (at < n) /* absent lanes look like zeros */
                out[count++] = row[at];
        }
    }
    return count;
}

/* The k-th largest logit, k < n. Of the maxima of runs, the k-th largest is not above it, and few
 * values are above that. */
static float top_k_least(const float *row, int64_t n, int64_t k, float *spare)
{
    int64_t runs = n / RUN;
    float least = -0x1.fffffep127f;
    if (k <= runs) {
        for (int64_t r = 0; r < runs; r++) {
            const float *x = row + r * RUN;
            vf a = v_max(v_load(x), v_load(x + LANES));
            vf b = v_max(v_load(x + 2 * LANES), v_load(x + 3 * LANES));
            spare[r] = v_top(v_max(a, b));
        }
        least = kth_largest(spare, runs, k);
        least = least > -INFINITY ? least : -0x1.fffffep127f;
    }
    int64_t count = collect(spare, row, n, least);
    return count < k ? -INFINITY : kth_largest(spare, count, k);
}

/* What top_p keeps: values above `least` and the first `ties` equal to it. */
typedef struct {
    float least;
    int64_t ties;
} nucleus;

enum { BINS = 2048 };

static int bin_of(float l, float max, float per_unit)
{
    float b = (max - l) * per_unit;
    return b < BINS - 1 ? (int)b : BINS - 1;
}

static int by_falling(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* Sorting everything would cost more than the product that made the logits. Instead weights are
 * summed in bins of falling logits; only the bin in which the sum passes top_p is sorted. floor:
 * what top_k left. */
static nucleus top_p_least(const float *row, int64_t n, const tt_draw *d, float max, float floor,
                           float *spare)
{
    float temperature = d->temperature > 0 ? d->temperature : 1, top_p = d->top_p;
    vf inverse = v_set(1.0f / temperature), top = v_set(max), low = v_set(floor);
    double total = 0, mass[BINS] = {0}, before = 0;
    for (int64_t from = 0; from < n; from += 4096) {
        int64_t to = from + 4096 < n ? from + 4096 : n;
        vf sum = v_set(0);
        for (int64_t i = from; i < to; i += LANES) {
            vf l = v_load_part(row + i, n - i);
            vf p = v_exp(v_mul(v_sub(l, top), inverse));
            p = v_pick(v_ge(l, low), p, v_set(0));
            v_store_part(spare + i, p, n - i);
            if (n - i < LANES)
                p = v_pick(v_gt(v_set((float)(n - i)), v_count()), p, v_set(0));
            sum = v_add(sum, p);
        }
        total += v_sum(sum);
    }
    /* Entries this light weigh less than 1 - top_p together: the cut is above them. */
    float light = (float)((1.0 - top_p) * total / (double)n * 0.999);
    float deepest = temperature * -logf(light > 1e-30f ? light : 1e-30f) + temperature;
    float per_unit = (float)BINS / deepest;
    per_unit = per_unit < 1e30f ? per_unit : 1e30f;
    for (int64_t i = 0; i < n; i += LANES) {
        vm heavy = v_gt(v_load_part(spare + i, n - i), v_set(light));
        for (unsigned bits = v_bits(heavy); bits; bits &= bits - 1) {
            int64_t at = i + __builtin_ctz(bits);
            mass[bin_of(row[at], max, per_unit)] += spare[at];
        }
    }
    double limit = (double)top_p * total;
    int b = 0;
    while (b < BINS && before + mass[b] <= limit)
        before += mass[b++];
    if (b == BINS) /* only by rounding */
        return (nucleus){-INFINITY, n};

    int64_t count = 0;
    for (int64_t i = 0; i < n; i += LANES) {
        vm heavy = v_gt(v_load_part(spare + i, n - i), v_set(light));
        for (unsigned bits = v_bits(heavy); bits; bits &= bits - 1) {
            int64_t at = i + __builtin_ctz(bits);
            if (bin_of(row[at], max, per_unit) == b)
                spare[count++] = row[at]; /* never ahead of the reading */
        }
    }
    qsort(spare, (size_t)count, sizeof *spare, by_falling);
    int64_t keep = 0;
    while (keep < count && (before <= limit || (b == 0 && keep == 0)))
        before += exp(((double)spare[keep++] - max) / temperature);
    if (d->top_p_within && before > limit && (b > 0 || keep > 1))
        keep--;
    if (keep == 0) /* what stays is in the bins before, above all of this one */
        return (nucleus){spare[0], 0};
    nucleus k = {spare[keep - 1], 0};
    while (k.ties < keep && spare[keep - 1 - k.ties] == k.least)
        k.ties++;
    return k;
}

static void row_filter(float *row, int64_t n, const tt_draw *d, float max, float *spare)
{
    float temperature = d->temperature > 0 ? d->temperature : 1;
    float floor = -INFINITY;
    nucleus k = {-INFINITY, n};
    if (d->top_k > 0 && d->top_k < n)
        floor = top_k_least(row, n, d->top_k, spare);
    if (d->top_p < 1)
        k = top_p_least(row, n, d, max, floor, spare);
    if (k.least < floor)
        k = (nucleus){floor, n};
    double depth = d->min_p > 0 ? log(d->min_p) * temperature : -INFINITY;
    for (int64_t i = 0; i < n; i += LANES) {
        vf l = v_load_part(row + i, n - i);
        vm above = v_gt(l, v_set(k.least)), reached = v_ge(l, v_set(k.least));
        unsigned equal = v_bits(reached) & ~v_bits(above);
        v_store_part(row + i, v_pick(reached, l, v_set(-INFINITY)), n - i);
        for (; equal; equal &= equal - 1) {
            int64_t at = i + __builtin_ctz(equal);
            if (at < n && k.ties-- <= 0)
                row[at] = -INFINITY;
        }
        if (!(depth > -INFINITY) || !v_any(reached))
            continue;
        for (int64_t at = i; at < n && at < i + LANES; at++)
            if ((double)row[at] - max < depth)
                row[at] = -INFINITY;
    }
}

const tt_cpu_rows LEVEL(rows) = {row_peak, row_mass, row_gumbel, row_filter};

tt_status LEVEL(head)(tt_stream *s, tt_row_stats *stats, tt_id_value *top, int32_t n_top,
                      float *logits, const tt_act *x, int64_t ldx, int64_t rows, const tt_matrix *w,
                      const tt_draw *draw, tt_err *e)
{
    return tt_cpu_head_with(&LEVEL(rows), s, stats, top, n_top, logits, x, ldx, rows, w, draw, e);
}

#endif
