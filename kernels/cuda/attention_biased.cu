/* attention_biased.cu - softmax(q k^T * scale + bias) v with a bias of any shape, by plain fused
 * multiply-adds: a warp a query row, keys and values through shared memory. A row's order of sums
 * depends on its keys alone. */
#include <math_constants.h>

#include "kernels/cuda/device.cuh"

namespace
{

constexpr int kRows = 8;  /* query rows of a block, a warp each */
constexpr int kKeys = 32; /* of a tile, a lane each */
constexpr int kMostDim = 512;

struct task {
    tt_biased_span span;
    int64_t first; /* block of the grid the span begins at */
};

template <typename T>
__device__ void load_tile(float *tile, const T *from, int64_t ld, int64_t keys, int dim, int stride,
                          bool narrow)
{
    for (int i = threadIdx.x; i < kKeys * dim; i += blockDim.x) {
        int key = i / dim, c = i % dim;
        float x = key < keys ? get(from[key * ld + c]) : 0.0f;
        tile[key * stride + c] = narrow ? rounded((const bf16 *)0, x) : x;
    }
}

template <typename T>
__global__ void attend_biased(T *out, int64_t ldo, const T *q, int64_t ldq, const task *list,
                              int tasks, int heads, int dim, float scale, bool narrow)
{
    extern __shared__ float shared[];
    begin();
    int n = 0;
    while (n + 1 < tasks && list[n + 1].first <= (int64_t)blockIdx.x)
        n++;
    const tt_biased_span &p = list[n].span;
    int head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32, stride = dim + 1;
    int64_t row = ((int64_t)blockIdx.x - list[n].first) * kRows + warp;
    bool mine = row < p.query_rows;
    float *tile = shared, *query = shared + kKeys * stride + warp * dim;
    const T *k = (const T *)p.k + head * dim, *v = (const T *)p.v + head * dim;
    const float *bias = p.bias + head * p.bias_head + (mine ? row : 0) * p.bias_query;
    for (int c = lane; c < dim && mine; c += 32) {
        float x = get(q[(p.query_row + row) * ldq + head * dim + c]);
        query[c] = narrow ? rounded((const bf16 *)0, x) : x;
    }
    float sum[kMostDim / 32] = {}, max = -CUDART_INF_F, total = 0;
    for (int64_t at = 0; at < p.keys; at += kKeys) {
        int64_t left = p.keys - at;
        __syncthreads();
        load_tile(tile, k + at * p.ld_kv, p.ld_kv, left, dim, stride, narrow);
        __syncthreads();
        float score = -CUDART_INF_F;
        if (mine && lane < left) {
            float dot = 0;
            for (int c = 0; c < dim; c++)
                dot = fmaf(query[c], tile[lane * stride + c], dot);
            score = fmaf(dot, scale, bias[(at + lane) * p.bias_key]);
        }
        float high = score;
        for (int d = 16; d; d >>= 1)
            high = fmaxf(high, __shfl_xor_sync(~0u, high, d));
        float before = max;
        max = fmaxf(max, high);
        float keep = before == -CUDART_INF_F ? 0.0f : __expf(before - max);
        float weight = score == -CUDART_INF_F ? 0.0f : __expf(score - max);
        total = total * keep + warp_sum(weight);
        weight = narrow ? rounded((const bf16 *)0, weight) : weight;
        __syncthreads();
        load_tile(tile, v + at * p.ld_kv, p.ld_kv, left, dim, stride, narrow);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < kMostDim / 32; i++)
            sum[i] *= keep;
        for (int j = 0; j < kKeys; j++) {
            float w = __shfl_sync(~0u, weight, j);
            if (w == 0)
                continue;
#pragma unroll
            for (int i = 0; i < kMostDim / 32; i++)
                if (lane + 32 * i < dim)
                    sum[i] = fmaf(w, tile[j * stride + lane + 32 * i], sum[i]);
        }
    }
#pragma unroll
    for (int i = 0; i < kMostDim / 32; i++)
        if (mine && lane + 32 * i < dim)
            put(&out[(p.query_row + row) * ldo + head * dim + lane + 32 * i],
                total > 0 ? sum[i] / total : 0.0f);
}

} // namespace

extern "C" tt_status tt_cuda_attention_biased(tt_stream *s, tt_act *out, int64_t ldo,
                                              const tt_act *q, int64_t ldq,
                                              const tt_biased_span *span, int64_t spans,
                                              int64_t heads, int64_t head_dim, float scale,
                                              tt_compute compute, tt_err *e)
{
    cuda *c = cuda_of(s);
    if (spans < 0 || heads < 1 || heads > 65535 || head_dim < 1 || head_dim > kMostDim ||
        ldo < heads * head_dim || ldq < heads * head_dim)
        return tt_fail(e, TT_EINVAL, "attention_biased: %lld spans, %lld heads of %lld (at most "
                       "%d)", (long long)spans, (long long)heads, (long long)head_dim, kMostDim);
    void *host, *list;
    int64_t blocks = 0;
    tt_status st = cuda_arg_room(c, &host, &list, (size_t)(cuda_list_room(spans + !spans)) *
                                 sizeof(task), e);
    if (st)
        return st;
    for (int64_t i = 0; i < spans; i++) {
        if (span[i].query_row < 0 || span[i].query_rows < 0 || span[i].keys < 0 ||
            (span[i].keys && (span[i].ld_kv < heads * head_dim || !span[i].bias)))
            return tt_fail(e, TT_EINVAL, "attention_biased: span %lld has %lld queries, %lld keys",
                           (long long)i, (long long)span[i].query_rows, (long long)span[i].keys);
        ((task *)host)[i] = {span[i], blocks};
        blocks += (span[i].query_rows + kRows - 1) / kRows;
    }
    st = cuda_arg_send(c, host, (size_t)spans * sizeof(task), e);
    if (st || !blocks)
        return st;
    size_t shared = (size_t)(kKeys * (head_dim + 1) + kRows * head_dim) * sizeof(float);
    bool narrow = compute == TT_COMPUTE_BF16;
    dim3 grid((unsigned)blocks, (unsigned)heads), block(32 * kRows);
    if (s->act == TT_BF16) {
        if (cudaFuncSetAttribute(attend_biased<bf16>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 (int)shared))
            return tt_fail(e, TT_EUNSUP, "attention_biased: heads of %lld", (long long)head_dim);
        return launch(c, "attention_biased", attend_biased<bf16>, grid, block, shared, e,
                      (bf16 *)out, ldo, (const bf16 *)q, ldq, (const task *)list, (int)spans,
                      (int)heads, (int)head_dim, scale, narrow);
    }
    if (cudaFuncSetAttribute(attend_biased<float>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             (int)shared))
        return tt_fail(e, TT_EUNSUP, "attention_biased: heads of %lld", (long long)head_dim);
    return launch(c, "attention_biased", attend_biased<float>, grid, block, shared, e,
                  (float *)out, ldo, (const float *)q, ldq, (const task *)list, (int)spans,
                  (int)heads, (int)head_dim, scale, narrow);
}
