/* memory.c - device memory of the CPU is plain memory; scratch that grows to its high-water mark.
 */
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

tt_status tt_cpu_alloc(tt_stream *s, void **out, size_t bytes, tt_err *e)
{
    (void)s;
    *out = NULL;
    if (bytes > SIZE_MAX - 63)
        return tt_fail(e, TT_ENOMEM, "alloc: %zu bytes", bytes);
    size_t size = (bytes + 63) & ~(size_t)63;
    *out = aligned_alloc(64, size ? size : 64);
    return *out ? TT_OK : tt_fail(e, TT_ENOMEM, "alloc: no memory for %zu bytes", bytes);
}

void tt_cpu_release(tt_stream *s, void *p)
{
    (void)s;
    free(p);
}

tt_status tt_cpu_upload(tt_stream *s, void *dst, const void *host_src, size_t bytes, tt_err *e)
{
    (void)s;
    (void)e;
    if (bytes)
        memcpy(dst, host_src, bytes);
    return TT_OK;
}

tt_status tt_cpu_download(tt_stream *s, void *host_dst, const void *src, size_t bytes, tt_err *e)
{
    return tt_cpu_upload(s, host_dst, src, bytes, e);
}

tt_status tt_cpu_sync(tt_stream *s, tt_err *e)
{
    (void)s;
    (void)e;
    return TT_OK;
}

tt_status tt_cpu_shape_error(const char *name, int64_t rows, int64_t width, int64_t ld, tt_err *e)
{
    return tt_fail(e, TT_EINVAL, "%s: %lld rows of %lld, stride %lld", name, (long long)rows,
                   (long long)width, (long long)ld);
}

tt_status tt_cpu_scratch(tt_arena *a, void **out, size_t bytes, tt_err *e)
{
    if (bytes > a->size) {
        tt_arena_close(a);
        tt_status st = tt_arena_open(a, bytes, e);
        if (st)
            return st;
        a->peak = a->size;
    }
    *out = a->base;
    return TT_OK;
}

typedef struct {
    void (*fn)(void *, int64_t, int64_t);
    void *job;
    int64_t rows, run;
} rows_job;

static void rows_task(void *arg, int64_t i, int thread)
{
    (void)thread;
    const rows_job *job = arg;
    int64_t first = i * job->run, left = job->rows - first;
    job->fn(job->job, first, left < job->run ? left : job->run);
}

void tt_cpu_over_rows(tt_stream *s, int64_t rows, int64_t width,
                      void (*fn)(void *job, int64_t first, int64_t count), void *job)
{
    enum { WORTH = 1 << 13 }; /* elements, some microseconds: what sharing a task out is worth */
    int64_t most = 4 * (int64_t)tt_pool_threads(s->pool), tasks = rows * width / WORTH;
    tasks = most == 4 || tasks < 1 ? 1 : tasks < most ? tasks : most;
    int64_t run = (rows + tasks - 1) / tasks;
    rows_job all = {fn, job, rows, run};
    tt_pool_run(s->pool, run ? (rows + run - 1) / run : 0, rows_task, &all);
}
