/* ceilings.c - what this processor reaches: large products by the stream's own operations, reading
 * from memory. Other programs on the machine only make figures lower, so the best try counts. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/base/clock.h"
#include "kernels/cpu/cpu.h"

static double best(double seconds, tt_status (*fn)(void *arg), void *arg)
{
    int64_t least = INT64_MAX, end = tt_now_ns() + (int64_t)(seconds * 1e9);
    for (int i = 0; i < 3 || tt_now_ns() < end; i++) {
        int64_t t = tt_now_ns();
        if (fn(arg))
            return INFINITY;
        t = tt_now_ns() - t;
        least = t < least ? t : least;
    }
    return (double)least * 1e-9;
}

/* --- products --- */

enum { ROWS = 512, WIDTH = 1024 };

typedef struct {
    tt_stream *s;
    tt_matrix *w;
    const float *x;
    float *y;
} product;

static tt_status multiply(void *arg)
{
    const product *p = arg;
    return p->s->op.linear(p->s, p->y, WIDTH, p->x, WIDTH, ROWS, p->w, false, NULL);
}

static tt_status rate(double *out, tt_stream *s, tt_compute compute, double seconds,
                      const float *data, float *y, tt_err *e)
{
    product p = {.s = s, .x = data, .y = y};
    tt_weight w = {.data = {.data = data, .dim = {WIDTH, WIDTH}, .rank = 2, .dtype = TT_F32}};
    tt_status st = s->op.matrix_open(s, &p.w, &w, 1, NULL, compute, TT_MATRIX_LINEAR, e);
    if (!st)
        *out = 2.0 * ROWS * WIDTH * WIDTH / best(seconds, multiply, &p);
    s->op.matrix_close(s, p.w);
    return st;
}

static tt_status products(tt_ceilings *out, tt_stream *s, double seconds, tt_err *e)
{
    float *data = malloc((size_t)WIDTH * WIDTH * sizeof *data);
    float *y = malloc((size_t)ROWS * WIDTH * sizeof *y);
    tt_status st = data && y ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for a product");
    for (int64_t i = 0; i < (int64_t)WIDTH * WIDTH && !st; i++)
        data[i] = (float)(i % 251) * 0x1p-8f - 0.5f;
    if (!st)
        st = rate(&out->flops_f32, s, TT_COMPUTE_F32, seconds, data, y, e);
    if (!st && s->op.has_compute(s, TT_COMPUTE_BF16))
        st = rate(&out->flops_bf16, s, TT_COMPUTE_BF16, seconds, data, y, e);
    free(data);
    free(y);
    return st;
}

/* --- memory --- */

enum { BYTES = 256 << 20, TASK = 1 << 20, SUMS = 64 };

typedef struct {
    tt_pool *pool;
    const uint64_t *words;
    uint64_t sum[SUMS]; /* kept, so that reading is not optimised away */
} reading;

static void read_task(void *arg, int64_t i, int thread)
{
    reading *r = arg;
    const uint64_t *w = r->words + i * (TASK / 8);
    uint64_t a = 0, b = 0, c = 0, d = 0;
    for (int64_t j = 0; j < TASK / 8; j += 8) {
        a += w[j] ^ w[j + 1];
        b += w[j + 2] ^ w[j + 3];
        c += w[j + 4] ^ w[j + 5];
        d += w[j + 6] ^ w[j + 7];
    }
    r->sum[thread % SUMS] += a + b + c + d;
}

static tt_status read_all(void *arg)
{
    reading *r = arg;
    tt_pool_run(r->pool, BYTES / TASK, read_task, r);
    return TT_OK;
}

tt_status tt_cpu_ceilings(tt_stream *s, double seconds, tt_ceilings *out, tt_err *e)
{
    *out = (tt_ceilings){0};
    tt_status st = products(out, s, seconds / 3, e);
    if (st)
        return st;
    uint64_t *words = malloc(BYTES);
    if (!words)
        return tt_fail(e, TT_ENOMEM, "no memory to read %d bytes", BYTES);
    memset(words, 1, BYTES);
    reading r = {.pool = s->pool, .words = words};
    out->bytes_per_s = BYTES / best(seconds / 3, read_all, &r);
    free(words);
    return TT_OK;
}

/* The peak is the process's; writing 5 to clear_refs makes the system begin anew (proc(5)). */
tt_status tt_cpu_memory(tt_stream *s, tt_memory *out, tt_err *e)
{
    (void)s;
    char line[128];
    size_t now = 0, peak = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f)) {
        sscanf(line, "VmHWM: %zu kB", &peak);
        sscanf(line, "VmRSS: %zu kB", &now);
    }
    if (f)
        fclose(f);
    if (!now || !peak)
        return tt_fail(e, TT_EUNSUP, "the system does not tell how much memory is used");
    if ((f = fopen("/proc/self/clear_refs", "w"))) {
        fputs("5", f);
        fclose(f);
    }
    *out = (tt_memory){.used = now * 1024,
                       .peak = peak * 1024,
                       .total = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE)};
    return TT_OK;
}
