/* raven.c - Huginn, the recurrent-depth language model ("raven" in the released code): Geiping et
 * al., "Scaling up Test-Time Compute with Latent Reasoning", arXiv 2502.05171; tensor names and
 * config keys of the released checkpoint, architecture "RavenForCausalLM".
 *
 * config.json, each key with the released model's value as its default:
 *   n_embd 5280, n_heads 55 (= num_attention_heads = num_key_value_heads; n_embd / n_heads even),
 *   intermediate_size 17920, vocab_size 65536, block_size 4096 (context),
 *   n_layers_in_prelude 2, n_layers_in_recurrent_block 4, n_layers_in_coda 2,
 *   mean_recurrence 32 (the default number of recurrences), qk_bias true, norm_eps 1e-6,
 *   rope_base 50000, tie_embeddings true, bos/eos/pad/eot_token_id, quantization
 * Tensors, G one of prelude, core_block, coda, i from 0 in each:
 *   transformer.wte.weight [V, D]                 transformer.ln_f.weight [D]
 *   transformer.adapter.weight [D, 2 D]           columns of the state, then of the embedding
 *   transformer.G.i.norm_{1,2,3,4}.weight [D]
 *   transformer.G.i.attn.Wqkv.weight [3 D, D]     rows q, k, v
 *   transformer.G.i.attn.qk_bias [2, 1, H, D / H] added to q and k before they rotate
 *   transformer.G.i.attn.proj.weight [D, D]
 *   transformer.G.i.mlp.fc.weight [2 I, D]        gate, then up
 *   transformer.G.i.mlp.proj.weight [D, I]
 *   lm_head.weight [V, D]                         where embeddings are not tied
 * Matrices may be F32, BF16, F16, or I8 with one scale per row in NAME_scale [rows]. The rotary
 * table `freqs_cis` is computed, not read. An exit decider may come along (decider.h).
 *
 * The checkpoint rotates channels (2 j, 2 j + 1) of a head together, the rotary operation j and
 * j + D / H / 2: the rows of q and k are put in that order while loading, which leaves their
 * products as they were. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/nn/recur.h"
#include "models/nn/trunk_load.h"
#include "models/nn/trunk_model.h"

static const char *const no_effect[] = {
    "model_type", "torch_dtype", "dtype", "transformers_version", "use_cache", "auto_map",
    "quantization", "bos_token_id", "pad_token_id", "_name_or_path", "architecture_class_name",
    "norm_class_name", "init_strategy", "init_orthogonal", "init", "n_layers", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "head_dim", "n_head", "padded_vocab_size",
    "padding_multiple", "effective_expected_depth", "mean_backprop_depth", "sampling_scheme",
    "hidden_size", "max_position_embeddings", "bidirectional_attention", NULL};

/* --- config --- */

static tt_status check_variant(tt_config *c, tt_err *e)
{
    static const char *const must_be_false[] = {"bias", NULL};
    static const char *const must_be[][2] = {
        {"injection_type", "linear"}, {"state_init", "like-init"}, {"nonlin_name", "SiLU"},
        {"mlp_class_name", "GatedMLP"}, {"block_class_name", "SandwichBlock"}};
    tt_status s = tt_trunk_must_be_false(c, must_be_false, e);
    for (size_t i = 0; i < sizeof must_be / sizeof *must_be && !s; i++)
        s = tt_trunk_must_be(c, must_be[i][0], must_be[i][1], e);
    if (!s && tt_config_float(c, "test_time_noise", 0, -1e9, 1e9) != 0)
        s = tt_fail(e, TT_EUNSUP, "config key 'test_time_noise': noise is not supported");
    tt_config_text(c, "test_time_noise_type", NULL);
    return s;
}

static tt_status read_config(tt_recur *m, tt_config *c, tt_rotary *rotary, bool *qk_bias,
                             bool *tied, tt_err *e)
{
    tt_trunk *t = &m->trunk;
    tt_model_info *info = &m->base.info;
    t->width = tt_config_int(c, "n_embd", 5280, 2, 1 << 17);
    t->heads = t->kv_heads = tt_config_int(c, "n_heads", 55, 1, 4096);
    t->ff = tt_config_int(c, "intermediate_size", 17920, 1, 1 << 20);
    t->vocab = tt_config_int(c, "vocab_size", 65536, 2, INT32_MAX);
    t->eps = (float)tt_config_float(c, "norm_eps", 1e-6, 0, 1);
    m->prelude = tt_config_int(c, "n_layers_in_prelude", 2, 0, 1024);
    m->core = tt_config_int(c, "n_layers_in_recurrent_block", 4, 1, 1024);
    m->coda = tt_config_int(c, "n_layers_in_coda", 2, 0, 1024);
    t->layers = m->prelude + m->core + m->coda;
    rotary->theta = tt_config_float(c, "rope_base", 50000, 1, 1e12);
    *qk_bias = tt_config_bool(c, "qk_bias", true);
    *tied = tt_config_bool(c, "tie_embeddings", true);
    info->context = tt_config_int(c, "block_size", 4096, 1, 1 << 24);
    info->recurrence = (int32_t)tt_config_int(c, "mean_recurrence", 32, 1, TT_MAX_RECURRENCE);
    info->mask_id = -1;
    info->eos_id = (int32_t)tt_config_first_int(c, "eos_token_id", -1, -1, INT32_MAX);
    info->eot_id = (int32_t)tt_config_int(c, "eot_token_id", -1, -1, INT32_MAX);
    info->sampler = "forcing";
    tt_config_ignore(c, no_effect);
    tt_status s = tt_config_status(c, e);
    if (!s)
        s = check_variant(c, e);
    if (!s && t->width % t->heads)
        s = tt_fail(e, TT_EFORMAT, "config key 'n_heads': %lld heads do not share a width of %lld",
                    (long long)t->heads, (long long)t->width);
    if (s)
        return s;
    t->head_dim = t->width / t->heads;
    rotary->width = t->head_dim;
    if (t->head_dim % 2)
        return tt_fail(e, TT_EFORMAT, "heads of width %lld; it must be even",
                       (long long)t->head_dim);
    if (info->eos_id >= t->vocab || info->eot_id >= t->vocab)
        return tt_fail(e, TT_EFORMAT, "a token id of the config lies outside the %lld rows",
                       (long long)t->vocab);
    return tt_config_status(c, e);
}

/* --- tensors --- */

typedef struct {
    char text[100];
} name;

/* Layer i of the body in the checkpoint's numbering. */
static name layer_name(const tt_recur *m, int64_t i, const char *suffix)
{
    static const char *const group[] = {"prelude", "core_block", "coda"};
    int64_t at = i < m->prelude ? 0 : i < m->prelude + m->core ? 1 : 2;
    int64_t first = at == 0 ? 0 : at == 1 ? m->prelude : m->prelude + m->core;
    name n;
    snprintf(n.text, sizeof n.text, "transformer.%s.%lld.%s", group[at], (long long)(i - first),
             suffix);
    return n;
}

/* A matrix in memory of our own, of the same type as `like`. */
static tt_status blank(tt_weight *out, const tt_weight *like, int64_t n, int64_t k, tt_err *e)
{
    size_t scale = like->scale.data ? tt_dtype_size(like->scale.dtype) : 0;
    char *data = malloc((size_t)(n * k) * tt_dtype_size(like->data.dtype) + 1);
    char *scales = malloc((size_t)n * scale + 1);
    if (!data || !scales) {
        free(data);
        free(scales);
        return tt_fail(e, TT_ENOMEM, "no memory for a matrix of %lld x %lld", (long long)n,
                       (long long)k);
    }
    *out = (tt_weight){.data = {.data = data, .dim = {n, k}, .rank = 2,
                                .dtype = like->data.dtype},
                       .scale = {.data = scale ? scales : NULL, .dim = {n}, .rank = 1,
                                 .dtype = like->scale.dtype}};
    if (!scale)
        free(scales);
    return TT_OK;
}

static void drop(tt_weight *w)
{
    free((void *)(uintptr_t)w->data.data);
    free((void *)(uintptr_t)w->scale.data);
}

/* Row `to` of out becomes columns [column, column + k) of row `from`. */
static void copy_row(const tt_weight *out, int64_t to, const tt_weight *in, int64_t from,
                     int64_t column)
{
    size_t size = tt_dtype_size(in->data.dtype), k = (size_t)out->data.dim[1] * size;
    memcpy((char *)(uintptr_t)out->data.data + (size_t)to * k,
           (const char *)in->data.data + (size_t)(from * in->data.dim[1] + column) * size, k);
    if (!in->scale.data)
        return;
    size_t scale = tt_dtype_size(in->scale.dtype);
    memcpy((char *)(uintptr_t)out->scale.data + (size_t)to * scale,
           (const char *)in->scale.data + (size_t)from * scale, scale);
}

/* Rows [begin, begin + n) of a matrix, in place. */
static tt_weight rows_of(const tt_weight *w, int64_t begin, int64_t n)
{
    tt_weight out = *w;
    int64_t k = w->data.dim[1];
    out.data.dim[0] = n;
    out.data.data = (const char *)w->data.data + (size_t)(begin * k) * tt_dtype_size(w->data.dtype);
    out.scale.dim[0] = n;
    if (w->scale.data)
        out.scale.data = (const char *)w->scale.data +
                         (size_t)begin * tt_dtype_size(w->scale.dtype);
    return out;
}

/* Where row r of q or k stands in the checkpoint. */
static int64_t paired_row(const tt_trunk *t, int64_t r)
{
    int64_t hd = t->head_dim, half = hd / 2, head = r / hd, j = r % hd;
    return head * hd + (j < half ? 2 * j : 2 * (j - half) + 1);
}

/* The biases of q and k in the order of their rows; v has none. To be freed. */
static tt_status read_bias(const tt_recur *m, float **out, const tt_weights *w, int64_t i,
                           tt_err *e)
{
    const tt_trunk *t = &m->trunk;
    tt_tensor b;
    name n = layer_name(m, i, "attn.qk_bias");
    *out = NULL;
    tt_status s = tt_weights_get(w, n.text, 4, (int64_t[]){2, 1, t->heads, t->head_dim}, &b, e);
    float *raw = s ? NULL : calloc((size_t)(5 * t->width), sizeof *raw), *bias = raw;
    if (!s && !raw)
        s = tt_fail(e, TT_ENOMEM, "no memory for tensor '%s'", n.text);
    if (!s) {
        raw += 3 * t->width;
        s = tt_to_f32(raw, &b, 0, 2 * t->width, e);
    }
    for (int64_t r = 0; r < t->width && !s; r++) {
        bias[r] = raw[paired_row(t, r)];
        bias[t->width + r] = raw[t->width + paired_row(t, r)];
    }
    if (s)
        free(bias);
    else
        *out = bias;
    return s;
}

static tt_status bind_qkv(tt_recur *m, const tt_weights *w, int64_t i, bool biased, tt_err *e)
{
    tt_trunk *t = &m->trunk;
    int64_t d = t->width;
    tt_weight in, out;
    name n = layer_name(m, i, "attn.Wqkv.weight");
    float *bias = NULL;
    tt_status s = tt_weights_matrix(w, n.text, 3 * d, d, &in, e);
    if (!s && biased)
        s = read_bias(m, &bias, w, i, e);
    if (!s)
        s = blank(&out, &in, 3 * d, d, e);
    if (s) {
        free(bias);
        return s;
    }
    for (int64_t r = 0; r < 3 * d; r++)
        copy_row(&out, r, &in, r < 2 * d ? r / d * d + paired_row(t, r % d) : r, 0);
    tt_weight part = out;
    s = tt_trunk_pack(t, &t->layer[i].qkv, &part, 1, bias, TT_MATRIX_LINEAR, t->layer_compute, e);
    drop(&out);
    free(bias);
    return s ? tt_context(e, s, "tensor '%s'", n.text) : TT_OK;
}

static tt_status bind_matrix(tt_recur *m, tt_matrix **out, const tt_weights *w, const char *n,
                             int64_t rows, int64_t k, tt_err *e)
{
    tt_weight part;
    tt_status s = tt_weights_matrix(w, n, rows, k, &part, e);
    if (!s)
        s = tt_trunk_pack(&m->trunk, out, &part, 1, NULL, TT_MATRIX_LINEAR,
                          m->trunk.layer_compute, e);
    return s ? tt_context(e, s, "tensor '%s'", n) : TT_OK;
}

static tt_status bind_layer(tt_recur *m, const tt_weights *w, int64_t i, bool biased, tt_err *e)
{
    tt_trunk *t = &m->trunk;
    tt_trunk_layer *l = &t->layer[i];
    int64_t d = t->width;
    float **const norm[] = {&l->norm1, &l->after1, &l->norm2, &l->after2};
    static const char *const norm_name[] = {"norm_1.weight", "norm_2.weight", "norm_3.weight",
                                            "norm_4.weight"};
    tt_status s = TT_OK;
    for (int k = 0; k < 4 && !s; k++)
        s = tt_trunk_vector(t, norm[k], w, layer_name(m, i, norm_name[k]).text, d, e);
    if (!s)
        s = bind_qkv(m, w, i, biased, e);
    if (!s)
        s = bind_matrix(m, &l->out, w, layer_name(m, i, "attn.proj.weight").text, d, d, e);
    tt_weight fc;
    l->ff = t->ff;
    if (!s)
        s = tt_weights_matrix(w, layer_name(m, i, "mlp.fc.weight").text, 2 * t->ff, d, &fc, e);
    if (!s) {
        tt_weight part[] = {rows_of(&fc, 0, t->ff), rows_of(&fc, t->ff, t->ff)};
        s = tt_trunk_pack(t, &l->gate_up, part, 2, NULL, TT_MATRIX_LINEAR | TT_MATRIX_GLU,
                          t->layer_compute, e);
    }
    return s ? s
             : bind_matrix(m, &l->down, w, layer_name(m, i, "mlp.proj.weight").text, d, t->ff, e);
}

/* The adapter's columns, half for the state and half for the embedding. */
static tt_status bind_adapter(tt_recur *m, const tt_weights *w, tt_err *e)
{
    static const char adapter[] = "transformer.adapter.weight";
    tt_trunk *t = &m->trunk;
    int64_t d = t->width;
    tt_weight in;
    tt_matrix **const half[] = {&m->read_state, &m->read_embed};
    tt_status s = tt_weights_matrix(w, adapter, d, 2 * d, &in, e);
    for (int i = 0; i < 2 && !s; i++) {
        tt_weight out;
        s = blank(&out, &in, d, d, e);
        if (s)
            return s;
        for (int64_t r = 0; r < d; r++)
            copy_row(&out, r, &in, r, i * d);
        tt_weight part = out;
        s = tt_trunk_pack(t, half[i], &part, 1, NULL, TT_MATRIX_LINEAR, t->layer_compute, e);
        drop(&out);
    }
    return s ? tt_context(e, s, "tensor '%s'", adapter) : TT_OK;
}

static tt_status check_operations(const tt_stream *s, tt_err *e)
{
    const tt_backend *op = &s->op;
    if (op->copy_rows && op->blend && op->row_products && op->truncated_normal)
        return TT_OK;
    return tt_fail(e, TT_EUNSUP, "device '%s' has no operation copy_rows, blend, row_products or "
                   "truncated_normal", op->name);
}

static void fill_info(tt_recur *m, const tt_weights *w)
{
    const tt_trunk *t = &m->trunk;
    tt_model_info *info = &m->base.info;
    tt_trunk_info(t, &m->base, w);
    int64_t d = t->width, block = d * (4 * d + 3 * t->ff);
    info->prelude_layers = m->prelude;
    info->core_layers = m->core;
    info->core_weights = m->core * block + d * d;
    /* What every row is multiplied with: the default recurrences included. */
    info->layer_weights = (m->prelude + m->coda) * block + d * d +
                          info->recurrence * info->core_weights;
    if (m->decider)
        info->kinds |= TT_KIND_DECIDES;
}

static tt_status bind(tt_recur *m, const tt_weights *w, tt_config *c, tt_weights_mode mode,
                      void (*progress)(void *, double), void *arg, tt_err *e)
{
    tt_trunk *t = &m->trunk;
    tt_rotary rotary = {0};
    bool biased, tied;
    tt_weight first;
    const tt_trunk_names ends = {.table = "transformer.wte.weight",
                                 .norm = "transformer.ln_f.weight",
                                 .head = "lm_head.weight"};
    tt_status s = read_config(m, c, &rotary, &biased, &tied, e);
    if (!s)
        s = check_operations(t->stream, e);
    if (!s)
        s = tt_trunk_layers(t, e);
    if (!s)
        s = tt_weights_matrix(w, layer_name(m, m->prelude, "attn.Wqkv.weight").text, 3 * t->width,
                              t->width, &first, e);
    if (s)
        return s;
    t->stored = first.data.dtype;
    s = tt_trunk_choose(t, mode, e);
    if (!s)
        s = tt_trunk_rotation(t, &rotary, e);
    for (int64_t i = 0; i < t->layers && !s; i++) {
        s = bind_layer(m, w, i, biased, e);
        if (progress)
            progress(arg, (double)(i + 1) / (double)(t->layers + 1));
    }
    if (!s)
        s = bind_adapter(m, w, e);
    if (!s)
        s = tt_trunk_ends(t, w, &ends, tied, e);
    if (!s && tt_decider_in(w))
        s = tt_decider_open(&m->decider, w, t->width, e);
    if (!s)
        fill_info(m, w);
    return s;
}

static void raven_close(tt_model *base)
{
    tt_recur *m = (tt_recur *)base;
    tt_stream *s = base->stream;
    tt_trunk_close(&m->trunk);
    s->op.matrix_close(s, m->read_state);
    s->op.matrix_close(s, m->read_embed);
    s->op.release(s, m->space);
    s->op.release(s, m->keys);
    tt_decider_close(m->decider);
    free(m->host);
    free(m);
}

extern const tt_model_def tt_model_raven;

static tt_status raven_open(tt_model **out, tt_stream *s, const tt_weights *w, tt_config *c,
                            tt_weights_mode mode, void (*progress)(void *, double), void *arg,
                            tt_err *e)
{
    *out = NULL;
    tt_recur *m = calloc(1, sizeof *m);
    if (!m)
        return tt_fail(e, TT_ENOMEM, "no memory for a model");
    m->base.def = &tt_model_raven;
    m->base.stream = m->trunk.stream = s;
    tt_status st = bind(m, w, c, mode, progress, arg, e);
    if (st) {
        raven_close(&m->base);
        return tt_context(e, st, "Huginn checkpoint");
    }
    *out = &m->base;
    return TT_OK;
}

static const char *const architectures[] = {"RavenForCausalLM", NULL};

const tt_model_def tt_model_raven = {
    .family = "Huginn",
    .summary = "recurrent depth: a small core applied to a latent state as often as is asked for",
    .source = "arXiv 2502.05171 and the released Huginn-0125 code",
    .architectures = architectures,
    .kinds = TT_KIND_CAUSAL | TT_KIND_RECURRENT,
    .open = raven_open,
    .close = raven_close,
    .run = tt_recur_run,
    .pass_bytes = tt_recur_pass_bytes,
};
