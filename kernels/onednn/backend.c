/* backend.c - the plug-in's table. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/onednn/onednn.h"

static tt_status probe(int *devices, tt_err *e)
{
    *devices = (int)dnnl_engine_get_count(dnnl_cpu);
    return *devices ? TT_OK : tt_fail(e, TT_ENODEV, "oneDNN finds no CPU");
}

static void close_stream(tt_stream *s)
{
    onednn *d = s->impl;
    if (!d)
        return;
    tt_onednn_forget_steps(d);
    for (int t = 0; t < d->threads && d->stream; t++)
        if (d->stream[t])
            dnnl_stream_destroy(d->stream[t]);
    if (d->engine)
        dnnl_engine_destroy(d->engine);
    free(d->stream);
    free(d->work);
    free(d);
    s->impl = NULL;
}

static tt_status start(onednn *d, tt_err *e)
{
    dnnl_memory_desc_t any;
    dnnl_status_t st = dnnl_engine_create(&d->engine, dnnl_cpu, 0);
    for (int t = 0; t < d->threads && !st; t++)
        st = dnnl_stream_create(&d->stream[t], d->engine, dnnl_stream_default_flags);
    if (st)
        return tt_onednn_check(st, "start", e);
    /* One usual shape speaks for all; packing checks each weight again. */
    tt_status good = tt_onednn_layout(d, dnnl_f32, 512, 512, &any, d->name[TT_COMPUTE_F32], e);
    d->bf16 = !tt_onednn_layout(d, dnnl_bf16, 512, 512, &any, d->name[TT_COMPUTE_BF16], NULL);
    return good;
}

/* The name of the implementation promises that a row does not depend on its batch; this looks. */
static tt_status look(tt_stream *s, tt_compute compute, bool *same, tt_err *e)
{
    enum { N = 80, K = 200, ROWS = MOST_ROWS + 7 };
    float *all = malloc((size_t)(N * K + ROWS * K + 2 * ROWS * N) * sizeof *all);
    if (!all)
        return tt_fail(e, TT_ENOMEM, "no memory for a trial");
    float *part = all + ROWS * N, *x = part + ROWS * N, *w = x + ROWS * K;
    for (int i = 0; i < (ROWS + N) * K; i++)
        x[i] = (float)(i * 7919 % 1009) * 0x1p-9f - 1;
    tt_weight weight = {.data = {.data = w, .dim = {N, K}, .rank = 2, .dtype = TT_F32}};
    tt_matrix *m = NULL;
    tt_status st = tt_onednn_matrix_open(s, &m, &weight, 1, NULL, compute, TT_MATRIX_LINEAR, e);
    if (!st)
        st = tt_onednn_linear(s, all, N, x, K, ROWS, m, false, e);
    *same = true;
    for (int64_t rows = 1; rows <= ROWS && !st; rows += rows < 8 ? 1 : rows) {
        int64_t from = ROWS - rows;
        st = tt_onednn_linear(s, part, N, x + from * K, K, rows, m, false, e);
        *same &= !memcmp(part, all + from * N, (size_t)(rows * N) * sizeof *part);
    }
    tt_onednn_matrix_close(s, m);
    free(all);
    return st;
}

static tt_status try_out(tt_stream *s, tt_err *e)
{
    onednn *d = s->impl;
    bool same;
    tt_status st = look(s, TT_COMPUTE_F32, &same, e);
    if (!st && !same)
        st = tt_fail(e, TT_ENODEV, "the results of oneDNN's %s depend on the batch",
                     d->name[TT_COMPUTE_F32]);
    if (!st && d->bf16) {
        st = look(s, TT_COMPUTE_BF16, &same, e);
        d->bf16 = same;
    }
    return st;
}

static tt_status open_stream(tt_stream *s, int device, tt_err *e)
{
    (void)device;
    onednn *d = calloc(1, sizeof *d);
    if (d) {
        d->threads = tt_pool_threads(s->pool);
        d->stream = calloc((size_t)d->threads, sizeof *d->stream);
    }
    s->impl = d;
    tt_status st = d && d->stream ? start(d, e) : tt_fail(e, TT_ENOMEM, "no memory for a stream");
    if (!st)
        st = try_out(s, e);
    if (st)
        close_stream(s);
    return st == TT_EUNSUP ? TT_ENODEV : st;
}

static void describe(const tt_stream *s, char *text, size_t size)
{
    const onednn *d = s->impl;
    const dnnl_version_t *v = dnnl_version();
    snprintf(text, size, "oneDNN %d.%d.%d (%s%s%s), %d threads", v->major, v->minor, v->patch,
             d->name[TT_COMPUTE_F32], d->bf16 ? ", " : "", d->bf16 ? d->name[TT_COMPUTE_BF16] : "",
             d->threads);
}

static bool has_compute(const tt_stream *s, tt_compute c)
{
    const onednn *d = s->impl;
    /* avx512_core multiplies bfloat16 by widening it: correct, and no faster than float32. */
    return c == TT_COMPUTE_F32 ||
           (d->bf16 && (strstr(d->name[c], "bf16") || strstr(d->name[c], "amx")));
}

static const tt_backend table = {
    .abi = TT_BACKEND_ABI,
    .size = sizeof(tt_backend),
    .name = "onednn",
    .summary = "matrix products by oneDNN, the rest built in",
    .flags = TT_BACKEND_HOST | TT_BACKEND_HOLES, /* the built-in attention */
    .probe = probe,
    .open = open_stream,
    .close = close_stream,
    .describe = describe,
    .has_compute = has_compute,
    .matrix_open = tt_onednn_matrix_open,
    .matrix_close = tt_onednn_matrix_close,
    .matrix_size = tt_onednn_matrix_size,
    .linear = tt_onednn_linear,
    .embed = tt_onednn_embed,
};

__attribute__((visibility("default"))) const void *tutti_plugin(void);
const void *tutti_plugin(void)
{
    return &table;
}
