/* head_between.cu - what is kept of a hidden row between passes: how far its distribution moved
 * (head_kl), the embedding it expects (head_mean). Both need whole softmaxes, so both make a tile
 * of at most CUDA_TILE bytes of logits as head.cu does and reduce it. Sums run in an order that
 * depends on the number of ids alone; those of a row are in double, except that head_mean adds runs
 * of kIds ids in float32 first. */
#include "kernels/cuda/head.cuh"

namespace {

constexpr int kThreads = 512;

__device__ float block_max(float x)
{
    __shared__ float part[kThreads / 32];
    for (int d = 16; d; d >>= 1)
        x = fmaxf(x, __shfl_xor_sync(~0u, x, d));
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = x;
    __syncthreads();
    for (int w = 0; w < kThreads / 32; w++)
        x = fmaxf(x, part[w]);
    return x;
}

/* Softmax of every row in place; zeros where nothing is possible. */
__global__ void __launch_bounds__(kThreads) softmax_rows(float *tile, int64_t n)
{
    begin();
    float *l = tile + blockIdx.x * n, max = -INFINITY;
    for (int64_t i = threadIdx.x; i < n; i += kThreads)
        max = fmaxf(max, l[i]);
    max = block_max(max);
    double sum = 0;
    for (int64_t i = threadIdx.x; i < n && max > -INFINITY; i += kThreads)
        sum += expf(l[i] - max);
    sum = block_sum(sum);
    float inverse = sum > 0 ? (float)(1.0 / sum) : 0.0f;
    for (int64_t i = threadIdx.x; i < n; i += kThreads)
        l[i] = sum > 0 ? expf(l[i] - max) * inverse : 0.0f;
}

/* --- head_kl --- */

__global__ void __launch_bounds__(kThreads) kl_rows(float *kl, const float *now,
                                                    const float *before, int64_t n)
{
    begin();
    const float *p = now + blockIdx.x * n, *q = before + blockIdx.x * n;
    double sum = 0;
    bool possible = false;
    for (int64_t i = threadIdx.x; i < n; i += kThreads) {
        possible |= q[i] > 0;
        if (p[i] > 0)
            sum += p[i] * (logf(p[i] + 1e-12f) - logf(q[i] + 1e-12f));
    }
    sum = block_sum(sum);
    possible = __syncthreads_or(possible);
    if (threadIdx.x == 0)
        kl[blockIdx.x] = possible ? (float)sum : 0.0f;
}

/* --- head_mean --- */

constexpr int kIds = 2048;    /* of a part */
constexpr int kAtOnce = 64;   /* ids whose probabilities are shared at a time */
constexpr int kRows = 8;      /* of a block */
constexpr int kLanes = 128;   /* threads of a block, two channels each */

/* part[k][r][c]: the share of ids [k kIds, (k + 1) kIds) in channel c of row r. */
template <typename W>
__global__ void __launch_bounds__(kLanes) mean_parts(float *part, const float *p, int64_t rows,
                                                     int64_t n, const W *table, int64_t kp,
                                                     const float *scale, int64_t dim)
{
    __shared__ float ps[kAtOnce][kRows];
    begin();
    int64_t c = ((int64_t)blockIdx.x * kLanes + threadIdx.x) * 2, r0 = (int64_t)blockIdx.z * kRows;
    int64_t from = (int64_t)blockIdx.y * kIds, end = from + kIds < n ? from + kIds : n;
    float sum[kRows][2] = {};
    for (int64_t id0 = from; id0 < end; id0 += kAtOnce) {
        __syncthreads();
        for (int t = threadIdx.x; t < kAtOnce * kRows; t += kLanes) {
            int64_t id = id0 + t % kAtOnce, r = r0 + t / kAtOnce;
            float v = id < end && r < rows ? p[r * n + id] : 0.0f;
            ps[t % kAtOnce][t / kAtOnce] = scale && id < end ? v * scale[id] : v;
        }
        __syncthreads();
        int ids = end - id0 < kAtOnce ? (int)(end - id0) : kAtOnce;
        for (int j = 0; j < ids && c < dim; j++) { /* kp is even: the second channel is there */
            const W *row = table + (id0 + j) * kp + c;
            float a = get(row[0]), b = get(row[1]);
#pragma unroll
            for (int r = 0; r < kRows; r++) {
                sum[r][0] = fmaf(ps[j][r], a, sum[r][0]);
                sum[r][1] = fmaf(ps[j][r], b, sum[r][1]);
            }
        }
    }
#pragma unroll
    for (int r = 0; r < kRows; r++)
        for (int i = 0; i < 2; i++)
            if (r0 + r < rows && c + i < dim)
                part[(blockIdx.y * rows + r0 + r) * dim + c + i] = sum[r][i];
}

template <typename T>
__global__ void merge_means(T *y, int64_t ldy, const float *part, int parts, int64_t rows,
                            int64_t dim)
{
    begin();
    int64_t r = blockIdx.x;
    for (int64_t c = threadIdx.x; c < dim; c += blockDim.x) {
        double sum = 0;
        for (int k = 0; k < parts; k++)
            sum += part[(k * rows + r) * dim + c];
        put(&y[r * ldy + c], (float)sum);
    }
}

struct mean_call {
    tt_act *y;
    int64_t ldy, rows;
    float *p, *part;
    const tt_matrix *table;
};

template <typename W> tt_status run_parts(const cuda *c, const mean_call &m, tt_err *e)
{
    const tt_matrix *t = m.table;
    dim3 grid(blocks(t->k, 2 * kLanes), blocks(t->n, kIds), blocks(m.rows, kRows));
    return launch(c, "head_mean", mean_parts<W>, grid, kLanes, 0, e, m.part, (const float *)m.p,
                  m.rows, t->n, (const W *)t->data, t->kp, (const float *)t->scale, t->k);
}

template <typename T> tt_status run_merge(const cuda *c, const mean_call &m, tt_err *e)
{
    return launch(c, "head_mean", merge_means<T>, (unsigned)m.rows, 256, 0, e, (T *)m.y, m.ldy,
                  (const float *)m.part, (int)blocks(m.table->n, kIds), m.rows, m.table->k);
}

/* --- the host's side --- */

tt_status check(const char *op, const tt_stream *s, int64_t ldx, int64_t rows, const tt_matrix *w,
                const tt_draw *draw, tt_err *e)
{
    tt_status st = cuda_check_head(op, s, w, ldx, rows, e);
    for (int64_t r = 0; r < rows && !st; r++)
        st = cuda_check_draw(op, &draw[r], r, w->n, e);
    return st;
}

/* Rows of a tile that takes so many numbers for each. */
int64_t tile_rows(int64_t rows, int64_t numbers)
{
    int64_t most = CUDA_TILE / (numbers * 4);
    most = most < 1 ? 1 : most > 128 ? 128 : most;
    return rows < most ? rows : most;
}

const char *row_at(const tt_stream *s, const tt_act *x, int64_t ld, int64_t row)
{
    return (const char *)x + (size_t)(row * ld) * tt_dtype_size(s->act);
}

} // namespace

extern "C" tt_status tt_cuda_head_kl(tt_stream *s, float *kl, const tt_act *x, int64_t ldx,
                                     const tt_act *before, int64_t ldb, int64_t rows,
                                     const tt_matrix *w, const tt_draw *draw, tt_err *e)
{
    cuda *c = cuda_of(s);
    tt_status st = check("head_kl", s, ldx < ldb ? ldx : ldb, rows, w, draw, e);
    if (st || !rows)
        return st;
    int64_t n = w->n, tile = tile_rows(rows, 2 * n + 1);
    st = cuda_reserve(c, &c->tile, &c->tile_bytes, (size_t)(tile * (2 * n + 1)) * 4, e);
    float *p = (float *)c->tile, *q = p + tile * n, *out = q + tile * n;
    for (int64_t r = 0; r < rows && !st; r += tile) {
        int64_t m = rows - r < tile ? rows - r : tile;
        st = cuda_head_logits(c, p, row_at(s, x, ldx, r), ldx, m, w, draw + r, e);
        if (!st)
            st = cuda_head_logits(c, q, row_at(s, before, ldb, r), ldb, m, w, draw + r, e);
        if (!st)
            st = launch(c, "head_kl", softmax_rows, (unsigned)m, kThreads, 0, e, p, n);
        if (!st)
            st = launch(c, "head_kl", softmax_rows, (unsigned)m, kThreads, 0, e, q, n);
        if (!st)
            st = launch(c, "head_kl", kl_rows, (unsigned)m, kThreads, 0, e, out, p, q, n);
        if (!st)
            st = cuda_result(c, kl + r, out, (size_t)m * sizeof *kl, e);
    }
    return st;
}

extern "C" tt_status tt_cuda_head_mean(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x,
                                       int64_t ldx, int64_t rows, const tt_matrix *w,
                                       const tt_matrix *table, const tt_draw *draw, tt_err *e)
{
    cuda *c = cuda_of(s);
    tt_status st = check("head_mean", s, ldx, rows, w, draw, e);
    if (st)
        return st;
    if (table->n != w->n || ldy < table->k || !(table->flags & TT_MATRIX_TABLE) ||
        table->flags & TT_MATRIX_GLU || table->fp8)
        return tt_fail(e, TT_EINVAL, "head_mean: %lld logits over a table of %lld rows of %lld, "
                       "flags %u, stride %lld", (long long)w->n, (long long)table->n,
                       (long long)table->k, table->flags, (long long)ldy);
    if (!rows)
        return TT_OK;
    int64_t n = w->n, parts = blocks(n, kIds), tile = tile_rows(rows, n + parts * table->k);
    st = cuda_reserve(c, &c->tile, &c->tile_bytes, (size_t)(tile * (n + parts * table->k)) * 4, e);
    float *p = (float *)c->tile;
    for (int64_t r = 0; r < rows && !st; r += tile) {
        int64_t m = rows - r < tile ? rows - r : tile;
        mean_call call = {(tt_act *)row_at(s, y, ldy, r), ldy, m, p, p + tile * n, table};
        st = cuda_head_logits(c, p, row_at(s, x, ldx, r), ldx, m, w, draw + r, e);
        if (!st)
            st = launch(c, "head_mean", softmax_rows, (unsigned)m, kThreads, 0, e, p, n);
        if (!st)
            st = table->compute == TT_COMPUTE_BF16 ? run_parts<bf16>(c, call, e)
                                                   : run_parts<float>(c, call, e);
        if (!st)
            st = s->act == TT_BF16 ? run_merge<bf16>(c, call, e) : run_merge<float>(c, call, e);
    }
    return st;
}
