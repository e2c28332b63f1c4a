/* llada.c - LLaDA-8B and its relatives: masked diffusion with a fully bidirectional Llama-like
 * body (Nie et al., "Large Language Diffusion Models", arXiv 2502.09992; tensor names and config
 * keys of the released checkpoints, architecture "LLaDAModelLM").
 *
 * Row i of the head predicts token i; there is no time input. With "rope": false positions are the
 * rows of wpe, added to the embedding, as upstream's class has it. Two different tensors are called
 * ff_out: the MLP's down projection in each block and the head beside them. */
#include <stdlib.h>

#include "models/nn/trunk.h"

typedef struct {
    tt_model base;
    tt_trunk trunk;
} llada;

/* Keys that describe training, dropout or bookkeeping and change nothing here. */
static const char *const no_effect[] = {
    "model_type", "torch_dtype", "dtype", "transformers_version", "use_cache", "flash_attention",
    "precision", "init_device", "init_fn", "init_std", "init_cutoff_factor", "attention_dropout",
    "embedding_dropout", "residual_dropout", "alibi_bias_max", "mlp_ratio", "block_group_size",
    "rope_full_precision", "layer_norm_with_affine", "attention_layer_norm_with_affine",
    "auto_map", "quantization", "pad_token_id", "bos_token_id", "_name_or_path", NULL};

static tt_status unsupported(const char *key, const char *what, tt_err *e)
{
    return tt_fail(e, TT_EUNSUP, "config key '%s': %s", key, what);
}

/* Variants that upstream's class has but no released checkpoint uses. */
static tt_status check_variant(tt_config *c, tt_err *e)
{
    static const char *const must_be_false[] = {"alibi", "include_bias", "include_qkv_bias",
                                                "attention_layer_norm", "input_emb_norm",
                                                "scale_logits", "multi_query_attention",
                                                "bias_for_layer_norm", NULL};
    for (const char *const *key = must_be_false; *key; key++)
        if (tt_config_bool(c, *key, false))
            return unsupported(*key, "true is not supported", e);
    static const char *const must_be[][2] = {{"block_type", "llama"}, {"layer_norm_type", "rms"},
                                             {"activation_type", "silu"}};
    for (size_t i = 0; i < sizeof must_be / sizeof *must_be; i++) {
        const char *have = tt_config_text(c, must_be[i][0], must_be[i][1]);
        for (const char *a = have, *b = must_be[i][1]; *a || *b; a++, b++)
            if (*a != *b)
                return tt_fail(e, TT_EUNSUP, "config key '%s' is '%.40s'; only '%s' is supported",
                               must_be[i][0], have, must_be[i][1]);
    }
    return TT_OK;
}

static tt_status read_shape(llada *m, tt_config *c, bool *tied, double *theta, tt_err *e)
{
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
    *theta = tt_config_float(c, "rope_theta", 10000, 1, 1e12);
    *tied = tt_config_bool(c, "weight_tying", false);
    info->context = tt_config_int(c, "max_sequence_length", 4096, 1, 1 << 24);
    t->places = tt_config_bool(c, "rope", true) ? 0 : info->context;
    info->mask_id = (int32_t)tt_config_need_int(c, "mask_token_id", 0, INT32_MAX);
    info->eos_id = (int32_t)tt_config_int(c, "eos_token_id", -1, -1, INT32_MAX);
    info->eot_id = (int32_t)tt_config_int(c, "eot_token_id", -1, -1, INT32_MAX);
    tt_config_ignore(c, no_effect);
    tt_status s = tt_config_status(c, e);
    if (!s)
        s = check_variant(c, e);
    if (!s)
        s = tt_config_status(c, e);
    if (s)
        return s;
    if (t->width % t->heads || t->width / t->heads % 2)
        return tt_fail(e, TT_EFORMAT, "d_model %lld does not split into %lld heads of even width",
                       (long long)t->width, (long long)t->heads);
    if (t->heads % t->kv_heads)
        return tt_fail(e, TT_EFORMAT, "n_heads %lld is no multiple of n_kv_heads %lld",
                       (long long)t->heads, (long long)t->kv_heads);
    if (info->mask_id >= t->vocab || info->eos_id >= t->vocab || info->eot_id >= t->vocab)
        return tt_fail(e, TT_EFORMAT, "a token id of the config lies outside the %lld rows",
                       (long long)t->vocab);
    t->head_dim = t->width / t->heads;
    return TT_OK;
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

static void llada_close(tt_model *base)
{
    llada *m = (llada *)base;
    tt_trunk_close(&m->trunk);
    free(m);
}

static tt_status llada_open(tt_model **out, tt_stream *stream, const tt_weights *w, tt_config *c,
                            tt_weights_mode mode, void (*progress)(void *, double), void *arg,
                            tt_err *e)
{
    *out = NULL;
    llada *m = calloc(1, sizeof *m);
    if (!m)
        return tt_fail(e, TT_ENOMEM, "no memory for a model");
    extern const tt_model_def tt_model_llada;
    m->base.def = &tt_model_llada;
    m->base.stream = m->trunk.stream = stream;
    bool tied;
    double theta;
    tt_status s = read_shape(m, c, &tied, &theta, e);
    if (!s) {
        s = tt_trunk_open(&m->trunk, w, &names, mode, theta, m->trunk.head_dim, tied, progress, arg,
                          e);
        if (s)
            tt_context(e, s, "LLaDA checkpoint");
    }
    if (s) {
        llada_close(&m->base);
        return s;
    }
    m->base.info.block_length = 32;
    tt_trunk_info(&m->trunk, &m->base, w);
    *out = &m->base;
    return TT_OK;
}

static tt_status llada_run(tt_model *base, const tt_pass *p, tt_err *e)
{
    return tt_trunk_run(&((llada *)base)->trunk, p, e);
}

static size_t llada_pass_bytes(const tt_model *base, int64_t rows, int64_t wants)
{
    return tt_trunk_pass_bytes(&((const llada *)base)->trunk, rows, wants);
}

static const char *const architectures[] = {"LLaDAModelLM", NULL};

extern const tt_model_def tt_model_llada;
const tt_model_def tt_model_llada = {
    .family = "LLaDA",
    .summary = "masked diffusion language model, fully bidirectional",
    .source = "arXiv 2502.09992 and the released LLaDA-8B code",
    .architectures = architectures,
    .kinds = TT_KIND_BIDIRECTIONAL,
    .open = llada_open,
    .close = llada_close,
    .run = llada_run,
    .pass_bytes = llada_pass_bytes,
};
