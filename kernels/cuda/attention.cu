/* attention.cu - softmax(q k^T) v over ragged spans.
 *
 * bfloat16 heads whose size is a multiple of 8 use the tensor cores: a block takes 64 query rows of
 * one head and goes over the keys in tiles of 64 with running maximum and sum (FlashAttention-2,
 * arXiv 2307.08691). A span of few query rows would leave most of the GPU idle, so its keys are cut
 * into chunks of kChunk; the block that finishes last merges the chunks' parts in their order by
 * their log-sum-exp. Where the rows would fill only half of a block's warps, the warps share out
 * the keys too. How a span is cut follows from its own sizes alone. Hopper has kernels of its own
 * for heads of 64 and 128 channels (attention_hopper.cu, attention_hopper_short.cu) and of more
 * than 256 (attention_hopper_wide.cu). Float32 takes tiles too, of fused multiply-adds
 * (attention_f32.cuh) or, where thirds are asked for, by tensor cores (attention_thirds.cu).
 * Everything else takes the plain kernel: four warps a query row and head. */
#include "kernels/cuda/attention_f32.cuh"
#include "kernels/cuda/attention_mma.cuh"

namespace {

constexpr int kChunk = 192;                   /* keys of a part at least */
constexpr int kSplitRows = 64;                /* query rows up to which a span is cut */
constexpr int kTiledRows = 16;                /* of float32, query rows from which tiles are used */

/* --- tensor cores --- */

/* Running state of a thread's two rows (lane / 4 and 8 below). */
/* KEYS of a tile's keys, from `first`. limit: keys from the tile's first that each row may see;
 * hole: as hole_in has it. */
template <int HD, int KEYS>
__device__ void attend_tile(state<HD> &s, const uint32_t (&q)[HD / 16][4], const bf16 *k,
                            const bf16 *v, int first, const int (&limit)[2], int hole, float scale)
{
    int lane = threadIdx.x % 32;
    float w[KEYS / 8][4];
    score_keys<HD>(w, q, k, first);
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int col = first + 8 * n + 2 * (lane % 4) + i % 2, h = i / 2;
            w[n][i] = col < limit[h] ? w[n][i] * scale : -INFINITY;
        }
    if (hole != kFarHole) {
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (first + 8 * n + 2 * (lane % 4) + i % 2 == hole + i / 2 * 8)
                    w[n][i] = -INFINITY;
    }
    add_values<HD>(s, w, v, first);
}

/* The last block of a (tile, head) merges the parts of its chunks, in their order. share: room for
 * each chunk's share of each row, in shared memory. Four places a thread at a time, so that many
 * loads are under way. */
template <int HD>
__device__ void merge_chunks(const call *c, const span &s, const heads &n, int head, int tile,
                             bf16 *out, int64_t ldo, float *share)
{
    int64_t first = (int64_t)head * c->parts + s.part + (int64_t)tile * s.chunks;
    int rows = (int)(s.query_rows - (int64_t)tile * kRows), fours = n.dim / 4;
    rows = rows < kRows ? rows : kRows;
    for (int row = threadIdx.x; row < rows; row += kThreads) {
        const float2 *m = c->part_max + first * kRows + row;
        float max = -INFINITY, mass = 0;
        for (int i = 0; i < s.chunks; i++)
            max = fmaxf(max, __ldcg(m + i * kRows).x);
        for (int i = 0; i < s.chunks; i++) {
            float2 v = __ldcg(m + i * kRows);
            float by = v.x == -INFINITY ? 0.0f : exp2f(v.x - max);
            share[i * kRows + row] = by;
            mass += v.y * by;
        }
        float inv = mass > 0 ? 1.0f / mass : 0.0f;
        for (int i = 0; i < s.chunks; i++)
            share[i * kRows + row] *= inv;
    }
    __syncthreads();
    constexpr int AT_ONCE = 4;
    for (int t0 = threadIdx.x; t0 < rows * fours; t0 += AT_ONCE * kThreads) {
        float4 sum[AT_ONCE] = {};
#pragma unroll 4
        for (int i = 0; i < s.chunks; i++)
#pragma unroll
            for (int u = 0; u < AT_ONCE; u++) {
                int t = t0 + u * kThreads, row = t / fours, at = t % fours * 4;
                float by = t < rows * fours ? share[i * kRows + row] : 0.0f;
                if (by == 0.0f)
                    continue; /* a part nobody saw is not written */
                float4 v =
                    __ldcg((const float4 *)&c->part_sum[((first + i) * kRows + row) * HD + at]);
                sum[u].x = fmaf(v.x, by, sum[u].x), sum[u].y = fmaf(v.y, by, sum[u].y);
                sum[u].z = fmaf(v.z, by, sum[u].z), sum[u].w = fmaf(v.w, by, sum[u].w);
            }
#pragma unroll
        for (int u = 0; u < AT_ONCE; u++) {
            int t = t0 + u * kThreads, row = t / fours, at = t % fours * 4;
            if (t >= rows * fours)
                break;
            bf16 *y = out + (s.query_row + (int64_t)tile * kRows + row) * ldo + head * n.dim + at;
            *reinterpret_cast<uint2 *>(y) =
                make_uint2(pack2(sum[u].x, sum[u].y), pack2(sum[u].z, sum[u].w));
        }
    }
}

template <int HD>
__device__ void store_part(const call *c, const span &s, const state<HD> &st, int head, int tile,
                           int chunk, int warp)
{
    int lane = threadIdx.x % 32;
    int64_t part = (int64_t)head * c->parts + s.part + (int64_t)tile * s.chunks + chunk;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int row = warp * 16 + lane / 4 + 8 * h;
        if ((int64_t)tile * kRows + row >= s.query_rows)
            continue;
        if (lane % 4 == 0)
            __stcg(&c->part_max[part * kRows + row], make_float2(st.max[h], st.mass[h]));
        if (st.max[h] == -INFINITY)
            continue;
        float *to = c->part_sum + (part * kRows + row) * HD + 2 * (lane % 4);
#pragma unroll
        for (int d = 0; d < HD / 8; d++)
            __stcg((float2 *)(to + 8 * d), make_float2(st.sum[d][2 * h], st.sum[d][2 * h + 1]));
    }
}

template <int HD>
__device__ void store_rows(const span &s, const state<HD> &st, const heads &n, int head, int tile,
                           bf16 *out, int64_t ldo, int warp)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int64_t row = (int64_t)tile * kRows + warp * 16 + lane / 4 + 8 * h;
        if (row >= s.query_rows)
            continue;
        float inv = st.mass[h] > 0 ? 1.0f / st.mass[h] : 0.0f;
        bf16 *y = out + (s.query_row + row) * ldo + head * n.dim + 2 * (lane % 4);
#pragma unroll
        for (int d = 0; d < HD / 8; d++)
            if (8 * d < n.dim)
                *reinterpret_cast<uint32_t *>(y + 8 * d) =
                    pack2(st.sum[d][2 * h] * inv, st.sum[d][2 * h + 1] * inv);
    }
}

/* Two warps have the same rows and different keys: the second leaves its state in shared memory,
 * the first adds it to its own. */
template <int HD> __device__ void join_halves(state<HD> &s, float *room, bool second)
{
    float *mine = room + threadIdx.x % 64; /* [number][64 threads] */
    if (second) {
#pragma unroll
        for (int i = 0; i < HD / 2; i++)
            mine[i * 64] = s.sum[i / 4][i % 4];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            mine[(HD / 2 + h) * 64] = s.max[h];
            mine[(HD / 2 + 2 + h) * 64] = s.mass[h];
        }
    }
    __syncthreads();
    if (second)
        return;
    float keep[2], add[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float other = mine[(HD / 2 + h) * 64], max = fmaxf(s.max[h], other);
        keep[h] = s.max[h] == -INFINITY ? 0.0f : exp2f(s.max[h] - max);
        add[h] = other == -INFINITY ? 0.0f : exp2f(other - max);
        s.max[h] = max;
        s.mass[h] = s.mass[h] * keep[h] + mine[(HD / 2 + 2 + h) * 64] * add[h];
    }
#pragma unroll
    for (int i = 0; i < HD / 2; i++)
        s.sum[i / 4][i % 4] = s.sum[i / 4][i % 4] * keep[i % 4 / 2] + mine[i * 64] * add[i % 4 / 2];
}

/* One (tile, chunk) of a span, one head. HALVES 2: of a span of at most 32 rows, where two warps
 * share a tile's rows, half of its keys each. */
template <int HD, int HALVES>
__device__ void attend(const call *c, const span &s, const heads &n, int head, int64_t item,
                       bf16 *out, int64_t ldo, const bf16 *q, int64_t ldq, bf16 *tiles)
{
    int tile = (int)(item - s.item) / s.chunks, chunk = (int)(item - s.item) % s.chunks;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % (4 / HALVES);
    int half = threadIdx.x / 32 / (4 / HALVES);
    bf16 *qt = tiles, *kt = tiles + kRows * HD, *vt = kt + 2 * kKeys * HD;
    int64_t row0 = (int64_t)tile * kRows, kv = head / (n.heads / n.kv_heads) * (int64_t)n.dim;
    const bf16 *k = (const bf16 *)s.k + kv, *v = (const bf16 *)s.v + kv;

    int64_t rows = s.query_rows - row0 < kRows ? s.query_rows - row0 : kRows;
    int64_t seen = s.see == TT_SEE_ALL ? s.keys : visible(s, row0 + rows - 1);
    int64_t begin_key = (int64_t)chunk * s.chunk;
    int64_t end_key = s.chunks > 1 && begin_key + s.chunk < seen ? begin_key + s.chunk : seen;
    int64_t see[2];
    for (int h = 0; h < 2; h++) {
        int64_t r = row0 + warp * 16 + lane / 4 + 8 * h;
        see[h] = visible(s, r < s.query_rows ? r : s.query_rows - 1);
        see[h] = see[h] < end_key ? see[h] : end_key;
    }

    load_tile<HD>(qt, q + s.query_row * ldq + head * n.dim, ldq, row0, s.query_rows, n.dim);
    copies_end();
    if (begin_key < end_key) {
        load_tile<HD>(kt, k, s.ld_kv, begin_key, end_key, n.dim);
        load_tile<HD>(vt, v, s.ld_kv, begin_key, end_key, n.dim);
    }
    copies_end();
    state<HD> st;
#pragma unroll
    for (int d = 0; d < HD / 8; d++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            st.sum[d][i] = 0;
    st.max[0] = st.max[1] = -INFINITY;
    st.mass[0] = st.mass[1] = 0;
    copies_wait<1>();
    __syncthreads();
    uint32_t qf[HD / 16][4];
#pragma unroll
    for (int d = 0; d < HD / 16; d++)
        load_matrix(qf[d], qt + place<HD>(warp * 16 + lane % 16, 2 * d + lane / 16));
    int turn = 0;
    for (int64_t at = begin_key; at < end_key; at += kKeys, turn ^= 1) {
        if (at + kKeys < end_key) { /* the next tile comes while this one is used */
            load_tile<HD>(kt + (turn ^ 1) * kKeys * HD, k, s.ld_kv, at + kKeys, end_key, n.dim);
            load_tile<HD>(vt + (turn ^ 1) * kKeys * HD, v, s.ld_kv, at + kKeys, end_key, n.dim);
        }
        copies_end();
        copies_wait<1>();
        __syncthreads();
        int limit[2], hole = hole_in(s, row0 + warp * 16 + lane / 4, at, kKeys);
        for (int h = 0; h < 2; h++)
            limit[h] = (int)(see[h] - at < kKeys ? see[h] - at : kKeys);
        attend_tile<HD, kKeys / HALVES>(st, qf, kt + turn * kKeys * HD, vt + turn * kKeys * HD,
                                        half * (kKeys / HALVES), limit, hole, n.scale * kLog2e);
        __syncthreads();
    }
    copies_wait<0>();
#pragma unroll
    for (int h = 0; h < 2; h++)
        st.mass[h] = quad_sum(st.mass[h]);
    if (HALVES == 2)
        join_halves<HD>(st, (float *)tiles, half == 1);
    if (s.chunks == 1) {
        if (half == 0)
            store_rows<HD>(s, st, n, head, tile, out, ldo, warp);
        return;
    }
    if (half == 0)
        store_part<HD>(c, s, st, head, tile, chunk, warp);
    __shared__ bool is_last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        uint32_t *counter = &c->counter[(int64_t)head * c->counters + s.counter + tile];
        is_last = atomicAdd(counter, 1) == (uint32_t)s.chunks - 1;
        if (is_last)
            *counter = 0;
    }
    __syncthreads();
    if (is_last) {
        __threadfence();
        merge_chunks<HD>(c, s, n, head, tile, out, ldo, (float *)tiles);
    }
}

template <int HD>
__global__ void __launch_bounds__(kThreads) attend_spans(bf16 *out, int64_t ldo, const bf16 *q,
                                                         int64_t ldq, const call *c, heads n)
{
    extern __shared__ __align__(128) char raw[];
    let_next_start();
    if (blockIdx.x >= c->items)
        return; /* makes room; spans are arguments, written before any kernel of the pass */
    wait_for_previous();
    for (int64_t item = blockIdx.x; item < c->items; item += gridDim.x) {
        const span *s = span_of(c, item);
        if (s->query_rows <= kRows / 2)
            attend<HD, 2>(c, *s, n, blockIdx.y, item, out, ldo, q, ldq, (bf16 *)raw);
        else
            attend<HD, 1>(c, *s, n, blockIdx.y, item, out, ldo, q, ldq, (bf16 *)raw);
        __syncthreads();
    }
}

/* --- float32 --- */

template <int HD>
__global__ void __launch_bounds__(f32::kThreads) attend_tiles(float *out, int64_t ldo,
                                                              const float *q, int64_t ldq,
                                                              const call *c, heads n)
{
    extern __shared__ __align__(16) float room[];
    begin();
    for (int64_t item = blockIdx.x; item < c->items; item += gridDim.x) {
        const span &s = *span_of(c, item);
        int64_t first = (item - s.item) * f32::kRows, kv = blockIdx.y / (n.heads / n.kv_heads);
        int64_t rows = s.query_rows - first < f32::kRows ? s.query_rows - first : f32::kRows;
        const float *k = (const float *)s.k + kv * n.dim, *v = (const float *)s.v + kv * n.dim;
        const float *from = q + (s.query_row + first) * ldq + blockIdx.y * (int64_t)n.dim;
        bool wide = n.dim % 4 == 0 && ldq % 4 == 0 && s.ld_kv % 4 == 0 && aligned16(k) &&
                    aligned16(v) && aligned16(from);
        f32::attend<HD>(out + (s.query_row + first) * ldo + blockIdx.y * (int64_t)n.dim, ldo, from,
                        ldq, k, v, s.ld_kv, first, rows, visible(s, first + rows - 1), n.dim, wide,
                        span_rule{&s, n.scale}, room);
    }
}

/* --- any type and size: items are single query rows --- */

constexpr int kMaxDim = 1024;

template <typename T>
__global__ void __launch_bounds__(kThreads) attend_plain(T *out, int64_t ldo, const T *q,
                                                         int64_t ldq, const call *c, heads n)
{
    __shared__ float qs[kMaxDim], sums[kThreads / 32][kMaxDim];
    __shared__ float maxes[kThreads / 32], masses[kThreads / 32];
    begin();
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, head = blockIdx.y;
    for (int64_t item = blockIdx.x; item < c->items; item += gridDim.x) {
        const span &s = *span_of(c, item);
        int64_t row = item - s.item, keys = visible(s, row), hole = s.hole + row;
        int64_t kv = head / (n.heads / n.kv_heads) * (int64_t)n.dim;
        const T *k = (const T *)s.k + kv, *v = (const T *)s.v + kv;
        for (int i = threadIdx.x; i < n.dim; i += kThreads) {
            qs[i] = get(q[(s.query_row + row) * ldq + head * n.dim + i]);
            for (int w = 0; w < kThreads / 32; w++)
                sums[w][i] = 0;
        }
        __syncthreads();
        float max = -INFINITY, mass = 0;
        for (int64_t j = warp; j < keys; j += kThreads / 32) {
            if (j == hole)
                continue;
            float dot = 0;
            for (int i = lane; i < n.dim; i += 32)
                dot = fmaf(qs[i], get(k[j * s.ld_kv + i]), dot);
            dot = warp_sum(dot) * n.scale;
            float most = fmaxf(max, dot), keep = max == -INFINITY ? 0.0f : expf(max - most);
            float weight = expf(dot - most);
            max = most;
            mass = fmaf(mass, keep, weight);
            for (int i = lane; i < n.dim; i += 32)
                sums[warp][i] = fmaf(sums[warp][i], keep, weight * get(v[j * s.ld_kv + i]));
        }
        if (lane == 0)
            maxes[warp] = max, masses[warp] = mass;
        __syncthreads();
        float top = -INFINITY, total = 0;
        for (int w = 0; w < kThreads / 32; w++)
            top = fmaxf(top, maxes[w]);
        for (int w = 0; w < kThreads / 32 && top > -INFINITY; w++)
            total += masses[w] * expf(maxes[w] - top);
        for (int i = threadIdx.x; i < n.dim; i += kThreads) {
            float sum = 0;
            for (int w = 0; w < kThreads / 32 && total > 0; w++)
                sum += sums[w][i] * expf(maxes[w] - top);
            put(&out[(s.query_row + row) * ldo + head * n.dim + i], total > 0 ? sum / total : 0.0f);
        }
        __syncthreads();
    }
}

/* --- the host's side --- */

tt_status check_span(const tt_span *s, int64_t i, const heads &n, tt_err *e)
{
    if (s->query_rows < 0 || s->keys < 0 || s->query_rows > INT32_MAX || s->keys > INT32_MAX ||
        (s->keys && s->ld_kv < (int64_t)n.kv_heads * n.dim) ||
        (s->see == TT_SEE_BLOCK && s->block < 1) || s->hole < 0 ||
        (s->hole && s->see != TT_SEE_ALL))
        return tt_fail(e, TT_EINVAL, "attention: span %lld has %lld rows, %lld keys of stride %lld",
                       (long long)i, (long long)s->query_rows, (long long)s->keys,
                       (long long)s->ld_kv);
    return TT_OK;
}

/* Rows of keys and values begin at 16 bytes, of `each` elements. */
bool keys_align(const tt_span *s, int64_t spans, int64_t each)
{
    bool ok = true;
    for (int64_t i = 0; i < spans && ok; i++)
        ok = !s[i].keys || (aligned16(s[i].k) && aligned16(s[i].v) && s[i].ld_kv % each == 0);
    return ok;
}

bool fits_cores(const cuda *c, const tt_span *s, int64_t spans, const void *out, int64_t ldo,
                const void *q, int64_t ldq, const heads &n)
{
    return n.dim % 8 == 0 && n.dim <= (c->hopper ? kWideDim : 256) && aligned16(q) &&
           ldq % 8 == 0 && ldo % 8 == 0 && aligned16(out) && keys_align(s, spans, 8);
}

/* Room for the parts of cut spans; the counters lie behind them, zero. */
tt_status reserve_parts(cuda *c, call *to, const heads &n, tt_err *e)
{
    size_t sums = (size_t)(to->parts * n.heads) * kRows * (size_t)padded_dim(n.dim) * 4;
    size_t maxes = (size_t)(to->parts * n.heads) * kRows * sizeof(float2);
    size_t counters = (size_t)(to->counters * n.heads) * 4, have = c->split_bytes;
    size_t most = sums + maxes + 4096;
    if (counters > CUDA_COUNTERS)
        return tt_fail(e, TT_EINVAL, "attention: %lld cut spans", (long long)to->counters);
    if (most + CUDA_COUNTERS > have) {
        tt_status st = cuda_reserve(c, &c->split, &c->split_bytes, most + most / 4 + CUDA_COUNTERS,
                                    e);
        if (!st)
            st = cuda_check(cudaMemset(c->split, 0, CUDA_COUNTERS), "attention", e);
        if (!st)
            st = cuda_check(cudaStreamSynchronize(cudaStreamLegacy), "attention", e);
        if (st)
            return st;
    }
    to->counter = (uint32_t *)c->split;
    to->part_max = (float2 *)((char *)c->split + CUDA_COUNTERS);
    to->part_sum = (float *)((char *)to->part_max + ((maxes + 255) & ~(size_t)255));
    return TT_OK;
}

/* Which kernel a span takes: it follows from the span's sizes, the heads' and the device alone. */
enum span_kind { KIND_ROWS, KIND_TILES, KIND_SHORT, KIND_LONG, KIND_ANY };

bool is_long(const cuda *c, int64_t query_rows, int64_t dim)
{
    return c->hopper && query_rows > kSplitRows && (dim == 64 || dim == 128);
}

/* Of float32: tiles of rows are worth it from some rows on. */
bool is_tiled(int64_t query_rows, int64_t dim)
{
    return query_rows >= kTiledRows && dim <= f32::kMostDim;
}

bool takes(const cuda *c, span_kind kind, const tt_stream *s, int64_t query_rows, int64_t dim)
{
    if (kind == KIND_ANY)
        return true;
    if (kind == KIND_LONG || kind == KIND_SHORT)
        return is_long(c, query_rows, dim) == (kind == KIND_LONG);
    return (s->act == TT_F32 && is_tiled(query_rows, dim)) == (kind == KIND_TILES);
}

/* Describes the spans of one kind on the device; *rows: their query rows. */
tt_status send_call(tt_stream *stream, const call **dev_call, int64_t *rows, const tt_span *in,
                    int64_t spans, const heads &n, span_kind kind, tt_err *e)
{
    cuda *c = cuda_of(stream);
    void *host, *dev;
    tt_status st = cuda_arg_room(c, &host, &dev,
                                 sizeof(call) + (size_t)cuda_list_room(spans) * sizeof(span), e);
    if (st)
        return st;
    call *to = (call *)host;
    *to = {};
    *rows = 0;
    for (int64_t i = 0; i < spans; i++) {
        const tt_span *s = &in[i];
        if (s->query_rows == 0 || !takes(c, kind, stream, s->query_rows, n.dim))
            continue;
        *rows += s->query_rows;
        span *o = &to->at[to->spans++];
        *o = {};
        o->query_row = s->query_row;
        o->query_rows = s->query_rows;
        o->query_column = s->query_column;
        o->ld_kv = s->ld_kv;
        o->keys = s->keys;
        o->key_column = s->key_column;
        o->hole = s->hole ? s->hole - 1 - s->key_column : kNoHole;
        o->k = s->k;
        o->v = s->v;
        o->see = s->see;
        o->block = s->block;
        o->item = to->items;
        int tile = kind == KIND_LONG ? kLongRows : kRows; /* f32::kRows are as many */
        o->tiles = (int32_t)((s->query_rows + tile - 1) / tile);
        o->chunks = 1;
        if (kind == KIND_SHORT && s->query_rows <= kSplitRows && s->keys > kChunk) {
            int64_t even = (s->keys + kMostChunks * kKeys - 1) / (kMostChunks * kKeys) * kKeys;
            o->chunk = even > kChunk ? even : kChunk;
            o->chunks = (int32_t)((s->keys + o->chunk - 1) / o->chunk);
        }
        to->items += kind == KIND_ROWS ? s->query_rows : (int64_t)o->tiles * o->chunks;
        o->part = to->parts;
        o->counter = to->counters;
        if (o->chunks > 1) {
            to->parts += (int64_t)o->tiles * o->chunks;
            to->counters += o->tiles;
        }
    }
    if (to->parts)
        st = reserve_parts(c, to, n, e);
    *dev_call = (const call *)dev;
    return st ? st
              : cuda_arg_send(c, host, sizeof(call) + (size_t)to->spans * sizeof(span), e);
}

template <int HD>
tt_status run_cores(const cuda *c, bf16 *out, int64_t ldo, const bf16 *q, int64_t ldq,
                    const call *spans, const heads &n, int64_t tiles, tt_err *e)
{
    static uint64_t allowed;
    tt_status st = allow_shared(c, &allowed, attend_spans<HD>, tile_bytes<HD>(), "attention", e);
    if (st)
        return st;
    int64_t fill = (2 * c->sms + n.heads - 1) / n.heads; /* blocks a head to fill the GPU twice */
    dim3 grid((unsigned)(tiles > fill ? tiles : fill), (unsigned)n.heads);
    return launch(c, "attention", attend_spans<HD>, grid, kThreads, tile_bytes<HD>(), e, out, ldo,
                  q, ldq, spans, n);
}

/* Grids follow from what the key of a pass tells: its rows, padded, its spans and their kinds. */
tt_status run_cores_by_kind(tt_stream *s, bf16 *out, int64_t ldo, const bf16 *q, int64_t ldq,
                            const tt_span *in, int64_t spans, const heads &n, tt_err *e)
{
    cuda *c = cuda_of(s);
    int64_t all = 0, rows;
    const call *dev;
    for (int64_t i = 0; i < spans; i++)
        all += in[i].query_rows;
    all = tt_cuda_bucket(s, all);
    tt_status st = send_call(s, &dev, &rows, in, spans, n, KIND_LONG, e);
    if (!st && rows)
        st = cuda_attend_long(c, out, ldo, q, ldq, dev, n,
                              (unsigned)(all / kLongRows + cuda_list_room(spans)), e);
    if (!st)
        st = send_call(s, &dev, &rows, in, spans, n, KIND_SHORT, e);
    if (st || !rows)
        return st;
    if (c->hopper && (n.dim == 64 || n.dim == 128))
        return cuda_attend_short(c, out, ldo, q, ldq, dev, n, e);
    int64_t tiles = all / kRows + cuda_list_room(spans);
    switch (padded_dim(n.dim)) {
    case 32: return run_cores<32>(c, out, ldo, q, ldq, dev, n, tiles, e);
    case 64: return run_cores<64>(c, out, ldo, q, ldq, dev, n, tiles, e);
    case 96: return run_cores<96>(c, out, ldo, q, ldq, dev, n, tiles, e);
    case 128: return run_cores<128>(c, out, ldo, q, ldq, dev, n, tiles, e);
    default: return run_cores<256>(c, out, ldo, q, ldq, dev, n, tiles, e);
    }
}

/* Kernels that take every span in tiles of kRows query rows. */
tt_status run_any(tt_stream *s, void *out, int64_t ldo, const void *q, int64_t ldq,
                  const tt_span *in, int64_t spans, const heads &n, tt_err *e)
{
    cuda *c = cuda_of(s);
    const call *dev;
    int64_t rows;
    tt_status st = send_call(s, &dev, &rows, in, spans, n, KIND_ANY, e);
    if (st || !rows)
        return st;
    unsigned grid = (unsigned)(tt_cuda_bucket(s, rows) / kRows + cuda_list_room(spans));
    return s->act == TT_BF16 ? cuda_attend_wide(c, (bf16 *)out, ldo, (const bf16 *)q, ldq, dev, n,
                                                grid, e)
                             : cuda_attend_thirds(c, (float *)out, ldo, (const float *)q, ldq, dev,
                                                  n, grid, e);
}

template <int HD>
tt_status run_tiles(const cuda *c, float *out, int64_t ldo, const float *q, int64_t ldq,
                    const call *spans, const heads &n, int64_t tiles, tt_err *e)
{
    static uint64_t allowed;
    tt_status st = allow_shared(c, &allowed, attend_tiles<HD>, f32::shared_bytes<HD>(),
                                "attention", e);
    dim3 grid((unsigned)tiles, (unsigned)n.heads);
    return st ? st
              : launch(c, "attention", attend_tiles<HD>, grid, f32::kThreads,
                       f32::shared_bytes<HD>(), e, out, ldo, q, ldq, spans, n);
}

/* Spans of few rows, or of heads of any size: a row at a time. */
tt_status run_rows(tt_stream *s, void *out, int64_t ldo, const void *q, int64_t ldq,
                   const tt_span *in, int64_t spans, const heads &n, tt_err *e)
{
    cuda *c = cuda_of(s);
    const call *dev;
    int64_t rows;
    tt_status st = send_call(s, &dev, &rows, in, spans, n, KIND_ROWS, e);
    if (st || !rows)
        return st;
    rows = tt_cuda_bucket(s, rows);
    dim3 grid((unsigned)(rows < 4096 ? rows : 4096), (unsigned)n.heads);
    return s->act == TT_BF16 ? launch(c, "attention", attend_plain<bf16>, grid, kThreads, 0, e,
                                      (bf16 *)out, ldo, (const bf16 *)q, ldq, dev, n)
                             : launch(c, "attention", attend_plain<float>, grid, kThreads, 0, e,
                                      (float *)out, ldo, (const float *)q, ldq, dev, n);
}

tt_status run_plain(tt_stream *s, void *out, int64_t ldo, const void *q, int64_t ldq,
                    const tt_span *in, int64_t spans, const heads &n, tt_err *e)
{
    cuda *c = cuda_of(s);
    const call *dev;
    int64_t all = 0, rows = 0;
    for (int64_t i = 0; i < spans; i++)
        all += in[i].query_rows;
    int64_t tiles = tt_cuda_bucket(s, all) / f32::kRows + cuda_list_room(spans);
    tt_status st = s->act == TT_F32 ? send_call(s, &dev, &rows, in, spans, n, KIND_TILES, e)
                                    : TT_OK;
    if (!st && rows) {
        auto run = n.dim <= 32 ? run_tiles<32> : n.dim <= 64 ? run_tiles<64> : run_tiles<128>;
        st = run(c, (float *)out, ldo, (const float *)q, ldq, dev, n, tiles, e);
    }
    return st ? st : run_rows(s, out, ldo, q, ldq, in, spans, n, e);
}

} // namespace

extern "C" tt_status tt_cuda_attention(tt_stream *s, tt_act *out, int64_t ldo, const tt_act *q,
                                       int64_t ldq, const tt_span *in, int64_t spans,
                                       int64_t head_count, int64_t kv_heads, int64_t head_dim,
                                       float scale, tt_compute compute, tt_err *e)
{
    if (head_count < 1 || kv_heads < 1 || head_count % kv_heads || head_dim < 1 ||
        head_dim > kMaxDim || head_count > 65535 || ldo < head_count * head_dim ||
        ldq < head_count * head_dim || spans < 0)
        return tt_fail(e, TT_EINVAL, "attention: %lld heads, %lld key heads of %lld channels",
                       (long long)head_count, (long long)kv_heads, (long long)head_dim);
    heads n = {(int)head_count, (int)kv_heads, (int)head_dim, scale};
    for (int64_t i = 0; i < spans; i++) {
        tt_status st = check_span(&in[i], i, n, e);
        if (st)
            return st;
    }
    bool cores = s->act == TT_BF16 && fits_cores(cuda_of(s), in, spans, out, ldo, q, ldq, n);
    bool thirds = s->act == TT_F32 && compute == TT_COMPUTE_THIRDS &&
                  cuda_thirds_fit(out, ldo, q, ldq, head_dim) && keys_align(in, spans, 4);
    if (thirds || (cores && head_dim > 256))
        return run_any(s, out, ldo, q, ldq, in, spans, n, e);
    return cores ? run_cores_by_kind(s, (bf16 *)out, ldo, (const bf16 *)q, ldq, in, spans, n, e)
                 : run_plain(s, out, ldo, q, ldq, in, spans, n, e);
}

/* Which kernels a span of so many query rows takes part in. */
extern "C" int64_t tt_cuda_span_key(const tt_stream *s, int64_t query_rows, int64_t head_dim)
{
    if (query_rows == 0)
        return 0;
    if (s->act == TT_F32)
        return is_tiled(query_rows, head_dim) ? 2 : 1;
    return is_long(cuda_of(s), query_rows, head_dim) ? 2 : 1;
}
