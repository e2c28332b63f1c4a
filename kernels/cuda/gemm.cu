/* gemm.cu - matrix products: which kernel, and the plain one that takes any shape and type.
 *
 * A kernel sums a product over the inputs in their order, in float32; where it adds up sums of
 * parts of them (gemm_hopper.cuh), the parts follow from the matrix. So the bits of an output
 * depend on its row and weights alone, not on how many rows share the call or which tile size
 * they made the launcher choose. */
#include <cuda_fp8.h>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/group.cuh"

namespace {

/* --- any shape: 64 x 64 outputs a block, 4 x 4 a thread --- */

constexpr int kTile = 64, kDepth = 16, kThreads = 256;

struct simple {
    int64_t rows, n, k, kp; /* n: outputs */
    int64_t ldx, ldy;
    const float *scale, *bias;
    bool add, gelu;
    const cuda_card *const *card; /* as in cuda_gemm; columns: tiles side by side */
    const int32_t *begin;
    int groups, columns;
};

/* Matrix row of output j; of the up row when second. */
template <bool GLU> __device__ int64_t row_of(int64_t j, bool second)
{
    if (!GLU)
        return j;
    return j / CUDA_GLU_RUN * 2 * CUDA_GLU_RUN + (second ? CUDA_GLU_RUN : 0) + j % CUDA_GLU_RUN;
}

__device__ float finish(const simple &p, float sum, int64_t row)
{
    if (p.scale)
        sum *= p.scale[row];
    sum = p.bias ? sum + p.bias[row] : sum;
    return p.gelu ? gelu_tanh(sum) : sum;
}

template <typename T, typename W, typename Y, bool GLU, bool GROUPED>
__global__ void __launch_bounds__(kThreads) simple_gemm(Y *y, const T *x, const W *w, simple p)
{
    constexpr int SETS = GLU ? 2 : 1;
    __shared__ float xs[kDepth][kTile + 4], ws[SETS][kDepth][kTile + 4];
    begin();
    int64_t r0 = blockIdx.y * (int64_t)kTile, j0 = blockIdx.x * (int64_t)kTile;
    if (GROUPED) {
        group_tile t = find_tile(p.begin, p.groups, kTile, p.columns, blockIdx.x);
        if (t.group < 0)
            return;
        w = (const W *)p.card[t.group]->data;
        p.scale = p.card[t.group]->scale;
        p.rows = t.end;
        r0 = t.row;
        j0 = t.column * (int64_t)kTile;
    }
    int tr = threadIdx.x / 16 * 4, tj = threadIdx.x % 16 * 4;
    float acc[SETS][4][4] = {};
    for (int64_t k0 = 0; k0 < p.k; k0 += kDepth) {
        for (int t = threadIdx.x; t < kTile * kDepth; t += kThreads) {
            int i = t / kDepth, d = t % kDepth;
            bool deep = k0 + d < p.k;
            xs[d][i] = deep && r0 + i < p.rows ? get(x[(r0 + i) * p.ldx + k0 + d]) : 0.0f;
#pragma unroll
            for (int s = 0; s < SETS; s++)
                ws[s][d][i] = deep && j0 + i < p.n
                                  ? weight_at(w, row_of<GLU>(j0 + i, s) * p.kp, k0 + d)
                                  : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int d = 0; d < kDepth; d++)
#pragma unroll
            for (int s = 0; s < SETS; s++)
#pragma unroll
                for (int a = 0; a < 4; a++)
#pragma unroll
                    for (int b = 0; b < 4; b++)
                        acc[s][a][b] = fmaf(xs[d][tr + a], ws[s][d][tj + b], acc[s][a][b]);
        __syncthreads();
    }
    for (int a = 0; a < 4; a++)
        for (int b = 0; b < 4; b++) {
            int64_t r = r0 + tr + a, j = j0 + tj + b;
            if (r >= p.rows || j >= p.n)
                continue;
            float v = finish(p, acc[0][a][b], row_of<GLU>(j, false));
            if (GLU)
                v = v / (1.0f + expf(-v)) * finish(p, acc[SETS - 1][a][b], row_of<GLU>(j, true));
            Y *to = &y[r * p.ldy + j];
            put(to, p.add ? v + get(*to) : v);
        }
}

template <typename T, typename W, typename Y>
tt_status run_simple(cuda *c, const cuda_gemm *g, tt_err *e)
{
    const tt_matrix *m = g->w;
    simple p = {g->rows, g->glu ? m->n / 2 : m->n, m->k, m->kp, g->ldx, g->ldy, m->scale, m->bias,
                g->add, g->gelu, g->card, g->begin, g->groups, (int)blocks(g->w->n, kTile)};
    dim3 grid(blocks(p.n, kTile), blocks(p.rows, kTile));
    auto kernel = g->glu    ? simple_gemm<T, W, Y, true, false>
                  : g->card ? simple_gemm<T, W, Y, false, true>
                            : simple_gemm<T, W, Y, false, false>;
    int tiles;
    tt_status st = g->card ? most_tiles(&tiles, g, kTile, p.columns, e) : TT_OK;
    if (st)
        return st;
    if (g->card)
        grid = dim3((unsigned)tiles);
    return launch(c, "linear", kernel, grid, kThreads, 0, e, (Y *)g->y, (const T *)g->x,
                  (const W *)m->data, p);
}

/* --- activations to e4m3, one scale a row --- */

constexpr int kRoundThreads = 512, kRoundKept = 4;

/* The greatest of the block's. */
__device__ float block_max(float x)
{
    __shared__ float most[kRoundThreads / 32];
    for (int d = 16; d; d >>= 1)
        x = fmaxf(x, __shfl_xor_sync(~0u, x, d));
    if (threadIdx.x % 32 == 0)
        most[threadIdx.x / 32] = x;
    __syncthreads();
    for (int w = 0; w < kRoundThreads / 32; w++)
        x = fmaxf(x, most[w]);
    return x;
}

__device__ uint32_t round4(const float (&x)[4], float times)
{
    uint32_t four = 0;
#pragma unroll
    for (int j = 0; j < 4; j += 2) {
        float2 two = make_float2(x[j] * times, x[j + 1] * times);
        four |= (uint32_t)__nv_cvt_float2_to_fp8x2(two, __NV_SATFINITE, __NV_E4M3) << 8 * j;
    }
    return four;
}

/* What a block found, to the row's scale and the factor that rounding multiplies with. */
__device__ float keep_scale(float *scale, float max)
{
    float unit = max > 0 ? max / 448.0f : 1.0f;
    if (threadIdx.x == 0)
        scale[blockIdx.x] = unit;
    return 1.0f / unit;
}

/* One block a row. */
__global__ void __launch_bounds__(kRoundThreads)
    round_fp8(__nv_fp8_storage_t *y, int64_t kp, float *scale, const bf16 *x, int64_t ldx,
              int64_t k)
{
    begin();
    const bf16 *row = x + blockIdx.x * ldx;
    float max = 0;
    for (int64_t i = threadIdx.x; i < k; i += kRoundThreads)
        max = fmaxf(max, fabsf(get(row[i])));
    float times = keep_scale(scale, block_max(max));
    for (int64_t i = threadIdx.x * 4; i < kp; i += kRoundThreads * 4) {
        float v[4];
        for (int j = 0; j < 4; j++)
            v[j] = i + j < k ? get(row[i + j]) : 0.0f;
        *reinterpret_cast<uint32_t *>(y + blockIdx.x * kp + i) = round4(v, times);
    }
}

/* 16 bytes of x a thread, at most kRoundKept times, read once. */
__global__ void __launch_bounds__(kRoundThreads)
    round_fp8_wide(__nv_fp8_storage_t *y, int64_t kp, float *scale, const bf16 *x, int64_t ldx,
                   int64_t k)
{
    begin();
    pack<bf16> kept[kRoundKept];
    float max = 0;
#pragma unroll
    for (int n = 0; n < kRoundKept; n++) {
        int64_t i = (n * kRoundThreads + (int64_t)threadIdx.x) * 8;
        kept[n].raw = make_uint4(0, 0, 0, 0);
        if (i < k)
            kept[n] = load16(x + blockIdx.x * ldx + i);
    }
#pragma unroll
    for (int n = 0; n < kRoundKept; n++)
#pragma unroll
        for (int j = 0; j < 8; j++)
            max = fmaxf(max, fabsf(get(kept[n].v[j])));
    float times = keep_scale(scale, block_max(max));
#pragma unroll
    for (int n = 0; n < kRoundKept; n++) {
        int64_t i = (n * kRoundThreads + (int64_t)threadIdx.x) * 8;
        float v[2][4];
#pragma unroll
        for (int j = 0; j < 8; j++)
            v[j / 4][j % 4] = get(kept[n].v[j]);
        if (i < kp)
            *reinterpret_cast<uint2 *>(y + blockIdx.x * kp + i) =
                make_uint2(round4(v[0], times), round4(v[1], times));
    }
}

tt_status run_fp8(cuda *c, cuda_gemm *g, tt_err *e)
{
    const tt_matrix *m = g->w;
    size_t bytes = (size_t)g->rows * (size_t)m->kp, scales = (size_t)g->rows * sizeof(float);
    bytes = (bytes + 255) & ~(size_t)255;
    tt_status st = cuda_reserve(c, &c->fp8, &c->fp8_bytes, bytes + scales, e);
    if (st)
        return st;
    g->x8 = c->fp8;
    g->x8_scale = (const float *)((char *)c->fp8 + bytes);
    bool wide = aligned16(g->x) && g->ldx % 8 == 0 && m->k % 8 == 0 &&
                m->kp <= kRoundKept * kRoundThreads * 8;
    st = launch(c, "fp8", wide ? round_fp8_wide : round_fp8, (unsigned)g->rows,
                kRoundThreads, 0, e, (__nv_fp8_storage_t *)g->x8, m->kp, (float *)g->x8_scale,
                (const bf16 *)g->x, g->ldx, m->k);
    return st ? st : cuda_gemm_hopper(c, g, e);
}

cuda_gemm product(const tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                  int64_t rows, const tt_matrix *w)
{
    cuda_gemm g = {};
    g.y = y;
    g.ldy = ldy;
    g.x = x;
    g.ldx = ldx;
    g.rows = rows;
    g.w = w;
    g.narrow = s->act == TT_BF16;
    return g;
}

tt_status check(const char *op, const tt_stream *s, const cuda_gemm *g, int64_t outputs, tt_err *e)
{
    const tt_matrix *m = g->w;
    if (!(m->flags & TT_MATRIX_LINEAR) || !(m->flags & TT_MATRIX_GLU) == g->glu)
        return tt_fail(e, TT_EINVAL, "%s: the matrix was opened for something else", op);
    if (bad_shape(g->rows, m->k, g->ldx))
        return shape_error(op, g->rows, m->k, g->ldx, e);
    if (g->ldy < outputs)
        return shape_error(op, g->rows, outputs, g->ldy, e);
    /* Float32 weights take activations of either type: they are what must not be rounded. */
    if (m->compute == TT_COMPUTE_BF16 && s->act != TT_BF16)
        return tt_fail(e, TT_EINVAL, "%s: %s activations, BF16 weights", op, tt_dtype_name(s->act));
    return TT_OK;
}

tt_status run_checked(const char *op, tt_stream *s, cuda_gemm *g, int64_t outputs, tt_err *e)
{
    tt_status st = check(op, s, g, outputs, e);
    return st ? st : cuda_gemm_run(cuda_of(s), g, e);
}

} // namespace

tt_status cuda_gemm_run(cuda *c, cuda_gemm *g, tt_err *e)
{
    if (g->rows == 0)
        return TT_OK;
    if (g->w->fp8)
        return run_fp8(c, g, e);
    if (g->w->thirds)
        return g->narrow ? run_simple<bf16, third, bf16>(c, g, e)
                         : cuda_gemm_hopper_thirds(c, g, e);
    if (g->w->compute == TT_COMPUTE_F32)
        return g->narrow ? run_simple<bf16, float, bf16>(c, g, e)
                         : run_simple<float, float, float>(c, g, e);
    if (c->hopper && cuda_gemm_hopper_fits(g))
        return cuda_gemm_hopper(c, g, e);
    if (cuda_gemm_mma_fits(g))
        return cuda_gemm_mma(c, g, e);
    return g->wide ? run_simple<bf16, bf16, float>(c, g, e) : run_simple<bf16, bf16, bf16>(c, g, e);
}

extern "C" tt_status tt_cuda_linear(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x,
                                    int64_t ldx, int64_t rows, const tt_matrix *w, bool add,
                                    tt_err *e)
{
    cuda_gemm g = product(s, y, ldy, x, ldx, rows, w);
    g.add = add;
    return run_checked("linear", s, &g, w->n, e);
}

extern "C" tt_status tt_cuda_linear_gelu(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x,
                                         int64_t ldx, int64_t rows, const tt_matrix *w, tt_err *e)
{
    cuda_gemm g = product(s, y, ldy, x, ldx, rows, w);
    g.gelu = true;
    return run_checked("linear_gelu", s, &g, w->n, e);
}

extern "C" tt_status tt_cuda_linear_split(tt_stream *s, tt_act *y, int64_t ldy, int64_t split,
                                          tt_act *z, int64_t ldz, const int32_t *index,
                                          const tt_act *x, int64_t ldx, int64_t rows,
                                          const tt_matrix *w, tt_err *e)
{
    cuda *c = cuda_of(s);
    cuda_gemm g = product(s, y, ldy, x, ldx, rows, w);
    tt_status st = check("linear_split", s, &g, w->n, e);
    if (!st && (split < 0 || split >= w->n || ldz < w->n - split))
        st = tt_fail(e, TT_EINVAL, "linear_split: outputs from %lld on of %lld, stride %lld",
                     (long long)split, (long long)w->n, (long long)ldz);
    if (st)
        return st;
    if (c->hopper && w->compute == TT_COMPUTE_BF16 && !w->fp8 && cuda_gemm_hopper_fits(&g) &&
        split % CUDA_SPLIT_RUN == 0) {
        g.index = index;
        g.z = z;
        g.ldz = ldz;
        g.split = split;
        return cuda_gemm_run(c, &g, e);
    }
    st = cuda_gemm_run(c, &g, e);
    const char *rest = (const char *)y + split * (int64_t)tt_dtype_size(s->act);
    return st ? st : tt_cuda_scatter(s, z, ldz, rest, ldy, index, rows, w->n - split, e);
}

/* One launch for all groups, by the kernel that `linear` takes. The list of their cards is an
 * argument: a few kilobytes at most. */
extern "C" tt_status tt_cuda_linear_grouped(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x,
                                            int64_t ldx, int64_t rows, const tt_matrix *const *w,
                                            int64_t groups, const int32_t *first, tt_err *e)
{
    cuda *c = cuda_of(s);
    if (groups < 1 || groups > TT_MAX_EXPERTS)
        return tt_fail(e, TT_EINVAL, "linear_grouped: %lld groups", (long long)groups);
    cuda_gemm g = product(s, y, ldy, x, ldx, rows, w[0]);
    g.begin = first;
    g.groups = (int)groups;
    tt_status st = check("linear_grouped", s, &g, w[0]->n, e);
    const cuda_card *card[TT_MAX_EXPERTS];
    for (int64_t i = 0; i < groups && !st; i++) {
        const tt_matrix *m = w[i];
        card[i] = m->card;
        if (m->n != w[0]->n || m->k != w[0]->k || m->compute != w[0]->compute ||
            m->fp8 != w[0]->fp8 || m->bias || !m->card)
            st = tt_fail(e, TT_EINVAL, "linear_grouped: matrix %lld of %lld x %lld%s beside %lld x "
                         "%lld", (long long)i, (long long)m->n, (long long)m->k,
                         m->bias ? " has a bias" : "", (long long)w[0]->n, (long long)w[0]->k);
    }
    if (st || rows == 0)
        return st;
    void *list;
    size_t bytes = (size_t)groups * sizeof *card;
    st = cuda_arg(c, &list, card, bytes, bytes, e);
    g.card = (const cuda_card *const *)list;
    return st ? st : cuda_gemm_run(c, &g, e);
}

extern "C" tt_status tt_cuda_glu(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                                 int64_t rows, const tt_matrix *w, tt_err *e)
{
    cuda_gemm g = product(s, y, ldy, x, ldx, rows, w);
    g.glu = true;
    return run_checked("glu", s, &g, w->n / 2, e);
}
