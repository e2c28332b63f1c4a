/* gemm_hopper_store.cuh - from the sums of a tile of gemm_hopper.cuh to what is stored. */
#ifndef TT_GEMM_HOPPER_STORE_CUH
#define TT_GEMM_HOPPER_STORE_CUH

#include "kernels/cuda/gemm_hopper_ring.cuh"

namespace hopper {

/* Scales, bias and activation of the thread's columns. n0: first column of the tile in the weight.
 */
template <int TN>
__device__ void finish(float (&d)[TN / 2], const hopper_args &a, int64_t m0, int n0)
{
    int lane = threadIdx.x % 32;
    float by[2] = {1, 1};
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int64_t row = m0 + lane / 4 + 8 * h;
        if (a.x_scale && row < a.rows)
            by[h] = a.x_scale[row];
    }
    if (!a.scale && !a.bias && !a.x_scale && !a.gelu)
        return;
#pragma unroll
    for (int g = 0; g < TN / 8; g++)
#pragma unroll
        for (int c = 0; c < 2; c++) {
            int64_t col = n0 + 8 * g + 2 * (lane % 4) + c;
            float s = a.scale && col < a.n ? a.scale[col] : 1.0f;
            float b = a.bias && col < a.n ? a.bias[col] : 0.0f;
            d[4 * g + c] = d[4 * g + c] * by[0] * s + b;
            d[4 * g + 2 + c] = d[4 * g + 2 + c] * by[1] * s + b;
        }
    if (a.gelu)
#pragma unroll
        for (int i = 0; i < TN / 2; i++)
            d[i] = gelu_tanh(d[i]);
}

/* Where a column of a row that exists is stored; the seven behind it follow, if it is the first of
 * eight. */
__device__ inline bf16 *place_of(int64_t row, int64_t col, const hopper_args &a)
{
    return a.index && col >= a.split ? (bf16 *)a.z + a.index[row] * a.ldz + (col - a.split)
                                     : (bf16 *)a.y + row * a.ldy + col;
}

/* 32 columns of one row, as far as `end`: v[2 j + c] is column 8 j + 2 (lane % 4) + c. old: eight
 * of them that are added, from column 8 (lane % 4) on, where 16 bytes can be loaded at once. */
__device__ inline void store_row(const float (&v)[8], bool valid, int64_t row, int64_t col,
                                 int64_t end, const hopper_args &a,
                                 uint4 old = make_uint4(0, 0, 0, 0))
{
    int t = threadIdx.x % 4;
    if (!a.vector) {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            int64_t at = col + i / 2 * 8 + 2 * t + i % 2;
            if (valid && at < end) {
                bf16 *y = place_of(row, at, a);
                put(y, a.add ? v[i] + get(*y) : v[i]);
            }
        }
        return;
    }
    int64_t mine = col + 8 * t;
    uint32_t p[4] = {old.x, old.y, old.z, old.w};
    if (a.add)
        transpose_quad(p);
#pragma unroll
    for (int j = 0; j < 4; j++) {
        float2 more = unpack2(p[j]);
        p[j] = pack2(v[2 * j] + more.x, v[2 * j + 1] + more.y);
    }
    transpose_quad(p);
    if (valid && mine < end) /* ends are multiples of 8 here */
        *reinterpret_cast<uint4 *>(place_of(row, mine, a)) = make_uint4(p[0], p[1], p[2], p[3]);
}

/* Where the columns of a tile end. */
template <int TN> __device__ int64_t tile_end(const hopper_args &a, int n0)
{
    return n0 + TN < a.width ? n0 + TN : a.width;
}

/* What is to be added to RUN groups of 32 columns up to `end`, all loads before the first use. */
template <int RUN>
__device__ void load_added(uint4 (&old)[RUN][2], const hopper_args &a, int64_t m0, int n0,
                           int64_t end)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int g = 0; g < RUN; g++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int64_t row = m0 + lane / 4 + 8 * h, col = n0 + 32 * g + 8 * (lane % 4);
            const bf16 *y = (const bf16 *)a.y + row * a.ldy + col;
            old[g][h] = make_uint4(0, 0, 0, 0);
            if (a.add && a.vector && row < a.rows && col < end)
                old[g][h] = *reinterpret_cast<const uint4 *>(y);
        }
}

/* n0: column of d's first in the result; g0: group of 32 columns to begin with, the last of which
 * may be short. */
template <int RUN, int N>
__device__ void store_groups(const float (&d)[N], const uint4 (&old)[RUN][2], int g0,
                             const hopper_args &a, int64_t m0, int n0)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int g = 0; g < RUN; g++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float v[8];
#pragma unroll
            for (int i = 0; i < 8; i++) {
                int at = 4 * (4 * (g0 + g) + i / 2) + 2 * h + i % 2;
                v[i] = at < N ? d[at < N ? at : 0] : 0.0f;
            }
            int64_t row = m0 + lane / 4 + 8 * h;
            store_row(v, row < a.rows, row, n0 + 32 * (g0 + g), tile_end<2 * N>(a, n0), a,
                      old[g][h]);
        }
}

template <int TN> __device__ void store_act(float (&d)[TN / 2], const hopper_args &a, int64_t m0,
                                            int n0)
{
    constexpr int GROUPS = (TN + 31) / 32, RUN = GROUPS % 4 == 0 ? 4 : GROUPS < 4 ? GROUPS : 1;
#pragma unroll
    for (int g = 0; g < GROUPS; g += RUN) {
        uint4 old[RUN][2];
        load_added(old, a, m0, n0 + 32 * g, tile_end<TN>(a, n0));
        store_groups(d, old, g, a, m0, n0);
    }
}

template <int TN> __device__ void store_glu(float (&d)[TN / 2], const hopper_args &a, int64_t m0,
                                            int n0)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int g = 0; g < TN / 8; g += 8)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float v[8];
#pragma unroll
            for (int i = 0; i < 8; i++) {
                float gate = d[4 * (g + i / 2 * 2) + 2 * h + i % 2];
                float up = d[4 * (g + i / 2 * 2 + 1) + 2 * h + i % 2];
                v[i] = gate / (1.0f + __expf(-gate)) * up;
            }
            int64_t row = m0 + lane / 4 + 8 * h;
            store_row(v, row < a.rows, row, n0 / 2 + 4 * g, a.width, a);
        }
}

template <int TN> __device__ void store_wide(float (&d)[TN / 2], const hopper_args &a, int64_t m0,
                                             int n0)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < TN / 2; i++) {
        int64_t row = m0 + lane / 4 + i / 2 % 2 * 8;
        int64_t col = n0 + i / 4 * 8 + 2 * (lane % 4) + i % 2;
        if (row < a.rows && col < a.width) {
            float *y = (float *)a.y + row * a.ldy + col;
            *y = a.add ? *y + d[i] : d[i];
        }
    }
}

} // namespace hopper

#endif
