/* latent.cu - rows that go from pass to pass: copies between scattered rows, sums of two rows, how
 * far two rows are apart, noise. One block a row; bound by memory or launch latency, but for the
 * noise, whose 10 rounds of Philox are shared by four channels of one thread. */
#include "kernels/base/rng.h"
#include "kernels/cuda/device.cuh"

namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void copy_rows(tt_act *const *to, const tt_act *const *from, int64_t dim)
{
    begin();
    T *y = (T *)to[blockIdx.x];
    const T *x = (const T *)from[blockIdx.x];
    if (!y || !x)
        return;
    constexpr int N = pack<T>::N;
    bool wide = aligned16(y) && aligned16(x) && dim % N == 0;
    for (int64_t i = threadIdx.x; i < (wide ? dim / N : 0); i += blockDim.x)
        store16(y + i * N, load16(x + i * N));
    for (int64_t i = threadIdx.x; i < (wide ? 0 : dim); i += blockDim.x)
        y[i] = x[i];
}

template <typename T>
__global__ void blend_rows(T *y, int64_t ldy, const T *x, int64_t ldx, const float *a,
                           const float *b, int64_t dim)
{
    begin();
    int64_t r = blockIdx.x;
    float by = a[r], with = b[r];
    for (int64_t i = threadIdx.x; i < dim; i += blockDim.x) {
        float v = by * get(y[r * ldy + i]);
        put(&y[r * ldy + i], with != 0 ? fmaf(with, get(x[r * ldx + i]), v) : v);
    }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) products(tt_row_products *out, const T *x, int64_t ldx,
                                                     const T *y, int64_t ldy, int64_t dim)
{
    begin();
    const T *p = x + blockIdx.x * ldx, *q = y + blockIdx.x * ldy;
    tt_row_products sum = {0, 0, 0, 0};
    for (int64_t i = threadIdx.x; i < dim; i += kThreads) {
        float a = get(p[i]), b = get(q[i]), d = a - b;
        sum.xx = fmaf(a, a, sum.xx);
        sum.yy = fmaf(b, b, sum.yy);
        sum.xy = fmaf(a, b, sum.xy);
        sum.dd = fmaf(d, d, sum.dd);
    }
    sum.xx = block_sum(sum.xx);
    sum.yy = block_sum(sum.yy);
    sum.xy = block_sum(sum.xy);
    sum.dd = block_sum(sum.dd);
    if (threadIdx.x == 0)
        out[blockIdx.x] = sum;
}

template <typename T>
__global__ void __launch_bounds__(kThreads) noise_rows(T *y, int64_t ldy, const tt_rng_address *at,
                                                       const float *scale, int64_t dim)
{
    begin();
    int64_t r = blockIdx.x;
    float by = scale[r];
    tt_rng_address a = at[r];
    T *out = y + r * ldy;
    for (int64_t i = 4 * (int64_t)threadIdx.x; i < dim; i += 4 * kThreads) {
        tt_rng_block b = {{0, 0, 0, 0}};
        if (by != 0)
            b = tt_rng_at(a, (uint32_t)(i / 4));
#pragma unroll
        for (int k = 0; k < 4; k++)
            if (i + k < dim)
                put(&out[i + k], by != 0 ? __fmul_rn(by, tt_truncated_normal(b.v[k])) : 0.0f);
    }
}

} // namespace

extern "C" tt_status tt_cuda_copy_rows(tt_stream *s, tt_act *const *to, const tt_act *const *from,
                                       int64_t rows, int64_t dim, tt_err *e)
{
    cuda *c = cuda_of(s);
    if (bad_shape(rows, dim, dim))
        return shape_error("copy_rows", rows, dim, dim, e);
    if (rows == 0)
        return TT_OK;
    BY_TYPE(launch(c, "copy_rows", copy_rows<T>, (unsigned)rows, kThreads, 0, e, to, from, dim));
}

extern "C" tt_status tt_cuda_blend(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x,
                                   int64_t ldx, const float *a, const float *b, int64_t rows,
                                   int64_t dim, tt_err *e)
{
    cuda *c = cuda_of(s);
    if (bad_shape(rows, dim, ldx) || ldy < dim)
        return shape_error("blend", rows, dim, ldx < ldy ? ldx : ldy, e);
    if (rows == 0)
        return TT_OK;
    BY_TYPE(launch(c, "blend", blend_rows<T>, (unsigned)rows, kThreads, 0, e, (T *)y, ldy,
                   (const T *)x, ldx, a, b, dim));
}

extern "C" tt_status tt_cuda_row_products(tt_stream *s, tt_row_products *out, const tt_act *x,
                                          int64_t ldx, const tt_act *y, int64_t ldy, int64_t rows,
                                          int64_t dim, tt_err *e)
{
    cuda *c = cuda_of(s);
    if (bad_shape(rows, dim, ldx) || ldy < dim)
        return shape_error("row_products", rows, dim, ldx < ldy ? ldx : ldy, e);
    if (rows == 0)
        return TT_OK;
    size_t bytes = (size_t)rows * sizeof *out;
    tt_status st = cuda_reserve(c, &c->tile, &c->tile_bytes, bytes, e);
    tt_row_products *sums = (tt_row_products *)c->tile;
    if (!st && s->act == TT_BF16)
        st = launch(c, "row_products", products<bf16>, (unsigned)rows, kThreads, 0, e, sums,
                    (const bf16 *)x, ldx, (const bf16 *)y, ldy, dim);
    else if (!st)
        st = launch(c, "row_products", products<float>, (unsigned)rows, kThreads, 0, e, sums,
                    (const float *)x, ldx, (const float *)y, ldy, dim);
    return st ? st : cuda_result(c, out, sums, bytes, e);
}

extern "C" tt_status tt_cuda_truncated_normal(tt_stream *s, tt_act *y, int64_t ldy,
                                              const tt_rng_address *at, const float *scale,
                                              int64_t rows, int64_t dim, tt_err *e)
{
    cuda *c = cuda_of(s);
    if (bad_shape(rows, dim, ldy))
        return shape_error("truncated_normal", rows, dim, ldy, e);
    if (rows == 0)
        return TT_OK;
    BY_TYPE(launch(c, "truncated_normal", noise_rows<T>, (unsigned)rows, kThreads, 0, e, (T *)y,
                   ldy, at, scale, dim));
}
