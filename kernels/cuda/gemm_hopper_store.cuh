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

/* A row of the result: where its columns are stored, and where those from a.split on are. */
struct stored_row {
    bf16 *y, *z;
    bool exists;

    __device__ stored_row(int64_t row, const hopper_args &a)
        : y((bf16 *)a.y + row * a.ldy), z(y), exists(row < a.rows)
    {
        if (a.index && exists)
            z = (bf16 *)a.z + a.index[row] * a.ldz - a.split;
    }
    /* Of a column; the seven behind it follow, if it is the first of eight. */
    __device__ bf16 *place(int64_t col, const hopper_args &a) const
    {
        return (a.index && col >= a.split ? z : y) + col;
    }
};

/* 32 columns of one row, as far as `end`: v[2 j + c] is column 8 j + 2 (lane % 4) + c. old: eight
 * of them that are added, from column 8 (lane % 4) on, where 16 bytes can be loaded at once. */
__device__ inline void store_row(const float (&v)[8], const stored_row &to, int64_t col,
                                 int64_t end, const hopper_args &a,
                                 uint4 old = make_uint4(0, 0, 0, 0))
{
    int t = threadIdx.x % 4;
    if (!a.vector) {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            int64_t at = col + i / 2 * 8 + 2 * t + i % 2;
            if (to.exists && at < end) {
                bf16 *y = to.place(at, a);
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
    if (to.exists && mine < end) /* ends are multiples of 8 here */
        *reinterpret_cast<uint4 *>(to.place(mine, a)) = make_uint4(p[0], p[1], p[2], p[3]);
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
                             const stored_row (&to)[2], const hopper_args &a, int n0)
{
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
            store_row(v, to[h], n0 + 32 * (g0 + g), tile_end<2 * N>(a, n0), a, old[g][h]);
        }
}

template <int TN> __device__ void store_act(float (&d)[TN / 2], const hopper_args &a, int64_t m0,
                                            int n0)
{
    constexpr int GROUPS = (TN + 31) / 32;
    constexpr int RUN = GROUPS % 4 == 0 ? 4 : GROUPS % 3 == 0 ? 3 : GROUPS;
    int64_t row = m0 + threadIdx.x % 32 / 4;
    stored_row to[2] = {stored_row(row, a), stored_row(row + 8, a)};
#pragma unroll
    for (int g = 0; g < GROUPS; g += RUN) {
        uint4 old[RUN][2];
        load_added(old, a, m0, n0 + 32 * g, tile_end<TN>(a, n0));
        store_groups(d, old, g, to, a, n0);
    }
}

template <int TN> __device__ void store_glu(float (&d)[TN / 2], const hopper_args &a, int64_t m0,
                                            int n0)
{
    static_assert(TN % 16 == 0, "a gate's eight columns and their ups are of one tile");
    int64_t row = m0 + threadIdx.x % 32 / 4, end = tile_end<TN / 2>(a, n0 / 2);
    stored_row to[2] = {stored_row(row, a), stored_row(row + 8, a)};
#pragma unroll
    for (int g = 0; g < TN / 8; g += 8)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float v[8];
#pragma unroll
            for (int i = 0; i < 8; i++) {
                int at = g + i / 2 * 2; /* of the gate */
                bool there = at < TN / 8;
                float gate = there ? d[there ? 4 * at + 2 * h + i % 2 : 0] : 0.0f;
                float up = there ? d[there ? 4 * at + 4 + 2 * h + i % 2 : 0] : 0.0f;
                v[i] = silu(gate) * up;
            }
            store_row(v, to[h], n0 / 2 + 4 * g, end, a);
        }
}

template <int TN> __device__ void store_wide(float (&d)[TN / 2], const hopper_args &a, int64_t m0,
                                             int n0)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < TN / 2; i += 2) {
        int64_t row = m0 + lane / 4 + i / 2 % 2 * 8;
        int64_t col = n0 + i / 4 * 8 + 2 * (lane % 4);
        if (row >= a.rows || col >= a.width)
            continue;
        float *y = (float *)a.y + row * a.ldy + col;
        if (a.vector) { /* widths are even then */
            float2 old = a.add ? *reinterpret_cast<float2 *>(y) : make_float2(0, 0);
            *reinterpret_cast<float2 *>(y) = make_float2(old.x + d[i], old.y + d[i + 1]);
            continue;
        }
        put(y, a.add ? *y + d[i] : d[i]);
        if (col + 1 < a.width)
            put(y + 1, a.add ? y[1] + d[i + 1] : d[i + 1]);
    }
}

/* Statistics of each kHeadTile columns. */
template <int TN> __device__ void store_head(float (&d)[TN / 2], const hopper_args &a, int64_t m0,
                                             int n0)
{
    constexpr int SIZE = kHeadTile / 2;
#pragma unroll 1
    for (int at = n0; at < n0 + TN && at < a.n; at += kHeadTile) {
        float now[SIZE];
#pragma unroll
        for (int j = 0; j < TN / 2; j++) {
            if (j < SIZE)
                now[j < SIZE ? j : 0] = d[j];
            else
                d[j < SIZE ? 0 : j - SIZE] = d[j];
        }
        head_tile<kHeadTile>(now, a.head, a.rows, a.n, m0, at, at / kHeadTile);
    }
}

} // namespace hopper

#endif
