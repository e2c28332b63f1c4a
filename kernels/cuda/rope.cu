/* rope.cu - rotary position embedding, and keys and values on their way to the stores. */
#include "kernels/cuda/device.cuh"

namespace {

constexpr int kThreads = 256;
constexpr int kFewRows = 512, kShares = 4; /* rows up to which one is so many blocks' work */

__global__ void table_rows(float *cos_out, float *sin_out, const int32_t *position,
                           const float *inv_freq, int64_t half)
{
    begin();
    int64_t r = blockIdx.x;
    for (int64_t i = threadIdx.x; i < half; i += blockDim.x) {
        float angle = __fmul_rn((float)position[r], inv_freq[i]);
        cos_out[r * half + i] = cosf(angle);
        sin_out[r * half + i] = sinf(angle);
    }
}

/* The stores of one call as an argument: the count, then the entries. */
struct stores {
    int64_t n;
    tt_store at[];
};

/* The store of a row, or NULL. */
__device__ const tt_store *store_of(const stores *s, int64_t row)
{
    int64_t low = 0, high = s ? s->n : 0;
    while (low < high) {
        int64_t mid = (low + high) / 2;
        if (row < s->at[mid].row)
            high = mid;
        else if (row >= s->at[mid].row + s->at[mid].rows)
            low = mid + 1;
        else
            return &s->at[mid];
    }
    return nullptr;
}

template <typename T> __device__ void rotate(T *lo, T *hi, float c, float d)
{
    float a = get(*lo), b = get(*hi);
    put(lo, a * c - b * d);
    put(hi, b * c + a * d);
}

/* gridDim.y blocks a row. The first heads heads of the row rotate, those from q_width channels on
 * (keys) also on their way to the row's store, where the values behind them go as they are; keys
 * and values are kv_width each. WIDE: 16 bytes a thread. The store is looked up while the kernel
 * before still runs: it and the columns are arguments and inputs of the pass, written before any of
 * its kernels. */
template <typename T, bool WIDE>
__global__ void rope_rows(T *x, int64_t ld, const float *cos_in, const float *sin_in, int heads,
                          int head_dim, int half, int64_t q_width, int64_t kv_width,
                          const stores *to, const int32_t *column)
{
    let_next_start();
    constexpr int N = WIDE ? pack<T>::N : 1;
    int64_t r = blockIdx.x;
    int first = (int)(blockIdx.y * blockDim.x + threadIdx.x), step = (int)(gridDim.y * blockDim.x);
    const tt_store *s = store_of(to, r);
    T *k = nullptr, *v = nullptr;
    if (s) {
        int64_t at = (int64_t)column[r] * kv_width;
        k = (T *)s->k + at - q_width;
        v = (T *)s->v + at;
    }
    wait_for_previous();
    T *row = x + r * ld;
    const float *c = cos_in + r * half, *d = sin_in + r * half;
    int runs = half / N;
    for (int t = first; t < heads * runs; t += step) {
        int h = t / runs, i = t % runs * N;
        int64_t at = (int64_t)h * head_dim + i;
        T *lo = row + at, *hi = lo + half;
        bool keep = s && at >= q_width;
        if (WIDE) {
            pack<T> a = load16(lo), b = load16(hi);
#pragma unroll
            for (int j = 0; j < N; j++)
                rotate(&a.v[j], &b.v[j], c[i + j], d[i + j]);
            store16(lo, a);
            store16(hi, b);
            if (keep) {
                store16(k + at, a);
                store16(k + at + half, b);
            }
        } else {
            rotate(lo, hi, c[i], d[i]);
            if (keep) {
                k[at] = *lo;
                k[at + half] = *hi;
            }
        }
    }
    if (!s)
        return;
    const T *values = row + q_width + kv_width;
    for (int64_t i = (int64_t)first * N; i < kv_width; i += (int64_t)step * N)
        if (WIDE)
            store16(v + i, load16(values + i));
        else
            v[i] = values[i];
    int still = head_dim - 2 * half; /* channels of a head that do not rotate */
    for (int64_t i = first; i < kv_width / head_dim * still; i += step) {
        int64_t at = q_width + i / still * head_dim + 2 * half + i % still;
        k[at] = row[at];
    }
}

struct shape {
    int64_t rows, heads, kv_heads, head_dim, half; /* kv_heads 0: only rotate */
};

template <typename T>
tt_status run(const cuda *c, T *x, int64_t ld, const float *cos_in, const float *sin_in,
              const shape &n, const stores *to, const int32_t *column, tt_err *e)
{
    constexpr int N = pack<T>::N;
    int64_t q = n.heads * n.head_dim, kv = n.kv_heads * n.head_dim;
    bool wide = aligned16(x) && ld % N == 0 && n.half % N == 0 && n.head_dim % N == 0;
    int heads = (int)(n.heads + n.kv_heads);
    auto kernel = wide ? rope_rows<T, true> : rope_rows<T, false>;
    dim3 grid((unsigned)n.rows, n.rows <= kFewRows ? kShares : 1);
    return launch(c, "rope", kernel, grid, kThreads, 0, e, x, ld, cos_in, sin_in, heads,
                  (int)n.head_dim, (int)n.half, q, kv, to, column);
}

tt_status check(const char *op, int64_t width, int64_t ld, const shape &n, tt_err *e)
{
    if (n.heads < 1 || n.kv_heads < 0 || n.head_dim < 1 || bad_shape(n.rows, width, ld))
        return shape_error(op, n.rows, width, ld, e);
    if (n.half < 1 || 2 * n.half > n.head_dim)
        return tt_fail(e, TT_EINVAL, "%s: %lld channel pairs in heads of %lld", op,
                       (long long)n.half, (long long)n.head_dim);
    return TT_OK;
}

} // namespace

extern "C" tt_status tt_cuda_rope_table(tt_stream *s, float *cos_out, float *sin_out,
                                        const int32_t *position, const float *inv_freq,
                                        int64_t rows, int64_t half, tt_err *e)
{
    if (bad_shape(rows, half, half))
        return shape_error("rope_table", rows, half, half, e);
    return rows ? launch(cuda_of(s), "rope_table", table_rows, (unsigned)rows, 64, 0, e, cos_out,
                         sin_out, position, inv_freq, half)
                : TT_OK;
}

extern "C" tt_status tt_cuda_rope(tt_stream *s, tt_act *x, int64_t ld, const float *cos_in,
                                  const float *sin_in, int64_t rows, int64_t heads,
                                  int64_t head_dim, int64_t half, tt_err *e)
{
    shape n = {rows, heads, 0, head_dim, half};
    tt_status st = check("rope", heads * head_dim, ld, n, e);
    if (st || rows == 0)
        return st;
    cuda *c = cuda_of(s);
    return s->act == TT_BF16
               ? run(c, (bf16 *)x, ld, cos_in, sin_in, n, (const stores *)nullptr, nullptr, e)
               : run(c, (float *)x, ld, cos_in, sin_in, n, (const stores *)nullptr, nullptr, e);
}

extern "C" tt_status tt_cuda_rope_store(tt_stream *s, tt_act *x, int64_t ld, const float *cos_in,
                                        const float *sin_in, int64_t rows, int64_t heads,
                                        int64_t kv_heads, int64_t head_dim, int64_t half,
                                        const tt_store *store, int64_t count,
                                        const int32_t *column, tt_err *e)
{
    cuda *c = cuda_of(s);
    shape n = {rows, heads, kv_heads, head_dim, half};
    tt_status st = check("rope_store", (heads + 2 * kv_heads) * head_dim, ld, n, e);
    if (st || rows == 0)
        return st;
    size_t bytes = sizeof(stores) + (size_t)count * sizeof *store;
    void *host, *dev;
    st = cuda_arg_room(c, &host, &dev,
                       sizeof(stores) + (size_t)cuda_list_room(count) * sizeof *store, e);
    if (st)
        return st;
    stores *list = (stores *)host;
    list->n = count;
    for (int64_t i = 0; i < count; i++)
        list->at[i] = store[i];
    st = cuda_arg_send(c, host, bytes, e);
    if (st)
        return st;
    const stores *to = (const stores *)dev;
    return s->act == TT_BF16 ? run(c, (bf16 *)x, ld, cos_in, sin_in, n, to, column, e)
                             : run(c, (float *)x, ld, cos_in, sin_in, n, to, column, e);
}
