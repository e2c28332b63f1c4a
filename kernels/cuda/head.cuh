/* head.cuh - statistics of a tile of logits, taken from the registers they were computed in.
 *
 * A row that asks for nothing but its peak, sums, a target and a Gumbel draw (plain, as nearly all
 * are) never has its logits written: each tile of kHeadTile columns leaves one head_part, and
 * head.cu merges the parts of a row in a fixed order. */
#ifndef TT_HEAD_CUH
#define TT_HEAD_CUH

#include "kernels/base/rng.h"
#include "kernels/cuda/device.cuh"

constexpr int kHeadTile = 128;
constexpr int kPlainBias = 4; /* biases a plain row may have */

/* What the device needs of a tt_draw; lists are places in one argument. */
struct head_row {
    float temperature, top_p, min_p;
    int32_t top_k, noise;
    uint64_t seed, base;
    uint32_t sample, step, position;
    int32_t limit, target, confidence_of_kept, top_p_within;
    int32_t bias, n_bias, allow, n_allow, unsure, n_unsure; /* allow: -1 when not given */
    int32_t gumbel; /* noise of every id, as bits of floats */
};

/* max, its place, the runner-up; sum of exp(l - max) and of that times (l - max); best noisy
 * score, its place and logit. at and drawn are -1 when nothing is possible. */
struct head_part {
    float max, second, sum, moment, score, drawn_logit;
    int32_t at, drawn;
};

struct head_tile_args {
    const head_row *row;
    const tt_id_value *bias; /* kPlainBias a row */
    head_part *part;         /* rows x tiles */
    float *target;           /* rows: logit of the target, set by the tile that has it */
    int tiles;
};

struct head_peak {
    float max, second;
    int32_t at;
};

/* Of two peaks over different columns; the lower column wins a tie. */
__device__ inline head_peak merge(const head_peak &a, const head_peak &b)
{
    bool first = a.max > b.max || (a.max == b.max && (uint32_t)a.at < (uint32_t)b.at);
    const head_peak &w = first ? a : b, &l = first ? b : a;
    return {w.max, fmaxf(w.second, l.max), w.at};
}

__device__ inline float clean(float l)
{
    if (isnan(l))
        return -INFINITY;
    return fminf(l, 3.402823466e+38f);
}

/* The row's bias for a column, if any: -inf wins over everything. */
__device__ inline float biased(float l, const tt_id_value *bias, int n, int32_t col)
{
    for (int i = 0; i < n; i++)
        if (bias[i].id == col)
            l = l == -INFINITY || bias[i].value == -INFINITY ? -INFINITY : clean(l + bias[i].value);
    return l;
}

/* Moves everything BY places down, the first BY to the end. With it a loop over registers need not
 * be unrolled as a whole: the statistics of a tile as straight code do not fit the instruction
 * cache. */
template <int BY, int N> __device__ inline void rotate(float (&d)[N])
{
    float first[BY];
#pragma unroll
    for (int j = 0; j < BY; j++)
        first[j] = d[j];
#pragma unroll
    for (int j = 0; j + BY < N; j++)
        d[j] = d[j + BY];
#pragma unroll
    for (int j = 0; j < BY; j++)
        d[N - BY + j] = first[j];
}

/* A row's rules, as a thread of its quad holds them. */
struct head_rules {
    head_row q;
    const tt_id_value *bias;
    int64_t row, end; /* end: ids from here on are banned */
    bool valid, any;  /* any: a bias lies in this tile */
};

__device__ inline head_rules rules_of(const head_tile_args &a, int64_t row, int64_t rows, int64_t n,
                                      int n0)
{
    head_rules u;
    u.row = row;
    u.valid = row < rows;
    u.q = a.row[u.valid ? row : 0];
    u.bias = a.bias + (u.valid ? row : 0) * kPlainBias;
    u.end = u.q.limit > 0 && u.q.limit < n ? u.q.limit : n;
    u.any = false;
    for (int i = 0; i < u.q.n_bias; i++)
        u.any |= u.bias[i].id >= n0 && u.bias[i].id < n0 + kHeadTile;
    return u;
}

/* What a thread has seen of a row. */
struct head_seen {
    head_peak peak;
    float sum, moment, score, logit;
    int32_t drawn;
};

__device__ inline void merge_quad(head_seen &s)
{
    for (int x = 1; x <= 2; x *= 2) {
        s.sum += __shfl_xor_sync(~0u, s.sum, x);
        s.moment += __shfl_xor_sync(~0u, s.moment, x);
        float score = __shfl_xor_sync(~0u, s.score, x), l = __shfl_xor_sync(~0u, s.logit, x);
        int32_t at = __shfl_xor_sync(~0u, s.drawn, x);
        if (score > s.score || (score == s.score && (uint32_t)at < (uint32_t)s.drawn)) {
            s.score = score;
            s.drawn = at;
            s.logit = l;
        }
    }
}

__device__ inline bool noisy(const head_row &q)
{
    return q.temperature > 0 && q.noise == TT_NOISE_PHILOX;
}

/* Adds the weights of two logits: nothing of those that are banned or far below the peak. */
__device__ inline void weigh(head_seen &s, const float *l)
{
#pragma unroll
    for (int c = 0; c < 2; c++) {
        float off = fmaxf(l[c] - s.peak.max, -200.0f), e = __expf(off);
        s.sum += e;
        s.moment = fmaf(e, off, s.moment);
    }
}

/* Two logits side by side: their noisy scores. */
__device__ inline void draw(head_seen &s, const float *l, int32_t col, const head_row &q)
{
    if (!noisy(q))
        return;
    tt_rng_block noise = tt_rng_at({q.seed, q.sample, q.step, q.position}, (uint32_t)col / 4);
#pragma unroll
    for (int c = 0; c < 2; c++) {
        uint32_t word = col % 4 ? noise.v[2 + c] : noise.v[c];
        float score = fmaf(q.temperature, tt_gumbel(word), l[c]);
        if (l[c] != -INFINITY && score > s.score) {
            s.score = score;
            s.drawn = col + c;
            s.logit = l[c];
        }
    }
}

/* d: accumulators of 16 rows x kHeadTile columns a warp, in wgmma's layout; m0: the warp's first
 * row. */
template <int TN>
__device__ void head_tile(float (&d)[TN / 2], const head_tile_args &a, int64_t rows, int64_t n,
                          int64_t m0, int n0, int tile)
{
    int lane = threadIdx.x % 32, t = lane % 4;
    head_rules u[2] = {rules_of(a, m0 + lane / 4, rows, n, n0),
                       rules_of(a, m0 + lane / 4 + 8, rows, n, n0)};
    head_seen s[2];
#pragma unroll
    for (int h = 0; h < 2; h++)
        s[h] = {{-INFINITY, -INFINITY, -1}, 0, 0, -INFINITY, 0, -1};
    constexpr int RUN = 4; /* groups of 8 columns that go together */
    static_assert(TN % (8 * RUN) == 0, "groups are left over");
#pragma unroll 1
    for (int g = 0; g < TN / 8; g += RUN) {
#pragma unroll
        for (int i = 0; i < 4 * RUN; i++) {
            int h = i / 2 % 2;
            int32_t col = n0 + 8 * (g + i / 4) + 2 * t + i % 2;
            float l = col < u[h].end ? clean(d[i]) : -INFINITY;
            if (u[h].any)
                l = biased(l, u[h].bias, u[h].q.n_bias, col);
            if (col == u[h].q.target && u[h].valid)
                a.target[u[h].row] = l;
            head_peak &p = s[h].peak;
            if (l > p.max)
                p = {l, p.max, col};
            else
                p.second = fmaxf(p.second, l);
            d[i] = l;
        }
        rotate<4 * RUN>(d);
    }
#pragma unroll
    for (int h = 0; h < 2; h++)
        for (int x = 1; x <= 2; x *= 2) {
            head_peak &p = s[h].peak;
            p = merge(p, {__shfl_xor_sync(~0u, p.max, x), __shfl_xor_sync(~0u, p.second, x),
                          __shfl_xor_sync(~0u, p.at, x)});
        }
#pragma unroll 1
    for (int g = 0; g < TN / 8; g += RUN) {
#pragma unroll
        for (int i = 0; i < 4 * RUN; i += 2)
            weigh(s[i / 2 % 2], &d[i]);
        rotate<4 * RUN>(d);
    }
    if (__any_sync(~0u, noisy(u[0].q) || noisy(u[1].q))) /* noise is long code: two at a time */
#pragma unroll 1
        for (int g = 0; g < TN / 8; g++) {
#pragma unroll
            for (int h = 0; h < 2; h++)
                draw(s[h], &d[2 * h], n0 + 8 * g + 2 * t, u[h].q);
            rotate<4>(d);
        }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        merge_quad(s[h]);
        const head_seen &f = s[h];
        if (t == 0 && u[h].valid)
            a.part[u[h].row * a.tiles + tile] = {f.peak.max, f.peak.second, f.sum, f.moment,
                                                 f.score, f.logit, f.peak.at, f.drawn};
    }
}

/* --- the host's side of head.cu, for other reductions of logits --- */

/* TT_EINVAL, beginning with op, when a draw over n ids cannot be. */
tt_status cuda_check_draw(const char *op, const tt_draw *d, int64_t row, int64_t n, tt_err *e);
/* TT_EINVAL when w cannot give the logits of rows of such activations. */
tt_status cuda_check_head(const char *op, const tt_stream *s, const tt_matrix *w, int64_t ldx,
                          int64_t rows, tt_err *e);
/* Logits of hidden rows after bias, allow and limit of their draws, NaN as -inf: rows x n. */
tt_status cuda_head_logits(cuda *c, float *logits, const void *x, int64_t ldx, int64_t rows,
                           const tt_matrix *w, const tt_draw *draw, tt_err *e);

#endif
