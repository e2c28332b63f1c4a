/* gemm_mma.cu - bfloat16 products by mma.sync, for GPUs before and after Hopper (8.0 and later):
 * 128 rows by 128 outputs a block, K in steps of 32 through a ring of cp.async stages, eight warps
 * of 64 x 32. Each output sums over K in order, as everywhere (gemm.cu). */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/group.cuh"
#include "kernels/cuda/mma.cuh"

namespace {

struct args {
    int64_t rows, n, k, kp, ldx, ldy, width;
    const float *scale, *bias;
    bool add, gelu;
    const cuda_card *const *card; /* as in cuda_gemm; columns: tiles side by side */
    const int32_t *begin;
    int groups, columns;
};

__device__ void load_tile(bf16 *tile, const bf16 *from, int64_t ld, int64_t first, int64_t rows,
                          int64_t k0, int64_t k)
{
    for (int t = threadIdx.x; t < kM * 4; t += kThreads) {
        int row = t / 4, part = t % 4;
        bool valid = first + row < rows && k0 + part * 8 < k;
        const bf16 *p = from + (valid ? (first + row) * ld + k0 + part * 8 : 0);
        fetch16(tile + place(row, part), p, valid);
    }
}

__device__ float finish(const args &p, float v, int64_t col)
{
    if (p.scale)
        v *= p.scale[col];
    v = p.bias ? v + p.bias[col] : v;
    return p.gelu ? gelu_tanh(v) : v;
}

template <typename Y> __device__ void store(Y *y, const args &p, int64_t row, int64_t col, float v)
{
    Y *to = y + row * p.ldy + col;
    put(to, p.add ? v + get(*to) : v);
}

template <typename Y, bool GLU, bool GROUPED>
__global__ void __launch_bounds__(kThreads) gemm(Y *y, const bf16 *x, const bf16 *w, args p)
{
    extern __shared__ __align__(128) char raw[];
    bf16 *ring = (bf16 *)raw;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int64_t m0 = blockIdx.x * (int64_t)kM, n0 = blockIdx.y * (int64_t)kN;
    int steps = (int)((p.kp + kK - 1) / kK);
    begin();
    if (GROUPED) {
        group_tile t = find_tile(p.begin, p.groups, kM, p.columns, blockIdx.x);
        if (t.group < 0)
            return;
        w = (const bf16 *)p.card[t.group]->data;
        p.scale = p.card[t.group]->scale;
        p.rows = t.end;
        m0 = t.row;
        n0 = t.column * (int64_t)kN;
    }
    float d[4][4][4] = {};
    auto fetch = [&](int s) {
        if (s < steps) {
            bf16 *at = ring + s % kStages * kStage;
            load_tile(at, x, p.ldx, m0, p.rows, (int64_t)s * kK, p.k);
            load_tile(at + kM * kK, w, p.kp, n0, p.n, (int64_t)s * kK, p.kp);
        }
        asm volatile("cp.async.commit_group;");
    };
    for (int s = 0; s < kStages - 1; s++)
        fetch(s);
    for (int s = 0; s < steps; s++) {
        asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 2));
        __syncthreads();
        fetch(s + kStages - 1);
        const bf16 *at = ring + s % kStages * kStage;
        step(d, at, at + kM * kK, warp, lane);
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < (GLU ? 2 : 4); j++)
#pragma unroll
            for (int q = 0; q < 4; q++) {
                int64_t row = m0 + warp / 4 * 64 + 16 * i + lane / 4 + q / 2 * 8;
                int group = (int)(n0 + warp % 4 * 32) / 8 + (GLU ? 2 * j : j);
                int in = 2 * (lane % 4) + q % 2;
                int64_t out = GLU ? (int64_t)group / 2 * 8 + in : (int64_t)group * 8 + in;
                if (row >= p.rows || out >= p.width)
                    continue;
                float v = finish(p, d[i][GLU ? 2 * j : j][q], (int64_t)group * 8 + in);
                if (GLU) {
                    float up = finish(p, d[i][2 * j + 1 < 4 ? 2 * j + 1 : 3][q],
                                      (int64_t)(group + 1) * 8 + in);
                    v = silu(v) * up;
                }
                store(y, p, row, out, v);
            }
}

template <typename Y, bool GLU, bool GROUPED> tt_status run(cuda *c, const cuda_gemm *g, tt_err *e)
{
    const tt_matrix *m = g->w;
    constexpr size_t bytes = sizeof(bf16) * kStage * kStages;
    args p = {g->rows, cuda_matrix_rows(m), m->k, m->kp, g->ldx, g->ldy, GLU ? m->n / 2 : m->n,
              m->scale, m->bias, g->add, g->gelu, g->card, g->begin, g->groups,
              (int)blocks(m->n, kN)};
    static uint64_t allowed;
    tt_status st = allow_shared(c, &allowed, gemm<Y, GLU, GROUPED>, bytes, "linear", e);
    if (st)
        return st;
    dim3 grid(blocks(p.rows, kM), blocks(p.n, kN));
    int tiles;
    if (GROUPED && (st = most_tiles(&tiles, g, kM, p.columns, e)))
        return st;
    if (GROUPED)
        grid = dim3((unsigned)tiles);
    return launch(c, "linear", gemm<Y, GLU, GROUPED>, grid, kThreads, bytes, e, (Y *)g->y,
                  (const bf16 *)g->x, (const bf16 *)m->data, p);
}

} // namespace

bool cuda_gemm_mma_fits(const cuda_gemm *g)
{
    return aligned16(g->x) && g->ldx % 8 == 0 && g->w->k % 8 == 0 && !g->w->fp8;
}

tt_status cuda_gemm_mma(cuda *c, const cuda_gemm *g, tt_err *e)
{
    if (g->card)
        return run<bf16, false, true>(c, g, e);
    if (g->wide)
        return run<float, false, false>(c, g, e);
    return g->glu ? run<bf16, true, false>(c, g, e) : run<bf16, false, false>(c, g, e);
}
