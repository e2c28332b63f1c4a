/* image_reward.c - see image_reward.h. The text blocks are BERT's, normalised after each sum:
 *
 *   x = LN(x + out(attention(x, x)));  x = LN(x + out(attention(x, picture)))
 *   x = LN(x + down(gelu(up x))) */
#include "models/image_reward.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/chain.h"
#include "models/nn/patches.h"

/* One attention of a text layer and the norm behind it. */
typedef struct {
    tt_matrix *q, *kv, *out;
    tt_vit_norm norm;
} reader;

typedef struct {
    reader self, cross;
    tt_matrix *up, *down;
    tt_vit_norm norm;
} text_layer;

struct tt_reward {
    tt_stream *stream;
    tt_weights *weights;
    tt_reward_info info;
    tt_vit vision;
    tt_patches patches;
    int64_t vision_layers;
    tt_vit_block *block;
    tt_vit_norm vision_norm;
    tt_vit text; /* sizes, and the way numbers go to the device and back */
    int64_t text_layers;
    text_layer *layer;
    tt_matrix *table;
    float *place; /* host: context x text width */
    tt_vit_norm first;
    double *head, head_bias, mean, deviation;
};

/* --- opening --- */

#define TEXT "blip.text_encoder."

static tt_status linear(const tt_bind *b, tt_matrix **out, const char *at, const char *const *name,
                        int parts, int64_t n, int64_t k, tt_err *e)
{
    char weight[2][160], bias[2][160];
    tt_bind_part part[2];
    for (int i = 0; i < parts; i++) {
        snprintf(weight[i], sizeof weight[i], "%s%s.weight", at, name[i]);
        snprintf(bias[i], sizeof bias[i], "%s%s.bias", at, name[i]);
        part[i] = (tt_bind_part){weight[i], n / parts, bias[i]};
    }
    return tt_bind_matrix(b, out, part, parts, k, TT_MATRIX_LINEAR, e);
}

static tt_status norm(const tt_bind *b, tt_vit_norm *n, const char *at, const char *name,
                      int64_t width, tt_err *e)
{
    char full[160];
    snprintf(full, sizeof full, "%s%s", at, name);
    return tt_vit_bind_norm(n, b, full, width, e);
}

/* seen: width of what is attended to. */
static tt_status open_reader(const tt_bind *b, reader *r, const char *at, int64_t d, int64_t seen,
                             tt_err *e)
{
    static const char *const q[] = {"self.query"}, *const kv[] = {"self.key", "self.value"},
                             *const out[] = {"output.dense"};
    tt_status s = linear(b, &r->q, at, q, 1, d, d, e);
    if (!s)
        s = linear(b, &r->kv, at, kv, 2, 2 * d, seen, e);
    if (!s)
        s = linear(b, &r->out, at, out, 1, d, d, e);
    return s ? s : norm(b, &r->norm, at, "output.LayerNorm", d, e);
}

static tt_status open_layer(tt_reward *r, const tt_bind *b, int64_t i, tt_err *e)
{
    static const char *const up[] = {"intermediate.dense"}, *const down[] = {"output.dense"};
    text_layer *l = &r->layer[i];
    char at[80], part[120];
    int64_t d = r->text.width, ff = r->text.ff;
    snprintf(at, sizeof at, TEXT "encoder.layer.%lld.", (long long)i);
    snprintf(part, sizeof part, "%sattention.", at);
    tt_status s = open_reader(b, &l->self, part, d, d, e);
    snprintf(part, sizeof part, "%scrossattention.", at);
    if (!s)
        s = open_reader(b, &l->cross, part, d, r->vision.width, e);
    if (!s)
        s = linear(b, &l->up, at, up, 1, ff, d, e);
    if (!s)
        s = linear(b, &l->down, at, down, 1, d, ff, e);
    return s ? s : norm(b, &l->norm, at, "output.LayerNorm", d, e);
}

static tt_status open_text(tt_reward *r, const tt_bind *b, tt_config *c, tt_err *e)
{
    tt_vit *t = &r->text;
    t->width = tt_config_need_int(c, "hidden_size", 1, 1 << 16);
    t->heads = tt_config_need_int(c, "num_attention_heads", 1, 1 << 12);
    t->ff = tt_config_need_int(c, "intermediate_size", 1, 1 << 18);
    t->eps = (float)tt_config_float(c, "layer_norm_eps", 1e-12, 0, 1);
    r->text_layers = tt_config_need_int(c, "num_hidden_layers", 1, 4096);
    r->info.vocab = (int32_t)tt_config_need_int(c, "vocab_size", 2, 1 << 24);
    int64_t d = t->width, places = tt_config_need_int(c, "max_position_embeddings", 2, 1 << 16);
    tt_status s = tt_config_status(c, e);
    if (!s && (t->width % t->heads || r->info.context > places))
        s = tt_fail(e, TT_EFORMAT, "config key 'bert': %lld heads of %lld, %d ids of %lld places",
                    (long long)t->heads, (long long)d, r->info.context, (long long)places);
    if (s)
        return s;
    r->layer = calloc((size_t)r->text_layers, sizeof *r->layer);
    r->place = malloc((size_t)(places * d) * sizeof *r->place);
    if (!r->layer || !r->place)
        return tt_fail(e, TT_ENOMEM, "no memory for %lld layers", (long long)r->text_layers);
    s = tt_bind_host(b->weights, r->place, TEXT "embeddings.position_embeddings.weight",
                     places * d, e);
    tt_bind_part table = {TEXT "embeddings.word_embeddings.weight", r->info.vocab, NULL};
    if (!s)
        s = tt_bind_matrix(b, &r->table, &table, 1, d, TT_MATRIX_TABLE, e);
    if (!s)
        s = norm(b, &r->first, TEXT, "embeddings.LayerNorm", d, e);
    for (int64_t i = 0; i < r->text_layers && !s; i++)
        s = open_layer(r, b, i, e);
    return s;
}

static tt_status open_vision(tt_reward *r, const tt_bind *b, tt_err *e)
{
    static const tt_vit_names names = {.norm1 = "norm1", .norm2 = "norm2", .qkv = "attn.qkv",
                                       .out = "attn.proj", .fc1 = "mlp.fc1", .fc2 = "mlp.fc2"};
    static const tt_patch_names patches = {.kernel = "blip.visual_encoder.patch_embed.proj.weight",
                                           .bias = "blip.visual_encoder.patch_embed.proj.bias",
                                           .class_token = "blip.visual_encoder.cls_token",
                                           .place = "blip.visual_encoder.pos_embed"};
    tt_status s = tt_patches_bind(&r->patches, &r->vision, b, &patches, e);
    if (!s && !(r->block = calloc((size_t)r->vision_layers, sizeof *r->block)))
        s = tt_fail(e, TT_ENOMEM, "no memory for %lld layers", (long long)r->vision_layers);
    for (int64_t i = 0; i < r->vision_layers && !s; i++) {
        char at[80];
        snprintf(at, sizeof at, "blip.visual_encoder.blocks.%lld.", (long long)i);
        s = tt_vit_bind(&r->block[i], &r->vision, b, at, &names, e);
    }
    return s ? s : tt_vit_bind_norm(&r->vision_norm, b, "blip.visual_encoder.norm",
                                    r->vision.width, e);
}

static tt_status read_config(tt_reward *r, tt_config *c, tt_compute compute, tt_err *e)
{
    tt_vit *v = &r->vision;
    v->stream = r->text.stream = r->stream;
    v->compute = r->text.compute = compute;
    v->type = r->text.type = r->stream->op.act_type ? r->stream->op.act_type(r->stream, compute)
                                                    : TT_F32;
    v->act = TT_VIT_GELU_ERF;
    v->eps = 1e-6f;
    v->width = tt_config_int(c, "vision_width", 1024, 1, 1 << 16);
    v->heads = tt_config_int(c, "vision_heads", 16, 1, 1 << 12);
    v->ff = 4 * v->width;
    r->vision_layers = tt_config_int(c, "vision_layers", 24, 1, 4096);
    r->info.side = r->patches.side = (int32_t)tt_config_int(c, "image_size", 224, 1, 1 << 12);
    r->patches.patch = (int32_t)tt_config_int(c, "patch_size", 16, 1, 1 << 12);
    r->info.context = (int32_t)tt_config_int(c, "max_length", 35, 2, 1 << 14);
    r->mean = tt_config_float(c, "mean", 0.16717362830052426, -1e6, 1e6);
    r->deviation = tt_config_float(c, "std", 1.0333394966054072, 1e-9, 1e6);
    tt_status s = tt_config_status(c, e);
    if (!s && v->width % (2 * v->heads))
        s = tt_fail(e, TT_EFORMAT, "config key 'vision_heads': %lld heads of a width of %lld",
                    (long long)v->heads, (long long)v->width);
    return s;
}

static tt_status open_all(tt_reward *r, tt_config *c, tt_weights_mode mode, tt_err *e)
{
    static const int index[] = {0, 2, 4, 6, 7};
    tt_bind bind = {.stream = r->stream, .weights = r->weights};
    tt_config *bert = NULL;
    tt_status s = tt_bind_choose(&bind.compute, r->stream, r->weights,
                                 "blip.visual_encoder.blocks.0.attn.qkv.weight", mode, e);
    if (!s)
        s = read_config(r, c, bind.compute, e);
    if (!s)
        s = open_vision(r, &bind, e);
    if (!s)
        s = tt_config_member(&bert, c, "bert", e);
    if (!s)
        s = open_text(r, &bind, bert, e);
    tt_config_close(bert);
    if (!s && !(r->head = malloc((size_t)r->text.width * sizeof *r->head)))
        s = tt_fail(e, TT_ENOMEM, "no memory for a scoring head");
    if (!s)
        s = tt_chain_fold(r->head, &r->head_bias, r->text.width, r->weights, "mlp.layers.", index,
                          5, e);
    r->info.vision_rows = r->patches.rows;
    r->info.vision_width = r->vision.width;
    r->info.text_width = r->text.width;
    r->info.parameters = tt_weights_elements(r->weights);
    return s;
}

tt_status tt_reward_open(tt_reward **out, tt_stream *stream, const char *folder,
                         tt_weights_mode mode, tt_err *e)
{
    *out = NULL;
    tt_reward *r = calloc(1, sizeof *r);
    tt_config *config = NULL;
    if (!r)
        return tt_fail(e, TT_ENOMEM, "no memory for an ImageReward model");
    r->stream = stream;
    tt_status s = tt_config_open(&config, folder, e);
    if (!s)
        s = tt_weights_open(&r->weights, folder, e);
    if (!s)
        s = open_all(r, config, mode, e);
    tt_config_close(config);
    if (s) {
        tt_reward_close(r);
        return tt_context(e, s, "ImageReward model in '%.100s'", folder);
    }
    *out = r;
    return TT_OK;
}

static void close_reader(reader *r, tt_stream *s)
{
    s->op.matrix_close(s, r->q);
    s->op.matrix_close(s, r->kv);
    s->op.matrix_close(s, r->out);
    tt_vit_norm_close(&r->norm, s);
}

void tt_reward_close(tt_reward *r)
{
    if (!r)
        return;
    tt_stream *s = r->stream;
    for (int64_t i = 0; r->block && i < r->vision_layers; i++)
        tt_vit_block_close(&r->block[i], s);
    for (int64_t i = 0; r->layer && i < r->text_layers; i++) {
        close_reader(&r->layer[i].self, s);
        close_reader(&r->layer[i].cross, s);
        s->op.matrix_close(s, r->layer[i].up);
        s->op.matrix_close(s, r->layer[i].down);
        tt_vit_norm_close(&r->layer[i].norm, s);
    }
    s->op.matrix_close(s, r->table);
    tt_vit_norm_close(&r->first, s);
    tt_vit_norm_close(&r->vision_norm, s);
    tt_patches_close(&r->patches, s);
    tt_vit_close(&r->vision);
    free(r->block);
    free(r->layer);
    free(r->place);
    free(r->head);
    tt_weights_close(r->weights);
    free(r);
}

const tt_reward_info *tt_reward_about(const tt_reward *r)
{
    return &r->info;
}

/* --- running --- */

enum { IMAGES = 16 };

/* Working memory of some pictures; x and what follows have rows of the text. */
typedef struct {
    void *ids, *x, *q, *kv, *att, *mlp, *picture;
    int64_t images, length;
} room;

static tt_status take(tt_reward *r, room *m, tt_err *e)
{
    tt_stream *s = r->stream;
    size_t size = tt_dtype_size(r->text.type), rows = (size_t)(m->images * m->length);
    size_t seen = (size_t)(m->images * r->patches.rows), d = (size_t)r->text.width;
    void **part[] = {&m->ids, &m->x, &m->q, &m->att, &m->mlp, &m->kv};
    const size_t bytes[] = {rows * sizeof(int32_t), rows * d * size, rows * d * size,
                            rows * d * size, rows * (size_t)r->text.ff * size,
                            (seen > rows ? seen : rows) * 2 * d * size};
    tt_status st = TT_OK;
    for (int i = 0; i < 6 && !st; i++)
        st = s->op.alloc(s, part[i], bytes[i], e);
    return st;
}

static void give(tt_reward *r, room *m)
{
    void *part[] = {m->ids, m->x, m->q, m->att, m->mlp, m->kv, m->picture};
    for (int i = 0; i < 7; i++)
        r->stream->op.release(r->stream, part[i]);
}

static tt_status see_pictures(tt_reward *r, room *m, const float *planes, float *vision, tt_err *e)
{
    tt_stream *s = r->stream;
    int64_t one = r->patches.rows, rows = m->images * one, d = r->vision.width;
    tt_vit_span span[IMAGES];
    for (int64_t i = 0; i < m->images; i++)
        span[i] = (tt_vit_span){.row = i * one, .rows = one, .see = TT_SEE_ALL};
    tt_act *x = NULL;
    tt_status st = tt_patches_embed(&r->patches, &r->vision, &x, planes, m->images, e);
    m->picture = x;
    for (int64_t i = 0; i < r->vision_layers && !st; i++)
        st = tt_vit_run(&r->vision, &r->block[i], x, rows, span, m->images, NULL, NULL, e);
    if (!st)
        st = s->op.layernorm(s, x, d, x, d, r->vision_norm.w, r->vision_norm.b, rows, d,
                             r->vision.eps, e);
    return st || !vision ? st : tt_vit_get(&r->vision, vision, x, rows * d, e);
}

/* Every picture reads the same prompt, in rows of its own. */
static tt_status begin_text(tt_reward *r, room *m, const int32_t *id, tt_err *e)
{
    tt_stream *s = r->stream;
    int64_t rows = m->images * m->length, d = r->text.width;
    int32_t *ids = malloc((size_t)rows * sizeof *ids);
    float *place = malloc((size_t)(rows * d) * sizeof *place);
    tt_status st = ids && place ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for a prompt");
    for (int64_t i = 0; i < m->images && !st; i++) {
        memcpy(ids + i * m->length, id, (size_t)m->length * sizeof *ids);
        memcpy(place + i * m->length * d, r->place, (size_t)(m->length * d) * sizeof *place);
    }
    if (!st)
        st = s->op.upload(s, m->ids, ids, (size_t)rows * sizeof *ids, e);
    if (!st)
        st = tt_vit_put(&r->text, m->q, place, rows * d, e);
    if (!st)
        st = s->op.embed(s, m->x, d, r->table, m->ids, rows, e);
    if (!st)
        st = s->op.add(s, m->x, d, m->q, d, rows, d, e);
    if (!st)
        st = s->op.layernorm(s, m->x, d, m->x, d, r->first.w, r->first.b, rows, d, r->text.eps, e);
    if (!st)
        st = s->op.sync(s, e); /* the lists go now */
    free(ids);
    free(place);
    return st;
}

/* x = LN(x + out(attention(x, seen))); each picture's text sees its own `keys` rows. */
static tt_status look(tt_reward *r, room *m, const reader *a, const tt_act *seen, int64_t width,
                      int64_t keys, tt_err *e)
{
    tt_stream *s = r->stream;
    int64_t d = r->text.width, rows = m->images * m->length, hd = d / r->text.heads;
    int64_t size = (int64_t)tt_dtype_size(r->text.type);
    tt_span span[IMAGES];
    for (int64_t i = 0; i < m->images; i++) {
        char *k = (char *)m->kv + i * keys * 2 * d * size;
        span[i] = (tt_span){.query_row = i * m->length, .query_rows = m->length, .k = k,
                            .v = k + d * size, .ld_kv = 2 * d, .keys = keys, .see = TT_SEE_ALL};
    }
    tt_status st = s->op.linear(s, m->q, d, m->x, d, rows, a->q, false, e);
    if (!st)
        st = s->op.linear(s, m->kv, 2 * d, seen, width, m->images * keys, a->kv, false, e);
    if (!st)
        st = s->op.attention(s, m->att, d, m->q, d, span, m->images, r->text.heads, r->text.heads,
                             hd, (float)(1 / sqrt((double)hd)), r->text.compute, e);
    if (!st)
        st = s->op.linear(s, m->x, d, m->att, d, rows, a->out, true, e);
    return st ? st : s->op.layernorm(s, m->x, d, m->x, d, a->norm.w, a->norm.b, rows, d,
                                     r->text.eps, e);
}

static tt_status read_prompt(tt_reward *r, room *m, tt_err *e)
{
    tt_stream *s = r->stream;
    int64_t d = r->text.width, ff = r->text.ff, rows = m->images * m->length;
    tt_status st = TT_OK;
    for (int64_t i = 0; i < r->text_layers && !st; i++) {
        const text_layer *l = &r->layer[i];
        st = look(r, m, &l->self, m->x, d, m->length, e);
        if (!st)
            st = look(r, m, &l->cross, m->picture, r->vision.width, r->patches.rows, e);
        if (!st)
            st = s->op.linear(s, m->mlp, ff, m->x, d, rows, l->up, false, e);
        if (!st)
            st = s->op.gelu_erf(s, m->mlp, ff, m->mlp, ff, rows, ff, e);
        if (!st)
            st = s->op.linear(s, m->x, d, m->mlp, ff, rows, l->down, true, e);
        if (!st)
            st = s->op.layernorm(s, m->x, d, m->x, d, l->norm.w, l->norm.b, rows, d, r->text.eps,
                                 e);
    }
    return st;
}

static tt_status some(tt_reward *r, room *m, float *score, const float *planes, const int32_t *id,
                      float *vision, float *first, tt_err *e)
{
    int64_t d = r->text.width, rows = m->images * m->length;
    float *host = malloc((size_t)(rows * d) * sizeof *host);
    tt_status s = host ? take(r, m, e) : tt_fail(e, TT_ENOMEM, "no memory for a prompt");
    r->stream->act = r->text.type;
    if (!s)
        s = see_pictures(r, m, planes, vision, e);
    if (!s)
        s = begin_text(r, m, id, e);
    if (!s)
        s = read_prompt(r, m, e);
    if (!s)
        s = tt_vit_get(&r->text, host, m->x, rows * d, e);
    for (int64_t i = 0; i < m->images && !s; i++) {
        const float *row = host + i * m->length * d;
        double sum = r->head_bias;
        for (int64_t j = 0; j < d; j++)
            sum += r->head[j] * row[j];
        score[i] = (float)((sum - r->mean) / r->deviation);
        if (first)
            memcpy(first + i * d, row, (size_t)d * sizeof *first);
    }
    free(host);
    give(r, m);
    return s;
}

tt_status tt_reward_score(tt_reward *r, float *score, const float *planes, int64_t images,
                          const int32_t *id, int32_t length, float *vision, float *first,
                          tt_err *e)
{
    int64_t pixels = 3 * (int64_t)r->info.side * r->info.side;
    int64_t seen = r->patches.rows * r->vision.width;
    if (length < 1 || length > r->info.context)
        return tt_fail(e, TT_EINVAL, "prompt of %d ids; 1 to %d are possible", length,
                       r->info.context);
    for (int32_t i = 0; i < length; i++)
        if (id[i] < 0 || id[i] >= r->info.vocab)
            return tt_fail(e, TT_EINVAL, "id %d of the prompt is outside the vocabulary of %d",
                           id[i], r->info.vocab);
    tt_status s = TT_OK;
    for (int64_t i = 0; i < images && !s; i += IMAGES) {
        room m = {.images = images - i < IMAGES ? images - i : IMAGES, .length = length};
        s = some(r, &m, score + i, planes + i * pixels, id, vision ? vision + i * seen : NULL,
                 first ? first + i * r->text.width : NULL, e);
    }
    return s;
}
