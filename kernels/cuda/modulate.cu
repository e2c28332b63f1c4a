/* modulate.cu - norms of heads, adaptive LayerNorm and its gated residual, GELU: what some families
 * add to the row-wise operations. The order of every sum depends on the width alone. */
#include "kernels/cuda/device.cuh"

namespace {

constexpr int kThreads = 256;

/* One warp a head; rounds before the weight as rows.cu does. */
template <typename T>
__global__ void __launch_bounds__(kThreads) rmsnorm_heads_rows(T *x, int64_t ld, const float *w,
                                                               int64_t items, int64_t heads,
                                                               int64_t dim, float eps)
{
    begin();
    int64_t item = (int64_t)blockIdx.x * (kThreads / 32) + threadIdx.x / 32;
    int lane = threadIdx.x % 32;
    if (item >= items)
        return;
    T *head = x + item / heads * ld + item % heads * dim;
    float sum = 0;
    for (int64_t i = lane; i < dim; i += 32)
        sum = fmaf(get(head[i]), get(head[i]), sum);
    float inv = rsqrtf(warp_sum(sum) / (float)dim + eps);
    for (int64_t i = lane; i < dim; i += 32)
        put(&head[i], w[i] * rounded(head, get(head[i]) * inv));
}

template <typename T> struct modulation {
    const T *shift, *scale;
    int64_t ld;
    const int32_t *index;
};

template <typename T>
__global__ void __launch_bounds__(kThreads) adaln_rows(T *y, int64_t ldy, const T *x, int64_t ldx,
                                                       const float *w, modulation<T> m, int64_t dim,
                                                       float eps)
{
    begin();
    int64_t r = blockIdx.x, from = (int64_t)m.index[r] * m.ld;
    const T *in = x + r * ldx, *shift = m.shift + from, *scale = m.scale + from;
    float sum = 0, squares = 0;
    for (int64_t i = threadIdx.x; i < dim; i += kThreads)
        sum += get(in[i]);
    float mean = block_sum(sum) / (float)dim;
    for (int64_t i = threadIdx.x; i < dim; i += kThreads) {
        float off = get(in[i]) - mean;
        squares = fmaf(off, off, squares);
    }
    float inv = rsqrtf(block_sum(squares) / (float)dim + eps);
    for (int64_t i = threadIdx.x; i < dim; i += kThreads) {
        float normal = (get(in[i]) - mean) * inv * w[i];
        put(&y[r * ldy + i], fmaf(normal, 1.0f + get(scale[i]), get(shift[i])));
    }
}

template <typename T>
__global__ void gate_add_rows(T *y, int64_t ldy, const T *x, int64_t ldx, const T *gate,
                              int64_t ldg, const int32_t *index, int64_t dim)
{
    begin();
    int64_t r = blockIdx.x;
    const T *g = gate + (int64_t)index[r] * ldg;
    for (int64_t i = threadIdx.x; i < dim; i += blockDim.x)
        put(&y[r * ldy + i], fmaf(get(g[i]), get(x[r * ldx + i]), get(y[r * ldy + i])));
}

/* gate_add, then adaln of its rounded result: the bits of both. */
template <typename T>
__global__ void __launch_bounds__(kThreads)
    gate_adaln_rows(T *y, int64_t ldy, T *x, int64_t ldx, const T *a, int64_t lda, const float *w,
                    const T *gate, modulation<T> m, int64_t dim, float eps)
{
    begin();
    int64_t r = blockIdx.x, from = (int64_t)m.index[r] * m.ld;
    const T *shift = m.shift + from, *scale = m.scale + from, *g = gate + from, *add = a + r * lda;
    T *in = x + r * ldx;
    float sum = 0, squares = 0;
    for (int64_t i = threadIdx.x; i < dim; i += kThreads) {
        float v = rounded(in, fmaf(get(g[i]), get(add[i]), get(in[i])));
        put(&in[i], v);
        sum += v;
    }
    float mean = block_sum(sum) / (float)dim;
    for (int64_t i = threadIdx.x; i < dim; i += kThreads) { /* each thread what it wrote itself */
        float off = get(in[i]) - mean;
        squares = fmaf(off, off, squares);
    }
    float inv = rsqrtf(block_sum(squares) / (float)dim + eps);
    for (int64_t i = threadIdx.x; i < dim; i += kThreads) {
        float normal = (get(in[i]) - mean) * inv * w[i];
        put(&y[r * ldy + i], fmaf(normal, 1.0f + get(scale[i]), get(shift[i])));
    }
}

template <typename T>
__global__ void gelu_rows(T *y, int64_t ldy, const T *x, int64_t ldx, int64_t dim)
{
    begin();
    int64_t r = blockIdx.x;
    for (int64_t i = threadIdx.x; i < dim; i += blockDim.x) {
        float v = get(x[r * ldx + i]), u = 0.79788456f * fmaf(0.044715f * v * v, v, v);
        put(&y[r * ldy + i], v / (1.0f + expf(-2.0f * u)));
    }
}

template <typename T>
__global__ void gelu_erf_rows(T *y, int64_t ldy, const T *x, int64_t ldx, int64_t dim)
{
    begin();
    int64_t r = blockIdx.x;
    for (int64_t i = threadIdx.x; i < dim; i += blockDim.x) {
        float v = get(x[r * ldx + i]);
        put(&y[r * ldy + i], 0.5f * v * erfcf(-0.70710678f * v));
    }
}

} // namespace

extern "C" tt_status tt_cuda_rmsnorm_heads(tt_stream *s, tt_act *x, int64_t ld, const float *w,
                                           int64_t rows, int64_t heads, int64_t head_dim, float eps,
                                           tt_err *e)
{
    cuda *c = cuda_of(s);
    if (heads < 1 || head_dim < 1 || heads > INT32_MAX || head_dim > INT32_MAX ||
        bad_shape(rows, heads * head_dim, ld))
        return shape_error("rmsnorm_heads", rows, head_dim, ld, e);
    if (rows == 0)
        return TT_OK;
    BY_TYPE(launch(c, "rmsnorm_heads", rmsnorm_heads_rows<T>, blocks(rows * heads, kThreads / 32),
                   kThreads, 0, e, (T *)x, ld, w, rows * heads, heads, head_dim, eps));
}

extern "C" tt_status tt_cuda_adaln(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x,
                                   int64_t ldx, const float *w, const tt_act *shift,
                                   const tt_act *scale, int64_t ld, const int32_t *index,
                                   int64_t rows, int64_t dim, float eps, tt_err *e)
{
    cuda *c = cuda_of(s);
    if (bad_shape(rows, dim, ldx) || ldy < dim || ld < dim)
        return shape_error("adaln", rows, dim, ld < dim ? ld : ldx < ldy ? ldx : ldy, e);
    if (rows == 0)
        return TT_OK;
    BY_TYPE(launch(c, "adaln", adaln_rows<T>, (unsigned)rows, kThreads, 0, e, (T *)y, ldy,
                   (const T *)x, ldx, w,
                   modulation<T>{(const T *)shift, (const T *)scale, ld, index}, dim, eps));
}

extern "C" tt_status tt_cuda_gate_add(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x,
                                      int64_t ldx, const tt_act *gate, int64_t ldg,
                                      const int32_t *index, int64_t rows, int64_t dim, tt_err *e)
{
    cuda *c = cuda_of(s);
    if (bad_shape(rows, dim, ldx) || ldy < dim || ldg < dim)
        return shape_error("gate_add", rows, dim, ldg < dim ? ldg : ldx < ldy ? ldx : ldy, e);
    if (rows == 0)
        return TT_OK;
    BY_TYPE(launch(c, "gate_add", gate_add_rows<T>, (unsigned)rows, kThreads, 0, e, (T *)y, ldy,
                   (const T *)x, ldx, (const T *)gate, ldg, index, dim));
}

extern "C" tt_status tt_cuda_gate_adaln(tt_stream *s, tt_act *y, int64_t ldy, tt_act *x,
                                        int64_t ldx, const tt_act *a, int64_t lda, const float *w,
                                        const tt_act *gate, const tt_act *shift,
                                        const tt_act *scale, int64_t ld, const int32_t *index,
                                        int64_t rows, int64_t dim, float eps, tt_err *e)
{
    cuda *c = cuda_of(s);
    if (bad_shape(rows, dim, ldx) || ldy < dim || lda < dim || ld < dim)
        return shape_error("gate_adaln", rows, dim, ld < dim ? ld : ldx < ldy ? ldx : ldy, e);
    if (rows == 0)
        return TT_OK;
    BY_TYPE(launch(c, "gate_adaln", gate_adaln_rows<T>, (unsigned)rows, kThreads, 0, e, (T *)y, ldy,
                   (T *)x, ldx, (const T *)a, lda, w, (const T *)gate,
                   modulation<T>{(const T *)shift, (const T *)scale, ld, index}, dim, eps));
}

extern "C" tt_status tt_cuda_gelu(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x,
                                  int64_t ldx, int64_t rows, int64_t dim, tt_err *e)
{
    cuda *c = cuda_of(s);
    if (bad_shape(rows, dim, ldx) || ldy < dim)
        return shape_error("gelu", rows, dim, ldx < ldy ? ldx : ldy, e);
    if (rows == 0)
        return TT_OK;
    BY_TYPE(launch(c, "gelu", gelu_rows<T>, (unsigned)rows, kThreads, 0, e, (T *)y, ldy,
                   (const T *)x, ldx, dim));
}

extern "C" tt_status tt_cuda_gelu_erf(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x,
                                      int64_t ldx, int64_t rows, int64_t dim, tt_err *e)
{
    cuda *c = cuda_of(s);
    if (bad_shape(rows, dim, ldx) || ldy < dim)
        return shape_error("gelu_erf", rows, dim, ldx < ldy ? ldx : ldy, e);
    if (rows == 0)
        return TT_OK;
    BY_TYPE(launch(c, "gelu_erf", gelu_erf_rows<T>, (unsigned)rows, kThreads, 0, e, (T *)y, ldy,
                   (const T *)x, ldx, dim));
}
