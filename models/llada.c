/* llada.c - LLaDA-8B and its relatives: masked diffusion with a fully bidirectional Llama-like
 * body (Nie et al., "Large Language Diffusion Models", arXiv 2502.09992; tensor names and config
 * keys of the released checkpoints, architecture "LLaDAModelLM").
 *
 * Row i of the head predicts token i; there is no time input. With "rope": false positions are the
 * rows of wpe, added to the embedding, as upstream's class has it. Two different tensors are called
 * ff_out: the MLP's down projection in each block and the head beside them. */
#include "models/nn/trunk_model.h"

/* Keys that describe training, dropout or bookkeeping and change nothing here. */
static const char *const no_effect[] = {
    "model_type", "torch_dtype", "dtype", "transformers_version", "use_cache", "flash_attention",
    "precision", "init_device", "init_fn", "init_std", "init_cutoff_factor", "attention_dropout",
    "embedding_dropout", "residual_dropout", "alibi_bias_max", "mlp_ratio", "block_group_size",
    "rope_full_precision", "layer_norm_with_affine", "attention_layer_norm_with_affine",
    "auto_map", "quantization", "pad_token_id", "bos_token_id", "_name_or_path", NULL};

/* Variants that upstream's class has but no released checkpoint uses. */
static tt_status check_variant(tt_config *c, tt_err *e)
{
    static const char *const must_be_false[] = {"alibi", "include_bias", "include_qkv_bias",
                                                "attention_layer_norm", "input_emb_norm",
                                                "scale_logits", "multi_query_attention",
                                                "bias_for_layer_norm", NULL};
    tt_status s = tt_trunk_must_be_false(c, must_be_false, e);
    if (!s)
        s = tt_trunk_must_be(c, "block_type", "llama", e);
    if (!s)
        s = tt_trunk_must_be(c, "layer_norm_type", "rms", e);
    if (!s)
        s = tt_trunk_must_be(c, "activation_type", "silu", e);
    return s;
}

static const tt_trunk_names names = {.prefix = "model.transformer.blocks.%lld.",
                                     .norm1 = "attn_norm.weight",
                                     .q = "q_proj.weight",
                                     .k = "k_proj.weight",
                                     .v = "v_proj.weight",
                                     .out = "attn_out.weight",
                                     .norm2 = "ff_norm.weight",
                                     .gate = "ff_proj.weight",
                                     .up = "up_proj.weight",
                                     .down = "ff_out.weight",
                                     .table = "model.transformer.wte.weight",
                                     .norm = "model.transformer.ln_f.weight",
                                     .head = "model.transformer.ff_out.weight",
                                     .place_table = "model.transformer.wpe.weight"};

static tt_status read(tt_trunk_model *m, const tt_weights *w, tt_config *c, const void *arg,
                      tt_trunk_plan *plan, tt_err *e)
{
    (void)w;
    (void)arg;
    tt_trunk *t = &m->trunk;
    tt_model_info *info = &m->base.info;
    t->width = tt_config_need_int(c, "d_model", 1, 1 << 17);
    t->layers = tt_config_need_int(c, "n_layers", 1, 4096);
    t->heads = tt_config_need_int(c, "n_heads", 1, 4096);
    t->kv_heads = tt_config_int(c, "n_kv_heads", t->heads, 1, 4096);
    t->ff = tt_config_need_int(c, "mlp_hidden_size", 1, 1 << 20);
    int64_t vocab = tt_config_need_int(c, "vocab_size", 2, INT32_MAX);
    int64_t rows = tt_config_int(c, "embedding_size", vocab, 1, INT32_MAX);
    t->vocab = rows > vocab ? rows : vocab;
    t->eps = (float)tt_config_float(c, "rms_norm_eps", 1e-5, 0, 1);
    plan->names = names;
    plan->rotary.theta = tt_config_float(c, "rope_theta", 10000, 1, 1e12);
    plan->tied = tt_config_bool(c, "weight_tying", false);
    info->context = tt_config_int(c, "max_sequence_length", 4096, 1, 1 << 24);
    t->places = tt_config_bool(c, "rope", true) ? 0 : info->context;
    info->mask_id = (int32_t)tt_config_need_int(c, "mask_token_id", 0, INT32_MAX);
    info->eos_id = (int32_t)tt_config_int(c, "eos_token_id", -1, -1, INT32_MAX);
    info->eot_id = (int32_t)tt_config_int(c, "eot_token_id", -1, -1, INT32_MAX);
    info->block_length = 32;
    tt_config_ignore(c, no_effect);
    tt_status s = tt_config_status(c, e);
    if (!s)
        s = check_variant(c, e);
    if (s)
        return s;
    if (t->width % t->heads)
        return tt_fail(e, TT_EFORMAT, "d_model %lld does not split into %lld heads",
                       (long long)t->width, (long long)t->heads);
    t->head_dim = plan->rotary.width = t->width / t->heads;
    return tt_trunk_check_shape(m, "n_kv_heads", e);
}

extern const tt_model_def tt_model_llada;

static tt_status llada_open(tt_model **out, tt_stream *s, const tt_weights *w, tt_config *c,
                            tt_weights_mode mode, void (*progress)(void *, double), void *arg,
                            tt_err *e)
{
    tt_trunk_loading loading = {mode, progress, arg};
    return tt_trunk_model_open(out, &tt_model_llada, s, w, c, read, NULL, &loading, e);
}

static const char *const architectures[] = {"LLaDAModelLM", NULL};

const tt_model_def tt_model_llada = {
    .family = "LLaDA",
    .summary = "masked diffusion language model, fully bidirectional",
    .source = "arXiv 2502.09992 and the released LLaDA-8B code",
    .architectures = architectures,
    .kinds = TT_KIND_BIDIRECTIONAL | TT_KIND_MEMO | TT_KIND_SHADOWS,
    .open = llada_open,
    .close = tt_trunk_model_close,
    .run = tt_trunk_model_run,
    .pass_bytes = tt_trunk_model_pass_bytes,
};
