/* mdlm.c - MDLM: masked diffusion with a diffusion transformer ("Simple and Effective Masked
 * Diffusion Language Models", arXiv 2406.07524; tensor names and config keys of the released
 * mdlm-owt checkpoint).
 *
 *   c = silu(mlp2(silu(mlp0(embedding of the noise level))))     per sequence
 *   norms and residuals of every block are modulated by vectors linear in c (adaLN)
 *
 * Without time_conditioning, as released, the noise level is 0 for all. The mask's logit is never
 * used: it counts as -infinity (the paper's zero masking probability). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "models/nn/timestep.h"
#include "models/nn/trunk_model.h"

enum { FREQUENCIES = 256 };

/* The two layers that turn the embedded noise level into the condition. */
typedef struct {
    int64_t width;
    float *w0, *b0, *w2, *b2; /* [width, 256], [width], [width, width], [width]; behind this */
    float numbers[];
} sigma_map;

static float silu(double a)
{
    return (float)(a / (1 + exp(-a)));
}

static void layer(float *y, const float *x, const float *w, const float *b, int64_t n, int64_t k)
{
    for (int64_t j = 0; j < n; j++) {
        double sum = b[j];
        for (int64_t i = 0; i < k; i++)
            sum += (double)w[j * k + i] * x[i];
        y[j] = silu(sum);
    }
}

enum { MAX_CONDITION = 4096 };

static void condition(const void *arg, float sigma, float *c)
{
    const sigma_map *m = arg;
    float embedded[FREQUENCIES], hidden[MAX_CONDITION];
    tt_timestep_embedding(embedded, sigma, FREQUENCIES);
    layer(hidden, embedded, m->w0, m->b0, m->width, FREQUENCIES);
    layer(c, hidden, m->w2, m->b2, m->width, m->width);
}

static tt_status number(float *out, const tt_weights *w, const char *name, int rank, int64_t n,
                        int64_t k, tt_err *e)
{
    tt_tensor t;
    tt_status s = tt_weights_get(w, name, rank, (int64_t[]){n, k}, &t, e);
    return s ? s : tt_to_f32(out, &t, 0, rank == 2 ? n * k : n, e);
}

static tt_status read_sigma_map(tt_trunk_model *m, const tt_weights *w, tt_err *e)
{
    int64_t c = m->trunk.modulation.width;
    size_t n = (size_t)(c * (FREQUENCIES + 1) + c * (c + 1));
    sigma_map *map = calloc(1, sizeof *map + n * sizeof *map->numbers);
    if (!map)
        return tt_fail(e, TT_ENOMEM, "no memory for a condition of %lld", (long long)c);
    m->own = map;
    map->width = c;
    map->w0 = map->numbers;
    map->b0 = map->w0 + c * FREQUENCIES;
    map->w2 = map->b0 + c;
    map->b2 = map->w2 + c * c;
    tt_status s = number(map->w0, w, "backbone.sigma_map.mlp.0.weight", 2, c, FREQUENCIES, e);
    if (!s)
        s = number(map->b0, w, "backbone.sigma_map.mlp.0.bias", 1, c, 0, e);
    if (!s)
        s = number(map->w2, w, "backbone.sigma_map.mlp.2.weight", 2, c, c, e);
    if (!s)
        s = number(map->b2, w, "backbone.sigma_map.mlp.2.bias", 1, c, 0, e);
    m->trunk.modulation.condition = condition;
    m->trunk.modulation.arg = map;
    return s;
}

static const char *const no_effect[] = {
    "model_type",    "torch_dtype",  "dtype",        "transformers_version",
    "auto_map",      "dropout",      "return_dict",  "initializer_range",
    "_name_or_path", "bos_token_id", "pad_token_id", NULL};

static const tt_trunk_names names = {
    .prefix = "backbone.blocks.%lld.",
    .norm1 = "norm1.weight",
    .qkv = "attn_qkv.weight",
    .out = "attn_out.weight",
    .norm2 = "norm2.weight",
    .up = "mlp.0.weight",
    .up_bias = "mlp.0.bias",
    .down = "mlp.2.weight",
    .down_bias = "mlp.2.bias",
    .modulation = "adaLN_modulation.weight",
    .modulation_bias = "adaLN_modulation.bias",
    .table = "backbone.vocab_embed.embedding",
    .norm = "backbone.output_layer.norm_final.weight",
    .head = "backbone.output_layer.linear.weight",
    .head_bias = "backbone.output_layer.linear.bias",
    .last_modulation = "backbone.output_layer.adaLN_modulation.weight",
    .last_modulation_bias = "backbone.output_layer.adaLN_modulation.bias",
};

static tt_status read(tt_trunk_model *m, const tt_weights *w, tt_config *c, const void *arg,
                      tt_trunk_plan *plan, tt_err *e)
{
    (void)arg;
    tt_trunk *t = &m->trunk;
    tt_model_info *info = &m->base.info;
    t->width = tt_config_need_int(c, "hidden_dim", 1, 1 << 17);
    t->layers = tt_config_need_int(c, "n_blocks", 1, 4096);
    t->heads = t->kv_heads = tt_config_need_int(c, "n_heads", 1, 4096);
    t->vocab = tt_config_need_int(c, "vocab_size", 2, INT32_MAX);
    t->ff = 4 * t->width;
    t->eps = 1e-5f;
    t->ungated = true;
    t->modulation.width = tt_config_need_int(c, "cond_dim", 1, MAX_CONDITION);
    t->modulation.timed = tt_config_bool(c, "time_conditioning", false);
    plan->names = names;
    plan->rotary.theta = 10000;
    info->context = tt_config_need_int(c, "model_length", 1, 1 << 24);
    /* The mask is the row added behind the tokenizer's vocabulary. */
    info->mask_id = (int32_t)tt_config_int(c, "mask_token_id", t->vocab - 1, 0, INT32_MAX);
    info->eos_id = (int32_t)tt_config_int(c, "eos_token_id", -1, -1, INT32_MAX);
    info->eot_id = -1;
    info->temperature = 1;
    info->sampler = "ddpm";
    tt_config_ignore(c, no_effect);
    tt_status s = tt_config_status(c, e);
    if (s)
        return s;
    if (t->width % t->heads)
        return tt_fail(e, TT_EFORMAT, "config key 'n_heads': %lld does not divide hidden_dim %lld",
                       (long long)t->heads, (long long)t->width);
    t->head_dim = plan->rotary.width = t->width / t->heads;
    s = tt_trunk_check_shape(m, "n_heads", e);
    return s ? s : read_sigma_map(m, w, e);
}

extern const tt_model_def tt_model_mdlm;

static tt_status mdlm_open(tt_model **out, tt_stream *s, const tt_weights *w, tt_config *c,
                           tt_weights_mode mode, void (*progress)(void *, double), void *arg,
                           tt_err *e)
{
    tt_trunk_loading loading = {mode, progress, arg};
    tt_status st = tt_trunk_model_open(out, &tt_model_mdlm, s, w, c, read, NULL, &loading, e);
    if (!st && ((tt_trunk_model *)*out)->trunk.modulation.timed)
        (*out)->info.kinds |= TT_KIND_TIMED;
    return st;
}

static const char *const architectures[] = {"MDLM", NULL};

const tt_model_def tt_model_mdlm = {
    .family = "MDLM",
    .summary = "masked diffusion with a diffusion transformer",
    .source = "arXiv 2406.07524 and the released mdlm-owt code",
    .architectures = architectures,
    .kinds = TT_KIND_BIDIRECTIONAL,
    .open = mdlm_open,
    .close = tt_trunk_model_close,
    .run = tt_trunk_model_run,
    .pass_bytes = tt_trunk_model_pass_bytes,
};
