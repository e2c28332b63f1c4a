/* backend.c - opening a stream: which table, which plug-in, and what it lacks. */
#include "kernels/backend.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/cpu.h"
#include "kernels/base/log.h"
#include "kernels/base/plug.h"

/* A plug-in's table, checked, with members this program does not know cut off and members the
 * plug-in does not know left NULL. */
static tt_status adopt(tt_backend *out, const tt_backend *table, tt_err *e)
{
    size_t least = offsetof(tt_backend, alloc);
    if (table->abi != TT_BACKEND_ABI || table->size < least)
        return tt_fail(e, TT_ENODEV,
                       "the plug-in has table version %u of %u bytes, this program %d of %zu",
                       table->abi, table->size, TT_BACKEND_ABI, sizeof *out);
    *out = (tt_backend){0};
    memcpy(out, table, table->size < sizeof *out ? table->size : sizeof *out);
    return TT_OK;
}

static tt_status complete(tt_backend *b, tt_err *e)
{
    const tt_backend *cpu = tt_backend_cpu();
    const char *missing = NULL;
#define FILL(op)                                \
    if (!b->op && (b->flags & TT_BACKEND_HOST)) \
        b->op = cpu->op;
#define NEED(op) \
    if (!b->op)  \
        missing = #op;
    TT_OPS(FILL)
    TT_SOME_OPS(FILL)
    TT_OPS(NEED)
#undef FILL
#undef NEED
    if (b->flags & TT_BACKEND_HOST) {
        b->ceilings = b->ceilings ? b->ceilings : cpu->ceilings;
        b->memory = b->memory ? b->memory : cpu->memory;
    }
    if (missing)
        return tt_fail(e, TT_EUNSUP, "backend %s has no operation '%s'", b->name, missing);
    return TT_OK;
}

/* Opens device number `device` of a table. */
static tt_status open_table(tt_stream **out, const tt_backend *table, int device, int threads,
                            tt_err *e)
{
    tt_backend op;
    int devices = 0;
    tt_status st = adopt(&op, table, e);
    if (!st)
        st = complete(&op, e);
    if (!st)
        st = op.probe(&devices, e);
    if (st)
        return st;
    if (device >= devices)
        return tt_fail(e, TT_ENODEV, "backend %s has %d devices, number %d was asked for", op.name,
                       devices, device);
    tt_stream *s = calloc(1, sizeof *s);
    if (!s)
        return tt_fail(e, TT_ENOMEM, "no memory for a stream");
    s->op = op;
    st = tt_pool_open(&s->pool, threads, e);
    if (!st)
        st = op.open(s, device, e);
    if (st) {
        tt_pool_close(s->pool);
        free(s);
        return st;
    }
    *out = s;
    return TT_OK;
}

static tt_status open_plugin(tt_stream **out, const char *file, int device, int threads, tt_err *e)
{
    const void *table;
    tt_status st = tt_plug_open(file, &table, e);
    return st ? st : open_table(out, table, device, threads, e);
}

/* oneDNN brings an OpenMP run time whose workers spin between products and starve everything else
 * on the machine. It is therefore run on our own pool, one thread per task; the run time reads
 * these when it is loaded, which is now. */
static tt_status open_onednn(tt_stream **out, int threads, tt_err *e)
{
    setenv("OMP_WAIT_POLICY", "passive", 0);
    setenv("OMP_NUM_THREADS", "1", 0);
    return open_plugin(out, "tutti-onednn.so", 0, threads, e);
}

static tt_status open_cuda(tt_stream **out, int device, int threads, tt_err *e)
{
    return open_plugin(out, "tutti-cuda.so", device, threads, e);
}

/* Our kernels reach what AVX-512 and AVX2 can do, with any number of rows and no primitives to
 * make (tests/bench/bench_kernels --device plain, onednn); what they lack is AMX. */
static tt_status open_cpu(tt_stream **out, int threads, tt_err *e)
{
    tt_err why;
    if (tt_cpu_has_amx()) {
        if (!open_onednn(out, threads, &why))
            return TT_OK;
        tt_log(TT_LOG_INFO, "backend", "onednn=no reason=\"%s\"", why.text);
    }
    return open_table(out, tt_backend_cpu(), 0, threads, e);
}

/* "cuda" or "cuda:N"; false for another name. */
static bool cuda_number(const char *device, int *number)
{
    *number = 0;
    if (strncmp(device, "cuda", 4))
        return false;
    if (device[4] == '\0')
        return true;
    char *end;
    long n = strtol(device + 5, &end, 10);
    if (device[4] != ':' || end == device + 5 || *end || n < 0 || n > 1023)
        return false;
    *number = (int)n;
    return true;
}

static tt_status open_named(tt_stream **out, const char *device, int threads, tt_err *e)
{
    int number;
    if (!strcmp(device, "cpu"))
        return open_cpu(out, threads, e);
    if (!strcmp(device, "onednn"))
        return open_onednn(out, threads, e);
    if (!strcmp(device, "plain"))
        return open_table(out, tt_backend_cpu(), 0, threads, e);
    if (!strcmp(device, "twin"))
        return open_table(out, tt_backend_twin(), 0, threads, e);
    if (cuda_number(device, &number))
        return open_cuda(out, number, threads, e);
    if (strcmp(device, "auto"))
        return tt_fail(e, TT_EINVAL,
                       "device '%s' is not one of auto, cpu, onednn, plain, twin, cuda, "
                       "cuda:N",
                       device);
    tt_err why;
    if (!open_cuda(out, 0, threads, &why))
        return TT_OK;
    tt_log(TT_LOG_INFO, "backend", "cuda=no reason=\"%s\"", why.text);
    return open_cpu(out, threads, e);
}

tt_status tt_stream_open(tt_stream **out, const char *device, int threads, tt_err *e)
{
    *out = NULL;
    if (threads < 0)
        return tt_fail(e, TT_EINVAL, "thread count %d", threads);
    if (threads == 0)
        threads = tt_cpu_cores() > 1 ? tt_cpu_cores() - 1 : 1;
    tt_status st = open_named(out, device, threads, e);
    if (st)
        return tt_context(e, st, "device '%s'", device);
    char text[160];
    (*out)->op.describe(*out, text, sizeof text);
    tt_log(TT_LOG_INFO, "backend", "name=%s device=\"%s\"", (*out)->op.name, text);
    return TT_OK;
}

void tt_stream_close(tt_stream *s)
{
    if (!s)
        return;
    s->op.close(s);
    tt_pool_close(s->pool);
    tt_arena_close(&s->scratch);
    tt_arena_close(&s->tile);
    free(s);
}

static int report(tt_buf *out, const char *name, tt_status st, tt_stream **s, const tt_err *e)
{
    char text[160];
    if (st) {
        tt_buf_printf(out, "%-8s no: %s\n", name, e->text);
        return 0;
    }
    (*s)->op.describe(*s, text, sizeof text);
    tt_buf_printf(out, "%-8s yes: %s; bf16 %s\n", name, text,
                  (*s)->op.has_compute(*s, TT_COMPUTE_BF16) ? "fast" : "slow");
    tt_stream_close(*s);
    return 1;
}

int tt_backend_report(tt_buf *out)
{
    tt_stream *s = NULL; /* by address below: the calls that set it are arguments too */
    tt_err e = {0};
    int works = report(out, "cuda", open_cuda(&s, 0, 1, &e), &s, &e);
    works += report(out, "onednn", open_onednn(&s, 1, &e), &s, &e);
    return works + report(out, "cpu", open_table(&s, tt_backend_cpu(), 0, 1, &e), &s, &e);
}
