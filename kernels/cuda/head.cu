/* head.cu - hidden rows to the few numbers a sampler needs.
 *
 * Two paths, chosen row by row and never by what else is in the call, so that a row's bits are its
 * own: plain rows are reduced inside the product (head.cuh); rows with filters, allowed lists,
 * alternatives or replayed noise get their logits in a tile of at most CUDA_TILE bytes, where one
 * block a row does what kernels/cpu/head.c defines. */
#include <stddef.h>

#include "kernels/cuda/head.cuh"

tt_status cuda_gemm_hopper_head(cuda *c, const cuda_gemm *g, const head_tile_args *head, tt_err *e);

namespace {

constexpr int kThreads = 512;

/* --- pieces of a block's work on one row --- */

struct row_job {
    float *l;
    int64_t n;
    const head_row *q;
    const int32_t *ints; /* the lists: bias as id and value in turns, allow, unsure, noise */
};

__device__ bool in_list(const int32_t *list, int n, int32_t id)
{
    int low = 0;
    while (low < n) {
        int mid = (low + n) / 2;
        if (list[mid] == id)
            return true;
        if (list[mid] < id)
            low = mid + 1;
        else
            n = mid;
    }
    return false;
}

__device__ head_peak block_peak(head_peak p)
{
    __shared__ head_peak part[32];
    for (int x = 16; x; x >>= 1)
        p = merge(p, {__shfl_xor_sync(~0u, p.max, x), __shfl_xor_sync(~0u, p.second, x),
                      __shfl_xor_sync(~0u, p.at, x)});
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = p;
    __syncthreads();
    p = part[0];
    for (int w = 1; w < kThreads / 32; w++)
        p = merge(p, part[w]);
    return p;
}

struct softmax {
    head_peak peak;
    double sum, moment;
};

/* Over values (l - shift) / divide of the row, without the ids of a list. */
__device__ softmax softmax_of(const row_job &j, const int32_t *without, int n_without, float shift,
                              float divide)
{
    softmax s = {{-INFINITY, -INFINITY, -1}, 0, 0};
    for (int64_t i = threadIdx.x; i < j.n; i += kThreads) {
        float l = (j.l[i] - shift) / divide;
        if (l == -INFINITY || (n_without && in_list(without, n_without, (int32_t)i)))
            continue;
        if (l > s.peak.max)
            s.peak = {l, s.peak.max, (int32_t)i};
        else
            s.peak.second = fmaxf(s.peak.second, l);
    }
    s.peak = block_peak(s.peak);
    for (int64_t i = threadIdx.x; i < j.n && s.peak.at >= 0; i += kThreads) {
        float l = (j.l[i] - shift) / divide;
        if (l == -INFINITY || (n_without && in_list(without, n_without, (int32_t)i)))
            continue;
        double off = (double)l - s.peak.max, e = exp(off);
        s.sum += e;
        s.moment += e * off;
    }
    s.sum = block_sum(s.sum);
    s.moment = block_sum(s.moment);
    return s;
}

/* --- filters --- */

/* Order of floats as unsigned integers. */
__device__ uint32_t key_of(float f)
{
    uint32_t u = __float_as_uint(f);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}
__device__ float of_key(uint32_t k)
{
    return __uint_as_float(k & 0x80000000u ? k & 0x7FFFFFFFu : ~k);
}

/* Softmax weight in fixed point: integer sums do not depend on their order. */
__device__ unsigned long long weight(float l, float max, double temperature)
{
    return (unsigned long long)(exp(((double)l - max) / temperature) * 0x1p40);
}

/* By falling value, the last entry with fewer than `rank` entries before it (by_mass false), or
 * with at most `limit` of weight before it, of those not below floor. Returns its value; *before:
 * count or weight of all greater entries; *ties: how many entries have this value. */
__device__ float select(const row_job &j, bool by_mass, unsigned long long limit, float floor,
                        float max, double temperature, unsigned long long *before,
                        unsigned int *ties)
{
    __shared__ unsigned long long mass[256];
    __shared__ unsigned int count[256];
    __shared__ uint32_t chosen;
    __shared__ unsigned long long above;
    uint32_t prefix = 0;
    unsigned long long have = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        __syncthreads();
        for (int b = threadIdx.x; b < 256; b += kThreads)
            mass[b] = count[b] = 0;
        __syncthreads();
        for (int64_t i = threadIdx.x; i < j.n; i += kThreads) {
            float l = j.l[i];
            uint32_t k = key_of(l);
            if (l == -INFINITY || l < floor || (shift < 24 && k >> (shift + 8) != prefix))
                continue;
            atomicAdd(&count[k >> shift & 255], 1u);
            atomicAdd(&mass[k >> shift & 255], by_mass ? weight(l, max, temperature) : 1ull);
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            unsigned long long sum = have;
            for (int b = 255; b >= 0; b--) {
                bool reached = by_mass ? sum <= limit : sum < limit;
                if (count[b] && reached) {
                    chosen = (uint32_t)b;
                    above = sum;
                }
                sum += mass[b];
            }
        }
        __syncthreads();
        prefix = prefix << 8 | chosen;
        have = above;
        *ties = count[chosen];
    }
    *before = have;
    return of_key(prefix);
}

/* Drops what the filters drop, as kernels/cpu/head.c defines. */
__device__ void filter(const row_job &j, float max)
{
    const head_row &q = *j.q;
    double temperature = q.temperature > 0 ? q.temperature : 1.0;
    float least = -INFINITY;
    unsigned int ties = ~0u, found;
    unsigned long long before;
    if (q.top_k > 0)
        least = select(j, false, (unsigned long long)q.top_k, -INFINITY, max, temperature, &before,
                       &found);
    if (q.top_p < 1) {
        unsigned long long total = 0;
        for (int64_t i = threadIdx.x; i < j.n; i += kThreads)
            if (j.l[i] != -INFINITY && j.l[i] >= least)
                total += weight(j.l[i], max, temperature);
        total = block_sum(total);
        double limit = (double)q.top_p * (double)total;
        unsigned long long most = limit > 0 ? (unsigned long long)limit : 0;
        least = select(j, true, most, least, max, temperature, &before, &found);
        unsigned long long each = weight(least, max, temperature);
        unsigned long long fit = each ? (most - before) / each + !q.top_p_within : found;
        if (fit == 0 && before == 0)
            fit = 1; /* the first stays */
        ties = fit < found ? (unsigned int)fit : ~0u;
    }
    double depth = q.min_p > 0 ? log((double)q.min_p) * temperature : -INFINITY;
    unsigned int seen = 0; /* entries equal to least so far, in order of ids */
    for (int64_t i0 = 0; i0 < j.n; i0 += kThreads) {
        int64_t i = i0 + threadIdx.x;
        float l = i < j.n ? j.l[i] : -INFINITY;
        bool keep = l > least || (l == least && ties == ~0u);
        if (ties != ~0u) {
            __shared__ unsigned int part[kThreads / 32];
            unsigned int equal = __ballot_sync(~0u, i < j.n && l == least);
            __syncthreads();
            if (threadIdx.x % 32 == 0)
                part[threadIdx.x / 32] = __popc(equal);
            __syncthreads();
            unsigned int rank = seen + __popc(equal & ((1u << threadIdx.x % 32) - 1));
            for (int w = 0; w < kThreads / 32; w++) {
                rank += w < (int)threadIdx.x / 32 ? part[w] : 0;
                seen += part[w];
            }
            keep |= l == least && rank < ties;
        }
        if (i < j.n && (!keep || (double)l - max < depth))
            j.l[i] = -INFINITY;
    }
    __syncthreads();
}

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

__global__ void __launch_bounds__(kThreads) reduce_rows(tt_row_stats *stats, tt_id_value *top,
                                                        int n_top, float *tile, int64_t n,
                                                        const head_row *row, const int32_t *ints)
{
    begin();
    row_job j = {tile + blockIdx.x * n, n, row + blockIdx.x, ints};
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

/* --- plain rows: merging the tiles' parts, one warp a row --- */

__global__ void merge_parts(tt_row_stats *stats, const head_part *part, const float *target,
                            const head_row *row, int tiles, int64_t rows)
{
    begin();
    int64_t r = blockIdx.x * (int64_t)(blockDim.x / 32) + threadIdx.x / 32;
    int lane = threadIdx.x % 32;
    if (r >= rows)
        return;
    const head_part *p = part + r * tiles;
    head_peak peak = {-INFINITY, -INFINITY, -1};
    scored best = {-INFINITY, -1};
    float logit = 0;
    for (int t = lane; t < tiles; t += 32) {
        peak = merge(peak, {p[t].max, p[t].second, p[t].at});
        if (p[t].score > best.score) {
            best = {p[t].score, p[t].drawn};
            logit = p[t].drawn_logit;
        }
    }
    for (int x = 16; x; x >>= 1) {
        peak = merge(peak, {__shfl_xor_sync(~0u, peak.max, x), __shfl_xor_sync(~0u, peak.second, x),
                            __shfl_xor_sync(~0u, peak.at, x)});
        double s = __shfl_xor_sync(~0u, best.score, x);
        int32_t at = __shfl_xor_sync(~0u, best.at, x);
        float l = __shfl_xor_sync(~0u, logit, x);
        if (s > best.score || (s == best.score && (uint32_t)at < (uint32_t)best.at)) {
            best = {s, at};
            logit = l;
        }
    }
    double sum = 0, moment = 0;
    for (int t = lane; t < tiles; t += 32) {
        if (p[t].at < 0)
            continue;
        double off = (double)p[t].max - peak.max, by = exp(off);
        sum += p[t].sum * by;
        moment += by * (p[t].moment + off * p[t].sum);
    }
    sum = warp_sum(sum);
    moment = warp_sum(moment);
    if (lane)
        return;
    tt_row_stats out = {};
    out.argmax = out.drawn = peak.at;
    if (peak.at >= 0) {
        double max = peak.max, log_sum = log(sum);
        float drawn = peak.max;
        if (best.at >= 0) {
            out.drawn = best.at;
            drawn = logit;
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

/* --- the host's side --- */

bool is_plain(const cuda *c, const tt_matrix *w, const tt_draw *d)
{
    return c->hopper && w->compute == TT_COMPUTE_BF16 && d->top_k <= 0 && d->top_p >= 1 &&
           d->min_p <= 0 && !d->allow && !d->n_unsure && !d->confidence_of_kept &&
           d->n_bias <= kPlainBias &&
           (d->noise == TT_NOISE_NONE || d->noise == TT_NOISE_PHILOX || !(d->temperature > 0));
}

bool sorted_ids(const int32_t *id, int stride, int32_t count, int64_t n)
{
    int64_t last = -1;
    for (int32_t i = 0; i < count; i++, id += stride) {
        if (*id <= last || *id >= n)
            return false;
        last = *id;
    }
    return true;
}

int64_t list_ints(const tt_draw *d, int64_t n)
{
    return 2 * (int64_t)d->n_bias + (d->allow ? d->n_allow : 0) + d->n_unsure +
           (d->noise == TT_NOISE_GIVEN ? n : 0);
}

head_row device_row(const tt_draw *d)
{
    head_row q = {};
    q.temperature = d->temperature;
    q.top_p = d->top_p;
    q.min_p = d->min_p;
    q.top_k = d->top_k;
    q.noise = d->noise;
    q.seed = d->seed;
    q.base = d->base;
    q.sample = d->sample;
    q.step = d->step;
    q.position = d->position;
    q.limit = d->limit;
    q.target = d->target;
    q.confidence_of_kept = d->confidence_of_kept;
    q.top_p_within = d->top_p_within;
    q.allow = -1;
    q.n_bias = d->n_bias;
    return q;
}

/* The call as it is split up. */
struct head_call {
    cuda *c;
    const tt_matrix *w;
    const char *x;
    int64_t ldx;
    tt_dtype act;
    tt_row_stats *stats;
    tt_id_value *top;
    int32_t n_top;
    float *logits;
    const tt_draw *draw;
};

/* Scratch of one call: statistics, alternatives and gathered rows, then the tile. */
struct scratch {
    tt_row_stats *stats;
    tt_id_value *top;
    char *x;
    head_part *part;
    float *target, *tile;
};

size_t lay_out(const head_call &h, int64_t rows, bool plain, char *base, scratch *s)
{
    size_t at = 0, act = tt_dtype_size(h.act);
    int64_t tiles = (h.w->n + kHeadTile - 1) / kHeadTile;
    auto take = [&](size_t bytes) {
        char *p = base + at;
        at += (bytes + 255) & ~(size_t)255;
        return p;
    };
    s->stats = (tt_row_stats *)take((size_t)rows * sizeof *s->stats);
    s->top = (tt_id_value *)take((size_t)(rows * h.n_top) * sizeof *s->top);
    s->x = take((size_t)(rows * h.w->k) * act);
    s->part = (head_part *)take(plain ? (size_t)(rows * tiles) * sizeof *s->part : 0);
    s->target = (float *)take(plain ? (size_t)rows * 4 : 0);
    s->tile = (float *)take(plain ? 0 : (size_t)(rows * h.w->n) * 4);
    return at;
}

/* Hidden rows by index, one after the other. */
__global__ void pick_rows(char *to, const char *x, int64_t bytes, int64_t stride,
                          const int32_t *index)
{
    begin();
    const char *from = x + index[blockIdx.x] * stride;
    for (int64_t i = threadIdx.x * 2; i < bytes; i += blockDim.x * 2)
        *reinterpret_cast<uint16_t *>(to + blockIdx.x * bytes + i) =
            *reinterpret_cast<const uint16_t *>(from + i);
}

/* Rows `index` of the call (all in order when NULL): one path, at most one tile. */
struct group {
    const int32_t *index; /* host */
    int64_t rows;
    bool plain;
    int64_t of(int64_t i) const { return index ? index[i] : i; }
};

tt_status send_rows(const head_call &h, const group &g, const head_row **rows,
                    const int32_t **lists, tt_err *e)
{
    int64_t ints = 0;
    for (int64_t i = 0; i < g.rows; i++)
        ints += list_ints(&h.draw[g.of(i)], h.w->n);
    int64_t room = g.plain ? 2 * kPlainBias * g.rows : cuda_list_room(ints);
    void *host, *dev;
    size_t head = (size_t)g.rows * sizeof(head_row);
    tt_status st = cuda_arg_room(h.c, &host, &dev, head + (size_t)room * 4, e);
    if (st)
        return st;
    head_row *q = (head_row *)host;
    int32_t *list = (int32_t *)((char *)host + head), at = 0;
    for (int64_t i = 0; i < g.rows; i++) {
        const tt_draw *d = &h.draw[g.of(i)];
        q[i] = device_row(d);
        if (g.plain)
            at = (int32_t)(2 * kPlainBias * i);
        q[i].bias = at;
        for (int32_t b = 0; b < d->n_bias; b++, at += 2)
            memcpy(&list[at], &d->bias[b], 8);
        if (g.plain)
            continue;
        q[i].allow = d->allow ? at : -1;
        q[i].n_allow = d->allow ? d->n_allow : 0;
        for (int32_t a = 0; a < q[i].n_allow; a++)
            list[at++] = d->allow[a];
        q[i].unsure = at;
        q[i].n_unsure = d->n_unsure;
        for (int32_t u = 0; u < d->n_unsure; u++)
            list[at++] = d->unsure[u];
        q[i].gumbel = at;
        if (d->noise == TT_NOISE_GIVEN) {
            memcpy(&list[at], d->gumbel, (size_t)h.w->n * 4);
            at += (int32_t)h.w->n;
        }
    }
    *rows = (const head_row *)dev;
    *lists = (const int32_t *)((char *)dev + head);
    return cuda_arg_send(h.c, host, head + (size_t)room * 4, e);
}

tt_status run_plain(const head_call &h, const cuda_gemm &product, const scratch &s,
                    const head_row *rows, const int32_t *lists, tt_err *e)
{
    head_tile_args t = {};
    t.row = rows;
    t.bias = (const tt_id_value *)lists;
    t.part = s.part;
    t.target = s.target;
    t.tiles = (int)((h.w->n + kHeadTile - 1) / kHeadTile);
    tt_status st = cuda_gemm_hopper_head(h.c, &product, &t, e);
    return st ? st
              : launch(h.c, "head", merge_parts, blocks(product.rows, 4), 128, 0, e, s.stats,
                       s.part, s.target, rows, t.tiles, product.rows);
}

/* Logits to product.y, then what the draws forbid. */
tt_status constrained(cuda *c, cuda_gemm product, const head_row *rows, const int32_t *lists,
                      tt_err *e)
{
    int64_t n = product.w->n;
    product.ldy = n;
    product.wide = true;
    tt_status st = cuda_gemm_run(c, &product, e);
    return st ? st
              : launch(c, "head", constrain_rows, (unsigned)product.rows, kThreads, 0, e,
                       (float *)product.y, n, rows, lists);
}

tt_status run_general(const head_call &h, cuda_gemm product, const group &g, const scratch &s,
                      const head_row *rows, const int32_t *lists, tt_err *e)
{
    cuda *c = h.c;
    int64_t n = h.w->n;
    product.y = s.tile;
    tt_status st = constrained(c, product, rows, lists, e);
    for (int64_t i = 0; i < g.rows && h.logits && !st; i++)
        st = cuda_result(c, h.logits + g.of(i) * n, s.tile + i * n, (size_t)n * 4, e);
    if (!st)
        st = launch(c, "head", reduce_rows, (unsigned)g.rows, kThreads, 0, e, s.stats,
                    h.n_top ? s.top : (tt_id_value *)nullptr, (int)h.n_top, s.tile, n, rows, lists);
    return st;
}

tt_status run_group(const head_call &h, const group &g, tt_err *e)
{
    cuda *c = h.c;
    scratch s;
    const head_row *rows;
    const int32_t *lists;
    tt_status st = cuda_reserve(c, &c->tile, &c->tile_bytes, lay_out(h, g.rows, g.plain, NULL, &s),
                                e);
    if (st)
        return st;
    lay_out(h, g.rows, g.plain, (char *)c->tile, &s);
    st = send_rows(h, g, &rows, &lists, e);
    if (st)
        return st;
    cuda_gemm product = {};
    product.x = h.x;
    product.ldx = h.ldx;
    product.rows = g.rows;
    product.w = h.w;
    if (g.index) {
        void *index;
        int64_t act = (int64_t)tt_dtype_size(h.act);
        st = cuda_arg(c, &index, g.index, (size_t)g.rows * 4, (size_t)g.rows * 4, e);
        if (!st)
            st = launch(c, "head", pick_rows, (unsigned)g.rows, 256, 0, e, s.x, h.x, h.w->k * act,
                        h.ldx * act, (const int32_t *)index);
        product.x = s.x;
        product.ldx = h.w->k;
    }
    if (!st)
        st = g.plain ? run_plain(h, product, s, rows, lists, e)
                     : run_general(h, product, g, s, rows, lists, e);
    for (int64_t i = 0, run; i < g.rows && !st; i += run) {
        for (run = 1; i + run < g.rows && g.of(i + run) == g.of(i) + run;)
            run++;
        st = cuda_result(c, h.stats + g.of(i), s.stats + i, (size_t)run * sizeof *s.stats, e);
        if (!st && h.n_top)
            st = cuda_result(c, h.top + g.of(i) * h.n_top, s.top + i * h.n_top,
                             (size_t)(run * h.n_top) * sizeof *s.top, e);
    }
    return st;
}

/* Most plain rows at a time: enough to fill the GPU where the head is small, and parts of a few
 * megabytes. */
int64_t plain_rows(int64_t n)
{
    int64_t parts = (n + kHeadTile - 1) / kHeadTile;
    int64_t most = ((int64_t)8 << 20) / (parts * (int64_t)sizeof(head_part));
    return most < 256 ? 256 : most > 2048 ? 2048 : most / 128 * 128;
}

/* Most rows of a tile. */
int64_t tile_rows(int64_t n)
{
    int64_t most = CUDA_TILE / (n * 4);
    return most < 1 ? 1 : most > 128 ? 128 : most;
}

} // namespace

tt_status cuda_check_draw(const char *op, const tt_draw *d, int64_t row, int64_t n, tt_err *e)
{
    long long r = (long long)row;
    if (!(d->temperature >= 0 && d->temperature <= 1e30f) || isnan(d->top_p) || isnan(d->min_p) ||
        d->min_p > 1)
        return tt_fail(e, TT_EINVAL, "%s: row %lld: temperature %g, top_p %g, min_p %g", op, r,
                       (double)d->temperature, (double)d->top_p, (double)d->min_p);
    if (d->limit > n || d->target >= n)
        return tt_fail(e, TT_EINVAL, "%s: row %lld: limit %d, target %d of %lld ids", op, r,
                       d->limit, d->target, (long long)n);
    if (d->noise == TT_NOISE_GIVEN && !d->gumbel)
        return tt_fail(e, TT_EINVAL, "%s: row %lld: the noise to be given is missing", op, r);
    if (!sorted_ids(d->n_bias ? &d->bias->id : NULL, sizeof *d->bias / 4, d->n_bias, n) ||
        !sorted_ids(d->allow, 1, d->allow ? d->n_allow : 0, n) ||
        !sorted_ids(d->unsure, 1, d->n_unsure, n))
        return tt_fail(e, TT_EINVAL, "%s: row %lld: a list is not sorted or has an id >= %lld", op,
                       r, (long long)n);
    return TT_OK;
}

tt_status cuda_check_head(const char *op, const tt_stream *s, const tt_matrix *w, int64_t ldx,
                          int64_t rows, tt_err *e)
{
    if (bad_shape(rows, w->k, ldx))
        return shape_error(op, rows, w->k, ldx, e);
    if (!(w->flags & TT_MATRIX_LINEAR) || w->flags & TT_MATRIX_GLU ||
        (w->compute == TT_COMPUTE_BF16) != (s->act == TT_BF16))
        return tt_fail(e, TT_EINVAL, "%s: matrix flags %u, %s activations", op, w->flags,
                       tt_dtype_name(s->act));
    return TT_OK;
}

tt_status cuda_head_logits(cuda *c, float *logits, const void *x, int64_t ldx, int64_t rows,
                           const tt_matrix *w, const tt_draw *draw, tt_err *e)
{
    head_call h = {};
    h.c = c;
    h.w = w;
    h.draw = draw;
    const head_row *row;
    const int32_t *lists;
    tt_status st = send_rows(h, group{NULL, rows, false}, &row, &lists, e);
    cuda_gemm product = {};
    product.x = x;
    product.ldx = ldx;
    product.rows = rows;
    product.w = w;
    product.y = logits;
    return st ? st : constrained(c, product, row, lists, e);
}

/* Few numbers that the arguments and launches of a head follow from. */
extern "C" int64_t tt_cuda_head_key(const tt_stream *s, const tt_matrix *w, const tt_draw *draw,
                                    int64_t rows)
{
    const cuda *c = cuda_of(s);
    int64_t key = 0, run_of = -1;
    uint64_t hash = 14695981039346656037u;
    int64_t most = tile_rows(w->n), ints = 0, in_tile = 0;
    for (int64_t i = 0; i < rows; i++) {
        bool plain = is_plain(c, w, &draw[i]);
        if (plain != run_of)
            hash = (hash ^ (uint64_t)(2 * i + plain)) * 1099511628211u;
        run_of = plain;
        if (plain)
            continue;
        ints += list_ints(&draw[i], w->n);
        if (++in_tile == most) {
            hash = (hash ^ (uint64_t)cuda_list_room(ints)) * 1099511628211u;
            ints = in_tile = 0;
        }
    }
    hash = (hash ^ (uint64_t)cuda_list_room(ints)) * 1099511628211u;
    memcpy(&key, &hash, 8);
    return key;
}

extern "C" tt_status tt_cuda_head(tt_stream *s, tt_row_stats *stats, tt_id_value *top,
                                  int32_t n_top, float *logits, const tt_act *x, int64_t ldx,
                                  int64_t rows, const tt_matrix *w, const tt_draw *draw, tt_err *e)
{
    cuda *c = cuda_of(s);
    tt_status bad = cuda_check_head("head", s, w, ldx, rows, e);
    if (bad)
        return bad;
    if (n_top < 0 || n_top > TT_MAX_TOP)
        return tt_fail(e, TT_EINVAL, "head: %d best, %d at most", n_top, TT_MAX_TOP);
    enum { MOST = 2048 };
    int32_t list[2][MOST];
    head_call h = {c, w, (const char *)x, ldx, s->act, stats, top, top ? n_top : 0, logits, draw};
    for (int64_t r = 0; r < rows; r++) {
        tt_status st = cuda_check_draw("head", &draw[r], r, w->n, e);
        if (st)
            return st;
    }
    int64_t tile = tile_rows(w->n);
    for (int64_t r0 = 0; r0 < rows; r0 += MOST) {
        int64_t count = rows - r0 < MOST ? rows - r0 : (int64_t)MOST, n[2] = {0, 0};
        for (int64_t i = r0; i < r0 + count; i++) {
            bool plain = is_plain(c, w, &draw[i]) && !h.n_top && !logits;
            list[plain][n[plain]++] = (int32_t)i;
        }
        for (int plain = 1; plain >= 0; plain--)
            for (int64_t i = 0; i < n[plain];) {
                int64_t most = plain ? plain_rows(w->n) : tile, left = n[plain] - i;
                int64_t run = left < most ? left : most;
                group g = {list[plain] + i, run, plain == 1};
                head_call part = h;
                if (list[plain][i + run - 1] - list[plain][i] == run - 1) { /* side by side */
                    int64_t first = list[plain][i];
                    g.index = NULL;
                    part.x += first * ldx * (int64_t)tt_dtype_size(s->act);
                    part.stats += first;
                    part.draw += first;
                    part.top = part.top ? part.top + first * n_top : NULL;
                    part.logits = logits ? logits + first * w->n : NULL;
                }
                tt_status st = run_group(part, g, e);
                if (st)
                    return st;
                i += run;
            }
    }
    return TT_OK;
}
