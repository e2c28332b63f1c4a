/* ops.h - what the tests of operations share: streams at every level of this processor, matrices
 * with poisoned padding, comparison in relative L2. */
#ifndef TT_TEST_OPS_H
#define TT_TEST_OPS_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/backend.h"
#include "kernels/base/cpu.h"
#include "kernels/base/log.h"

/* Every table worth testing here: the twin, then the built-in one at each level, then oneDNN. */
typedef struct {
    const char *device, *level; /* level: value of TUTTI_CPU, or NULL */
} test_device;

static const test_device test_devices[] = {
    {"twin", NULL},      {"plain", "scalar"},      {"plain", "avx2"},
    {"plain", "avx512"}, {"plain", "avx512_bf16"}, {"onednn", NULL},
};
enum { TEST_DEVICES = sizeof test_devices / sizeof *test_devices };

/* NULL when this processor (or installation) lacks it. */
static inline tt_stream *test_open(const test_device *d, int threads)
{
    tt_stream *s = NULL;
    tt_err e = {0};
    tt_log_set_level(TT_LOG_WARN);
    if (d->level) {
        setenv("TUTTI_CPU", d->level, 1);
        if (strcmp(tt_cpu_level_name(tt_cpu_level_get()), d->level)) {
            unsetenv("TUTTI_CPU");
            return NULL;
        }
    }
    if (tt_stream_open(&s, d->device, threads, &e) && strcmp(d->device, "onednn"))
        fail_msg("%s", e.text);
    unsetenv("TUTTI_CPU");
    return s;
}

static inline const char *test_name(const test_device *d)
{
    static char name[64];
    snprintf(name, sizeof name, "%s%s%s", d->device, d->level ? " " : "", d->level ? d->level : "");
    return name;
}

/* Runs fn on every device there is, with 1 and 3 threads. */
static inline void test_each(void (*fn)(tt_stream *s, const char *name))
{
    for (int i = 0; i < TEST_DEVICES; i++)
        for (int threads = 1; threads <= 3; threads += 2) {
            tt_stream *s = test_open(&test_devices[i], threads);
            if (!s)
                continue;
            fn(s, test_name(&test_devices[i]));
            tt_stream_close(s);
        }
}

/* A fixed sequence: splitmix64. */
static uint64_t test_state = 1;
static inline uint64_t test_word(void)
{
    uint64_t z = test_state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}
static inline float test_uniform(void)
{
    return (float)(test_word() >> 40) * 0x1p-24f;
}
static inline float test_normal(void) /* near enough: sum of uniforms */
{
    float t = -6;
    for (int i = 0; i < 12; i++)
        t += test_uniform();
    return t;
}

/* rows x width numbers in rows of ld; the rest is NaN, which spoils any result it gets into. */
static inline float *test_rows(int64_t rows, int64_t width, int64_t ld, float spread)
{
    float *x = malloc((size_t)(rows * ld + 16) * sizeof *x);
    assert_non_null(x);
    for (int64_t i = 0; i < rows * ld + 16; i++)
        x[i] = i / ld < rows && i % ld < width ? spread * test_normal() : NAN;
    return x;
}

/* An output: all NaN of a kind that is recognised. */
static inline float *test_blank(int64_t rows, int64_t ld)
{
    float *y = malloc((size_t)(rows * ld + 16) * sizeof *y);
    assert_non_null(y);
    memset(y, 0xFE, (size_t)(rows * ld + 16) * sizeof *y);
    return y;
}
static inline void test_padding_untouched(const char *what, const float *y, int64_t rows,
                                          int64_t width, int64_t ld)
{
    static const unsigned char blank[4] = {0xFE, 0xFE, 0xFE, 0xFE};
    for (int64_t i = 0; i < rows * ld + 16; i++)
        if ((i / ld >= rows || i % ld >= width) && memcmp(&y[i], blank, 4))
            fail_msg("%s: wrote beyond the row at %lld of %lld x %lld, stride %lld", what,
                     (long long)i, (long long)rows, (long long)width, (long long)ld);
}

/* Norm of the difference over norm of want, over all rows; NaN and infinities must agree. */
static inline void test_close(const char *what, const float *have, const float *want, int64_t rows,
                              int64_t width, int64_t ld, double tolerance)
{
    double off = 0, norm = 0;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < width; i++) {
            float a = have[r * ld + i], b = want[r * ld + i];
            if (isnan(b) || isinf(b)) {
                if (isnan(a) != isnan(b) || (isinf(b) && a != b))
                    fail_msg("%s: row %lld column %lld is %g, not %g", what, (long long)r,
                             (long long)i, (double)a, (double)b);
                continue;
            }
            if (!isfinite(a))
                fail_msg("%s: row %lld column %lld is %g, not %g", what, (long long)r, (long long)i,
                         (double)a, (double)b);
            off += ((double)a - b) * ((double)a - b);
            norm += (double)b * b;
        }
    if (sqrt(off) > tolerance * sqrt(norm) + 1e-30)
        fail_msg("%s: relative error %.3g over %lld x %lld, allowed %.3g", what,
                 sqrt(off) / (sqrt(norm) + 1e-300), (long long)rows, (long long)width, tolerance);
}

static inline void test_same_bits(const char *what, const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], sizeof *a))
            fail_msg("%s: element %lld is %a, alone it is %a", what, (long long)i, (double)a[i],
                     (double)b[i]);
}

static inline void test_ok(tt_status st, const tt_err *e)
{
    if (st)
        fail_msg("%s", e->text);
}

static inline tt_weight test_weight(const void *data, tt_dtype type, int64_t n, int64_t k)
{
    return (tt_weight){.data = {.data = data, .dim = {n, k}, .rank = 2, .dtype = type}};
}

#endif
