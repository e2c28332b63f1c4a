/* fit.c - what the rules of a search over images come to for the model.
 *
 * A request gives its schedule in tokens and knows nothing of how the generator works; the search
 * counts in the generator's steps. Here the one becomes the other, and what this model cannot do is
 * refused with the field's name. */
#include <math.h>
#include <stdio.h>

#include "server/search/parts.h"

bool tt_ps_judges_pictures(const tt_picture_search *s, bool say)
{
    for (int i = 0; i < s->spec.jurors; i++) {
        const tt_juror *j = &s->spec.juror[i];
        if ((j->verifier || j->scorer) && (j->weight > 0) == say)
            return true;
    }
    return false;
}

/* --- the schedule --- */

/* Whether the first so many tokens are something that can be decoded. */
static bool ends_a_level(const tt_codec_info *c, int32_t tokens)
{
    int32_t end = 0;
    if (!c->prefix_decodable || c->layout.kind == TT_LAYOUT_SEQUENCE)
        return true;
    for (int32_t i = 0; i < c->layout.levels && end < tokens; i++)
        end += c->layout.level[i];
    return end == tokens;
}

/* Steps that give at least so many tokens, and such as can be decoded; of a masked image: so many
 * steps. */
static int32_t steps_for(const tt_picture_search *s, int32_t count)
{
    const tt_generator_info *g = &s->run.generator->info;
    if (tt_ps_masked(s))
        return count < s->steps ? count : s->steps;
    for (int32_t k = 0, tokens = 0; k < s->steps; k++) {
        tokens += tt_ps_single(s) ? 1 : g->layout.level[k];
        if (tokens >= count && ends_a_level(&s->run.codec->info, tokens))
            return k + 1;
    }
    return s->steps;
}

/* Entries of a schedule that goes on to the whole image; 0: its kind has no such number. */
static int32_t whole_schedule(const tt_schedule *k, int32_t length)
{
    if (k->kind == TT_SCHEDULE_FIXED)
        return length;
    if (k->kind == TT_SCHEDULE_LINEAR)
        return k->per_step > 0 ? (length + k->per_step - 1) / k->per_step : 1;
    return k->base > 1 ? (int32_t)ceil(log(length) / log(k->base) - 1e-9) + 1 : 0;
}

/* The schedule in steps, in the list. Without a number of entries it goes on to the whole image. */
static tt_status set_schedule(tt_picture_search *s, int32_t *list, tt_err *e)
{
    tt_schedule *k = &s->spec.rules.schedule;
    int32_t length = tt_ps_masked(s) ? s->steps : s->run.codec->info.layout.tokens;
    tt_schedule full = *k;
    full.steps = k->steps ? k->steps : whole_schedule(k, length);
    tt_status st = tt_schedule_counts(list, &full, length, e);
    for (int32_t i = 0; i < full.steps && !st; i++)
        list[i] = steps_for(s, list[i]);
    *k = (tt_schedule){.list = list, .steps = full.steps};
    return st;
}

/* --- the rules --- */

static tt_status invalid(tt_err *e, const char *field, const char *why)
{
    char path[80];
    snprintf(path, sizeof path, "search.%s", field);
    return tt_fail_param(e, path, "invalid_value", "'tutti.search.%s' %s", field, why);
}

/* What depends on the model. */
static tt_status fit_rules(tt_picture_search *s, tt_err *e)
{
    tt_search_spec *p = &s->spec.rules;
    bool prefixes = s->run.codec->info.prefix_decodable || tt_ps_masked(s);
    if (!p->sample && p->algorithm->by_steps && !tt_ps_single(s))
        return invalid(e, "sample",
                       "can be false only of models that give one token at a time: the "
                       "most likely tokens of a whole step are the same for every candidate");
    if (!p->sample && !p->algorithm->by_steps)
        return invalid(e, "sample", "cannot be false with best_of: all samples would be the same");
    if (s->spec.uniform && !tt_ps_judges_pictures(s, true))
        return invalid(e, "prior", "cannot be uniform where nothing but likelihood is looked at");
    if (s->spec.uniform && tt_ps_masked(s))
        return invalid(e, "prior", "can be uniform only of models whose tokens come in order");
    if (!p->algorithm->by_steps || prefixes)
        return TT_OK;
    if (p->algorithm->ahead && (p->ahead != -1 || p->ahead_steps != -1))
        return invalid(e, p->ahead != -1 ? "lookahead" : "lookahead_steps",
                       "must be -1: the model's pictures need all their tokens");
    p->algorithm = tt_search_find("lookahead");
    p->ahead = p->ahead_steps = -1;
    return TT_OK;
}

static tt_status check_pool(const tt_search_spec *p, tt_err *e)
{
    long long pool = tt_ps_pool(p), first = tt_ps_first_pool(p);
    if (pool < 1 || pool > TT_MAX_CANDIDATES)
        return tt_fail_param(e, p->algorithm->by_steps ? "search.candidates" : "search.samples",
                             "invalid_value", "%lld candidates at a time, at most %d", pool,
                             TT_MAX_CANDIDATES);
    if (p->results > first)
        return tt_fail_param(e, "search.results", "invalid_value",
                             "%d results; the first step has %lld candidates", p->results, first);
    return TT_OK;
}

/* Opens a run as samples have them, for the number of steps and for what parameters it refuses. */
static tt_status try_run(tt_picture_search *s, tt_err *e)
{
    tt_picture_run r;
    tt_status st = tt_picture_run_open(&r, &s->run, e);
    if (st)
        return st;
    s->steps = r.seq.steps;
    bool given = r.seq.free != r.layout.tokens;
    tt_picture_run_close(&r);
    return given ? tt_fail_param(e, "search", "unsupported_value",
                                 "a search makes whole images: none of their tokens may be given")
                 : TT_OK;
}

tt_status tt_ps_fit(tt_picture_search *s, tt_err *e)
{
    tt_search_spec *p = &s->spec.rules;
    int32_t list[TT_MAX_SEARCH_STEPS];
    tt_status st = try_run(s, e);
    if (st)
        return st;
    st = fit_rules(s, e);
    if (!st)
        st = check_pool(p, e);
    if (!st && p->algorithm->by_steps)
        st = set_schedule(s, list, e);
    if (!st)
        st = tt_ps_fit_budget(s, e);
    p->length = s->steps;
    if (!st)
        st = tt_search_open(&s->rules, p, e);
    p->schedule.list = NULL; /* the rules have a copy */
    if (st && !*e->param) {
        tt_err unnamed = *e;
        tt_fail_param(e, "search", "invalid_value", "%s", unnamed.text);
    }
    return st ? st : tt_ps_check_budget(s, e);
}
