/* table.c - the two built-in backends: the twins alone, and the best version of each operation
 * for this processor. */
#include <stdio.h>

#include "kernels/base/cpu.h"
#include "kernels/cpu/cpu.h"

static tt_status probe(int *devices, tt_err *e)
{
    (void)e;
    *devices = 1;
    return TT_OK;
}

static tt_status open_stream(tt_stream *s, int device, tt_err *e)
{
    if (device != 0)
        return tt_fail(e, TT_ENODEV, "there is one CPU device, not number %d", device);
    s->act = TT_F32;
    return TT_OK;
}

static void close_stream(tt_stream *s)
{
    (void)s;
}

static void describe_twin(const tt_stream *s, char *text, size_t size)
{
    snprintf(text, size, "plain C, %d threads", tt_pool_threads(s->pool));
}

static bool twin_has_compute(const tt_stream *s, tt_compute c)
{
    (void)s;
    return c == TT_COMPUTE_F32;
}

#define TWIN(name) .name = tt_cpu_##name,

static const tt_backend twin = {.abi = TT_BACKEND_ABI,
                                .size = sizeof(tt_backend),
                                .name = "twin",
                                .summary = "plain C definitions, for tests",
                                .flags = TT_BACKEND_HOST,
                                .probe = probe,
                                .open = open_stream,
                                .close = close_stream,
                                .describe = describe_twin,
                                .has_compute = twin_has_compute,
                                TT_OPS(TWIN)};

const tt_backend *tt_backend_twin(void)
{
    return &twin;
}

static void describe_cpu(const tt_stream *s, char *text, size_t size)
{
    snprintf(text, size, "%s, %d threads", tt_cpu_level_name(tt_cpu_level_get()),
             tt_pool_threads(s->pool));
}

static const tt_backend cpu = {.abi = TT_BACKEND_ABI,
                               .size = sizeof(tt_backend),
                               .name = "cpu",
                               .summary = "built-in kernels",
                               .flags = TT_BACKEND_HOST,
                               .probe = probe,
                               .open = open_stream,
                               .close = close_stream,
                               .describe = describe_cpu,
                               .has_compute = twin_has_compute,
                               TT_OPS(TWIN)};

const tt_backend *tt_backend_cpu(void)
{
    return &cpu;
}
