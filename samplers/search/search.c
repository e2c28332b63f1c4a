/* search.c - best of N, beam search and lookahead as one machine of orders and answers.
 *
 *   extend -> (roll out) -> score -> keep the best -> extend ... -> (complete -> score) -> done
 *
 * Best of N is a single turn of it, with N beginnings and whole sequences. */
#include "samplers/search.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef enum { GROW, AHEAD, SCORE, COMPLETE, FINAL } phase;

/* Sequences and the room of their tokens: row i of each block belongs to candidate i. */
typedef struct {
    tt_candidate *list;
    int32_t *token, *shown;
    int32_t n, room;
} pool;

struct tt_search {
    tt_search_spec spec;
    int32_t count[TT_MAX_SEARCH_STEPS]; /* tokens after each step, those given included */
    int32_t steps, step;
    phase phase;
    pool beam; /* the best of the last scored pool, or where the search begins */
    pool now;  /* candidates of the step */
    int32_t results;
    tt_search_work order;
};

/* --- schedules --- */

tt_status tt_schedule_counts(int32_t *count, const tt_schedule *s, int32_t length, tt_err *e)
{
    if (s->steps < 1 || s->steps > TT_MAX_SEARCH_STEPS)
        return tt_fail(e, TT_EINVAL, "search.steps: %d is not in 1 .. %d", s->steps,
                       TT_MAX_SEARCH_STEPS);
    if (!s->list && s->kind == TT_SCHEDULE_GEOMETRIC && !(s->base > 1 && s->base <= 65536))
        return tt_fail(e, TT_EINVAL, "search.base: %g is not above 1 (and at most 65536)", s->base);
    if (!s->list && s->kind == TT_SCHEDULE_LINEAR && s->per_step < 1)
        return tt_fail(e, TT_EINVAL, "search.per_step: %d is not at least 1", s->per_step);
    double power = 1;
    for (int32_t i = 0; i < s->steps; i++, power *= s->base) {
        int64_t n = i + 1;
        if (s->list)
            n = s->list[i];
        else if (s->kind == TT_SCHEDULE_GEOMETRIC)
            n = power < length ? (int64_t)power : length;
        else if (s->kind == TT_SCHEDULE_LINEAR)
            n = (int64_t)s->per_step * (i + 1);
        if (n < 1 || (i && n < count[i - 1] && count[i - 1] < length))
            return tt_fail(e, TT_EINVAL, "search.schedule: entry %d is %lld; counts begin at 1 and "
                           "do not fall", i, (long long)n);
        count[i] = n < length ? (int32_t)n : length;
    }
    return TT_OK;
}

/* --- pools --- */

static tt_status pool_open(pool *p, int64_t room, int32_t length, tt_err *e)
{
    size_t tokens = (size_t)room * (size_t)length;
    p->list = calloc((size_t)room, sizeof *p->list);
    p->token = malloc(tokens * sizeof *p->token);
    p->shown = malloc(tokens * sizeof *p->shown);
    p->room = (int32_t)room;
    return p->list && p->token && p->shown
               ? TT_OK
               : tt_fail(e, TT_ENOMEM, "no memory for a search of %lld candidates",
                         (long long)room);
}

static void pool_close(pool *p)
{
    free(p->list);
    free(p->token);
    free(p->shown);
}

/* Candidate i becomes a copy of c, which shows what it holds unless c shows more. */
static void put(pool *p, int32_t i, const tt_candidate *c, int32_t length)
{
    int32_t *token = p->token + (int64_t)i * length, *shown = p->shown + (int64_t)i * length;
    if (c->tokens)
        memcpy(token, c->token, (size_t)c->tokens * sizeof *token);
    if (c->showns)
        memcpy(shown, c->shown, (size_t)c->showns * sizeof *shown);
    p->list[i] = *c;
    p->list[i].token = token;
    p->list[i].shown = shown;
}

/* --- orders --- */

static bool looks_ahead(const tt_search *s)
{
    return s->spec.algorithm->ahead && (s->spec.ahead_steps < 0 || s->step < s->spec.ahead_steps);
}

static void extend(tt_search *s, const pool *p, int32_t add, int32_t each, bool rollout)
{
    s->order = (tt_search_work){.kind = TT_ORDER_EXTEND,
                          .step = s->step,
                          .sequence = p->list,
                          .sequences = p->n,
                          .add = add,
                          .each = each,
                          .sample = !rollout && s->spec.sample,
                          .rollout = rollout};
}

static void score(tt_search *s, const pool *p, phase next)
{
    s->phase = next;
    s->order = (tt_search_work){.kind = TT_ORDER_SCORE,
                          .step = next == FINAL ? s->steps : s->step,
                          .sequence = p->list,
                          .sequences = p->n,
                          .own_noise = !s->spec.algorithm->by_steps};
}

static void finish(tt_search *s)
{
    s->order = (tt_search_work){.kind = TT_ORDER_DONE, .step = s->steps};
}

static int32_t ways(const tt_search *s)
{
    if (!s->spec.algorithm->by_steps)
        return 1;
    int32_t more = s->spec.fill_first && s->beam.n < s->spec.beams ? s->spec.beams / s->beam.n : 1;
    return s->spec.candidates * more;
}

/* The next step that adds tokens, or the end. */
static void go_on(tt_search *s)
{
    int32_t have = s->beam.list[0].tokens;
    while (s->step < s->steps && s->count[s->step] <= have)
        s->step++;
    if (s->step < s->steps) {
        s->phase = GROW;
        extend(s, &s->beam, s->count[s->step] - have, ways(s), false);
        return;
    }
    int32_t left = s->spec.length - s->beam.list[0].showns;
    if (!s->spec.complete || left < 1) {
        finish(s);
        return;
    }
    s->phase = COMPLETE;
    s->beam.n = s->results;
    extend(s, &s->beam, left, 1, true);
}

/* --- opening --- */

static tt_status check(const tt_search_spec *p, tt_err *e)
{
    const struct {
        const char *name;
        int32_t value;
        bool needed;
    } counts[] = {{"length", p->length, true},
                  {"n", p->samples, !p->algorithm->by_steps},
                  {"beam_width", p->beams, p->algorithm->by_steps},
                  {"candidates", p->candidates, p->algorithm->by_steps},
                  {"results", p->results, true}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (counts[i].needed && (counts[i].value < 1 || counts[i].value > TT_MAX_SEARCH_POOL))
            return tt_fail(e, TT_EINVAL, "search.%s: %d is not in 1 .. %d", counts[i].name,
                           counts[i].value, TT_MAX_SEARCH_POOL);
    if (p->algorithm->ahead && (p->ahead < -1 || p->ahead == 0))
        return tt_fail(e, TT_EINVAL, "search.ahead: %d is neither -1 nor at least 1", p->ahead);
    if (p->given && (p->givens < 1 || p->givens >= p->length || p->given_rows < 1))
        return tt_fail(e, TT_EINVAL, "search: %d given tokens of %d", p->givens, p->length);
    return TT_OK;
}

/* Candidates at most in one pool. */
static int64_t most(const tt_search_spec *p)
{
    if (!p->algorithm->by_steps)
        return p->samples;
    int64_t rows = p->given ? p->given_rows : 1;
    int64_t parents = p->beams > rows ? p->beams : rows;
    return parents * p->candidates;
}

static tt_status begin(tt_search *s, tt_err *e)
{
    const tt_search_spec *p = &s->spec;
    int64_t room = most(p), rows = p->given ? p->given_rows : 1;
    int64_t kept = p->beams > p->results ? p->beams : p->results;
    int64_t first = p->algorithm->by_steps ? rows : p->samples;
    if (room > TT_MAX_SEARCH_POOL || room * p->length > INT32_MAX / 4)
        return tt_fail(e, TT_EINVAL, "search: %lld candidates of %d tokens are too many",
                       (long long)room, p->length);
    if (!p->algorithm->by_steps && p->results > p->samples)
        return tt_fail(e, TT_EINVAL, "search.results: %d of %d samples", p->results, p->samples);
    kept = kept > room ? room : kept;
    tt_status st = pool_open(&s->now, room, p->length, e);
    if (!st)
        st = pool_open(&s->beam, kept > first ? kept : first, p->length, e);
    for (int64_t i = 0; i < first && !st; i++) {
        const int32_t *given = p->given ? p->given + (i % rows) * p->givens : NULL;
        int32_t n = p->given ? p->givens : 0;
        put(&s->beam, (int32_t)i, &(tt_candidate){given, n, given, n, 0, -INFINITY}, p->length);
    }
    s->beam.n = (int32_t)first;
    s->spec.given = NULL;
    return st;
}

tt_status tt_search_open(tt_search **out, const tt_search_spec *spec, tt_err *e)
{
    *out = NULL;
    tt_status st = check(spec, e);
    tt_search *s = st ? NULL : calloc(1, sizeof *s);
    if (!st && !s)
        st = tt_fail(e, TT_ENOMEM, "no memory for a search");
    if (st)
        return st;
    s->spec = *spec;
    s->steps = s->count[0] = 0;
    int32_t given = spec->given ? spec->givens : 0;
    if (spec->algorithm->by_steps) {
        s->steps = spec->schedule.steps;
        st = tt_schedule_counts(s->count, &spec->schedule, spec->length - given, e);
    } else {
        s->steps = 1;
        s->count[0] = spec->length - given;
    }
    for (int32_t i = 0; i < s->steps && !st; i++)
        s->count[i] += given;
    s->spec.schedule.list = NULL;
    if (!st)
        st = begin(s, e);
    if (st) {
        tt_search_close(s);
        return st;
    }
    go_on(s);
    *out = s;
    return TT_OK;
}

void tt_search_close(tt_search *s)
{
    if (!s)
        return;
    pool_close(&s->beam);
    pool_close(&s->now);
    free(s);
}

const tt_search_work *tt_search_order(const tt_search *s)
{
    return &s->order;
}

/* --- answers --- */

/* Appends `add` tokens to what candidate c shows. */
static void show(tt_candidate *c, const int32_t *token, int32_t add)
{
    int32_t *shown = (int32_t *)(uintptr_t)c->shown;
    memcpy(shown + c->showns, token, (size_t)add * sizeof *token);
    c->showns += add;
}

static void grow(tt_search *s, const int32_t *token, const float *logprob)
{
    int32_t add = s->order.add, each = s->order.each, length = s->spec.length;
    s->now.n = s->beam.n * each;
    for (int32_t i = 0; i < s->now.n; i++) {
        const tt_candidate *parent = &s->beam.list[i / each];
        int32_t *mine = s->now.token + (int64_t)i * length;
        int32_t *shown = s->now.shown + (int64_t)i * length;
        tt_candidate *c = &s->now.list[i];
        *c = (tt_candidate){mine, parent->tokens + add, shown, parent->tokens + add,
                            logprob ? logprob[i] : 0, -INFINITY};
        if (parent->tokens)
            memcpy(mine, parent->token, (size_t)parent->tokens * sizeof *mine);
        memcpy(mine + parent->tokens, token + (int64_t)i * add, (size_t)add * sizeof *mine);
        memcpy(shown, mine, (size_t)c->tokens * sizeof *shown);
    }
}

tt_status tt_search_extended(tt_search *s, const int32_t *token, const float *logprob, tt_err *e)
{
    if (s->order.kind != TT_ORDER_EXTEND)
        return tt_fail(e, TT_EINVAL, "search: tokens were not asked for");
    if (s->phase != GROW) {
        pool *p = s->phase == AHEAD ? &s->now : &s->beam;
        for (int32_t i = 0; i < p->n; i++)
            show(&p->list[i], token + (int64_t)i * s->order.add, s->order.add);
        score(s, p, s->phase == AHEAD ? SCORE : FINAL);
        return TT_OK;
    }
    grow(s, token, logprob);
    int32_t left = s->spec.length - s->now.list[0].tokens;
    if (s->spec.ahead > 0 && s->spec.ahead < left)
        left = s->spec.ahead;
    if (!looks_ahead(s) || left < 1) {
        score(s, &s->now, SCORE);
        return TT_OK;
    }
    s->phase = AHEAD;
    extend(s, &s->now, left, 1, true);
    return TT_OK;
}

static int by_score(const void *a, const void *b)
{
    const tt_candidate *x = a, *y = b;
    if (x->score != y->score)
        return x->score < y->score ? 1 : -1;
    return x->token < y->token ? -1 : x->token > y->token; /* rows of one block: the index */
}

static void rate(pool *p, const float *score)
{
    for (int32_t i = 0; i < p->n; i++)
        p->list[i].score = isnan(score[i]) ? -INFINITY : score[i];
    qsort(p->list, (size_t)p->n, sizeof *p->list, by_score);
}

/* The best of the pool become the beams; more of them are kept when more results are wanted. */
static void keep_best(tt_search *s)
{
    int32_t kept = s->now.n < s->beam.room ? s->now.n : s->beam.room;
    for (int32_t i = 0; i < kept; i++)
        put(&s->beam, i, &s->now.list[i], s->spec.length);
    s->results = kept < s->spec.results ? kept : s->spec.results;
    s->beam.n = s->spec.algorithm->by_steps && s->spec.beams < kept ? s->spec.beams : kept;
}

tt_status tt_search_scored(tt_search *s, const float *score, tt_err *e)
{
    if (s->order.kind != TT_ORDER_SCORE)
        return tt_fail(e, TT_EINVAL, "search: scores were not asked for");
    if (s->phase == FINAL) {
        rate(&s->beam, score);
        finish(s);
        return TT_OK;
    }
    rate(&s->now, score);
    keep_best(s);
    s->step++;
    go_on(s);
    return TT_OK;
}

void tt_search_stop(tt_search *s)
{
    finish(s);
}

int32_t tt_search_results(const tt_search *s, const tt_candidate **out)
{
    *out = s->beam.list;
    return s->results;
}

/* --- the table --- */

static const tt_search_def best_of = {
    .name = "best_of",
    .summary = "N whole samples, the one the verifier likes best",
    .source = "search-over-tokens, 2026",
};
static const tt_search_def beam = {
    .name = "beam",
    .summary = "beams over ordered tokens, pruned at each count of a schedule",
    .source = "search-over-tokens, 2026",
    .by_steps = true,
};
static const tt_search_def lookahead = {
    .name = "lookahead",
    .summary = "beam search that scores what greedy decoding would make of a candidate",
    .source = "search-over-tokens, 2026",
    .by_steps = true,
    .ahead = true,
};
static const tt_search_def *const all[] = {&best_of, &beam, &lookahead, NULL};

const tt_search_def *const *tt_search_all(void)
{
    return all;
}

const tt_search_def *tt_search_find(const char *name)
{
    for (const tt_search_def *const *d = all; *d; d++)
        if (!strcmp((*d)->name, name))
            return *d;
    return NULL;
}
