/* attention_hopper_biased.cu - attention of spans whose bias follows from order alone, on Hopper.
 *
 * A block takes 128 query rows of one head after the other: two warpgroups of 64 rows multiply, a
 * third brings the rows and then tiles of 112 keys and values through a ring of two, as
 * attention_hopper.cu does it. 112 because COMiT's 549 and 769 keys fill whole tiles nearly. The
 * bias is computed, and only in tiles that hold keys from `from` on: a table would be read once a
 * head and row, as many bytes as all of the scores. One block a multiprocessor goes through the
 * tiles of all heads of a span before those of the next, so that keys and values stay in L2. A
 * row's order of sums depends on its keys alone. */
#include "kernels/cuda/attention_biased.cuh"
#include "kernels/cuda/attention_hopper_ring.cuh"

namespace {

constexpr int kKeys = 112;

/* A place in the ring, and which round of it. */
struct place {
    int turn, parity;
    __device__ void next()
    {
        if (++turn == kRing) {
            turn = 0;
            parity ^= 1;
        }
    }
};

/* What a block does for one item: a tile of a head. */
struct work {
    const tt_biased_span *s;
    int64_t row0; /* first query row of the tile */
    int head;
};

/* Items of a span are numbered head by head, and follow those of the spans before it. */
__device__ work work_of(const biased_tasks *list, int64_t item, int heads)
{
    const biased_task *t = task_of(list, item / heads);
    int64_t tiles = (t->span.query_rows + kLongRows - 1) / kLongRows;
    int64_t own = item - t->first * heads;
    return {&t->span, own % tiles * kLongRows, (int)(own / tiles)};
}

template <int HD>
__device__ void feed(const biased_tasks *list, int heads, tiles<HD, kKeys> t, const bf16 *q,
                     int64_t ldq)
{
    place at = {0, 0};
    int q_parity = 0;
    int64_t items = list->tiles * heads;
    for (int64_t item = blockIdx.x; item < items; item += gridDim.x, q_parity ^= 1) {
        work w = work_of(list, item, heads);
        const tt_biased_span &s = *w.s;
        const bf16 *k = (const bf16 *)s.k + w.head * HD, *v = (const bf16 *)s.v + w.head * HD;
        uint64_t *before[2] = {t.q_full, nullptr}; /* tiles still on their way, oldest first */
        barrier_wait(t.q_empty, q_parity ^ 1);
        load<HD, kLongRows>(t.q, q + s.query_row * ldq + w.head * HD, ldq, w.row0, s.query_rows);
        for (int64_t key = 0; key < s.keys; key += kKeys, at.next())
            for (int values = 0; values < 2; values++) {
                uint64_t *empty = (values ? t.v_empty : t.k_empty) + at.turn;
                char *tile = (values ? t.v : t.k) + at.turn * tile_bytes<HD>(kKeys);
                barrier_wait(empty, at.parity ^ 1);
                load<HD, kKeys>(tile, values ? v : k, s.ld_kv, key, s.keys);
                if (before[1]) {
                    asm volatile("cp.async.wait_group 2;" ::: "memory");
                    announce(before[0]);
                    before[0] = before[1];
                }
                before[1] = (values ? t.v_full : t.k_full) + at.turn;
            }
        asm volatile("cp.async.wait_group 0;" ::: "memory");
        announce(before[0]);
        announce(before[1]);
    }
}

/* --- the multiplying warpgroups --- */

/* The part of a warpgroup that has no rows in a tile: it keeps the turns going. */
template <int HD> __device__ void stand_by(tiles<HD, kKeys> t, place &at, int64_t keys, int group)
{
    bool speaks = threadIdx.x % 128 == 0;
    for (int64_t key = 0; key < keys; key += kKeys, at.next()) {
        barrier_wait(&t.k_full[at.turn], at.parity);
        wait_turn(group);
        pass_turn(group);
        if (speaks)
            barrier_arrive(&t.k_empty[at.turn]);
        barrier_wait(&t.v_full[at.turn], at.parity);
        if (speaks)
            barrier_arrive(&t.v_empty[at.turn]);
    }
}

/* Adds `later` to the scores of keys from first[h] of the tile on. */
__device__ void add_later(float (&w)[kKeys / 2], const int (&first)[2], float later)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < kKeys / 2; i++)
        w[i] += i / 4 * 8 + 2 * (lane % 4) + i % 2 >= first[i / 2 % 2] ? later : 0.0f;
}

/* The 64 rows of a warpgroup. row: the thread's upper one; later: in units of a score before it is
 * scaled. */
template <int HD>
__device__ void attend(state<HD> &st, const tiles<HD, kKeys> &t, const tt_biased_span &s, place &at,
                       int64_t row, int group, float scale, float later)
{
    bool speaks = threadIdx.x % 128 == 0;
    for (int64_t key = 0; key < s.keys; key += kKeys, at.next()) {
        float weight[kKeys / 2];
        barrier_wait(&t.k_full[at.turn], at.parity);
        wait_turn(group);
        score<HD, kKeys, kLongRows>(weight, t.q + group * 64 * 128,
                                    t.k + at.turn * tile_bytes<HD>(kKeys));
        pass_turn(group);
        if (speaks)
            barrier_arrive(&t.k_empty[at.turn]);
        int left = (int)(s.keys - key < kKeys ? s.keys - key : kKeys), limit[2] = {left, left};
        if (key + kKeys > s.from) {
            int first[2];
            for (int h = 0; h < 2; h++) {
                int64_t from = row + 8 * h + 1 > s.from ? row + 8 * h + 1 : s.from;
                first[h] = (int)(from < key ? 0 : from - key < kKeys ? from - key : kKeys);
            }
            add_later(weight, first, later);
        }
        soften<HD, kKeys>(st, weight, limit, kFarHole, scale * kLog2e);
        uint32_t packed[kKeys / 4];
#pragma unroll
        for (int i = 0; i < kKeys / 4; i++)
            packed[i] = pack2(weight[2 * i], weight[2 * i + 1]);
        barrier_wait(&t.v_full[at.turn], at.parity);
        add_values<HD, kKeys>(st, packed, t.v + at.turn * tile_bytes<HD>(kKeys));
        if (speaks)
            barrier_arrive(&t.v_empty[at.turn]);
    }
}

template <int HD>
__device__ void multiply(const biased_tasks *list, int heads, tiles<HD, kKeys> t, bf16 *out,
                         int64_t ldo, float scale)
{
    int group = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    int q_parity = 0;
    bool speaks = threadIdx.x % 128 == 0;
    place at = {0, 0};
    int64_t items = list->tiles * heads;
    if (group == 1)
        pass_turn(1); /* the first turn is the other's */
    for (int64_t item = blockIdx.x; item < items; item += gridDim.x, q_parity ^= 1) {
        work w = work_of(list, item, heads);
        const tt_biased_span &s = *w.s;
        int64_t row0 = w.row0 + group * 64 + warp * 16;
        state<HD> st;
        clear(st);
        barrier_wait(t.q_full, q_parity);
        if (w.row0 + group * 64 < s.query_rows)
            attend<HD>(st, t, s, at, row0 + lane / 4, group, scale, s.later / scale);
        else
            stand_by<HD>(t, at, s.keys, group);
        if (speaks)
            barrier_arrive(t.q_empty);
        sum_mass(st);
        store_rows<HD>(st, out + s.query_row * ldo + w.head * HD, ldo, row0, s.query_rows);
    }
}

template <int HD>
__global__ void __launch_bounds__(kThreads, 1)
    attend_ordered(bf16 *out, int64_t ldo, const bf16 *q, int64_t ldq, const biased_tasks *list,
                   int heads, float scale)
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
        feed<HD>(list, heads, t, q, ldq);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 216;");
        multiply<HD>(list, heads, t, out, ldo, scale);
    }
#endif
}

template <int HD>
tt_status run(const cuda *c, bf16 *out, int64_t ldo, const bf16 *q, int64_t ldq,
              const biased_tasks *list, int heads, float scale, tt_err *e)
{
    static uint64_t allowed;
    tt_status st = allow_shared(c, &allowed, attend_ordered<HD>, kWholeShared, "attention_biased",
                                e);
    return st ? st
              : launch(c, "attention_biased", attend_ordered<HD>, (unsigned)c->sms, kThreads,
                       kWholeShared, e, out, ldo, q, ldq, list, heads, scale);
}

} // namespace

tt_status cuda_attend_ordered(const cuda *c, bf16 *out, int64_t ldo, const bf16 *q, int64_t ldq,
                              const biased_tasks *list, int heads, int dim, float scale, tt_err *e)
{
    return dim == 64 ? run<64>(c, out, ldo, q, ldq, list, heads, scale, e)
                     : run<128>(c, out, ldo, q, ldq, list, heads, scale, e);
}
