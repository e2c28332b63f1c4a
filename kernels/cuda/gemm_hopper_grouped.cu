/* gemm_hopper_grouped.cu - the products of gemm_hopper.cuh over groups of rows, each with a matrix
 * of its own: the tiles of all groups share one launch, and a row has the bits `linear` gives it.
 *
 * The map of a group's weights comes from its card in global memory. A tile of x may reach into
 * the rows of the next group; they are multiplied and not stored. */
#include "kernels/cuda/gemm_hopper.cuh"
#include "kernels/cuda/group.cuh"

namespace hopper {

/* What a group's tiles need; a: as for one matrix, without its scales. */
struct grouped_args {
    const cuda_card *const *card;
    const int32_t *first;
    int groups, columns;
    int run; /* stages of a sum of the sums: as `linear` has it */
    hopper_args a;
};

/* Maps written by copies from the host are seen after this. */
__device__ inline void acquire_map(const CUtensorMap *map)
{
    asm volatile("fence.proxy.tensormap::generic.acquire.sys [%0], 128;" ::"l"(map) : "memory");
}

/* The feeding warp; its first lane copies. */
template <int TM, int TN, bool FP8>
__device__ void feed_groups(ring<TM, TN> r, const CUtensorMap *mx, const grouped_args &p)
{
    constexpr int UNIT = FP8 ? kSlab : kSlab / 2, BYTES = (TM + TN) * kSlab;
    for (int tile = blockIdx.x;; tile += gridDim.x) {
        group_tile t = find_tile(p.first, p.groups, TM, p.columns, tile);
        if (t.group < 0)
            return;
        if (threadIdx.x % 32 == 0) {
            const CUtensorMap *mw = &p.card[t.group]->map;
            acquire_map(mw);
            for (int k = 0; k < p.a.slabs; k++, r.next()) {
                barrier_wait(&r.empty[r.stage], r.parity ^ 1);
                barrier_expect(&r.full[r.stage], BYTES);
                copy_box(r.x + r.stage * TM * kSlab, mx, &r.full[r.stage], k * UNIT, (int)t.row,
                         kEvictLast);
                copy_box(r.w + r.stage * TN * kSlab, mw, &r.full[r.stage], k * UNIT,
                         t.column * TN, kEvictFirst);
            }
        }
        __syncwarp();
    }
}

template <int TM, int TN, bool FP8>
__device__ void multiply_groups(ring<TM, TN> r, const grouped_args &p)
{
    int group = threadIdx.x / 128, warp = threadIdx.x / 32 % 4;
    for (int tile = blockIdx.x;; tile += gridDim.x) {
        group_tile t = find_tile(p.first, p.groups, TM, p.columns, tile);
        if (t.group < 0)
            return;
        float d[TN / 2];
        sum_tile<true, FP8>(r, p.a.slabs, p.run, d);
        hopper_args a = p.a;
        a.rows = t.end;
        a.scale = p.card[t.group]->scale;
        int64_t m0 = t.row + group * 64 + warp * 16;
        finish<TN>(d, a, m0, t.column * TN);
        store_act<TN>(d, a, m0, t.column * TN);
    }
}

template <int TM, int TN, bool FP8>
__global__ void __launch_bounds__(threads<TM>(), 1)
    grouped(const __grid_constant__ CUtensorMap mx, const __grid_constant__ grouped_args p)
{
#if __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ char raw[];
    ring<TM, TN> r(raw, p.a.stages, TM, -1);
    if (threadIdx.x == 0)
        r.init();
    __syncthreads();
    begin();
    if (threadIdx.x >= TM / 64 * 128) {
        if (TM > 64)
            asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x < TM / 64 * 128 + 32)
            feed_groups<TM, TN, FP8>(r, &mx, p);
    } else {
        if (TM > 64)
            asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        multiply_groups<TM, TN, FP8>(r, p);
    }
#endif
}

template <int TM, bool FP8> tt_status run_grouped(cuda *c, const cuda_gemm *g, tt_err *e)
{
    constexpr int TN = CUDA_CARD_ROWS;
    if (!cuda_runs(c))
        return TT_OK;
    const tt_matrix *m = g->w;
    CUtensorMap mx;
    grouped_args p = {};
    p.card = g->card;
    p.first = g->begin;
    p.groups = g->groups;
    p.columns = (int)blocks(m->n, TN);
    p.a = arguments(g);
    p.a.stages = stages_of(ring_bytes<TM>(), TM, TN);
    p.a.slabs = (int)((m->k * (FP8 ? 1 : 2) + kSlab - 1) / kSlab);
    p.run = FP8 ? kPromote : quartered(m) ? p.a.slabs / 4 : p.a.slabs;
    int tiles;
    tt_status st = most_tiles(&tiles, g, TM, p.columns, e);
    if (!st)
        st = FP8 ? encode(c, &mx, g->x8, true, g->rows, m->kp, m->kp, TM, false, e)
                 : encode(c, &mx, g->x, false, g->rows, m->k, g->ldx, TM, false, e);
    static uint64_t allowed;
    auto kernel = grouped<TM, TN, FP8>;
    if (!st)
        st = allow_shared(c, &allowed, kernel, shared_bytes<TM>(), "linear_grouped", e);
    return st ? st
              : launch(c, "linear_grouped", kernel, (unsigned)(tiles < c->sms ? tiles : c->sms),
                       threads<TM>(), shared_bytes<TM>(), e, mx, p);
}

} // namespace hopper

tt_status cuda_gemm_hopper_map(const cuda *c, CUtensorMap *map, const tt_matrix *m, tt_err *e)
{
    return hopper::encode(c, map, m->data, m->fp8, cuda_matrix_rows(m), m->kp, m->kp,
                          CUDA_CARD_ROWS, true, e);
}

/* Tiles of 64 rows until groups fill more than one on average. */
tt_status cuda_gemm_hopper_grouped(cuda *c, const cuda_gemm *g, tt_err *e)
{
    using namespace hopper;
    bool tall = g->rows > 64 * (int64_t)g->groups;
    if (g->w->fp8)
        return tall ? run_grouped<128, true>(c, g, e) : run_grouped<64, true>(c, g, e);
    return tall ? run_grouped<128, false>(c, g, e) : run_grouped<64, false>(c, g, e);
}
