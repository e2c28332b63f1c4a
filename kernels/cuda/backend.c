/* backend.c - the plug-in's table: which GPU, what it can do. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.h"

/* Without a driver the run time says 0 here and something misleading later. */
static tt_status probe(int *devices, tt_err *e)
{
    int version = 0;
    *devices = 0;
    cudaError_t code = cudaDriverGetVersion(&version);
    if (code != cudaSuccess || version == 0)
        return tt_fail(e, TT_ENODEV, "no NVIDIA driver is installed");
    code = cudaGetDeviceCount(devices);
    if (code == cudaErrorInsufficientDriver)
        return tt_fail(e, TT_ENODEV,
                       "the NVIDIA driver is for CUDA %d.%d, this plug-in needs %d.%d",
                       version / 1000, version % 1000 / 10, CUDART_VERSION / 1000,
                       CUDART_VERSION % 1000 / 10);
    if (code == cudaErrorNoDevice || (code == cudaSuccess && *devices == 0))
        return tt_fail(e, TT_ENODEV, "the NVIDIA driver finds no GPU");
    if (code != cudaSuccess)
        return tt_fail(e, TT_ENODEV, "CUDA does not start: %s", cudaGetErrorString(code));
    return TT_OK;
}

static void close_stream(tt_stream *s)
{
    cuda *c = s->impl;
    if (!c)
        return;
    cuda_use_device(c->device);
    if (c->q)
        cudaStreamSynchronize(c->q);
    cuda_memory_close(c);
    if (c->q)
        cudaStreamDestroy(c->q);
    free(c);
    s->impl = NULL;
}

static tt_status start(cuda *c, tt_err *e)
{
    struct cudaDeviceProp p;
    tt_status s = cuda_check(cudaGetDeviceProperties(&p, c->device), "device", e);
    if (s)
        return s;
    if (p.major < 8)
        return tt_fail(e, TT_ENODEV, "%.60s has compute capability %d.%d; 8.0 is the least", p.name,
                       p.major, p.minor);
    snprintf(c->name, sizeof c->name, "%.63s", p.name);
    c->sms = p.multiProcessorCount;
    c->hopper = p.major == 9 && p.minor == 0;
    c->early = p.major >= 9;
    c->total = p.totalGlobalMem;
    const char *ranges = getenv("TUTTI_NVTX");
    c->ranges = ranges && !strcmp(ranges, "1");
    cuda_use_device(c->device);
    s = cuda_check(cudaStreamCreateWithFlags(&c->q, cudaStreamNonBlocking), "stream", e);
    if (!s && c->hopper) {
        void *fn = NULL;
        enum cudaDriverEntryPointQueryResult found;
        s = cuda_check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &fn, 12000,
                                                        cudaEnableDefault, &found), "driver", e);
        if (!s && (found != cudaDriverEntryPointSuccess || !fn))
            c->hopper = false; /* an old driver: the Ampere kernels do */
        memcpy(&c->encode, &fn, sizeof fn);
    }
    return s ? s : cuda_memory_open(c, e);
}

static tt_status open_stream(tt_stream *s, int device, tt_err *e)
{
    cuda *c = calloc(1, sizeof *c);
    if (!c)
        return tt_fail(e, TT_ENOMEM, "no memory for a stream");
    c->device = device;
    s->impl = c;
    tt_status st = start(c, e);
    if (st)
        close_stream(s);
    return st == TT_EIO ? TT_ENODEV : st;
}

static void describe(const tt_stream *s, char *text, size_t size)
{
    const cuda *c = s->impl;
    snprintf(text, size, "%s, %d multiprocessors, %.1f GiB, %s", c->name, c->sms,
             (double)c->total / (1 << 30), c->hopper ? "wgmma" : "mma");
}

static bool has_compute(const tt_stream *s, tt_compute c)
{
    return (c != TT_COMPUTE_FP8 && c != TT_COMPUTE_THIRDS) || cuda_of(s)->hopper;
}

static tt_dtype act_type(const tt_stream *s, tt_compute c)
{
    (void)s;
    return c == TT_COMPUTE_F32 || c == TT_COMPUTE_THIRDS ? TT_F32 : TT_BF16;
}

#define CUDA_OP(op) .op = tt_cuda_##op,
static const tt_backend table = {
    .abi = TT_BACKEND_ABI,
    .size = sizeof(tt_backend),
    .flags = TT_BACKEND_HOLES,
    .name = "cuda",
    .summary = "NVIDIA GPUs from compute capability 8.0, Hopper's own instructions where present",
    .probe = probe,
    .open = open_stream,
    .close = close_stream,
    .describe = describe,
    .has_compute = has_compute,
    TT_OPS(CUDA_OP)
    .act_type = act_type,
    .glu = tt_cuda_glu,
    .bucket = tt_cuda_bucket,
    .head_key = tt_cuda_head_key,
    .span_key = tt_cuda_span_key,
    .pass_begin = tt_cuda_pass_begin,
    .pass_end = tt_cuda_pass_end,
    .ceilings = tt_cuda_ceilings,
    .memory = tt_cuda_memory,
    .rmsnorm_twice = tt_cuda_rmsnorm_twice,
    TT_SOME_OPS(CUDA_OP)
};

__attribute__((visibility("default"))) const void *tutti_plugin(void);
const void *tutti_plugin(void)
{
    return &table;
}
