/* patches.c - see patches.h. */
#include "models/nn/patches.h"

#include <stdlib.h>
#include <string.h>

/* The places, with what else is the same for every picture. */
static tt_status read_places(tt_patches *p, int64_t d, const tt_weights *w,
                             const tt_patch_names *names, tt_err *e)
{
    float *row = calloc((size_t)d, sizeof *row);
    p->place = malloc((size_t)(p->rows * d) * sizeof *p->place);
    tt_status s = row && p->place ? TT_OK
                                  : tt_fail(e, TT_ENOMEM, "no memory for %lld places",
                                            (long long)p->rows);
    if (!s)
        s = tt_bind_host(w, p->place, names->place, p->rows * d, e);
    if (!s)
        s = tt_bind_host(w, row, names->class_token, d, e);
    for (int64_t i = 0; i < d && !s; i++)
        p->place[i] += row[i];
    if (!s && names->bias)
        s = tt_bind_host(w, row, names->bias, d, e);
    for (int64_t i = d; i < p->rows * d && !s && names->bias; i++)
        p->place[i] += row[i % d];
    free(row);
    return s;
}

tt_status tt_patches_bind(tt_patches *p, const tt_vit *v, const tt_bind *bind,
                          const tt_patch_names *names, tt_err *e)
{
    if (p->side < 1 || p->patch < 1 || p->side % p->patch)
        return tt_fail(e, TT_EFORMAT, "config key 'patch_size': pictures of %d pixels do not split "
                       "into patches of %d", p->side, p->patch);
    int64_t d = v->width, grid = p->side / p->patch;
    p->rows = 1 + grid * grid;
    tt_status s = read_places(p, d, bind->weights, names, e);
    return s ? s : tt_bind_patches(bind, &p->matrix, names->kernel, d, 3, p->patch, NULL, e);
}

void tt_patches_close(tt_patches *p, tt_stream *s)
{
    s->op.matrix_close(s, p->matrix);
    free(p->place);
}

/* Patches as rows: channel, then row, then column of the patch; a row of zeros for the class. */
static void unfold(const tt_patches *p, float *out, const float *planes)
{
    int64_t n = p->patch, side = p->side, grid = side / n;
    memset(out, 0, (size_t)(3 * n * n) * sizeof *out);
    out += 3 * n * n;
    for (int64_t i = 0; i < grid * grid; i++)
        for (int64_t k = 0; k < 3 * n; k++, out += n)
            memcpy(out, planes + (k / n * side + i / grid * n + k % n) * side + i % grid * n,
                   (size_t)n * sizeof *out);
}

tt_status tt_patches_embed(const tt_patches *p, const tt_vit *v, tt_act **x, const float *planes,
                           int64_t images, tt_err *e)
{
    tt_stream *s = v->stream;
    int64_t d = v->width, in = 3 * (int64_t)p->patch * p->patch, rows = images * p->rows;
    int64_t pixels = 3 * (int64_t)p->side * p->side;
    float *host = malloc((size_t)(rows * (in > d ? in : d)) * sizeof *host);
    tt_act *patches = NULL;
    s->act = v->type;
    *x = NULL;
    tt_status st = host ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for %lld pictures",
                                          (long long)images);
    for (int64_t i = 0; i < images && !st; i++)
        unfold(p, host + i * p->rows * in, planes + i * pixels);
    if (!st)
        st = tt_vit_upload(v, &patches, host, rows * in, e);
    for (int64_t i = 0; i < images && !st; i++)
        memcpy(host + i * p->rows * d, p->place, (size_t)(p->rows * d) * sizeof *host);
    if (!st)
        st = tt_vit_upload(v, x, host, rows * d, e);
    if (!st)
        st = s->op.linear(s, *x, d, patches, in, rows, p->matrix, true, e);
    s->op.release(s, patches);
    free(host);
    return st;
}
