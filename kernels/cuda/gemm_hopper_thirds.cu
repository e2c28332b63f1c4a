/* gemm_hopper_thirds.cu - float32 products by wgmma: operands cut into three bfloat16 parts, whose
 * six largest products gemm_hopper.cuh adds up (TT_COMPUTE_THIRDS).
 *
 * Three parts hold all 24 bits of a float32: the middle one is at most 2^-9 of it, the smallest
 * 2^-18, so that what is left out of a product is about 2^-26 of it at most. */
#include "kernels/cuda/gemm_hopper.cuh"

namespace {

constexpr int kCutThreads = 256, kCutEach = 8; /* numbers of a thread */
constexpr int64_t kMostBytes = 256 << 20;      /* of parts, unless one row or image takes more */

__device__ void load(float (&v)[kCutEach], const float *x, int64_t left, bool vector)
{
    if (vector && left >= kCutEach) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            pack<float> four = load16(x + 4 * h);
#pragma unroll
            for (int j = 0; j < 4; j++)
                v[4 * h + j] = four.v[j];
        }
        return;
    }
#pragma unroll
    for (int j = 0; j < kCutEach; j++)
        v[j] = j < left ? x[j] : 0.0f;
}

/* A row of k numbers takes 3 `width`. */
__global__ void __launch_bounds__(kCutThreads)
    cut_rows(bf16 *to, int64_t width, const float *x, int64_t ldx, int64_t rows, int64_t k,
             bool vector)
{
    begin();
    int64_t each = width / kCutEach, at = blockIdx.x * (int64_t)kCutThreads + threadIdx.x;
    int64_t row = at / each, i = at % each * kCutEach;
    if (row >= rows)
        return;
    float v[kCutEach];
    pack<bf16> out[3];
    load(v, x + row * ldx + i, k - i, vector);
#pragma unroll
    for (int j = 0; j < kCutEach; j++) {
        bf16 part[3];
        cut(part, v[j]);
#pragma unroll
        for (int p = 0; p < 3; p++)
            out[p].v[j] = part[p];
    }
    bf16 *place = to + row * 3 * width + i / CUDA_THIRD * 3 * CUDA_THIRD + i % CUDA_THIRD;
#pragma unroll
    for (int p = 0; p < 3; p++)
        store16(place + p * CUDA_THIRD, out[p]);
}

/* 64 outputs fill the GPU sooner, 128 take less of the L2. */
tt_status product(cuda *c, const cuda_gemm *g, tt_err *e)
{
    using namespace hopper;
    static const int widths[] = {64, 96, 128};
    hopper_args a = arguments(g);
    int width = choose(c, g, a.n, widths, 3);
    if (g->rows <= 64)
        return width == 64 ? run<64, 64, OUT_WIDE, false, THIRDS>(c, g, a, e)
                           : run<64, 128, OUT_WIDE, false, THIRDS>(c, g, a, e);
    switch (width) {
    case 64: return run<128, 64, OUT_WIDE, false, THIRDS>(c, g, a, e);
    case 96: return run<128, 96, OUT_WIDE, false, THIRDS>(c, g, a, e);
    default: return run<128, 128, OUT_WIDE, false, THIRDS>(c, g, a, e);
    }
}

} // namespace

int64_t cuda_thirds_at_once(int64_t k)
{
    int64_t rows = kMostBytes / (2 * cuda_thirds_width(k));
    return rows > 1 ? rows : 1;
}

tt_status cuda_cut_thirds(cuda *c, const void **out, const float *x, int64_t ldx, int64_t rows,
                          int64_t k, tt_err *e)
{
    int64_t width = cuda_thirds_width(k) / 3;
    tt_status st = cuda_reserve(c, &c->thirds, &c->thirds_bytes,
                                (size_t)rows * (size_t)width * 3 * sizeof(bf16), e);
    *out = c->thirds;
    return st ? st
              : launch(c, "thirds", cut_rows, blocks(rows * (width / kCutEach), kCutThreads),
                       kCutThreads, 0, e, (bf16 *)c->thirds, width, x, ldx, rows, k,
                       aligned16(x) && ldx % 4 == 0);
}

/* Rows are independent: cut and multiplied some at a time. */
tt_status cuda_gemm_hopper_thirds(cuda *c, const cuda_gemm *g, tt_err *e)
{
    int64_t most = cuda_thirds_at_once(g->w->k);
    tt_status st = TT_OK;
    for (int64_t r = 0; r < g->rows && !st; r += most) {
        cuda_gemm part = *g;
        part.rows = g->rows - r < most ? g->rows - r : most;
        part.y = (float *)g->y + r * g->ldy;
        part.ldx = g->w->kp;
        st = cuda_cut_thirds(c, &part.x, (const float *)g->x + r * g->ldx, g->ldx, part.rows,
                             g->w->k, e);
        if (!st)
            st = product(c, &part, e);
    }
    return st;
}
