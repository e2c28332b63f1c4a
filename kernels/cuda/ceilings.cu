/* ceilings.cu - what this device reaches: copying and reading memory that no cache holds, large
 * products by cuBLASLt or by our own kernels, whichever is faster. */
#include <algorithm>
#include <cuda_fp8.h>

#include "kernels/cuda/ceilings.cuh"
#include "kernels/cuda/device.cuh"

tt_status cuda_median(cuda *c, double *time, double seconds, tt_status (*fn)(void *, tt_err *),
                      void *arg, tt_err *e)
{
    enum { MOST = 64 };
    float run[MOST];
    int runs = 0;
    double spent = 0;
    cudaEvent_t from = NULL, to = NULL;
    tt_status st = cuda_check(cudaEventCreate(&from), "ceilings", e);
    if (!st)
        st = cuda_check(cudaEventCreate(&to), "ceilings", e);
    if (!st)
        st = fn(arg, e);
    while (!st && runs < MOST && (runs < 3 || spent < seconds)) {
        st = cuda_check(cudaEventRecord(from, c->q), "ceilings", e);
        if (!st)
            st = fn(arg, e);
        if (!st)
            st = cuda_check(cudaEventRecord(to, c->q), "ceilings", e);
        if (!st)
            st = cuda_check(cudaEventSynchronize(to), "ceilings", e);
        if (!st)
            st = cuda_check(cudaEventElapsedTime(&run[runs], from, to), "ceilings", e);
        if (!st)
            spent += run[runs++] * 1e-3;
    }
    if (from)
        cudaEventDestroy(from);
    if (to)
        cudaEventDestroy(to);
    std::sort(run, run + runs);
    *time = runs ? run[runs / 2] * 1e-3 : 0;
    return st;
}

namespace {

/* --- memory --- */

constexpr size_t kBlock = (size_t)4 << 30; /* read; half of it is copied to the other */
constexpr int kThreads = 512;

/* The sum is written if it is a number that does not occur, so that reading is not left out. */
__global__ void __launch_bounds__(kThreads) read_all(const uint4 *from, int64_t n, uint32_t *to)
{
    begin();
    uint32_t sum = 0;
    int64_t step = (int64_t)gridDim.x * kThreads;
    int64_t i = (int64_t)blockIdx.x * kThreads + threadIdx.x;
    for (; i + 3 * step < n; i += 4 * step) {
        uint4 v[4];
#pragma unroll
        for (int j = 0; j < 4; j++)
            v[j] = __ldcs(from + i + j * step);
#pragma unroll
        for (int j = 0; j < 4; j++)
            sum |= v[j].x | v[j].y | v[j].z | v[j].w;
    }
    for (; i < n; i += step) {
        uint4 v = __ldcs(from + i);
        sum |= v.x | v.y | v.z | v.w;
    }
    if (sum == 0x5A5A5A5Au) /* the block is zero */
        *to = sum;
}

struct block {
    cuda *c;
    char *data;
    size_t bytes;
};

tt_status copy_half(void *arg, tt_err *e)
{
    const block *b = (const block *)arg;
    return cuda_check(cudaMemcpyAsync(b->data, b->data + b->bytes / 2, b->bytes / 2,
                                      cudaMemcpyDeviceToDevice, b->c->q), "ceilings", e);
}

tt_status read_block(void *arg, tt_err *e)
{
    const block *b = (const block *)arg;
    return launch(b->c, "ceilings", read_all, 8 * b->c->sms, kThreads, 0, e,
                  (const uint4 *)b->data, (int64_t)(b->bytes / 16), (uint32_t *)b->data);
}

tt_status measure_memory(cuda *c, double seconds, tt_ceilings *out, tt_err *e)
{
    size_t left, total;
    block b = {c, NULL, 0};
    double copying = 0, reading = 0;
    tt_status st = cuda_check(cudaMemGetInfo(&left, &total), "ceilings", e);
    if (st)
        return st;
    b.bytes = std::min(kBlock, left / 2) & ~(size_t)4095;
    st = cuda_check(cudaMalloc((void **)&b.data, b.bytes), "ceilings", e);
    if (!st)
        st = cuda_check(cudaMemsetAsync(b.data, 0, b.bytes, c->q), "ceilings", e);
    if (!st)
        st = cuda_median(c, &copying, seconds / 2, copy_half, &b, e);
    if (!st)
        st = cuda_median(c, &reading, seconds / 2, read_block, &b, e);
    if (!st) /* what is copied is read and written */
        out->bytes_per_s = (double)b.bytes / std::min(copying, reading);
    cudaFree(b.data);
    return st;
}

/* --- products --- */

using ::put;
__device__ void put(__nv_fp8_storage_t *y, float x)
{
    *y = __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
}

/* Numbers between -1 and 1: zeros would draw less power and run faster. */
template <typename T> __global__ void fill_random(T *to, int64_t n)
{
    begin();
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n;
         i += (int64_t)gridDim.x * blockDim.x) {
        uint32_t h = (uint32_t)i * 2654435761u;
        h = (h ^ h >> 15) * 2246822519u;
        h = (h ^ h >> 13) * 3266489917u;
        put(&to[i], (float)(int32_t)(h ^ h >> 16) * 0x1p-31f);
    }
}

tt_status fill(cuda *c, void *to, const square &q, tt_err *e)
{
    unsigned grid = 8 * (unsigned)c->sms;
    int64_t n = q.n * q.n;
    switch (q.type) {
    case TT_COMPUTE_F32:
        return launch(c, "ceilings", fill_random<float>, grid, 256, 0, e, (float *)to, n);
    case TT_COMPUTE_BF16:
        return launch(c, "ceilings", fill_random<bf16>, grid, 256, 0, e, (bf16 *)to, n);
    default:
        return launch(c, "ceilings", fill_random<__nv_fp8_storage_t>, grid, 256, 0, e,
                      (__nv_fp8_storage_t *)to, n);
    }
}

struct own {
    cuda *c;
    cuda_gemm g;
};

tt_status multiply(void *arg, tt_err *e)
{
    own *o = (own *)arg;
    return o->g.x8 ? cuda_gemm_hopper(o->c, &o->g, e) : cuda_gemm_run(o->c, &o->g, e);
}

/* By our own kernels, which take a matrix as it was opened. */
tt_status own_seconds(cuda *c, double *time, const square &q, double seconds, tt_err *e)
{
    tt_matrix m = {};
    m.n = m.k = m.kp = q.n;
    m.fp8 = q.type == TT_COMPUTE_FP8;
    m.compute = q.type == TT_COMPUTE_F32 ? TT_COMPUTE_F32 : TT_COMPUTE_BF16;
    m.flags = TT_MATRIX_LINEAR;
    m.data = q.w;
    own o = {c, {}};
    o.g.y = q.y;
    o.g.x = q.x;
    o.g.ldy = o.g.ldx = o.g.rows = q.n;
    o.g.w = &m;
    o.g.x8 = m.fp8 ? q.x : NULL;
    return cuda_median(c, time, seconds, multiply, &o, e);
}

/* The largest power of two up to 8,192 whose three matrices fit half of what is free. */
tt_status measure_products(cuda *c, double *flops, tt_compute type, double seconds, tt_err *e)
{
    size_t left, total, in = type == TT_COMPUTE_F32 ? 4 : type == TT_COMPUTE_BF16 ? 2 : 1;
    size_t out = type == TT_COMPUTE_F32 ? 4 : 2;
    tt_status st = cuda_check(cudaMemGetInfo(&left, &total), "ceilings", e);
    if (st)
        return st;
    square q = {8192, type, NULL, NULL, NULL};
    while (q.n > 1024 && (size_t)(q.n * q.n) * (2 * in + out) > left / 2)
        q.n /= 2;
    size_t one = (size_t)(q.n * q.n);
    char *all = NULL;
    st = cuda_check(cudaMalloc((void **)&all, one * (2 * in + out)), "ceilings", e);
    q.x = all;
    q.w = all + one * in;
    q.y = all + 2 * one * in;
    if (!st)
        st = fill(c, q.x, q, e);
    if (!st)
        st = fill(c, q.w, q, e);
    double ours = 0, theirs = 0;
    if (!st)
        st = own_seconds(c, &ours, q, seconds / 2, e);
    if (!st)
        theirs = cuda_cublas_seconds(c, q, seconds / 2);
    cudaFree(all);
    double least = theirs > 0 ? std::min(ours, theirs) : ours;
    if (!st && least > 0)
        *flops = 2.0 * (double)one * (double)q.n / least;
    return st;
}

} // namespace

extern "C" tt_status tt_cuda_ceilings(tt_stream *s, double seconds, tt_ceilings *out, tt_err *e)
{
    cuda *c = cuda_of(s);
    *out = {};
    if (c->in_pass)
        return tt_fail(e, TT_EINVAL, "ceilings: within a pass");
    int kinds = c->hopper ? 4 : 3;
    tt_status st = measure_memory(c, seconds / kinds, out, e);
    if (!st)
        st = measure_products(c, &out->flops_f32, TT_COMPUTE_F32, seconds / kinds, e);
    if (!st)
        st = measure_products(c, &out->flops_bf16, TT_COMPUTE_BF16, seconds / kinds, e);
    if (!st && c->hopper)
        st = measure_products(c, &out->flops_fp8, TT_COMPUTE_FP8, seconds / kinds, e);
    return st;
}
