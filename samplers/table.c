/* table.c - every sampler, once. A new one is a file, a line in the list below and a test. */
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
    X(analytic)

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
