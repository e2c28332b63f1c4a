/* bind.c - see bind.h. */
#include "models/nn/bind.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static tt_dtype stored_as(const tt_weights *w, const char *name)
{
    tt_tensor t;
    const char *have;
    for (size_t i = 0; (have = tt_weights_name(w, i, &t)); i++)
        if (!strcmp(have, name))
            return t.dtype;
    return TT_BF16; /* random weights come to be when they are asked for, in BF16 */
}

tt_status tt_bind_choose(tt_compute *out, tt_stream *s, const tt_weights *w, const char *sample,
                         tt_weights_mode mode, tt_err *e)
{
    bool narrow = stored_as(w, sample) != TT_F32;
    *out = TT_COMPUTE_F32;
    if (mode == TT_WEIGHTS_INT8 || mode == TT_WEIGHTS_FP8)
        return tt_fail(e, TT_EUNSUP, "weights '%s' are for text models; image models take auto, "
                       "f32 and bf16", mode == TT_WEIGHTS_INT8 ? "int8" : "fp8");
    if (mode == TT_WEIGHTS_BF16 ||
        (mode == TT_WEIGHTS_AUTO && narrow && s->op.has_compute(s, TT_COMPUTE_BF16)))
        *out = TT_COMPUTE_BF16;
    return TT_OK;
}

tt_compute tt_bind_exact(const tt_stream *s)
{
    return s->op.has_compute(s, TT_COMPUTE_THIRDS) ? TT_COMPUTE_THIRDS : TT_COMPUTE_F32;
}

const char *tt_bind_text(const tt_weights *w, const char *sample, tt_compute compute)
{
    bool narrow = compute == TT_COMPUTE_BF16;
    if (stored_as(w, sample) == TT_I8)
        return narrow ? "int8 weights, bf16 products" : "int8 weights widened to f32";
    return narrow ? "bf16" : "f32";
}

tt_status tt_bind_floats(tt_stream *s, float **out, const float *host, int64_t n, tt_err *e)
{
    void *p = NULL;
    tt_status st = s->op.alloc(s, &p, (size_t)n * sizeof *host, e);
    *out = p;
    if (!st)
        st = s->op.upload(s, p, host, (size_t)n * sizeof *host, e);
    return st ? st : s->op.sync(s, e);
}

/* The tensor, whatever its rank. A random checkpoint is asked for a vector. */
static tt_status find(const tt_weights *w, tt_tensor *out, const char *name, int64_t n, tt_err *e)
{
    const char *have;
    for (size_t i = 0; (have = tt_weights_name(w, i, out)); i++)
        if (!strcmp(have, name) && tt_tensor_count(out) == n)
            return TT_OK;
    return tt_weights_get(w, name, 1, (int64_t[]){n}, out, e);
}

/* The scales of n rows, where the data is I8. */
static tt_status scales_of(const tt_weights *w, tt_weight *out, const char *name, int64_t n,
                           tt_err *e)
{
    char scale[200];
    out->scale = (tt_tensor){0};
    if (out->data.dtype != TT_I8)
        return TT_OK;
    snprintf(scale, sizeof scale, "%.160s_scale", name);
    return tt_weights_get(w, scale, 1, (int64_t[]){n}, &out->scale, e);
}

/* Rows of I8 to the numbers they stand for. */
static tt_status widen_rows(const tt_weights *w, float *out, const char *name,
                            const tt_tensor *data, int64_t n, tt_err *e)
{
    tt_weight t = {.data = *data};
    int64_t rows = data->rank > 1 ? data->dim[0] : 0;
    if (rows < 1 || n % rows)
        return tt_fail(e, TT_EFORMAT, "tensor '%.80s': int8 has a scale per row, and it has no "
                       "rows", name);
    tt_status st = scales_of(w, &t, name, rows, e);
    for (int64_t r = 0; r < rows && !st; r++) {
        float scale;
        st = tt_to_f32(&scale, &t.scale, r, 1, e);
        for (int64_t i = r * (n / rows); i < (r + 1) * (n / rows) && !st; i++)
            out[i] = (float)((const int8_t *)data->data)[i] * scale;
    }
    return st;
}

tt_status tt_bind_host(const tt_weights *w, float *out, const char *name, int64_t n, tt_err *e)
{
    tt_tensor t;
    tt_status st = find(w, &t, name, n, e);
    if (st)
        return st;
    st = t.dtype == TT_I8 ? widen_rows(w, out, name, &t, n, e) : tt_to_f32(out, &t, 0, n, e);
    return st ? tt_context(e, st, "tensor '%.80s'", name) : TT_OK;
}

tt_status tt_bind_vector(const tt_bind *b, float **out, const char *name, int64_t n, tt_err *e)
{
    float *host = malloc((size_t)n * sizeof *host);
    tt_status st = host ? tt_bind_host(b->weights, host, name, n, e)
                        : tt_fail(e, TT_ENOMEM, "no memory for tensor '%.80s'", name);
    if (!st)
        st = tt_bind_floats(b->stream, out, host, n, e);
    free(host);
    return st;
}

/* A tensor [n, k, side, side] with its row scales. */
static tt_status kernel_of(const tt_weights *w, tt_weight *out, const char *name, int64_t n,
                           int64_t k, int64_t side, tt_err *e)
{
    tt_status st = tt_weights_get(w, name, 4, (int64_t[]){n, k, side, side}, &out->data, e);
    return st ? st : scales_of(w, out, name, n, e);
}

static int rank_of(const tt_weights *w, const char *name)
{
    tt_tensor t;
    const char *have;
    for (size_t i = 0; (have = tt_weights_name(w, i, &t)); i++)
        if (!strcmp(have, name))
            return t.rank;
    return 2;
}

static tt_status part_of(const tt_weights *w, tt_weight *out, const tt_bind_part *p, int64_t k,
                         tt_err *e)
{
    if (rank_of(w, p->name) != 4)
        return tt_weights_matrix(w, p->name, p->n, k, out, e);
    tt_status st = kernel_of(w, out, p->name, p->n, k, 1, e);
    out->data.rank = 2;
    return st;
}

/* The parts' biases one after the other, zeros where a part has none; *out stays NULL when none
 * has. To be freed. */
static tt_status biases_dup(float **out, const tt_weights *w, const tt_bind_part *part, int parts,
                            tt_err *e)
{
    int64_t n = 0;
    bool any = false;
    *out = NULL;
    for (int i = 0; i < parts; i++) {
        n += part[i].n;
        any |= part[i].bias != NULL;
    }
    if (!any)
        return TT_OK;
    *out = calloc((size_t)n, sizeof **out);
    tt_status st = *out ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for %lld biases", (long long)n);
    n = 0;
    for (int i = 0; i < parts && !st; n += part[i++].n)
        if (part[i].bias)
            st = tt_bind_host(w, *out + n, part[i].bias, part[i].n, e);
    return st;
}

tt_status tt_bind_matrix(const tt_bind *b, tt_matrix **out, const tt_bind_part *part, int parts,
                         int64_t k, unsigned flags, tt_err *e)
{
    tt_stream *s = b->stream;
    float *bias = NULL;
    tt_weight *weight = calloc((size_t)parts, sizeof *weight);
    tt_status st = weight ? biases_dup(&bias, b->weights, part, parts, e)
                          : tt_fail(e, TT_ENOMEM, "no memory for a matrix of %d parts", parts);
    for (int i = 0; i < parts && !st; i++)
        st = part_of(b->weights, &weight[i], &part[i], k, e);
    if (!st) {
        st = s->op.matrix_open(s, out, weight, parts, bias, b->compute, flags, e);
        if (st)
            tt_context(e, st, "tensor '%.80s'", part[0].name);
    }
    free(bias);
    free(weight);
    return st;
}

tt_status tt_bind_patches(const tt_bind *b, tt_matrix **out, const char *name, int64_t n,
                          int64_t channels, int64_t side, const char *bias, tt_err *e)
{
    tt_weight weight = {0};
    float *shift = NULL;
    tt_status st = kernel_of(b->weights, &weight, name, n, channels, side, e);
    if (!st)
        st = biases_dup(&shift, b->weights, &(tt_bind_part){name, n, bias}, 1, e);
    weight.data.rank = 2;
    weight.data.dim[1] = channels * side * side;
    if (!st) {
        st = b->stream->op.matrix_open(b->stream, out, &weight, 1, shift, b->compute,
                                       TT_MATRIX_LINEAR, e);
        if (st)
            tt_context(e, st, "tensor '%.80s'", name);
    }
    free(shift);
    return st;
}

/* [n][k][9] -> [n][9][k]: the order in which neighbours are gathered. */
static void reorder(char *to, const char *from, int64_t n, int64_t k, size_t size)
{
    for (int64_t r = 0; r < n; r++)
        for (int64_t tap = 0; tap < 9; tap++)
            for (int64_t i = 0; i < k; i++, to += size)
                memcpy(to, from + (size_t)((r * k + i) * 9 + tap) * size, size);
}

tt_status tt_bind_conv3x3(const tt_bind *b, tt_matrix **out, const char *name, int64_t n,
                          int64_t channels, const char *bias, tt_err *e)
{
    tt_stream *s = b->stream;
    tt_weight weight;
    float *shift = NULL;
    tt_status st = kernel_of(b->weights, &weight, name, n, channels, 3, e);
    if (st)
        return st;
    size_t size = tt_dtype_size(weight.data.dtype);
    char *turned = malloc((size_t)(n * channels * 9) * size);
    if (!turned)
        st = tt_fail(e, TT_ENOMEM, "no memory for tensor '%.80s'", name);
    if (!st)
        st = biases_dup(&shift, b->weights, &(tt_bind_part){name, n, bias}, 1, e);
    if (!st) {
        reorder(turned, weight.data.data, n, channels, size);
        weight.data = (tt_tensor){.data = turned, .dim = {n, 9 * channels}, .rank = 2,
                                  .dtype = weight.data.dtype};
        st = s->op.matrix_open(s, out, &weight, 1, shift, b->compute, TT_MATRIX_LINEAR, e);
        if (st)
            tt_context(e, st, "tensor '%.80s'", name);
    }
    free(turned);
    free(shift);
    return st;
}
