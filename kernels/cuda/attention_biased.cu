/* attention_biased.cu - softmax(q k^T * scale + bias) v with a bias of any shape. bfloat16 heads
 * whose size is a multiple of 8 use the tensor cores as attention.cu does: 64 query rows a block,
 * tiles of 64 keys; float32 takes the tiles of attention_f32.cuh or attention_thirds.cu. A table of
 * the bias is read from the L2 cache, where it serves all heads and spans; a bias by order is
 * computed, on Hopper in attention_hopper_biased.cu. Other sizes take the plain kernel: a warp a
 * query row. A row's order of sums depends on its keys alone. */
#include "kernels/cuda/attention_biased.cuh"
#include "kernels/cuda/attention_f32.cuh"
#include "kernels/cuda/attention_mma.cuh"

namespace {

constexpr int kPlainRows = 8;  /* query rows of a block of the plain kernel, a warp each */
constexpr int kPlainKeys = 32; /* of its tile, a lane each */
constexpr int kMostDim = 512;

static_assert(f32::kRows == kRows, "spans are cut for both kernels alike");

/* --- tensor cores --- */

/* Running state of a thread's two rows (lane / 4 and 8 below). */
/* What is added to the scores of the thread's two rows. */
struct addends {
    const float *row[2]; /* of the tile's first key */
    int64_t step;
    bool pairs; /* two neighbours may be read at once */
    bool by_order;
    int first[2]; /* of the tile's keys, that gets `later` */
    float later;

    __device__ float at(int h, int col, int left) const
    {
        if (by_order)
            return col >= first[h] ? later : 0.0f;
        return col < left ? __ldg(row[h] + col * step) : 0.0f;
    }
    __device__ void next_tile()
    {
        for (int h = 0; h < 2; h++) {
            row[h] += kKeys * step;
            first[h] -= kKeys;
        }
    }
};

__device__ void read_addends(float (&b)[kKeys / 8][4], const addends &a, int left)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < kKeys / 8; n++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int col = 8 * n + 2 * (lane % 4);
            if (a.pairs && col + 1 < left) {
                float2 two = __ldg(reinterpret_cast<const float2 *>(a.row[h] + col));
                b[n][2 * h] = two.x, b[n][2 * h + 1] = two.y;
            } else {
                b[n][2 * h] = a.at(h, col, left);
                b[n][2 * h + 1] = a.at(h, col + 1, left);
            }
        }
}

/* One tile of keys, `left` of them there. scale: of base 2. */
template <int HD>
__device__ void attend_tile(state<HD> &s, const uint32_t (&q)[HD / 16][4], const bf16 *k,
                            const bf16 *v, const addends &add, int left, float scale)
{
    int lane = threadIdx.x % 32;
    float w[kKeys / 8][4], bias[kKeys / 8][4];
    read_addends(bias, add, left);
    score_keys<HD>(w, q, k, 0);
#pragma unroll
    for (int n = 0; n < kKeys / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            bool there = 8 * n + 2 * (lane % 4) + i % 2 < left;
            w[n][i] = there ? fmaf(w[n][i], scale, bias[n][i] * kLog2e) : -INFINITY;
        }
    add_values<HD>(s, w, v, 0);
}

/* Where the addends of the thread's rows begin; rows beyond the last take its. */
__device__ addends addends_of(const tt_biased_span &p, int head, int64_t first_row)
{
    addends a;
    a.step = p.bias_key;
    a.by_order = p.by_order;
    a.later = p.later;
    for (int h = 0; h < 2; h++) {
        int64_t row = first_row + 8 * h;
        row = row < p.query_rows ? row : p.query_rows - 1;
        a.row[h] = p.bias + head * p.bias_head + row * p.bias_query;
        int64_t first = row + 1 > p.from ? row + 1 : p.from;
        a.first[h] = (int)(first < p.keys ? first : p.keys);
    }
    a.pairs = !a.by_order && a.step == 1 && ((uintptr_t)a.row[0] & 7) == 0 &&
              ((uintptr_t)a.row[1] & 7) == 0;
    return a;
}

template <int HD>
__device__ void store(const state<HD> &st, const tt_biased_span &p, bf16 *out, int64_t ldo,
                      int64_t first_row, int dim)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int64_t row = first_row + 8 * h;
        if (row >= p.query_rows)
            continue;
        float by = st.mass[h] > 0 ? 1.0f / st.mass[h] : 0.0f;
        bf16 *y = out + (p.query_row + row) * ldo + 2 * (lane % 4);
#pragma unroll
        for (int d = 0; d < HD / 8; d++)
            if (8 * d < dim)
                *reinterpret_cast<uint32_t *>(y + 8 * d) =
                    pack2(st.sum[d][2 * h] * by, st.sum[d][2 * h + 1] * by);
    }
}

template <int HD>
__global__ void __launch_bounds__(kThreads)
    attend_cores(bf16 *out, int64_t ldo, const bf16 *q, int64_t ldq, const biased_tasks *list,
                 int dim, float scale)
{
    extern __shared__ __align__(128) char raw[];
    begin();
    const biased_task *t = task_of(list, blockIdx.x);
    if (!t)
        return;
    const tt_biased_span &p = t->span;
    bf16 *qt = (bf16 *)raw, *kt = qt + kRows * HD, *vt = kt + 2 * kKeys * HD;
    int head = blockIdx.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32, turn = 0;
    int64_t row0 = ((int64_t)blockIdx.x - t->first) * kRows;
    int64_t first_row = row0 + warp * 16 + lane / 4;
    const bf16 *k = (const bf16 *)p.k + head * dim, *v = (const bf16 *)p.v + head * dim;
    load_tile<HD>(qt, q + p.query_row * ldq + head * dim, ldq, row0, p.query_rows, dim);
    copies_end();
    load_tile<HD>(kt, k, p.ld_kv, 0, p.keys, dim);
    load_tile<HD>(vt, v, p.ld_kv, 0, p.keys, dim);
    copies_end();
    state<HD> st = {};
    st.max[0] = st.max[1] = -INFINITY;
    addends add = addends_of(p, head, first_row);
    copies_wait<1>();
    __syncthreads();
    uint32_t qf[HD / 16][4];
#pragma unroll
    for (int d = 0; d < HD / 16; d++)
        load_matrix(qf[d], qt + place<HD>(warp * 16 + lane % 16, 2 * d + lane / 16));
    for (int64_t at = 0; at < p.keys; at += kKeys, turn ^= 1) {
        if (at + kKeys < p.keys) { /* the next tile comes while this one is used */
            load_tile<HD>(kt + (turn ^ 1) * kKeys * HD, k, p.ld_kv, at + kKeys, p.keys, dim);
            load_tile<HD>(vt + (turn ^ 1) * kKeys * HD, v, p.ld_kv, at + kKeys, p.keys, dim);
        }
        copies_end();
        copies_wait<1>();
        __syncthreads();
        attend_tile<HD>(st, qf, kt + turn * kKeys * HD, vt + turn * kKeys * HD, add,
                        (int)(p.keys - at < kKeys ? p.keys - at : kKeys), scale * kLog2e);
        add.next_tile();
        __syncthreads();
    }
    copies_wait<0>();
#pragma unroll
    for (int h = 0; h < 2; h++)
        st.mass[h] = quad_sum(st.mass[h]);
    store<HD>(st, p, out + head * dim, ldo, first_row, dim);
}

/* --- float32 --- */

template <int HD>
__global__ void __launch_bounds__(f32::kThreads)
    attend_f32(float *out, int64_t ldo, const float *q, int64_t ldq, const biased_tasks *list,
               int dim, float scale)
{
    extern __shared__ __align__(16) float room[];
    begin();
    const biased_task *t = task_of(list, blockIdx.x);
    if (!t)
        return;
    const tt_biased_span &p = t->span;
    int64_t head = blockIdx.y, first = ((int64_t)blockIdx.x - t->first) * f32::kRows;
    int64_t rows = p.query_rows - first < f32::kRows ? p.query_rows - first : f32::kRows;
    const float *k = (const float *)p.k + head * dim, *v = (const float *)p.v + head * dim;
    const float *from = q + (p.query_row + first) * ldq + head * dim;
    bool wide = dim % 4 == 0 && ldq % 4 == 0 && p.ld_kv % 4 == 0 && aligned16(k) &&
                aligned16(v) && aligned16(from);
    bias_rule rule = {&p, head, scale};
    f32::attend<HD>(out + (p.query_row + first) * ldo + head * dim, ldo, from, ldq, k, v, p.ld_kv,
                    first, rows, p.keys, dim, wide, rule, room);
}

/* --- any size --- */

template <typename T>
__device__ void load_wide(float *tile, const T *from, int64_t ld, int64_t keys, int dim, int stride,
                          bool narrow)
{
    for (int i = threadIdx.x; i < kPlainKeys * dim; i += blockDim.x) {
        int key = i / dim, c = i % dim;
        float x = key < keys ? get(from[key * ld + c]) : 0.0f;
        tile[key * stride + c] = narrow ? rounded((const bf16 *)0, x) : x;
    }
}

template <typename T>
__global__ void attend_plain(T *out, int64_t ldo, const T *q, int64_t ldq, const biased_tasks *list,
                              int dim, float scale, bool narrow)
{
    extern __shared__ float shared[];
    begin();
    const biased_task *t = task_of(list, blockIdx.x);
    if (!t)
        return;
    const tt_biased_span &p = t->span;
    int head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32, stride = dim + 1;
    int64_t row = ((int64_t)blockIdx.x - t->first) * kPlainRows + warp;
    bool mine = row < p.query_rows;
    float *tile = shared, *query = shared + kPlainKeys * stride + warp * dim;
    const T *k = (const T *)p.k + head * dim, *v = (const T *)p.v + head * dim;
    bias_rule::row bias = bias_rule{&p, head, scale}.of(row);
    for (int c = lane; c < dim && mine; c += 32) {
        float x = get(q[(p.query_row + row) * ldq + head * dim + c]);
        query[c] = narrow ? rounded((const bf16 *)0, x) : x;
    }
    float sum[kMostDim / 32] = {}, max = -CUDART_INF_F, total = 0;
    for (int64_t at = 0; at < p.keys; at += kPlainKeys) {
        int64_t left = p.keys - at;
        __syncthreads();
        load_wide(tile, k + at * p.ld_kv, p.ld_kv, left, dim, stride, narrow);
        __syncthreads();
        float score = -CUDART_INF_F;
        if (mine && lane < left) {
            float dot = 0;
            for (int c = 0; c < dim; c++)
                dot = fmaf(query[c], tile[lane * stride + c], dot);
            score = bias.score((int)at + lane, dot);
        }
        float high = score;
        for (int d = 16; d; d >>= 1)
            high = fmaxf(high, __shfl_xor_sync(~0u, high, d));
        float before = max;
        max = fmaxf(max, high);
        float keep = before == -CUDART_INF_F ? 0.0f : __expf(before - max);
        float weight = score == -CUDART_INF_F ? 0.0f : __expf(score - max);
        total = total * keep + warp_sum(weight);
        weight = narrow ? rounded((const bf16 *)0, weight) : weight;
        __syncthreads();
        load_wide(tile, v + at * p.ld_kv, p.ld_kv, left, dim, stride, narrow);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < kMostDim / 32; i++)
            sum[i] *= keep;
        for (int j = 0; j < kPlainKeys; j++) {
            float w = __shfl_sync(~0u, weight, j);
            if (w == 0)
                continue;
#pragma unroll
            for (int i = 0; i < kMostDim / 32; i++)
                if (lane + 32 * i < dim)
                    sum[i] = fmaf(w, tile[j * stride + lane + 32 * i], sum[i]);
        }
    }
#pragma unroll
    for (int i = 0; i < kMostDim / 32; i++)
        if (mine && lane + 32 * i < dim)
            put(&out[(p.query_row + row) * ldo + head * dim + lane + 32 * i],
                total > 0 ? sum[i] / total : 0.0f);
}


/* --- the host's side --- */

enum kernel { ORDERED, CORES, FLOAT32, BY_THIRDS, PLAIN };

kernel kernel_for(const tt_stream *s, const void *out, int64_t ldo, const void *q, int64_t ldq,
                  const tt_biased_span *span, int64_t spans, int64_t dim, float scale,
                  tt_compute compute)
{
    int each = s->act == TT_F32 ? 4 : 8;
    bool align = true;
    for (int64_t i = 0; i < spans && align; i++)
        align = !span[i].keys || (aligned16(span[i].k) && aligned16(span[i].v) &&
                                  span[i].ld_kv % each == 0);
    if (s->act == TT_F32 && compute == TT_COMPUTE_THIRDS && align &&
        cuda_thirds_fit(out, ldo, q, ldq, dim))
        return BY_THIRDS;
    if (s->act == TT_F32)
        return dim <= f32::kMostDim && compute != TT_COMPUTE_BF16 ? FLOAT32 : PLAIN;
    bool fits = align && dim % 8 == 0 && dim <= 256 && aligned16(q) && aligned16(out) &&
                ldq % 8 == 0 && ldo % 8 == 0 && compute == TT_COMPUTE_BF16;
    bool ordered = spans && span[0].by_order && cuda_of(s)->hopper && (dim == 64 || dim == 128) &&
                   scale > 0;
    return !fits ? PLAIN : ordered ? ORDERED : CORES;
}

template <int HD>
tt_status run_cores(const cuda *c, bf16 *out, int64_t ldo, const bf16 *q, int64_t ldq,
                    const biased_tasks *list, dim3 grid, int dim, float scale, tt_err *e)
{
    static uint64_t allowed;
    tt_status st = allow_shared(c, &allowed, attend_cores<HD>, tile_bytes<HD>(),
                                "attention_biased", e);
    return st ? st
              : launch(c, "attention_biased", attend_cores<HD>, grid, kThreads, tile_bytes<HD>(),
                       e, out, ldo, q, ldq, list, dim, scale);
}

template <int HD>
tt_status run_f32(const cuda *c, float *out, int64_t ldo, const float *q, int64_t ldq,
                  const biased_tasks *list, dim3 grid, int dim, float scale, tt_err *e)
{
    static uint64_t allowed;
    tt_status st = allow_shared(c, &allowed, attend_f32<HD>, f32::shared_bytes<HD>(),
                                "attention_biased", e);
    return st ? st
              : launch(c, "attention_biased", attend_f32<HD>, grid, f32::kThreads,
                       f32::shared_bytes<HD>(), e, out, ldo, q, ldq, list, dim, scale);
}

template <typename T>
tt_status run_plain(const cuda *c, T *out, int64_t ldo, const T *q, int64_t ldq,
                    const biased_tasks *list, dim3 grid, int dim, float scale, bool narrow,
                    tt_err *e)
{
    size_t shared = (size_t)(kPlainKeys * (dim + 1) + kPlainRows * dim) * sizeof(float);
    if (cudaFuncSetAttribute(attend_plain<T>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             (int)shared))
        return tt_fail(e, TT_EUNSUP, "attention_biased: heads of %d", dim);
    return launch(c, "attention_biased", attend_plain<T>, grid, 32 * kPlainRows, shared, e, out,
                  ldo, q, ldq, list, dim, scale, narrow);
}

/* Sends the spans; *grid follows from the rows of all of them, padded, and the list's room, so that
 * passes of one key have grids of one size. */
tt_status send(tt_stream *s, const biased_tasks **out, dim3 *grid, const tt_biased_span *span,
               int64_t spans, int64_t heads, int64_t width, int tile, tt_err *e)
{
    cuda *c = cuda_of(s);
    void *host, *dev;
    int64_t rows = 0, room = cuda_list_room(spans);
    tt_status st = cuda_arg_room(
        c, &host, &dev, sizeof(biased_tasks) + (size_t)room * sizeof(biased_task), e);
    if (st)
        return st;
    biased_tasks *list = (biased_tasks *)host;
    *list = {};
    for (int64_t i = 0; i < spans; i++) {
        if (span[i].query_row < 0 || span[i].query_rows < 0 || span[i].keys < 0 ||
            span[i].query_rows > INT32_MAX || span[i].keys > INT32_MAX ||
            (span[i].keys && span[i].ld_kv < width))
            return tt_fail(e, TT_EINVAL, "attention_biased: span %lld has %lld queries, %lld keys",
                           (long long)i, (long long)span[i].query_rows, (long long)span[i].keys);
        if (span[i].by_order != span[0].by_order || tt_biased_span_odd(&span[i]))
            return tt_fail(e, TT_EINVAL, "attention_biased: the bias of span %lld", (long long)i);
        if (span[i].query_rows == 0)
            continue;
        list->at[list->n++] = {span[i], list->tiles};
        list->tiles += (span[i].query_rows + tile - 1) / tile;
        rows += span[i].query_rows;
    }
    *grid = dim3(rows ? (unsigned)(tt_cuda_bucket(s, rows) / tile + room) : 0, (unsigned)heads);
    *out = (const biased_tasks *)dev;
    return cuda_arg_send(c, host, sizeof(biased_tasks) + (size_t)list->n * sizeof(biased_task), e);
}

} // namespace

extern "C" tt_status tt_cuda_attention_biased(tt_stream *s, tt_act *out, int64_t ldo,
                                              const tt_act *q, int64_t ldq,
                                              const tt_biased_span *span, int64_t spans,
                                              int64_t heads, int64_t head_dim, float scale,
                                              tt_compute compute, tt_err *e)
{
    cuda *c = cuda_of(s);
    int dim = (int)head_dim;
    if (spans < 0 || heads < 1 || heads > 65535 || head_dim < 1 || head_dim > kMostDim ||
        ldo < heads * head_dim || ldq < heads * head_dim)
        return tt_fail(e, TT_EINVAL, "attention_biased: %lld spans, %lld heads of %lld (at most "
                       "%d)", (long long)spans, (long long)heads, (long long)head_dim, kMostDim);
    kernel by = kernel_for(s, out, ldo, q, ldq, span, spans, head_dim, scale, compute);
    const biased_tasks *list;
    dim3 grid;
    tt_status st = send(s, &list, &grid, span, spans, heads, heads * head_dim,
                        by == PLAIN     ? kPlainRows
                        : by == ORDERED ? kLongRows
                                        : kRows,
                        e);
    if (st || !grid.x)
        return st;
    if (by == ORDERED)
        return cuda_attend_ordered(c, (bf16 *)out, ldo, (const bf16 *)q, ldq, list, (int)heads, dim,
                                   scale, e);
    if (by == BY_THIRDS)
        return cuda_attend_thirds_biased(c, (float *)out, ldo, (const float *)q, ldq, list, grid,
                                         dim, scale, e);
    if (by == CORES) {
        int padded = padded_dim(dim);
        auto run = padded == 32    ? run_cores<32>
                   : padded == 64  ? run_cores<64>
                   : padded == 96  ? run_cores<96>
                   : padded == 128 ? run_cores<128>
                                   : run_cores<256>;
        return run(c, (bf16 *)out, ldo, (const bf16 *)q, ldq, list, grid, dim, scale, e);
    }
    if (by == FLOAT32) {
        auto run = dim <= 32 ? run_f32<32> : dim <= 64 ? run_f32<64> : run_f32<128>;
        return run(c, (float *)out, ldo, (const float *)q, ldq, list, grid, dim, scale, e);
    }
    bool narrow = compute == TT_COMPUTE_BF16;
    return s->act == TT_BF16 ? run_plain(c, (bf16 *)out, ldo, (const bf16 *)q, ldq, list, grid,
                                         dim, scale, narrow, e)
                             : run_plain(c, (float *)out, ldo, (const float *)q, ldq, list, grid,
                                         dim, scale, narrow, e);
}
