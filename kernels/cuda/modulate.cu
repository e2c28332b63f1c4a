/* modulate.cu - norms of heads, LayerNorm, adaptive LayerNorm and its gated residual, GELU, ReLU,
 * tanh: what some families add to the row-wise operations. The order of every sum depends on the
 * width alone. */
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

/* One warp a head. */
template <typename T>
__global__ void __launch_bounds__(kThreads)
    layernorm_heads_rows(T *x, int64_t ld, const float *w, const float *b, int64_t items,
                         int64_t heads, int64_t dim, float eps)
{
    begin();
    int64_t item = (int64_t)blockIdx.x * (kThreads / 32) + threadIdx.x / 32, h = item % heads;
    int lane = threadIdx.x % 32;
    if (item >= items)
        return;
    T *head = x + item / heads * ld + h * dim;
    float sum = 0, squares = 0;
    for (int64_t i = lane; i < dim; i += 32)
        sum += get(head[i]);
    float mean = warp_sum(sum) / (float)dim;
    for (int64_t i = lane; i < dim; i += 32) {
        float off = get(head[i]) - mean;
        squares = fmaf(off, off, squares);
    }
    float inv = rsqrtf(warp_sum(squares) / (float)dim + eps);
    for (int64_t i = lane; i < dim; i += 32)
        put(&head[i], fmaf((get(head[i]) - mean) * inv, w[h * dim + i], b[h * dim + i]));
}

template <typename T> struct modulation {
    const T *shift, *scale;
    int64_t ld;
    const int32_t *index;
};

/* Mean and inverse deviation of the block's row. */
template <typename T> __device__ float2 moments(const T *in, int64_t dim, float eps)
{
    float sum = 0, squares = 0;
    for (int64_t i = threadIdx.x; i < dim; i += kThreads)
        sum += get(in[i]);
    float mean = block_sum(sum) / (float)dim;
    for (int64_t i = threadIdx.x; i < dim; i += kThreads) {
        float off = get(in[i]) - mean;
        squares = fmaf(off, off, squares);
    }
    return {mean, rsqrtf(block_sum(squares) / (float)dim + eps)};
}

template <typename T>
__global__ void __launch_bounds__(kThreads) layernorm_rows(T *y, int64_t ldy, const T *x,
                                                           int64_t ldx, const float *w,
                                                           const float *b, int64_t dim, float eps)
{
    begin();
    int64_t r = blockIdx.x;
    const T *in = x + r * ldx;
    float2 m = moments(in, dim, eps);
    for (int64_t i = threadIdx.x; i < dim; i += kThreads)
        put(&y[r * ldy + i], fmaf((get(in[i]) - m.x) * m.y, w[i], b[i]));
}

template <typename T>
__global__ void __launch_bounds__(kThreads) adaln_rows(T *y, int64_t ldy, const T *x, int64_t ldx,
                                                       const float *w, modulation<T> m, int64_t dim,
                                                       float eps)
{
    begin();
    int64_t r = blockIdx.x, from = (int64_t)m.index[r] * m.ld;
    const T *in = x + r * ldx, *shift = m.shift + from, *scale = m.scale + from;
    float2 of = moments(in, dim, eps);
    float mean = of.x, inv = of.y;
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

/* Both of them, where a row fits the registers of a warp: all of it is read at once. Nothing is
 * added where a is NULL. Rows go past the first cache, which is small beside shared memory: it is
 * for the modulations, as many bytes again, that neighbours share. With many rows a warp has one to
 * itself and waits for no other, and three blocks a multiprocessor keep enough on their way; with
 * few, four warps share one (SPREAD), and what does not depend on the kernel before is read while
 * that still runs. The bits are the same. */
constexpr int kKept = 4; /* times 16 bytes a lane */

template <typename T> struct warp_args {
    T *y, *x; /* x is written only where something is added */
    const T *a, *gate;
    int64_t ldy, ldx, lda, rows;
    const float *w;
    modulation<T> m;
    int dim;
    float eps;
};

/* Where in a row the k-th 16 bytes of a lane begin. */
template <typename T, bool SPREAD> __device__ int place(int k)
{
    return (32 * (SPREAD ? (int)threadIdx.x / 32 : k) + (int)threadIdx.x % 32) * pack<T>::N;
}

template <typename T, bool SPREAD, int OWN>
__device__ void load_kept(pack<T> (&v)[OWN], const T *from, int dim)
{
#pragma unroll
    for (int k = 0; k < OWN; k++) {
        int i = place<T, SPREAD>(k);
        v[k].raw = make_uint4(0, 0, 0, 0);
        if (i < dim)
            v[k].raw = __ldcg(reinterpret_cast<const uint4 *>(from + i));
    }
}

/* All at the end: a store holds back the loads after it. */
template <typename T, bool SPREAD, int OWN>
__device__ void store_kept(T *to, const pack<T> (&v)[OWN], int dim)
{
#pragma unroll
    for (int k = 0; k < OWN; k++) {
        int i = place<T, SPREAD>(k);
        if (i < dim)
            store16(to + i, v[k]);
    }
}

/* Of a row: each lane's sums one after the other, then those of the lanes. */
template <bool SPREAD, int OWN> __device__ float row_sum(const float (&s)[OWN], float (*part)[32])
{
    float sum = s[0];
    if (SPREAD) {
        int lane = threadIdx.x % 32;
        part[threadIdx.x / 32][lane] = sum;
        __syncthreads();
        sum = part[0][lane];
#pragma unroll
        for (int k = 1; k < kKept; k++)
            sum += part[k][lane];
    } else {
#pragma unroll
        for (int k = 1; k < OWN; k++)
            sum += s[k];
    }
    return warp_sum(sum);
}

template <typename T, bool SPREAD>
__global__ void __launch_bounds__(SPREAD ? 32 * kKept : kThreads, SPREAD ? 1 : 3)
    adaln_warps(const __grid_constant__ warp_args<T> p)
{
    constexpr int N = pack<T>::N, OWN = SPREAD ? 1 : kKept;
    __shared__ float part[SPREAD ? 2 : 1][SPREAD ? kKept : 1][32];
    let_next_start();
    int64_t r = SPREAD ? blockIdx.x : blockIdx.x * (kThreads / 32) + threadIdx.x / 32;
    if (r >= p.rows)
        return;
    int64_t from = (int64_t)p.m.index[r] * p.m.ld;
    pack<T> v[OWN], add[OWN];
    pack<float> w[SPREAD ? N / 4 : 1];
    bool there[OWN];
#pragma unroll
    for (int k = 0; k < OWN; k++)
        there[k] = place<T, SPREAD>(k) < p.dim;
    if (SPREAD && there[0])
#pragma unroll
        for (int j = 0; j < N; j += 4)
            w[SPREAD ? j / 4 : 0] = load16(p.w + place<T, SPREAD>(0) + j);
    wait_for_previous();
    load_kept<T, SPREAD>(v, p.x + r * p.ldx, p.dim);
    if (p.a) {
        load_kept<T, SPREAD>(add, p.a + r * p.lda, p.dim);
#pragma unroll
        for (int k = 0; k < OWN; k++) {
            if (!there[k])
                break;
            pack<T> gate = load16(p.gate + from + place<T, SPREAD>(k));
#pragma unroll
            for (int j = 0; j < N; j++)
                put(&v[k].v[j], fmaf(get(gate.v[j]), get(add[k].v[j]), get(v[k].v[j])));
        }
        store_kept<T, SPREAD>(p.x + r * p.ldx, v, p.dim);
    }
    pack<T> shift[OWN], scale[OWN];
    if (SPREAD) { /* while the moments are taken */
        load_kept<T, SPREAD>(shift, p.m.shift + from, p.dim);
        load_kept<T, SPREAD>(scale, p.m.scale + from, p.dim);
    }
    float sum[OWN], squares[OWN];
#pragma unroll
    for (int k = 0; k < OWN; k++) {
        sum[k] = 0;
#pragma unroll
        for (int j = 0; j < N; j++)
            sum[k] += get(v[k].v[j]);
    }
    float mean = row_sum<SPREAD>(sum, part[0]) / (float)p.dim;
#pragma unroll
    for (int k = 0; k < OWN; k++) {
        squares[k] = 0;
#pragma unroll
        for (int j = 0; j < N; j++) {
            float off = get(v[k].v[j]) - mean;
            squares[k] = there[k] ? fmaf(off, off, squares[k]) : squares[k];
        }
    }
    float all = row_sum<SPREAD>(squares, part[SPREAD ? 1 : 0]);
    float inv = rsqrtf(all / (float)p.dim + p.eps);
#pragma unroll
    for (int k = 0; k < OWN; k++) {
        int i = place<T, SPREAD>(k);
        if (!there[k])
            break;
        if (!SPREAD) {
            shift[k] = load16(p.m.shift + from + i);
            scale[k] = load16(p.m.scale + from + i);
        }
#pragma unroll
        for (int j = 0; j < N; j += 4) {
            pack<float> by = SPREAD ? w[SPREAD ? j / 4 : 0] : load16(p.w + i + j);
#pragma unroll
            for (int u = 0; u < 4; u++) {
                float normal = (get(v[k].v[j + u]) - mean) * inv * by.v[u];
                put(&v[k].v[j + u],
                    fmaf(normal, 1.0f + get(scale[k].v[j + u]), get(shift[k].v[j + u])));
            }
        }
    }
    store_kept<T, SPREAD>(p.y + r * p.ldy, v, p.dim);
}

/* By sizes and addresses that are the same for every row. */
template <typename T> bool fits_warp(const warp_args<T> &p)
{
    constexpr int N = pack<T>::N;
    return p.dim % N == 0 && p.dim <= kKept * 32 * N && p.ldy % N == 0 && p.ldx % N == 0 &&
           p.lda % N == 0 && p.m.ld % N == 0 && aligned16(p.y) && aligned16(p.x) &&
           aligned16(p.a) && aligned16(p.gate) && aligned16(p.w) && aligned16(p.m.shift) &&
           aligned16(p.m.scale);
}

template <typename T> tt_status run_adaln(const cuda *c, const warp_args<T> &p, tt_err *e)
{
    if (fits_warp(p)) {
        if (p.rows < 8 * c->sms)
            return launch(c, "adaln", adaln_warps<T, true>, (unsigned)p.rows, 32 * kKept, 0, e, p);
        return launch(c, "adaln", adaln_warps<T, false>, blocks(p.rows, kThreads / 32), kThreads, 0,
                      e, p);
    }
    if (p.a)
        return launch(c, "gate_adaln", gate_adaln_rows<T>, (unsigned)p.rows, kThreads, 0, e, p.y,
                      p.ldy, p.x, p.ldx, p.a, p.lda, p.w, p.gate, p.m, (int64_t)p.dim, p.eps);
    return launch(c, "adaln", adaln_rows<T>, (unsigned)p.rows, kThreads, 0, e, p.y, p.ldy,
                  (const T *)p.x, p.ldx, p.w, p.m, (int64_t)p.dim, p.eps);
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

__device__ inline float unit_of(float x, tt_unit unit)
{
    switch (unit) {
    case TT_UNIT_RELU:
        return x > 0 ? x : 0.0f;
    case TT_UNIT_TANH:
        return tanhf(x);
    case TT_UNIT_SILU:
        return x / (1 + expf(-x));
    case TT_UNIT_QUICK_GELU:
        return x / (1 + expf(-1.702f * x));
    }
    return x;
}

template <typename T>
__global__ void unit_rows(T *y, int64_t ldy, const T *x, int64_t ldx, int64_t dim, tt_unit unit)
{
    begin();
    int64_t r = blockIdx.x;
    for (int64_t i = threadIdx.x; i < dim; i += blockDim.x) {
        float v = get(x[r * ldx + i]);
        put(&y[r * ldy + i], unit_of(v, unit));
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

extern "C" tt_status tt_cuda_layernorm_heads(tt_stream *s, tt_act *x, int64_t ld, const float *w,
                                             const float *b, int64_t rows, int64_t heads,
                                             int64_t head_dim, float eps, tt_err *e)
{
    cuda *c = cuda_of(s);
    if (heads < 1 || head_dim < 1 || heads > INT32_MAX || head_dim > INT32_MAX ||
        bad_shape(rows, heads * head_dim, ld))
        return shape_error("layernorm_heads", rows, head_dim, ld, e);
    if (rows == 0)
        return TT_OK;
    BY_TYPE(launch(c, "layernorm_heads", layernorm_heads_rows<T>,
                   blocks(rows * heads, kThreads / 32), kThreads, 0, e, (T *)x, ld, w, b,
                   rows * heads, heads, head_dim, eps));
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
    BY_TYPE(run_adaln(c,
                      warp_args<T>{(T *)y, (T *)(uintptr_t)x, nullptr, nullptr, ldy, ldx, 0, rows,
                                   w, {(const T *)shift, (const T *)scale, ld, index}, (int)dim,
                                   eps},
                      e));
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
    BY_TYPE(run_adaln(c,
                      warp_args<T>{(T *)y, (T *)x, (const T *)a, (const T *)gate, ldy, ldx, lda,
                                   rows, w, {(const T *)shift, (const T *)scale, ld, index},
                                   (int)dim, eps},
                      e));
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

extern "C" tt_status tt_cuda_layernorm(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x,
                                       int64_t ldx, const float *w, const float *b, int64_t rows,
                                       int64_t dim, float eps, tt_err *e)
{
    cuda *c = cuda_of(s);
    if (bad_shape(rows, dim, ldx) || ldy < dim)
        return shape_error("layernorm", rows, dim, ldx < ldy ? ldx : ldy, e);
    if (rows == 0)
        return TT_OK;
    BY_TYPE(launch(c, "layernorm", layernorm_rows<T>, (unsigned)rows, kThreads, 0, e, (T *)y, ldy,
                   (const T *)x, ldx, w, b, dim, eps));
}

extern "C" tt_status tt_cuda_unit(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x,
                                  int64_t ldx, int64_t rows, int64_t dim, tt_unit unit, tt_err *e)
{
    cuda *c = cuda_of(s);
    if (bad_shape(rows, dim, ldx) || ldy < dim)
        return shape_error("unit", rows, dim, ldx < ldy ? ldx : ldy, e);
    if (rows == 0)
        return TT_OK;
    BY_TYPE(launch(c, "unit", unit_rows<T>, (unsigned)rows, kThreads, 0, e, (T *)y, ldy,
                   (const T *)x, ldx, dim, unit));
}
