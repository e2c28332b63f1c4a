/* flexar.c - FlexAR (search-over-tokens, 2026): text to ordered image tokens, one by one. A causal
 * transformer with affine LayerNorms and learned places; between its attention and its MLP every
 * block attends to the text, which a T5 encoder and a small MLP have read.
 *
 *   x[p] = (p ? table[t_{p-1}] : start) + place[p];  row p predicts token p
 *   x += self(norm_1 x);  x += cross(norm_2 x, text);  x += mlp(norm_3 x) */
#include <stdlib.h>
#include <string.h>

#include "models/nn/ordered.h"
#include "models/nn/trunk_run.h"

#define AR    "models.ar_image_model."
#define BLOCK AR "trunk.blocks.%lld."

/* The MLP that text goes through. */
typedef struct {
    tt_matrix *up, *down;
} projection;

static const tt_trunk_names names = {
    .prefix = BLOCK,
    .norm1 = "norm_1.weight",
    .norm1_bias = "norm_1.bias",
    .qkv = "self_attn.qkv.weight",
    .out = "self_attn.proj.weight",
    .cross_norm = "norm_2.weight",
    .cross_norm_bias = "norm_2.bias",
    .cross_q = "cross_attn.Wq.weight",
    .cross_k = "cross_attn.Wk.weight",
    .cross_v = "cross_attn.Wv.weight",
    .cross_out = "cross_attn.proj.weight",
    .norm2 = "norm_3.weight",
    .norm2_bias = "norm_3.bias",
    .gate = "mlp.fc1.weight",
    .up = "mlp.fc3.weight",
    .down = "mlp.fc2.weight",
    .table = AR "preprocessor.embedding.weight",
    .more_tables = {AR "preprocessor.sos_token_embed"},
    .place_table = AR "preprocessor.positional_embedding",
    .norm = AR "trunk.post_trunk_norm.weight",
    .norm_bias = AR "trunk.post_trunk_norm.bias",
    .head = AR "head.linear.weight",
};

/* Variants of the released classes that no released model is known to use. */
static tt_status check_variant(const tt_weights *w, tt_err *e)
{
    static const char *const unknown[] = {
        AR "head.norm.weight", AR "trunk.blocks.0.self_attn.q_norm.weight",
        AR "trunk.blocks.0.cross_attn.q_norm.weight", AR "trunk.blocks.0.self_attn.qkv.bias",
        AR "trunk.blocks.0.mlp.fc1.bias", AR "preprocessor.cls_embedding.weight"};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++)
        if (tt_weights_has(w, unknown[i]))
            return tt_fail(e, TT_EUNSUP, "tensor '%s' belongs to a variant that is not supported",
                           unknown[i]);
    if (!tt_weights_has(w, AR "trunk.blocks.0.mlp.fc3.weight"))
        return tt_fail(e, TT_EUNSUP, "tensor '" AR "trunk.blocks.0.mlp.fc3.weight' is missing; "
                       "only gated MLPs are supported");
    return TT_OK;
}

/* The chain of objects that leads to the network's settings. */
typedef struct {
    tt_config *level[4], *front, *trunk, *attention;
} tree;

static void tree_close(tree *t)
{
    tt_config *all[] = {t->level[0], t->level[1], t->level[2], t->level[3], t->front, t->trunk,
                        t->attention};
    for (int i = 0; i < 7; i++)
        tt_config_close(all[i]);
}

static tt_status tree_open(tree *t, tt_config *c, tt_err *e)
{
    static const char *const path[] = {"model", "meta_model", "models", "ar_image_model"};
    *t = (tree){0};
    tt_status s = TT_OK;
    for (int i = 0; i < 4 && !s; i++)
        s = tt_config_member(&t->level[i], i ? t->level[i - 1] : c, path[i], e);
    if (!s)
        s = tt_config_member(&t->front, t->level[3], "preprocessor", e);
    if (!s)
        s = tt_config_member(&t->trunk, t->level[3], "trunk", e);
    return s ? s : tt_config_member(&t->attention, t->trunk, "self_attn_target", e);
}

static tt_status read_tree(tt_ordered *g, tt_trunk *t, tree *c, const tt_weights *w, tt_err *e)
{
    tt_tensor ff;
    tt_layout *l = &g->base.info.layout;
    t->width = tt_config_need_int(c->trunk, "embed_dim", 2, 1 << 16);
    t->layers = tt_config_need_int(c->trunk, "num_blocks", 1, 4096);
    t->heads = t->kv_heads = tt_config_need_int(c->attention, "num_heads", 1, 4096);
    l->codes = (int32_t)tt_config_need_int(c->front, "codebook_size", 2, 1 << 24);
    int64_t high = tt_config_int_at(c->front, "token_grid_size", 0, 256, 1, 1 << 14);
    int64_t wide = tt_config_int_at(c->front, "token_grid_size", 1, 1, 1, 1 << 14);
    tt_status s = tt_config_status(c->trunk, e);
    if (!s)
        s = tt_config_status(c->attention, e);
    if (!s)
        s = tt_config_status(c->front, e);
    if (!s && (t->width % t->heads || high * wide > 1 << 14))
        s = tt_fail(e, TT_EFORMAT, "config key 'num_heads': %lld heads of %lld, %lld tokens",
                    (long long)t->heads, (long long)t->width, (long long)(high * wide));
    if (!s)
        s = tt_weights_get(w, AR "trunk.blocks.0.mlp.fc1.weight", 2, (int64_t[]){-1, t->width},
                           &ff, e);
    if (s)
        return s;
    l->tokens = (int32_t)(high * wide);
    l->kind = wide > 1 ? TT_LAYOUT_GRID : TT_LAYOUT_SEQUENCE;
    l->rows = wide > 1 ? (int32_t)high : 0;
    l->columns = wide > 1 ? (int32_t)wide : 0;
    l->levels = 1;
    l->level[0] = l->tokens;
    t->ff = ff.dim[0];
    t->vocab = l->codes;
    t->places = l->tokens;
    return TT_OK;
}

/* What opening needs besides the generator. */
typedef struct {
    tt_ordered *g;
    const tt_weights *weights;
} opening;

static tt_status read(tt_trunk_model *m, const tt_weights *w, tt_config *c, const void *arg,
                      tt_trunk_plan *plan, tt_err *e)
{
    tt_ordered *g = ((const opening *)arg)->g;
    tt_trunk *t = &m->trunk;
    tree all;
    tt_status s = check_variant(w, e);
    if (!s)
        s = tree_open(&all, c, e);
    if (!s)
        s = read_tree(g, t, &all, w, e);
    tree_close(&all);
    if (s)
        return s;
    plan->names = names;
    if (!tt_weights_has(w, names.norm))
        plan->names.norm = plan->names.norm_bias = NULL;
    plan->rotary.theta = 10000;
    t->head_dim = plan->rotary.width = t->width / t->heads;
    t->eps = 1e-6f;
    t->more_rows[0] = 1;
    t->seen_width = t->width;
    m->base.info.context = g->base.info.layout.tokens;
    m->base.info.mask_id = m->base.info.eos_id = m->base.info.eot_id = -1;
    return tt_trunk_check_shape(m, "num_heads", e);
}

static const tt_model_def body = {
    .family = "FlexAR",
    .architectures = (const char *const[]){"FlexAR", NULL},
    .kinds = TT_KIND_CAUSAL,
    .close = tt_trunk_model_close,
    .run = tt_trunk_model_run,
    .pass_bytes = tt_trunk_model_pass_bytes,
};

/* --- text --- */

static tt_status one(tt_stream *s, tt_matrix **out, const tt_weights *w, const char *name,
                     int64_t n, int64_t k, tt_compute compute, tt_err *e)
{
    tt_weight part;
    tt_status st = tt_weights_matrix(w, name, n, k, &part, e);
    return st ? st : s->op.matrix_open(s, out, &part, 1, NULL, compute, TT_MATRIX_LINEAR, e);
}

static tt_status open_text(tt_ordered *g, const tt_weights *w, tt_err *e)
{
    static const char *const up = "models.text_encoder.mlp.fc1.weight";
    static const char *const down = "models.text_encoder.mlp.fc2.weight";
    tt_stream *s = g->base.stream;
    const tt_trunk *t = &((tt_trunk_model *)g->body)->trunk;
    tt_tensor shape;
    projection *p = calloc(1, sizeof *p);
    g->own = p;
    tt_status st = p ? tt_weights_get(w, up, 2, (int64_t[]){-1, -1}, &shape, e)
                     : tt_fail(e, TT_ENOMEM, "no memory for a text projection");
    if (st)
        return st;
    g->base.info.text_width = shape.dim[1];
    st = one(s, &p->up, w, up, shape.dim[0], shape.dim[1], t->compute, e);
    return st ? st : one(s, &p->down, w, down, t->width, shape.dim[0], t->compute, e);
}

/* down(gelu(up text)) */
static tt_status project(tt_ordered *g, float *out, const float *text, int64_t rows, tt_err *e)
{
    tt_stream *s = g->base.stream;
    tt_trunk *t = &((tt_trunk_model *)g->body)->trunk;
    const projection *p = g->own;
    int64_t in = g->base.info.text_width, hidden;
    void *x = NULL, *h = NULL, *y = NULL;
    s->op.matrix_size(p->up, &hidden, NULL, NULL);
    size_t size = tt_dtype_size(t->act);
    s->act = t->act;
    tt_status st = s->op.alloc(s, &h, (size_t)(rows * hidden) * size, e);
    if (!st)
        st = s->op.alloc(s, &y, (size_t)(rows * t->width) * size, e);
    if (!st)
        st = tt_trunk_upload(t, &x, text, rows * in, e);
    if (!st)
        st = s->op.linear(s, h, hidden, x, in, rows, p->up, false, e);
    if (!st)
        st = s->op.gelu(s, h, hidden, h, hidden, rows, hidden, e);
    if (!st)
        st = s->op.linear(s, y, t->width, h, hidden, rows, p->down, false, e);
    if (!st)
        st = tt_trunk_download(t, y, rows, out, e);
    s->op.release(s, x);
    s->op.release(s, h);
    s->op.release(s, y);
    return st;
}

static void flexar_close(tt_generator *base)
{
    tt_ordered *g = (tt_ordered *)base;
    projection *p = g->own;
    if (p) {
        base->stream->op.matrix_close(base->stream, p->up);
        base->stream->op.matrix_close(base->stream, p->down);
    }
    free(p);
    tt_ordered_close(base);
}

extern const tt_generator_def tt_generator_flexar;

static tt_status flexar_open(tt_generator **out, tt_stream *s, const tt_weights *w, tt_config *c,
                             tt_weights_mode mode, tt_err *e)
{
    *out = NULL;
    tt_ordered *g = calloc(1, sizeof *g);
    if (!g)
        return tt_fail(e, TT_ENOMEM, "no memory for a generator");
    g->base.def = &tt_generator_flexar;
    g->base.stream = s;
    g->text = true;
    g->project = project;
    tt_trunk_loading loading = {.mode = mode};
    opening o = {g, w};
    tt_status st = tt_trunk_model_open(&g->body, &body, s, w, c, read, &o, &loading, e);
    if (!st && !s->op.gelu)
        st = tt_fail(e, TT_EUNSUP, "device '%s' has no operation gelu", s->op.name);
    if (!st)
        st = open_text(g, w, e);
    if (st) {
        flexar_close(&g->base);
        return st;
    }
    g->base.info.family = g->base.info.architecture = "FlexAR";
    g->base.info.kind = TT_GENERATES_NEXT;
    g->base.info.mask_id = g->base.info.layout.codes;
    tt_ordered_info(g);
    *out = &g->base;
    return TT_OK;
}

static const char *const architectures[] = {"FlexAR", NULL};

const tt_generator_def tt_generator_flexar = {
    .family = "FlexAR",
    .summary = "text to ordered image tokens, one by one",
    .source = "released FlexAR and GridAR checkpoints of search-over-tokens (2026)",
    .architectures = architectures,
    .kind = TT_GENERATES_NEXT,
    .open = flexar_open,
    .close = flexar_close,
    .begin = tt_ordered_begin,
    .step = tt_ordered_step,
    .fork = tt_ordered_fork,
    .drop = tt_ordered_drop,
    .step_bytes = tt_ordered_step_bytes,
    .work = tt_ordered_work,
    .state_size = sizeof(tt_ordered_state),
};
