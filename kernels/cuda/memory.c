/* memory.c - device memory, arguments and results of operations. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.h"

enum { PENDING = 4096, ALIGN = 64 };

struct cuda_pending {
    void *host;
    size_t at, bytes; /* in results_host */
};

tt_status cuda_check(cudaError_t code, const char *what, tt_err *e)
{
    if (code == cudaSuccess)
        return TT_OK;
    tt_status s = code == cudaErrorMemoryAllocation ? TT_ENOMEM : TT_EIO;
    return tt_fail(e, s, "%s: %s", what, cudaGetErrorString(code));
}

tt_status cuda_launched(const cuda *c, const char *what, tt_err *e)
{
    (void)c;
    return cuda_check(cudaGetLastError(), what, e);
}

void cuda_use_device(int device)
{
    static _Thread_local int current = -1;
    if (current != device && cudaSetDevice(device) == cudaSuccess)
        current = device;
}

/* --- device memory --- */

/* From the stream's pool: freeing and taking again costs no synchronisation, so that requests may
 * come and go between passes. Sizes are kept beside the address for the gauge. */
tt_status tt_cuda_alloc(tt_stream *s, void **out, size_t bytes, tt_err *e)
{
    cuda *c = cuda_of(s);
    *out = NULL;
    if (bytes > SIZE_MAX - 2 * ALIGN)
        return tt_fail(e, TT_ENOMEM, "alloc: %zu bytes", bytes);
    void *p = NULL;
    cudaError_t code = cudaMallocAsync(&p, bytes ? bytes : ALIGN, c->q);
    if (code == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        size_t left = 0, total = 0;
        cudaMemGetInfo(&left, &total);
        return tt_fail(e, TT_ENOMEM, "alloc: the GPU has no room for %.1f MiB (%.1f MiB free)",
                       (double)bytes / 1048576, (double)left / 1048576);
    }
    *out = p;
    return cuda_check(code, "alloc", e);
}

void tt_cuda_release(tt_stream *s, void *p)
{
    if (p)
        cudaFreeAsync(p, cuda_of(s)->q);
}

tt_status cuda_reserve(cuda *c, void **p, size_t *have, size_t need, tt_err *e)
{
    if (need <= *have)
        return TT_OK;
    if (c->mode != CUDA_LIVE && p != &c->split)
        return tt_fail(e, TT_EINVAL, "a pass needs more memory than one of its key before");
    /* Work under way may still use the old buffer. While a pass is recorded or replayed there is
     * none: every pass before it was waited for. */
    tt_status s = c->mode == CUDA_LIVE ? cuda_check(cudaStreamSynchronize(c->q), "grow", e) : TT_OK;
    if (s)
        return s;
    if (p != &c->split)
        cuda_drop_passes(c); /* they hold its address */
    cudaFree(*p);
    *p = NULL;
    *have = 0;
    s = cuda_check(cudaMalloc(p, need), "working memory", e);
    if (!s)
        *have = need;
    return s;
}

/* The pool's share is that of all streams of this process on the device. */
tt_status tt_cuda_memory(tt_stream *s, tt_memory *out, tt_err *e)
{
    cuda *c = cuda_of(s);
    cudaMemPool_t pool;
    uint64_t used = 0, most = 0, none = 0;
    tt_status st = cuda_check(cudaDeviceGetDefaultMemPool(&pool, c->device), "memory", e);
    if (!st)
        st = cuda_check(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used),
                        "memory", e);
    if (!st)
        st = cuda_check(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemHigh, &most), "memory",
                        e);
    if (!st)
        st = cuda_check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrUsedMemHigh, &none), "memory",
                        e);
    /* These only grow, so what they are now is also their most. */
    size_t own = CUDA_ARGS + c->tile_bytes + c->split_bytes + c->fp8_bytes + c->groups_bytes +
                 c->thirds_bytes;
    most = most > used ? most : used;
    *out = (tt_memory){.used = used + own, .peak = most + own, .total = c->total};
    return st;
}

/* --- arguments --- */

static size_t padded(size_t n) { return (n + ALIGN - 1) & ~(size_t)(ALIGN - 1); }

tt_status cuda_arg_room(cuda *c, void **host, void **out, size_t room, tt_err *e)
{
    size_t size = padded(room);
    if (size > CUDA_ARGS)
        return tt_fail(e, TT_EINVAL, "arguments of %zu bytes", room);
    if (c->args_used + size > CUDA_ARGS) {
        /* Outside a recorded pass the buffer is reused once the work that reads it is done. */
        if (c->mode != CUDA_LIVE)
            return tt_fail(e, TT_EINVAL, "the arguments of a pass exceed %d bytes", CUDA_ARGS);
        tt_status s = cuda_check(cudaStreamSynchronize(c->q), "arguments", e);
        if (s)
            return s;
        c->args_used = 0;
        cuda_refuse_pass(c);
    }
    *host = c->args_host + c->args_used;
    *out = c->args + c->args_used;
    c->args_used += size;
    return TT_OK;
}

tt_status cuda_arg_send(cuda *c, const void *host, size_t n, tt_err *e)
{
    if (c->mode != CUDA_LIVE || n == 0)
        return TT_OK; /* one copy at the start of the graph brings them all */
    size_t at = (size_t)((const char *)host - c->args_host);
    return cuda_check(cudaMemcpyAsync(c->args + at, host, n, cudaMemcpyHostToDevice, c->q),
                      "arguments", e);
}

tt_status cuda_arg(cuda *c, void **out, const void *host, size_t n, size_t room, tt_err *e)
{
    void *pinned;
    tt_status s = cuda_arg_room(c, &pinned, out, room > n ? room : n, e);
    if (s)
        return s;
    memcpy(pinned, host, n);
    return cuda_arg_send(c, pinned, n, e);
}

/* Through the arguments when small, so that the caller's memory is free at once and a recorded
 * pass takes fresh contents. */
tt_status tt_cuda_upload(tt_stream *s, void *dst, const void *host_src, size_t bytes, tt_err *e)
{
    cuda *c = cuda_of(s);
    if (bytes == 0)
        return TT_OK;
    if (!c->in_pass && bytes > 1 << 20) {
        tt_status st = cuda_check(cudaMemcpyAsync(dst, host_src, bytes, cudaMemcpyHostToDevice,
                                                  c->q), "upload", e);
        return st ? st : cuda_check(cudaStreamSynchronize(c->q), "upload", e);
    }
    void *pinned, *arg;
    tt_status st = cuda_arg_room(c, &pinned, &arg, bytes, e);
    if (st)
        return st;
    memcpy(pinned, host_src, bytes);
    if (c->mode == CUDA_LIVE)
        return cuda_check(cudaMemcpyAsync(dst, pinned, bytes, cudaMemcpyHostToDevice, c->q),
                          "upload", e);
    if (c->mode == CUDA_CAPTURE)
        return cuda_check(cudaMemcpyAsync(dst, arg, bytes, cudaMemcpyDeviceToDevice, c->q),
                          "upload", e);
    return TT_OK;
}

/* --- results --- */

tt_status cuda_result(cuda *c, void *host, const void *src, size_t n, tt_err *e)
{
    size_t size = padded(n);
    if (c->results_used + size > CUDA_RESULTS || c->pendings == PENDING) {
        if (c->mode != CUDA_LIVE)
            return tt_fail(e, TT_EINVAL, "the results of a pass exceed %d bytes", CUDA_RESULTS);
        cuda_refuse_pass(c);
        return cuda_check(cudaMemcpyAsync(host, src, n, cudaMemcpyDeviceToHost, c->q), "download",
                          e);
    }
    c->pending[c->pendings++] = (cuda_pending){host, c->results_used, n};
    char *pinned = c->results_host + c->results_used;
    c->results_used += size;
    if (!cuda_runs(c) || n == 0)
        return TT_OK;
    return cuda_check(cudaMemcpyAsync(pinned, src, n, cudaMemcpyDeviceToHost, c->q), "download", e);
}

tt_status tt_cuda_download(tt_stream *s, void *host_dst, const void *src, size_t bytes, tt_err *e)
{
    return cuda_result(cuda_of(s), host_dst, src, bytes, e);
}

tt_status tt_cuda_sync(tt_stream *s, tt_err *e)
{
    cuda *c = cuda_of(s);
    tt_status st = cuda_check(cudaStreamSynchronize(c->q), "the GPU stopped", e);
    for (int i = 0; i < c->pendings && !st; i++)
        memcpy(c->pending[i].host, c->results_host + c->pending[i].at, c->pending[i].bytes);
    c->pendings = 0;
    c->results_used = 0;
    c->args_used = 0;
    return st;
}

/* --- opening --- */

tt_status cuda_share_most(const cuda *c, const void *kernel, const char *what, tt_err *e)
{
    size_t at = (size_t)((uintptr_t)kernel * 0x9E3779B97F4A7C15u >> 32) % CUDA_KERNELS;
    while (c->shares_most[at] && c->shares_most[at] != kernel)
        at = (at + 1) % CUDA_KERNELS;
    if (c->shares_most[at])
        return TT_OK;
    tt_status s = cuda_check(
        cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                             cudaSharedmemCarveoutMaxShared), what, e);
    if (!s)
        c->shares_most[at] = kernel;
    return s;
}

tt_status cuda_memory_open(cuda *c, tt_err *e)
{
    cudaMemPool_t pool;
    uint64_t keep = UINT64_MAX; /* hold freed memory for the next request */
    c->pending = calloc(PENDING, sizeof *c->pending);
    c->shares_most = calloc(CUDA_KERNELS, sizeof *c->shares_most);
    if (!c->pending || !c->shares_most)
        return tt_fail(e, TT_ENOMEM, "no memory for a stream");
    tt_status s = cuda_passes_open(c, e);
    if (!s)
        s = cuda_check(cudaMallocHost((void **)&c->args_host, CUDA_ARGS), "pinned memory", e);
    if (!s)
        s = cuda_check(cudaMalloc((void **)&c->args, CUDA_ARGS), "arguments", e);
    if (!s)
        s = cuda_check(cudaMallocHost((void **)&c->results_host, CUDA_RESULTS), "pinned memory", e);
    if (!s && c->hopper)
        s = cuda_check(cudaMalloc(&c->quarters, CUDA_QUARTERS), "working memory", e);
    if (!s && c->hopper)
        s = cuda_check(cudaMemset(c->quarters, 0, CUDA_QUARTERS_DONE), "working memory", e);
    if (!s && c->hopper) /* the stream does not wait for the default one */
        s = cuda_check(cudaDeviceSynchronize(), "working memory", e);
    if (!s)
        s = cuda_check(cudaDeviceGetDefaultMemPool(&pool, c->device), "memory pool", e);
    if (!s)
        s = cuda_check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep),
                       "memory pool", e);
    return s;
}

void cuda_memory_close(cuda *c)
{
    cuda_passes_close(c);
    for (int i = 0; i < 2; i++) {
        if (c->stage_free[i])
            cudaEventDestroy(c->stage_free[i]);
        cudaFreeHost(c->stage[i]);
    }
    free(c->pending);
    free(c->shares_most);
    cudaFree(c->tile);
    cudaFree(c->split);
    cudaFree(c->quarters);
    cudaFree(c->fp8);
    cudaFree(c->thirds);
    cudaFree(c->groups);
    cudaFree(c->args);
    cudaFreeHost(c->args_host);
    cudaFreeHost(c->results_host);
}
