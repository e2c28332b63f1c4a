/* vit.c - see vit.h. */
#include "models/nn/vit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "models/nn/acts.h"

enum { CHUNK = 2048 }; /* rows of the MLP at a time */

static tt_act *at(const tt_vit *v, tt_act *p, int64_t elements)
{
    return (char *)p + elements * (int64_t)tt_dtype_size(v->type);
}

/* --- binding --- */

typedef struct {
    char text[200];
} name;

static name join(const char *prefix, const char *middle, const char *suffix)
{
    name n;
    snprintf(n.text, sizeof n.text, "%.90s%.90s%.10s", prefix, middle, suffix);
    return n;
}

tt_status tt_vit_bind_norm(tt_vit_norm *n, const tt_bind *bind, const char *called, int64_t width,
                           tt_err *e)
{
    tt_status s = tt_bind_vector(bind, &n->w, join("", called, ".weight").text, width, e);
    return s ? s : tt_bind_vector(bind, &n->b, join("", called, ".bias").text, width, e);
}

static tt_status bind_linear(const tt_bind *bind, tt_matrix **out, const char *prefix,
                             const char *const *called, int parts, int64_t n, int64_t k, tt_err *e)
{
    name weight[3], bias[3];
    tt_bind_part part[3];
    for (int i = 0; i < parts; i++) {
        weight[i] = join(prefix, called[i], ".weight");
        bias[i] = join(prefix, called[i], ".bias");
        part[i] = (tt_bind_part){weight[i].text, n / parts, bias[i].text};
    }
    return tt_bind_matrix(bind, out, part, parts, k, TT_MATRIX_LINEAR, e);
}

tt_status tt_vit_bind(tt_vit_block *b, const tt_vit *v, const tt_bind *bind, const char *prefix,
                      const tt_vit_names *names, tt_err *e)
{
    const char *const separate[] = {names->q, names->k, names->v};
    int64_t d = v->width;
    tt_status s = TT_BIND_NEED(v->stream, layernorm, e);
    if (!s)
        s = v->act == TT_VIT_GELU_ERF ? TT_BIND_NEED(v->stream, gelu_erf, e)
                                      : TT_BIND_NEED(v->stream, unit, e);
    if (!s)
        s = tt_vit_bind_norm(&b->norm1, bind, join(prefix, names->norm1, "").text, d, e);
    if (!s)
        s = tt_vit_bind_norm(&b->norm2, bind, join(prefix, names->norm2, "").text, d, e);
    if (!s)
        s = bind_linear(bind, &b->qkv, prefix, names->qkv ? &names->qkv : separate,
                        names->qkv ? 1 : 3, 3 * d, d, e);
    if (!s)
        s = bind_linear(bind, &b->out, prefix, &names->out, 1, d, d, e);
    if (!s)
        s = bind_linear(bind, &b->fc1, prefix, &names->fc1, 1, v->ff, d, e);
    return s ? s : bind_linear(bind, &b->fc2, prefix, &names->fc2, 1, d, v->ff, e);
}

void tt_vit_norm_close(tt_vit_norm *n, tt_stream *s)
{
    s->op.release(s, n->w);
    s->op.release(s, n->b);
}

void tt_vit_block_close(tt_vit_block *b, tt_stream *s)
{
    tt_vit_norm *norm[] = {&b->norm1, &b->norm2, &b->heads};
    tt_matrix *matrix[] = {b->qkv, b->out, b->fc1, b->fc2};
    for (int i = 0; i < 3; i++)
        tt_vit_norm_close(norm[i], s);
    for (int i = 0; i < 4; i++)
        s->op.matrix_close(s, matrix[i]);
}

void tt_vit_close(tt_vit *v)
{
    if (v->stream)
        v->stream->op.release(v->stream, v->space);
    v->space = NULL;
}

/* --- numbers --- */

tt_status tt_vit_put(const tt_vit *v, tt_act *to, const float *host, int64_t n, tt_err *e)
{
    return tt_acts_put(v->stream, v->type, to, host, n, e);
}

tt_status tt_vit_upload(const tt_vit *v, tt_act **out, const float *host, int64_t n, tt_err *e)
{
    return tt_acts_upload(v->stream, v->type, out, host, n, e);
}

/* Numbers to be widened, PART at a time. */
enum { PART = 1 << 15 };
typedef struct {
    float *to;
    const uint16_t *from;
    int64_t n;
} widening;

static void widen_part(void *arg, int64_t part, int thread)
{
    const widening *w = arg;
    int64_t end = (part + 1) * PART < w->n ? (part + 1) * PART : w->n;
    (void)thread;
    for (int64_t i = part * PART; i < end; i++)
        w->to[i] = tt_bf16_to_f32(w->from[i]);
}

tt_status tt_vit_get(const tt_vit *v, float *host, const tt_act *from, int64_t n, tt_err *e)
{
    tt_stream *s = v->stream;
    bool narrow = v->type == TT_BF16;
    uint16_t *half = narrow ? malloc((size_t)n * sizeof *half) : NULL;
    if (narrow && !half)
        return tt_fail(e, TT_ENOMEM, "no memory for %lld numbers", (long long)n);
    void *to = narrow ? (void *)half : host;
    tt_status st = s->op.download(s, to, from, (size_t)n * tt_dtype_size(v->type), e);
    if (!st)
        st = s->op.sync(s, e);
    widening w = {host, half, n};
    if (!st && narrow)
        tt_pool_run(s->pool, (n + PART - 1) / PART, widen_part, &w);
    free(half);
    return st;
}

/* --- running --- */

/* Views into the working memory. */
typedef struct {
    tt_act *h, *qkv, *att, *mlp;
} space;

static size_t up(int64_t bytes)
{
    return ((size_t)bytes + 255) & ~(size_t)255;
}

static size_t lay_out(const tt_vit *v, int64_t rows, char *base, space *out)
{
    int64_t size = (int64_t)tt_dtype_size(v->type), chunk = rows < CHUNK ? rows : CHUNK;
    const size_t part[] = {up(rows * v->width * size), up(rows * 3 * v->width * size),
                           up(rows * v->width * size), up(chunk * v->ff * size)};
    void *p[4];
    size_t used = 0;
    for (int i = 0; i < 4; i++) {
        p[i] = base ? base + used : NULL;
        used += part[i];
    }
    *out = (space){p[0], p[1], p[2], p[3]};
    return used;
}

size_t tt_vit_bytes(const tt_vit *v, int64_t rows)
{
    space unused;
    return lay_out(v, rows, NULL, &unused);
}

static tt_status reserve(tt_vit *v, int64_t rows, space *out, tt_err *e)
{
    tt_stream *s = v->stream;
    size_t need = lay_out(v, rows, NULL, out);
    if (need > v->space_bytes) {
        s->op.release(s, v->space);
        v->space = NULL;
        v->space_bytes = 0;
        tt_status st = s->op.alloc(s, &v->space, need, e);
        if (st)
            return st;
        v->space_bytes = need;
    }
    lay_out(v, rows, v->space, out);
    return TT_OK;
}

tt_status tt_vit_reserve(tt_vit *v, int64_t rows, tt_err *e)
{
    space unused;
    return reserve(v, rows, &unused, e);
}

/* Queries and keys by head: normalised, then rotated. */
static tt_status prepare_heads(tt_vit *v, const tt_vit_block *b, const space *w, int64_t rows,
                               const float *cos, const float *sin, tt_err *e)
{
    tt_stream *s = v->stream;
    int64_t d = v->width, hd = d / v->heads;
    tt_status st = TT_OK;
    if (b->heads.w)
        st = s->op.layernorm_heads(s, w->qkv, 3 * d, b->heads.w, b->heads.b, rows, 2 * v->heads,
                                   hd, v->eps, e);
    if (!st && cos)
        st = s->op.rope(s, w->qkv, 3 * d, cos, sin, rows, 2 * v->heads, hd, hd / 2, e);
    return st;
}

static int64_t first_key(const tt_vit_span *s)
{
    return s->keys ? s->key_row : s->row;
}

static tt_status attend(tt_vit *v, const space *w, const tt_vit_span *span, int64_t spans,
                        tt_err *e)
{
    tt_stream *s = v->stream;
    int64_t d = v->width, hd = d / v->heads;
    tt_status st = TT_OK;
    for (int64_t i = 0; i < spans && !st;) {
        tt_span list[64];
        int64_t n = 0;
        for (; n < 64 && i < spans; n++, i++)
            list[n] = (tt_span){.query_row = span[i].row,
                                .query_rows = span[i].rows,
                                .k = at(v, w->qkv, first_key(&span[i]) * 3 * d + d),
                                .v = at(v, w->qkv, first_key(&span[i]) * 3 * d + 2 * d),
                                .ld_kv = 3 * d,
                                .keys = span[i].keys ? span[i].keys : span[i].rows,
                                .see = span[i].see};
        st = s->op.attention(s, w->att, d, w->qkv, 3 * d, list, n, v->heads, v->heads, hd,
                             (float)(1 / sqrt((double)hd)), v->compute, e);
    }
    return st;
}

tt_status tt_vit_mlp(tt_vit *v, const tt_vit_block *b, tt_act *x, int64_t rows, tt_err *e)
{
    tt_stream *s = v->stream;
    int64_t d = v->width, ff = v->ff;
    space room;
    const space *w = &room;
    s->act = v->type;
    tt_status st = reserve(v, rows, &room, e);
    for (int64_t r = 0; r < rows && !st; r += CHUNK) {
        int64_t n = rows - r < CHUNK ? rows - r : CHUNK;
        tt_act *part = at(v, x, r * d);
        st = s->op.layernorm(s, w->h, d, part, d, b->norm2.w, b->norm2.b, n, d, v->eps, e);
        if (!st)
            st = s->op.linear(s, w->mlp, ff, w->h, d, n, b->fc1, false, e);
        if (!st)
            st = v->act == TT_VIT_GELU_ERF
                     ? s->op.gelu_erf(s, w->mlp, ff, w->mlp, ff, n, ff, e)
                     : s->op.unit(s, w->mlp, ff, w->mlp, ff, n, ff, TT_UNIT_QUICK_GELU, e);
        if (!st)
            st = s->op.linear(s, part, d, w->mlp, ff, n, b->fc2, true, e);
    }
    return st;
}

tt_status tt_vit_attend(tt_vit *v, const tt_vit_block *b, tt_act *x, int64_t rows,
                        const tt_vit_span *span, int64_t spans, const float *cos, const float *sin,
                        tt_err *e)
{
    tt_stream *s = v->stream;
    int64_t d = v->width;
    space w;
    s->act = v->type;
    tt_status st = reserve(v, rows, &w, e);
    if (!st)
        st = s->op.layernorm(s, w.h, d, x, d, b->norm1.w, b->norm1.b, rows, d, v->eps, e);
    if (!st)
        st = s->op.linear(s, w.qkv, 3 * d, w.h, d, rows, b->qkv, false, e);
    if (!st)
        st = prepare_heads(v, b, &w, rows, cos, sin, e);
    if (!st)
        st = attend(v, &w, span, spans, e);
    return st ? st : s->op.linear(s, x, d, w.att, d, rows, b->out, true, e);
}

tt_status tt_vit_run(tt_vit *v, const tt_vit_block *b, tt_act *x, int64_t rows,
                     const tt_vit_span *span, int64_t spans, const float *cos, const float *sin,
                     tt_err *e)
{
    tt_status st = tt_vit_attend(v, b, x, rows, span, spans, cos, sin, e);
    return st ? st : tt_vit_mlp(v, b, x, rows, e);
}
