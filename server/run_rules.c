/* run_rules.c - see run_rules.h. */
#include "server/run_rules.h"

#include <math.h>
#include <stdlib.h>

#include "server/run_rows.h"

enum { SLACK = 64 }; /* alignment of a list */

/* Lists that tt_run_plan() makes for the rules, two of each: see tt_run_constrain(). */
size_t tt_run_rule_bytes(const tt_run_spec *s)
{
    size_t ids = 0, columns = 0;
    for (int32_t i = 0; i < s->rules; i++) {
        ids += (size_t)s->rule[i].n;
        columns += (size_t)(s->rule[i].end - s->rule[i].begin);
    }
    size_t lists = s->rules ? 2 * (size_t)s->rules + 1 : 0;
    if (columns < lists || s->sampler->biases_columns)
        lists = columns; /* else neighbours under the same rules share one */
    lists *= s->sampler->shadows ? 2 : 1;
    return 2 * lists * (((size_t)s->n_bias + TT_SPARE_BIASES + ids) * sizeof(tt_id_value) + SLACK);
}

/* A shadow stands under the rules of its column. */
static bool covers(const tt_run *r, const tt_column_rule *rule, const tt_ask *a)
{
    int32_t shift = tt_run_is_shadow(r, a) ? r->seq.columns - r->plan.shadow_begin : 0;
    return rule->begin <= a->column - shift && a->column - shift < rule->end;
}

static bool same_rules(const tt_run *r, const tt_ask *a, const tt_ask *b)
{
    for (int32_t i = 0; i < r->rules; i++)
        if (covers(r, &r->rule[i], a) != covers(r, &r->rule[i], b))
            return false;
    return true;
}

static int by_id(const void *a, const void *b)
{
    const tt_id_value *x = a, *y = b;
    if (x->id != y->id)
        return x->id < y->id ? -1 : 1;
    return (x->value > y->value) - (x->value < y->value);
}

/* The ask's biases with what the rules ban at its column; the ban wins. */
static tt_status add_bans(tt_run *r, tt_ask *a, tt_err *e)
{
    int32_t n = a->draw.n_bias, kept = 0;
    for (int32_t i = 0; i < r->rules; i++)
        n += covers(r, &r->rule[i], a) && !r->rule[i].allow ? r->rule[i].n : 0;
    if (n == a->draw.n_bias)
        return TT_OK;
    tt_id_value *list = TT_TAKE(&r->step, n, tt_id_value);
    if (!list)
        return tt_fail(e, TT_ENOMEM, "no memory for the rules of column %d", a->column);
    n = a->draw.n_bias;
    for (int32_t i = 0; i < n; i++)
        list[i] = a->draw.bias[i];
    for (int32_t i = 0; i < r->rules; i++)
        for (int32_t k = 0; covers(r, &r->rule[i], a) && !r->rule[i].allow && k < r->rule[i].n; k++)
            list[n++] = (tt_id_value){r->rule[i].id[k], -INFINITY};
    qsort(list, (size_t)n, sizeof *list, by_id);
    for (int32_t i = 0; i < n; i++) /* of equal ids the lowest value came first */
        if (!kept || list[i].id != list[kept - 1].id)
            list[kept++] = list[i];
    a->draw.bias = list;
    a->draw.n_bias = kept;
    return TT_OK;
}

tt_status tt_run_constrain(tt_run *r, tt_err *e)
{
    const tt_id_value *from = NULL;
    for (int32_t i = 0; i < r->plan.asks; i++) {
        tt_ask *a = &r->plan.ask[i];
        const tt_ask *before = i ? a - 1 : NULL;
        for (int32_t k = 0; k < r->rules; k++)
            if (r->rule[k].allow && covers(r, &r->rule[k], a)) {
                a->draw.allow = r->rule[k].id;
                a->draw.n_allow = r->rule[k].n;
            }
        bool shared = before && a->draw.bias == from && same_rules(r, a, before);
        from = a->draw.bias;
        if (shared) {
            a->draw.bias = before->draw.bias;
            a->draw.n_bias = before->draw.n_bias;
            continue;
        }
        tt_status s = add_bans(r, a, e);
        if (s)
            return s;
    }
    return TT_OK;
}
