/* attention_f32.cuh - attention in float32 by plain fused multiply-adds, for what must not be
 * rounded (codes of pictures). A block takes 64 query rows of one head and goes over the keys in
 * tiles of 64, with running maximum and sum; a thread has 4 rows x 4 keys of the scores, then 4
 * rows x HD / 16 channels of the sums, so that each product's two operands come from shared memory
 * four at a time. A row's order of sums depends on its keys alone.
 *
 * A RULE's of(row) tells what that row sees: its score(key, q k) is the scaled score, or minus
 * infinity; seen is the number of keys any row of the tile may see. */
#ifndef TT_ATTENTION_F32_CUH
#define TT_ATTENTION_F32_CUH

#include <math_constants.h>

#include "kernels/cuda/device.cuh"

namespace f32 {

constexpr int kRows = 64, kKeys = 64, kThreads = 256;
constexpr int kLine = kRows + 4; /* floats from one channel (or key) of a tile to the next */
constexpr int kMostDim = 128;

template <int HD> constexpr size_t shared_bytes()
{
    return (size_t)(2 * HD * kLine + kKeys * HD + kKeys * kLine) * sizeof(float);
}

/* Channels [4 part, 4 part + 4) of a row; zeros beyond dim. */
__device__ inline float4 four(const float *row, int part, int dim, bool valid, bool wide)
{
    if (!valid || 4 * part >= dim)
        return make_float4(0, 0, 0, 0);
    const float *p = row + 4 * part;
    if (wide)
        return *reinterpret_cast<const float4 *>(p);
    int left = dim - 4 * part;
    return make_float4(p[0], left > 1 ? p[1] : 0, left > 2 ? p[2] : 0, left > 3 ? p[3] : 0);
}

/* 64 rows, channel by channel: [HD][kLine]. */
template <int HD>
__device__ void load_turned(float *tile, const float *from, int64_t ld, int64_t rows, int dim,
                            bool wide)
{
    for (int t = threadIdx.x; t < kRows * HD / 4; t += kThreads) {
        int row = t % kRows, part = t / kRows;
        float4 v = four(from + row * ld, part, dim, row < rows, wide);
        float *to = tile + 4 * part * kLine + row;
        to[0] = v.x, to[kLine] = v.y, to[2 * kLine] = v.z, to[3 * kLine] = v.w;
    }
}

/* 64 rows as they are: [64][HD]. */
template <int HD>
__device__ void load_plain(float *tile, const float *from, int64_t ld, int64_t rows, int dim,
                           bool wide)
{
    for (int t = threadIdx.x; t < kKeys * HD / 4; t += kThreads) {
        int row = t / (HD / 4), part = t % (HD / 4);
        *reinterpret_cast<float4 *>(tile + row * HD + 4 * part) =
            four(from + row * ld, part, dim, row < rows, wide);
    }
}

__device__ inline void unpack(float (&to)[4], const float *from)
{
    float4 v = *reinterpret_cast<const float4 *>(from);
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}

/* Over the 16 threads that share rows. */
__device__ inline float max16(float x)
{
    for (int d = 8; d; d >>= 1)
        x = fmaxf(x, __shfl_xor_sync(~0u, x, d));
    return x;
}
__device__ inline float sum16(float x)
{
    for (int d = 8; d; d >>= 1)
        x += __shfl_xor_sync(~0u, x, d);
    return x;
}

/* The channel of a thread's c-th sum: runs of four, or of two in heads of 32. */
template <int HD> __device__ int channel_of(int c)
{
    constexpr int RUN = HD / 16 < 4 ? HD / 16 : 4;
    return c / RUN * 16 * RUN + (int)threadIdx.x % 16 * RUN + c % RUN;
}

/* Query rows [0, rows) of q, at most 64, against `seen` keys; first: the number the rule knows row
 * 0 by. ok: addresses and steps allow 16 bytes at a time. */
template <int HD, typename RULE>
__device__ void attend(float *out, int64_t ldo, const float *q, int64_t ldq, const float *k,
                       const float *v, int64_t ld_kv, int64_t first, int64_t rows, int64_t seen,
                       int dim, bool ok, const RULE &rule, float *room)
{
    constexpr int N = HD / 16;
    float *qt = room, *kt = qt + HD * kLine, *pt = kt + HD * kLine, *vt = pt + kKeys * kLine;
    int ty = (int)threadIdx.x / 16 * 4, tx = (int)threadIdx.x % 16 * 4;
    float sum[4][N] = {}, max[4], mass[4] = {};
    for (int i = 0; i < 4; i++)
        max[i] = -CUDART_INF_F;
    __syncthreads();
    load_turned<HD>(qt, q, ldq, rows, dim, ok);
    for (int64_t at = 0; at < seen; at += kKeys) {
        __syncthreads();
        load_turned<HD>(kt, k + at * ld_kv, ld_kv, seen - at, dim, ok);
        load_plain<HD>(vt, v + at * ld_kv, ld_kv, seen - at, dim, ok);
        __syncthreads();
        float w[4][4] = {}, a[4], b[4];
#pragma unroll 8
        for (int c = 0; c < HD; c++) {
            unpack(a, qt + c * kLine + ty);
            unpack(b, kt + c * kLine + tx);
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    w[i][j] = fmaf(a[i], b[j], w[i][j]);
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float most = max[i];
            auto row = rule.of(first + ty + i);
#pragma unroll
            for (int j = 0; j < 4; j++) {
                int key = (int)at + tx + j;
                w[i][j] = ty + i < rows && key < seen ? row.score(key, w[i][j]) : -CUDART_INF_F;
                most = fmaxf(most, w[i][j]);
            }
            most = max16(most);
            float keep = max[i] == -CUDART_INF_F ? 0.0f : expf(max[i] - most), add = 0;
            max[i] = most;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                w[i][j] = w[i][j] == -CUDART_INF_F ? 0.0f : expf(w[i][j] - most);
                add += w[i][j];
            }
            mass[i] = fmaf(mass[i], keep, sum16(add));
#pragma unroll
            for (int c = 0; c < N; c++)
                sum[i][c] *= keep;
        }
#pragma unroll
        for (int j = 0; j < 4; j++)
            *reinterpret_cast<float4 *>(pt + (tx + j) * kLine + ty) =
                make_float4(w[0][j], w[1][j], w[2][j], w[3][j]);
        __syncthreads();
#pragma unroll 8
        for (int j = 0; j < kKeys; j++) {
            unpack(a, pt + j * kLine + ty);
#pragma unroll
            for (int c = 0; c < N; c += 4) {
                if (N < 4) {
                    float2 two = *reinterpret_cast<float2 *>(vt + j * HD + channel_of<HD>(c));
                    b[0] = two.x, b[1] = two.y;
                } else {
                    unpack(b, vt + j * HD + channel_of<HD>(c));
                }
#pragma unroll
                for (int i = 0; i < 4; i++)
#pragma unroll
                    for (int u = 0; u < (N < 4 ? N : 4); u++)
                        sum[i][c + u] = fmaf(a[i], b[u], sum[i][c + u]);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int c = 0; c < N; c++)
            if (ty + i < rows && channel_of<HD>(c) < dim)
                out[(ty + i) * ldo + channel_of<HD>(c)] = mass[i] > 0 ? sum[i][c] / mass[i] : 0.0f;
}

} // namespace f32

#endif
