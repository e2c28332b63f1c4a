/* head_rows.cuh - the kernels of rows of logits: what draws forbid, draws and statistics of a row,
 * and statistics of a plain row from those of its tiles. Included by head.cu. */
#ifndef TT_HEAD_ROWS_CUH
#define TT_HEAD_ROWS_CUH

#include "kernels/cuda/head_filter.cuh"

namespace {

/* --- draws --- */

struct scored {
    double score;
    int32_t at;
};

__device__ int32_t block_best(scored b)
{
    __shared__ scored part[32];
    for (int x = 16; x; x >>= 1) {
        scored o = {__shfl_xor_sync(~0u, b.score, x), __shfl_xor_sync(~0u, b.at, x)};
        if (o.score > b.score || (o.score == b.score && (uint32_t)o.at < (uint32_t)b.at))
            b = o;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = b;
    __syncthreads();
    b = part[0];
    for (int w = 1; w < kThreads / 32; w++)
        if (part[w].score > b.score ||
            (part[w].score == b.score && (uint32_t)part[w].at < (uint32_t)b.at))
            b = part[w];
    return b.at;
}

__device__ int32_t draw_gumbel(const row_job &j)
{
    const head_row &q = *j.q;
    tt_rng_address a = {q.seed, q.sample, q.step, q.position};
    scored best = {-INFINITY, -1};
    for (int64_t b = threadIdx.x; b * 4 < j.n; b += kThreads) {
        tt_rng_block noise = tt_rng_at(a, (uint32_t)b);
        for (int64_t i = b * 4; i < b * 4 + 4 && i < j.n; i++) {
            float s = fmaf(q.temperature, tt_gumbel(noise.v[i % 4]), j.l[i]);
            if (s > best.score)
                best = {s, (int32_t)i};
        }
    }
    return block_best(best);
}

__device__ int32_t draw_given(const row_job &j)
{
    const head_row &q = *j.q;
    scored best = {-INFINITY, -1};
    for (int64_t i = threadIdx.x; i < j.n; i += kThreads) {
        float s = fmaf(q.temperature, __int_as_float(j.ints[q.gumbel + i]), j.l[i]);
        if (s > best.score)
            best = {s, (int32_t)i};
    }
    return block_best(best);
}

/* The float64 uniform number at place k = 1, 2, ... of the splitmix64 stream of seed. */
__device__ double splitmix(uint64_t seed, uint64_t k)
{
    uint64_t z = seed + k * 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return (double)(z >> 11) * 0x1p-53;
}

__device__ int32_t draw_splitmix(const row_job &j)
{
    const head_row &q = *j.q;
    scored best = {-INFINITY, -1};
    for (int64_t i = threadIdx.x; i < j.n; i += kThreads) {
        if (j.l[i] == -INFINITY)
            continue;
        double u = splitmix(q.seed, q.base + (uint64_t)i + 1);
        double score = j.l[i] - (double)q.temperature * log(-log(u));
        if (score > best.score || best.at < 0)
            best = {score, (int32_t)i};
    }
    return block_best(best);
}

/* The first id whose cumulative probability exceeds u times the total. */
__device__ int32_t draw_cumulative(const row_job &j, float max)
{
    __shared__ double start[kThreads];
    __shared__ int32_t answer, last;
    const head_row &q = *j.q;
    int64_t run = (j.n + kThreads - 1) / kThreads, from = threadIdx.x * run;
    int64_t to = from + run < j.n ? from + run : j.n;
    double mine = 0;
    for (int64_t i = from; i < to; i++)
        mine += exp(((double)j.l[i] - max) / q.temperature);
    __syncthreads();
    start[threadIdx.x] = mine;
    if (threadIdx.x == 0)
        answer = INT32_MAX, last = -1;
    __syncthreads();
    double sum = 0, total = 0;
    for (int t = 0; t < kThreads; t++) {
        sum += t < (int)threadIdx.x ? start[t] : 0;
        total += start[t];
    }
    double aim = splitmix(q.seed, q.base + 1) * total;
    for (int64_t i = from; i < to; i++) {
        double p = exp(((double)j.l[i] - max) / q.temperature);
        sum += p;
        if (p > 0)
            atomicMax(&last, (int32_t)i);
        if (sum > aim) {
            atomicMin(&answer, (int32_t)i);
            break;
        }
    }
    __syncthreads();
    return answer == INT32_MAX ? last : answer;
}

/* --- the row --- */

/* Bias, limit and allowed ids; NaN and infinities. */
__global__ void __launch_bounds__(kThreads) constrain_rows(float *tile, int64_t n,
                                                           const head_row *row,
                                                           const int32_t *ints)
{
    begin();
    const head_row &q = row[blockIdx.x];
    float *l = tile + blockIdx.x * n;
    for (int64_t i = threadIdx.x; i < n; i += kThreads) {
        bool banned = (q.limit > 0 && i >= q.limit) ||
                      (q.allow >= 0 && !in_list(ints + q.allow, q.n_allow, (int32_t)i));
        l[i] = banned ? -INFINITY : clean(l[i]);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < q.n_bias; i += kThreads) {
        int32_t id = ints[q.bias + 2 * i];
        float by = __int_as_float(ints[q.bias + 2 * i + 1]);
        l[id] = l[id] == -INFINITY || by == -INFINITY ? -INFINITY : clean(l[id] + by);
    }
}

/* The n_top best, a lower id first on a tie. */
__device__ void list_top(const row_job &j, tt_id_value *top, int n_top, double max, double log_sum)
{
    float value = INFINITY;
    int32_t at = -1;
    for (int k = 0; k < n_top; k++) {
        head_peak p = {-INFINITY, -INFINITY, -1};
        for (int64_t i = threadIdx.x; i < j.n; i += kThreads) {
            float l = j.l[i];
            bool after = l < value || (l == value && (int32_t)i > at);
            if (after && l > p.max)
                p = {l, p.max, (int32_t)i};
        }
        p = block_peak(p);
        value = p.max;
        at = p.at;
        if (threadIdx.x == 0) {
            top[k].id = at;
            top[k].value = at < 0 ? 0.0f : (float)(value - max - log_sum);
        }
        if (at < 0)
            value = -INFINITY, at = INT32_MAX;
    }
}

__device__ float prob_of(const row_job &j, const softmax &p, int32_t id, float logit)
{
    if (in_list(j.ints + j.q->unsure, j.q->n_unsure, id))
        return 0;
    return (float)(exp((double)logit - p.peak.max) / p.sum);
}

/* A row that is read many times over is kept in shared memory if it is no longer than this. */
constexpr int64_t kMostKept = 16384;

__global__ void __launch_bounds__(kThreads) reduce_rows(tt_row_stats *stats, tt_id_value *top,
                                                        int n_top, float *tile, int64_t n,
                                                        const head_row *row, const int32_t *ints)
{
    extern __shared__ float kept[];
    begin();
    row_job j = {tile + blockIdx.x * n, n, row + blockIdx.x, ints};
    if (n <= kMostKept) {
#pragma unroll 8
        for (int64_t i = threadIdx.x; i < n; i += kThreads)
            kept[i] = j.l[i];
        j.l = kept;
        __syncthreads();
    }
    const head_row &q = *j.q;
    const int32_t *unsure = ints + q.unsure;
    tt_row_stats out = {};
    softmax all = softmax_of(j, nullptr, 0, 0, 1);
    out.argmax = out.drawn = all.peak.at;
    double max = all.peak.max, log_sum = log(all.sum);
    if (top)
        list_top(j, top + blockIdx.x * n_top, n_top, max, log_sum);
    if (all.peak.at < 0) {
        if (threadIdx.x == 0)
            stats[blockIdx.x] = out;
        return;
    }
    out.max_logit = all.peak.max;
    out.lse = (float)(max + log_sum);
    out.gap = all.peak.second == -INFINITY ? INFINITY : all.peak.max - all.peak.second;
    if (q.target >= 0)
        out.target_logprob = (float)(j.l[q.target] - max - log_sum);
    softmax p = all;
    if (q.n_unsure && !q.confidence_of_kept)
        p = softmax_of(j, unsure, q.n_unsure, 0, 1);
    bool random = q.temperature > 0 && q.noise != TT_NOISE_NONE;
    bool filtered = q.top_k > 0 || q.top_p < 1 || q.min_p > 0;
    __syncthreads();
    if (filtered && (random || q.confidence_of_kept))
        filter(j, all.peak.max);
    if (random)
        out.drawn = q.noise == TT_NOISE_PHILOX     ? draw_gumbel(j)
                    : q.noise == TT_NOISE_SPLITMIX ? draw_splitmix(j)
                    : q.noise == TT_NOISE_GIVEN    ? draw_given(j)
                                                   : draw_cumulative(j, all.peak.max);
    out.logprob = (float)(j.l[out.drawn] - max - log_sum);
    float shift = 0, divide = 1;
    if (q.confidence_of_kept) {
        if (q.temperature > 0)
            shift = all.peak.max, divide = q.temperature;
        p = softmax_of(j, unsure, q.n_unsure, shift, divide);
    }
    if (p.peak.at >= 0) {
        out.prob_argmax = prob_of(j, p, out.argmax, (j.l[out.argmax] - shift) / divide);
        out.prob = prob_of(j, p, out.drawn, (j.l[out.drawn] - shift) / divide);
        out.margin = (float)((1.0 - exp((double)p.peak.second - p.peak.max)) / p.sum);
        out.entropy = (float)(log(p.sum) - p.moment / p.sum);
    }
    if (threadIdx.x == 0)
        stats[blockIdx.x] = out;
}

/* --- plain rows: merging the tiles' parts, one block a row --- */

__global__ void __launch_bounds__(kThreads) merge_parts(tt_row_stats *stats, const head_part *part,
                                                        const float *target, const head_row *row,
                                                        int tiles)
{
    begin();
    int64_t r = blockIdx.x;
    const head_part *p = part + r * tiles;
    head_peak peak = {-INFINITY, -INFINITY, -1};
    scored best = {-INFINITY, -1};
    for (int t = threadIdx.x; t < tiles; t += kThreads) {
        peak = merge(peak, {p[t].max, p[t].second, p[t].at});
        if (p[t].score > best.score)
            best = {p[t].score, p[t].drawn};
    }
    peak = block_peak(peak);
    int32_t chosen = block_best(best);
    double sum = 0, moment = 0;
    for (int t = threadIdx.x; t < tiles; t += kThreads) {
        if (p[t].at < 0)
            continue;
        double off = (double)p[t].max - peak.max, by = exp(off);
        sum += p[t].sum * by;
        moment += by * (p[t].moment + off * p[t].sum);
    }
    sum = block_sum(sum);
    moment = block_sum(moment);
    if (threadIdx.x)
        return;
    tt_row_stats out = {};
    out.argmax = out.drawn = peak.at;
    if (peak.at >= 0) {
        double max = peak.max, log_sum = log(sum);
        float drawn = peak.max;
        if (chosen >= 0) {
            out.drawn = chosen;
            drawn = p[chosen / kHeadTile].drawn_logit;
        }
        out.prob_argmax = (float)(1.0 / sum);
        out.prob = (float)(exp(drawn - max) / sum);
        out.margin = (float)((1.0 - exp((double)peak.second - max)) / sum);
        out.entropy = (float)(log_sum - moment / sum);
        out.max_logit = peak.max;
        out.lse = (float)(max + log_sum);
        out.logprob = (float)(drawn - max - log_sum);
        out.gap = peak.second == -INFINITY ? INFINITY : peak.max - peak.second;
        if (row[r].target >= 0)
            out.target_logprob = (float)(target[r] - max - log_sum);
    }
    stats[r] = out;
}

} // namespace

#endif
