/* trunk_model.c - see trunk_model.h. */
#include "models/nn/trunk_model.h"

#include <stdlib.h>
#include <string.h>

static tt_status bind(tt_trunk_model *m, const tt_weights *w, tt_config *c, tt_trunk_read *read,
                      const void *arg, const tt_trunk_loading *l, tt_err *e)
{
    tt_trunk *t = &m->trunk;
    tt_trunk_plan plan = {0};
    tt_status s = read(m, w, c, arg, &plan, e);
    if (!s)
        s = tt_config_status(c, e);
    int64_t turning = plan.rotary.width;
    if (!s && (turning < 2 || turning % 2 || turning > t->head_dim))
        s = tt_fail(e, TT_EFORMAT,
                    "config key 'partial_rotary_factor': %lld of a head's %lld channels rotate; "
                    "that must be an even number",
                    (long long)turning, (long long)t->head_dim);
    if (!s && !t->layer)
        s = tt_trunk_layers(t, e);
    if (s)
        return s;
    s = tt_trunk_open(t, w, &plan.names, l->mode, &plan.rotary, plan.tied, l->progress,
                      l->progress_arg, e);
    if (s)
        return tt_context(e, s, "%s checkpoint", m->base.def->family);
    tt_trunk_info(t, &m->base, w);
    return TT_OK;
}

tt_status tt_trunk_model_open(tt_model **out, const tt_model_def *def, tt_stream *stream,
                              const tt_weights *w, tt_config *c, tt_trunk_read *read,
                              const void *arg, const tt_trunk_loading *loading, tt_err *e)
{
    *out = NULL;
    tt_trunk_model *m = calloc(1, sizeof *m);
    if (!m)
        return tt_fail(e, TT_ENOMEM, "no memory for a model");
    m->base.def = def;
    m->base.stream = m->trunk.stream = stream;
    tt_status s = bind(m, w, c, read, arg, loading, e);
    if (s)
        tt_trunk_model_close(&m->base);
    else
        *out = &m->base;
    return s;
}

void tt_trunk_model_close(tt_model *base)
{
    tt_trunk_model *m = (tt_trunk_model *)base;
    tt_trunk_close(&m->trunk);
    free(m->own);
    free(m);
}

tt_status tt_trunk_model_run(tt_model *m, const tt_pass *p, tt_err *e)
{
    return tt_trunk_run(&((tt_trunk_model *)m)->trunk, p, e);
}

size_t tt_trunk_model_pass_bytes(const tt_model *m, int64_t rows, int64_t wants)
{
    return tt_trunk_pass_bytes(&((const tt_trunk_model *)m)->trunk, rows, wants);
}

tt_status tt_trunk_check_shape(const tt_trunk_model *m, const char *kv_key, tt_err *e)
{
    const tt_trunk *t = &m->trunk;
    const tt_model_info *info = &m->base.info;
    if (t->heads % t->kv_heads)
        return tt_fail(e, TT_EFORMAT, "config key '%s': %lld heads do not share %lld", kv_key,
                       (long long)t->heads, (long long)t->kv_heads);
    if (t->head_dim < 2 || t->head_dim % 2)
        return tt_fail(e, TT_EFORMAT, "heads of width %lld; it must be even",
                       (long long)t->head_dim);
    if (info->mask_id >= t->vocab || info->eos_id >= t->vocab || info->eot_id >= t->vocab)
        return tt_fail(e, TT_EFORMAT, "a token id of the config lies outside the %lld rows",
                       (long long)t->vocab);
    return TT_OK;
}

tt_status tt_trunk_must_be_false(tt_config *c, const char *const *keys, tt_err *e)
{
    for (; *keys; keys++)
        if (tt_config_bool(c, *keys, false))
            return tt_fail(e, TT_EUNSUP, "config key '%s': true is not supported", *keys);
    return TT_OK;
}

tt_status tt_trunk_must_be(tt_config *c, const char *key, const char *text, tt_err *e)
{
    const char *have = tt_config_text(c, key, text);
    if (!strcmp(have, text))
        return TT_OK;
    return tt_fail(e, TT_EUNSUP, "config key '%s' is '%.40s'; only '%s' is supported", key, have,
                   text);
}

tt_status tt_trunk_check_router(const tt_trunk *t, tt_err *e)
{
    const tt_router *r = &t->router;
    if (r->groups < 1 || r->top_groups > r->groups || r->experts % r->groups)
        return tt_fail(e, TT_EFORMAT, "%d experts do not split into %d groups, %d of them chosen",
                       r->experts, r->groups, r->top_groups);
    if (r->top_k > r->experts / r->groups * r->top_groups)
        return tt_fail(e, TT_EFORMAT, "%d experts a row, but only %d can be chosen", r->top_k,
                       r->experts / r->groups * r->top_groups);
    return TT_OK;
}
