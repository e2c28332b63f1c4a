/* hopper.cuh - Hopper's instructions as functions: barriers that count bytes, bulk tensor copies,
 * descriptors of swizzled tiles for warpgroup products, and the exchange that turns their register
 * layout into rows. */
#ifndef TT_HOPPER_CUH
#define TT_HOPPER_CUH

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace hopper {

/* Shared memory of kernels that have a multiprocessor to themselves, needed or not: to change how
 * it divides its memory, a multiprocessor must be idle for some microseconds. */
constexpr size_t kWholeShared = 226 << 10;

__device__ inline uint32_t address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

__device__ inline void barrier_init(uint64_t *b, int count)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address(b)), "r"(count));
}
__device__ inline void barrier_expect(uint64_t *b, int bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address(b)),
                 "r"(bytes)
                 : "memory");
}
__device__ inline void barrier_arrive(uint64_t *b)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(address(b)) : "memory");
}
/* At the barrier in the same place of another block of the cluster. Nothing the thread wrote has to
 * be seen there, so this is not a release to the cluster: that would wait a microsecond. */
__device__ inline void barrier_arrive_at(uint64_t *b, int block)
{
    asm volatile("{\n.reg .b32 there;\n"
                 "mapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(
                     address(b)),
                 "r"(block)
                 : "memory");
}
/* All threads of a cluster. */
__device__ inline void cluster_sync()
{
    asm volatile("barrier.cluster.arrive.release;\n"
                 "barrier.cluster.wait.acquire;" ::: "memory");
}
__device__ inline void barrier_wait(uint64_t *b, int parity)
{
    asm volatile("{\n.reg .pred p;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
                 "@p bra done;\n"
                 "bra again;\n"
                 "done:\n}" ::"r"(address(b)),
                 "r"(parity)
                 : "memory");
}

__device__ inline void copy_box(void *to, const CUtensorMap *map, uint64_t *full, int k, int row,
                                uint64_t policy)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 ".L2::cache_hint [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(address(to)),
                 "l"(map), "r"(address(full)), "r"(k), "r"(row), "l"(policy)
                 : "memory");
}
/* The same to this place of both blocks of a cluster of two; counts at the barrier of each. */
__device__ inline void copy_box_to_both(void *to, const CUtensorMap *map, uint64_t *full, int k,
                                        int row, uint64_t policy)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 ".multicast::cluster.L2::cache_hint [%0], [%1, {%3, %4}], [%2], %5, %6;" ::"r"(
                     address(to)),
                 "l"(map), "r"(address(full)), "r"(k), "r"(row), "h"((uint16_t)3), "l"(policy)
                 : "memory");
}
__device__ inline void copy_box(void *to, const CUtensorMap *map, uint64_t *full, int k, int tap,
                                int row, uint64_t policy)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 ".L2::cache_hint [%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(address(to)),
                 "l"(map), "r"(address(full)), "r"(k), "r"(tap), "r"(row), "l"(policy)
                 : "memory");
}
__device__ inline void copy_box(void *to, const CUtensorMap *map, uint64_t *full, int k, int x,
                                int y, int image, uint64_t policy)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 ".L2::cache_hint [%0], [%1, {%3, %4, %5, %6}], [%2], %7;" ::"r"(address(to)),
                 "l"(map), "r"(address(full)), "r"(k), "r"(x), "r"(y), "r"(image), "l"(policy)
                 : "memory");
}
__device__ inline void prefetch_map(const CUtensorMap *map)
{
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
constexpr uint64_t kEvictFirst = 0x12F0000000000000, kEvictLast = 0x14F0000000000000;

/* Descriptor of a box with 128-byte rows, swizzled: groups of eight rows are 1,024 bytes apart. */
__device__ inline uint64_t describe(const void *p)
{
    uint64_t start = (address(p) & 0x3FFFF) >> 4;
    return start | (uint64_t)1 << 16 | (uint64_t)64 << 32 | (uint64_t)1 << 62;
}

template <int N> __device__ inline void fence_registers(float (&d)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++)
        asm volatile("" : "+f"(d[i])::"memory");
}
__device__ inline void multiply_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void multiply_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int LEFT> __device__ inline void multiply_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}

/* Four words a lane, word j belonging to column group j: after this, lane t of each quad holds
 * group t, word i of it from lane i. Its own inverse. */
__device__ inline void transpose_quad(uint32_t (&p)[4])
{
    int lane = threadIdx.x;
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        uint32_t got = __shfl_xor_sync(~0u, lane & 1 ? p[i] : p[i + 1], 1);
        p[i] = lane & 1 ? got : p[i];
        p[i + 1] = lane & 1 ? p[i + 1] : got;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        uint32_t got = __shfl_xor_sync(~0u, lane & 2 ? p[i] : p[i + 2], 2);
        p[i] = lane & 2 ? got : p[i];
        p[i + 2] = lane & 2 ? p[i + 2] : got;
    }
}

__device__ inline uint32_t pack2(float a, float b)
{
    __nv_bfloat162 p = __floats2bfloat162_rn(a, b);
    uint32_t w;
    memcpy(&w, &p, 4);
    return w;
}
__device__ inline float2 unpack2(uint32_t w)
{
    __nv_bfloat162 p;
    memcpy(&p, &w, 4);
    return __bfloat1622float2(p);
}

} // namespace hopper

#endif
