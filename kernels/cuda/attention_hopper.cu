/* attention_hopper.cu - attention of spans with many query rows on Hopper.
 *
 * A block takes 128 query rows of one head: two warpgroups of 64 rows multiply, a third brings the
 * rows and then tiles of 128 keys and values through a ring of two. Scores stay in registers, and
 * so do the weights on their way into the second product (FlashAttention-3, arXiv 2407.08608,
 * without its pipelining inside a warpgroup). The two multiplying warpgroups take turns with their
 * scores, so that one multiplies while the other takes exponentials. */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/hopper.cuh"

namespace {

using namespace hopper;

constexpr int kKeys = 128, kThreads = 384, kRing = 2;

/* A tile is slabs of 64 channels: 128 rows of 128 bytes each, swizzled. */
template <int HD> __host__ __device__ constexpr int tile_bytes() { return 128 * HD * 2; }
template <int HD> constexpr size_t shared_bytes()
{
    return 1024 + (size_t)(1 + 2 * kRing) * tile_bytes<HD>() + 128;
}
constexpr int kSlabBytes = 128 * 128;

template <int HD> struct tiles {
    char *q, *k, *v;
    uint64_t *q_full, *q_empty, *k_full, *k_empty, *v_full, *v_empty;

    __device__ tiles(char *raw)
    {
        q = (char *)(((uintptr_t)raw + 1023) & ~(uintptr_t)1023);
        k = q + 128 * HD * 2;
        v = k + kRing * 128 * HD * 2;
        q_full = (uint64_t *)(v + kRing * 128 * HD * 2);
        q_empty = q_full + 1;
        k_full = q_full + 2;
        k_empty = k_full + kRing;
        v_full = k_empty + kRing;
        v_empty = v_full + kRing;
    }
};

/* What one block does for one item. */
struct work {
    const span *s;
    int64_t row0, keys; /* first query row of the tile; keys any of its rows sees */
    int head;
};

__device__ work work_of(const call *c, int64_t item, int head)
{
    work w;
    w.s = span_of(c, item);
    w.row0 = (item - w.s->item) * kLongRows;
    w.head = head;
    int64_t last = w.row0 + kLongRows < w.s->query_rows ? w.row0 + kLongRows : w.s->query_rows;
    w.keys = visible(*w.s, last - 1);
    return w;
}

/* --- the loading warpgroup --- */

template <int HD>
__device__ void load(char *tile, const bf16 *from, int64_t ld, int64_t first, int64_t rows)
{
    constexpr int PARTS = HD / 8;
#pragma unroll 4
    for (int i = 0; i < PARTS; i++) {
        int t = i * 128 + threadIdx.x, row = t / PARTS, part = t % PARTS;
        bool valid = first + row < rows;
        const bf16 *p = from + (valid ? (first + row) * ld + part * 8 : 0);
        char *to = tile + part / 8 * kSlabBytes + row * 128 + ((part % 8 ^ (row & 7)) * 16);
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address(to)), "l"(p),
                     "r"(valid ? 16 : 0));
    }
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

template <int HD>
__device__ void feed(const call *c, const heads &n, tiles<HD> t, const bf16 *q, int64_t ldq)
{
    int turn = 0, parity = 0, q_parity = 0;
    for (int64_t item = blockIdx.x; item < c->items; item += gridDim.x, q_parity ^= 1) {
        work w = work_of(c, item, blockIdx.y);
        const span &s = *w.s;
        int64_t kv = w.head / (n.heads / n.kv_heads) * (int64_t)HD;
        const bf16 *k = (const bf16 *)s.k + kv, *v = (const bf16 *)s.v + kv;
        uint64_t *before[2] = {t.q_full, nullptr}; /* tiles still on their way, oldest first */
        barrier_wait(t.q_empty, q_parity ^ 1);
        load<HD>(t.q, q + s.query_row * ldq + w.head * HD, ldq, w.row0, s.query_rows);
        for (int64_t at = 0; at < w.keys; at += kKeys) {
            for (int values = 0; values < 2; values++) {
                uint64_t *empty = (values ? t.v_empty : t.k_empty) + turn;
                char *tile = (values ? t.v : t.k) + turn * tile_bytes<HD>();
                barrier_wait(empty, parity ^ 1);
                load<HD>(tile, values ? v : k, s.ld_kv, at, w.keys);
                if (before[1]) {
                    asm volatile("cp.async.wait_group 2;" ::: "memory");
                    announce(before[0]);
                    before[0] = before[1];
                }
                before[1] = (values ? t.v_full : t.k_full) + turn;
            }
            if (++turn == kRing) {
                turn = 0;
                parity ^= 1;
            }
        }
        asm volatile("cp.async.wait_group 0;" ::: "memory");
        announce(before[0]);
        announce(before[1]);
    }
}

/* --- the multiplying warpgroups --- */

/* Descriptor of a tile read with its rows as K: slabs of 64 channels are kSlabBytes apart. */
__device__ uint64_t describe_rows(const void *p)
{
    uint64_t start = (address(p) & 0x3FFFF) >> 4;
    return start | (uint64_t)(kSlabBytes >> 4) << 16 | (uint64_t)64 << 32 | (uint64_t)1 << 62;
}

template <int HD> struct state {
    float sum[HD / 2]; /* weights times values, in wgmma's layout */
    float max[2], mass[2];
};

template <int HD> __device__ void score(float (&w)[kKeys / 2], const char *q, const char *k)
{
    fence_registers(w);
    multiply_begin();
#pragma unroll
    for (int d = 0; d < HD / 16; d++) {
        int at = d / 4 * kSlabBytes + d % 4 * 32;
        wgmma<kKeys, false>::run(w, describe(q + at), describe(k + at), d > 0);
    }
    multiply_commit();
    multiply_wait<0>();
    fence_registers(w);
}

/* Scores to weights; the state is rescaled to the new maximum. limit: keys each row may see; hole:
 * as hole_in has it. */
template <int HD>
__device__ void soften(state<HD> &s, float (&w)[kKeys / 2], const int (&limit)[2], int hole,
                       float scale)
{
    int lane = threadIdx.x % 32;
    float most[2] = {-INFINITY, -INFINITY}, keep[2];
#pragma unroll
    for (int i = 0; i < kKeys / 2; i++) {
        int col = i / 4 * 8 + 2 * (lane % 4) + i % 2, h = i / 2 % 2;
        w[i] = col < limit[h] ? w[i] : -INFINITY;
    }
    if (hole != kFarHole) {
#pragma unroll
        for (int i = 0; i < kKeys / 2; i++)
            if (i / 4 * 8 + 2 * (lane % 4) + i % 2 == hole + i / 2 % 2 * 8)
                w[i] = -INFINITY;
    }
#pragma unroll
    for (int i = 0; i < kKeys / 2; i++)
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
    for (int i = 0; i < kKeys / 2; i++) {
        w[i] = exp2f(fmaf(w[i], scale, -from[i / 2 % 2]));
        s.mass[i / 2 % 2] += w[i];
    }
}

template <int HD> __device__ void add_values(state<HD> &s, const uint32_t (&w)[kKeys / 4],
                                             const char *v)
{
    fence_registers(s.sum);
    multiply_begin();
#pragma unroll
    for (int k = 0; k < kKeys / 16; k++) {
        uint32_t a[4] = {w[4 * k], w[4 * k + 1], w[4 * k + 2], w[4 * k + 3]};
        wgmma_from_registers<HD>::run(s.sum, a, describe_rows(v + k * 16 * 128));
    }
    multiply_commit();
    multiply_wait<0>();
    fence_registers(s.sum);
}

template <int HD>
__device__ void store(const state<HD> &s, const work &w, bf16 *out, int64_t ldo, int64_t row0)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int64_t row = row0 + lane / 4 + 8 * h;
        float inv = s.mass[h] > 0 ? 1.0f / s.mass[h] : 0.0f;
        bf16 *y = out + (w.s->query_row + row) * ldo + w.head * HD + 8 * (lane % 4);
#pragma unroll
        for (int g = 0; g < HD / 8; g += 4) {
            uint32_t p[4];
#pragma unroll
            for (int j = 0; j < 4; j++)
                p[j] = pack2(s.sum[4 * (g + j) + 2 * h] * inv,
                             s.sum[4 * (g + j) + 2 * h + 1] * inv);
            transpose_quad(p);
            if (row < w.s->query_rows)
                *reinterpret_cast<uint4 *>(y + 8 * g) = make_uint4(p[0], p[1], p[2], p[3]);
        }
    }
}

/* Turns of the two warpgroups, by named barriers: one waits for its own, and opens the other's. */
__device__ void wait_turn(int group)
{
    asm volatile("bar.sync %0, 256;" ::"r"(1 + group) : "memory");
}
__device__ void pass_turn(int group)
{
    asm volatile("bar.arrive %0, 256;" ::"r"(2 - group) : "memory");
}

template <int HD>
__device__ void multiply(const call *c, const heads &n, tiles<HD> t, bf16 *out, int64_t ldo)
{
    int group = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    int turn = 0, parity = 0, q_parity = 0;
    bool speaks = threadIdx.x % 128 == 0;
    if (group == 1)
        pass_turn(1); /* the first turn is the other's */
    for (int64_t item = blockIdx.x; item < c->items; item += gridDim.x, q_parity ^= 1) {
        work w = work_of(c, item, blockIdx.y);
        int64_t row0 = w.row0 + group * 64 + warp * 16, see[2];
        for (int h = 0; h < 2; h++) {
            int64_t r = row0 + lane / 4 + 8 * h, last = w.s->query_rows - 1;
            see[h] = visible(*w.s, r < last ? r : last);
        }
        state<HD> s;
#pragma unroll
        for (int i = 0; i < HD / 2; i++)
            s.sum[i] = 0;
        s.max[0] = s.max[1] = -INFINITY;
        s.mass[0] = s.mass[1] = 0;
        barrier_wait(t.q_full, q_parity);
        for (int64_t at = 0; at < w.keys; at += kKeys) {
            float weight[kKeys / 2];
            barrier_wait(&t.k_full[turn], parity);
            wait_turn(group);
            score<HD>(weight, t.q + group * 64 * 128, t.k + turn * tile_bytes<HD>());
            pass_turn(group);
            if (speaks)
                barrier_arrive(&t.k_empty[turn]);
            int limit[2], hole = hole_in(*w.s, row0 + lane / 4, at, kKeys);
            for (int h = 0; h < 2; h++)
                limit[h] = (int)(see[h] - at < kKeys ? see[h] - at : kKeys);
            soften<HD>(s, weight, limit, hole, n.scale * kLog2e);
            uint32_t packed[kKeys / 4];
#pragma unroll
            for (int i = 0; i < kKeys / 4; i++)
                packed[i] = pack2(weight[2 * i], weight[2 * i + 1]);
            barrier_wait(&t.v_full[turn], parity);
            add_values<HD>(s, packed, t.v + turn * tile_bytes<HD>());
            if (speaks)
                barrier_arrive(&t.v_empty[turn]);
            if (++turn == kRing) {
                turn = 0;
                parity ^= 1;
            }
        }
        if (speaks)
            barrier_arrive(t.q_empty);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            s.mass[h] += __shfl_xor_sync(~0u, s.mass[h], 1);
            s.mass[h] += __shfl_xor_sync(~0u, s.mass[h], 2);
        }
        store<HD>(s, w, out, ldo, row0);
    }
}

template <int HD>
__global__ void __launch_bounds__(kThreads, 1) attend_long(bf16 *out, int64_t ldo, const bf16 *q,
                                                           int64_t ldq, const call *c, heads n)
{
#if __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ char raw[];
    tiles<HD> t(raw);
    if (threadIdx.x == 0) {
        barrier_init(t.q_full, 128);
        barrier_init(t.q_empty, 2);
        for (int i = 0; i < kRing; i++) {
            barrier_init(&t.k_full[i], 128);
            barrier_init(&t.k_empty[i], 2);
            barrier_init(&t.v_full[i], 128);
            barrier_init(&t.v_empty[i], 2);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    begin();
    if (threadIdx.x < 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 72;");
        feed<HD>(c, n, t, q, ldq);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 216;");
        multiply<HD>(c, n, t, out, ldo);
    }
#endif
}

template <int HD>
tt_status run(const cuda *c, bf16 *out, int64_t ldo, const bf16 *q, int64_t ldq, const call *spans,
              const heads &n, unsigned grid, tt_err *e)
{
    static uint64_t allowed;
    tt_status st = allow_shared(c, &allowed, attend_long<HD>, shared_bytes<HD>(), "attention", e);
    if (st)
        return st;
    return launch(c, "attention", attend_long<HD>, dim3(grid, (unsigned)n.heads), kThreads,
                  shared_bytes<HD>(), e, out, ldo, q, ldq, spans, n);
}

} // namespace

tt_status cuda_attend_long(const cuda *c, bf16 *out, int64_t ldo, const bf16 *q, int64_t ldq,
                           const call *spans, const heads &n, unsigned grid, tt_err *e)
{
    return n.dim == 64 ? run<64>(c, out, ldo, q, ldq, spans, n, grid, e)
                       : run<128>(c, out, ldo, q, ldq, spans, n, grid, e);
}
