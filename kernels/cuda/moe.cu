/* moe.cu - mixtures of experts: who computes which row, and the weighted sum of what comes back.
 *
 * Routing takes three kernels: logits, the choice of each row, and a counting sort of all pairs in
 * which every place follows from the pairs before it, so that nothing depends on timing. */
#include "kernels/cuda/device.cuh"

namespace {

/* --- logits --- */

constexpr int kRows = 8, kWarps = 8;

/* Four inputs from `at` on, zero from k on. vector: rows take such accesses. */
template <typename T>
__device__ void load4(float (&v)[4], const T *row, int64_t at, int64_t k, bool vector)
{
    if (vector) {
        struct alignas(4 * sizeof(T)) four {
            T v[4];
        } all = *reinterpret_cast<const four *>(row + at);
#pragma unroll
        for (int j = 0; j < 4; j++)
            v[j] = get(all.v[j]);
        return;
    }
#pragma unroll
    for (int j = 0; j < 4; j++)
        v[j] = at + j < k ? get(row[at + j]) : 0.0f;
}

/* A warp takes kRows rows and one expert. Lane l sums the inputs 128 i + 4 l .. + 3 in order, then
 * the lanes' sums meet: the same for every row. */
template <typename T>
__global__ void __launch_bounds__(kWarps * 32)
    route_logits(float *logits, const T *x, int64_t ldx, int64_t rows, const float *w, int64_t kp,
                 const float *bias, int64_t k, int experts, bool vector)
{
    begin();
    int lane = threadIdx.x % 32, expert = blockIdx.y * kWarps + threadIdx.x / 32;
    int64_t r0 = (int64_t)blockIdx.x * kRows;
    if (expert >= experts)
        return;
    const float *weights = w + expert * kp;
    float sum[kRows] = {};
    for (int64_t i = 4 * lane; i < kp; i += 128) {
        float4 b = *reinterpret_cast<const float4 *>(weights + i);
#pragma unroll
        for (int r = 0; r < kRows; r++) {
            float v[4];
            if (r0 + r >= rows)
                break;
            load4(v, x + (r0 + r) * ldx, i, k, vector);
            sum[r] = fmaf(v[0], b.x, sum[r]);
            sum[r] = fmaf(v[1], b.y, sum[r]);
            sum[r] = fmaf(v[2], b.z, sum[r]);
            sum[r] = fmaf(v[3], b.w, sum[r]);
        }
    }
#pragma unroll
    for (int r = 0; r < kRows; r++) {
        float all = warp_sum(sum[r]) + (bias ? bias[expert] : 0.0f);
        if (lane == 0 && r0 + r < rows)
            logits[(r0 + r) * experts + expert] = all;
    }
}

/* --- the choice: one warp a row, expert lane + 32 t is bit t of the lane's --- */

constexpr int kChoosers = 4; /* warps a block */

struct ranked {
    float value;
    int32_t at; /* INT32_MAX: none */
};

__device__ ranked better(const ranked &a, const ranked &b)
{
    bool first = a.value > b.value || (a.value == b.value && a.at < b.at);
    return first ? a : b;
}

/* The greatest of n that is not taken, the first on a tie; the lane that holds it marks it. */
__device__ int32_t take_best(const float *value, int n, uint32_t *taken)
{
    int lane = threadIdx.x % 32;
    ranked best = {-INFINITY, INT32_MAX};
    for (int i = lane; i < n; i += 32)
        if (!(*taken >> i / 32 & 1))
            best = better(best, {value[i], i});
    for (int d = 16; d; d >>= 1)
        best = better(best, {__shfl_xor_sync(~0u, best.value, d),
                             __shfl_xor_sync(~0u, best.at, d)});
    if (best.at % 32 == lane)
        *taken |= 1u << best.at / 32;
    return best.at;
}

/* The lane's experts outside the best groups. value: room for one number a group. */
__device__ uint32_t closed_groups(float *value, const float *rank, const tt_router &how)
{
    int lane = threadIdx.x % 32, size = how.experts / how.groups;
    for (int g = lane; g < how.groups; g += 32) {
        float first = -INFINITY, second = -INFINITY;
        for (int i = g * size; i < (g + 1) * size; i++) {
            second = fmaxf(second, fminf(first, rank[i]));
            first = fmaxf(first, rank[i]);
        }
        float both = size > 1 ? first + second : first;
        value[g] = isnan(both) ? -INFINITY : both;
    }
    __syncwarp();
    uint32_t taken = 0, closed = ~0u;
    for (int j = 0; j < how.top_groups; j++) {
        int32_t g = take_best(value, how.groups, &taken);
        for (int i = lane; i < how.experts; i += 32)
            if (i / size == g)
                closed &= ~(1u << i / 32);
    }
    return closed;
}

/* Scores of all experts as kernels/cpu/moe.c has them: float32 of a sum in double. */
__device__ void score(float *out, const float *l, const tt_router &how)
{
    int lane = threadIdx.x % 32;
    float max = -INFINITY;
    double sum = 0;
    for (int i = lane; i < how.experts && !how.sigmoid; i += 32)
        max = fmaxf(max, l[i]);
    for (int d = 16; d; d >>= 1)
        max = fmaxf(max, __shfl_xor_sync(~0u, max, d));
    for (int i = lane; i < how.experts && !how.sigmoid; i += 32)
        sum += exp((double)l[i] - max);
    sum = warp_sum(sum);
    for (int i = lane; i < how.experts; i += 32)
        out[i] = (float)(how.sigmoid ? 1.0 / (1.0 + exp(-(double)l[i]))
                                     : exp((double)l[i] - max) / sum);
}

__global__ void __launch_bounds__(kChoosers * 32)
    route_rows(float *weight, int32_t *choice, const float *logits, int64_t rows, tt_router how)
{
    extern __shared__ float shared[]; /* a warp: scores, ranks, and values of groups */
    begin();
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int64_t r = (int64_t)blockIdx.x * kChoosers + warp;
    if (r >= rows)
        return;
    float *scores = shared + warp * (2 * how.experts + how.groups), *rank = scores + how.experts;
    score(scores, logits + r * how.experts, how);
    for (int i = lane; i < how.experts; i += 32) {
        float v = scores[i] + (how.bias ? how.bias[i] : 0.0f);
        rank[i] = isnan(v) ? -INFINITY : v;
    }
    __syncwarp();
    uint32_t taken = how.groups > 1 ? closed_groups(rank + how.experts, rank, how) : 0;
    double sum = 1e-20;
    float mine = 0; /* lane j: the score of the j-th choice */
    for (int j = 0; j < how.top_k; j++) {
        int32_t at = take_best(rank, how.experts, &taken);
        float s = scores[at];
        sum += s;
        mine = lane == j ? s : mine;
        if (lane == j)
            choice[r * how.top_k + j] = at;
    }
    if (lane < how.top_k)
        weight[r * how.top_k + lane] = (float)((how.normalise ? mine / sum : (double)mine) *
                                               how.scale);
}

/* --- the pairs by expert, then row: one warp an expert --- */

constexpr int kAtOnce = 4; /* runs of 32 pairs whose loads are under way together */

__global__ void sort_pairs(int32_t *place, int32_t *row, int32_t *first, const int32_t *choice,
                           int64_t pairs, int top_k, int experts)
{
    begin();
    int expert = blockIdx.x, lane = threadIdx.x;
    int32_t below = 0;
    for (int64_t i = lane; i < pairs; i += 32)
        below += choice[i] < expert;
    int32_t next = warp_sum(below);
    if (lane == 0)
        first[expert] = next;
    if (lane == 0 && expert == experts - 1)
        first[experts] = (int32_t)pairs;
    for (int64_t i0 = 0; i0 < pairs; i0 += 32 * kAtOnce) {
        int32_t of[kAtOnce];
#pragma unroll
        for (int u = 0; u < kAtOnce; u++) {
            int64_t i = i0 + 32 * u + lane;
            of[u] = i < pairs ? choice[i] : -1;
        }
#pragma unroll
        for (int u = 0; u < kAtOnce; u++) {
            unsigned mine = __ballot_sync(~0u, of[u] == expert);
            if (of[u] == expert) {
                int64_t i = i0 + 32 * u + lane;
                int32_t at = next + __popc(mine & ((1u << lane) - 1));
                place[i] = at;
                row[at] = (int32_t)(i / top_k);
            }
            next += __popc(mine);
        }
    }
}

tt_status check(const tt_matrix *gate, const tt_router *h, tt_err *e)
{
    bool good = h->experts >= 1 && h->experts <= TT_MAX_EXPERTS && h->experts == gate->n &&
                h->top_k >= 1 && h->top_k <= TT_MAX_ROUTES && h->groups >= 1 &&
                h->groups <= h->experts && h->experts % h->groups == 0 && h->top_groups >= 1 &&
                h->top_groups <= h->groups &&
                h->top_k <= h->experts / h->groups * h->top_groups;
    if (!good)
        return tt_fail(e, TT_EINVAL, "route: %d of %d experts (%lld outputs), %d of %d groups",
                       h->top_k, h->experts, (long long)gate->n, h->top_groups, h->groups);
    if (gate->compute != TT_COMPUTE_F32 || gate->thirds || !(gate->flags & TT_MATRIX_LINEAR) ||
        gate->flags & TT_MATRIX_GLU)
        return tt_fail(e, TT_EINVAL, "route: the gate was not opened for products in float32");
    return TT_OK;
}

template <typename T>
tt_status run_logits(const cuda *c, float *logits, const T *x, int64_t ldx, int64_t rows,
                     const tt_matrix *gate, tt_err *e)
{
    bool vector = (uintptr_t)x % (4 * sizeof(T)) == 0 && ldx % 4 == 0 && gate->k % 4 == 0;
    dim3 grid(blocks(rows, kRows), blocks(gate->n, kWarps));
    return launch(c, "route", route_logits<T>, grid, kWarps * 32, 0, e, logits, x, ldx, rows,
                  (const float *)gate->data, gate->kp, gate->bias, gate->k, (int)gate->n, vector);
}

/* --- the weighted sum --- */

template <typename T>
__global__ void combine_rows(T *y, int64_t ldy, const T *x, int64_t ldx, const float *weight,
                             const int32_t *place, int top_k, int64_t dim)
{
    begin();
    int64_t r = blockIdx.x;
    const float *w = weight + r * top_k;
    const int32_t *from = place + r * top_k;
    for (int64_t i = threadIdx.x; i < dim; i += blockDim.x) {
        float sum = 0;
        for (int j = 0; j < top_k; j++)
            sum = fmaf(w[j], get(x[from[j] * ldx + i]), sum);
        put(&y[r * ldy + i], get(y[r * ldy + i]) + sum);
    }
}

} // namespace

extern "C" tt_status tt_cuda_route(tt_stream *s, float *weight, int32_t *place, int32_t *row,
                                   int32_t *first, const tt_act *x, int64_t ldx, int64_t rows,
                                   const tt_matrix *gate, const tt_router *how, tt_err *e)
{
    cuda *c = cuda_of(s);
    if (bad_shape(rows, gate->k, ldx) || rows > INT32_MAX / TT_MAX_ROUTES)
        return shape_error("route", rows, gate->k, ldx, e);
    tt_status st = check(gate, how, e);
    size_t logits = (size_t)(rows * how->experts) * sizeof(float);
    size_t choices = (size_t)(rows * how->top_k) * sizeof(int32_t);
    if (!st)
        st = cuda_reserve(c, &c->tile, &c->tile_bytes, logits + choices, e);
    if (st)
        return st;
    float *l = (float *)c->tile;
    int32_t *choice = (int32_t *)((char *)c->tile + logits);
    if (rows)
        st = s->act == TT_BF16 ? run_logits(c, l, (const bf16 *)x, ldx, rows, gate, e)
                               : run_logits(c, l, (const float *)x, ldx, rows, gate, e);
    static_assert(kChoosers * 3 * TT_MAX_EXPERTS * sizeof(float) <= 48 << 10, "shared memory");
    size_t shared = kChoosers * (size_t)(2 * how->experts + how->groups) * sizeof(float);
    if (!st && rows)
        st = launch(c, "route", route_rows, blocks(rows, kChoosers), kChoosers * 32, shared, e,
                    weight, choice, l, rows, *how);
    return st ? st
              : launch(c, "route", sort_pairs, (unsigned)how->experts, 32, 0, e, place, row, first,
                       choice, rows * how->top_k, how->top_k, how->experts);
}

extern "C" tt_status tt_cuda_combine(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x,
                                     int64_t ldx, const float *weight, const int32_t *place,
                                     int64_t rows, int64_t top_k, int64_t dim, tt_err *e)
{
    cuda *c = cuda_of(s);
    if (bad_shape(rows, dim, ldx) || ldy < dim)
        return shape_error("combine", rows, dim, ldx < ldy ? ldx : ldy, e);
    if (top_k < 1 || top_k > TT_MAX_ROUTES)
        return tt_fail(e, TT_EINVAL, "combine: %lld experts a row", (long long)top_k);
    if (rows == 0)
        return TT_OK;
    BY_TYPE(launch(c, "combine", combine_rows<T>, (unsigned)rows, 256, 0, e, (T *)y, ldy,
                   (const T *)x, ldx, weight, place, (int)top_k, dim));
}
