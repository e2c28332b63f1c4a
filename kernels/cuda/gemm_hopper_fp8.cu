/* gemm_hopper_fp8.cu - the e4m3 products of gemm_hopper.cuh. */
#include "kernels/cuda/gemm_hopper.cuh"

tt_status cuda_gemm_hopper_fp8(cuda *c, const cuda_gemm *g, tt_err *e);
tt_status cuda_gemm_hopper_fp8(cuda *c, const cuda_gemm *g, tt_err *e)
{
    return g->glu ? hopper::glu<true>(c, g, e) : hopper::act<true>(c, g, e);
}
