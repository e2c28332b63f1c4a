/* table.c - every sampler, once. A new one is a file, a line in the list below and a test. */
#include <stdio.h>
#include <string.h>

#include "samplers/sampler.h"

#define TT_SAMPLERS(X) \
    X(low_confidence)  \
    X(threshold)       \
    X(factor)          \
    X(infill)          \
    X(dream)           \
    X(dream_fast)      \
    X(guided)          \
    X(llada2_block)    \
    X(llada21_block_edit) \
    X(ddpm)            \
    X(analytic)        \
    X(entropy_bound)   \
    X(hierarchy)       \
    X(credit)          \
    X(klass)           \
    X(slowfast)        \
    X(wino)            \
    X(insertion)       \
    X(forcing)         \
    X(recurrent)       \
    X(self_speculative)

#define DECLARE(id) extern const tt_sampler tt_sampler_##id;
TT_SAMPLERS(DECLARE)

#define ENTRY(id) &tt_sampler_##id,
static const tt_sampler *const table[] = {TT_SAMPLERS(ENTRY) NULL};

const tt_sampler *const *tt_sampler_all(void) { return table; }

const tt_sampler *tt_sampler_find(const char *name)
{
    for (const tt_sampler *const *s = table; *s; s++)
        if (!strcmp((*s)->name, name))
            return *s;
    return NULL;
}

bool tt_sampler_fits(const tt_sampler *s, uint32_t kinds)
{
    return !(s->needs & ~kinds) && (s->timed || !(kinds & TT_KIND_TIMED));
}

bool tt_sampler_reads(const tt_sampler *s, const tt_param *p)
{
    for (const char *const *name = s->params; *name; name++)
        if (!strcmp(*name, p->name))
            return true;
    return false;
}

bool tt_sampler_takes(const tt_sampler *s, const tt_param *p, int choice)
{
    if (p->choices != tt_cache_names)
        return true;
    return choice == TT_CACHE_AUTO ? s->caches != 0 : s->caches >> choice & 1;
}

tt_cache_kind tt_sampler_cache(const tt_sampler *s, const tt_params *p)
{
    tt_cache_kind kind = (tt_cache_kind)p->cache;
    if (kind == TT_CACHE_AUTO)
        return s->best_cache;
    /* What the model's defaults say is no request: a sampler that cannot do it does without. */
    bool idle = !(s->caches >> kind & 1) && !tt_params_given(p, "cache");
    return s->caches && !idle ? kind : TT_CACHE_NONE;
}

tt_status tt_sampler_check(const tt_sampler *s, const tt_params *p, tt_err *e)
{
    tt_cache_kind kind = tt_sampler_cache(s, p);
    const tt_param *cache = tt_param_find("cache");
    if (kind == TT_CACHE_NONE || tt_sampler_takes(s, cache, (int)kind))
        return TT_OK;
    char have[120] = "'none'";
    for (int i = 1; tt_cache_names[i]; i++)
        if (tt_sampler_takes(s, cache, i))
            snprintf(have + strlen(have), sizeof have - strlen(have), ", '%s'", tt_cache_names[i]);
    return tt_fail_param(e, "cache", "unsupported_value", "'cache' is '%s'; sampler '%s' has %s",
                         tt_cache_names[kind], s->name, have);
}

tt_status tt_block_check(const tt_sampler *s, const tt_params *p, int32_t columns, int32_t prompt,
                         tt_err *e)
{
    int32_t rest = columns - prompt;
    if (s->short_block || prompt < 1 || !tt_params_given(p, "block_length") ||
        rest % tt_block_columns(p, columns, prompt) == 0)
        return TT_OK;
    return tt_fail_param(e, "block_length", "invalid_value",
                         "'block_length' is %d, which does not divide the answer's %d tokens; "
                         "sampler '%s' needs whole blocks", p->block_length, rest, s->name);
}

int32_t tt_sampler_store(const tt_sampler *s, const tt_params *p, int32_t columns, int32_t prompt)
{
    if (s->shadows)
        return columns + tt_block_columns(p, columns, prompt);
    return s->keeps || tt_sampler_cache(s, p) != TT_CACHE_NONE ? columns : 0;
}

tt_memo_kind tt_sampler_memo(const tt_sampler *s, const tt_params *p)
{
    if (s->compares)
        return TT_MEMO_HIDDEN;
    bool smooths = p->smoothing > 0 && tt_sampler_reads(s, tt_param_find("smoothing"));
    return smooths ? TT_MEMO_MEAN : TT_MEMO_NONE;
}

tt_kv_sharing tt_sampler_sharing(const tt_sampler *s, const tt_params *p)
{
    tt_kv_sharing sharing = {.entries = 1};
    tt_latent_size latents = {0};
    if (s->keeps_depth)
        s->keeps_depth(p, &sharing, &latents);
    return sharing;
}

tt_latent_size tt_sampler_latents(const tt_sampler *s, const tt_params *p, int32_t columns)
{
    tt_kv_sharing sharing;
    tt_latent_size latents = {0};
    if (s->keeps_depth)
        s->keeps_depth(p, &sharing, &latents);
    latents.columns = latents.columns < columns ? latents.columns : columns;
    return latents;
}

bool tt_sampler_shares(const tt_sampler *s, const tt_params *p)
{
    return !s->needs_guide && !s->revises && !s->inserts && !s->shadows &&
           !(s->needs & TT_KIND_RECURRENT) &&
           tt_sampler_memo(s, p) == TT_MEMO_NONE && tt_sampler_cache(s, p) != TT_CACHE_DKV;
}
