/* flextok_config.c - see flextok_config.h. */
#include "models/flextok_config.h"

#include <stdio.h>
#include <string.h>

/* The class at the end of "flextok.model.trunks.transformers.FlexTransformer". */
static const char *class_of(tt_config *m)
{
    const char *target = tt_config_text(m, "_target_", ""), *dot = strrchr(target, '.');
    return dot ? dot + 1 : target;
}

static void take_name(char out[64], const char *name)
{
    snprintf(out, 64, "%s", name);
}

static void read_patches(tt_flextok_side *s, tt_config *m)
{
    s->channels = (int32_t)tt_config_need_int(m, "channels_in", 1, 1 << 10);
    for (int i = 0; i < 2; i++)
        s->patch[i] = (int32_t)tt_config_int_at(m, "patch_sizes", i, 2, 1, 64);
}

/* Places of patches have two sizes, those of registers one. */
static tt_status read_places(tt_flextok_side *s, tt_config *m, const char *name, tt_err *e)
{
    const char *kind = tt_config_text(m, "posemb_type", "sincos");
    int64_t size[2];
    for (int i = 0; i < 2; i++)
        size[i] = tt_config_int_at(m, "max_sizes", i, 0, 1, 1 << 14);
    if (strcmp(kind, "sincos") && strcmp(kind, "learnable_sum"))
        return tt_fail(e, TT_EUNSUP, "module '%.60s': places of kind '%.40s'", name, kind);
    if (strcmp(tt_config_text(m, "posemb_scaling", "absolute"), "absolute"))
        return tt_fail(e, TT_EUNSUP, "module '%.60s': places are not absolute", name);
    take_name(size[1] ? s->name.patch_places : s->name.register_places, name);
    for (int i = 0; i < 2 && size[1]; i++)
        s->grid[i] = (int32_t)size[i];
    if (!size[1])
        s->tokens = (int32_t)size[0];
    return TT_OK;
}

static void read_trunk(tt_flextok_side *s, tt_config *m)
{
    s->width = tt_config_int(m, "dim", 768, 2, 1 << 16);
    s->layers = tt_config_int(m, "depth", 12, 1, 4096);
    s->head_dim = tt_config_int(m, "head_dim", 64, 1, 1 << 12);
    s->gated = tt_config_bool(m, "gated_mlp", true);
    s->head_norms = tt_config_bool(m, "qk_norm", true);
    s->expansion = tt_config_has(m, "adaLN_emb_read_key")
                       ? tt_config_int(m, "adaLN_expansion", 1, 1, 2)
                       : 0;
}

static tt_status read_null(tt_flextok_side *s, tt_config *m, const char *name, bool learned,
                           tt_err *e)
{
    s->learned_null = learned;
    take_name(s->name.null, name);
    return tt_config_bool(m, "replace_with_single_token", false)
               ? tt_fail(e, TT_EUNSUP, "module '%.60s' replaces all tokens by one", name)
               : TT_OK;
}

static tt_status read_module(tt_flextok_side *s, tt_config *m, const char *name, tt_err *e)
{
    const char *c = class_of(m);
    if (!strcmp(c, "PerSampleOp") || !strcmp(c, "SequenceUnpacker") ||
        !strcmp(c, "BlockWiseSequencePacker") || strstr(name, "repa"))
        return TT_OK; /* order and shape alone, or losses of training */
    if (!strcmp(c, "PositionalEmbeddingAdder"))
        return read_places(s, m, name, e);
    if (!strcmp(c, "LearnedNullCond") || !strcmp(c, "ZeroNullCond"))
        return read_null(s, m, name, *c == 'L', e);
    if (!strcmp(c, "PatchEmbedder")) {
        take_name(s->name.patches, name);
        read_patches(s, m);
    } else if (!strcmp(c, "Registers1D")) {
        take_name(s->name.registers, name);
        s->tokens = (int32_t)tt_config_need_int(m, "n_max", 1, 1 << 12);
    } else if (!strcmp(c, "FlexTransformer")) {
        take_name(s->name.trunk, name);
        read_trunk(s, m);
    } else if (!strcmp(c, "LinearHead")) {
        take_name(s->name.head, name);
        s->dims = (int32_t)tt_config_need_int(m, "dim_out", 1, 64);
    } else if (!strcmp(c, "ToPatchesLinearHead")) {
        take_name(s->name.head, name);
    } else if (!strcmp(c, "LinearLayer")) {
        take_name(s->name.from, name);
        s->dims = (int32_t)tt_config_need_int(m, "dim_in", 1, 64);
    } else if (!strcmp(c, "MaskedNestedDropout")) {
        take_name(s->name.dropout, name);
    } else if (!strcmp(c, "TimestepEmbedder")) {
        take_name(s->name.time, name);
        s->waves = tt_config_int(m, "frequency_embedding_size", 256, 2, 1 << 14);
        s->longest = tt_config_float(m, "max_timestep", 1000, 1e-6, 1e9);
    } else {
        return tt_fail(e, TT_EUNSUP, "module '%.60s' is of class '%.60s', which is not known", name,
                       c);
    }
    return TT_OK;
}

static tt_status check(const tt_flextok_side *s, const char *key, tt_err *e)
{
    const tt_flextok_names *n = &s->name;
    bool encoder = !strcmp(key, "encoder");
    bool complete = *n->patches && *n->patch_places && *n->trunk && *n->head &&
                    (encoder ? *n->registers
                             : *n->from && *n->register_places && *n->time && s->expansion);
    if (!complete)
        return tt_fail(e, TT_EFORMAT, "config key '%s': a module is missing", key);
    if (s->width % s->head_dim || s->waves % 2 || (encoder && s->expansion) ||
        (int64_t)s->grid[0] * s->grid[1] > 1 << 14 || s->tokens < 1 || s->dims < 1)
        return tt_fail(e, TT_EFORMAT, "config key '%s': heads of %lld in %lld, %d x %d patches, %d "
                       "tokens of %d numbers", key, (long long)s->head_dim, (long long)s->width,
                       s->grid[0], s->grid[1], s->tokens, s->dims);
    return TT_OK;
}

tt_status tt_flextok_read(tt_flextok_side *out, tt_config *c, const char *key, tt_err *e)
{
    tt_config *side = NULL, *list = NULL;
    const char *name;
    *out = (tt_flextok_side){.width = 0};
    tt_status s = tt_config_member(&side, c, key, e);
    if (!s)
        s = tt_config_member(&list, side, "module_dict", e);
    for (int i = 0; !s && (name = tt_config_key(list, i)); i++) {
        tt_config *m = NULL;
        s = strlen(name) < sizeof out->name.patches
                ? tt_config_member(&m, list, name, e)
                : tt_fail(e, TT_EFORMAT, "module '%.60s...' has too long a name", name);
        if (!s)
            s = read_module(out, m, name, e);
        if (!s)
            s = tt_config_status(m, e);
        tt_config_close(m);
    }
    tt_config_close(list);
    tt_config_close(side);
    return s ? s : check(out, key, e);
}
