/* gemm_hopper.cu - the bfloat16 products of gemm_hopper.cuh, and the head's. */
#include "kernels/cuda/gemm_hopper.cuh"

bool cuda_gemm_hopper_fits(const cuda_gemm *g)
{
    return aligned16(g->x) && g->ldx % 8 == 0 && g->rows <= 1 << 24;
}

tt_status cuda_gemm_hopper_fp8(cuda *c, const cuda_gemm *g, tt_err *e);

tt_status cuda_gemm_hopper(cuda *c, const cuda_gemm *g, tt_err *e)
{
    using namespace hopper;
    if (g->card)
        return cuda_gemm_hopper_grouped(c, g, e);
    if (g->w->fp8)
        return cuda_gemm_hopper_fp8(c, g, e);
    if (g->glu)
        return glu<false>(c, g, e);
    if (!g->wide)
        return act<false>(c, g, e);
    hopper_args a = arguments(g);
    return g->rows <= 64 ? run<64, 128, OUT_WIDE, false>(c, g, a, e)
                         : run<128, 128, OUT_WIDE, false>(c, g, a, e);
}

tt_status cuda_gemm_hopper_head(cuda *c, const cuda_gemm *g, const head_tile_args *head, tt_err *e)
{
    using namespace hopper;
    static const int widths[] = {kHeadTile, 2 * kHeadTile};
    hopper_args a = arguments(g);
    a.head = *head;
    if (g->rows <= 64)
        return run<64, kHeadTile, OUT_HEAD, false>(c, g, a, e);
    return choose(c, g, a.n, widths, 2) == kHeadTile
               ? run<128, kHeadTile, OUT_HEAD, false>(c, g, a, e)
               : run<128, 2 * kHeadTile, OUT_HEAD, false>(c, g, a, e);
}
