/* params.c - see params.h. */
#include "samplers/params.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *const tt_remask_names[] = {"confidence", "margin", "entropy", "random", "origin", NULL};
const char *const tt_cache_names[] = {"none",     "prefix", "dual", "free", "dkv",
                                        "vicinity", "auto",   NULL};
const char *const tt_guide_names[] = {"deterministic", "topk", "topk_relative", NULL};
const char *const tt_order_names[] = {"enat", "maskgit", "halton", NULL};
const char *const tt_ramp_names[] = {"linear", "constant", "cosine", NULL};

static const tt_param table[] = {
#define ENTRY(member, t, n, lo, hi, def, ch, h)                                                    \
    {.name = n, .type = TT_PARAM_##t, .offset = offsetof(tt_params, member), .min = lo,            \
     .max = hi, .fallback = def, .choices = ch, .help = h},
    TT_PARAMS(ENTRY)
#undef ENTRY
};
enum { COUNT = sizeof table / sizeof *table };
_Static_assert(COUNT <= 128, "tt_params.given has a bit per parameter");

const tt_param *tt_param_all(size_t *n)
{
    *n = COUNT;
    return table;
}

const tt_param *tt_param_find(const char *name)
{
    for (size_t i = 0; i < COUNT; i++)
        if (!strcmp(table[i].name, name))
            return &table[i];
    return NULL;
}

static void store(tt_params *p, const tt_param *param, double v)
{
    char *at = (char *)p + param->offset;
    int32_t whole = (int32_t)v;
    bool truth = v != 0;
    switch (param->type) {
    case TT_PARAM_INT:
    case TT_PARAM_CHOICE:
        memcpy(at, &whole, sizeof whole);
        break;
    case TT_PARAM_FLOAT:
        memcpy(at, &v, sizeof v);
        break;
    case TT_PARAM_BOOL:
        memcpy(at, &truth, sizeof truth);
        break;
    }
}

void tt_params_default(tt_params *p)
{
    memset(p, 0, sizeof *p);
    for (size_t i = 0; i < COUNT; i++)
        store(p, &table[i], table[i].fallback);
}

tt_status tt_params_set(tt_params *p, const tt_param *param, double v, tt_err *e)
{
    if (!isfinite(v) || v < param->min || v > param->max)
        return tt_fail_param(e, param->name, "invalid_value", "'%s' is %g, must be in %g..%g",
                             param->name, v, param->min, param->max);
    if (param->type != TT_PARAM_FLOAT && v != floor(v))
        return tt_fail_param(e, param->name, "invalid_value", "'%s' is %g, must be an integer",
                             param->name, v);
    store(p, param, v);
    p->given[(param - table) / 64] |= (uint64_t)1 << (param - table) % 64;
    return TT_OK;
}

static tt_status bad_text(const tt_param *param, const char *text, const char *want, tt_err *e)
{
    return tt_fail_param(e, param->name, "invalid_value", "'%s' is '%.60s', must be %s",
                         param->name, text, want);
}

tt_status tt_params_set_text(tt_params *p, const tt_param *param, const char *text, tt_err *e)
{
    if (param->type == TT_PARAM_BOOL) {
        if (!strcmp(text, "true") || !strcmp(text, "1"))
            return tt_params_set(p, param, 1, e);
        if (!strcmp(text, "false") || !strcmp(text, "0"))
            return tt_params_set(p, param, 0, e);
        return bad_text(param, text, "true or false", e);
    }
    if (param->type == TT_PARAM_CHOICE) {
        char want[200] = "one of";
        for (int i = 0; param->choices[i]; i++) {
            if (!strcmp(param->choices[i], text))
                return tt_params_set(p, param, i, e);
            strncat(want, i ? ", " : " ", sizeof want - strlen(want) - 1);
            strncat(want, param->choices[i], sizeof want - strlen(want) - 1);
        }
        return bad_text(param, text, want, e);
    }
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end)
        return bad_text(param, text, "a number", e);
    return tt_params_set(p, param, v, e);
}

bool tt_params_given_at(const tt_params *p, size_t i)
{
    return p->given[i / 64] >> i % 64 & 1;
}

bool tt_params_given(const tt_params *p, const char *name)
{
    return tt_params_given_at(p, (size_t)(tt_param_find(name) - table));
}

double tt_params_get(const tt_params *p, const tt_param *param)
{
    const char *at = (const char *)p + param->offset;
    int32_t whole;
    double v;
    bool truth;
    switch (param->type) {
    case TT_PARAM_FLOAT:
        memcpy(&v, at, sizeof v);
        return v;
    case TT_PARAM_BOOL:
        memcpy(&truth, at, sizeof truth);
        return truth;
    default:
        memcpy(&whole, at, sizeof whole);
        return whole;
    }
}
