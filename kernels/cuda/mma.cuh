/* mma.cuh - a tile of a bfloat16 product by mma.sync: 128 rows by 128 outputs, K in steps of 32
 * through a ring of cp.async stages, eight warps of 64 x 32, sums over K in order. Who includes it
 * says where the rows of a stage come from. */
#pragma once

#include "kernels/cuda/device.cuh"

namespace {

constexpr int kM = 128, kN = 128, kK = 32, kStages = 4, kThreads = 256;
constexpr int kStage = (kM + kN) * kK; /* elements */

__device__ uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

/* Rows of 64 bytes: four parts of 16, swizzled over pairs of rows. */
__device__ int place(int row, int part) { return row * kK + (part ^ (row / 2 & 3)) * 8; }

/* 16 bytes from global to shared memory; zeros when there is nothing. */
__device__ void fetch16(bf16 *to, const bf16 *from, bool valid)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
                 "l"(from), "r"(valid ? 16 : 0));
}

__device__ void load_matrix(uint32_t (&r)[4], const bf16 *p)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(p)));
}

__device__ void step(float (&d)[4][4][4], const bf16 *x, const bf16 *w, int warp, int lane)
{
    const int m0 = warp / 4 * 64, n0 = warp % 4 * 32;
#pragma unroll
    for (int k = 0; k < kK / 16; k++) {
        uint32_t a[4][4], b[2][4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            load_matrix(a[i], x + place(m0 + 16 * i + lane % 16, 2 * k + lane / 16));
#pragma unroll
        for (int j = 0; j < 2; j++)
            load_matrix(b[j], w + place(n0 + 16 * j + lane % 8 + lane / 16 * 8,
                                        2 * k + lane / 8 % 2));
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                             "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                             : "+f"(d[i][j][0]), "+f"(d[i][j][1]), "+f"(d[i][j][2]),
                               "+f"(d[i][j][3])
                             : "r"(a[i][0]), "r"(a[i][1]), "r"(a[i][2]), "r"(a[i][3]),
                               "r"(b[j / 2][j % 2 * 2]), "r"(b[j / 2][j % 2 * 2 + 1]));
    }
}

} // namespace
