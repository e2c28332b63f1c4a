/* llada_moe.c - LLaDA-MoE: LLaDA with a mixture of experts (OLMoE-like body; "LLaDA-MoE: A Sparse
 * MoE Diffusion Language Model", arXiv 2509.24389; tensor names and config keys of the released
 * checkpoints, architecture "LLaDAMoEModelLM").
 *
 * The router's weights are the softmax over all experts at the chosen ones, not renormalised: they
 * sum to less than one. Query and key heads are normalised before they are rotated. The mask id is
 * not in the released config.json. */
#include "models/nn/trunk_model.h"

static const char *const no_effect[] = {
    "model_type", "torch_dtype", "dtype", "transformers_version", "use_cache",
    "attention_dropout", "initializer_range", "auto_map", "quantization", "bos_token_id",
    "pad_token_id", "_name_or_path", "output_router_logits", "router_aux_loss_coef", NULL};

static tt_status check_variant(tt_config *c, tt_err *e)
{
    static const char *const must_be_false[] = {"attention_bias", "moe_router_enable_expert_bias",
                                                NULL};
    static const char *const must_be_null[] = {"clip_qkv",
                                               "rope_scaling",
                                               "router_num_group",
                                               "router_topk_group",
                                               "shared_expert_intermediate_size",
                                               NULL};
    for (const char *const *key = must_be_null; *key; key++)
        if (tt_config_has(c, *key))
            return tt_fail(e, TT_EUNSUP, "config key '%s': only null is supported", *key);
    tt_config_ignore(c, must_be_null);
    tt_status s = tt_trunk_must_be_false(c, must_be_false, e);
    if (!s)
        s = tt_trunk_must_be(c, "hidden_act", "silu", e);
    return s ? s : tt_trunk_must_be(c, "moe_router_score_function", "softmax", e);
}

static void read_experts(tt_trunk *t, tt_config *c)
{
    t->ff = tt_config_int(c, "dense_intermediate_size", 0, 0, 1 << 20);
    t->expert_ff = tt_config_need_int(c, "expert_intermediate_size", 1, 1 << 20);
    t->router = (tt_router){
        .experts = (int32_t)tt_config_need_int(c, "num_experts", 1, TT_MAX_EXPERTS),
        .top_k = (int32_t)tt_config_need_int(c, "num_experts_per_tok", 1, TT_MAX_ROUTES),
        .groups = 1,
        .top_groups = 1,
        .normalise = tt_config_bool(c, "norm_topk_prob", false),
        .scale = (float)tt_config_float(c, "routed_scaling_factor", 1, 0, 1e6)};
}

static tt_status read_shape(tt_trunk_model *m, tt_config *c, tt_trunk_plan *plan, tt_err *e)
{
    tt_trunk *t = &m->trunk;
    tt_model_info *info = &m->base.info;
    t->width = tt_config_need_int(c, "hidden_size", 1, 1 << 17);
    t->layers = tt_config_need_int(c, "num_hidden_layers", 1, 4096);
    t->heads = tt_config_need_int(c, "num_attention_heads", 1, 4096);
    t->kv_heads = tt_config_int(c, "num_key_value_heads", t->heads, 1, 4096);
    t->head_dim = tt_config_int(c, "head_dim", t->width / t->heads, 2, 1 << 14);
    t->vocab = tt_config_need_int(c, "vocab_size", 2, INT32_MAX);
    t->eps = (float)tt_config_float(c, "rms_norm_eps", 1e-5, 0, 1);
    read_experts(t, c);
    plan->rotary.theta = tt_config_float(c, "rope_theta", 50000, 1, 1e12);
    double part = tt_config_float(c, "partial_rotary_factor", 1, 1e-6, 1);
    plan->rotary.width = (int64_t)((double)t->head_dim * part);
    plan->tied = tt_config_bool(c, "tie_word_embeddings", false);
    info->context = tt_config_int(c, "max_position_embeddings", 8192, 1, 1 << 24);
    info->mask_id = (int32_t)tt_config_int(c, "mask_token_id", -1, 0, INT32_MAX);
    info->eos_id = (int32_t)tt_config_int(c, "eos_token_id", -1, -1, INT32_MAX);
    info->eot_id = -1;
    info->block_length = 64;
    tt_config_ignore(c, no_effect);
    tt_status s = tt_config_status(c, e);
    if (!s)
        s = check_variant(c, e);
    if (!s)
        s = tt_trunk_check_router(t, e);
    return s ? s : tt_trunk_check_shape(m, "num_key_value_heads", e);
}

/* moe_layer_freq: 1 for a layer with experts, 0 for a dense one. */
static tt_status mark_layers(tt_trunk *t, tt_config *c, tt_err *e)
{
    tt_status s = tt_trunk_layers(t, e);
    bool dense = false;
    for (int64_t i = 0; i < t->layers && !s; i++) {
        t->layer[i].routed = tt_config_int_at(c, "moe_layer_freq", i, 1, 0, 1) != 0;
        dense |= !t->layer[i].routed;
    }
    if (!s && dense && !t->ff)
        s = tt_fail(e, TT_EFORMAT,
                    "config key 'dense_intermediate_size' is missing; "
                    "'moe_layer_freq' names dense layers");
    return s;
}

static tt_status read(tt_trunk_model *m, const tt_weights *w, tt_config *c, const void *arg,
                      tt_trunk_plan *plan, tt_err *e)
{
    (void)w;
    (void)arg;
    bool norms = tt_config_bool(c, "qk_layernorm", true);
    plan->names = (tt_trunk_names){.prefix = "model.layers.%lld.",
                                   .norm1 = "input_layernorm.weight",
                                   .q = "self_attn.q_proj.weight",
                                   .k = "self_attn.k_proj.weight",
                                   .v = "self_attn.v_proj.weight",
                                   .q_norm = norms ? "self_attn.q_norm.weight" : NULL,
                                   .k_norm = norms ? "self_attn.k_norm.weight" : NULL,
                                   .out = "self_attn.o_proj.weight",
                                   .norm2 = "post_attention_layernorm.weight",
                                   .gate = "mlp.gate_proj.weight",
                                   .up = "mlp.up_proj.weight",
                                   .down = "mlp.down_proj.weight",
                                   .router = "mlp.gate.weight",
                                   .expert = "mlp.experts.%lld.",
                                   .expert_gate = "gate_proj.weight",
                                   .expert_up = "up_proj.weight",
                                   .expert_down = "down_proj.weight",
                                   .table = "model.embed_tokens.weight",
                                   .norm = "model.norm.weight",
                                   .head = "lm_head.weight"};
    tt_status s = read_shape(m, c, plan, e);
    return s ? s : mark_layers(&m->trunk, c, e);
}

extern const tt_model_def tt_model_llada_moe;

static tt_status llada_moe_open(tt_model **out, tt_stream *s, const tt_weights *w, tt_config *c,
                                tt_weights_mode mode, void (*progress)(void *, double), void *arg,
                                tt_err *e)
{
    tt_trunk_loading loading = {mode, progress, arg};
    return tt_trunk_model_open(out, &tt_model_llada_moe, s, w, c, read, NULL, &loading, e);
}

static const char *const architectures[] = {"LLaDAMoEModelLM", NULL};

const tt_model_def tt_model_llada_moe = {
    .family = "LLaDA-MoE",
    .summary = "masked diffusion with a mixture of experts, fully bidirectional",
    .source = "arXiv 2509.24389 and the released LLaDA-MoE code",
    .architectures = architectures,
    .kinds = TT_KIND_BIDIRECTIONAL | TT_KIND_MEMO | TT_KIND_SHADOWS,
    .open = llada_moe_open,
    .close = tt_trunk_model_close,
    .run = tt_trunk_model_run,
    .pass_bytes = tt_trunk_model_pass_bytes,
};
