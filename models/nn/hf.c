/* hf.c - see hf.h. */
#include "models/nn/hf.h"

#include <string.h>

static const char *const no_effect[] = {
    "model_type", "torch_dtype", "dtype", "transformers_version", "use_cache", "attention_dropout",
    "initializer_range", "max_window_layers", "auto_map", "quantization", "bos_token_id",
    "pad_token_id", "pretraining_tp", "full_attn_mask", "_name_or_path", "sliding_window",
    "layer_types", "rope_scaling", NULL};

/* rope_scaling: null, or Llama 3.1's kind. Other kinds are refused, not passed over. */
static tt_status read_scaling(tt_config *c, tt_rotary *r, tt_err *e)
{
    if (!tt_config_has(c, "rope_scaling"))
        return TT_OK;
    const char *kind = tt_config_member_text(c, "rope_scaling", "rope_type", NULL);
    kind = kind ? kind : tt_config_member_text(c, "rope_scaling", "type", "");
    tt_status s = tt_config_status(c, e);
    if (s || !strcmp(kind, "default"))
        return s;
    if (strcmp(kind, "llama3"))
        return tt_fail(e, TT_EUNSUP, "config key 'rope_scaling.rope_type' is '%.40s'; only "
                       "'llama3' is supported", kind);
    r->factor = tt_config_member_float(c, "rope_scaling", "factor", 1e-3, 1e6);
    r->low = tt_config_member_float(c, "rope_scaling", "low_freq_factor", 1e-3, 1e6);
    r->high = tt_config_member_float(c, "rope_scaling", "high_freq_factor", 1e-3, 1e6);
    r->original = tt_config_member_float(c, "rope_scaling", "original_max_position_embeddings", 1,
                                         1e9);
    s = tt_config_status(c, e);
    if (!s && r->low >= r->high)
        s = tt_fail(e, TT_EFORMAT, "config key 'rope_scaling': low_freq_factor %g is not below "
                    "high_freq_factor %g", r->low, r->high);
    return s;
}

/* Settings that would change the arithmetic and that nothing here implements. */
static tt_status check_variant(tt_config *c, tt_err *e)
{
    static const char *const must_be_false[] = {"use_sliding_window", "use_mrope",
                                                "attention_bias", "mlp_bias", NULL};
    tt_status s = tt_trunk_must_be_false(c, must_be_false, e);
    return s ? s : tt_trunk_must_be(c, "hidden_act", "silu", e);
}

static tt_status read_config(tt_trunk_model *m, const tt_hf_family *f, tt_config *c,
                             tt_trunk_plan *plan, tt_err *e)
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
    plan->rotary.theta = tt_config_float(c, "rope_theta", f->rope_theta, 1, 1e12);
    plan->rotary.width = t->head_dim;
    plan->tied = tt_config_bool(c, "tie_word_embeddings", false);
    info->context = tt_config_int(c, "max_position_embeddings", 2048, 1, 1 << 24);
    if (f->context && info->context > f->context)
        info->context = f->context;
    info->mask_id = f->needs_mask ? (int32_t)tt_config_need_int(c, "mask_token_id", 0, INT32_MAX)
                                  : -1;
    /* Llama 3.1 lists several end tokens; the first ends a text, chat formats know the others. */
    info->eos_id = (int32_t)tt_config_first_int(c, "eos_token_id", -1, -1, INT32_MAX);
    info->eot_id = -1;
    info->row_shift = f->row_shift;
    info->block_length =
        f->block_length ? (int32_t)tt_config_int(c, "block_size", f->block_length, 1, 1 << 16) : 0;
    info->sampler = f->sampler;
    info->temperature = f->temperature;
    tt_config_ignore(c, no_effect);
    tt_status s = read_scaling(c, &plan->rotary, e);
    return s ? s : tt_config_status(c, e);
}

static tt_status read(tt_trunk_model *m, const tt_weights *w, tt_config *c, const void *arg,
                      tt_trunk_plan *plan, tt_err *e)
{
    (void)w;
    const tt_hf_family *f = arg;
    plan->names = (tt_trunk_names){
        .prefix = "model.layers.%lld.",
        .norm1 = "input_layernorm.weight",
        .q = "self_attn.q_proj.weight",
        .k = "self_attn.k_proj.weight",
        .v = "self_attn.v_proj.weight",
        .q_bias = f->qkv_bias ? "self_attn.q_proj.bias" : NULL,
        .k_bias = f->qkv_bias ? "self_attn.k_proj.bias" : NULL,
        .v_bias = f->qkv_bias ? "self_attn.v_proj.bias" : NULL,
        .q_norm = f->head_norms ? "self_attn.q_norm.weight" : NULL,
        .k_norm = f->head_norms ? "self_attn.k_norm.weight" : NULL,
        .out = "self_attn.o_proj.weight",
        .norm2 = "post_attention_layernorm.weight",
        .gate = "mlp.gate_proj.weight",
        .up = "mlp.up_proj.weight",
        .down = "mlp.down_proj.weight",
        .table = "model.embed_tokens.weight",
        .norm = "model.norm.weight",
        .head = "lm_head.weight",
    };
    tt_status s = read_config(m, f, c, plan, e);
    if (!s)
        s = check_variant(c, e);
    return s ? s : tt_trunk_check_shape(m, "num_key_value_heads", e);
}

tt_status tt_hf_open(tt_model **out, const tt_model_def *def, const tt_hf_family *family,
                     tt_stream *stream, const tt_weights *w, tt_config *c, tt_weights_mode mode,
                     void (*progress)(void *, double), void *arg, tt_err *e)
{
    tt_trunk_loading loading = {mode, progress, arg};
    return tt_trunk_model_open(out, def, stream, w, c, read, family, &loading, e);
}
