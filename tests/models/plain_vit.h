/* plain_vit.h - vision and text towers by plain loops; see plain.h. x: rows x width. */
#ifndef TT_TEST_PLAIN_VIT_H
#define TT_TEST_PLAIN_VIT_H

#include "tests/models/plain.h"

enum { VIT_WIDE = 32, VIT_ROWS = 16 };

/* A tower's sizes and what its blocks call their parts: qkv, or q, k and v. */
typedef struct {
    const char *norm1, *norm2, *qkv, *q, *k, *v, *out, *fc1, *fc2;
    int width, heads, ff;
    double eps;
    double (*act)(double);
    bool causal;
} plain_vit;

static inline void vit_mlp(const plain_vit *t, double *x, const char *at)
{
    double h[VIT_WIDE], y[VIT_WIDE];
    layer_normal(y, x, t->width, t->eps, at, t->norm2);
    linear(h, t->ff, y, t->width, at, t->fc1);
    for (int i = 0; i < t->ff; i++)
        h[i] = t->act(h[i]);
    linear(y, t->width, h, t->ff, at, t->fc2);
    add_row(x, y, t->width);
}

static inline void vit_block(const plain_vit *t, double *x, int rows, const char *at)
{
    static double qkv[VIT_ROWS][3 * VIT_WIDE];
    double h[VIT_WIDE], y[VIT_WIDE];
    int d = t->width, hd = d / t->heads;
    for (int p = 0; p < rows; p++) {
        layer_normal(h, x + p * d, d, t->eps, at, t->norm1);
        if (t->qkv) {
            linear(qkv[p], 3 * d, h, d, at, t->qkv);
            continue;
        }
        linear(qkv[p], d, h, d, at, t->q);
        linear(qkv[p] + d, d, h, d, at, t->k);
        linear(qkv[p] + 2 * d, d, h, d, at, t->v);
    }
    for (int p = 0; p < rows; p++) {
        attend_row(h, qkv[p], qkv[0] + d, qkv[0] + 2 * d, 3 * VIT_WIDE, t->causal ? p + 1 : rows,
                   t->heads, hd, 1 / sqrt(hd), NULL);
        linear(y, d, h, d, at, t->out);
        add_row(x + p * d, y, d);
        vit_mlp(t, x + p * d, at);
    }
}

typedef struct {
    const char *kernel, *bias, *class_token, *place; /* bias: or NULL */
} plain_patches;

/* The class token, then the patches in raster order, each with its place. */
static inline void vit_begin(double *x, const float *planes, int side, int patch, int d,
                             const plain_patches *names)
{
    const float *kernel = tensor(names->kernel, "", ""), *place = tensor(names->place, "", "");
    const float *begin = tensor(names->class_token, "", "");
    int grid = side / patch;
    for (int p = 0; p <= grid * grid; p++)
        for (int i = 0; i < d; i++) {
            double sum = p ? names->bias ? (double)tensor(names->bias, "", "")[i] : 0
                           : (double)begin[i];
            for (int c = 0; c < 3 && p; c++)
                for (int u = 0; u < patch; u++)
                    for (int v = 0; v < patch; v++)
                        sum += (double)kernel[((i * 3 + c) * patch + u) * patch + v] *
                               planes[(c * side + (p - 1) / grid * patch + u) * side +
                                      (p - 1) % grid * patch + v];
            x[p * d + i] = sum + place[p * d + i];
        }
}

#endif
