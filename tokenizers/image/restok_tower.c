/* restok_tower.c - the weights of ResTok's transformers, in the order and shapes of nn/vit.h: its
 * rotation pairs neighbouring channels, and it scales each residual by channel. */
#include <stdlib.h>
#include <string.h>

#include "tokenizers/image/restok.h"

/* The n numbers of a block's tensor. */
static tt_status of(const tt_weights *w, float **out, const char *at, const char *part,
                    const char *suffix, int64_t n, tt_err *e)
{
    return tt_restok_host(w, out, tt_restok_join(tt_restok_join(at, part).text, suffix).text, n, e);
}

/* The row of a head that becomes row c: neighbouring channels rotate together, the operation wants
 * them half a head apart. */
static int64_t source_row(int64_t c, int64_t head_dim)
{
    int64_t head = c / head_dim * head_dim, i = c % head_dim, half = head_dim / 2;
    return head + (i < half ? 2 * i : 2 * (i - half) + 1);
}

/* Queries, keys and values in our order; keys have no bias. */
static tt_status bind_qkv(const tt_restok_tower *t, tt_matrix **out, const tt_weights *w,
                          const char *at, tt_compute compute, tt_err *e)
{
    int64_t d = t->vit.width, hd = d / t->vit.heads;
    float *raw = NULL, *rows = malloc((size_t)(3 * d * d) * sizeof *rows);
    float *bias = calloc((size_t)(3 * d), sizeof *bias), *given = NULL;
    tt_status s = rows && bias ? of(w, &raw, at, ".attn.qkv", ".weight", 3 * d * d, e)
                               : tt_fail(e, TT_ENOMEM, "no memory for '%.80s'", at);
    for (int64_t r = 0; r < 3 * d && !s; r++)
        memcpy(rows + r * d, raw + (r < 2 * d ? r / d * d + source_row(r % d, hd) : r) * d,
               (size_t)d * sizeof *rows);
    if (!s)
        s = of(w, &given, at, ".attn.q_bias", "", d, e);
    for (int64_t r = 0; r < d && !s; r++)
        bias[r] = given[source_row(r, hd)];
    if (!s)
        s = tt_bind_host(w, bias + 2 * d, tt_restok_join(at, ".attn.v_bias").text, d, e);
    tt_weight part = {.data = {.data = rows, .rank = 2, .dim = {3 * d, d}, .dtype = TT_F32}};
    if (!s)
        s = t->vit.stream->op.matrix_open(t->vit.stream, out, &part, 1, bias, compute,
                                          TT_MATRIX_LINEAR, e);
    free(raw);
    free(rows);
    free(bias);
    free(given);
    return s;
}

/* Weights or biases of the norms of all q heads, then all k heads, their channels in our order. */
static tt_status bind_head_norms(const tt_restok_tower *t, float **out, const tt_weights *w,
                                 const char *at, const char *suffix, tt_err *e)
{
    static const char *const side[] = {".attn.q_norm", ".attn.k_norm"};
    int64_t d = t->vit.width, hd = d / t->vit.heads;
    float *all = malloc((size_t)(2 * d) * sizeof *all);
    tt_status s = all ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for '%.80s'", at);
    for (int i = 0; i < 2 && !s; i++) {
        float *raw = NULL;
        s = of(w, &raw, at, side[i], suffix, hd, e);
        for (int64_t c = 0; c < d && !s; c++)
            all[i * d + c] = raw[source_row(c % hd, hd)];
        free(raw);
    }
    if (!s)
        s = tt_bind_floats(t->vit.stream, out, all, 2 * d, e);
    free(all);
    return s;
}

/* A linear map whose outputs are scaled by channel before they are added. */
static tt_status bind_scaled(const tt_restok_tower *t, tt_matrix **out, const tt_bind *b,
                             const char *at, const char *part, const char *gamma, int64_t k,
                             tt_err *e)
{
    int64_t d = t->vit.width;
    float *weight = NULL, *bias = NULL, *scale = NULL;
    tt_status s = of(b->weights, &scale, at, gamma, "", d, e);
    if (!s)
        s = of(b->weights, &weight, at, part, ".weight", d * k, e);
    if (!s)
        s = of(b->weights, &bias, at, part, ".bias", d, e);
    for (int64_t r = 0; r < d && !s; r++) {
        bias[r] *= scale[r];
        for (int64_t i = 0; i < k; i++)
            weight[r * k + i] *= scale[r];
    }
    tt_weight one = {.data = {.data = weight, .rank = 2, .dim = {d, k}, .dtype = TT_F32}};
    if (!s)
        s = b->stream->op.matrix_open(b->stream, out, &one, 1, bias, b->compute, TT_MATRIX_LINEAR,
                                      e);
    free(weight);
    free(bias);
    free(scale);
    return s;
}

static tt_status bind_block(tt_restok_tower *t, const tt_bind *b, const char *side, int64_t i,
                            tt_err *e)
{
    tt_vit_block *k = &t->block[i];
    int64_t d = t->vit.width, ff = t->vit.ff;
    tt_restok_name at = tt_restok_named("%s.blocks.%d", side, (int)i);
    tt_status s = bind_qkv(t, &k->qkv, b->weights, at.text, b->compute, e);
    if (!s)
        s = tt_vit_bind_norm(&k->norm1, b, tt_restok_join(at.text, ".norm1").text, d, e);
    if (!s)
        s = tt_vit_bind_norm(&k->norm2, b, tt_restok_join(at.text, ".norm2").text, d, e);
    if (!s)
        s = bind_head_norms(t, &k->heads.w, b->weights, at.text, ".weight", e);
    if (!s)
        s = bind_head_norms(t, &k->heads.b, b->weights, at.text, ".bias", e);
    if (!s)
        s = bind_scaled(t, &k->out, b, at.text, ".attn.proj", ".gamma_1", d, e);
    if (!s)
        s = tt_conv_bind_point(b, &k->fc1, tt_restok_join(at.text, ".mlp.fc1").text, ff, d, e);
    return s ? s : bind_scaled(t, &k->fc2, b, at.text, ".mlp.fc2", ".gamma_2", ff, e);
}

tt_status tt_restok_bind_tower(tt_restok_tower *t, const tt_bind *b, const char *side, tt_err *e)
{
    int64_t d = t->vit.width;
    t->block = calloc((size_t)t->layers, sizeof *t->block);
    if (!t->block)
        return tt_fail(e, TT_ENOMEM, "no memory for %lld layers", (long long)t->layers);
    tt_status s = tt_vit_bind_norm(&t->pre, b, tt_restok_join(side, ".ln_pre").text, d, e);
    if (!s)
        s = tt_vit_bind_norm(&t->post, b, tt_restok_join(side, ".ln_post").text, d, e);
    for (int64_t i = 0; i < t->layers && !s; i++)
        s = bind_block(t, b, side, i, e);
    return s;
}

void tt_restok_close_tower(tt_restok_tower *t, tt_stream *s)
{
    for (int64_t i = 0; t->block && i < t->layers; i++)
        tt_vit_block_close(&t->block[i], s);
    free(t->block);
    tt_vit_norm_close(&t->pre, s);
    tt_vit_norm_close(&t->post, s);
    s->op.matrix_close(s, t->embed);
    tt_vit_close(&t->vit);
}

double tt_restok_tower_macs(const tt_restok_tower *t, int64_t rows)
{
    double d = (double)t->vit.width, ff = (double)t->vit.ff, n = (double)rows;
    return (double)t->layers * n * (4 * d * d + 2 * d * ff + 2 * d * n);
}
