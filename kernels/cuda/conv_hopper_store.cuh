/* conv_hopper_store.cuh - where the sums of a tile of conv_hopper.cu go: scaled, with bias, added
 * to y or not. Of each eight outputs a thread has two; lanes of four exchange theirs, so that
 * bfloat16 goes out by 16 bytes. */
#ifndef TT_CONV_HOPPER_STORE_CUH
#define TT_CONV_HOPPER_STORE_CUH

#include "kernels/cuda/hopper.cuh"

struct conv_args {
    void *y;
    int64_t ldy;
    int height, width;           /* of x, as it is stored */
    int up, parts;               /* parts: 4 with up, kinds of pixels of y */
    int chunks, n;               /* runs of 64 channels; outputs */
    int columns, lines, outputs; /* tiles of an image, of the outputs */
    int tiles;
    const float *scale, *bias;
    bool add, vector; /* vector: y takes 16-byte accesses */
};

/* What a block does next. */
struct conv_tile {
    int n0, image, x, y; /* first output; first pixel, of x */
    int px, py;          /* with up: whether y's coordinates are odd */
};

namespace hopper {

/* Where pixel p of the thread's four goes; NULL outside the image. A warpgroup's 8 x 16 pixels
 * begin at the tile's first. */
template <typename T> __device__ T *pixel_of(const conv_args &a, const conv_tile &t, int p)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    int x = t.x + lane / 4, y = t.y + 8 * (p / 2) + 2 * warp + p % 2;
    if (x >= a.width || y >= a.height)
        return nullptr;
    x = (x << a.up) + t.px;
    y = (y << a.up) + t.py;
    return (T *)a.y + (((int64_t)t.image * (a.height << a.up) + y) * (a.width << a.up) + x) * a.ldy;
}

/* v[2 j + c]: column 8 j + 2 (lane % 4) + c of 32 from col on. */
template <typename T>
__device__ void store_single(T *to, const float (&v)[8], int col, const conv_args &a)
{
#pragma unroll
    for (int i = 0; i < 8; i++) {
        int at = col + i / 2 * 8 + 2 * (threadIdx.x % 4) + i % 2;
        if (to && at < a.n)
            put(&to[at], a.add ? v[i] + get(to[at]) : v[i]);
    }
}

/* old: eight of y from column col + 8 (lane % 4) on. */
__device__ inline void store_eight(bf16 *to, const float (&v)[8], uint4 old, int col,
                                   const conv_args &a)
{
    int mine = col + 8 * (threadIdx.x % 4);
    uint32_t p[4] = {old.x, old.y, old.z, old.w};
    if (a.add)
        transpose_quad(p);
#pragma unroll
    for (int j = 0; j < 4; j++) {
        float2 more = unpack2(p[j]);
        p[j] = pack2(v[2 * j] + more.x, v[2 * j + 1] + more.y);
    }
    transpose_quad(p);
    if (to && mine < a.n) /* widths are multiples of 8 here */
        *reinterpret_cast<uint4 *>(to + mine) = make_uint4(p[0], p[1], p[2], p[3]);
}

__device__ inline void store_eight(float *to, const float (&v)[8], uint4, int col,
                                   const conv_args &a)
{
#pragma unroll
    for (int i = 0; i < 8; i += 2) {
        int at = col + 4 * i + 2 * (threadIdx.x % 4);
        if (!to || at >= a.n)
            continue;
        float2 *y = reinterpret_cast<float2 *>(to + at);
        float2 old = a.add ? *y : make_float2(0, 0);
        *y = make_float2(old.x + v[i], old.y + v[i + 1]);
    }
}

/* Scale and bias of the thread's eight columns of 32. */
__device__ inline void load_columns(float (&scale)[8], float (&bias)[8], int col,
                                    const conv_args &a)
{
#pragma unroll
    for (int i = 0; i < 8; i++) {
        int at = col + i / 2 * 8 + 2 * (threadIdx.x % 4) + i % 2;
        scale[i] = a.scale && at < a.n ? a.scale[at] : 1.0f;
        bias[i] = a.bias && at < a.n ? a.bias[at] : 0.0f;
    }
}

/* N pixels of TN outputs from n0 on. v[p][2 j + c]: column 8 j + 2 (lane % 4) + c of to[p]. */
template <typename T, int TN, int N>
__device__ void store_pixels(const float (&v)[N][TN / 4], T *const (&to)[N], int n0,
                             const conv_args &a)
{
#pragma unroll
    for (int q = 0; q < TN / 32; q++) {
        int col = n0 + 32 * q;
        float scale[8], bias[8];
        uint4 old[N];
        load_columns(scale, bias, col, a);
#pragma unroll
        for (int p = 0; p < N; p++) { /* all loads before the first use */
            int mine = col + 8 * (threadIdx.x % 4);
            old[p] = make_uint4(0, 0, 0, 0);
            if (sizeof(T) == 2 && a.add && a.vector && to[p] && mine < a.n)
                old[p] = *reinterpret_cast<const uint4 *>(to[p] + mine);
        }
#pragma unroll
        for (int p = 0; p < N; p++) {
            float w[8];
#pragma unroll
            for (int i = 0; i < 8; i++)
                w[i] = v[p][8 * q + i] * scale[i] + bias[i];
            if (a.vector)
                store_eight(to[p], w, old[p], col, a);
            else
                store_single(to[p], w, col, a);
        }
    }
}

} // namespace hopper

#endif
