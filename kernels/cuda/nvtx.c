/* nvtx.c - named ranges that a profiler (Nsight Systems) shows beside the kernels; TUTTI_NVTX=1. */
#include <nvtx3/nvToolsExt.h>

#include "kernels/cuda/cuda.h"

void cuda_range_begin(const cuda *c, const char *name)
{
    if (c->ranges)
        nvtxRangePushA(name);
}

void cuda_range_end(const cuda *c)
{
    if (c->ranges)
        nvtxRangePop();
}
