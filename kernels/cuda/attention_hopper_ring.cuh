/* attention_hopper_ring.cuh - what attention_hopper.cu and attention_hopper_biased.cu share: the
 * ring of tiles between the warpgroup that brings keys and values and the two that multiply, and
 * the turns of those two. */
#ifndef TT_ATTENTION_HOPPER_RING_CUH
#define TT_ATTENTION_HOPPER_RING_CUH

#include "kernels/cuda/attention_hopper.cuh"

namespace {

using namespace hopper;

constexpr int kThreads = 384, kRing = 2;

/* One tile of query rows, and kRing of KEYS keys and of as many values. */
template <int HD, int KEYS> struct tiles {
    static constexpr int BYTES = tile_bytes<HD>(KEYS);
    char *q, *k, *v;
    uint64_t *q_full, *q_empty, *k_full, *k_empty, *v_full, *v_empty;

    static_assert(1024 + tile_bytes<HD>(kLongRows) + 2 * kRing * BYTES + 128 <= kWholeShared,
                  "too large");

    __device__ tiles(char *raw)
    {
        q = (char *)(((uintptr_t)raw + 1023) & ~(uintptr_t)1023);
        k = q + tile_bytes<HD>(kLongRows);
        v = k + kRing * BYTES;
        q_full = (uint64_t *)(v + kRing * BYTES);
        q_empty = q_full + 1;
        k_full = q_full + 2;
        k_empty = k_full + kRing;
        v_full = k_empty + kRing;
        v_empty = v_full + kRing;
    }
    /* By one thread, before any other uses them. */
    __device__ void init()
    {
        barrier_init(q_full, 128);
        barrier_init(q_empty, 2);
        for (int i = 0; i < kRing; i++) {
            barrier_init(&k_full[i], 128);
            barrier_init(&k_empty[i], 2);
            barrier_init(&v_full[i], 128);
            barrier_init(&v_empty[i], 2);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
};

/* --- the loading warpgroup --- */

template <int HD, int ROWS>
__device__ void load(char *tile, const bf16 *from, int64_t ld, int64_t first, int64_t rows)
{
    load_rows<HD, ROWS, 128>(tile, from, ld, first, rows, threadIdx.x);
    asm volatile("cp.async.commit_group;");
}

/* Announces a tile whose copies are done; the multipliers read it past the ordinary caches. */
__device__ void announce(uint64_t *full)
{
    if (!full)
        return;
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    barrier_arrive(full);
}

/* --- the multiplying warpgroups --- */

/* Turns of the two warpgroups, by named barriers: one waits for its own, and opens the other's. */
__device__ void wait_turn(int group)
{
    asm volatile("bar.sync %0, 256;" ::"r"(1 + group) : "memory");
}
__device__ void pass_turn(int group)
{
    asm volatile("bar.arrive %0, 256;" ::"r"(2 - group) : "memory");
}

} // namespace

#endif
