/* insertion.c - insertion language models (ILM, "Insertion Language Models: Sequence Generation
 * with Arbitrary-Position Insertions", arXiv 2505.05755; tensor names and config keys of the
 * released code).
 *
 *   x = table[id]
 *   per layer:  x += out( attention( rope( qkv( norm1 x ) ) ) )       LayerNorm with bias
 *               x += down( act( up( norm2 x ) ) ),                    with biases; relu or gelu
 *   logits of row i = head( norm x )                                  "insert this right of row i"
 *   classes = class_head( z + mlp.2( tanh( mlp.0( LayerNorm z ) ) ) ) of row 0 ([CLS]), z = its x
 *
 * The sequence holds the tokens that exist and no others: rows are in reading order at positions
 * 0, 1, 2, ..., and every row sees all.
 *
 * config.json:
 *   architectures   ["RotaryTransformerILMModel"], or that name followed by
 *                   "WithStoppingClassification" or "WithLengthClassification"
 *   head            "none", "stopping" or "length": the classifier; default by architecture
 *   d_model, num_layers, nhead, dim_feedforward, num_embeddings (rows of table and head)
 *   activation      "relu" (default) or "gelu" (its tanh form)
 *   layer_norm_eps  1e-5
 *   rotary_emb_dim  channels of a head that rotate, the first ones; 64
 *   rope_theta      10000
 *   max_length      tokens of a sequence at most, [CLS] and [BOS] counted
 *   final_layer_without_normalization   true: the head reads x itself; default: true without a
 *                   classifier, else false (the released classes)
 *   num_classes     of the length head; stopping has 2. Class 0: nothing is missing
 *   cls_token_id, bos_token_id          must be there
 *   eos_token_id, pad_token_id, mask_token_id, unk_token_id    may be missing
 *   tokens_to_suppress   ids never inserted; default: cls, bos, eos, pad and mask (without a
 *                   classifier not pad) */
#include <string.h>

#include "models/nn/trunk_model.h"

typedef enum { HEAD_NONE, HEAD_STOPPING, HEAD_LENGTH } head_kind;

static const char *const head_names[] = {"none", "stopping", "length"};
/* In the order of head_kind. */
static const char *const architectures[] = {"RotaryTransformerILMModel",
                                            "RotaryTransformerILMModelWithStoppingClassification",
                                            "RotaryTransformerILMModelWithLengthClassification",
                                            NULL};

/* What only training used, and what is told by other keys or by the tensors. */
static const char *const no_effect[] = {
    "model_type",        "torch_dtype",       "dtype",          "quantization",
    "dropout",           "padding_idx",       "mask_idx",       "keep_type_embeddings",
    "input_constraint",  "unk_token_id",      "sep_token_id",   "edge_sep_token_id",
    "num_node_tokens",   "source_goal_sep_token_id",            "transformers_version",
    "architecture",      NULL};

static const tt_trunk_names plain_names = {
    .prefix = "encoder.%lld.",
    .norm1 = "norm1.weight",
    .norm1_bias = "norm1.bias",
    .qkv = "attn_qkv.weight",
    .out = "o_proj.weight",
    .norm2 = "norm2.weight",
    .norm2_bias = "norm2.bias",
    .up = "mlp.0.weight",
    .up_bias = "mlp.0.bias",
    .down = "mlp.2.weight",
    .down_bias = "mlp.2.bias",
    .table = "embed_tokens.weight",
    .head = "output_layer.linear.weight",
    .class_norm = "length_output_layer.norm_final.weight",
    .class_norm_bias = "length_output_layer.norm_final.bias",
    .class_up = "length_output_layer.mlp.0.weight",
    .class_up_bias = "length_output_layer.mlp.0.bias",
    .class_down = "length_output_layer.mlp.2.weight",
    .class_down_bias = "length_output_layer.mlp.2.bias",
    .class_out = "length_output_layer.linear.weight",
};

static int place_in(const char *const *list, int n, const char *text)
{
    int i = 0;
    while (i < n && strcmp(list[i], text))
        i++;
    return i;
}

static tt_status read_head(tt_config *c, head_kind *out, tt_err *e)
{
    int of_name = place_in(architectures, 3, tt_config_architecture(c));
    const char *text = tt_config_text(c, "head", of_name < 3 ? head_names[of_name] : "none");
    int kind = place_in(head_names, 3, text);
    if (kind == 3)
        return tt_fail(e, TT_EUNSUP, "config key 'head' is '%.40s'; 'none', 'stopping' and "
                       "'length' are supported", text);
    *out = (head_kind)kind;
    return TT_OK;
}

static tt_status read_suppressed(tt_config *c, tt_model_info *info, head_kind kind, tt_err *e)
{
    static const char *const key = "tokens_to_suppress";
    int32_t pad = (int32_t)tt_config_int(c, "pad_token_id", -1, -1, INT32_MAX);
    const int32_t usual[] = {info->cls_id, info->bos_id, info->eos_id, info->mask_id,
                             kind == HEAD_NONE ? -1 : pad};
    bool given = tt_config_has(c, key);
    for (int i = 0; i <= TT_MAX_NEVER; i++) {
        int64_t id = given ? tt_config_int_at(c, key, i, -1, 0, INT32_MAX)
                     : i < 5 ? usual[i] : -1;
        bool twice = false;
        for (int32_t k = 0; k < info->nevers; k++)
            twice |= info->never[k] == id;
        if (id < 0 || twice)
            continue;
        if (i == TT_MAX_NEVER)
            return tt_fail(e, TT_EUNSUP, "config key '%s' has more than %d ids", key, TT_MAX_NEVER);
        info->never[info->nevers++] = (int32_t)id;
    }
    return TT_OK;
}

static tt_status read_ids(tt_config *c, tt_model_info *info, head_kind kind, int64_t vocab,
                          tt_err *e)
{
    info->cls_id = (int32_t)tt_config_need_int(c, "cls_token_id", 0, vocab - 1);
    info->bos_id = (int32_t)tt_config_need_int(c, "bos_token_id", 0, vocab - 1);
    info->eos_id = (int32_t)tt_config_int(c, "eos_token_id", -1, -1, INT32_MAX);
    info->mask_id = (int32_t)tt_config_int(c, "mask_token_id", -1, -1, INT32_MAX);
    info->eot_id = -1;
    tt_status s = tt_config_status(c, e);
    if (!s)
        s = read_suppressed(c, info, kind, e);
    for (int32_t i = 0; i < info->nevers && !s; i++)
        if (info->never[i] >= vocab)
            s = tt_fail(e, TT_EFORMAT, "config key 'tokens_to_suppress': id %d of %lld",
                        info->never[i], (long long)vocab);
    return s;
}

static tt_status read_shape(tt_trunk_model *m, tt_config *c, tt_trunk_plan *plan, tt_err *e)
{
    tt_trunk *t = &m->trunk;
    t->width = tt_config_need_int(c, "d_model", 1, 1 << 17);
    t->layers = tt_config_need_int(c, "num_layers", 1, 4096);
    t->heads = t->kv_heads = tt_config_need_int(c, "nhead", 1, 4096);
    t->ff = tt_config_need_int(c, "dim_feedforward", 1, 1 << 20);
    t->vocab = tt_config_need_int(c, "num_embeddings", 2, INT32_MAX);
    t->eps = (float)tt_config_float(c, "layer_norm_eps", 1e-5, 0, 1);
    t->ungated = true;
    plan->rotary.theta = tt_config_float(c, "rope_theta", 10000, 1, 1e12);
    plan->rotary.width = tt_config_int(c, "rotary_emb_dim", 64, 2, 1 << 14);
    const char *act = tt_config_text(c, "activation", "relu");
    tt_status s = tt_config_status(c, e);
    if (s)
        return s;
    t->relu = !strcmp(act, "relu");
    if (!t->relu && strcmp(act, "gelu"))
        return tt_fail(e, TT_EUNSUP, "config key 'activation' is '%.40s'; 'relu' and 'gelu' are "
                       "supported", act);
    if (t->width % t->heads)
        return tt_fail(e, TT_EFORMAT, "config key 'nhead': %lld does not divide d_model %lld",
                       (long long)t->heads, (long long)t->width);
    t->head_dim = t->width / t->heads;
    if (plan->rotary.width > t->head_dim || plan->rotary.width % 2)
        return tt_fail(e, TT_EFORMAT, "config key 'rotary_emb_dim': %lld of a head's %lld channels "
                       "rotate; that must be an even number",
                       (long long)plan->rotary.width, (long long)t->head_dim);
    return TT_OK;
}

static tt_status read(tt_trunk_model *m, const tt_weights *w, tt_config *c, const void *arg,
                      tt_trunk_plan *plan, tt_err *e)
{
    (void)w;
    (void)arg;
    tt_trunk *t = &m->trunk;
    tt_model_info *info = &m->base.info;
    head_kind kind = HEAD_NONE;
    tt_status s = read_shape(m, c, plan, e);
    if (!s)
        s = read_head(c, &kind, e);
    if (!s)
        s = read_ids(c, info, kind, t->vocab, e);
    if (s)
        return s;
    plan->names = plain_names;
    if (!tt_config_bool(c, "final_layer_without_normalization", kind == HEAD_NONE)) {
        plan->names.norm = "output_layer.norm_final.weight";
        plan->names.norm_bias = "output_layer.norm_final.bias";
    }
    /* [CLS] and [BOS] stand beside the columns of a canvas. */
    int64_t length = tt_config_need_int(c, "max_length", 3, 1 << 24);
    info->context = length - 2;
    int64_t classes = tt_config_int(c, "num_classes", kind == HEAD_LENGTH ? length : 2, 2, 1 << 20);
    if (kind == HEAD_STOPPING && classes != 2)
        return tt_fail(e, TT_EFORMAT, "config key 'num_classes' is %lld; a stopping head has 2",
                       (long long)classes);
    info->classes = kind == HEAD_NONE ? 0 : (int32_t)classes;
    t->classifier.classes = info->classes;
    t->classifier.hidden = kind == HEAD_NONE ? 0 : 2 * t->width;
    info->stopping_threshold = kind == HEAD_LENGTH ? 0.5 : 0.9;
    info->sampler = "insertion";
    tt_config_ignore(c, no_effect);
    s = tt_config_status(c, e);
    return s ? s : tt_trunk_check_shape(m, "nhead", e);
}

extern const tt_model_def tt_model_insertion;

static tt_status insertion_open(tt_model **out, tt_stream *s, const tt_weights *w, tt_config *c,
                                tt_weights_mode mode, void (*progress)(void *, double), void *arg,
                                tt_err *e)
{
    tt_trunk_loading loading = {mode, progress, arg};
    tt_status st = tt_trunk_model_open(out, &tt_model_insertion, s, w, c, read, NULL, &loading, e);
    if (!st)
        (*out)->info.architecture = architectures[place_in(architectures, 3,
                                                           tt_config_architecture(c)) % 3];
    return st;
}

const tt_model_def tt_model_insertion = {
    .family = "ILM",
    .summary = "insertion language model: tokens appear between those that are there",
    .source = "arXiv 2505.05755 and the released code",
    .architectures = architectures,
    .kinds = TT_KIND_INSERTION,
    .open = insertion_open,
    .close = tt_trunk_model_close,
    .run = tt_trunk_model_run,
    .pass_bytes = tt_trunk_model_pass_bytes,
};
