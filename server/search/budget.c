/* budget.c - how much a search over images is: candidates at a time, forwards, memory; and what it
 * does when that is more than it was given.
 *
 * A forward is one step of one candidate. Decoding and scoring are not counted; time is. */
#include "server/search/parts.h"

/* --- candidates --- */

int64_t tt_ps_pool(const tt_search_spec *p)
{
    return p->algorithm->by_steps ? (int64_t)p->beams * p->candidates : p->samples;
}

int64_t tt_ps_first_pool(const tt_search_spec *p)
{
    return p->algorithm->by_steps && !p->fill_first ? p->candidates : tt_ps_pool(p);
}

static int64_t kept_of(const tt_search_spec *p)
{
    return p->beams > p->results ? p->beams : p->results;
}

int32_t tt_picture_search_widest(const tt_picture_search *s)
{
    return (int32_t)(tt_ps_pool(&s->spec.rules) + kept_of(&s->spec.rules));
}

size_t tt_picture_search_bytes(const tt_picture_search *s)
{
    const tt_search_spec *p = &s->spec.rules;
    const tt_planner *planner = tt_planner_for(s->run.generator->info.kind);
    int32_t tokens = s->run.codec->info.layout.tokens;
    size_t state = s->run.generator->info.state_bytes; /* while there are tokens to come */
    size_t one = sizeof(tt_node) + tt_image_seq_bytes(planner, tokens) +
                 (size_t)tokens * sizeof(int32_t) + tt_ps_picture_bytes(s);
    size_t kept = (size_t)kept_of(p), pool = (size_t)tt_ps_pool(p);
    size_t shown = p->algorithm->ahead || p->complete ? pool + kept : 0;
    size_t states = !p->algorithm->by_steps ? 0 : pool + 2 * kept + (p->ahead > 0 ? shown : 0);
    return (pool + 2 * kept + shown) * one + states * state;
}

/* --- forwards --- */

bool tt_ps_splits(const tt_picture_search *s, const tt_search_work *o)
{
    return o->each > 1 && o->add > 1 && !tt_ps_masked(s);
}

/* Forwards of an order. */
static int64_t cost_of(const tt_picture_search *s, const tt_search_work *o)
{
    int64_t n = o->sequences;
    if (o->kind != TT_ORDER_EXTEND || (s->spec.uniform && !o->rollout))
        return 0;
    return tt_ps_splits(s, o) ? n * (o->add - 1) + n * o->each : n * o->each * o->add;
}

/* Forwards before anything is scored. */
static int64_t first_cost(const tt_picture_search *s)
{
    const tt_search_spec *p = &s->spec.rules;
    const tt_search_work *o = tt_search_order(s->rules);
    int64_t cost = cost_of(s, o);
    if (!p->algorithm->ahead || p->ahead_steps == 0)
        return cost;
    int64_t left = s->steps - o->add;
    left = p->ahead > 0 && p->ahead < left ? p->ahead : left;
    return cost + (int64_t)o->sequences * o->each * left;
}

tt_status tt_ps_fit_budget(tt_picture_search *s, tt_err *e)
{
    tt_search_spec *p = &s->spec.rules;
    int64_t most = s->spec.max_forwards;
    if (!most || p->algorithm->by_steps || s->spec.uniform || most / s->steps >= p->samples)
        return TT_OK;
    if (most / s->steps < p->results)
        return tt_fail_param(e, "search.budget.forwards", "invalid_value",
                             "'tutti.search.budget.forwards' is %lld; %d results take %lld",
                             (long long)most, p->results, (long long)p->results * s->steps);
    p->samples = (int32_t)(most / s->steps);
    tt_ps_tell_budget(s);
    return TT_OK;
}

tt_status tt_ps_check_budget(const tt_picture_search *s, tt_err *e)
{
    int64_t most = s->spec.max_forwards, first = first_cost(s);
    if (!most || first <= most)
        return TT_OK;
    return tt_fail_param(e, "search.budget.forwards", "invalid_value",
                         "'tutti.search.budget.forwards' is %lld; the first step takes %lld",
                         (long long)most, (long long)first);
}

/* --- while it runs --- */

static bool out_of_time(const tt_picture_search *s)
{
    return s->spec.max_ms && tt_ps_elapsed_ms(s) > (double)s->spec.max_ms;
}

bool tt_ps_spent(const tt_picture_search *s, const tt_search_work *o)
{
    if (o->kind != TT_ORDER_EXTEND)
        return false;
    if (s->spec.max_forwards && s->report.forwards + cost_of(s, o) > s->spec.max_forwards)
        return true;
    return s->report.stages && out_of_time(s);
}

bool tt_picture_search_curtail(tt_picture_search *s, int32_t begun)
{
    tt_search_spec *p = &s->spec.rules;
    if (p->algorithm->by_steps || s->phase != TT_PS_GROW || begun < p->results ||
        begun >= s->pieces.n || !out_of_time(s))
        return false;
    tt_search *fewer;
    tt_search_spec spec = *p;
    spec.samples = begun;
    if (tt_search_open(&fewer, &spec, NULL))
        return false;
    tt_search_close(s->rules);
    s->rules = fewer;
    p->samples = s->pieces.n = begun;
    pthread_mutex_lock(&s->lock);
    s->report.candidates = begun;
    s->report.budget = true;
    pthread_mutex_unlock(&s->lock);
    return true;
}
