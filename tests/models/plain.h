/* plain.h - networks by plain loops in double, for tests: a row is a list of numbers, tensors come
 * from a checkpoint by name. One test program includes this once. */
#ifndef TT_TEST_PLAIN_H
#define TT_TEST_PLAIN_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/models/checkpoint.h"

static checkpoint *tensors;

static inline const float *tensor(const char *prefix, const char *name, const char *end)
{
    char full[160];
    snprintf(full, sizeof full, "%s%s%s", prefix, name, end);
    return checkpoint_at(tensors, full);
}

static inline bool has(const char *prefix, const char *name, const char *end)
{
    char full[160];
    snprintf(full, sizeof full, "%s%s%s", prefix, name, end);
    return tt_weights_has(tensors->weights, full);
}

/* y = W x + b, b where there is one. */
static inline void linear(double *y, int n, const double *x, int k, const char *prefix,
                          const char *name)
{
    const float *w = tensor(prefix, name, ".weight");
    const float *b = has(prefix, name, ".bias") ? tensor(prefix, name, ".bias") : NULL;
    for (int i = 0; i < n; i++) {
        y[i] = b ? (double)b[i] : 0;
        for (int j = 0; j < k; j++)
            y[i] += w[i * k + j] * x[j];
    }
}

static inline double silu(double v) { return v / (1 + exp(-v)); }

static inline void silu_all(double *x, int n)
{
    for (int i = 0; i < n; i++)
        x[i] = silu(x[i]);
}

/* LayerNorm without weights. */
static inline void normal(double *y, const double *x, int n, double eps)
{
    double mean = 0, var = 0;
    for (int i = 0; i < n; i++)
        mean += x[i] / n;
    for (int i = 0; i < n; i++)
        var += (x[i] - mean) * (x[i] - mean) / n;
    for (int i = 0; i < n; i++)
        y[i] = (x[i] - mean) / sqrt(var + eps);
}

/* The same with weight and bias. */
static inline void layer_normal(double *y, const double *x, int n, double eps, const char *prefix,
                                const char *name)
{
    const float *w = tensor(prefix, name, ".weight"), *b = tensor(prefix, name, ".bias");
    normal(y, x, n, eps);
    for (int i = 0; i < n; i++)
        y[i] = y[i] * w[i] + b[i];
}

static inline double gelu_erf(double v) { return v * (1 + erf(v / sqrt(2))) / 2; }

static inline double gelu_tanh(double v)
{
    return v * (1 + tanh(sqrt(2 / acos(-1)) * (v + 0.044715 * v * v * v))) / 2;
}

static inline double quick_gelu(double v) { return v / (1 + exp(-1.702 * v)); }

/* What one row reads of the rows of keys and values, `ld` numbers apart, by heads of hd numbers.
 * bias: heads x keys, or NULL. */
static inline void attend_row(double *out, const double *q, const double *k, const double *v,
                              int ld, int keys, int heads, int hd, double scale,
                              const double *bias)
{
    for (int h = 0; h < heads; h++) {
        double weight[256], sum = 0;
        for (int j = 0; j < keys; j++) {
            double dot = 0;
            for (int i = h * hd; i < (h + 1) * hd; i++)
                dot += q[i] * k[j * ld + i];
            sum += weight[j] = exp(scale * dot + (bias ? bias[h * keys + j] : 0));
        }
        for (int i = h * hd; i < (h + 1) * hd; i++) {
            out[i] = 0;
            for (int j = 0; j < keys; j++)
                out[i] += weight[j] / sum * v[j * ld + i];
        }
    }
}

static inline void add_row(double *x, const double *y, int n)
{
    for (int i = 0; i < n; i++)
        x[i] += y[i];
}

/* y = down(act(gate x) * up x), of ff units in between; y may be x. */
static inline void gated_mlp(double *y, const double *x, int n, int ff, double (*act)(double),
                             const char *at, const char *gate, const char *up, const char *down)
{
    double g[64], u[64];
    linear(g, ff, x, n, at, gate);
    linear(u, ff, x, n, at, up);
    for (int i = 0; i < ff; i++)
        g[i] = act(g[i]) * u[i];
    linear(y, n, g, ff, at, down);
}

/* Numbers in [-1, 1) that depend on the seed. */
static inline void plain_random(float *out, int n, uint32_t seed)
{
    for (int i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        out[i] = (float)(seed >> 8) * 0x1p-23f - 1;
    }
}

static inline void all_near(const float *have, const double *want, int n)
{
    for (int i = 0; i < n; i++)
        if (!(fabs(have[i] - want[i]) < 1e-4 * fmax(1, fabs(want[i]))))
            fail_msg("number %d of %d is %g, not %g", i, n, (double)have[i], want[i]);
}

#endif
