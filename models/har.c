/* har.c - HAR, the hierarchical generator of ResTok (arXiv 2601.03955), and the plain next-token
 * generator it grew from, LlamaGen (arXiv 2406.06525). Both are causal transformers with a class
 * in front; position p predicts token p.
 *
 * LlamaGen reads class, t_0, ..., t_{L-2}. HAR reads, with A = ar_token_num,
 *   p = 0            class
 *   p = 1 .. A-1     t_0 .. t_{A-2}, one by one
 *   p = A .. 2A-1    t_{A-1}, s_0 .. s_{A-2}                      (the first level)
 *   p = n .. 2n-1    t_{n/2} .. t_{n-1}, s_{n/2-1} .. s_{n-2}     (n = 2A, 4A, ... < L)
 * where s are special vectors: a level is predicted at once, from the level before and as many
 * fresh places. Positions of a level see each other and all before, so that with a store of keys
 * and values a call of one level needs no mask. */
#include <stdlib.h>
#include <string.h>

#include "models/nn/bind.h"
#include "models/nn/ordered.h"

static const char *const no_effect[] = {
    "initializer_range", "token_dropout_p", "attn_dropout_p", "resid_dropout_p", "ffn_dropout_p",
    "drop_path_rate", "caption_dim", "class_dropout_prob", "max_batch_size", "max_seq_len",
    "vq_dim", "architectures", "codec", "quantization", "labels", NULL};

static const char *const label_table = "cls_embedding.embedding_table.weight";

static const tt_trunk_names names = {
    .prefix = "layers.%lld.",
    .norm1 = "attention_norm.weight",
    .qkv = "attention.wqkv.weight",
    .out = "attention.wo.weight",
    .norm2 = "ffn_norm.weight",
    .gate = "feed_forward.w1.weight",
    .up = "feed_forward.w3.weight",
    .down = "feed_forward.w2.weight",
    .table = "tok_embeddings.weight",
    .norm = "norm.weight",
    .head = "output.weight",
};

static int64_t hidden_units(tt_config *c, int64_t width)
{
    int64_t ff = 2 * 4 * width / 3, step = tt_config_int(c, "multiple_of", 256, 1, 1 << 16);
    double more = tt_config_float(c, "ffn_dim_multiplier", 1, 1e-3, 1e3);
    if (tt_config_has(c, "ffn_dim_multiplier"))
        ff = (int64_t)(more * (double)ff);
    return (ff + step - 1) / step * step;
}

static bool power_of_two(int32_t n)
{
    return n > 0 && !(n & (n - 1));
}

/* What the trunk does not need to know. */
static tt_status read_levels(tt_ordered *g, tt_config *c, tt_err *e)
{
    tt_generator_info *info = &g->base.info;
    tt_layout *l = &info->layout;
    l->tokens = (int32_t)tt_config_need_int(c, "block_size", 4, 1 << 14);
    l->codes = (int32_t)tt_config_need_int(c, "vocab_size", 2, 1 << 24);
    g->classes = (int32_t)tt_config_int(c, "num_classes", 1000, 1, 1 << 24);
    g->ahead = (int32_t)tt_config_int(c, "ar_token_num", 0, 2, 1 << 13);
    g->specials = (int32_t)tt_config_int(c, "spe_token_num", 0, 1, 1 << 14);
    tt_status s = tt_config_status(c, e);
    if (s)
        return s;
    if (!g->ahead != !g->specials)
        return tt_fail(e, TT_EFORMAT, "config keys 'ar_token_num' and 'spe_token_num' are there "
                       "together or not at all");
    if (g->ahead && (!power_of_two(g->ahead) || !power_of_two(l->tokens) ||
                     l->tokens < 2 * g->ahead || g->specials < l->tokens / 2 - 1))
        return tt_fail(e, TT_EFORMAT, "config key 'ar_token_num': %d does not lead to %d tokens "
                       "with %d special vectors", g->ahead, l->tokens, g->specials);
    if (g->ahead)
        for (int32_t p = 0; p < l->tokens; p = tt_ordered_level_end(g, p))
            l->level[l->levels++] = tt_ordered_level_end(g, p) - p;
    l->kind = g->ahead ? TT_LAYOUT_LEVELS : TT_LAYOUT_SEQUENCE;
    if (!g->ahead)
        l->level[l->levels++] = l->tokens;
    info->kind = g->ahead ? TT_GENERATES_LEVELS : TT_GENERATES_NEXT;
    info->mask_id = l->codes;
    return tt_generator_groups(info, c, g->classes, e);
}

static tt_status read(tt_trunk_model *m, const tt_weights *w, tt_config *c, const void *arg,
                      tt_trunk_plan *plan, tt_err *e)
{
    (void)w;
    const tt_ordered *g = arg;
    tt_trunk *t = &m->trunk;
    tt_model_info *info = &m->base.info;
    t->width = tt_config_need_int(c, "dim", 2, 1 << 16);
    t->layers = tt_config_need_int(c, "n_layer", 1, 4096);
    t->heads = tt_config_need_int(c, "n_head", 1, 4096);
    t->kv_heads = tt_config_int(c, "n_kv_head", t->heads, 1, 4096);
    t->eps = (float)tt_config_float(c, "norm_eps", 1e-5, 0, 1);
    t->ff = hidden_units(c, t->width);
    t->vocab = g->base.info.layout.codes;
    plan->names = names;
    plan->rotary.theta = tt_config_float(c, "rope_base", 10000, 1, 1e12);
    plan->rotary.pairs = true;
    if (g->specials) {
        plan->names.more_tables[0] = "spe_tok_embeddings.special_embeddings.weight";
        t->more_rows[0] = g->specials;
    }
    plan->names.more_tables[1] = label_table;
    t->more_rows[1] = g->classes + 1;
    info->context = g->base.info.layout.tokens;
    info->mask_id = info->eos_id = info->eot_id = -1;
    tt_config_ignore(c, no_effect);
    tt_status s = tt_trunk_must_be(c, "model_type", "c2i", e);
    if (!s && tt_config_int(c, "cls_token_num", 1, 1, 1 << 16) != 1)
        s = tt_fail(e, TT_EUNSUP, "config key 'cls_token_num': only one class token is supported");
    if (!s)
        s = tt_config_status(c, e);
    if (!s && t->width % t->heads)
        s = tt_fail(e, TT_EFORMAT, "config key 'n_head': %lld does not divide dim %lld",
                    (long long)t->heads, (long long)t->width);
    if (!s && t->kv_heads != t->heads)
        s = tt_fail(e, TT_EUNSUP, "config key 'n_kv_head': the released code cannot run %lld of "
                    "%lld heads", (long long)t->kv_heads, (long long)t->heads);
    t->head_dim = plan->rotary.width = t->width / t->heads;
    return s ? s : tt_trunk_check_shape(m, "n_kv_head", e);
}

static const tt_model_def body = {
    .family = "HAR",
    .architectures = (const char *const[]){"HAR", NULL},
    .kinds = TT_KIND_CAUSAL | TT_KIND_MEMO,
    .close = tt_trunk_model_close,
    .run = tt_trunk_model_run,
    .pass_bytes = tt_trunk_model_pass_bytes,
};

extern const tt_generator_def tt_generator_har;

/* Rows of labels on the host, where an image may have several. */
static tt_status bind_labels(tt_ordered *g, const tt_weights *w, tt_err *e)
{
    int64_t n = (int64_t)g->classes * g->body->info.width;
    g->label_row = malloc((size_t)(n + g->body->info.width) * sizeof *g->label_row);
    return g->label_row ? tt_bind_host(w, g->label_row, label_table, n + g->body->info.width, e)
                        : tt_fail(e, TT_ENOMEM, "no memory for %d labels", g->classes);
}

static tt_status har_open(tt_generator **out, tt_stream *s, const tt_weights *w, tt_config *c,
                          tt_weights_mode mode, tt_err *e)
{
    *out = NULL;
    tt_ordered *g = calloc(1, sizeof *g);
    if (!g)
        return tt_fail(e, TT_ENOMEM, "no memory for a generator");
    g->base.def = &tt_generator_har;
    g->base.stream = s;
    tt_trunk_loading loading = {.mode = mode};
    tt_status st = read_levels(g, c, e);
    if (!st)
        st = tt_trunk_model_open(&g->body, &body, s, w, c, read, g, &loading, e);
    if (!st)
        tt_ordered_info(g);
    if (!st && g->base.info.groups > 1)
        st = bind_labels(g, w, e);
    if (st) {
        tt_ordered_close(&g->base);
        return st;
    }
    g->base.info.family = g->base.info.architecture = g->ahead ? "HAR" : "LlamaGen";
    *out = &g->base;
    return TT_OK;
}

static const char *const architectures[] = {"HAR", "LlamaGen", "c2i", NULL};

const tt_generator_def tt_generator_har = {
    .family = "HAR",
    .summary = "hierarchical (HAR) and next-token (LlamaGen) generators over ordered image tokens",
    .source = "arXiv 2601.03955, arXiv 2406.06525 and their released code",
    .architectures = architectures,
    .kind = TT_GENERATES_LEVELS,
    .open = har_open,
    .close = tt_ordered_close,
    .begin = tt_ordered_begin,
    .step = tt_ordered_step,
    .fork = tt_ordered_fork,
    .drop = tt_ordered_drop,
    .step_bytes = tt_ordered_step_bytes,
    .work = tt_ordered_work,
    .state_size = sizeof(tt_ordered_state),
};
