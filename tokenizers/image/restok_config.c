/* restok_config.c - sizes of a ResTok from its config.json, and what is not supported. A folder of
 * ours may hold tiny_overrides: sizes that the released code does not let one choose. */
#include <string.h>

#include "tokenizers/image/restok.h"

static void sizes_of(tt_restok_tower *t, const char *size)
{
    bool small = !strcmp(size, "small"), base = !strcmp(size, "base");
    t->vit.width = small ? 512 : base ? 768 : 1024;
    t->layers = small ? 6 : base ? 12 : 24;
    t->vit.heads = small ? 8 : base ? 12 : 16;
}

/* Settings of models nobody released. */
static tt_status check_variant(tt_config *m, tt_err *e)
{
    static const struct {
        const char *key;
        bool released;
    } key[] = {{"merge_tokens", true},          {"residual_image_tokens", true},
               {"residual_latent_tokens", true}, {"learnable_latent_tokens", false},
               {"learnable_dec_image_tokens", true}, {"multi_quant", true},
               {"vae_encoder", true},           {"latent_hierarchy", true},
               {"use_l2_norm", true},           {"is_legacy", true}};
    for (size_t i = 0; i < sizeof key / sizeof *key; i++)
        if (tt_config_bool(m, key[i].key, key[i].released) != key[i].released)
            return tt_fail(e, TT_EUNSUP, "config key '%s': %s is not supported", key[i].key,
                           key[i].released ? "false" : "true");
    if (tt_config_float(m, "reduction_ratio", 0.5, 0, 1) != 0.5)
        return tt_fail(e, TT_EUNSUP, "config key 'reduction_ratio': only 0.5 is supported");
    return TT_OK;
}

/* Sizes that double from 1, 1, 2, ... to n. */
static tt_status read_levels(tt_restok *r, int32_t tokens, tt_err *e)
{
    tt_layout *l = &r->base.info.layout;
    if (tokens < 4 || tokens > 256 || tokens & (tokens - 1))
        return tt_fail(e, TT_EFORMAT, "config key 'num_latent_tokens': %d is not a power of two in "
                       "4..256", tokens);
    l->kind = TT_LAYOUT_LEVELS;
    l->tokens = tokens;
    l->level[l->levels++] = 1;
    for (int32_t n = 1; n < tokens; n *= 2)
        l->level[l->levels++] = n;
    return TT_OK;
}

static void read_pixels(tt_restok *r, tt_config *p)
{
    static const int64_t usual[] = {1, 1, 2, 2, 4};
    int64_t ch = p ? tt_config_int(p, "hidden_channels", 128, 1, 1 << 12) : 128;
    r->blocks = p ? tt_config_int(p, "num_res_blocks", 2, 1, TT_RESTOK_BLOCKS) : 2;
    r->z = p ? tt_config_int(p, "z_channels", 256, 1, 1 << 14) : 256;
    r->groups = p ? tt_config_int(p, "norm_groups", 32, 1, 1 << 10) : 32;
    while (r->scales < TT_RESTOK_SCALES) {
        int64_t by = r->scales < 5 ? usual[r->scales] : 0;
        if (p)
            by = tt_config_int_at(p, "channel_mult", r->scales, 0, 0, 64);
        if (!by)
            break;
        r->channel[r->scales++] = ch * by;
    }
}

static void read_towers(tt_restok *r, tt_config *m, tt_config *tiny)
{
    static const char *const size[] = {"vit_enc_model_size", "vit_dec_model_size"};
    tt_restok_tower *t[] = {&r->in, &r->out};
    for (int i = 0; i < 2; i++) {
        sizes_of(t[i], tt_config_text(m, size[i], "large"));
        if (tiny) {
            t[i]->vit.width = tt_config_need_int(tiny, "width", 4, 1 << 14);
            t[i]->layers = tt_config_need_int(tiny, "num_layers", 1, 1024);
            t[i]->vit.heads = tt_config_need_int(tiny, "num_heads", 1, 1024);
            r->in_place = tt_config_bool(tiny, "in_place", false);
        }
        t[i]->vit.ff = 4 * t[i]->vit.width;
        t[i]->vit.eps = 1e-5f;
        t[i]->vit.act = TT_VIT_GELU_ERF;
    }
}

/* Sizes that each are possible, but not together. */
static tt_status check_sizes(tt_restok *r, int64_t pixels, tt_err *e)
{
    int64_t hd = r->in.vit.width / r->in.vit.heads;
    r->side = r->scales ? pixels >> (r->scales - 1) : 0;
    bool whole = r->scales && r->side << (r->scales - 1) == pixels;
    bool merges = r->side >= 1 && !(r->side & (r->side - 1)) && r->side >> (r->stages - 1) >= 1;
    bool heads = hd % 4 == 0 && hd <= 512 && r->in.vit.width % r->in.vit.heads == 0;
    return whole && merges && heads
               ? TT_OK
               : tt_fail(e, TT_EFORMAT, "config key 'crop_size': %lld pixels in %lld scales, heads "
                         "of %lld", (long long)pixels, (long long)r->scales, (long long)hd);
}

static tt_status read_model(tt_restok *r, tt_config *m, tt_config *tiny, int64_t pixels, tt_err *e)
{
    tt_config *p = NULL;
    tt_status s = check_variant(m, e);
    if (!s && tiny)
        s = tt_config_member(&p, tiny, "pixel", e);
    if (s)
        return s;
    read_pixels(r, p);
    read_towers(r, m, tiny);
    r->dims = tt_config_need_int(m, "token_size", 1, 256);
    r->base.info.layout.codes = (int32_t)tt_config_need_int(m, "codebook_size", 2, 1 << 24);
    r->theta = tt_config_float(m, "rope_base_len", 10000, 1, 1e9);
    r->stages = tt_config_int(m, "hierarchy_stages", 4, 1, TT_RESTOK_STAGES);
    int32_t tokens = (int32_t)tt_config_need_int(m, "num_latent_tokens", 4, 256);
    s = tt_config_status(m, e);
    if (!s && tiny)
        s = tt_config_status(tiny, e);
    if (!s && p)
        s = tt_config_status(p, e);
    tt_config_close(p);
    if (!s)
        s = read_levels(r, tokens, e);
    return s ? s : check_sizes(r, pixels, e);
}

static const char *const unread[] = {"model_type", "quantization", NULL};

tt_status tt_restok_read_config(tt_restok *r, tt_config *c, tt_err *e)
{
    tt_config *model = NULL, *vq = NULL, *data = NULL, *prep = NULL, *tiny = NULL;
    tt_status s = tt_config_member(&model, c, "model", e);
    if (!s)
        s = tt_config_member(&vq, model, "vq_model", e);
    if (!s)
        s = tt_config_member(&data, c, "dataset", e);
    if (!s)
        s = tt_config_member(&prep, data, "preprocessing", e);
    if (!s && tt_config_has(c, "tiny_overrides"))
        s = tt_config_member(&tiny, c, "tiny_overrides", e);
    int64_t pixels = s ? 0 : tt_config_need_int(prep, "crop_size", 4, 1 << 12);
    if (!s)
        s = tt_config_status(prep, e);
    tt_config_ignore(c, unread);
    if (!s)
        s = read_model(r, vq, tiny, pixels, e);
    r->base.info.width = r->base.info.height = (int32_t)pixels;
    tt_config_close(tiny);
    tt_config_close(prep);
    tt_config_close(data);
    tt_config_close(vq);
    tt_config_close(model);
    return s;
}
