/* chain.c - see chain.h. From the last layer back: v (W x + b) = (v W) x + v b. */
#include "models/chain.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 1 << 14 }; /* units of a layer */

/* row becomes row W, and adds row b to the bias; row has n numbers before, k after. */
static tt_status step(double **row, double *bias, const tt_weights *w, const char *prefix,
                      int index, int64_t n, int64_t *k, tt_err *e)
{
    char name[200];
    tt_tensor weight, shift;
    snprintf(name, sizeof name, "%.150s%d.weight", prefix, index);
    tt_status s = tt_weights_get(w, name, 2, (int64_t[]){n, -1}, &weight, e);
    if (s)
        return s;
    *k = weight.dim[1];
    snprintf(name, sizeof name, "%.150s%d.bias", prefix, index);
    s = tt_weights_get(w, name, 1, (int64_t[]){n}, &shift, e);
    if (!s && (*k < 1 || *k > MOST))
        s = tt_fail(e, TT_EFORMAT, "tensor '%.150s%d.weight' has %lld columns", prefix, index,
                    (long long)*k);
    if (s)
        return s;
    double *out = calloc((size_t)*k, sizeof *out);
    float *line = malloc((size_t)*k * sizeof *line), b;
    if (!out || !line)
        s = tt_fail(e, TT_ENOMEM, "no memory for a scoring head");
    for (int64_t i = 0; i < n && !s; i++) {
        s = tt_to_f32(line, &weight, i * *k, *k, e);
        if (!s)
            s = tt_to_f32(&b, &shift, i, 1, e);
        for (int64_t j = 0; j < *k && !s; j++)
            out[j] += (*row)[i] * line[j];
        *bias += s ? 0 : (*row)[i] * b;
    }
    free(line);
    if (s) {
        free(out);
        return s;
    }
    free(*row);
    *row = out;
    return TT_OK;
}

tt_status tt_chain_fold(double *weight, double *bias, int64_t width, const tt_weights *w,
                        const char *prefix, const int *index, int layers, tt_err *e)
{
    double *row = calloc(1, sizeof *row);
    int64_t n = 1;
    *bias = 0;
    tt_status s = row ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for a scoring head");
    if (!s)
        row[0] = 1;
    for (int i = layers; i-- > 0 && !s;)
        s = step(&row, bias, w, prefix, index[i], n, &n, e);
    if (!s && n != width)
        s = tt_fail(e, TT_EFORMAT, "tensor '%.150s%d.weight' has %lld columns, expected %lld",
                    prefix, index[0], (long long)n, (long long)width);
    if (!s)
        memcpy(weight, row, (size_t)width * sizeof *weight);
    free(row);
    return s;
}
