/* peaks.h - what this machine can do now, measured: the floors of the kernels' benchmark.
 *
 * The best of what the built-in kernels and oneDNN reach (tt_backend.ceilings). */
#ifndef TT_BENCH_PEAKS_H
#define TT_BENCH_PEAKS_H

#include "kernels/backend.h"

typedef struct {
    int threads;
    double f32, bf16;             /* FLOP/s of products, by type of the operands */
    double read;                  /* bytes/s */
    char f32_by[12], bf16_by[12]; /* device that reached it */
} tt_peaks;

/* Takes about `seconds` in all. */
tt_status tt_peaks_measure(tt_peaks *out, int threads, double seconds, tt_err *e);

/* Seconds the work needs at least: arithmetic or memory, whichever is longer. */
double tt_peaks_floor(const tt_peaks *p, tt_compute compute, double flops, double bytes);

/* Best time of fn(arg), called for about `seconds` and at least three times. */
double tt_bench_best(double seconds, void (*fn)(void *arg), void *arg);

/* "AMD EPYC ..., 2 cores, 1 thread used" */
void tt_bench_machine(char *text, size_t size, int threads);

#endif
