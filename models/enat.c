/* enat.c - ENAT: masked-token image generation with features of known tokens reused across steps
 * ("ENAT: Rethinking Spatial-temporal Interactions in Token-based Image Synthesis", arXiv
 * 2411.06959; tensor names and config keys of the released code, which it follows where the paper
 * differs: only features of known tokens are reused).
 *
 *   x = LN(word[id] + place[i]); known tokens pass the encoder blocks, which never see hidden ones;
 *   hidden tokens pass the decoder blocks, which see both
 *   from the second step on the encoder updates what the last step revealed; older tokens are
 *   z + mlp(LN z) of their feature z of the last step
 *
 * Every block is modulated by vectors of the class alone (adaLN without a time), so a state's
 * modulations are computed once: before its first step, those of all states that begin together in
 * one product, whose weights are most of what a small batch reads. */
#include "models/enat.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/nn/acts.h"
#include "models/nn/bind.h"

extern const tt_generator_def tt_generator_enat;

/* --- opening --- */

/* Host numbers in the type of activations. */
static tt_status to_acts(tt_enat *g, tt_act **out, const float *host, int64_t n, tt_err *e)
{
    return tt_acts_upload(g->base.stream, g->base.info.act, out, host, n, e);
}

static tt_status norm(tt_enat *g, const tt_bind *b, tt_enat_norm *out, const char *name, float eps,
                      tt_err *e)
{
    char text[80];
    float *host = malloc((size_t)g->width * sizeof *host);
    out->eps = eps;
    snprintf(text, sizeof text, "%s.weight", name);
    tt_status st = host ? tt_bind_vector(b, &out->weight, text, g->width, e)
                        : tt_fail(e, TT_ENOMEM, "no memory for a norm");
    snprintf(text, sizeof text, "%s.bias", name);
    if (!st)
        st = tt_bind_host(b->weights, host, text, g->width, e);
    if (!st)
        st = to_acts(g, &out->bias, host, g->width, e);
    free(host);
    return st;
}

typedef struct {
    char text[100];
} name;

static name in_block(int64_t i, const char *suffix)
{
    name n;
    snprintf(n.text, sizeof n.text, "blocks.%lld.%s", (long long)i, suffix);
    return n;
}

/* A Linear of a block: its weight and bias have one name but for the end. */
static tt_status linear(const tt_bind *b, tt_matrix **out, const char *const *list, int parts,
                        int64_t block, const int64_t *n, int64_t k, tt_err *e)
{
    name weight[2], bias[2];
    tt_bind_part part[2];
    for (int i = 0; i < parts; i++) {
        char text[60];
        snprintf(text, sizeof text, "%s.weight", list[i]);
        weight[i] = in_block(block, text);
        snprintf(text, sizeof text, "%s.bias", list[i]);
        bias[i] = in_block(block, text);
        part[i] = (tt_bind_part){weight[i].text, n[i], bias[i].text};
    }
    return tt_bind_matrix(b, out, part, parts, k, TT_MATRIX_LINEAR, e);
}

static tt_status bind_block(tt_enat *g, const tt_bind *b, int64_t i, tt_err *e)
{
    static const char *const own[] = {"attn.q", "attn.kv.B"}, *const context[] = {"attn.kv.A"};
    static const char *const out[] = {"attn.proj"}, *const up[] = {"mlp.fc1"};
    static const char *const down[] = {"mlp.fc2"};
    tt_enat_block *k = &g->block[i];
    int64_t d = g->width, own_rows[] = {d, 2 * d}, two = 2 * d;
    tt_status st = linear(b, &k->own, own, 2, i, own_rows, d, e);
    if (!st)
        st = linear(b, &k->context, context, 1, i, &two, d, e);
    if (!st)
        st = linear(b, &k->out, out, 1, i, &d, d, e);
    if (!st)
        st = linear(b, &k->up, up, 1, i, &g->ff, d, e);
    return st ? st : linear(b, &k->down, down, 1, i, &d, g->ff, e);
}

/* All blocks' modulations as one matrix. */
static tt_status bind_modulation(tt_enat *g, const tt_bind *b, tt_err *e)
{
    int n = (int)g->blocks;
    name *names = calloc((size_t)n * 2, sizeof *names);
    tt_bind_part *part = calloc((size_t)n, sizeof *part);
    tt_status st = names && part ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for %d blocks", n);
    for (int i = 0; i < n && !st; i++) {
        names[2 * i] = in_block(i, "adaLN_modulation.1.weight");
        names[2 * i + 1] = in_block(i, "adaLN_modulation.1.bias");
        part[i] = (tt_bind_part){names[2 * i].text, TT_ENAT_VECTORS * g->width,
                                 names[2 * i + 1].text};
    }
    if (!st)
        st = tt_bind_matrix(b, &g->modulation, part, n, g->width, TT_MATRIX_LINEAR, e);
    free(names);
    free(part);
    return st;
}

/* The head is the table of words without the mask's row. */
static tt_status bind_head(tt_enat *g, const tt_bind *b, tt_err *e)
{
    tt_weight words;
    int64_t codes = g->base.info.layout.codes;
    float *bias = malloc((size_t)(codes + 1) * sizeof *bias);
    tt_status st = bias ? tt_bind_host(b->weights, bias, "mlm_layer.bias", codes + 1, e)
                        : tt_fail(e, TT_ENOMEM, "no memory for %lld biases", (long long)codes);
    if (!st)
        st = tt_weights_matrix(b->weights, "x_embedder.word_embeddings.weight", codes + 1, g->width,
                               &words, e);
    if (!st) {
        words.data.dim[0] = codes;
        words.scale.dim[0] = codes;
        st = b->stream->op.matrix_open(b->stream, &g->head, &words, 1, bias, b->compute,
                                       TT_MATRIX_LINEAR, e);
    }
    free(bias);
    return st;
}

static tt_status read_labels(tt_enat *g, const tt_weights *w, tt_err *e)
{
    tt_weight table;
    int64_t rows = g->null_label + 1, d = g->width;
    tt_status st = tt_weights_matrix(w, "y_embedder.embedding_table.weight", rows, d, &table, e);
    if (st)
        return st;
    g->labels = malloc((size_t)(rows * d) * sizeof *g->labels);
    if (!g->labels)
        return tt_fail(e, TT_ENOMEM, "no memory for %lld labels", (long long)rows);
    st = tt_to_f32(g->labels, &table.data, 0, rows * d, e);
    for (int64_t r = 0; r < rows && !st && table.scale.data; r++) {
        float scale = 1;
        st = tt_to_f32(&scale, &table.scale, r, 1, e);
        for (int64_t i = 0; i < d; i++)
            g->labels[r * d + i] *= scale;
    }
    return st;
}

static tt_status bind_constants(tt_enat *g, tt_err *e)
{
    float *host = calloc((size_t)g->width, sizeof *host);
    tt_status st = host ? to_acts(g, &g->zeros, host, g->width, e)
                        : tt_fail(e, TT_ENOMEM, "no memory for %lld numbers", (long long)g->width);
    for (int64_t i = 0; i < g->width && host; i++)
        host[i] = 1;
    if (!st)
        st = tt_bind_floats(g->base.stream, &g->ones, host, g->width, e);
    free(host);
    return st;
}

static tt_status bind_all(tt_enat *g, const tt_bind *b, tt_err *e)
{
    int64_t d = g->width, codes = g->base.info.layout.codes;
    const tt_bind_part words = {"x_embedder.word_embeddings.weight", codes + 1, NULL};
    const tt_bind_part places = {"x_embedder.position_embeddings.weight", g->tokens, NULL};
    const tt_bind_part up = {"prev_proj.mlp.fc1.weight", g->ff, "prev_proj.mlp.fc1.bias"};
    const tt_bind_part down = {"prev_proj.mlp.fc2.weight", d, "prev_proj.mlp.fc2.bias"};
    const tt_bind_part fc = {"mlm_layer.fc.weight", d, "mlm_layer.fc.bias"};
    tt_status st = tt_bind_matrix(b, &g->words, &words, 1, d, TT_MATRIX_TABLE, e);
    if (!st)
        st = tt_bind_matrix(b, &g->places, &places, 1, d, TT_MATRIX_TABLE, e);
    for (int64_t i = 0; i < g->blocks && !st; i++)
        st = bind_block(g, b, i, e);
    if (!st)
        st = bind_modulation(g, b, e);
    if (!st)
        st = tt_bind_matrix(b, &g->again_up, &up, 1, d, TT_MATRIX_LINEAR, e);
    if (!st)
        st = tt_bind_matrix(b, &g->again_down, &down, 1, g->ff, TT_MATRIX_LINEAR, e);
    if (!st)
        st = tt_bind_matrix(b, &g->head_fc, &fc, 1, d, TT_MATRIX_LINEAR, e);
    if (!st)
        st = norm(g, b, &g->embed_norm, "x_embedder.LayerNorm", 1e-6f, e);
    if (!st)
        st = norm(g, b, &g->again_norm, "prev_proj.norm", 1e-6f, e);
    if (!st)
        st = norm(g, b, &g->last_norm, "norm", 1e-5f, e);
    if (!st)
        st = norm(g, b, &g->head_norm, "mlm_layer.ln", 1e-5f, e);
    if (!st)
        st = bind_constants(g, e);
    if (!st)
        st = read_labels(g, b->weights, e);
    return st ? st : bind_head(g, b, e);
}

/* --- the config --- */

static const char *const no_effect[] = {"model_type", "torch_dtype", "dtype", "quantization",
                                        "codec", "labels", "dropout", "name", NULL};

static tt_status read_config(tt_enat *g, tt_config *c, tt_err *e)
{
    tt_generator_info *info = &g->base.info;
    int64_t side = tt_config_need_int(c, "input_size", 1, 256);
    g->tokens = side * side;
    g->width = tt_config_need_int(c, "hidden_size", 1, 1 << 14);
    g->heads = tt_config_need_int(c, "num_heads", 1, 1 << 10);
    g->encoders = tt_config_int_at(c, "enc_dec", 0, -1, 0, 1 << 10);
    int64_t decoders = tt_config_int_at(c, "enc_dec", 1, -1, 1, 1 << 10);
    double ratio = tt_config_float(c, "mlp_ratio", 4, 0.1, 64);
    int64_t codes = tt_config_need_int(c, "codebook_size", 1, 1 << 24);
    int64_t classes = tt_config_need_int(c, "num_classes", 0, 1 << 24);
    int64_t mask = tt_config_int(c, "mask_token_id", codes, 0, INT32_MAX);
    g->null_label = tt_config_int(c, "null_class_id", classes, classes, 1 << 24);
    tt_config_ignore(c, no_effect);
    tt_status st = tt_config_status(c, e);
    if (!st)
        st = tt_generator_groups(&g->base.info, c, classes, e);
    if (!st)
        st = tt_config_status(c, e);
    if (st)
        return st;
    if (g->encoders < 0 || decoders < 1)
        return tt_fail(e, TT_EFORMAT, "config key 'enc_dec' must be a list of two numbers");
    if (g->width % g->heads)
        return tt_fail(e, TT_EFORMAT, "config key 'num_heads': %lld does not divide hidden_size "
                       "%lld", (long long)g->heads, (long long)g->width);
    if (mask != codes)
        return tt_fail(e, TT_EUNSUP, "config key 'mask_token_id' is %lld, must be codebook_size "
                       "(%lld)", (long long)mask, (long long)codes);
    g->head_dim = g->width / g->heads;
    g->blocks = g->encoders + decoders;
    g->ff = (int64_t)(ratio * (double)g->width);
    info->layout = (tt_layout){.kind = TT_LAYOUT_GRID, .tokens = (int32_t)g->tokens,
                               .rows = (int32_t)side, .columns = (int32_t)side, .levels = 1,
                               .level = {(int32_t)g->tokens}, .codes = (int32_t)codes};
    info->mask_id = (int32_t)codes;
    return TT_OK;
}

static void fill_info(tt_enat *g, const tt_weights *w)
{
    tt_generator_info *info = &g->base.info;
    size_t act = tt_dtype_size(info->act);
    info->family = tt_generator_enat.family;
    info->architecture = tt_generator_enat.architectures[0];
    info->kind = TT_GENERATES_MASKED;
    info->reuses = true;
    info->layers = g->blocks;
    info->width = g->width;
    info->heads = g->heads;
    info->head_dim = g->head_dim;
    info->parameters = tt_weights_elements(w);
    info->weight_bytes = tt_weights_bytes(w);
    info->state_bytes = act * (size_t)g->width *
                        (size_t)(2 * g->tokens + g->blocks * TT_ENAT_VECTORS);
    info->compute = tt_bind_text(w, "blocks.0.attn.q.weight", g->compute);
}

static tt_status check_device(tt_stream *s, tt_err *e)
{
    tt_status st = TT_BIND_NEED(s, adaln, e);
    if (!st)
        st = TT_BIND_NEED(s, gate_add, e);
    if (!st)
        st = TT_BIND_NEED(s, gate_adaln, e);
    if (!st)
        st = TT_BIND_NEED(s, linear_gelu, e);
    if (!st)
        st = TT_BIND_NEED(s, linear_split, e);
    if (!st)
        st = TT_BIND_NEED(s, gelu_erf, e);
    return st ? st : TT_BIND_NEED(s, scatter, e);
}

static void enat_close(tt_generator *base)
{
    tt_enat *g = (tt_enat *)base;
    tt_stream *s = base->stream;
    for (int64_t i = 0; i < g->blocks && g->block; i++) {
        tt_matrix *const list[] = {g->block[i].own, g->block[i].context, g->block[i].out,
                                   g->block[i].up, g->block[i].down};
        for (size_t j = 0; j < sizeof list / sizeof *list; j++)
            s->op.matrix_close(s, list[j]);
    }
    tt_matrix *const matrix[] = {g->words, g->places, g->modulation, g->again_up, g->again_down,
                                 g->head_fc, g->head};
    for (size_t j = 0; j < sizeof matrix / sizeof *matrix; j++)
        s->op.matrix_close(s, matrix[j]);
    const tt_enat_norm *const norms[] = {&g->embed_norm, &g->again_norm, &g->last_norm,
                                         &g->head_norm};
    for (size_t j = 0; j < sizeof norms / sizeof *norms; j++) {
        s->op.release(s, norms[j]->weight);
        s->op.release(s, norms[j]->bias);
    }
    tt_act *const memory[] = {g->ones, g->zeros, g->features, g->modulations, g->space};
    for (size_t j = 0; j < sizeof memory / sizeof *memory; j++)
        s->op.release(s, memory[j]);
    tt_arena_close(&g->lists);
    free(g->block);
    free(g->labels);
    free(g->taken);
    free(g);
}

/* --- states --- */

static int64_t modulation_width(const tt_enat *g)
{
    return g->blocks * TT_ENAT_VECTORS * g->width;
}

/* Modulations from row `at` on, of so many rows of c. */
static tt_status modulate(tt_enat *g, int64_t at, const float *c, int64_t rows, tt_err *e)
{
    tt_stream *s = g->base.stream;
    tt_act *condition = NULL;
    int64_t n = modulation_width(g);
    tt_status st = to_acts(g, &condition, c, rows * g->width, e);
    if (!st)
        st = s->op.linear(s, tt_enat_at(g, g->modulations, at * n), n, condition, g->width, rows,
                          g->modulation, false, e);
    s->op.release(s, condition);
    return st;
}

/* What modulations are made of: silu of the sum of the labels' rows. */
static void condition_of(const tt_enat *g, float *c, const tt_condition *condition)
{
    int64_t row = 0, given = 0;
    memset(c, 0, (size_t)g->width * sizeof *c);
    for (int32_t i = 0; condition && i < g->base.info.groups; row += g->base.info.group[i++]) {
        int64_t label = row + condition->label[i];
        given += condition->label[i] >= 0;
        for (int64_t j = 0; j < g->width && condition->label[i] >= 0; j++)
            c[j] += g->labels[label * g->width + j];
    }
    if (!given)
        memcpy(c, g->labels + g->null_label * g->width, (size_t)g->width * sizeof *c);
    for (int64_t i = 0; i < g->width; i++)
        c[i] = (float)(c[i] / (1.0 + exp(-(double)c[i])));
}

static tt_status modulate_no_class(tt_enat *g, tt_err *e)
{
    float *c = malloc((size_t)g->width * sizeof *c);
    if (!c)
        return tt_fail(e, TT_ENOMEM, "no memory for a condition");
    condition_of(g, c, NULL);
    tt_status st = modulate(g, 0, c, 1, e);
    free(c);
    return st;
}

/* The run of states with consecutive slots from `first` on that wait; returns its end. */
static int64_t run_of_waiting(const tt_enat *g, tt_enat_state *const *waiting, int64_t first,
                              float *c)
{
    int64_t slot = first;
    for (; slot < g->room && waiting[slot]; slot++)
        memcpy(c + (slot - first) * g->width, waiting[slot]->condition,
               (size_t)g->width * sizeof *c);
    return slot;
}

tt_status tt_enat_modulate(tt_enat *g, const tt_generator_call *call, int64_t calls, tt_err *e)
{
    int64_t n = 0;
    for (int64_t i = 0; i < calls; i++)
        n += ((tt_enat_state *)call[i].state)->condition != NULL;
    if (!n)
        return TT_OK;
    tt_enat_state **waiting = calloc((size_t)g->room, sizeof(tt_enat_state *)); /* by slot */
    float *c = malloc((size_t)(n * g->width) * sizeof *c);
    tt_status st = waiting && c ? TT_OK
                                : tt_fail(e, TT_ENOMEM, "no memory for %lld conditions",
                                          (long long)n);
    for (int64_t i = 0; i < calls && !st; i++) {
        tt_enat_state *state = (tt_enat_state *)call[i].state;
        if (state->condition)
            waiting[state->slot] = state;
    }
    for (int64_t slot = 0; slot < g->room && !st; slot++) {
        int64_t end = run_of_waiting(g, waiting, slot, c);
        if (end > slot)
            st = modulate(g, 1 + slot, c, end - slot, e);
        for (; slot < end && !st; slot++) {
            free(waiting[slot]->condition);
            waiting[slot]->condition = NULL;
        }
    }
    free(waiting);
    free(c);
    return st;
}

/* Copies the first rows of a device table to the beginning of another. */
static tt_status copy_rows(tt_enat *g, tt_act *to, const tt_act *from, int64_t first, int64_t rows,
                           int64_t width, tt_err *e)
{
    tt_stream *s = g->base.stream;
    int32_t *index = malloc((size_t)rows * sizeof *index + 1);
    void *device = NULL;
    tt_status st = index ? TT_OK
                         : tt_fail(e, TT_ENOMEM, "no memory for %lld rows", (long long)rows);
    for (int64_t i = 0; i < rows && !st; i++)
        index[i] = (int32_t)(first + i);
    if (!st)
        st = s->op.alloc(s, &device, (size_t)rows * sizeof *index, e);
    if (!st)
        st = s->op.upload(s, device, index, (size_t)rows * sizeof *index, e);
    if (!st)
        st = s->op.gather(s, to, width, from, width, device, rows, width, e);
    if (!st)
        st = s->op.sync(s, e);
    s->op.release(s, device);
    free(index);
    return st;
}

/* Memory for twice as many states; what is there moves. */
static tt_status grow(tt_enat *g, tt_err *e)
{
    tt_stream *s = g->base.stream;
    int64_t room = g->room ? 2 * g->room : 4, n = modulation_width(g), rows = 2 * g->tokens;
    size_t act = tt_dtype_size(g->base.info.act);
    void *features = NULL, *modulations = NULL;
    if (room * rows > INT32_MAX)
        return tt_fail(e, TT_ENOMEM, "%lld images at a time", (long long)room);
    uint8_t *taken = calloc((size_t)room, 1);
    tt_status st = taken ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for states");
    if (!st)
        st = s->op.alloc(s, &features, act * (size_t)(room * rows * g->width), e);
    if (!st)
        st = s->op.alloc(s, &modulations, act * (size_t)((room + 1) * n), e);
    if (!st && g->room)
        st = copy_rows(g, features, g->features, 0, g->room * rows, g->width, e);
    if (!st && g->room)
        st = copy_rows(g, modulations, g->modulations, 0, g->room + 1, n, e);
    if (st) {
        s->op.release(s, features);
        s->op.release(s, modulations);
        free(taken);
        return tt_context(e, st, "memory for %lld images", (long long)room);
    }
    s->op.release(s, g->features);
    s->op.release(s, g->modulations);
    if (g->room)
        memcpy(taken, g->taken, (size_t)g->room);
    free(g->taken);
    g->features = features;
    g->modulations = modulations;
    g->taken = taken;
    bool first = !g->room;
    g->room = room;
    return first ? modulate_no_class(g, e) : TT_OK;
}

static tt_status take_slot(tt_enat *g, tt_enat_state *st, tt_err *e)
{
    int64_t slot = 0;
    st->kept[0] = calloc((size_t)g->tokens, 2);
    if (!st->kept[0])
        return tt_fail(e, TT_ENOMEM, "no memory for an image of %lld tokens",
                       (long long)g->tokens);
    st->kept[1] = st->kept[0] + g->tokens;
    while (slot < g->room && g->taken[slot])
        slot++;
    tt_status s = slot == g->room ? grow(g, e) : TT_OK;
    if (s) {
        free(st->kept[0]);
        return s;
    }
    g->taken[slot] = 1;
    st->slot = slot;
    return TT_OK;
}

static void enat_drop(tt_generator_state *base)
{
    tt_enat_state *st = (tt_enat_state *)base;
    ((tt_enat *)base->generator)->taken[st->slot] = 0;
    free(st->kept[0]);
    free(st->condition);
}

static tt_status enat_begin(tt_generator *base, tt_generator_state *state, const tt_condition *c,
                            tt_err *e)
{
    tt_enat *g = (tt_enat *)base;
    tt_enat_state *st = (tt_enat_state *)state;
    tt_status s = take_slot(g, st, e);
    if (s)
        return s;
    st->condition = malloc((size_t)g->width * sizeof *st->condition);
    if (!st->condition) {
        enat_drop(state);
        return tt_fail(e, TT_ENOMEM, "no memory for a condition");
    }
    condition_of(g, st->condition, c);
    return TT_OK;
}

static tt_status enat_fork(tt_generator_state *to, const tt_generator_state *from, tt_err *e)
{
    tt_enat *g = (tt_enat *)from->generator;
    tt_enat_state *copy = (tt_enat_state *)to;
    const tt_enat_state *st = (const tt_enat_state *)from;
    int64_t rows = 2 * g->tokens, n = modulation_width(g);
    tt_status s = take_slot(g, copy, e);
    if (s)
        return s;
    memcpy(copy->kept[0], st->kept[0], (size_t)g->tokens * 2);
    if (st->condition) {
        copy->condition = malloc((size_t)g->width * sizeof *copy->condition);
        if (copy->condition)
            memcpy(copy->condition, st->condition, (size_t)g->width * sizeof *copy->condition);
        else
            s = tt_fail(e, TT_ENOMEM, "no memory for a condition");
    }
    if (!s)
        s = copy_rows(g, tt_enat_at(g, g->features, copy->slot * rows * g->width), g->features,
                      st->slot * rows, rows, g->width, e);
    if (!s && !st->condition)
        s = copy_rows(g, tt_enat_at(g, g->modulations, (1 + copy->slot) * n), g->modulations,
                      1 + st->slot, 1, n, e);
    if (s)
        enat_drop(to);
    return s;
}

static tt_status enat_open(tt_generator **out, tt_stream *s, const tt_weights *w, tt_config *c,
                           tt_weights_mode mode, tt_err *e)
{
    tt_enat *g = calloc(1, sizeof *g);
    *out = NULL;
    if (!g)
        return tt_fail(e, TT_ENOMEM, "no memory for a model");
    g->base = (tt_generator){.def = &tt_generator_enat, .stream = s};
    tt_status st = check_device(s, e);
    if (!st)
        st = read_config(g, c, e);
    if (!st)
        st = tt_bind_choose(&g->compute, s, w, "blocks.0.attn.q.weight", mode, e);
    if (!st) {
        g->base.info.act = s->op.act_type ? s->op.act_type(s, g->compute) : TT_F32;
        s->act = g->base.info.act;
        g->block = calloc((size_t)g->blocks, sizeof *g->block);
        if (!g->block)
            st = tt_fail(e, TT_ENOMEM, "no memory for %lld blocks", (long long)g->blocks);
    }
    tt_bind b = {s, w, g->compute};
    if (!st)
        st = bind_all(g, &b, e);
    if (st) {
        enat_close(&g->base);
        return st;
    }
    fill_info(g, w);
    *out = &g->base;
    return TT_OK;
}

static const char *const architectures[] = {"ENAT", "enat", NULL};

const tt_generator_def tt_generator_enat = {
    .family = "ENAT",
    .summary = "images by masked tokens, features of known tokens reused across steps",
    .source = "arXiv 2411.06959 and its released code",
    .architectures = architectures,
    .kind = TT_GENERATES_MASKED,
    .open = enat_open,
    .close = enat_close,
    .begin = enat_begin,
    .step = tt_enat_step,
    .fork = enat_fork,
    .drop = enat_drop,
    .step_bytes = tt_enat_step_bytes,
    .work = tt_enat_work,
    .state_size = sizeof(tt_enat_state),
};
