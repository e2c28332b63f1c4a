/* peaks.c - see peaks.h. */
#include "tests/bench/peaks.h"

#include <stdio.h>

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
    double arithmetic = flops / (compute == TT_COMPUTE_BF16 && p->bf16 > 0 ? p->bf16 : p->f32);
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

/* Raises *out to what this device reaches; nothing when it is not there. */
static tt_status raise_to(tt_peaks *out, const char *device, double seconds, tt_err *e)
{
    tt_stream *s;
    tt_ceilings c;
    if (tt_stream_open(&s, device, out->threads, NULL))
        return TT_OK;
    tt_status st = s->op.ceilings(s, seconds, &c, e);
    tt_stream_close(s);
    if (st)
        return st;
    if (c.flops_f32 > out->f32) {
        out->f32 = c.flops_f32;
        snprintf(out->f32_by, sizeof out->f32_by, "%s", device);
    }
    if (c.flops_bf16 > out->bf16) {
        out->bf16 = c.flops_bf16;
        snprintf(out->bf16_by, sizeof out->bf16_by, "%s", device);
    }
    out->read = c.bytes_per_s > out->read ? c.bytes_per_s : out->read;
    return TT_OK;
}

tt_status tt_peaks_measure(tt_peaks *out, int threads, double seconds, tt_err *e)
{
    *out = (tt_peaks){.threads = threads};
    tt_status st = raise_to(out, "plain", seconds / 2, e);
    return st ? st : raise_to(out, "onednn", seconds / 2, e);
}
