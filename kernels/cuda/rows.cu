/* rows.cu - row-wise operations: embedding, norm, gather, guidance, gated activation, sum. All are
 * bound by memory or launch latency: one block a row, 16 bytes a thread where addresses allow. */
#include <algorithm>

#include "kernels/cuda/device.cuh"

namespace {

constexpr int kThreads = 256;

/* --- embedding --- */

template <typename T, typename W>
__global__ void embed_rows(T *y, int64_t ldy, const W *table, int64_t kp, const float *scale,
                           const int32_t *id, int64_t dim)
{
    begin();
    int64_t r = blockIdx.x, from = id[r];
    float by = scale ? scale[from] : 1.0f;
    for (int64_t i = threadIdx.x; i < dim; i += blockDim.x)
        put(&y[r * ldy + i], get(table[from * kp + i]) * by);
}

/* The same, 16 bytes a thread. */
__global__ void embed_wide(bf16 *y, int64_t ldy, const bf16 *table, int64_t kp, const float *scale,
                           const int32_t *id, int64_t dim)
{
    begin();
    int64_t r = blockIdx.x, from = id[r];
    int64_t i = (blockIdx.y * (int64_t)kThreads + threadIdx.x) * pack<bf16>::N;
    if (i >= dim)
        return;
    pack<bf16> v = load16(table + from * kp + i);
    float by = scale ? scale[from] : 1.0f;
#pragma unroll
    for (int j = 0; j < pack<bf16>::N; j++)
        put(&v.v[j], get(v.v[j]) * by);
    store16(y + r * ldy + i, v);
}

/* --- RMSNorm --- */

/* As released code does it: the normalised value is rounded to the activations' type before it is
 * multiplied by the weight. In the wide kernels a row of at most kKept * 16 bytes a thread is read
 * once and stays in registers. */
constexpr int kKept = 4;

/* A thread's share of a row, and of a weight. */
template <typename T> struct kept {
    static constexpr int N = pack<T>::N;
    pack<T> v[kKept];

    static __device__ int64_t place(int k) { return (k * kThreads + threadIdx.x) * (int64_t)N; }

    __device__ void load(const T *in, int64_t dim)
    {
#pragma unroll
        for (int k = 0; k < kKept; k++)
            if (place(k) < dim)
                v[k] = load16(in + place(k));
    }
    __device__ void store(T *out, int64_t dim) const
    {
#pragma unroll
        for (int k = 0; k < kKept; k++)
            if (place(k) < dim)
                store16(out + place(k), v[k]);
    }
    __device__ void normalise(const float (&weight)[kKept][N], int64_t dim, float eps)
    {
        float sum = 0;
#pragma unroll
        for (int k = 0; k < kKept; k++)
#pragma unroll
            for (int j = 0; j < N; j++)
                if (place(k) < dim)
                    sum = fmaf(get(v[k].v[j]), get(v[k].v[j]), sum);
        float inv = rsqrtf(block_sum(sum) / (float)dim + eps);
#pragma unroll
        for (int k = 0; k < kKept; k++)
#pragma unroll
            for (int j = 0; j < N; j++)
                put(&v[k].v[j], weight[k][j] * rounded(v[k].v, get(v[k].v[j]) * inv));
    }
};

template <int N>
__device__ void load_weight(float (&weight)[kKept][N], const float *w, int64_t dim)
{
#pragma unroll
    for (int k = 0; k < kKept; k++)
#pragma unroll
        for (int j = 0; j < N; j += 4) {
            int64_t i = (k * kThreads + threadIdx.x) * (int64_t)N;
            pack<float> four = {};
            if (i < dim)
                four = load16(w + i + j);
#pragma unroll
            for (int u = 0; u < 4; u++)
                weight[k][j + u] = four.v[u];
        }
}

/* Weights come while the kernel before still runs. */
template <typename T>
__global__ void __launch_bounds__(kThreads) rmsnorm_wide(T *y, int64_t ldy, const T *x, int64_t ldx,
                                                         const float *w, int64_t dim, float eps)
{
    let_next_start();
    kept<T> row;
    float weight[kKept][kept<T>::N];
    load_weight(weight, w, dim);
    wait_for_previous();
    row.load(x + blockIdx.x * ldx, dim);
    row.normalise(weight, dim, eps);
    row.store(y + blockIdx.x * ldy, dim);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    rmsnorm_twice_wide(T *z, int64_t ldz, const float *v, T *y, int64_t ldy, const T *x,
                       int64_t ldx, const float *w, int64_t dim, float eps)
{
    let_next_start();
    kept<T> row;
    float first[kKept][kept<T>::N], second[kKept][kept<T>::N];
    load_weight(first, w, dim);
    load_weight(second, v, dim);
    wait_for_previous();
    row.load(x + blockIdx.x * ldx, dim);
    row.normalise(first, dim, eps);
    row.store(y + blockIdx.x * ldy, dim);
    row.normalise(second, dim, eps);
    row.store(z + blockIdx.x * ldz, dim);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) rmsnorm_rows(T *y, int64_t ldy, const T *x,
                                                         int64_t ldx, const float *w, int64_t dim,
                                                         float eps)
{
    begin();
    const T *in = x + blockIdx.x * ldx;
    T *out = y + blockIdx.x * ldy;
    float sum = 0;
    for (int64_t i = threadIdx.x; i < dim; i += kThreads)
        sum = fmaf(get(in[i]), get(in[i]), sum);
    float inv = rsqrtf(block_sum(sum) / (float)dim + eps);
    for (int64_t i = threadIdx.x; i < dim; i += kThreads)
        put(&out[i], w[i] * rounded(x, get(in[i]) * inv));
}

/* --- gather, guidance, SwiGLU --- */

template <typename T>
__global__ void gather_rows(T *y, int64_t ldy, const T *x, int64_t ldx, const int32_t *index,
                            int64_t dim, bool wide)
{
    begin();
    const T *in = x + (int64_t)index[blockIdx.x] * ldx;
    T *out = y + blockIdx.x * ldy;
    constexpr int N = pack<T>::N;
    if (wide)
        for (int64_t i = threadIdx.x * N; i < dim; i += blockDim.x * N)
            store16(out + i, load16(in + i));
    else
        for (int64_t i = threadIdx.x; i < dim; i += blockDim.x)
            out[i] = in[i];
}

template <typename T>
__global__ void scatter_rows(T *y, int64_t ldy, const T *x, int64_t ldx, const int32_t *index,
                             int64_t dim, bool wide)
{
    begin();
    const T *in = x + blockIdx.x * ldx;
    T *out = y + index[blockIdx.x] * ldy;
    constexpr int N = pack<T>::N;
    if (wide)
        for (int64_t i = threadIdx.x * N; i < dim; i += blockDim.x * N)
            store16(out + i, load16(in + i));
    else
        for (int64_t i = threadIdx.x; i < dim; i += blockDim.x)
            out[i] = in[i];
}

template <typename T>
__global__ void cfg_mix_rows(T *y, int64_t ldy, const T *u, int64_t ldu, const float *scale,
                             int64_t dim)
{
    begin();
    int64_t r = blockIdx.x;
    float by = scale[r] + 1.0f;
    for (int64_t i = threadIdx.x; i < dim; i += blockDim.x) {
        float from = get(u[r * ldu + i]), to = get(y[r * ldy + i]);
        put(&y[r * ldy + i], fmaf(by, to - from, from));
    }
}

template <typename T>
__global__ void swiglu_rows(T *y, int64_t ldy, const T *gate, const T *up, int64_t ld, int64_t dim)
{
    begin();
    int64_t r = blockIdx.x;
    for (int64_t i = threadIdx.x; i < dim; i += blockDim.x) {
        float g = get(gate[r * ld + i]);
        put(&y[r * ldy + i], g / (1.0f + expf(-g)) * get(up[r * ld + i]));
    }
}

/* y + x or, PRODUCT, y x. */
template <typename T, bool PRODUCT>
__global__ void combine_rows(T *y, int64_t ldy, const T *x, int64_t ldx, int64_t dim)
{
    begin();
    int64_t r = blockIdx.x;
    for (int64_t i = threadIdx.x; i < dim; i += blockDim.x) {
        float a = get(y[r * ldy + i]), b = get(x[r * ldx + i]);
        put(&y[r * ldy + i], PRODUCT ? a * b : a + b);
    }
}

/* 16 bytes a thread, as many blocks a row as that takes: a loop would wait for memory each time. */
template <typename T, bool PRODUCT>
__global__ void combine_wide(T *y, int64_t ldy, const T *x, int64_t ldx, int64_t dim)
{
    begin();
    int64_t i = (blockIdx.y * (int64_t)kThreads + threadIdx.x) * pack<T>::N;
    if (i >= dim)
        return;
    T *to = y + blockIdx.x * ldy + i;
    pack<T> a = load16(to), b = load16(x + blockIdx.x * ldx + i);
#pragma unroll
    for (int j = 0; j < pack<T>::N; j++) {
        float u = get(a.v[j]), v = get(b.v[j]);
        put(&a.v[j], PRODUCT ? u * v : u + v);
    }
    store16(to, a);
}

template <typename T>
__global__ void add_scaled_rows(T *y, int64_t ldy, const T *x, int64_t ldx, const float *scale,
                                int64_t dim)
{
    begin();
    int64_t r = blockIdx.x;
    float by = scale[r];
    for (int64_t i = threadIdx.x; i < dim && by != 0; i += blockDim.x)
        put(&y[r * ldy + i], fmaf(by, get(x[r * ldx + i]), get(y[r * ldy + i])));
}

template <typename T>
bool wide(const void *a, int64_t lda, const void *b, int64_t ldb, int64_t dim)
{
    constexpr int N = pack<T>::N;
    return aligned16(a) && aligned16(b) && lda % N == 0 && ldb % N == 0 && dim % N == 0;
}

template <typename T, bool PRODUCT>
tt_status combine(const cuda *c, const char *what, T *y, int64_t ldy, const T *x, int64_t ldx,
                  int64_t rows, int64_t dim, tt_err *e)
{
    unsigned across = blocks(dim, kThreads * (int64_t)pack<T>::N);
    if (!wide<T>(y, ldy, x, ldx, dim) || across > 65535)
        return launch(c, what, combine_rows<T, PRODUCT>, (unsigned)rows, kThreads, 0, e, y, ldy, x,
                      ldx, dim);
    return launch(c, what, combine_wide<T, PRODUCT>, dim3((unsigned)rows, across), kThreads, 0, e,
                  y, ldy, x, ldx, dim);
}

} // namespace

extern "C" tt_status tt_cuda_embed(tt_stream *s, tt_act *y, int64_t ldy, const tt_matrix *table,
                                   const int32_t *id, int64_t rows, tt_err *e)
{
    cuda *c = cuda_of(s);
    if (bad_shape(rows, table->k, ldy))
        return shape_error("embed", rows, table->k, ldy, e);
    if (!(table->flags & TT_MATRIX_TABLE) || (table->flags & TT_MATRIX_GLU) || table->fp8)
        return tt_fail(e, TT_EINVAL, "embed: the matrix was not opened as a table");
    if (rows == 0)
        return TT_OK;
    unsigned across = blocks(table->k, kThreads * (int64_t)pack<bf16>::N);
    if (table->compute == TT_COMPUTE_BF16 && s->act == TT_BF16 && across <= 65535 &&
        wide<bf16>(y, ldy, table->data, table->kp, table->k))
        return launch(c, "embed", embed_wide, dim3((unsigned)rows, across), kThreads, 0, e,
                      (bf16 *)y, ldy, (const bf16 *)table->data, table->kp, table->scale, id,
                      table->k);
    if (table->compute == TT_COMPUTE_BF16)
        BY_TYPE((launch(c, "embed", embed_rows<T, bf16>, (unsigned)rows, kThreads, 0, e, (T *)y,
                        ldy, (const bf16 *)table->data, table->kp, table->scale, id, table->k)));
    BY_TYPE((launch(c, "embed", embed_rows<T, float>, (unsigned)rows, kThreads, 0, e, (T *)y, ldy,
                    (const float *)table->data, table->kp, table->scale, id, table->k)));
}

extern "C" tt_status tt_cuda_rmsnorm(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x,
                                     int64_t ldx, const float *w, int64_t rows, int64_t dim,
                                     float eps, tt_err *e)
{
    cuda *c = cuda_of(s);
    if (bad_shape(rows, dim, ldx) || ldy < dim)
        return shape_error("rmsnorm", rows, dim, ldx < ldy ? ldx : ldy, e);
    if (rows == 0)
        return TT_OK;
    BY_TYPE(launch(c, "rmsnorm",
                   wide<T>(y, ldy, x, ldx, dim) && aligned16(w) &&
                           dim <= kKept * kThreads * pack<T>::N
                       ? rmsnorm_wide<T>
                       : rmsnorm_rows<T>,
                   (unsigned)rows, kThreads, 0, e, (T *)y, ldy, (const T *)x, ldx, w, dim, eps));
}

extern "C" tt_status tt_cuda_rmsnorm_twice(tt_stream *s, tt_act *z, int64_t ldz, const float *v,
                                           tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                                           const float *w, int64_t rows, int64_t dim, float eps,
                                           tt_err *e)
{
    cuda *c = cuda_of(s);
    if (bad_shape(rows, dim, ldx) || ldy < dim || ldz < dim)
        return shape_error("rmsnorm_twice", rows, dim, std::min(ldx, std::min(ldy, ldz)), e);
    if (rows == 0)
        return TT_OK;
    int64_t n = 16 / (int64_t)tt_dtype_size(s->act);
    bool ok = dim % n == 0 && ldx % n == 0 && ldy % n == 0 && ldz % n == 0 && aligned16(x) &&
              aligned16(y) && aligned16(z) && aligned16(w) && aligned16(v);
    if (!ok || dim > kKept * kThreads * n) {
        tt_status st = tt_cuda_rmsnorm(s, y, ldy, x, ldx, w, rows, dim, eps, e);
        return st ? st : tt_cuda_rmsnorm(s, z, ldz, y, ldy, v, rows, dim, eps, e);
    }
    BY_TYPE(launch(c, "rmsnorm_twice", rmsnorm_twice_wide<T>, (unsigned)rows, kThreads, 0, e,
                   (T *)z, ldz, v, (T *)y, ldy, (const T *)x, ldx, w, dim, eps));
}

extern "C" tt_status tt_cuda_gather(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x,
                                    int64_t ldx, const int32_t *index, int64_t rows, int64_t dim,
                                    tt_err *e)
{
    cuda *c = cuda_of(s);
    if (bad_shape(rows, dim, ldx) || ldy < dim)
        return shape_error("gather", rows, dim, ldx < ldy ? ldx : ldy, e);
    if (rows == 0)
        return TT_OK;
    BY_TYPE(launch(c, "gather", gather_rows<T>, (unsigned)rows, kThreads, 0, e, (T *)y, ldy,
                   (const T *)x, ldx, index, dim, wide<T>(y, ldy, x, ldx, dim)));
}

extern "C" tt_status tt_cuda_scatter(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x,
                                     int64_t ldx, const int32_t *index, int64_t rows, int64_t dim,
                                     tt_err *e)
{
    cuda *c = cuda_of(s);
    if (bad_shape(rows, dim, ldx) || ldy < dim)
        return shape_error("scatter", rows, dim, ldx < ldy ? ldx : ldy, e);
    if (rows == 0)
        return TT_OK;
    BY_TYPE(launch(c, "scatter", scatter_rows<T>, (unsigned)rows, kThreads, 0, e, (T *)y, ldy,
                   (const T *)x, ldx, index, dim, wide<T>(y, ldy, x, ldx, dim)));
}

extern "C" tt_status tt_cuda_cfg_mix(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *u,
                                     int64_t ldu, const float *scale, int64_t rows, int64_t dim,
                                     tt_err *e)
{
    cuda *c = cuda_of(s);
    if (bad_shape(rows, dim, ldu) || ldy < dim)
        return shape_error("cfg_mix", rows, dim, ldu < ldy ? ldu : ldy, e);
    if (rows == 0)
        return TT_OK;
    BY_TYPE(launch(c, "cfg_mix", cfg_mix_rows<T>, (unsigned)rows, kThreads, 0, e, (T *)y, ldy,
                   (const T *)u, ldu, scale, dim));
}

extern "C" tt_status tt_cuda_swiglu(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *gate,
                                    const tt_act *up, int64_t ld, int64_t rows, int64_t dim,
                                    tt_err *e)
{
    cuda *c = cuda_of(s);
    if (bad_shape(rows, dim, ld) || ldy < dim)
        return shape_error("swiglu", rows, dim, ld < ldy ? ld : ldy, e);
    if (rows == 0)
        return TT_OK;
    BY_TYPE(launch(c, "swiglu", swiglu_rows<T>, (unsigned)rows, kThreads, 0, e, (T *)y, ldy,
                   (const T *)gate, (const T *)up, ld, dim));
}

extern "C" tt_status tt_cuda_add(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                                 int64_t rows, int64_t dim, tt_err *e)
{
    cuda *c = cuda_of(s);
    if (bad_shape(rows, dim, ldx) || ldy < dim)
        return shape_error("add", rows, dim, ldx < ldy ? ldx : ldy, e);
    if (rows == 0)
        return TT_OK;
    BY_TYPE((combine<T, false>(c, "add", (T *)y, ldy, (const T *)x, ldx, rows, dim, e)));
}

extern "C" tt_status tt_cuda_multiply(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x,
                                      int64_t ldx, int64_t rows, int64_t dim, tt_err *e)
{
    cuda *c = cuda_of(s);
    if (bad_shape(rows, dim, ldx) || ldy < dim)
        return shape_error("multiply", rows, dim, ldx < ldy ? ldx : ldy, e);
    if (rows == 0)
        return TT_OK;
    BY_TYPE((combine<T, true>(c, "multiply", (T *)y, ldy, (const T *)x, ldx, rows, dim, e)));
}

extern "C" tt_status tt_cuda_add_scaled(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x,
                                        int64_t ldx, const float *scale, int64_t rows, int64_t dim,
                                        tt_err *e)
{
    cuda *c = cuda_of(s);
    if (bad_shape(rows, dim, ldx) || ldy < dim)
        return shape_error("add_scaled", rows, dim, ldx < ldy ? ldx : ldy, e);
    if (rows == 0)
        return TT_OK;
    BY_TYPE(launch(c, "add_scaled", add_scaled_rows<T>, (unsigned)rows, kThreads, 0, e, (T *)y, ldy,
                   (const T *)x, ldx, scale, dim));
}
