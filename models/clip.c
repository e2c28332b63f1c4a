/* clip.c - see clip.h. The vision tower reads patches behind a class token, the text tower causally
 * up to the end token; each row that is read is normalised and projected without bias. */
#include "models/clip.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/nn/patches.h"

/* One tower. */
typedef struct {
    tt_vit vit;
    int64_t layers;
    tt_vit_block *block;
    tt_vit_norm last;
    tt_matrix *projection;
} tower;

struct tt_clip {
    tt_stream *stream;
    tt_weights *weights;
    tt_clip_info info;
    tower image, text;
    tt_patches patches;
    tt_vit_norm first;  /* before the image tower's blocks */
    tt_matrix *table;
    float *text_place;  /* host: context x width */
};

/* --- opening --- */

static tt_status open_tower(tower *t, tt_clip *c, const tt_bind *bind, tt_config *config,
                            const char *prefix, tt_err *e)
{
    static const tt_vit_names names = {
        .norm1 = "layer_norm1", .norm2 = "layer_norm2", .q = "self_attn.q_proj",
        .k = "self_attn.k_proj", .v = "self_attn.v_proj", .out = "self_attn.out_proj",
        .fc1 = "mlp.fc1", .fc2 = "mlp.fc2"};
    const char *act = tt_config_text(config, "hidden_act", "quick_gelu");
    t->vit = (tt_vit){.stream = c->stream,
                      .width = tt_config_need_int(config, "hidden_size", 1, 1 << 16),
                      .heads = tt_config_need_int(config, "num_attention_heads", 1, 1 << 12),
                      .ff = tt_config_need_int(config, "intermediate_size", 1, 1 << 18),
                      .eps = (float)tt_config_float(config, "layer_norm_eps", 1e-5, 0, 1),
                      .act = strcmp(act, "gelu") ? TT_VIT_QUICK_GELU : TT_VIT_GELU_ERF,
                      .compute = bind->compute};
    t->vit.type = c->stream->op.act_type ? c->stream->op.act_type(c->stream, bind->compute)
                                         : TT_F32;
    t->layers = tt_config_need_int(config, "num_hidden_layers", 1, 4096);
    tt_status s = tt_config_status(config, e);
    if (!s && strcmp(act, "gelu") && strcmp(act, "quick_gelu"))
        s = tt_fail(e, TT_EUNSUP, "config key 'hidden_act' is '%.40s'; quick_gelu and gelu are "
                    "supported", act);
    if (!s && t->vit.width % (2 * t->vit.heads))
        s = tt_fail(e, TT_EFORMAT, "config key 'num_attention_heads': %lld heads of a width of "
                    "%lld", (long long)t->vit.heads, (long long)t->vit.width);
    if (!s && !(t->block = calloc((size_t)t->layers, sizeof *t->block)))
        s = tt_fail(e, TT_ENOMEM, "no memory for %lld layers", (long long)t->layers);
    for (int64_t i = 0; i < t->layers && !s; i++) {
        char at[96];
        snprintf(at, sizeof at, "%s.encoder.layers.%lld.", prefix, (long long)i);
        s = tt_vit_bind(&t->block[i], &t->vit, bind, at, &names, e);
    }
    return s;
}

static tt_status bind_one(const tt_bind *b, tt_matrix **out, const char *name, int64_t n, int64_t k,
                          unsigned flags, tt_err *e)
{
    tt_bind_part part = {name, n, NULL};
    return tt_bind_matrix(b, out, &part, 1, k, flags, e);
}

static tt_status open_image(tt_clip *c, const tt_bind *bind, tt_config *config, tt_err *e)
{
    static const tt_patch_names names = {
        .kernel = "vision_model.embeddings.patch_embedding.weight",
        .class_token = "vision_model.embeddings.class_embedding",
        .place = "vision_model.embeddings.position_embedding.weight"};
    tower *t = &c->image;
    c->info.side = c->patches.side = (int32_t)tt_config_need_int(config, "image_size", 1, 1 << 12);
    c->patches.patch = (int32_t)tt_config_need_int(config, "patch_size", 1, 1 << 12);
    if (tt_config_int(config, "num_channels", 3, 1, 64) != 3)
        return tt_fail(e, TT_EUNSUP, "config key 'num_channels': only 3 are supported");
    tt_status s = open_tower(t, c, bind, config, "vision_model", e);
    if (!s)
        s = tt_patches_bind(&c->patches, &t->vit, bind, &names, e);
    if (!s)
        s = tt_vit_bind_norm(&c->first, bind, "vision_model.pre_layrnorm", t->vit.width, e);
    if (!s)
        s = tt_vit_bind_norm(&t->last, bind, "vision_model.post_layernorm", t->vit.width, e);
    return s ? s : bind_one(bind, &t->projection, "visual_projection.weight", c->info.projection,
                            t->vit.width, TT_MATRIX_LINEAR, e);
}

static tt_status open_text(tt_clip *c, const tt_bind *bind, tt_config *config, tt_err *e)
{
    tower *t = &c->text;
    tt_status s = open_tower(t, c, bind, config, "text_model", e);
    c->info.context = (int32_t)tt_config_int(config, "max_position_embeddings", 77, 2, 1 << 14);
    c->info.vocab = (int32_t)tt_config_int(config, "vocab_size", 49408, 3, 1 << 24);
    if (!s)
        s = tt_config_status(config, e);
    if (s)
        return s;
    int64_t d = t->vit.width;
    c->info.end_id = c->info.vocab - 1; /* the largest id; configs that say 2 mean this one, too */
    c->text_place = malloc((size_t)(c->info.context * d) * sizeof *c->text_place);
    if (!c->text_place)
        return tt_fail(e, TT_ENOMEM, "no memory for %d places", c->info.context);
    s = tt_bind_host(c->weights, c->text_place, "text_model.embeddings.position_embedding.weight",
                     c->info.context * d, e);
    if (!s)
        s = bind_one(bind, &c->table, "text_model.embeddings.token_embedding.weight",
                     c->info.vocab, d, TT_MATRIX_TABLE, e);
    if (!s)
        s = tt_vit_bind_norm(&t->last, bind, "text_model.final_layer_norm", d, e);
    return s ? s : bind_one(bind, &t->projection, "text_projection.weight", c->info.projection, d,
                            TT_MATRIX_LINEAR, e);
}

/* Pixel statistics; a folder without the file has OpenAI's. */
static tt_status read_pixels(tt_clip *c, const char *folder, tt_err *e)
{
    static const float mean[] = {0.48145466f, 0.4578275f, 0.40821073f};
    static const float deviation[] = {0.26862954f, 0.26130258f, 0.27577711f};
    tt_config *p = NULL;
    tt_err none = {0};
    tt_status s = tt_config_open_file(&p, folder, "preprocessor_config.json", &none);
    if (s && s != TT_EIO)
        return tt_fail(e, s, "%s", none.text);
    for (int i = 0; i < 3; i++) {
        c->info.mean[i] = p ? (float)tt_config_float_at(p, "image_mean", i, mean[i], 0, 1)
                            : mean[i];
        c->info.deviation[i] =
            p ? (float)tt_config_float_at(p, "image_std", i, deviation[i], 1e-6, 100)
              : deviation[i];
    }
    s = p ? tt_config_status(p, e) : TT_OK;
    tt_config_close(p);
    return s;
}

static tt_status open_towers(tt_clip *c, tt_config *config, tt_weights_mode mode, tt_err *e)
{
    tt_config *vision = NULL, *text = NULL;
    tt_bind bind = {.stream = c->stream, .weights = c->weights};
    tt_status s = tt_bind_choose(&bind.compute, c->stream, c->weights,
                                 "text_projection.weight", mode, e);
    c->info.projection = tt_config_need_int(config, "projection_dim", 1, 1 << 16);
    if (!s)
        s = tt_config_status(config, e);
    if (!s)
        s = tt_config_member(&vision, config, "vision_config", e);
    if (!s)
        s = tt_config_member(&text, config, "text_config", e);
    if (!s)
        s = open_image(c, &bind, vision, e);
    if (!s)
        s = open_text(c, &bind, text, e);
    float scale = 0;
    if (!s)
        s = tt_bind_host(c->weights, &scale, "logit_scale", 1, e);
    c->info.logit_scale = expf(scale);
    c->info.parameters = tt_weights_elements(c->weights);
    tt_config_close(vision);
    tt_config_close(text);
    return s;
}

tt_status tt_clip_open(tt_clip **out, tt_stream *stream, const char *folder, tt_weights_mode mode,
                       tt_err *e)
{
    *out = NULL;
    tt_clip *c = calloc(1, sizeof *c);
    tt_config *config = NULL;
    if (!c)
        return tt_fail(e, TT_ENOMEM, "no memory for a CLIP model");
    c->stream = stream;
    tt_status s = tt_config_open(&config, folder, e);
    if (!s)
        s = tt_weights_open(&c->weights, folder, e);
    if (!s)
        s = read_pixels(c, folder, e);
    if (!s)
        s = open_towers(c, config, mode, e);
    tt_config_close(config);
    if (s) {
        tt_clip_close(c);
        return tt_context(e, s, "CLIP model in '%.100s'", folder);
    }
    *out = c;
    return TT_OK;
}

static void close_tower(tower *t, tt_stream *s)
{
    for (int64_t i = 0; t->block && i < t->layers; i++)
        tt_vit_block_close(&t->block[i], s);
    free(t->block);
    tt_vit_norm_close(&t->last, s);
    s->op.matrix_close(s, t->projection);
    tt_vit_close(&t->vit);
}

void tt_clip_close(tt_clip *c)
{
    if (!c)
        return;
    close_tower(&c->image, c->stream);
    close_tower(&c->text, c->stream);
    tt_patches_close(&c->patches, c->stream);
    c->stream->op.matrix_close(c->stream, c->table);
    tt_vit_norm_close(&c->first, c->stream);
    free(c->text_place);
    tt_weights_close(c->weights);
    free(c);
}

const tt_clip_info *tt_clip_about(const tt_clip *c)
{
    return &c->info;
}

/* --- running --- */

/* The blocks over `spans` runs of rows, then the rows in `read` normalised, projected and brought
 * to the host. x: rows x width. */
static tt_status run_tower(tower *t, tt_act *x, int64_t rows, const tt_vit_span *span,
                           int64_t spans, const int32_t *read, int64_t n, float *vector,
                           int64_t projection, float *hidden, tt_err *e)
{
    tt_stream *s = t->vit.stream;
    int64_t d = t->vit.width;
    void *index = NULL, *row = NULL, *out = NULL;
    size_t size = tt_dtype_size(t->vit.type);
    tt_status st = TT_OK;
    for (int64_t i = 0; i < t->layers && !st; i++) {
        st = tt_vit_run(&t->vit, &t->block[i], x, rows, span, spans, NULL, NULL, e);
        if (!st && hidden)
            st = tt_vit_get(&t->vit, hidden + i * rows * d, x, rows * d, e);
    }
    if (!st)
        st = s->op.alloc(s, &index, (size_t)n * sizeof *read, e);
    if (!st)
        st = s->op.alloc(s, &row, (size_t)(n * d) * size, e);
    if (!st)
        st = s->op.alloc(s, &out, (size_t)(n * projection) * size, e);
    if (!st)
        st = s->op.upload(s, index, read, (size_t)n * sizeof *read, e);
    if (!st)
        st = s->op.gather(s, row, d, x, d, index, n, d, e);
    if (!st)
        st = s->op.layernorm(s, row, d, row, d, t->last.w, t->last.b, n, d, t->vit.eps, e);
    if (!st)
        st = s->op.linear(s, out, projection, row, d, n, t->projection, false, e);
    if (!st)
        st = tt_vit_get(&t->vit, vector, out, n * projection, e);
    s->op.release(s, index);
    s->op.release(s, row);
    s->op.release(s, out);
    return st;
}

/* How many things run at once: working memory stays bounded. */
enum { IMAGES = 32, TEXTS = 64 };

static tt_status some_images(tt_clip *c, float *vector, const float *planes, int64_t n,
                             float *hidden, tt_err *e)
{
    tower *t = &c->image;
    int64_t d = t->vit.width, one = c->patches.rows, rows = n * one;
    tt_vit_span span[IMAGES];
    int32_t read[IMAGES];
    tt_act *x = NULL;
    for (int64_t i = 0; i < n; i++) {
        span[i] = (tt_vit_span){.row = i * one, .rows = one, .see = TT_SEE_ALL};
        read[i] = (int32_t)(i * one);
    }
    tt_status st = tt_patches_embed(&c->patches, &t->vit, &x, planes, n, e);
    if (!st)
        st = c->stream->op.layernorm(c->stream, x, d, x, d, c->first.w, c->first.b, rows, d,
                                     t->vit.eps, e);
    if (!st)
        st = run_tower(t, x, rows, span, n, read, n, vector, c->info.projection, hidden, e);
    c->stream->op.release(c->stream, x);
    return st;
}

tt_status tt_clip_images(tt_clip *c, float *vector, const float *planes, int64_t images,
                         float *hidden, tt_err *e)
{
    int64_t side = c->info.side;
    if (hidden && images > IMAGES)
        return tt_fail(e, TT_EINVAL, "hidden states of %lld pictures", (long long)images);
    tt_status s = TT_OK;
    for (int64_t i = 0; i < images && !s; i += IMAGES)
        s = some_images(c, vector + i * c->info.projection, planes + i * 3 * side * side,
                        images - i < IMAGES ? images - i : IMAGES, hidden, e);
    return s;
}

/* The place of the first of the largest ids. */
static int32_t end_of(const int32_t *id, int32_t n)
{
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++)
        if (id[i] > id[best])
            best = i;
    return best;
}

static tt_status some_texts(tt_clip *c, float *vector, const int32_t *id, const int32_t *length,
                            int64_t n, float *hidden, tt_err *e)
{
    tt_stream *s = c->stream;
    tower *t = &c->text;
    int64_t d = t->vit.width, rows = 0;
    tt_vit_span span[TEXTS];
    int32_t read[TEXTS];
    for (int64_t i = 0; i < n; i++) {
        span[i] = (tt_vit_span){.row = rows, .rows = length[i], .see = TT_SEE_CAUSAL};
        read[i] = (int32_t)rows + end_of(id + rows, length[i]);
        rows += length[i];
    }
    float *host = malloc((size_t)(rows * d) * sizeof *host);
    tt_act *place = NULL;
    void *x = NULL, *ids = NULL;
    s->act = t->vit.type;
    tt_status st = host ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for %lld texts", (long long)n);
    for (int64_t i = 0; i < n && !st; i++)
        memcpy(host + span[i].row * d, c->text_place, (size_t)(length[i] * d) * sizeof *host);
    if (!st)
        st = tt_vit_upload(&t->vit, &place, host, rows * d, e);
    if (!st)
        st = s->op.alloc(s, &ids, (size_t)rows * sizeof *id, e);
    if (!st)
        st = s->op.upload(s, ids, id, (size_t)rows * sizeof *id, e);
    if (!st)
        st = s->op.alloc(s, &x, (size_t)(rows * d) * tt_dtype_size(t->vit.type), e);
    if (!st)
        st = s->op.embed(s, x, d, c->table, ids, rows, e);
    if (!st)
        st = s->op.add(s, x, d, place, d, rows, d, e);
    if (!st)
        st = run_tower(t, x, rows, span, n, read, n, vector, c->info.projection, hidden, e);
    s->op.release(s, x);
    s->op.release(s, ids);
    s->op.release(s, place);
    free(host);
    return st;
}

static tt_status check_texts(const tt_clip *c, const int32_t *id, const int32_t *length,
                             int64_t texts, tt_err *e)
{
    for (int64_t i = 0, at = 0; i < texts; at += length[i++]) {
        if (length[i] < 1 || length[i] > c->info.context)
            return tt_fail(e, TT_EINVAL, "text %lld has %d ids; 1 to %d are possible",
                           (long long)i, length[i], c->info.context);
        bool ends = false;
        for (int32_t j = 0; j < length[i]; j++) {
            ends |= id[at + j] == c->info.end_id;
            if (id[at + j] < 0 || id[at + j] >= c->info.vocab)
                return tt_fail(e, TT_EINVAL, "text %lld: id %d is outside the vocabulary of %d",
                               (long long)i, id[at + j], c->info.vocab);
        }
        if (!ends)
            return tt_fail(e, TT_EINVAL, "text %lld has no end token", (long long)i);
    }
    return TT_OK;
}

tt_status tt_clip_texts(tt_clip *c, float *vector, const int32_t *id, const int32_t *length,
                        int64_t texts, float *hidden, tt_err *e)
{
    tt_status s = check_texts(c, id, length, texts, e);
    if (!s && hidden && texts > TEXTS)
        s = tt_fail(e, TT_EINVAL, "hidden states of %lld texts", (long long)texts);
    for (int64_t i = 0; i < texts && !s; i += TEXTS) {
        int64_t n = texts - i < TEXTS ? texts - i : TEXTS;
        s = some_texts(c, vector + i * c->info.projection, id, length + i, n, hidden, e);
        for (int64_t j = 0; j < n; j++)
            id += length[i + j];
    }
    return s;
}

int32_t tt_clip_cut(const tt_clip_info *about, int32_t *id, int64_t n)
{
    if (n <= about->context)
        return (int32_t)n;
    id[about->context - 1] = about->end_id;
    return about->context;
}

float tt_clip_score(const float *image, const float *text, int64_t n)
{
    double dot = 0, a = 0, b = 0;
    for (int64_t i = 0; i < n; i++) {
        dot += (double)image[i] * text[i];
        a += (double)image[i] * image[i];
        b += (double)text[i] * text[i];
    }
    double cosine = a > 0 && b > 0 ? dot / sqrt(a * b) : 0;
    return (float)(2.5 * fmax(cosine, 0));
}
