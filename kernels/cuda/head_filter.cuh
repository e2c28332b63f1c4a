/* head_filter.cuh - what a block does with the logits of one row: sums, and filters (top-k, top-p,
 * min-p). Included by head_rows.cuh. */
#ifndef TT_HEAD_FILTER_CUH
#define TT_HEAD_FILTER_CUH

#include "kernels/cuda/head.cuh"

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

/* Entries and weight by one byte of their keys. A lane adds to one of some copies, which seldom
 * meet and lie in different banks; weights are added as halves with a carry, because the device
 * adds 32 bits in shared memory itself and 64 only by trying again. */
constexpr int kBins = 256, kCopies = 8;

struct bins {
    unsigned int count[kBins * kCopies], low[kBins * kCopies], high[kBins * kCopies];
};

__device__ void clear(bins &b)
{
    for (int i = threadIdx.x; i < kBins * kCopies; i += kThreads)
        b.count[i] = b.low[i] = b.high[i] = 0;
}

__device__ void add_to(bins &b, uint32_t bin, unsigned long long mass)
{
    uint32_t at = bin * kCopies + threadIdx.x % kCopies;
    unsigned int low = (unsigned int)mass, before = low ? atomicAdd(&b.low[at], low) : 0;
    unsigned int high = (unsigned int)(mass >> 32) + (before + low < before);
    atomicAdd(&b.count[at], 1u);
    if (high)
        atomicAdd(&b.high[at], high);
}

/* Where a filter cuts a row: how many entries have this value, and the count or weight of all
 * greater ones; most: how much of it is allowed before an entry. */
struct cut {
    float value;
    unsigned int ties;
    unsigned long long before, most;
};

/* Which bin, from the highest, is the last with fewer than c.most before it, or, by_mass, with at
 * most so much. Adds what is before it to c.before. share: c.most is this share of all weight. */
__device__ uint32_t choose(cut &c, const bins &b, bool by_mass, const float *share)
{
    __shared__ unsigned long long part[kThreads / 32], above;
    __shared__ unsigned int ties;
    __shared__ int chosen;
    int bin = kBins - 1 - (int)threadIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    unsigned long long own = 0;
    unsigned int count = 0;
    for (int i = bin * kCopies; bin >= 0 && i < (bin + 1) * kCopies; i++) {
        count += b.count[i];
        own += (unsigned long long)b.high[i] << 32 | b.low[i];
    }
    own = by_mass ? own : count;
    unsigned long long upto = own, all = 0;
    for (int d = 1; d < 32; d *= 2) {
        unsigned long long lower = __shfl_up_sync(~0u, upto, d);
        upto += lane >= d ? lower : 0;
    }
    if (lane == 31)
        part[warp] = upto;
    if (threadIdx.x == 0)
        chosen = 0;
    __syncthreads();
    for (int w = 0; w < kThreads / 32; w++) {
        all += part[w];
        upto += w < warp ? part[w] : 0;
    }
    if (share) {
        double most = (double)*share * (double)all;
        c.most = most > 0 ? (unsigned long long)most : 0;
    }
    unsigned long long before = c.before + upto - own;
    if (count && (by_mass ? before <= c.most : before < c.most))
        atomicMax(&chosen, (int)threadIdx.x);
    __syncthreads();
    if ((int)threadIdx.x == chosen) {
        above = before;
        ties = count;
    }
    __syncthreads();
    c.before = above;
    c.ties = ties;
    return (uint32_t)(kBins - 1 - chosen);
}

/* By falling value, of the entries not below floor, the last one with fewer than `most` before it
 * (by_mass false), or with at most the share top_p of all weight. */
__device__ cut select(const row_job &j, bool by_mass, unsigned long long most, float floor,
                      float max, double temperature)
{
    __shared__ bins b;
    cut c = {0, 0, 0, most};
    uint32_t prefix = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        __syncthreads();
        clear(b);
        __syncthreads();
        for (int64_t i = threadIdx.x; i < j.n; i += kThreads) {
            float l = j.l[i];
            uint32_t k = key_of(l);
            if (l == -INFINITY || l < floor || (shift < 24 && k >> (shift + 8) != prefix))
                continue;
            add_to(b, k >> shift & 255, by_mass ? weight(l, max, temperature) : 0ull);
        }
        __syncthreads();
        bool first = shift == 24 && by_mass;
        prefix = prefix << 8 | choose(c, b, by_mass, first ? &j.q->top_p : nullptr);
    }
    c.value = of_key(prefix);
    return c;
}

/* Drops what the filters drop, as kernels/cpu/head.c defines. */
__device__ void filter(const row_job &j, float max)
{
    const head_row &q = *j.q;
    double temperature = q.temperature > 0 ? q.temperature : 1.0;
    float least = -INFINITY;
    unsigned int ties = ~0u;
    if (q.top_k > 0)
        least = select(j, false, (unsigned long long)q.top_k, -INFINITY, max, temperature).value;
    if (q.top_p < 1) {
        cut c = select(j, true, 0, least, max, temperature);
        least = c.value;
        unsigned long long each = weight(least, max, temperature);
        unsigned long long fit = each ? (c.most - c.before) / each + !q.top_p_within : c.ties;
        if (fit == 0 && c.before == 0)
            fit = 1; /* the first stays */
        ties = fit < c.ties ? (unsigned int)fit : ~0u;
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

} // namespace

#endif
