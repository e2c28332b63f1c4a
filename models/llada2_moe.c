/* llada2_moe.c - LLaDA2.0 and 2.1: block diffusion with a mixture of experts (Bailing-MoE-like
 * body; tensor names and config keys of the released checkpoints, architecture
 * "LLaDA2MoeModelLM").
 *
 * Attention is block-causal: a row sees all columns up to the end of its own block, counted from
 * column 0 on, and never a later one. So keys and values of a finished block are final, and who
 * runs the model plans rows with TT_SEE_BLOCK. Only the first channels of a head are rotated,
 * after its normalisation. The router chooses by sigmoid score plus a bias among the experts of
 * the best groups; its weights are the scores without the bias. The mask id is not in the released
 * config.json. */
#include "models/nn/trunk_model.h"

static const char *const no_effect[] = {
    "model_type", "torch_dtype", "dtype", "transformers_version", "use_cache",
    "attention_dropout", "embedding_dropout", "output_dropout", "initializer_range", "auto_map",
    "quantization", "bos_token_id", "pad_token_id", "_name_or_path", "output_router_logits",
    "sliding_window", "max_window_layers", "router_dtype", "moe_router_enable_expert_bias",
    "rotary_dim", NULL};

static tt_status check_variant(tt_config *c, tt_err *e)
{
    static const char *const must_be_false[] = {"use_bias", "use_qkv_bias", "norm_head",
                                                "use_sliding_window", NULL};
    static const char *const scaling[] = {"rope_scaling", NULL};
    if (tt_config_has(c, "rope_scaling"))
        return tt_fail(e, TT_EUNSUP, "config key 'rope_scaling': only null is supported");
    tt_config_ignore(c, scaling);
    tt_status s = tt_trunk_must_be_false(c, must_be_false, e);
    if (!s)
        s = tt_trunk_must_be(c, "hidden_act", "silu", e);
    return s ? s : tt_trunk_must_be(c, "score_function", "sigmoid", e);
}

static void read_experts(tt_trunk *t, tt_config *c)
{
    t->ff = tt_config_need_int(c, "intermediate_size", 1, 1 << 20);
    t->expert_ff = tt_config_need_int(c, "moe_intermediate_size", 1, 1 << 18);
    t->shared_ff = t->expert_ff * tt_config_int(c, "num_shared_experts", 0, 0, 64);
    int32_t top_k = (int32_t)tt_config_need_int(c, "num_experts_per_tok", 1, TT_MAX_ROUTES);
    t->router =
        (tt_router){.experts = (int32_t)tt_config_need_int(c, "num_experts", 1, TT_MAX_EXPERTS),
                    .top_k = top_k,
                    .sigmoid = true,
                    .groups = (int32_t)tt_config_int(c, "n_group", 1, 1, TT_MAX_EXPERTS),
                    .top_groups = (int32_t)tt_config_int(c, "topk_group", 1, 1, TT_MAX_EXPERTS),
                    .normalise = tt_config_bool(c, "norm_topk_prob", true) && top_k > 1,
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
    t->eps = (float)tt_config_float(c, "rms_norm_eps", 1e-6, 0, 1);
    read_experts(t, c);
    plan->rotary.theta = tt_config_float(c, "rope_theta", 600000, 1, 1e12);
    double part = tt_config_float(c, "partial_rotary_factor", 0.5, 1e-6, 1);
    plan->rotary.width = (int64_t)((double)t->head_dim * part);
    plan->tied = tt_config_bool(c, "tie_word_embeddings", false);
    info->context = tt_config_int(c, "max_position_embeddings", 4096, 1, 1 << 24);
    info->mask_id = (int32_t)tt_config_int(c, "mask_token_id", -1, 0, INT32_MAX);
    info->eos_id = (int32_t)tt_config_int(c, "eos_token_id", -1, -1, INT32_MAX);
    info->eot_id = -1;
    info->block_length = 32;
    info->sampler = "llada2_block";
    tt_config_ignore(c, no_effect);
    tt_status s = tt_config_status(c, e);
    if (!s)
        s = check_variant(c, e);
    if (!s)
        s = tt_trunk_check_router(t, e);
    return s ? s : tt_trunk_check_shape(m, "num_key_value_heads", e);
}

static tt_status read(tt_trunk_model *m, const tt_weights *w, tt_config *c, const void *arg,
                      tt_trunk_plan *plan, tt_err *e)
{
    (void)w;
    (void)arg;
    bool norms = tt_config_bool(c, "use_qk_norm", true);
    plan->names = (tt_trunk_names){.prefix = "model.layers.%lld.",
                                   .norm1 = "input_layernorm.weight",
                                   .qkv = "attention.query_key_value.weight",
                                   .q_norm = norms ? "attention.query_layernorm.weight" : NULL,
                                   .k_norm = norms ? "attention.key_layernorm.weight" : NULL,
                                   .out = "attention.dense.weight",
                                   .norm2 = "post_attention_layernorm.weight",
                                   .gate = "mlp.gate_proj.weight",
                                   .up = "mlp.up_proj.weight",
                                   .down = "mlp.down_proj.weight",
                                   .router = "mlp.gate.weight",
                                   .router_bias = "mlp.gate.expert_bias",
                                   .expert = "mlp.experts.%lld.",
                                   .expert_gate = "gate_proj.weight",
                                   .expert_up = "up_proj.weight",
                                   .expert_down = "down_proj.weight",
                                   .shared_gate = "mlp.shared_experts.gate_proj.weight",
                                   .shared_up = "mlp.shared_experts.up_proj.weight",
                                   .shared_down = "mlp.shared_experts.down_proj.weight",
                                   .table = "model.word_embeddings.weight",
                                   .norm = "model.norm.weight",
                                   .head = "lm_head.weight"};
    tt_status s = read_shape(m, c, plan, e);
    tt_trunk *t = &m->trunk;
    int64_t dense = tt_config_int(c, "first_k_dense_replace", 0, 0, 4096);
    if (!s)
        s = tt_trunk_layers(t, e);
    for (int64_t i = dense; i < t->layers && !s; i++)
        t->layer[i].routed = true;
    return s;
}

extern const tt_model_def tt_model_llada2_moe;

static tt_status llada2_moe_open(tt_model **out, tt_stream *s, const tt_weights *w, tt_config *c,
                                 tt_weights_mode mode, void (*progress)(void *, double), void *arg,
                                 tt_err *e)
{
    tt_trunk_loading loading = {mode, progress, arg};
    return tt_trunk_model_open(out, &tt_model_llada2_moe, s, w, c, read, NULL, &loading, e);
}

static const char *const architectures[] = {"LLaDA2MoeModelLM", NULL};

const tt_model_def tt_model_llada2_moe = {
    .family = "LLaDA2",
    .summary = "block diffusion with a mixture of experts, block-causal",
    .source = "released LLaDA2.0 and LLaDA2.1 code",
    .architectures = architectures,
    .kinds = TT_KIND_BLOCKS,
    .open = llada2_moe_open,
    .close = tt_trunk_model_close,
    .run = tt_trunk_model_run,
    .pass_bytes = tt_trunk_model_pass_bytes,
};
