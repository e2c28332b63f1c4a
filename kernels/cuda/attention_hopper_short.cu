/* attention_hopper_short.cu - attention of spans of at most 64 query rows on Hopper, where reading
 * keys and values is what takes the time.
 *
 * The keys of a span are cut into chunks, by its own sizes alone; a chunk of one head is a unit.
 * All units, span after span, head after head, are shared out evenly: a worker takes a run of them,
 * and a block is two workers, so that one computes while the other waits. A worker is a warpgroup
 * that multiplies (see attention_hopper.cuh) and two warps that bring tiles of 64 keys or values
 * into a ring, on into the next span while the results of this one are written.
 *
 * The softmax of each chunk stands alone; chunks are folded together in their order. So it makes no
 * difference to the bits of a row where runs begin: a worker that has a head's first chunks folds
 * them at once, other chunks go to memory, and who finishes last folds those in. */
#include "kernels/cuda/attention_hopper.cuh"

namespace {

using namespace hopper;

constexpr int kRows = 64, kKeys = 64, kThreads = 384, kRing = 6, kLoaders = 64;

/* Shared memory of one worker: query rows, later the factors of folding; then the ring. */
template <int HD> __host__ __device__ constexpr int worker_bytes()
{
    return kFoldBytes + kRing * tile_bytes<HD>(kKeys);
}
static_assert(1024 + 2 * worker_bytes<128>() + 512 <= kWholeShared, "too large");

template <int HD> struct worker {
    char *q, *tile;
    uint64_t *full, *empty, *q_full, *q_empty;
    uint32_t *note; /* from one thread to the others */
    int slot, parity;

    __device__ worker(char *raw, int which) : slot(0), parity(0)
    {
        static_assert(tile_bytes<HD>(kRows) <= kFoldBytes, "query rows do not fit");
        char *base = (char *)(((uintptr_t)raw + 1023) & ~(uintptr_t)1023);
        q = base + which * worker_bytes<HD>();
        tile = q + kFoldBytes;
        full = (uint64_t *)(base + 2 * worker_bytes<HD>()) + which * (2 * kRing + 4);
        empty = full + kRing;
        q_full = empty + kRing;
        q_empty = q_full + 1;
        note = (uint32_t *)(q_full + 2);
    }
    __device__ char *here() { return tile + slot * tile_bytes<HD>(kKeys); }
    __device__ void next()
    {
        if (++slot == kRing) {
            slot = 0;
            parity ^= 1;
        }
    }
};

/* Consecutive chunks of one span and head. */
struct segment {
    const span *s;
    int head, first, end, run; /* chunks [first, end); run: units of a worker */
    int keys;                  /* that any row sees */

    __device__ int first_key(int chunk) const { return chunk * (int)s->chunk; }
    __device__ int end_key(int chunk) const
    {
        return s->chunks > 1 && first_key(chunk + 1) < keys ? first_key(chunk + 1) : keys;
    }
};

__device__ segment segment_of(const call *c, int heads, int unit, int end, int run)
{
    segment g;
    g.s = span_of(c, unit / heads);
    int chunks = g.s->chunks, rel = unit - (int)g.s->item * heads;
    g.head = rel / chunks;
    g.first = rel % chunks;
    g.end = end - unit < chunks - g.first ? g.first + end - unit : chunks;
    g.run = run;
    g.keys = (int)visible(*g.s, g.s->query_rows - 1);
    return g;
}

/* --- the loading warps --- */

/* Counts as an arrival at the barrier once the thread's copies so far are done. */
__device__ void arrive_after_copies(uint64_t *b)
{
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(address(b))
                 : "memory");
}

template <int HD>
__device__ void feed(const call *c, const heads &n, worker<HD> w, const bf16 *q, int64_t ldq,
                     int unit, int end, int run, int thread)
{
    int q_parity = 0;
    bool waited = false;
    while (unit < end) {
        segment g = segment_of(c, n.heads, unit, end, run);
        const span &s = *g.s;
        int64_t kv = g.head / (n.heads / n.kv_heads) * (int64_t)HD;
        const bf16 *k = (const bf16 *)s.k + kv, *v = (const bf16 *)s.v + kv;
        int key = g.first_key(g.first), last = g.end_key(g.end - 1);
        if (!waited)
            wait_for_previous();
        waited = true;
        barrier_wait(w.q_empty, q_parity ^ 1);
        load_rows<HD, kRows, kLoaders>(w.q, q + s.query_row * ldq + g.head * HD, ldq, 0,
                                       s.query_rows, thread);
        arrive_after_copies(w.q_full);
        for (; key < last; key += kKeys)
            for (int values = 0; values < 2; values++, w.next()) {
                barrier_wait(&w.empty[w.slot], w.parity ^ 1);
                load_rows<HD, kKeys, kLoaders>(w.here(), values ? v : k, s.ld_kv, key, last,
                                               thread);
                arrive_after_copies(&w.full[w.slot]);
            }
        q_parity ^= 1;
        unit += g.end - g.first;
    }
    asm volatile("cp.async.wait_all;" ::: "memory");
}

/* --- the multiplying warpgroup --- */

__device__ float fold_in(float old, float keep, float more, float by)
{
    old = __fmul_rn(old, keep);
    return by == 0 ? old : __fmaf_rn(more, by, old);
}

/* Factors of what there is and of what comes; the maximum becomes that of both. */
__device__ float2 fold_factors(float &max, float more)
{
    float most = fmaxf(max, more);
    float2 by = {max == -INFINITY ? 0.0f : exp2f(max - most),
                 more == -INFINITY ? 0.0f : exp2f(more - most)};
    max = most;
    return by;
}

template <int HD> __device__ void fold(state<HD> &all, const state<HD> &s)
{
    float2 by[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        by[h] = fold_factors(all.max[h], s.max[h]);
        all.mass[h] = fold_in(all.mass[h], by[h].x, s.mass[h], by[h].y);
    }
#pragma unroll
    for (int i = 0; i < HD / 2; i++)
        all.sum[i] = fold_in(all.sum[i], by[i / 2 % 2].x, s.sum[i], by[i / 2 % 2].y);
}

/* Waits until the tile is there, for products to read. */
template <int HD> __device__ void wait_tile(const worker<HD> &w)
{
    barrier_wait(&w.full[w.slot], w.parity);
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
template <int HD> __device__ void free_tile(worker<HD> &w)
{
    if (threadIdx.x % 128 == 0)
        barrier_arrive(&w.empty[w.slot]);
    w.next();
}

/* One chunk of a segment; row0: the warp's first row. */
template <int HD>
__device__ void attend_chunk(state<HD> &s, worker<HD> &w, const segment &g, int chunk, int row0,
                             float scale)
{
    int lane = threadIdx.x % 32;
    bool any_row = row0 < g.s->query_rows;
    int end = g.end_key(chunk), see[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int r = row0 + lane / 4 + 8 * h, last = (int)g.s->query_rows - 1;
        see[h] = (int)visible(*g.s, r < last ? r : last);
        see[h] = see[h] < end ? see[h] : end;
    }
    clear(s);
    for (int at = g.first_key(chunk); at < end; at += kKeys) {
        float weight[kKeys / 2];
        uint32_t packed[kKeys / 4];
        wait_tile(w);
        score<HD, kKeys, kRows>(weight, w.q, w.here());
        free_tile(w);
        int limit[2], hole = hole_in(*g.s, row0 + lane / 4, at, kKeys);
#pragma unroll
        for (int h = 0; h < 2; h++)
            limit[h] = see[h] - at < kKeys ? see[h] - at : kKeys;
        if (any_row)
            soften<HD, kKeys>(s, weight, limit, hole, scale);
#pragma unroll
        for (int i = 0; i < kKeys / 4; i++)
            packed[i] = any_row ? pack2(weight[2 * i], weight[2 * i + 1]) : 0;
        wait_tile(w);
        add_values<HD, kKeys>(s, packed, w.here());
        free_tile(w);
    }
    sum_mass(s);
}

/* A part: of one chunk, or of a head's first chunks. */
template <int HD>
__device__ void store_part(const call *c, const segment &g, const state<HD> &st, int chunk,
                           int row0)
{
    int lane = threadIdx.x % 32;
    int64_t part = (int64_t)g.head * c->parts + g.s->part + chunk;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int row = row0 + lane / 4 + 8 * h;
        if (row >= g.s->query_rows)
            continue;
        if (lane % 4 == 0)
            __stcg(&c->part_max[part * kRows + row], make_float2(st.max[h], st.mass[h]));
        float *to = c->part_sum + (part * kRows + row) * HD + 2 * (lane % 4);
#pragma unroll
        for (int d = 0; d < HD / 8; d++)
            __stcg((float2 *)(to + 8 * d),
                   make_float2(st.sum[4 * d + 2 * h], st.sum[4 * d + 2 * h + 1]));
    }
}

__device__ void worker_sync(int which)
{
    asm volatile("bar.sync %0, 128;" ::"r"(1 + which) : "memory");
}

/* The factors of folding each part after the first, by part and row, and in the place of the first
 * part what a row's sums are multiplied with in the end. */
__device__ void find_factors(const call *c, int64_t part, int rows, int second, int chunks,
                             float2 *factor, int which)
{
    int thread = threadIdx.x % 128;
    for (int t = thread; t < (chunks - second + 1) * kRows; t += 128) {
        int chunk = t / kRows ? second + t / kRows - 1 : 0, row = t % kRows;
        if (row < rows)
            factor[chunk * kRows + row] = __ldcg(&c->part_max[(part + chunk) * kRows + row]);
    }
    worker_sync(which);
    if (thread < rows) {
        float2 all = factor[thread];
        for (int i = second; i < chunks; i++) {
            float2 more = factor[i * kRows + thread], by = fold_factors(all.x, more.x);
            all.y = fold_in(all.y, by.x, more.y, by.y);
            factor[i * kRows + thread] = by;
        }
        factor[thread].x = all.y > 0 ? 1.0f / all.y : 0.0f;
    }
    worker_sync(which);
}

/* Folds all parts of a head in their order, as fold() does, and stores the rows. The first part
 * holds as many chunks as its worker had. */
template <int HD>
__device__ void fold_parts(const call *c, const heads &n, const segment &g, float2 *factor,
                           bf16 *out, int64_t ldo, int which)
{
    const span &s = *g.s;
    int thread = threadIdx.x % 128, rows = (int)s.query_rows, chunks = s.chunks;
    int begin = ((int)s.item * n.heads) + g.head * chunks;
    int second = (begin / g.run + 1) * g.run - begin; /* the chunk after the first part */
    int64_t part = (int64_t)g.head * c->parts + s.part;
    constexpr int AT_ONCE = 4, PARTS = 6, FOURS = HD / 4; /* places and parts under way */
    find_factors(c, part, rows, second, chunks, factor, which);
    for (int base = thread; base < rows * FOURS; base += AT_ONCE * 128) {
        const float4 *from = (const float4 *)&c->part_sum[part * kRows * HD] + base;
        float4 sum[AT_ONCE];
#pragma unroll
        for (int u = 0; u < AT_ONCE; u++)
            sum[u] = base + u * 128 < rows * FOURS ? __ldcg(&from[u * 128]) : float4{};
        for (int i0 = second; i0 < chunks; i0 += PARTS) {
            float4 more[PARTS][AT_ONCE];
#pragma unroll
            for (int i = 0; i < PARTS; i++)
#pragma unroll
                for (int u = 0; u < AT_ONCE; u++)
                    more[i][u] = i0 + i < chunks && base + u * 128 < rows * FOURS
                                     ? __ldcg(&from[(i0 + i) * kRows * FOURS + u * 128])
                                     : float4{};
#pragma unroll
            for (int i = 0; i < PARTS; i++) {
                if (i0 + i >= chunks)
                    break;
#pragma unroll
                for (int u = 0; u < AT_ONCE; u++) {
                    int row = (base + u * 128) / FOURS % kRows;
                    float2 by = factor[(i0 + i) * kRows + row];
                    sum[u].x = fold_in(sum[u].x, by.x, more[i][u].x, by.y);
                    sum[u].y = fold_in(sum[u].y, by.x, more[i][u].y, by.y);
                    sum[u].z = fold_in(sum[u].z, by.x, more[i][u].z, by.y);
                    sum[u].w = fold_in(sum[u].w, by.x, more[i][u].w, by.y);
                }
            }
        }
#pragma unroll
        for (int u = 0; u < AT_ONCE; u++) {
            int t = base + u * 128, row = t / FOURS;
            if (t >= rows * FOURS)
                break;
            float inv = factor[row].x;
            bf16 *y = out + (s.query_row + row) * ldo + g.head * HD + t % FOURS * 4;
            *reinterpret_cast<uint2 *>(y) =
                make_uint2(pack2(sum[u].x * inv, sum[u].y * inv),
                           pack2(sum[u].z * inv, sum[u].w * inv));
        }
    }
    worker_sync(which);
}

/* Whether the segment's chunks are the last of its head to be done. */
__device__ bool came_last(const call *c, const segment &g, uint32_t *note, int which)
{
    __threadfence();
    worker_sync(which);
    if (threadIdx.x % 128 == 0) {
        uint32_t *counter = &c->counter[(int64_t)g.head * c->counters + g.s->counter];
        uint32_t mine = (uint32_t)(g.end - g.first);
        *note = atomicAdd(counter, mine) + mine == (uint32_t)g.s->chunks;
        if (*note)
            *counter = 0;
    }
    worker_sync(which);
    bool last = *note;
    __threadfence();
    return last;
}

template <int HD>
__device__ void multiply(const call *c, const heads &n, worker<HD> w, bf16 *out, int64_t ldo,
                         int unit, int end, int run, int which)
{
    int row0 = threadIdx.x / 32 % 4 * 16, q_parity = 0;
    while (unit < end) {
        segment g = segment_of(c, n.heads, unit, end, run);
        state<HD> all, s;
        barrier_wait(w.q_full, q_parity);
        clear(all);
        for (int i = g.first; i < g.end; i++) {
            attend_chunk(s, w, g, i, row0, n.scale * kLog2e);
            if (g.first == 0)
                fold(all, s);
            else
                store_part(c, g, s, i, row0);
        }
        if (g.end - g.first == g.s->chunks) {
            store_rows<HD>(all, out + g.s->query_row * ldo + g.head * HD, ldo, row0,
                           g.s->query_rows);
        } else {
            if (g.first == 0)
                store_part(c, g, all, 0, row0);
            if (came_last(c, g, w.note, which))
                fold_parts<HD>(c, n, g, (float2 *)w.q, out, ldo, which);
        }
        if (threadIdx.x % 128 == 0)
            barrier_arrive(w.q_empty);
        q_parity ^= 1;
        unit += g.end - g.first;
    }
}

template <int HD>
__global__ void __launch_bounds__(kThreads, 1) attend_short(bf16 *out, int64_t ldo, const bf16 *q,
                                                            int64_t ldq, const call *c, heads n)
{
#if __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ char raw[];
    if (threadIdx.x < 2) {
        worker<HD> w(raw, threadIdx.x);
        for (int i = 0; i < kRing; i++) {
            barrier_init(&w.full[i], kLoaders);
            barrier_init(&w.empty[i], 1);
        }
        barrier_init(w.q_full, kLoaders);
        barrier_init(w.q_empty, 1);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    let_next_start();
    /* The first workers of all blocks come before the second ones. Spans are arguments of the pass,
     * written before any of its kernels ran. */
    bool loads = threadIdx.x < 128;
    int which = loads ? threadIdx.x / kLoaders : threadIdx.x / 128 - 1, workers = 2 * gridDim.x;
    int units = (int)c->items * n.heads, run = (units + workers - 1) / workers;
    int unit = (which * (int)gridDim.x + (int)blockIdx.x) * run;
    int end = unit + run < units ? unit + run : units;
    worker<HD> w(raw, which);
    if (loads) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 56;");
        feed<HD>(c, n, w, q, ldq, unit, end, run, threadIdx.x % kLoaders);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 224;");
        wait_for_previous();
        multiply<HD>(c, n, w, out, ldo, unit, end, run, which);
    }
#endif
}

template <int HD>
tt_status run(const cuda *c, bf16 *out, int64_t ldo, const bf16 *q, int64_t ldq, const call *spans,
              const heads &n, tt_err *e)
{
    static uint64_t allowed;
    tt_status st = allow_shared(c, &allowed, attend_short<HD>, kWholeShared, "attention", e);
    return st ? st
              : launch(c, "attention", attend_short<HD>, (unsigned)c->sms, kThreads,
                       kWholeShared, e, out, ldo, q, ldq, spans, n);
}

} // namespace

tt_status cuda_attend_short(const cuda *c, bf16 *out, int64_t ldo, const bf16 *q, int64_t ldq,
                            const call *spans, const heads &n, tt_err *e)
{
    return n.dim == 64 ? run<64>(c, out, ldo, q, ldq, spans, n, e)
                       : run<128>(c, out, ldo, q, ldq, spans, n, e);
}
