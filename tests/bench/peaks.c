/* peaks.c - see peaks.h. */
#include "tests/bench/peaks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/clock.h"
#include "kernels/base/cpu.h"

double tt_bench_best(double seconds, void (*fn)(void *arg), void *arg)
{
    int64_t best = INT64_MAX, end = tt_now_ns() + (int64_t)(seconds * 1e9);
    for (int i = 0; i < 3 || tt_now_ns() < end; i++) {
        int64_t t = tt_now_ns();
        fn(arg);
        t = tt_now_ns() - t;
        best = t < best ? t : best;
    }
    return (double)best * 1e-9;
}

double tt_peaks_floor(const tt_peaks *p, tt_compute compute, double flops, double bytes)
{
    double arithmetic = flops / (compute == TT_COMPUTE_BF16 ? p->bf16 : p->f32);
    double memory = bytes / p->read;
    return arithmetic > memory ? arithmetic : memory;
}

void tt_bench_machine(char *text, size_t size, int threads)
{
    char line[256], name[128] = "unknown processor";
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "model name : %127[^\n]", name) == 1)
            break;
    if (f)
        fclose(f);
    snprintf(text, size, "%s, %s, %d cores, %d threads used", name,
             tt_cpu_level_name(tt_cpu_level_get()), tt_cpu_cores(), threads);
}

/* --- products --- */

enum { ROWS = 512, WIDTH = 1024 };

typedef struct {
    tt_stream *s;
    tt_matrix *w;
    const float *x;
    float *y;
} product;

static void multiply(void *arg)
{
    const product *p = arg;
    p->s->op.linear(p->s, p->y, WIDTH, p->x, WIDTH, ROWS, p->w, false, NULL);
}

/* FLOP/s of one device; 0 when it is not there. */
static tt_status rate(double *out, const char *device, int threads, tt_compute compute,
                      double seconds, const float *data, float *y, tt_err *e)
{
    product p = {.x = data, .y = y};
    *out = 0;
    if (tt_stream_open(&p.s, device, threads, NULL))
        return TT_OK;
    tt_weight w = {.data = {.data = data, .dim = {WIDTH, WIDTH}, .rank = 2, .dtype = TT_F32}};
    tt_status st = p.s->op.matrix_open(p.s, &p.w, &w, 1, NULL, compute, TT_MATRIX_LINEAR, e);
    if (!st)
        *out = 2.0 * ROWS * WIDTH * WIDTH / tt_bench_best(seconds, multiply, &p);
    p.s->op.matrix_close(p.s, p.w);
    tt_stream_close(p.s);
    return st;
}

/* --- memory --- */

typedef struct {
    const uint64_t *words;
    int64_t per_task;
    uint64_t sum[64];
} reading;

static void read_task(void *arg, int64_t i, int thread)
{
    reading *r = arg;
    const uint64_t *w = r->words + i * r->per_task;
    uint64_t a = 0, b = 0, c = 0, d = 0;
    for (int64_t j = 0; j < r->per_task; j += 8) {
        a += w[j] ^ w[j + 1];
        b += w[j + 2] ^ w[j + 3];
        c += w[j + 4] ^ w[j + 5];
        d += w[j + 6] ^ w[j + 7];
    }
    r->sum[thread % 64] += a + b + c + d;
}

typedef struct {
    reading r;
    tt_pool *pool;
    int64_t tasks;
} sweep;

static void read_all(void *arg)
{
    sweep *s = arg;
    tt_pool_run(s->pool, s->tasks, read_task, &s->r);
}

static tt_status bandwidth(double *out, int threads, double seconds, tt_err *e)
{
    enum { BYTES = 256 << 20, TASK = 1 << 20 };
    uint64_t *words = malloc(BYTES);
    sweep s = {.r = {.words = words, .per_task = TASK / 8}, .tasks = BYTES / TASK};
    if (!words)
        return tt_fail(e, TT_ENOMEM, "no memory to read %d bytes", BYTES);
    memset(words, 1, BYTES);
    tt_status st = tt_pool_open(&s.pool, threads, e);
    if (!st)
        *out = BYTES / tt_bench_best(seconds, read_all, &s);
    tt_pool_close(s.pool);
    free(words);
    return st;
}

tt_status tt_peaks_measure(tt_peaks *out, int threads, double seconds, tt_err *e)
{
    static const char *const device[] = {"plain", "onednn"};
    *out = (tt_peaks){.threads = threads};
    float *data = malloc((size_t)WIDTH * WIDTH * sizeof *data);
    float *y = malloc((size_t)ROWS * WIDTH * sizeof *y);
    tt_status st = data && y ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for a product");
    for (int64_t i = 0; i < (int64_t)WIDTH * WIDTH && !st; i++)
        data[i] = (float)(i % 251) * 0x1p-8f - 0.5f;
    for (int i = 0; i < 2 && !st; i++) {
        double f32, bf16 = 0;
        st = rate(&f32, device[i], threads, TT_COMPUTE_F32, seconds / 5, data, y, e);
        if (!st)
            st = rate(&bf16, device[i], threads, TT_COMPUTE_BF16, seconds / 5, data, y, e);
        if (f32 > out->f32) {
            out->f32 = f32;
            snprintf(out->f32_by, sizeof out->f32_by, "%s", device[i]);
        }
        if (bf16 > out->bf16) {
            out->bf16 = bf16;
            snprintf(out->bf16_by, sizeof out->bf16_by, "%s", device[i]);
        }
    }
    free(data);
    free(y);
    return st ? st : bandwidth(&out->read, threads, seconds / 5, e);
}
