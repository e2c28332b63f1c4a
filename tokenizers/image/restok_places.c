/* restok_places.c - where the rows of ResTok's transformers lie: a place turns queries and keys,
 * half of the pairs by its row and half by its column. Grids come one after the other along the
 * diagonal, so that no two share a place; each latent is a place of its own. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizers/image/restok.h"

/* Angles of a row at (y, x): the first half of the pairs turns with y, the second with x. */
static void angles(const tt_restok *r, float *cosines, float *sines, int64_t head_dim, double y,
                   double x)
{
    int64_t quarter = head_dim / 4;
    for (int64_t i = 0; i < 2 * quarter; i++) {
        double f = pow(r->theta, -2.0 * (double)(i % quarter) / ((double)head_dim / 2));
        double a = (i < quarter ? y : x) * f;
        cosines[i] = (float)cos(a);
        sines[i] = (float)sin(a);
    }
}

/* Of one picture in the encoder after `merges` merges: grids coarsest first, then the latents.
 * Returns how many rows it has. */
static int64_t encoder_angles(const tt_restok *r, float *c, float *s, int merges)
{
    int64_t hd = r->in.vit.width / r->in.vit.heads, half = hd / 2, row = 0, offset = 0;
    for (int g = merges; g >= 0; g--) {
        int64_t columns = r->side >> g, cells = r->side * columns;
        for (int64_t i = 0; i < cells; i++, row++)
            angles(r, c + row * half, s + row * half, hd, (double)(i / columns + offset),
                   (double)(i % columns + offset));
        offset += cells;
    }
    for (int64_t j = 0; j < tt_restok_tokens(r); j++, row++)
        angles(r, c + row * half, s + row * half, hd, (double)(offset + j), (double)(offset + j));
    return row;
}

void tt_restok_turning_close(tt_restok_turning *t, tt_stream *s)
{
    s->op.release(s, t->cos);
    s->op.release(s, t->sin);
    *t = (tt_restok_turning){0};
}

/* One picture's angles, for all pictures. */
static tt_status upload_angles(tt_stream *s, tt_restok_turning *t, const float *c, const float *si,
                               int64_t numbers, tt_err *e)
{
    const float *from[] = {c, si};
    void **to[] = {&t->cos, &t->sin};
    size_t one = (size_t)numbers * sizeof *c;
    char *all = malloc(one * TT_RESTOK_PICTURES);
    tt_status st = all ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for places");
    for (int k = 0; k < 2 && !st; k++) {
        for (size_t i = 0; i < TT_RESTOK_PICTURES; i++)
            memcpy(all + i * one, from[k], one);
        st = s->op.alloc(s, to[k], one * TT_RESTOK_PICTURES, e);
        if (!st)
            st = s->op.upload(s, *to[k], all, one * TT_RESTOK_PICTURES, e);
        if (!st)
            st = s->op.sync(s, e);
    }
    free(all);
    if (st)
        tt_restok_turning_close(t, s);
    return st;
}

tt_status tt_restok_turn_in(tt_restok *r, int merges, tt_err *e)
{
    int64_t half = r->in.vit.width / r->in.vit.heads / 2;
    size_t room = (size_t)(tt_restok_most_rows(r) * half) * sizeof(float);
    tt_restok_turning *t = &r->turn_in[merges];
    if (t->cos)
        return TT_OK;
    float *c = malloc(room), *s = malloc(room);
    tt_status st = c && s ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for places");
    if (!st) {
        int64_t rows = encoder_angles(r, c, s, merges);
        st = upload_angles(r->base.stream, t, c, s, rows * half, e);
    }
    free(c);
    free(s);
    return st;
}

tt_status tt_restok_turn_out(tt_restok *r, tt_err *e)
{
    int64_t tokens = tt_restok_tokens(r), rows = tokens + tt_restok_cells(r);
    int64_t hd = r->out.vit.width / r->out.vit.heads, half = hd / 2;
    if (r->turn_out.cos)
        return TT_OK;
    float *c = malloc((size_t)(2 * rows * half) * sizeof *c);
    if (!c)
        return tt_fail(e, TT_ENOMEM, "no memory for places");
    float *s = c + rows * half;
    for (int64_t i = 0; i < rows; i++) {
        int64_t k = i - tokens;
        double y = (double)(i < tokens ? i : k / r->side + tokens);
        double x = (double)(i < tokens ? i : k % r->side + tokens);
        angles(r, c + i * half, s + i * half, hd, y, x);
    }
    tt_status st = upload_angles(r->base.stream, &r->turn_out, c, s, rows * half, e);
    free(c);
    return st;
}
