/* mask.c - see mask.h. */
#include "server/mask.h"

#include <stdio.h>
#include <unistd.h>

static tt_status from_generation_config(int32_t *id, const char *folder, tt_err *e)
{
    char path[4096];
    tt_config *c;
    snprintf(path, sizeof path, "%s/generation_config.json", folder);
    if (access(path, F_OK))
        return TT_OK;
    tt_status s = tt_config_open_file(&c, folder, "generation_config.json", e);
    if (s)
        return s;
    *id = (int32_t)tt_config_int(c, "mask_token_id", -1, 0, INT32_MAX);
    s = tt_config_status(c, e);
    tt_config_close(c);
    return s ? tt_context(e, s, "generation_config.json") : TT_OK;
}

tt_status tt_mask_find(tt_model_info *info, const char *folder, const tt_tok *tok, tt_err *e)
{
    int32_t id = -1;
    if (info->mask_id >= 0 || !(info->kinds & (TT_KIND_BIDIRECTIONAL | TT_KIND_BLOCKS)))
        return TT_OK;
    tt_status s = from_generation_config(&id, folder, e);
    if (s)
        return s;
    if (id < 0 && tok)
        id = tt_tok_mask(tok);
    if (id < 0)
        return tt_fail(e, TT_EFORMAT,
                       "no mask token: neither config.json nor "
                       "generation_config.json has 'mask_token_id', and the tokenizer has no "
                       "'mask_token'");
    if (id >= info->vocab)
        return tt_fail(e, TT_EFORMAT, "the mask token is %d, outside the %lld rows of the model",
                       id, (long long)info->vocab);
    info->mask_id = id;
    return TT_OK;
}
