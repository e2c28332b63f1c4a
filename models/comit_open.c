/* comit_open.c - COMiT's sizes and weights. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "models/comit_net.h"
#include "models/nn/acts.h"
#include "models/nn/bind.h"

/* A linear map with a bias, [n, k]. */
typedef struct {
    const char *name;
    tt_matrix **out;
    int64_t n, k;
} matrix;

/* at: goes before all names. */
static tt_status open_matrices(const tt_bind *b, const char *at, const matrix *list, size_t n,
                               tt_err *e)
{
    tt_status s = TT_OK;
    for (size_t i = 0; i < n && !s; i++) {
        char weight[120], shift[120];
        snprintf(weight, sizeof weight, "predictor.%s%s.weight", at, list[i].name);
        snprintf(shift, sizeof shift, "predictor.%s%s.bias", at, list[i].name);
        tt_bind_part part = {weight, list[i].n, shift};
        s = tt_bind_matrix(b, list[i].out, &part, 1, list[i].k, TT_MATRIX_LINEAR, e);
    }
    return s;
}

static tt_status open_layer(tt_comit *c, const tt_bind *b, int64_t i, tt_err *e)
{
    int64_t d = c->info.width;
    tt_comit_layer *l = &c->layer[i];
    const matrix list[] = {
        {"attn.qkv", &l->qkv, 3 * d, d},
        {"attn.proj", &l->out, d, d},
        {"mlp.fc1", &l->up, c->ff, d},
        {"mlp.fc2", &l->down, d, c->ff},
        {"x_adaLN_modulation.1", &l->x_mod, TT_COMIT_MODS * d, d},
        {"r_adaLN_modulation.1", &l->r_mod, TT_COMIT_MODS * d, d},
    };
    char at[40];
    snprintf(at, sizeof at, "blocks.%lld.", (long long)i);
    return open_matrices(b, at, list, sizeof list / sizeof *list, e);
}

/* What is added to every row by its place, and the queries, which are nothing else. */
static tt_status open_places(tt_comit *c, const tt_weights *w, tt_err *e)
{
    int64_t d = c->info.width, m = c->info.tokens, g = c->grid * c->grid;
    int64_t rows = 1 + g + 2 * m;
    float *all = malloc((size_t)(rows * d) * sizeof *all), *q = malloc((size_t)d * sizeof *q);
    float *ones = malloc((size_t)d * sizeof *ones);
    tt_status s = all && q && ones ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for places");
    if (!s)
        s = tt_bind_host(w, all, "predictor.c_pos_embed", d, e);
    if (!s)
        s = tt_bind_host(w, all + d, "predictor.pos_embed", g * d, e);
    if (!s)
        s = tt_bind_host(w, all + (1 + g) * d, "predictor.r_pos_embed", m * d, e);
    if (!s)
        s = tt_bind_host(w, all + (1 + g + m) * d, "predictor.r_to_pos_embed", m * d, e);
    if (!s)
        s = tt_bind_host(w, q, "predictor.r_to_token", d, e);
    for (int64_t i = 0; i < m * d && !s; i++)
        all[(1 + g + m) * d + i] += q[i % d];
    for (int64_t i = 0; i < d && !s; i++)
        ones[i] = 1;
    if (!s)
        s = tt_acts_upload(c->stream, c->type, &c->places, all, rows * d, e);
    if (!s)
        s = tt_bind_floats(c->stream, &c->ones, ones, d, e);
    free(all);
    free(q);
    free(ones);
    return s;
}

static tt_status open_all(tt_comit *c, const tt_bind *b, tt_err *e)
{
    int64_t d = c->info.width, p = c->info.patch;
    const matrix list[] = {
        {"r_embedder.0", &c->message[0], d, c->info.dims},
        {"r_embedder.2", &c->message[1], d, d},
        {"c_embedder.0", &c->place[0], d, 2},
        {"c_embedder.2", &c->place[1], d, d},
        {"t_embedder.mlp.0", &c->time[0], d, TT_COMIT_WAVES},
        {"t_embedder.mlp.2", &c->time[1], d, d},
        {"final_layer.adaLN_modulation.1", &c->last_mod, 2 * d, d},
        {"final_layer.linear", &c->velocity, tt_comit_patch_numbers(c), d},
        {"r_final_layer.linear", &c->renewed, c->info.dims, d},
    };
    tt_status s = tt_bind_patches(b, &c->patches, "predictor.x_embedder.proj.weight", d,
                                  c->info.channels, p, "predictor.x_embedder.proj.bias", e);
    if (!s)
        s = open_matrices(b, "", list, sizeof list / sizeof *list, e);
    if (!s)
        s = open_places(c, b->weights, e);
    for (int64_t i = 0; i < c->info.layers && !s; i++)
        s = open_layer(c, b, i, e);
    return s;
}

static tt_status read_config(tt_comit *c, tt_config *p, tt_err *e)
{
    tt_comit_info *i = &c->info;
    i->side = (int32_t)tt_config_int(p, "max_input_size", 32, 1, 1 << 12);
    i->patch = (int32_t)tt_config_int(p, "patch_size", 2, 1, 1 << 10);
    i->channels = (int32_t)tt_config_int(p, "in_channels", 4, 1, 1 << 10);
    int64_t out = tt_config_int(p, "out_channels", 4, 1, 1 << 10);
    i->width = tt_config_int(p, "hidden_size", 1152, 4, 1 << 16);
    i->layers = tt_config_int(p, "depth", 28, 1, 4096);
    i->heads = tt_config_int(p, "num_heads", 16, 1, 1 << 12);
    i->tokens = (int32_t)tt_config_int(p, "num_msg_tokens", 16, 1, 1 << 12);
    i->dims = (int32_t)tt_config_int(p, "msg_tokens_dim", 64, 1, 1 << 10);
    c->ff = (int64_t)floor((double)i->width * tt_config_float(p, "mlp_ratio", 4, 0.01, 64));
    tt_status s = tt_config_status(p, e);
    if (s)
        return s;
    if (i->side % i->patch || i->width % i->heads || out != i->channels)
        return tt_fail(e, TT_EFORMAT, "config key 'predictor': latents of %d in patches of %d, "
                       "%lld heads of %lld, %d channels in and %lld out", i->side, i->patch,
                       (long long)i->heads, (long long)i->width, i->channels, (long long)out);
    c->grid = i->side / i->patch;
    return TT_OK;
}

static const char sample[] = "predictor.blocks.0.attn.qkv.weight";

tt_status tt_comit_compute(tt_compute *out, tt_stream *s, const tt_weights *w, tt_weights_mode mode,
                           tt_err *e)
{
    return tt_bind_choose(out, s, w, sample, mode, e);
}

tt_status tt_comit_open(tt_comit **out, tt_stream *stream, const tt_weights *w,
                        tt_config *predictor, tt_compute compute, bool strict, tt_err *e)
{
    tt_bind b = {.stream = stream, .weights = w, .compute = compute};
    *out = NULL;
    tt_comit *c = calloc(1, sizeof *c);
    if (!c)
        return tt_fail(e, TT_ENOMEM, "no memory for a COMiT network");
    c->stream = stream;
    c->strict = strict;
    tt_status s = read_config(c, predictor, e);
    if (!s)
        s = TT_BIND_NEED(stream, attention_biased, e);
    if (!s)
        s = TT_BIND_NEED(stream, unit, e);
    if (!s)
        s = TT_BIND_NEED(stream, linear_gelu, e);
    if (!s)
        s = TT_BIND_NEED(stream, gate_adaln, e);
    c->compute = compute;
    c->type = stream->op.act_type ? stream->op.act_type(stream, b.compute) : TT_F32;
    c->info.compute = tt_bind_text(w, sample, b.compute);
    c->info.products = compute;
    c->info.exact = compute != TT_COMPUTE_BF16;
    c->info.parameters = tt_weights_elements(w);
    c->info.weight_bytes = (int64_t)tt_weights_bytes(w);
    if (!s && !(c->layer = calloc((size_t)c->info.layers, sizeof *c->layer)))
        s = tt_fail(e, TT_ENOMEM, "no memory for %lld layers", (long long)c->info.layers);
    if (!s)
        s = open_all(c, &b, e);
    if (s) {
        tt_comit_close(c);
        return tt_context(e, s, "COMiT network");
    }
    *out = c;
    return TT_OK;
}

void tt_comit_close(tt_comit *c)
{
    if (!c)
        return;
    tt_stream *s = c->stream;
    for (int64_t i = 0; c->layer && i < c->info.layers; i++) {
        tt_matrix *m[] = {c->layer[i].qkv, c->layer[i].out, c->layer[i].up, c->layer[i].down,
                          c->layer[i].x_mod, c->layer[i].r_mod};
        for (int j = 0; j < 6; j++)
            s->op.matrix_close(s, m[j]);
    }
    tt_matrix *m[] = {c->patches, c->message[0], c->message[1], c->place[0], c->place[1],
                      c->time[0], c->time[1], c->last_mod, c->velocity, c->renewed};
    for (int j = 0; j < 10; j++)
        s->op.matrix_close(s, m[j]);
    void *memory[] = {c->places, c->ones, c->times.mods, c->times.last, c->times.time, c->space};
    for (int i = 0; i < 6; i++)
        s->op.release(s, memory[i]);
    free(c->layer);
    free(c);
}

const tt_comit_info *tt_comit_about(const tt_comit *c)
{
    return &c->info;
}
