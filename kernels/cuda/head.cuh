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
    int32_t limit, target, confidence_of_kept;
    int32_t bias, n_bias, allow, n_allow, unsure, n_unsure; /* allow: -1 when not given */
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

/* d: accumulators of 16 rows x TN columns a warp, in wgmma's layout; m0: the warp's first row. */
template <int TN>
__device__ void head_tile(float (&d)[TN / 2], const head_tile_args &a, int64_t rows, int64_t n,
                          int64_t m0, int n0, int tile)
{
    int lane = threadIdx.x % 32, t = lane % 4;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int64_t row = m0 + lane / 4 + 8 * h;
        bool valid = row < rows;
        head_row q = a.row[valid ? row : 0];
        const tt_id_value *bias = a.bias + (valid ? row : 0) * kPlainBias;
        int64_t end = q.limit > 0 && q.limit < n ? q.limit : n;
        head_peak p = {-INFINITY, -INFINITY, -1};
        bool any = false; /* a bias or the target lies in this tile */
        for (int i = 0; i < q.n_bias; i++)
            any |= bias[i].id >= n0 && bias[i].id < n0 + TN;
#pragma unroll
        for (int i = 0; i < TN / 4; i++) {
            int32_t col = n0 + i / 2 * 8 + 2 * t + i % 2;
            float &l = d[i / 2 * 4 + 2 * h + i % 2];
            l = col < end ? clean(l) : -INFINITY;
            if (any)
                l = biased(l, bias, q.n_bias, col);
            if (col == q.target && valid)
                a.target[row] = l;
            if (l > p.max)
                p = {l, p.max, col};
            else
                p.second = fmaxf(p.second, l);
        }
        for (int x = 1; x <= 2; x *= 2)
            p = merge(p, {__shfl_xor_sync(~0u, p.max, x), __shfl_xor_sync(~0u, p.second, x),
                          __shfl_xor_sync(~0u, p.at, x)});
        float sum = 0, moment = 0, score = -INFINITY, logit = 0;
        int32_t drawn = -1;
        bool noisy = q.temperature > 0 && q.noise == TT_NOISE_PHILOX;
        tt_rng_address from = {q.seed, q.sample, q.step, q.position};
#pragma unroll
        for (int i = 0; i < TN / 4; i += 2) {
            int32_t col = n0 + i / 2 * 8 + 2 * t;
            tt_rng_block noise;
            if (noisy)
                noise = tt_rng_at(from, (uint32_t)col / 4);
#pragma unroll
            for (int c = 0; c < 2; c++) {
                float l = d[i / 2 * 4 + 2 * h + c];
                if (l == -INFINITY)
                    continue;
                float off = l - p.max, e = expf(off);
                sum += e;
                moment = fmaf(e, off, moment);
                if (noisy) {
                    uint32_t word = t % 2 ? noise.v[2 + c] : noise.v[c];
                    float s = fmaf(q.temperature, tt_gumbel(word), l);
                    if (s > score) {
                        score = s;
                        drawn = col + c;
                        logit = l;
                    }
                }
            }
        }
        for (int x = 1; x <= 2; x *= 2) {
            sum += __shfl_xor_sync(~0u, sum, x);
            moment += __shfl_xor_sync(~0u, moment, x);
            float s = __shfl_xor_sync(~0u, score, x), l = __shfl_xor_sync(~0u, logit, x);
            int32_t at = __shfl_xor_sync(~0u, drawn, x);
            if (s > score || (s == score && (uint32_t)at < (uint32_t)drawn)) {
                score = s;
                drawn = at;
                logit = l;
            }
        }
        if (t == 0 && valid)
            a.part[row * a.tiles + tile] = {p.max, p.second, sum, moment, score, logit, p.at,
                                            drawn};
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
