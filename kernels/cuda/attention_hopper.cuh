/* attention_hopper.cuh - what the attention kernels of Hopper share: tiles in shared memory as
 * warpgroup products want them, and one step of the running softmax over a tile of keys. */
#ifndef TT_ATTENTION_HOPPER_CUH
#define TT_ATTENTION_HOPPER_CUH

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/hopper.cuh"

namespace hopper {

/* A tile is slabs of 64 channels: `rows` rows of 128 bytes each, swizzled. */
__host__ __device__ constexpr int slab_bytes(int rows) { return rows * 128; }
template <int HD> __host__ __device__ constexpr int tile_bytes(int rows) { return rows * HD * 2; }

/* Starts copies of rows [first, first + ROWS) of a matrix, `rows` valid, into a tile; the rest
 * becomes zero. thread: of THREADS that share the work, each with the same 16 bytes of every
 * THREADS / (HD / 8)-th row. */
template <int HD, int ROWS, int THREADS>
__device__ void load_rows(char *tile, const bf16 *from, int64_t ld, int64_t first, int64_t rows,
                          int thread)
{
    constexpr int PARTS = HD / 8, STEP = THREADS / PARTS; /* STEP: 4, 8 or 16 */
    int row0 = thread / PARTS, part = thread % PARTS;
    int left = rows - first < ROWS ? (int)(rows - first) : ROWS;
    const bf16 *p = from + (first + row0) * ld + part * 8;
    uint32_t to = address(tile) + part / 8 * slab_bytes(ROWS) + row0 * 128;
#pragma unroll 4
    for (int i = 0; i < ROWS / STEP; i++, p += STEP * ld) {
        int row = row0 + i * STEP, swizzled = (part % 8 ^ (row & 7)) * 16;
        bool valid = row < left;
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to + i * STEP * 128 +
                                                                         swizzled),
                     "l"(valid ? p : from), "r"(valid ? 16 : 0));
    }
}

/* Descriptor of a tile of ROWS rows read with its rows as K. */
template <int ROWS> __device__ uint64_t describe_rows(const void *p)
{
    uint64_t start = (address(p) & 0x3FFFF) >> 4;
    return start | (uint64_t)(slab_bytes(ROWS) >> 4) << 16 | (uint64_t)64 << 32 | (uint64_t)1 << 62;
}

template <int HD> struct state {
    float sum[HD / 2]; /* weights times values, in wgmma's layout */
    float max[2], mass[2];
};

template <int HD> __device__ void clear(state<HD> &s)
{
#pragma unroll
    for (int i = 0; i < HD / 2; i++)
        s.sum[i] = 0;
    s.max[0] = s.max[1] = -INFINITY;
    s.mass[0] = s.mass[1] = 0;
}

/* q: the warpgroup's 64 rows of a tile of ROWS. */
template <int HD, int KEYS, int ROWS>
__device__ void score(float (&w)[KEYS / 2], const char *q, const char *k)
{
    fence_registers(w);
    multiply_begin();
#pragma unroll
    for (int d = 0; d < HD / 16; d++)
        wgmma<KEYS, false>::run(w, describe(q + d / 4 * slab_bytes(ROWS) + d % 4 * 32),
                                describe(k + d / 4 * slab_bytes(KEYS) + d % 4 * 32), d > 0);
    multiply_commit();
    multiply_wait<0>();
    fence_registers(w);
}

/* 2^x, or zero where that is no normal number: exp2f takes four instructions for those. */
__device__ inline float power2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Scores to weights; the state is rescaled to the new maximum. limit: keys each row may see; hole:
 * as hole_in has it. */
template <int HD, int KEYS>
__device__ void soften(state<HD> &s, float (&w)[KEYS / 2], const int (&limit)[2], int hole,
                       float scale)
{
    int lane = threadIdx.x % 32;
    float most[2] = {-INFINITY, -INFINITY}, keep[2];
    if (limit[0] < KEYS || limit[1] < KEYS) {
#pragma unroll
        for (int i = 0; i < KEYS / 2; i++) {
            int col = i / 4 * 8 + 2 * (lane % 4) + i % 2, h = i / 2 % 2;
            w[i] = col < limit[h] ? w[i] : -INFINITY;
        }
    }
    if (hole != kFarHole) {
#pragma unroll
        for (int i = 0; i < KEYS / 2; i++)
            if (i / 4 * 8 + 2 * (lane % 4) + i % 2 == hole + i / 2 % 2 * 8)
                w[i] = -INFINITY;
    }
#pragma unroll
    for (int i = 0; i < KEYS / 2; i++)
        most[i / 2 % 2] = fmaxf(most[i / 2 % 2], w[i]);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        most[h] = fmaxf(most[h], __shfl_xor_sync(~0u, most[h], 1));
        most[h] = fmaxf(most[h], __shfl_xor_sync(~0u, most[h], 2));
        most[h] = fmaxf(s.max[h], most[h] * scale);
        keep[h] = s.max[h] == -INFINITY ? 0.0f : exp2f(s.max[h] - most[h]);
        s.max[h] = most[h];
        s.mass[h] *= keep[h];
    }
#pragma unroll
    for (int i = 0; i < HD / 2; i++)
        s.sum[i] *= keep[i / 2 % 2];
    float from[2] = {s.max[0] == -INFINITY ? 0.0f : s.max[0],
                     s.max[1] == -INFINITY ? 0.0f : s.max[1]};
#pragma unroll
    for (int i = 0; i < KEYS / 2; i++) {
        w[i] = power2(fmaf(w[i], scale, -from[i / 2 % 2]));
        s.mass[i / 2 % 2] += w[i];
    }
}

template <int HD, int KEYS>
__device__ void add_values(state<HD> &s, const uint32_t (&w)[KEYS / 4], const char *v)
{
    fence_registers(s.sum);
    multiply_begin();
#pragma unroll
    for (int k = 0; k < KEYS / 16; k++) {
        uint32_t a[4] = {w[4 * k], w[4 * k + 1], w[4 * k + 2], w[4 * k + 3]};
        wgmma_from_registers<HD>::run(s.sum, a, describe_rows<KEYS>(v + k * 16 * 128));
    }
    multiply_commit();
    multiply_wait<0>();
    fence_registers(s.sum);
}

/* Rows of the quad's threads add up what each has of the mass. */
template <int HD> __device__ void sum_mass(state<HD> &s)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        s.mass[h] += __shfl_xor_sync(~0u, s.mass[h], 1);
        s.mass[h] += __shfl_xor_sync(~0u, s.mass[h], 2);
    }
}

/* Results of one head: row r of the span at out + r * ldo. row0: of the warp. */
template <int HD>
__device__ void store_rows(const state<HD> &s, bf16 *out, int64_t ldo, int64_t row0, int64_t rows)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int64_t row = row0 + lane / 4 + 8 * h;
        float inv = s.mass[h] > 0 ? 1.0f / s.mass[h] : 0.0f;
        bf16 *y = out + row * ldo + 8 * (lane % 4);
#pragma unroll
        for (int g = 0; g < HD / 8; g += 4) {
            uint32_t p[4];
#pragma unroll
            for (int j = 0; j < 4; j++)
                p[j] = pack2(s.sum[4 * (g + j) + 2 * h] * inv,
                             s.sum[4 * (g + j) + 2 * h + 1] * inv);
            transpose_quad(p);
            if (row < rows)
                *reinterpret_cast<uint4 *>(y + 8 * g) = make_uint4(p[0], p[1], p[2], p[3]);
        }
    }
}

} // namespace hopper

#endif
