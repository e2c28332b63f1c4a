/* hf.c - see hf.h. */
#include "models/nn/hf.h"

#include <stdlib.h>
#include <string.h>

static const char *const no_effect[] = {
    "model_type", "torch_dtype", "dtype", "transformers_version", "use_cache", "attention_dropout",
    "initializer_range", "max_window_layers", "auto_map", "quantization", "bos_token_id",
    "pad_token_id", "pretraining_tp", "full_attn_mask", "_name_or_path", "sliding_window",
    "rope_scaling", NULL};

/* Settings that would change the arithmetic and that nothing here implements. */
static tt_status check_variant(tt_config *c, tt_err *e)
{
    static const char *const must_be_false[] = {"use_sliding_window", "use_mrope",
                                                "attention_bias", "mlp_bias", NULL};
    for (const char *const *key = must_be_false; *key; key++)
        if (tt_config_bool(c, *key, false))
            return tt_fail(e, TT_EUNSUP, "config key '%s': true is not supported", *key);
    const char *act = tt_config_text(c, "hidden_act", "silu");
    if (strcmp(act, "silu"))
        return tt_fail(e, TT_EUNSUP, "config key 'hidden_act' is '%.40s'; only 'silu' is supported",
                       act);
    if (tt_config_has(c, "rope_scaling"))
        return tt_fail(e, TT_EUNSUP, "config key 'rope_scaling': scaled positions are not "
                       "supported");
    return TT_OK;
}

static tt_status read_shape(tt_hf_model *m, const tt_hf_family *f, tt_config *c, bool *tied,
                            tt_rotary *rotary, tt_err *e)
{
    tt_trunk *t = &m->trunk;
    tt_model_info *info = &m->base.info;
    t->width = tt_config_need_int(c, "hidden_size", 1, 1 << 17);
    t->layers = tt_config_need_int(c, "num_hidden_layers", 1, 4096);
    t->heads = tt_config_need_int(c, "num_attention_heads", 1, 4096);
    t->kv_heads = tt_config_int(c, "num_key_value_heads", t->heads, 1, 4096);
    t->head_dim = tt_config_int(c, "head_dim", t->width / t->heads, 2, 1 << 14);
    t->ff = tt_config_need_int(c, "intermediate_size", 1, 1 << 20);
    t->vocab = tt_config_need_int(c, "vocab_size", 2, INT32_MAX);
    t->eps = (float)tt_config_float(c, "rms_norm_eps", 1e-6, 0, 1);
    rotary->theta = tt_config_float(c, "rope_theta", f->rope_theta, 1, 1e12);
    *tied = tt_config_bool(c, "tie_word_embeddings", false);
    info->context = tt_config_int(c, "max_position_embeddings", 2048, 1, 1 << 24);
    if (f->context && info->context > f->context)
        info->context = f->context;
    info->mask_id = f->needs_mask ? (int32_t)tt_config_need_int(c, "mask_token_id", 0, INT32_MAX)
                                  : -1;
    info->eos_id = (int32_t)tt_config_int(c, "eos_token_id", -1, -1, INT32_MAX);
    info->eot_id = -1;
    tt_config_ignore(c, no_effect);
    tt_status s = tt_config_status(c, e);
    if (!s)
        s = check_variant(c, e);
    if (!s)
        s = tt_config_status(c, e);
    if (s)
        return s;
    if (t->heads % t->kv_heads || t->head_dim % 2)
        return tt_fail(e, TT_EFORMAT, "%lld heads of width %lld do not share %lld key/value heads",
                       (long long)t->heads, (long long)t->head_dim, (long long)t->kv_heads);
    if (info->mask_id >= t->vocab || info->eos_id >= t->vocab)
        return tt_fail(e, TT_EFORMAT, "a token id of the config lies outside the %lld rows",
                       (long long)t->vocab);
    rotary->width = t->head_dim;
    return TT_OK;
}

static tt_status bind(tt_hf_model *m, const tt_hf_family *f, const tt_weights *w, tt_config *c,
                      tt_weights_mode mode, void (*progress)(void *, double), void *arg, tt_err *e)
{
    tt_trunk_names names = {.prefix = "model.layers.%lld.",
                            .norm1 = "input_layernorm.weight",
                            .q = "self_attn.q_proj.weight",
                            .k = "self_attn.k_proj.weight",
                            .v = "self_attn.v_proj.weight",
                            .out = "self_attn.o_proj.weight",
                            .norm2 = "post_attention_layernorm.weight",
                            .gate = "mlp.gate_proj.weight",
                            .up = "mlp.up_proj.weight",
                            .down = "mlp.down_proj.weight",
                            .table = "model.embed_tokens.weight",
                            .norm = "model.norm.weight",
                            .head = "lm_head.weight"};
    if (f->qkv_bias) {
        names.q_bias = "self_attn.q_proj.bias";
        names.k_bias = "self_attn.k_proj.bias";
        names.v_bias = "self_attn.v_proj.bias";
    }
    bool tied;
    tt_rotary rotary = {0};
    tt_trunk *t = &m->trunk;
    tt_status s = read_shape(m, f, c, &tied, &rotary, e);
    if (!s)
        s = tt_trunk_layers(t, e);
    if (s)
        return s;
    s = tt_trunk_open(t, w, &names, mode, &rotary, tied, progress, arg, e);
    if (s)
        return tt_context(e, s, "%s checkpoint", m->base.def->family);
    m->base.info.row_shift = f->row_shift;
    m->base.info.block_length = f->block_length;
    tt_trunk_info(t, &m->base, w);
    return TT_OK;
}

tt_status tt_hf_open(tt_model **out, const tt_model_def *def, const tt_hf_family *family,
                     tt_stream *stream, const tt_weights *w, tt_config *c, tt_weights_mode mode,
                     void (*progress)(void *, double), void *arg, tt_err *e)
{
    *out = NULL;
    tt_hf_model *m = calloc(1, sizeof *m);
    if (!m)
        return tt_fail(e, TT_ENOMEM, "no memory for a model");
    m->base.def = def;
    m->base.stream = m->trunk.stream = stream;
    tt_status s = bind(m, family, w, c, mode, progress, arg, e);
    if (s)
        tt_hf_close(&m->base);
    else
        *out = &m->base;
    return s;
}

void tt_hf_close(tt_model *m)
{
    tt_trunk_close(&((tt_hf_model *)m)->trunk);
    free(m);
}

tt_status tt_hf_run(tt_model *m, const tt_pass *p, tt_err *e)
{
    return tt_trunk_run(&((tt_hf_model *)m)->trunk, p, e);
}

size_t tt_hf_pass_bytes(const tt_model *m, int64_t rows, int64_t wants)
{
    return tt_trunk_pass_bytes(&((const tt_hf_model *)m)->trunk, rows, wants);
}
