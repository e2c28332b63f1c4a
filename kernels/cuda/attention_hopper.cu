/* attention_hopper.cu - attention of spans with many query rows on Hopper.
 *
 * A block takes 128 query rows of one head: two warpgroups of 64 rows multiply, a third brings the
 * rows and then tiles of 128 keys and values through a ring of two. Scores stay in registers, and
 * so do the weights on their way into the second product (FlashAttention-3, arXiv 2407.08608,
 * without its pipelining inside a warpgroup). The two multiplying warpgroups take turns with their
 * scores, so that one multiplies while the other takes exponentials. */
#include "kernels/cuda/attention_hopper_ring.cuh"

namespace {

constexpr int kKeys = 128;

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

template <int HD>
__device__ void feed(const call *c, const heads &n, tiles<HD, kKeys> t, const bf16 *q, int64_t ldq)
{
    int turn = 0, parity = 0, q_parity = 0;
    for (int64_t item = blockIdx.x; item < c->items; item += gridDim.x, q_parity ^= 1) {
        work w = work_of(c, item, blockIdx.y);
        const span &s = *w.s;
        int64_t kv = w.head / (n.heads / n.kv_heads) * (int64_t)HD;
        const bf16 *k = (const bf16 *)s.k + kv, *v = (const bf16 *)s.v + kv;
        uint64_t *before[2] = {t.q_full, nullptr}; /* tiles still on their way, oldest first */
        barrier_wait(t.q_empty, q_parity ^ 1);
        load<HD, kLongRows>(t.q, q + s.query_row * ldq + w.head * HD, ldq, w.row0, s.query_rows);
        for (int64_t at = 0; at < w.keys; at += kKeys) {
            for (int values = 0; values < 2; values++) {
                uint64_t *empty = (values ? t.v_empty : t.k_empty) + turn;
                char *tile = (values ? t.v : t.k) + turn * tile_bytes<HD>(kKeys);
                barrier_wait(empty, parity ^ 1);
                load<HD, kKeys>(tile, values ? v : k, s.ld_kv, at, w.keys);
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

template <int HD>
__device__ void multiply(const call *c, const heads &n, tiles<HD, kKeys> t, bf16 *out, int64_t ldo)
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
        clear(s);
        barrier_wait(t.q_full, q_parity);
        for (int64_t at = 0; at < w.keys; at += kKeys) {
            float weight[kKeys / 2];
            barrier_wait(&t.k_full[turn], parity);
            wait_turn(group);
            score<HD, kKeys, kLongRows>(weight, t.q + group * 64 * 128,
                                        t.k + turn * tile_bytes<HD>(kKeys));
            pass_turn(group);
            if (speaks)
                barrier_arrive(&t.k_empty[turn]);
            int limit[2], hole = hole_in(*w.s, row0 + lane / 4, at, kKeys);
            for (int h = 0; h < 2; h++)
                limit[h] = (int)(see[h] - at < kKeys ? see[h] - at : kKeys);
            soften<HD, kKeys>(s, weight, limit, hole, n.scale * kLog2e);
            uint32_t packed[kKeys / 4];
#pragma unroll
            for (int i = 0; i < kKeys / 4; i++)
                packed[i] = pack2(weight[2 * i], weight[2 * i + 1]);
            barrier_wait(&t.v_full[turn], parity);
            add_values<HD, kKeys>(s, packed, t.v + turn * tile_bytes<HD>(kKeys));
            if (speaks)
                barrier_arrive(&t.v_empty[turn]);
            if (++turn == kRing) {
                turn = 0;
                parity ^= 1;
            }
        }
        if (speaks)
            barrier_arrive(t.q_empty);
        sum_mass(s);
        store_rows<HD>(s, out + w.s->query_row * ldo + w.head * HD, ldo, row0, w.s->query_rows);
    }
}

template <int HD>
__global__ void __launch_bounds__(kThreads, 1) attend_long(bf16 *out, int64_t ldo, const bf16 *q,
                                                           int64_t ldq, const call *c, heads n)
{
#if __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ char raw[];
    tiles<HD, kKeys> t(raw);
    if (threadIdx.x == 0)
        t.init();
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
    tt_status st = allow_shared(c, &allowed, attend_long<HD>, kWholeShared, "attention", e);
    if (st)
        return st;
    return launch(c, "attention", attend_long<HD>, dim3(grid, (unsigned)n.heads), kThreads,
                  kWholeShared, e, out, ldo, q, ldq, spans, n);
}

} // namespace

tt_status cuda_attend_long(const cuda *c, bf16 *out, int64_t ldo, const bf16 *q, int64_t ldq,
                           const call *spans, const heads &n, unsigned grid, tt_err *e)
{
    return n.dim == 64 ? run<64>(c, out, ldo, q, ldq, spans, n, grid, e)
                       : run<128>(c, out, ldo, q, ldq, spans, n, grid, e);
}
