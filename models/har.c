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
 * and values a call of one level needs no mask.
 *
 * The body is the text families' trunk. Its table holds the tokens, then the special vectors, then
 * the classes, the last of which is "no class". */
#include <stdlib.h>
#include <string.h>

#include "models/generator.h"
#include "models/kv.h"
#include "models/nn/trunk_model.h"

typedef struct {
    tt_generator base;
    tt_model *body;
    int32_t ahead; /* A; 0: LlamaGen */
    int32_t specials, classes;
} har;

/* Keys and values of one branch of guidance: positions [0, fed) are there. */
typedef struct {
    tt_kv *kv;
    int32_t fed;
} branch;

typedef struct {
    tt_generator_state base;
    int32_t label; /* row of the classes */
    branch branch[2]; /* conditional, unconditional */
} har_state;

/* --- levels --- */

/* The end of the level that position p belongs to. */
static int32_t level_end(const har *g, int32_t p)
{
    if (p < g->ahead || !g->ahead)
        return p + 1;
    int32_t end = 2 * g->ahead;
    while (end <= p)
        end *= 2;
    return end;
}

/* The row of the table that position p reads, given the tokens before its level. */
static int32_t input(const har *g, const har_state *st, int32_t p, bool conditional)
{
    int32_t codes = g->base.info.layout.codes;
    if (p == 0)
        return codes + g->specials + (conditional ? st->label : g->classes);
    if (p < g->ahead || !g->ahead)
        return st->base.id[p - 1];
    int32_t begin = level_end(g, p) / 2, i = p - begin; /* of the level, and p's place in it */
    int32_t before = begin == g->ahead ? 1 : begin / 2; /* tokens of the level before */
    return i < before ? st->base.id[begin - before + i] : codes + i - 1;
}

/* --- opening --- */

static const char *const no_effect[] = {
    "initializer_range", "token_dropout_p", "attn_dropout_p", "resid_dropout_p", "ffn_dropout_p",
    "drop_path_rate", "caption_dim", "class_dropout_prob", "max_batch_size", "max_seq_len",
    "vq_dim", "architectures", "codec", "quantization", "labels", NULL};

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
static tt_status read_levels(har *g, tt_config *c, tt_err *e)
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
        for (int32_t p = 0; p < l->tokens; p = level_end(g, p))
            l->level[l->levels++] = level_end(g, p) - p;
    l->kind = g->ahead ? TT_LAYOUT_LEVELS : TT_LAYOUT_SEQUENCE;
    if (!g->ahead)
        l->level[l->levels++] = l->tokens;
    info->kind = g->ahead ? TT_GENERATES_LEVELS : TT_GENERATES_NEXT;
    info->mask_id = l->codes;
    info->groups = 1;
    info->group[0] = g->classes;
    return TT_OK;
}

static tt_status read(tt_trunk_model *m, const tt_weights *w, tt_config *c, const void *arg,
                      tt_trunk_plan *plan, tt_err *e)
{
    (void)w;
    const har *g = arg;
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
    plan->names.more_tables[1] = "cls_embedding.embedding_table.weight";
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
    .kinds = TT_KIND_CAUSAL,
    .close = tt_trunk_model_close,
    .run = tt_trunk_model_run,
    .pass_bytes = tt_trunk_model_pass_bytes,
};

static void har_close(tt_generator *base)
{
    har *g = (har *)base;
    tt_model_close(g->body);
    free(g);
}

static void fill_info(har *g)
{
    tt_generator_info *info = &g->base.info;
    const tt_model_info *b = &g->body->info;
    info->family = g->ahead ? "HAR" : "LlamaGen";
    info->architecture = info->family;
    info->layers = b->layers;
    info->width = b->width;
    info->heads = b->heads;
    info->head_dim = b->head_dim;
    info->parameters = b->parameters;
    info->weight_bytes = b->weight_bytes;
    info->state_bytes = 2 * b->kv_bytes_per_column * (size_t)info->layout.tokens;
    info->act = b->act;
    info->compute = b->compute;
}

extern const tt_generator_def tt_generator_har;

static tt_status har_open(tt_generator **out, tt_stream *s, const tt_weights *w, tt_config *c,
                          tt_weights_mode mode, tt_err *e)
{
    *out = NULL;
    har *g = calloc(1, sizeof *g);
    if (!g)
        return tt_fail(e, TT_ENOMEM, "no memory for a generator");
    g->base.def = &tt_generator_har;
    g->base.stream = s;
    tt_trunk_loading loading = {.mode = mode};
    tt_status st = read_levels(g, c, e);
    if (!st)
        st = tt_trunk_model_open(&g->body, &body, s, w, c, read, g, &loading, e);
    if (st) {
        har_close(&g->base);
        return st;
    }
    fill_info(g);
    *out = &g->base;
    return TT_OK;
}

/* --- states --- */

static tt_status har_begin(tt_generator *base, tt_generator_state *state, const tt_condition *c,
                           tt_err *e)
{
    har *g = (har *)base;
    har_state *st = (har_state *)state;
    st->label = c->label[0] < 0 ? g->classes : c->label[0];
    int32_t p = 0; /* tokens are known level by level, from the first on */
    while (p < g->base.info.layout.tokens && state->id[p] != g->base.info.mask_id)
        p++;
    if (p < state->known)
        return tt_fail(e, TT_EINVAL, "token %d is hidden, but later ones are given: %s makes them "
                       "in order", p, g->base.info.family);
    int32_t end = 0;
    while (end < p)
        end = level_end(g, end);
    if (end != p)
        return tt_fail(e, TT_EINVAL, "%d tokens are given; a level ends at %d", p, end);
    return tt_kv_open(&st->branch[0].kv, g->body, g->base.info.layout.tokens, e);
}

static void har_drop(tt_generator_state *state)
{
    har_state *st = (har_state *)state;
    tt_kv_close(st->branch[0].kv);
    tt_kv_close(st->branch[1].kv);
}

static tt_status copy_store(har *g, branch *to, const branch *from, tt_err *e)
{
    if (!from->kv)
        return TT_OK;
    tt_status s = tt_kv_open(&to->kv, g->body, g->base.info.layout.tokens, e);
    if (!s)
        s = tt_kv_copy(to->kv, from->kv, from->fed, e);
    to->fed = from->fed;
    return s;
}

static tt_status har_fork(tt_generator_state *to, const tt_generator_state *from, tt_err *e)
{
    har *g = (har *)from->generator;
    har_state *t = (har_state *)to;
    const har_state *f = (const har_state *)from;
    t->label = f->label;
    tt_status s = copy_store(g, &t->branch[0], &f->branch[0], e);
    return s ? s : copy_store(g, &t->branch[1], &f->branch[1], e);
}

/* --- a step --- */

/* Lists of one pass. */
typedef struct {
    int32_t *id, *place;
    tt_pass_seq *seq;
    tt_want *want;
    tt_row_stats *stats;
    float *logits;
    int64_t rows, seqs, wants;
} lists;

static void lists_close(lists *l)
{
    free(l->id);
    free(l->place);
    free(l->seq);
    free(l->want);
    free(l->stats);
    free(l->logits);
}

static tt_status lists_open(lists *l, const har *g, int64_t calls, int64_t wants, bool logits,
                            tt_err *e)
{
    size_t rows = (size_t)calls * 2 * (size_t)g->base.info.layout.tokens;
    *l = (lists){.id = malloc(rows * sizeof *l->id),
                 .place = malloc(rows * sizeof *l->place),
                 .seq = calloc((size_t)calls * 2, sizeof *l->seq),
                 .want = calloc((size_t)wants + 1, sizeof *l->want),
                 .stats = calloc((size_t)wants + 1, sizeof *l->stats)};
    if (logits)
        l->logits = malloc((size_t)(wants * g->base.info.layout.codes) * sizeof *l->logits);
    if (l->id && l->place && l->seq && l->want && l->stats && (l->logits || !logits))
        return TT_OK;
    lists_close(l);
    return tt_fail(e, TT_ENOMEM, "no memory for a step of %lld images", (long long)calls);
}

/* One branch's next level; returns its first row. */
static int64_t feed(lists *l, const har *g, har_state *st, int which)
{
    branch *b = &st->branch[which];
    int32_t end = level_end(g, b->fed);
    int64_t first = l->rows;
    for (int32_t p = b->fed; p < end; p++) {
        l->id[l->rows] = input(g, st, p, which == 0);
        l->place[l->rows++] = p;
    }
    l->seq[l->seqs++] = (tt_pass_seq){
        .row = first, .rows = end - b->fed, .see_end = end, .see = TT_SEE_ALL, .kv = b->kv};
    b->fed = end;
    return first;
}

static tt_status run(har *g, lists *l, tt_err *e)
{
    tt_pass p = {.rows = l->rows,
                 .id = l->id,
                 .position = l->place,
                 .column = l->place,
                 .seqs = l->seqs,
                 .seq = l->seq,
                 .wants = l->wants,
                 .want = l->want,
                 .stats = l->stats,
                 .logits = l->logits};
    tt_status s = l->rows ? tt_model_run(g->body, &p, e) : TT_OK;
    l->rows = l->seqs = 0;
    return s;
}

static int branches(const tt_generator_call *c)
{
    return c->guided || c->cfg_scale != 0 ? 2 : 1;
}

/* Levels that are known but not fed yet, one of each branch at a time: none but where an image
 * began with given tokens, or its second branch begins late. */
static tt_status catch_up(har *g, const tt_generator_call *call, int64_t calls, lists *l,
                          tt_err *e)
{
    tt_status s;
    int64_t fed;
    do {
        fed = 0;
        for (int64_t i = 0; i < calls; i++) {
            har_state *st = (har_state *)call[i].state;
            for (int b = 0; b < branches(&call[i]); b++)
                if (st->branch[b].fed < st->base.known) {
                    feed(l, g, st, b);
                    fed++;
                }
        }
        s = run(g, l, e);
    } while (fed && !s);
    return s;
}

static tt_status add_call(har *g, lists *l, const tt_generator_call *c, tt_err *e)
{
    har_state *st = (har_state *)c->state;
    int32_t begin = st->base.known, end = level_end(g, begin);
    for (int32_t i = 0; i < c->wants; i++)
        if (c->slot[i] < begin || c->slot[i] >= end)
            return tt_fail(e, TT_EINVAL, "token %d is wanted; the next level is %d to %d",
                           c->slot[i], begin, end - 1);
    int64_t with = feed(l, g, st, 0), without = -1;
    if (branches(c) == 2)
        without = feed(l, g, st, 1);
    for (int32_t i = 0; i < c->wants; i++)
        l->want[l->wants++] = (tt_want){.row = with + c->slot[i] - begin,
                                        .uncond = c->cfg_scale != 0
                                                      ? without + c->slot[i] - begin
                                                      : -1,
                                        .cfg_scale = c->cfg_scale,
                                        .draw = c->draw[i]};
    return TT_OK;
}

static void give_back(const har *g, const lists *l, const tt_generator_call *call, int64_t calls)
{
    size_t codes = (size_t)g->base.info.layout.codes, at = 0;
    for (int64_t i = 0; i < calls; i++) {
        size_t n = (size_t)call[i].wants;
        memcpy(call[i].stats, l->stats + at, n * sizeof *l->stats);
        if (call[i].logits)
            memcpy(call[i].logits, l->logits + at * codes, n * codes * sizeof *l->logits);
        at += n;
    }
}

static tt_status har_step(tt_generator *base, const tt_generator_call *call, int64_t calls,
                          tt_err *e)
{
    har *g = (har *)base;
    lists l;
    int64_t wants = 0;
    bool logits = false;
    tt_status s = TT_OK;
    for (int64_t i = 0; i < calls && !s; i++) {
        har_state *st = (har_state *)call[i].state;
        wants += call[i].wants;
        logits |= call[i].logits != NULL;
        if (call[i].features)
            s = tt_fail(e, TT_EUNSUP, "%s has no features to give", g->base.info.family);
        else if (branches(&call[i]) == 2 && !st->branch[1].kv)
            s = tt_kv_open(&st->branch[1].kv, g->body, g->base.info.layout.tokens, e);
    }
    if (!s)
        s = lists_open(&l, g, calls, wants, logits, e);
    if (s)
        return s;
    s = catch_up(g, call, calls, &l, e);
    for (int64_t i = 0; i < calls && !s; i++)
        s = add_call(g, &l, &call[i], e);
    if (!s)
        s = run(g, &l, e);
    if (!s)
        give_back(g, &l, call, calls);
    lists_close(&l);
    return s;
}

static size_t har_step_bytes(const tt_generator *base, int64_t calls)
{
    const har *g = (const har *)base;
    int64_t tokens = g->ahead ? g->base.info.layout.tokens / 2 : 1;
    return tt_trunk_model_pass_bytes(g->body, 2 * calls * tokens, calls * tokens);
}

static const char *const architectures[] = {"HAR", "LlamaGen", "c2i", NULL};

const tt_generator_def tt_generator_har = {
    .family = "HAR",
    .summary = "hierarchical (HAR) and next-token (LlamaGen) generators over ordered image tokens",
    .source = "arXiv 2601.03955, arXiv 2406.06525 and their released code",
    .architectures = architectures,
    .kind = TT_GENERATES_LEVELS,
    .open = har_open,
    .close = har_close,
    .begin = har_begin,
    .step = har_step,
    .fork = har_fork,
    .drop = har_drop,
    .step_bytes = har_step_bytes,
    .state_size = sizeof(har_state),
};
