/* restok_decode.c - tokens to pictures: rows of latents and of blank cells through the transformer,
 * the cells then through the convolutions. */
#include <stdlib.h>
#include <string.h>

#include "tokenizers/image/restok.h"

/* Some pictures, and views into the working memory. */
typedef struct {
    tt_restok *r;
    int64_t images, rows; /* rows of one picture */
    float *code;          /* host: of every token, by level, then picture */
    int32_t *index;       /* host: the part of each row, then the rows that become pixels */
    /* parts: what blank image tokens are, then the latents as `code` has them */
    tt_act *parts, *codes, *x, *last, *pixels[3];
    int32_t *part, *cell;
} decoding;

/* Lays the views out from base (NULL: only counts) and returns the bytes used. */
static size_t lay_out(decoding *n, char *base)
{
    const tt_restok *r = n->r;
    size_t size = tt_dtype_size(r->out.vit.type), d = (size_t)r->out.vit.width, used = 0;
    size_t images = (size_t)n->images, tokens = images * (size_t)tt_restok_tokens(r);
    size_t cells = images * (size_t)tt_restok_cells(r);
    size_t pixels = images * (size_t)tt_restok_most_numbers(r);
    size_t parts = (size_t)tt_restok_blanks(r) + tokens;
    const size_t part[] = {parts * d * size, tokens * (size_t)r->dims * size,
                           (tokens + cells) * d * size, cells * d * size, pixels * size,
                           pixels * size, pixels * size, (tokens + 2 * cells) * sizeof(int32_t)};
    void *p[8] = {NULL};
    for (int i = 0; i < 8; i++) {
        p[i] = base ? base + used : NULL;
        used += (part[i] + 255) & ~(size_t)255;
    }
    if (!base)
        return used;
    n->parts = p[0];
    n->codes = p[1];
    n->x = p[2];
    n->last = p[3];
    for (int i = 0; i < 3; i++)
        n->pixels[i] = p[4 + i];
    n->part = p[7];
    n->cell = n->part + tokens + cells;
    return used;
}

/* Blank tokens are the first thing there. */
static tt_status reserve(decoding *n, tt_err *e)
{
    tt_restok *r = n->r;
    tt_stream *s = r->base.stream;
    size_t need = lay_out(n, NULL);
    if (need > r->space_bytes) {
        s->op.release(s, r->space);
        r->space = NULL;
        r->space_bytes = 0;
        tt_status st = s->op.alloc(s, &r->space, need, e);
        if (!st)
            st = tt_vit_put(&r->out.vit, r->space, r->blank,
                            tt_restok_blanks(r) * r->out.vit.width, e);
        if (st)
            return st;
        r->space_bytes = need;
    }
    lay_out(n, r->space);
    return tt_vit_reserve(&r->out.vit, n->images * n->rows, e);
}

/* keep: NULL, or how many tokens of each picture count. */
static void fill_lists(decoding *n, const int32_t *id, const int32_t *keep)
{
    const tt_restok *r = n->r;
    const tt_layout *l = &r->base.info.layout;
    int64_t tokens = tt_restok_tokens(r), cells = tt_restok_cells(r), at = 0, begin = 0;
    int64_t blanks = tt_restok_blanks(r);
    for (int32_t v = 0; v < l->levels; begin += l->level[v++])
        for (int64_t i = 0; i < n->images; i++)
            for (int64_t j = begin; j < begin + l->level[v]; j++, at++) {
                const float *code = r->unit + (int64_t)id[i * tokens + j] * r->dims;
                memcpy(n->code + at * r->dims, keep && j >= keep[i] ? r->nothing : code,
                       (size_t)r->dims * sizeof *code);
                n->index[i * n->rows + j] = (int32_t)(blanks + at);
            }
    int32_t *cell = n->index + n->images * n->rows;
    for (int64_t i = 0; i < n->images; i++)
        for (int64_t j = 0; j < cells; j++) {
            n->index[i * n->rows + tokens + j] = r->in_place ? (int32_t)j : 0;
            *cell++ = (int32_t)(i * n->rows + tokens + j);
        }
}

/* The transformer's rows of all pictures: latents, then blank image tokens. */
static tt_status begin_decoder(const decoding *n, tt_err *e)
{
    const tt_restok *r = n->r;
    const tt_layout *l = &r->base.info.layout;
    tt_stream *s = r->base.stream;
    int64_t d = r->out.vit.width, c = r->dims, at = 0;
    size_t size = tt_dtype_size(r->out.vit.type);
    int64_t ints = n->images * (n->rows + tt_restok_cells(r));
    tt_status st = tt_vit_put(&r->out.vit, n->codes, n->code, n->images * tt_restok_tokens(r) * c,
                              e);
    if (!st)
        st = s->op.upload(s, n->part, n->index, (size_t)ints * sizeof *n->index, e);
    for (int32_t v = 0; v < l->levels && !st; v++) {
        int64_t rows = n->images * l->level[v];
        st = s->op.linear(s, (char *)n->parts + (size_t)((tt_restok_blanks(r) + at) * d) * size, d,
                          (char *)n->codes + (size_t)(at * c) * size, c, rows, r->up[v], false, e);
        at += rows;
    }
    return st ? st
              : s->op.gather(s, n->x, d, n->parts, d, n->part, n->images * n->rows, d, e);
}

/* Up to the rows that the convolutions read. */
static tt_status run_decoder(decoding *n, tt_err *e)
{
    tt_restok *r = n->r;
    tt_stream *s = r->base.stream;
    tt_vit *v = &r->out.vit;
    int64_t d = v->width, rows = n->images * n->rows, cells = n->images * tt_restok_cells(r);
    tt_vit_span span[TT_RESTOK_PICTURES];
    for (int64_t i = 0; i < n->images; i++)
        span[i] = (tt_vit_span){.row = i * n->rows, .rows = n->rows, .see = TT_SEE_ALL};
    tt_status st = begin_decoder(n, e);
    if (!st)
        st = s->op.layernorm(s, n->x, d, n->x, d, r->out.pre.w, r->out.pre.b, rows, d, v->eps, e);
    for (int64_t i = 0; i < r->out.layers && !st; i++)
        st = tt_vit_run(v, &r->out.block[i], n->x, rows, span, n->images, r->turn_out.cos,
                        r->turn_out.sin, e);
    if (!st)
        st = s->op.gather(s, n->last, d, n->x, d, n->cell, cells, d, e);
    if (!st)
        st = s->op.layernorm(s, n->last, d, n->last, d, r->out.post.w, r->out.post.b, cells, d,
                             v->eps, e);
    return st ? st
              : s->op.linear(s, n->pixels[1], r->z, n->last, d, cells, r->out.embed, false, e);
}

/* *out: the pixels on the device. */
static tt_status decode_pass(decoding *n, tt_act **out, tt_err *e)
{
    const tt_restok *r = n->r;
    tt_conv_flow f = {.stream = r->base.stream, .x = n->pixels[0], .h = n->pixels[1],
                      .t = n->pixels[2], .images = n->images, .height = r->side, .width = r->side,
                      .groups = r->groups, .eps = 1e-6f};
    tt_status s = run_decoder(n, e);
    if (!s)
        s = tt_restok_decode_pixels(n->r, &f, e);
    *out = f.x;
    return s;
}

/* Passes of as many pictures are recorded where the backend can. */
static tt_status decode_recorded(decoding *n, tt_act **out, tt_err *e)
{
    const tt_restok *r = n->r;
    tt_stream *s = r->base.stream;
    if (!s->op.pass_begin)
        return decode_pass(n, out, e);
    const int64_t key[] = {(int64_t)(intptr_t)r, (int64_t)(intptr_t)r->space,
                           n->images * n->rows, (int64_t)(intptr_t)r->out.vit.space};
    tt_status st = s->op.pass_begin(s, key, sizeof key / sizeof *key, e);
    if (st)
        return st;
    st = decode_pass(n, out, e);
    return s->op.pass_end(s, st, e);
}

tt_status tt_restok_decode(tt_restok *r, float *pixels, const int32_t *id, const int32_t *keep,
                             int64_t images, tt_err *e)
{
    int64_t tokens = tt_restok_tokens(r), cells = tt_restok_cells(r), side = r->base.info.width;
    decoding n = {.r = r, .images = images, .rows = tokens + cells};
    tt_act *out = NULL;
    n.code = malloc((size_t)(images * tokens * r->dims) * sizeof *n.code);
    n.index = malloc((size_t)(images * (n.rows + cells)) * sizeof *n.index);
    r->base.stream->act = r->out.vit.type;
    tt_status st = n.code && n.index ? reserve(&n, e)
                                     : tt_fail(e, TT_ENOMEM, "no memory for pictures");
    if (!st)
        st = tt_restok_turn_out(r, e);
    if (!st) {
        fill_lists(&n, id, keep);
        st = decode_recorded(&n, &out, e);
    }
    if (!st)
        st = tt_vit_get(&r->out.vit, pixels, out, images * side * side * 3, e);
    free(n.code);
    free(n.index);
    return st;
}
