/* matrix.cu - weights on their way from the mapped checkpoint to the GPU.
 *
 * Rows go in pieces through two pinned buffers: host threads fill one while the other is copied
 * and converted, so loading runs at the speed of the disk or the bus and nothing is held twice. */
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/device.cuh"

namespace {

constexpr size_t kPiece = 16 << 20; /* bytes of one pinned buffer */

__device__ float widen(float x) { return x; }
__device__ float widen(bf16 x) { return __bfloat162float(x); }
__device__ float widen(__half x) { return __half2float(x); }
__device__ float widen(int8_t x) { return (float)x; }
__device__ float widen(double x) { return (float)x; }

/* Where row r of a part lands: GLU matrices take gate (phase 0) and up (phase 1) in turns. */
struct placing {
    int64_t first; /* of the part in the matrix */
    int glu_phase; /* -1: not GLU */
};

__device__ int64_t place(const placing &p, int64_t r)
{
    if (p.glu_phase < 0)
        return p.first + r;
    return r / CUDA_GLU_RUN * 2 * CUDA_GLU_RUN + p.glu_phase * CUDA_GLU_RUN + r % CUDA_GLU_RUN;
}

/* rows x k elements to rows of kp, widened or rounded; by: scale of I8 rows that are to be
 * multiplied out, or NULL. */
template <typename S, typename D>
__global__ void convert(D *to, int64_t kp, const S *from, int64_t row, int64_t rows, int64_t k,
                        placing at, const float *by)
{
    for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
        int64_t out = place(at, row + r);
        float scale = by ? by[out] : 1.0f;
        for (int64_t i = threadIdx.x; i < kp; i += blockDim.x)
            put(&to[out * kp + i], i < k ? widen(from[r * k + i]) * scale : 0.0f);
    }
}

/* The same in thirds. */
template <typename S>
__global__ void convert_thirds(bf16 *to, int64_t kp, const S *from, int64_t row, int64_t rows,
                               int64_t k, placing at, const float *by)
{
    for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
        int64_t out = place(at, row + r);
        float scale = by ? by[out] : 1.0f;
        for (int64_t i = threadIdx.x; i < kp / 3; i += blockDim.x) {
            bf16 part[3], *p = to + out * kp + i / CUDA_THIRD * 3 * CUDA_THIRD + i % CUDA_THIRD;
            cut(part, i < k ? widen(from[r * k + i]) * scale : 0.0f);
            for (int j = 0; j < 3; j++)
                p[j * CUDA_THIRD] = part[j];
        }
    }
}

/* e4m3 with one scale a row: the largest magnitude becomes 448, the largest e4m3 number. */
template <typename S>
__global__ void convert_fp8(__nv_fp8_storage_t *to, int64_t kp, float *scale, const S *from,
                            int64_t row, int64_t rows, int64_t k, placing at, const float *by)
{
    __shared__ float most[32];
    for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
        int64_t out = place(at, row + r);
        float max = 0, times = by ? by[out] : 1.0f;
        for (int64_t i = threadIdx.x; i < k; i += blockDim.x)
            max = fmaxf(max, fabsf(widen(from[r * k + i])));
        for (int d = 16; d; d >>= 1)
            max = fmaxf(max, __shfl_xor_sync(~0u, max, d));
        __syncthreads();
        if (threadIdx.x % 32 == 0)
            most[threadIdx.x / 32] = max;
        __syncthreads();
        for (int w = 0; w < (int)blockDim.x / 32; w++)
            max = fmaxf(max, most[w]);
        float unit = max > 0 ? max / 448.0f : 1.0f;
        for (int64_t i = threadIdx.x; i < kp; i += blockDim.x)
            to[out * kp + i] = __nv_cvt_float_to_fp8(
                i < k ? widen(from[r * k + i]) / unit : 0.0f, __NV_SATFINITE, __NV_E4M3);
        if (threadIdx.x == 0)
            scale[out] = unit * times;
    }
}

/* --- pinned pieces --- */

struct copy_job {
    char *to;
    const char *from;
    size_t bytes, part;
};

void copy_part(void *arg, int64_t i, int)
{
    const copy_job *j = (const copy_job *)arg;
    size_t at = (size_t)i * j->part, left = j->bytes - at;
    memcpy(j->to + at, j->from + at, left < j->part ? left : j->part);
}

/* Copies to a free pinned buffer with all host threads; *out is the buffer. */
tt_status fill(tt_stream *s, char **out, const void *from, size_t bytes, tt_err *e)
{
    cuda *c = cuda_of(s);
    int i = c->stage_next;
    tt_status st = TT_OK;
    if (!c->stage[i]) {
        st = cuda_check(cudaMallocHost((void **)&c->stage[i], kPiece), "pinned memory", e);
        if (!st)
            st = cuda_check(cudaEventCreateWithFlags(&c->stage_free[i], cudaEventDisableTiming),
                            "event", e);
    } else {
        st = cuda_check(cudaEventSynchronize(c->stage_free[i]), "weights", e);
    }
    if (st)
        return st;
    copy_job job = {c->stage[i], (const char *)from, bytes, 1 << 20};
    tt_pool_run(s->pool, (int64_t)((bytes + job.part - 1) / job.part), copy_part, &job);
    *out = c->stage[i];
    return TT_OK;
}

struct target {
    tt_matrix *m;
    void *device_piece; /* as the checkpoint has it, before conversion */
};

template <typename S>
tt_status convert_rows(cuda *c, const target &t, const void *piece, int64_t row, int64_t rows,
                       placing at, const float *by, tt_err *e)
{
    tt_matrix *m = t.m;
    unsigned grid = blocks(rows, 1);
    const S *from = (const S *)piece;
    if (m->fp8)
        convert_fp8<S><<<grid, 256, 0, c->q>>>((__nv_fp8_storage_t *)m->data, m->kp, m->scale, from,
                                               row, rows, m->k, at, by);
    else if (m->thirds)
        convert_thirds<S><<<grid, 256, 0, c->q>>>((bf16 *)m->data, m->kp, from, row, rows, m->k, at,
                                                  by);
    else if (m->compute == TT_COMPUTE_BF16)
        convert<S, bf16><<<grid, 256, 0, c->q>>>((bf16 *)m->data, m->kp, from, row, rows, m->k, at,
                                                 nullptr);
    else
        convert<S, float><<<grid, 256, 0, c->q>>>((float *)m->data, m->kp, from, row, rows, m->k,
                                                  at, by);
    return cuda_launched(c, "weights", e);
}

tt_status convert_typed(cuda *c, const target &t, tt_dtype type, const void *piece, int64_t row,
                        int64_t rows, placing at, const float *by, tt_err *e)
{
    switch (type) {
    case TT_F32: return convert_rows<float>(c, t, piece, row, rows, at, by, e);
    case TT_BF16: return convert_rows<bf16>(c, t, piece, row, rows, at, by, e);
    case TT_F16: return convert_rows<__half>(c, t, piece, row, rows, at, by, e);
    case TT_F64: return convert_rows<double>(c, t, piece, row, rows, at, by, e);
    case TT_I8: return convert_rows<int8_t>(c, t, piece, row, rows, at, by, e);
    default: return tt_fail(e, TT_EUNSUP, "weights of type %s", tt_dtype_name(type));
    }
}

/* One part of the matrix, piece after piece. */
tt_status load_part(tt_stream *s, const target &t, const tt_weight *part, placing at, tt_err *e)
{
    cuda *c = cuda_of(s);
    tt_matrix *m = t.m;
    size_t row_bytes = (size_t)m->k * tt_dtype_size(part->data.dtype);
    int64_t n = part->data.dim[0], run = (int64_t)(kPiece / row_bytes);
    if (run < 1)
        return tt_fail(e, TT_EUNSUP, "rows of %lld weights", (long long)m->k);
    /* Integers keep their scale for the epilogue, except where they are widened to float32. */
    bool as_it_is = part->data.dtype == TT_BF16 && m->compute == TT_COMPUTE_BF16 && !m->fp8 &&
                    at.glu_phase < 0 && m->kp == m->k;
    const float *by = part->data.dtype == TT_I8 ? m->scale : NULL;
    tt_status st = TT_OK;
    for (int64_t r = 0; r < n && !st; r += run) {
        int64_t rows = n - r < run ? n - r : run;
        size_t bytes = (size_t)rows * row_bytes;
        char *pinned;
        st = fill(s, &pinned, (const char *)part->data.data + (size_t)r * row_bytes, bytes, e);
        if (st)
            break;
        char *to = as_it_is ? (char *)m->data + (size_t)(at.first + r) * row_bytes
                            : (char *)t.device_piece + (size_t)c->stage_next * kPiece;
        st = cuda_check(cudaMemcpyAsync(to, pinned, bytes, cudaMemcpyHostToDevice, c->q), "weights",
                        e);
        if (!st)
            st = cuda_check(cudaEventRecord(c->stage_free[c->stage_next], c->q), "weights", e);
        if (!st && !as_it_is)
            st = convert_typed(c, t, part->data.dtype, to, r, rows, at, by, e);
        c->stage_next ^= 1;
    }
    return st;
}

/* Row scales of all parts in the matrix's order (1 where a part has none), or the biases. */
tt_status load_vector(tt_stream *s, float **out, const float *host, const tt_matrix *m,
                      const tt_weight *part, int parts, tt_err *e)
{
    float *list = (float *)calloc((size_t)m->n, sizeof *list);
    if (!list)
        return tt_fail(e, TT_ENOMEM, "no memory for %lld scales", (long long)m->n);
    tt_status st = TT_OK;
    int64_t first = 0;
    for (int p = 0; p < parts && !st; first += part[p++].data.dim[0])
        for (int64_t r = 0; r < part[p].data.dim[0] && !st; r++) {
            int64_t at = first + r;
            float value = 1;
            if (host)
                value = host[at];
            else if (part[p].data.dtype == TT_I8)
                st = tt_to_f32(&value, &part[p].scale, r, 1, e);
            if (m->flags & TT_MATRIX_GLU)
                at = r / CUDA_GLU_RUN * 2 * CUDA_GLU_RUN + p * CUDA_GLU_RUN + r % CUDA_GLU_RUN;
            list[at] = value;
        }
    void *p = NULL;
    if (!st)
        st = tt_cuda_alloc(s, &p, (size_t)m->n * sizeof *list, e);
    *out = (float *)p;
    if (!st)
        st = cuda_check(cudaMemcpyAsync(p, list, (size_t)m->n * sizeof *list,
                                        cudaMemcpyHostToDevice, cuda_of(s)->q), "scales", e);
    cudaStreamSynchronize(cuda_of(s)->q);
    free(list);
    return st;
}

tt_status check_parts(const tt_weight *part, int parts, unsigned flags, int64_t *n, int64_t *k,
                      bool *integers, tt_err *e)
{
    *n = 0;
    *k = parts > 0 ? part[0].data.dim[1] : 0;
    *integers = false;
    for (int i = 0; i < parts; i++) {
        const tt_tensor *t = &part[i].data;
        if (t->rank != 2 || t->dim[1] != *k || t->dim[0] < 1 || *k < 1)
            return tt_fail(e, TT_EINVAL, "matrix_open: parts do not stack");
        if (t->dtype == TT_I8 && !part[i].scale.data)
            return tt_fail(e, TT_EINVAL, "matrix_open: integers without scales");
        *integers |= t->dtype == TT_I8;
        *n += t->dim[0];
    }
    if (parts < 1 || *n > INT32_MAX || *k > INT32_MAX)
        return tt_fail(e, TT_EINVAL, "matrix_open: %d parts, %lld x %lld", parts, (long long)*n,
                       (long long)*k);
    if (flags & TT_MATRIX_GLU && (parts != 2 || part[0].data.dim[0] != part[1].data.dim[0]))
        return tt_fail(e, TT_EINVAL, "matrix_open: a gated pair needs two equal parts");
    return TT_OK;
}

/* The matrix's card, for products over groups. */
tt_status deal(tt_stream *s, tt_matrix *m, tt_err *e)
{
    cuda *c = cuda_of(s);
    cuda_card card = {};
    card.data = m->data;
    card.scale = m->scale;
    void *p = NULL;
    tt_status st = tt_cuda_alloc(s, &p, sizeof card, e);
    m->card = (cuda_card *)p;
    if (!st && c->hopper && m->compute == TT_COMPUTE_BF16)
        st = cuda_gemm_hopper_map(c, &card.map, m, e);
    return st ? st
              : cuda_check(cudaMemcpyAsync(p, &card, sizeof card, cudaMemcpyHostToDevice, c->q),
                           "weights", e);
}

tt_status load(tt_stream *s, tt_matrix *m, const tt_weight *part, int parts, const float *bias,
               bool integers, tt_err *e)
{
    target t = {m, NULL};
    size_t element = m->fp8 ? 1 : m->compute == TT_COMPUTE_BF16 || m->thirds ? 2 : 4;
    /* The last runs of a gated pair may be short: their places are zero. */
    int64_t rows = cuda_matrix_rows(m);
    m->bytes = (size_t)rows * (size_t)m->kp * element;
    tt_status st = tt_cuda_alloc(s, &m->data, m->bytes, e);
    if (!st && rows != m->n)
        st = cuda_check(cudaMemsetAsync(m->data, 0, m->bytes, cuda_of(s)->q), "weights", e);
    tt_matrix all = *m;
    all.n = rows;
    if (!st && (integers || m->fp8))
        st = load_vector(s, &m->scale, NULL, &all, part, parts, e);
    if (!st && bias)
        st = load_vector(s, &m->bias, bias, &all, part, parts, e);
    if (!st)
        st = tt_cuda_alloc(s, &t.device_piece, 2 * kPiece, e);
    int64_t first = 0;
    for (int i = 0; i < parts && !st; first += part[i++].data.dim[0])
        st = load_part(s, t, &part[i],
                       placing{first, m->flags & TT_MATRIX_GLU ? i : -1}, e);
    tt_cuda_release(s, t.device_piece);
    /* In float32 the scales are multiplied out. */
    if (!st && m->compute == TT_COMPUTE_F32 && m->scale) {
        tt_cuda_release(s, m->scale);
        m->scale = NULL;
    }
    bool grouped = m->flags & TT_MATRIX_LINEAR && !(m->flags & TT_MATRIX_GLU) && !m->thirds;
    return st || !grouped ? st : deal(s, m, e);
}

} // namespace

/* Elements of a row. */
static int64_t width_of(const tt_matrix *m)
{
    int64_t unit = m->fp8 ? 16 : m->compute == TT_COMPUTE_BF16 ? 8 : 4;
    return m->thirds ? cuda_thirds_width(m->k) : (m->k + unit - 1) / unit * unit;
}

extern "C" tt_status tt_cuda_matrix_open(tt_stream *s, tt_matrix **out, const tt_weight *part,
                                         int parts, const float *bias, tt_compute compute,
                                         unsigned flags, tt_err *e)
{
    int64_t n, k;
    bool integers;
    *out = NULL;
    tt_status st = check_parts(part, parts, flags, &n, &k, &integers, e);
    if (st)
        return st;
    if (compute == TT_COMPUTE_FP8 && !cuda_of(s)->hopper)
        return tt_fail(e, TT_EUNSUP, "matrix_open: 8-bit products need a GPU of compute capability "
                       "9.0");
    tt_matrix *m = (tt_matrix *)calloc(1, sizeof *m);
    if (!m)
        return tt_fail(e, TT_ENOMEM, "no memory for a matrix");
    m->n = n;
    m->k = k;
    m->fp8 = compute == TT_COMPUTE_FP8 && !(flags & TT_MATRIX_TABLE);
    /* Few inputs would be mostly zeros in thirds. */
    m->thirds = compute == TT_COMPUTE_THIRDS && cuda_of(s)->hopper && flags == TT_MATRIX_LINEAR &&
                k >= CUDA_THIRD;
    m->compute = compute == TT_COMPUTE_F32 || compute == TT_COMPUTE_THIRDS ? TT_COMPUTE_F32
                                                                           : TT_COMPUTE_BF16;
    m->flags = flags;
    m->kp = width_of(m);
    st = load(s, m, part, parts, bias, integers, e);
    if (st) {
        tt_cuda_matrix_close(s, m);
        return st;
    }
    *out = m;
    return TT_OK;
}

extern "C" void tt_cuda_matrix_close(tt_stream *s, tt_matrix *m)
{
    if (!m)
        return;
    cuda_forget_passes(cuda_of(s)); /* another model's may come to lie in the same places */
    tt_cuda_release(s, m->data);
    tt_cuda_release(s, m->scale);
    tt_cuda_release(s, m->bias);
    tt_cuda_release(s, m->card);
    free(m);
}

extern "C" void tt_cuda_matrix_size(const tt_matrix *m, int64_t *n, int64_t *k, size_t *bytes)
{
    if (n)
        *n = m->n;
    if (k)
        *k = m->k;
    if (bytes)
        *bytes = m->bytes;
}
