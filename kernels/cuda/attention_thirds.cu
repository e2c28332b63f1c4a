/* attention_thirds.cu - softmax(q k^T) v of float32 by mma.sync (TT_COMPUTE_THIRDS): queries, keys,
 * values and weights are cut into three bfloat16 parts, whose six largest products are added.
 *
 * A block takes 64 query rows of one head, a warp 16 of them, and goes over the keys in tiles with
 * running maximum and sum. Operands come to shared memory 64 channels of a tile (a slab) at a time:
 * float32 by cp.async while the slab before is multiplied, then cut by the thread that asked for
 * them. Heads of at most 64 channels are one slab. In larger ones two warps have the same rows: in
 * the scores half of the tile's keys each, which they exchange, in the sums every other slab.
 *
 * The multiplier cuts off bits where it adds. So a product of the largest parts is summed apart
 * from the other five, over one slab or tile, four steps at most; sums of sums are rounded to the
 * nearest. A row's order of sums depends on its keys alone. */
#include "kernels/cuda/attention_biased.cuh"
#include "kernels/cuda/attention_mma.cuh"

namespace {

constexpr int kSlab = 64, kSlabBytes = kSlab * 2; /* channels; bytes of a row of a part */

template <int KEYS_, int SLABS_, int COLS_> struct shape {
    static constexpr int KEYS = KEYS_;   /* of a tile */
    static constexpr int SLABS = SLABS_; /* of a head, at most */
    static constexpr int COLS = COLS_;   /* warps that share rows */
    static constexpr int THREADS = 128 * COLS, OWN = SLABS / COLS, N = KEYS / 8 / COLS;
    static constexpr int Q = 3 * kRows * kSlab;     /* elements */
    static constexpr int KV = 3 * KEYS * kSlab * COLS;
    static constexpr int RAW = (SLABS > 1 ? kRows + KEYS : KEYS) * kSlab; /* as they come: floats */
    static constexpr int SCORES = COLS > 1 ? exchange_floats(KEYS) : 0;
    static constexpr size_t BYTES = (Q + KV) * sizeof(bf16) + (RAW + SCORES) * sizeof(float);
    static constexpr int BLOCKS = SLABS > 1 ? 1 : 4; /* of a multiprocessor */
    static_assert(KEYS * COLS * kSlab <= RAW, "values come where queries and keys do");
};
typedef shape<32, 1, 1> one_slab;
typedef shape<64, 8, 2> many_slabs;
constexpr int kMostDim = many_slabs::SLABS * kSlab;

/* Rows of float32, so many there and so many channels; the rest is zeros. */
struct rows_of {
    const float *p;
    int64_t ld;
    int rows, dim;
};

/* Two numbers in three parts, smallest first. Infinities may become NaN. */
__device__ void cut_pair(uint32_t (&part)[3], float a, float b)
{
#pragma unroll
    for (int p = 2; p >= 0; p--) {
        part[p] = pack2(a, b);
        a -= __uint_as_float(part[p] << 16);
        b -= __uint_as_float(part[p] & 0xFFFF0000u);
    }
}

/* Eight channels into a slab of ROWS rows: part p lies p slabs on. */
template <int ROWS>
__device__ void store_parts(bf16 *slab, int row, int at, const float4 &x, const float4 &y)
{
    uint32_t v[4][3];
    cut_pair(v[0], x.x, x.y), cut_pair(v[1], x.z, x.w);
    cut_pair(v[2], y.x, y.y), cut_pair(v[3], y.z, y.w);
#pragma unroll
    for (int p = 0; p < 3; p++)
        *reinterpret_cast<uint4 *>(slab + p * ROWS * kSlab + place<kSlab>(row, at)) =
            make_uint4(v[0][p], v[1][p], v[2][p], v[3][p]);
}

/* Starts copies of a slab: rows from `first` on, channels from `channel` on. A thread has the same
 * eight channels of the same rows as in cut_slab. */
template <int ROWS, int THREADS>
__device__ void fetch(float *raw, const rows_of &m, int first, int channel)
{
#pragma unroll 1
    for (int t = threadIdx.x; t < ROWS * 8; t += THREADS) {
        int row = first + t / 8, at = channel + t % 8 * 8;
#pragma unroll
        for (int h = 0; h < 8; h += 4) {
            bool valid = row < m.rows && at + h < m.dim;
            const float *from = m.p + (valid ? row * m.ld + at + h : 0);
            copy16((bf16 *)(raw + 8 * t + h), (const bf16 *)from, valid);
        }
    }
}

template <int ROWS, int THREADS> __device__ void cut_slab(bf16 *slab, const float *raw)
{
#pragma unroll 1
    for (int t = threadIdx.x; t < ROWS * 8; t += THREADS) {
        const float4 *from = reinterpret_cast<const float4 *>(raw + 8 * t);
        store_parts<ROWS>(slab, t / 8, t % 8, from[0], from[1]);
    }
}

/* The queries of heads of one slab, once. */
template <int THREADS> __device__ void cut_queries(bf16 *slab, const rows_of &q)
{
    for (int t = threadIdx.x; t < kRows * 8; t += THREADS) {
        float4 x[2];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int at = t % 8 * 8 + 4 * h;
            bool valid = t / 8 < q.rows && at < q.dim;
            x[h] = valid ? *reinterpret_cast<const float4 *>(q.p + t / 8 * q.ld + at)
                         : make_float4(0, 0, 0, 0);
        }
        store_parts<kRows>(slab, t / 8, t % 8, x[0], x[1]);
    }
}

/* Two tiles of 16 x 8 over 16 inputs. The five small products are in chains, so the large ones
 * stand between them. */
__device__ void multiply(float (*big)[4], float (*small)[4], const uint32_t (&a)[3][4],
                         const uint32_t (&b)[3][4])
{
    constexpr int A[5] = {0, 2, 1, 1, 2}, B[5] = {2, 0, 1, 2, 1};
#pragma unroll
    for (int i = 0; i < 5; i++) {
#pragma unroll
        for (int n = 0; n < 2; n++)
            mma(small[n], a[A[i]], b[B[i]][2 * n], b[B[i]][2 * n + 1]);
        if (i < 2)
            mma(big[i], a[2], b[2][2 * i], b[2][2 * i + 1]);
    }
}

/* Address of 16 bytes of a slab; those `part` parts further, an even number, lie at
 * address ^ 16 part, and eight rows further is 1,024 bytes further. */
__device__ uint32_t spot(const bf16 *slab, int row, int part)
{
    return shared_address(slab + place<kSlab>(row, part));
}

/* w += q k^T over a slab: rows from row0, 8 N keys from key0. */
template <int KEYS, int N>
__device__ void add_scores(float (&w)[N][4], const bf16 *q, const bf16 *k, int row0, int key0)
{
    int lane = threadIdx.x % 32;
    uint32_t qs = spot(q, row0 + lane % 16, lane / 16);
    uint32_t ks = spot(k, key0 + lane % 8 + lane / 16 * 8, lane / 8 % 2);
    float big[N][4] = {}, small[N][4] = {};
#pragma unroll
    for (int d = 0; d < kSlab / 16; d++) {
        uint32_t a[3][4], b[3][4];
#pragma unroll
        for (int p = 0; p < 3; p++)
            load_matrix(a[p], (qs ^ 32 * d) + p * kRows * kSlabBytes);
#pragma unroll
        for (int n = 0; n < N; n += 2) {
#pragma unroll
            for (int p = 0; p < 3; p++)
                load_matrix(b[p], (ks ^ 32 * d) + (p * KEYS + 8 * n) * kSlabBytes);
            multiply(big + n, small + n, a, b);
        }
    }
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            w[n][i] += big[n][i] + small[n][i];
}

/* sum = sum * keep + weights v over a tile, a slab of channels. */
template <int KEYS>
__device__ void add_values(float (&sum)[8][4], const float (&keep)[2],
                           const uint32_t (&w)[KEYS / 16][3][4], const bf16 *v)
{
    int lane = threadIdx.x % 32;
    uint32_t vs = spot(v, lane % 16, lane / 16);
#pragma unroll
    for (int d = 0; d < 8; d += 2) {
        float big[2][4] = {}, small[2][4] = {};
#pragma unroll
        for (int k = 0; k < KEYS / 16; k++) {
            uint32_t b[3][4];
#pragma unroll
            for (int p = 0; p < 3; p++)
                load_transposed(b[p], (vs ^ 16 * d) + (p * KEYS + 16 * k) * kSlabBytes);
            multiply(big, small, w[k], b);
        }
#pragma unroll
        for (int i = 0; i < 8; i++) {
            float &to = sum[d + i / 4][i % 4];
            to = fmaf(to, keep[i % 4 / 2], big[i / 4][i % 4] + small[i / 4][i % 4]);
        }
    }
}

/* Weights as the left operand of products over the keys. */
template <int KEYS>
__device__ void cut_weights(uint32_t (&to)[KEYS / 16][3][4], const float (&w)[KEYS / 8][4])
{
#pragma unroll
    for (int k = 0; k < KEYS / 16; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t part[3];
            cut_pair(part, w[2 * k + i / 2][i % 2 * 2], w[2 * k + i / 2][i % 2 * 2 + 1]);
#pragma unroll
            for (int p = 0; p < 3; p++)
                to[k][p][i] = part[p];
        }
}

template <int OWN, int COLS>
__device__ void store(float *out, int64_t ldo, const float (&sum)[OWN][8][4],
                      const float (&mass)[2], int row0, int rows, int col, int dim)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int row = row0 + lane / 4 + 8 * h;
        float all = quad_sum(mass[h]);
        if (row >= rows)
            continue;
#pragma unroll
        for (int d = 0; d < 8 * OWN; d++) {
            int at = (COLS * (d / 8) + col) * kSlab + d % 8 * 8 + 2 * (lane % 4);
            const float *from = &sum[d / 8][d % 8][2 * h];
            if (at < dim)
                *reinterpret_cast<float2 *>(out + row * ldo + at) =
                    all > 0 ? make_float2(from[0] / all, from[1] / all) : make_float2(0, 0);
        }
    }
}

/* What a slab of the scores needs, or a turn of the sums, on its way. */
template <typename S>
__device__ void fetch_scores(float *raw, const rows_of &q, const rows_of &k, int at, int slab)
{
    if (S::SLABS > 1)
        fetch<kRows, S::THREADS>(raw + S::KEYS * kSlab, q, 0, slab * kSlab);
    fetch<S::KEYS, S::THREADS>(raw, k, at, slab * kSlab);
}
template <typename S>
__device__ void fetch_values(float *raw, const rows_of &v, int at, int turn)
{
#pragma unroll
    for (int c = 0; c < S::COLS; c++)
        fetch<S::KEYS, S::THREADS>(raw + c * S::KEYS * kSlab, v, at,
                                   (S::COLS * turn + c) * kSlab);
}

/* q: the tile's rows, at most 64; k, values: of the keys any of them may see. A RULE's of(row)
 * tells what that row sees: its score(key, q k) is the scaled score, or minus infinity. first: the
 * number the rule knows row 0 by. */
template <typename S, typename RULE>
__device__ void attend(float *out, int64_t ldo, const rows_of &q, const rows_of &k,
                       const float *values, int64_t first, const RULE &rule, char *room)
{
    constexpr int KEYS = S::KEYS;
    bf16 *qt = (bf16 *)room, *kv = qt + S::Q;
    float *raw = (float *)(kv + S::KV), *scores = raw + S::RAW;
    int row0 = threadIdx.x / 32 % 4 * 16, col = threadIdx.x / 128;
    int slabs = S::SLABS > 1 ? (q.dim + kSlab - 1) / kSlab : 1, key0 = col * 8 * S::N;
    bool idle = row0 >= q.rows;
    rows_of v = {values, k.ld, k.rows, k.dim};
    float sum[S::OWN][8][4] = {}, max[2] = {-INFINITY, -INFINITY}, mass[2] = {};
    __syncthreads();
    fetch_scores<S>(raw, q, k, 0, 0);
    copies_end();
    if (S::SLABS == 1)
        cut_queries<S::THREADS>(qt, q);
    for (int at = 0; at < k.rows; at += KEYS) {
        float part[S::N][4] = {}, w[KEYS / 8][4], keep[2];
        for (int slab = 0; slab < slabs; slab++) {
            copies_wait<0>();
            __syncthreads();
            if (S::SLABS > 1)
                cut_slab<kRows, S::THREADS>(qt, raw + KEYS * kSlab);
            cut_slab<KEYS, S::THREADS>(kv, raw);
            __syncthreads();
            if (slab + 1 < slabs)
                fetch_scores<S>(raw, q, k, at, slab + 1);
            else
                fetch_values<S>(raw, v, at, 0);
            copies_end();
            if (!idle)
                add_scores<KEYS>(part, qt, kv, row0, key0);
        }
        if constexpr (S::COLS > 1)
            exchange(w, part, scores, row0, key0);
        else
            memcpy(w, part, sizeof w);
        apply(w, rule, first, row0, q.rows - 1, at, k.rows - at);
        soften<true>(w, max, mass, keep);
        uint32_t weights[KEYS / 16][3][4];
        cut_weights<KEYS>(weights, w);
#pragma unroll
        for (int turn = 0; turn < S::OWN; turn++) {
            if (S::COLS * turn >= slabs)
                break;
            copies_wait<0>();
            __syncthreads();
#pragma unroll
            for (int c = 0; c < S::COLS; c++)
                cut_slab<KEYS, S::THREADS>(kv + c * 3 * KEYS * kSlab, raw + c * KEYS * kSlab);
            __syncthreads();
            if (S::COLS * (turn + 1) < slabs)
                fetch_values<S>(raw, v, at, turn + 1);
            else if (at + KEYS < k.rows)
                fetch_scores<S>(raw, q, k, at + KEYS, 0);
            copies_end();
            if (!idle)
                add_values<KEYS>(sum[turn], keep, weights, kv + col * 3 * KEYS * kSlab);
        }
    }
    copies_wait<0>();
    store<S::OWN, S::COLS>(out, ldo, sum, mass, row0, q.rows, col, q.dim);
}

template <typename S>
__global__ void __launch_bounds__(S::THREADS, S::BLOCKS)
    attend_spans(float *out, int64_t ldo, const float *q, int64_t ldq, const call *c, heads n)
{
    extern __shared__ __align__(128) char raw[];
    begin();
    for (int64_t item = blockIdx.x; item < c->items; item += gridDim.x) {
        const span &s = *span_of(c, item);
        int64_t first = (item - s.item) * kRows, row = s.query_row + first;
        int64_t kv = blockIdx.y / (n.heads / n.kv_heads) * (int64_t)n.dim;
        int64_t head = blockIdx.y * (int64_t)n.dim;
        int rows = s.query_rows - first < kRows ? (int)(s.query_rows - first) : kRows;
        int seen = (int)visible(s, first + rows - 1);
        attend<S>(out + row * ldo + head, ldo, {q + row * ldq + head, ldq, rows, n.dim},
                  {(const float *)s.k + kv, s.ld_kv, seen, n.dim},
                  (const float *)s.v + kv, first, span_rule{&s, n.scale}, raw);
    }
}

template <typename S>
__global__ void __launch_bounds__(S::THREADS, S::BLOCKS)
    attend_biased(float *out, int64_t ldo, const float *q, int64_t ldq, const biased_tasks *list,
                  int dim, float scale)
{
    extern __shared__ __align__(128) char raw[];
    begin();
    const biased_task *t = task_of(list, blockIdx.x);
    if (!t)
        return;
    const tt_biased_span &p = t->span;
    int64_t first = ((int64_t)blockIdx.x - t->first) * kRows, row = p.query_row + first;
    int rows = p.query_rows - first < kRows ? (int)(p.query_rows - first) : kRows;
    int64_t head = blockIdx.y * (int64_t)dim;
    attend<S>(out + row * ldo + head, ldo, {q + row * ldq + head, ldq, rows, dim},
              {(const float *)p.k + head, p.ld_kv, (int)p.keys, dim}, (const float *)p.v + head,
              first, bias_rule{&p, blockIdx.y, scale}, raw);
}

template <typename S>
tt_status run_spans(const cuda *c, float *out, int64_t ldo, const float *q, int64_t ldq,
                    const call *spans, const heads &n, dim3 grid, tt_err *e)
{
    static uint64_t allowed;
    tt_status st = allow_shared(c, &allowed, attend_spans<S>, S::BYTES, "attention", e);
    return st ? st
              : launch(c, "attention", attend_spans<S>, grid, S::THREADS, S::BYTES, e, out, ldo, q,
                       ldq, spans, n);
}

template <typename S>
tt_status run_biased(const cuda *c, float *out, int64_t ldo, const float *q, int64_t ldq,
                     const biased_tasks *list, dim3 grid, int dim, float scale, tt_err *e)
{
    static uint64_t allowed;
    tt_status st = allow_shared(c, &allowed, attend_biased<S>, S::BYTES, "attention_biased", e);
    return st ? st
              : launch(c, "attention_biased", attend_biased<S>, grid, S::THREADS, S::BYTES, e, out,
                       ldo, q, ldq, list, dim, scale);
}

} // namespace

bool cuda_thirds_fit(const void *out, int64_t ldo, const void *q, int64_t ldq, int64_t dim)
{
    return dim % 4 == 0 && dim <= kMostDim && ldq % 4 == 0 && ldo % 4 == 0 && aligned16(q) &&
           aligned16(out);
}

tt_status cuda_attend_thirds(const cuda *c, float *out, int64_t ldo, const float *q, int64_t ldq,
                             const call *spans, const heads &n, unsigned grid, tt_err *e)
{
    auto run = n.dim <= kSlab ? run_spans<one_slab> : run_spans<many_slabs>;
    return run(c, out, ldo, q, ldq, spans, n, dim3(grid, (unsigned)n.heads), e);
}

tt_status cuda_attend_thirds_biased(const cuda *c, float *out, int64_t ldo, const float *q,
                                    int64_t ldq, const biased_tasks *list, dim3 grid, int dim,
                                    float scale, tt_err *e)
{
    auto run = dim <= kSlab ? run_biased<one_slab> : run_biased<many_slabs>;
    return run(c, out, ldo, q, ldq, list, grid, dim, scale, e);
}
