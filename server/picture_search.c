/* picture_search.c - see picture_search.h. */
#include "server/picture_search.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/clock.h"
#include "server/base64.h"
#include "server/json_write.h"
#include "server/png.h"

/* Pictures scored in a turn: as many as take about so long, for others' passes come between. */
enum { FIRST_SCORED = 4, MOST_SCORED = 64 };
static const double scoring_seconds = 0.1;

/* A sequence of the search. */
typedef struct {
    int32_t parent;
    tt_picture_run run; /* parked; its arena is empty until it came */
    uint8_t *rgb;
    float score, each[TT_MAX_JURY];
    bool there, marked;
} node;

typedef enum { ORDER, TRUNK, GROW, SHOW, RESULTS, OVER } phase;

typedef struct {
    int32_t node, from; /* from -1: nothing */
    int32_t steps, way, ways;
    uint32_t sample;
    bool greedy, decode;
} piece;

struct tt_picture_search {
    tt_picture_search_spec spec;
    char *prompt;
    tt_picture_run_spec run;
    tt_params greedy;
    tt_picture_spec decoding;
    int32_t steps; /* of a whole image */
    tt_search *rules;
    phase phase;
    node **list;
    int32_t nodes, room;
    piece *piece;
    int32_t pieces, answered, piece_room;
    int32_t *made; /* nodes of the order being carried out, one per row */
    const tt_candidate *seen; /* what is shown and scored: of the order, or the results */
    int32_t n_seen;
    int32_t *show; /* nodes with their pictures */
    int32_t trunk; /* number of the first one */
    void *prepared[TT_MAX_JURY];
    float *score[TT_MAX_JURY];
    int juror;
    int32_t at; /* scored by this juror */
    int32_t at_once[TT_MAX_JURY]; /* pictures of a turn */
    tt_scoring *asked; /* the program that is being asked, or NULL */
    int64_t began_ns;
    tt_err failure;
    pthread_mutex_t lock; /* of the report */
    tt_search_report report;
};

static _Atomic int64_t alive;

/* The counters of the report are read by others. */
static void count(tt_picture_search *s, int64_t *counter, int64_t more)
{
    pthread_mutex_lock(&s->lock);
    *counter += more;
    pthread_mutex_unlock(&s->lock);
}

int64_t tt_picture_search_alive(void)
{
    return atomic_load(&alive);
}

/* --- nodes --- */

static tt_status node_add(tt_picture_search *s, int32_t parent, int32_t *number, tt_err *e)
{
    if (s->nodes == s->room) {
        int32_t room = s->room ? 2 * s->room : 64;
        node **more = realloc(s->list, (size_t)room * sizeof *more);
        if (!more)
            return tt_fail(e, TT_ENOMEM, "no memory for the candidates of a search");
        s->list = more;
        s->room = room;
    }
    node *n = calloc(1, sizeof *n);
    if (!n)
        return tt_fail(e, TT_ENOMEM, "no memory for a candidate of a search");
    n->parent = parent;
    *number = s->nodes;
    s->list[s->nodes++] = n;
    return TT_OK;
}

static void node_free(node *n)
{
    if (!n)
        return;
    if (n->there) {
        alive--;
        tt_picture_run_close(&n->run);
    }
    free(n->rgb);
    free(n);
}

static void put_run(node *n, tt_picture_run *r)
{
    n->run = *r;
    *r = (tt_picture_run){.spec = {0}};
    /* What the copies inside lead to moved with them. */
    n->run.seq.arena = &n->run.life;
    n->run.plan.arena = &n->run.step;
    tt_picture_run_park(&n->run);
    if (tt_image_done(&n->run.seq)) { /* nothing goes on from it */
        tt_generator_drop(n->run.state);
        n->run.state = NULL;
    }
    n->there = true;
    alive++;
}

/* The node that a candidate's tokens, or what it shows, end in. -1: the empty one. */
static int32_t held(const tt_candidate *c)
{
    return c->tokens ? c->token[c->tokens - 1] : -1;
}

static int32_t shown(const tt_candidate *c)
{
    return c->showns ? c->shown[c->showns - 1] : -1;
}

static void mark(tt_picture_search *s, const tt_candidate *c, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        if (held(&c[i]) >= 0)
            s->list[held(&c[i])]->marked = true;
        if (shown(&c[i]) >= 0)
            s->list[shown(&c[i])]->marked = true;
    }
}

static void mark_survivors(tt_picture_search *s)
{
    const tt_candidate *best;
    const tt_search_work *o = tt_search_order(s->rules);
    for (int32_t i = 0; i < s->nodes; i++)
        if (s->list[i])
            s->list[i]->marked = false;
    int32_t n = tt_search_results(s->rules, &best);
    mark(s, best, n);
    if (o->kind != TT_ORDER_DONE)
        mark(s, o->sequence, o->sequences);
}

static void sweep(tt_picture_search *s)
{
    for (int32_t i = 0; i < s->nodes; i++)
        if (s->list[i] && !s->list[i]->marked) {
            node_free(s->list[i]);
            s->list[i] = NULL;
        }
}

void tt_picture_search_clear(tt_picture_search *s)
{
    for (int32_t i = 0; i < s->nodes; i++) {
        node_free(s->list[i]);
        s->list[i] = NULL;
    }
}

/* --- opening --- */

/* Whether any of those that have a say, or have none, looks at pictures. */
static bool judges_pictures(const tt_picture_search *s, bool say)
{
    for (int i = 0; i < s->spec.jurors; i++) {
        const tt_juror *j = &s->spec.juror[i];
        if ((j->verifier || j->scorer) && (j->weight > 0) == say)
            return true;
    }
    return false;
}

static bool masked(const tt_picture_search *s)
{
    return s->run.generator->info.kind == TT_GENERATES_MASKED;
}

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
    if (masked(s))
        return count < s->steps ? count : s->steps;
    bool single = g->kind == TT_GENERATES_NEXT;
    for (int32_t k = 0, tokens = 0; k < s->steps; k++) {
        tokens += single ? 1 : g->layout.level[k];
        if (tokens >= count && ends_a_level(&s->run.codec->info, tokens))
            return k + 1;
    }
    return s->steps;
}

/* The schedule in steps. Without a number of steps it goes on to the whole image. */
static tt_status set_schedule(tt_picture_search *s, int32_t *list, tt_err *e)
{
    tt_schedule *k = &s->spec.rules.schedule;
    int32_t length = masked(s) ? s->steps : s->run.codec->info.layout.tokens;
    tt_schedule full = *k;
    if (!k->steps && k->kind == TT_SCHEDULE_FIXED)
        full.steps = length;
    else if (!k->steps && k->kind == TT_SCHEDULE_LINEAR)
        full.steps = k->per_step > 0 ? (length + k->per_step - 1) / k->per_step : 1;
    else if (!k->steps && k->base > 1)
        full.steps = (int32_t)ceil(log(length) / log(k->base) - 1e-9) + 1;
    tt_status st = tt_schedule_counts(list, &full, length, e);
    for (int32_t i = 0; i < full.steps && !st; i++)
        list[i] = steps_for(s, list[i]);
    *k = (tt_schedule){.list = list, .steps = full.steps};
    return st;
}

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
    bool single = s->run.generator->info.kind == TT_GENERATES_NEXT;
    bool prefixes = s->run.codec->info.prefix_decodable || masked(s);
    if (!p->sample && p->algorithm->by_steps && !single)
        return invalid(e, "sample",
                       "can be false only of models that give one token at a time: the "
                       "most likely tokens of a whole step are the same for every candidate");
    if (!p->sample && !p->algorithm->by_steps)
        return invalid(e, "sample", "cannot be false with best_of: all samples would be the same");
    if (s->spec.uniform && !judges_pictures(s, true))
        return invalid(e, "prior", "cannot be uniform where nothing but likelihood is looked at");
    if (s->spec.uniform && masked(s))
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

static int64_t pool_of(const tt_search_spec *p)
{
    return p->algorithm->by_steps ? (int64_t)p->beams * p->candidates : p->samples;
}

/* Of which the first step has so many: results are never more. */
static int64_t first_pool(const tt_search_spec *p)
{
    return p->algorithm->by_steps && !p->fill_first ? p->candidates : pool_of(p);
}

/* Whether the candidates of a parent differ in the last step alone, and have the others in common.
 * Of masked images they go their own ways from the first step on: the last one, whose temperature
 * is near 0, would leave them all the same. */
static bool splits(const tt_picture_search *s, const tt_search_work *o)
{
    return o->each > 1 && o->add > 1 && !masked(s);
}

/* Forwards of an order. */
static int64_t cost_of(const tt_picture_search *s, const tt_search_work *o)
{
    int64_t n = o->sequences;
    if (o->kind != TT_ORDER_EXTEND || (s->spec.uniform && !o->rollout))
        return 0;
    return splits(s, o) ? n * (o->add - 1) + n * o->each : n * o->each * o->add;
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

static tt_status fit_budget(tt_picture_search *s, tt_err *e)
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
    s->report.budget = true;
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

static tt_status open_rules(tt_picture_search *s, tt_err *e)
{
    tt_search_spec *p = &s->spec.rules;
    int32_t list[TT_MAX_SEARCH_STEPS];
    tt_status st = fit_rules(s, e);
    if (!st && (pool_of(p) < 1 || pool_of(p) > TT_MAX_CANDIDATES))
        st = tt_fail_param(e, p->algorithm->by_steps ? "search.candidates" : "search.samples",
                           "invalid_value", "%lld candidates at a time, at most %d",
                           (long long)pool_of(p), TT_MAX_CANDIDATES);
    if (!st && p->results > first_pool(p))
        st = tt_fail_param(e, "search.results", "invalid_value",
                           "%d results; the first step has %lld candidates", p->results,
                           (long long)first_pool(p));
    if (!st && p->algorithm->by_steps)
        st = set_schedule(s, list, e);
    if (!st)
        st = fit_budget(s, e);
    p->length = s->steps;
    if (!st)
        st = tt_search_open(&s->rules, p, e);
    p->schedule.list = NULL;
    if (st && e && !*e->param)
        tt_fail_param(e, "search", "invalid_value", "%s", e->text);
    if (!st && s->spec.max_forwards && first_cost(s) > s->spec.max_forwards)
        st = tt_fail_param(e, "search.budget.forwards", "invalid_value",
                           "'tutti.search.budget.forwards' is %lld; the first step takes %lld",
                           (long long)s->spec.max_forwards, (long long)first_cost(s));
    return st;
}

tt_status tt_picture_search_open(tt_picture_search **out, const tt_picture_search_spec *spec,
                                 const tt_picture_run_spec *run, tt_err *e)
{
    *out = NULL;
    tt_err local = {0};
    e = e ? e : &local;
    tt_picture_search *s = calloc(1, sizeof *s);
    if (!s)
        return tt_fail(e, TT_ENOMEM, "no memory for a search");
    pthread_mutex_init(&s->lock, NULL);
    s->spec = *spec;
    s->run = *run;
    s->greedy = *run->params;
    s->greedy.temperature = s->greedy.order_temperature = 0;
    s->decoding = (tt_picture_spec){.task = TT_PICTURE_DECODE, .painting = run->picture->painting};
    s->prompt = strdup(spec->prompt ? spec->prompt : "");
    tt_status st = s->prompt ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for a search");
    if (!st)
        st = try_run(s, e);
    if (!st)
        st = open_rules(s, e);
    size_t pool = st ? 0 : (size_t)pool_of(&s->spec.rules);
    s->made = calloc(pool + 1, sizeof *s->made);
    s->show = calloc(pool + 1, sizeof *s->show);
    for (int i = 0; i < s->spec.jurors; i++)
        s->at_once[i] = FIRST_SCORED;
    for (int i = 0; i < s->spec.jurors; i++)
        s->score[i] = calloc(pool + 1, sizeof *s->score[i]);
    tt_search_next next;
    if (!st) /* of a uniform draw there are pieces only when it is to be shown */
        st = tt_picture_search_next(s, &next, e);
    if (st)
        tt_picture_search_close(s);
    else
        *out = s;
    return st;
}

void tt_picture_search_close(tt_picture_search *s)
{
    if (!s)
        return;
    tt_picture_search_clear(s);
    tt_scoring_end(s->asked);
    tt_search_close(s->rules);
    for (int i = 0; i < TT_MAX_JURY; i++) {
        free(s->prepared[i]);
        free(s->score[i]);
    }
    free(s->list);
    free(s->piece);
    free(s->made);
    free(s->show);
    free(s->prompt);
    tt_search_report_free(&s->report);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static int64_t kept_of(const tt_search_spec *p)
{
    return p->beams > p->results ? p->beams : p->results;
}

int32_t tt_picture_search_widest(const tt_picture_search *s)
{
    return (int32_t)(pool_of(&s->spec.rules) + kept_of(&s->spec.rules));
}

size_t tt_picture_search_bytes(const tt_picture_search *s)
{
    const tt_search_spec *p = &s->spec.rules;
    const tt_codec_info *c = &s->run.codec->info;
    const tt_planner *planner = tt_planner_for(s->run.generator->info.kind);
    size_t state = s->run.generator->info.state_bytes; /* while there are tokens to come */
    size_t one = sizeof(node) + tt_image_seq_bytes(planner, c->layout.tokens) +
                 (size_t)c->layout.tokens * sizeof(int32_t) +
                 (size_t)c->width * (size_t)c->height * 3;
    size_t kept = (size_t)kept_of(p);
    size_t pool = (size_t)pool_of(p), shown = p->algorithm->ahead || p->complete ? pool + kept : 0;
    size_t states = !p->algorithm->by_steps ? 0 : pool + 2 * kept + (p->ahead > 0 ? shown : 0);
    return (pool + 2 * kept + shown) * one + states * state;
}

/* --- pieces --- */

static tt_status add_piece(tt_picture_search *s, piece p, tt_err *e)
{
    if (s->pieces == s->piece_room) {
        int32_t room = s->piece_room ? 2 * s->piece_room : 64;
        piece *more = realloc(s->piece, (size_t)room * sizeof *more);
        if (!more)
            return tt_fail(e, TT_ENOMEM, "no memory for the steps of a search");
        s->piece = more;
        s->piece_room = room;
    }
    s->piece[s->pieces++] = p;
    return TT_OK;
}

static void no_pieces(tt_picture_search *s)
{
    s->pieces = s->answered = 0;
}

int32_t tt_picture_search_pieces(const tt_picture_search *s)
{
    return s->pieces;
}

bool tt_picture_search_idle(const tt_picture_search *s)
{
    return s->failure.status || s->answered == s->pieces;
}

static void fail(tt_picture_search *s, const tt_err *e)
{
    if (!s->failure.status)
        s->failure = *e;
}

void tt_picture_search_fail(tt_picture_search *s, const tt_err *e)
{
    fail(s, e);
    s->answered++;
}

static tt_picture_run_spec spec_of(const tt_picture_search *s, const piece *p)
{
    tt_picture_run_spec r = s->run;
    const node *from = p->from >= 0 ? s->list[p->from] : NULL;
    r.from = from ? &from->run : NULL;
    r.steps = p->steps;
    r.way = p->way;
    r.ways = p->ways;
    r.sample = p->sample;
    r.params = p->greedy ? &s->greedy : s->run.params;
    return r;
}

/* Places of the picture that a node's tokens make. */
static tt_status start_decoding(const tt_picture_search *s, const piece *p, tt_picture_run *r,
                                tt_err *e)
{
    const node *n = s->list[p->node];
    const tt_image_seq *q = &n->run.seq;
    tt_picture_run_spec spec = s->run;
    int32_t *id = malloc((size_t)q->layout.tokens * sizeof *id);
    if (!id)
        return tt_fail(e, TT_ENOMEM, "no memory for a picture");
    tt_image_preview(q, id);
    spec.picture = &s->decoding;
    spec.id = id;
    spec.sample = p->sample;
    spec.keep = q->hidden && !masked(s) ? q->layout.tokens - q->hidden : 0;
    tt_status st = tt_picture_run_open(r, &spec, e);
    r->spec.id = NULL; /* read by now */
    free(id);
    return st;
}

tt_status tt_picture_search_start(tt_picture_search *s, int32_t i, tt_picture_run *r, tt_err *e)
{
    const piece *p = &s->piece[i];
    if (s->failure.status)
        return tt_fail(e, s->failure.status, "%s", s->failure.text);
    if (!s->began_ns)
        s->began_ns = tt_now_ns();
    if (p->decode)
        return start_decoding(s, p, r, e);
    tt_picture_run_spec spec = spec_of(s, p);
    return tt_picture_run_open(r, &spec, e);
}

void tt_picture_search_take(tt_picture_search *s, int32_t i, tt_picture_run *r)
{
    const piece *p = &s->piece[i];
    node *n = s->list[p->node];
    s->answered++;
    if (p->decode) {
        n->rgb = r->picture;
        r->picture = NULL;
        count(s, &s->report.decoded, 1);
        tt_picture_run_close(r);
        return;
    }
    count(s, &s->report.forwards, r->nfe);
    put_run(n, r);
}

/* --- orders: extending --- */

/* Tokens of a uniform draw, without the generator. */
static tt_status draw_uniform(tt_picture_search *s, const piece *p, tt_err *e)
{
    tt_picture_run r;
    tt_picture_run_spec spec = spec_of(s, p);
    tt_status st = tt_picture_run_open(&r, &spec, e);
    if (st)
        return st;
    tt_image_seq *q = &r.seq;
    tt_row_stats *stats = calloc((size_t)q->layout.tokens, sizeof *stats);
    if (!stats)
        st = tt_fail(e, TT_ENOMEM, "no memory for a candidate");
    for (int32_t k = 0; k < p->steps && !st; k++) {
        tt_arena_rewind(&r.step, 0);
        r.plan = (tt_image_plan){.arena = &r.step};
        st = tt_image_plan_step(q, &r.plan, e);
        for (int32_t i = 0; i < r.plan.wants && !st; i++) {
            tt_rng_address a = {q->seed, p->sample, (uint32_t)q->step, (uint32_t)r.plan.slot[i]};
            uint64_t draw = tt_rng_at(a, 0).v[0];
            stats[i].drawn = (int32_t)(draw * (uint64_t)q->layout.codes >> 32);
            stats[i].logprob = -logf((float)q->layout.codes);
        }
        if (!st)
            st = tt_image_apply(q, &r.plan, stats, e);
    }
    free(stats);
    r.state = NULL;
    if (st)
        tt_picture_run_close(&r);
    else
        put_run(s->list[p->node], &r);
    return st;
}

static tt_status add_grown(tt_picture_search *s, const tt_search_work *o, piece p, tt_err *e)
{
    if (s->spec.uniform && !o->rollout)
        return draw_uniform(s, &p, e);
    return add_piece(s, p, e);
}

/* The last step of every candidate, or all steps where each parent has one. */
static tt_status make_rows(tt_picture_search *s, const tt_search_work *o, tt_err *e)
{
    no_pieces(s);
    int32_t first = s->nodes;
    bool split = splits(s, o);
    tt_status st = TT_OK;
    for (int32_t i = 0; i < o->sequences && !st; i++)
        for (int32_t w = 0; w < o->each && !st; w++) {
            const tt_candidate *c = &o->sequence[i];
            int32_t parent = o->rollout ? shown(c) : held(c), row = i * o->each + w, n = 0;
            st = node_add(s, parent, &n, e);
            s->made[row] = n;
            bool single = s->run.generator->info.kind == TT_GENERATES_NEXT;
            int32_t eldest = first + i * o->each;
            piece p = {.node = n,
                       .from = split ? s->trunk + i : parent,
                       .steps = split ? 1 : o->add,
                       .way = w,
                       .ways = o->each,
                       .greedy = !o->sample,
                       .sample = (uint32_t)(single ? eldest : n)};
            if (!st)
                st = add_grown(s, o, p, e);
        }
    count(s, &s->report.candidates, o->rollout ? 0 : (int64_t)o->sequences * o->each);
    s->phase = GROW;
    return st;
}

/* What the candidates of a parent have in common: all steps but the last. */
static tt_status make_trunks(tt_picture_search *s, const tt_search_work *o, tt_err *e)
{
    tt_status st = TT_OK;
    no_pieces(s);
    s->trunk = s->nodes;
    for (int32_t i = 0; i < o->sequences && !st; i++) {
        int32_t parent = held(&o->sequence[i]), n = 0;
        st = node_add(s, parent, &n, e);
        piece p = {.node = n,
                   .from = parent,
                   .steps = o->add - 1,
                   .greedy = !o->sample,
                   .sample = (uint32_t)n};
        if (!st)
            st = add_grown(s, o, p, e);
    }
    s->phase = TRUNK;
    return st;
}

static float sum_of(const tt_picture_run *r, int32_t *tokens)
{
    const tt_image_seq *q = &r->seq;
    double sum = 0;
    *tokens = 0;
    for (int32_t i = 0; i < q->layout.tokens; i++)
        if (q->id[i] != q->mask_id) {
            sum += q->logprob[i];
            ++*tokens;
        }
    return (float)sum;
}

/* Every token of a row is the number of its node: all that the rules need to know. */
static tt_status answer_rows(tt_picture_search *s, tt_err *e)
{
    const tt_search_work *o = tt_search_order(s->rules);
    int32_t rows = o->sequences * o->each, tokens;
    int32_t *token = malloc((size_t)rows * (size_t)o->add * sizeof *token);
    float *logprob = malloc((size_t)rows * sizeof *logprob);
    tt_status st = token && logprob ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for a search");
    for (int32_t i = 0; i < rows && !st; i++) {
        for (int32_t k = 0; k < o->add; k++)
            token[(int64_t)i * o->add + k] = s->made[i];
        logprob[i] = sum_of(&s->list[s->made[i]]->run, &tokens);
    }
    if (!st)
        st = tt_search_extended(s->rules, token, logprob, e);
    free(token);
    free(logprob);
    s->phase = ORDER;
    return st;
}

/* --- orders: scoring --- */

/* Codecs that paint from noise: candidates of a beam get the same, so that their scores differ by
 * their tokens alone; whole samples each have their own, as images of an ordinary request. */
static uint32_t noise_of(const tt_picture_search *s, int32_t number)
{
    return s->spec.rules.algorithm->by_steps ? 0 : (uint32_t)number;
}

/* Pieces for the pictures that are not there yet. */
static tt_status show(tt_picture_search *s, const tt_candidate *c, int32_t n, bool pictures,
                      phase next, tt_err *e)
{
    tt_status st = TT_OK;
    no_pieces(s);
    s->phase = next;
    s->seen = c;
    s->n_seen = n;
    s->juror = s->at = 0;
    for (int32_t i = 0; i < n && !st; i++) {
        s->show[i] = shown(&c[i]);
        if (pictures && !s->list[s->show[i]]->rgb)
            st = add_piece(s,
                           (piece){.node = s->show[i],
                                   .from = -1,
                                   .decode = true,
                                   .sample = noise_of(s, s->show[i])},
                           e);
    }
    return st;
}

static tt_status score_some(tt_picture_search *s, int32_t n, tt_err *e)
{
    const tt_juror *j = &s->spec.juror[s->juror];
    const tt_codec_info *c = &s->run.codec->info;
    tt_exhibit x[MOST_SCORED];
    float *score = s->score[s->juror] + s->at;
    for (int32_t i = 0; i < n; i++) {
        int32_t tokens;
        x[i] = (tt_exhibit){s->list[s->show[s->at + i]]->rgb, c->width, c->height};
        if (!j->verifier) {
            float sum = sum_of(&s->list[held(&s->seen[s->at + i])]->run, &tokens);
            score[i] = sum / (float)(tokens ? tokens : 1);
        }
    }
    if (!j->verifier)
        return TT_OK;
    tt_status st = TT_OK;
    int64_t begin = tt_now_ns();
    if (!s->prepared[s->juror] && j->verifier->def->reads_prompt)
        st = tt_verifier_prepare(j->verifier, &s->prepared[s->juror], s->prompt, e);
    if (!st)
        st = tt_verifier_score(j->verifier, s->prepared[s->juror], x, n, score, e);
    count(s, &s->report.scored, n);
    double fit = n * scoring_seconds / ((double)(tt_now_ns() - begin) * 1e-9);
    s->at_once[s->juror] = fit < 1 ? 1 : fit < MOST_SCORED ? (int32_t)fit : MOST_SCORED;
    return st ? tt_context(e, st, "verifier '%.60s'", j->name) : TT_OK;
}

/* One number for each from those of the jurors. */
static tt_status mix(tt_picture_search *s, float *out, int32_t n, tt_err *e)
{
    tt_mix_part part[TT_MAX_JURY];
    int say = 0, last = 0;
    for (int i = 0; i < s->spec.jurors; i++) {
        part[i] = (tt_mix_part){s->score[i], s->spec.juror[i].weight};
        say += part[i].weight > 0;
        last = part[i].weight > 0 ? i : last;
    }
    if (say == 1) { /* as it is */
        memcpy(out, s->score[last], (size_t)n * sizeof *out);
        return TT_OK;
    }
    return tt_mix(out, part, s->spec.jurors, n, s->spec.mix, e);
}

/* --- the report --- */

void tt_search_report_free(tt_search_report *r)
{
    free(r->stage);
    free(r->entry);
    free(r->result);
    free(r->picture);
    free(r->pictured);
    *r = (tt_search_report){.stage = NULL};
}

static void *copy_of(const void *from, size_t bytes)
{
    void *p = malloc(bytes + 1);
    return p && bytes ? memcpy(p, from, bytes) : p;
}

bool tt_picture_search_report(tt_picture_search *s, tt_search_report *out)
{
    pthread_mutex_lock(&s->lock);
    const tt_search_report *r = &s->report;
    bool news = r->stages > out->stages || r->results > out->results;
    tt_search_report copy = *r;
    if (news) {
        copy.stage = copy_of(r->stage, r->stages * sizeof *r->stage);
        copy.entry = copy_of(r->entry, r->entries * sizeof *r->entry);
        copy.result = copy_of(r->result, r->results * sizeof *r->result);
        copy.picture = copy_of(r->picture, r->pictures * r->picture_bytes);
        copy.pictured = copy_of(r->pictured, r->pictures * sizeof *r->pictured);
    }
    pthread_mutex_unlock(&s->lock);
    if (news &&
        (!copy.stage || !copy.entry || !copy.result || !copy.picture || !copy.pictured)) {
        tt_search_report_free(&copy);
        return false; /* no memory: looked at again with the next news */
    }
    if (news) {
        tt_search_report_free(out);
        *out = copy;
    }
    return news;
}

static bool is_pictured(const tt_search_report *r, int32_t index)
{
    for (size_t k = 0; k < r->pictures; k++)
        if (r->pictured[k] == index)
            return true;
    return false;
}

/* The best that is not in the report's pictures yet, as a place in the stage. */
static int32_t next_best(const tt_search_report *r, const int32_t *index, const float *score,
                         int32_t n)
{
    int32_t best = -1;
    for (int32_t i = 0; i < n; i++)
        if ((best < 0 || score[i] > score[best]) && !is_pictured(r, index[i]))
            best = i;
    return best;
}

/* Previews are not worth a failure: without memory there are none. */
static void keep_pictures(tt_picture_search *s, const int32_t *index, const float *score, int32_t n)
{
    const tt_codec_info *c = &s->run.codec->info;
    tt_search_report *r = &s->report;
    int32_t wanted = s->run.picture->previews < n ? s->run.picture->previews : n;
    r->pictures = 0;
    r->picture_bytes = (size_t)c->width * (size_t)c->height * 3;
    if (wanted < 1 || !judges_pictures(s, true))
        return;
    uint8_t *picture = realloc(r->picture, (size_t)wanted * r->picture_bytes);
    r->picture = picture ? picture : r->picture;
    int32_t *pictured = realloc(r->pictured, (size_t)wanted * sizeof *pictured);
    r->pictured = pictured ? pictured : r->pictured;
    for (int32_t k = 0; k < wanted && picture && pictured; k++) {
        int32_t i = next_best(r, index, score, n);
        memcpy(r->picture + r->pictures * r->picture_bytes, s->list[s->show[i]]->rgb,
               r->picture_bytes);
        r->pictured[r->pictures++] = index[i];
    }
}

static tt_status log_stage(tt_picture_search *s, const int32_t *index, const float *score,
                           int32_t n, int32_t step, int32_t tokens, tt_err *e)
{
    tt_search_report *r = &s->report;
    tt_status st = TT_OK;
    pthread_mutex_lock(&s->lock);
    tt_search_stage *stage = realloc(r->stage, (r->stages + 1) * sizeof *stage);
    r->stage = stage ? stage : r->stage;
    tt_search_entry *entry = realloc(r->entry, (r->entries + (size_t)n) * sizeof *entry);
    r->entry = entry ? entry : r->entry;
    if (stage && entry) {
        stage[r->stages++] = (tt_search_stage){step, tokens, r->entries, (size_t)n};
        for (int32_t i = 0; i < n; i++) {
            const node *a = s->list[index[i]];
            entry[r->entries++] = (tt_search_entry){index[i], a->parent, score[i], a->marked};
        }
    } else {
        st = tt_fail(e, TT_ENOMEM, "no memory for the report of a search");
    }
    keep_pictures(s, index, score, n);
    r->ms = (double)(tt_now_ns() - s->began_ns) * 1e-6;
    pthread_mutex_unlock(&s->lock);
    return st;
}

/* All jurors have spoken. */
static tt_status judge(tt_picture_search *s, tt_err *e)
{
    const tt_search_work *o = tt_search_order(s->rules);
    int32_t n = o->sequences, step = o->step, tokens = 0;
    int32_t *index = malloc((size_t)n * sizeof *index);
    float *score = malloc((size_t)n * sizeof *score);
    tt_status st = index && score ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for a search");
    if (!st)
        st = mix(s, score, n, e);
    for (int32_t i = 0; i < n && !st; i++) {
        node *a = s->list[index[i] = held(&o->sequence[i])], *b = s->list[s->show[i]];
        b->score = a->score = score[i];
        for (int k = 0; k < s->spec.jurors; k++)
            b->each[k] = s->score[k][i];
        sum_of(&a->run, &tokens);
    }
    if (!st)
        st = tt_search_scored(s->rules, score, e);
    if (!st) {
        mark_survivors(s);
        st = log_stage(s, index, score, n, step, tokens, e);
        sweep(s);
    }
    free(index);
    free(score);
    s->phase = ORDER;
    return st;
}

/* --- programs that score --- */

/* Copies of the candidates, so that they can be told of on another thread. */
typedef struct {
    char *prompt;
    int32_t n, tokens, width, height;
    uint8_t *rgb;
    int32_t *id; /* n x tokens, -1 where there is none */
    float *logprob;
} batch;

static void batch_drop(void *arg)
{
    batch *b = arg;
    free(b->prompt);
    free(b->rgb);
    free(b->id);
    free(b->logprob);
    free(b);
}

static void put_candidate(const batch *b, int32_t i, tt_json *w)
{
    tt_buf png = {0}, text = {0};
    size_t bytes = (size_t)b->width * (size_t)b->height * 3;
    tt_png_encode(&png, b->rgb + (size_t)i * bytes, b->width, b->height, 3, TT_PNG_FAST, NULL, 0,
                  NULL);
    tt_base64_put(&text, png.data, png.size);
    tt_json_open(w, '{');
    tt_json_key(w, "b64_json");
    tt_json_put_bytes(w, tt_buf_text(&text), text.size);
    tt_json_open_member(w, "tokens", '[');
    for (int32_t k = 0; k < b->tokens; k++)
        if (b->id[(int64_t)i * b->tokens + k] >= 0)
            tt_json_put_int(w, b->id[(int64_t)i * b->tokens + k]);
    tt_json_close(w, ']');
    tt_json_float_member(w, "logprob", b->logprob[i]);
    tt_json_close(w, '}');
    tt_buf_free(&png);
    tt_buf_free(&text);
}

static void batch_write(const void *arg, tt_buf *out)
{
    const batch *b = arg;
    tt_json w = {.out = out};
    tt_json_open(&w, '{');
    tt_json_text_member(&w, "prompt", b->prompt);
    tt_json_open_member(&w, "candidates", '[');
    for (int32_t i = 0; i < b->n; i++)
        put_candidate(b, i, &w);
    tt_json_close(&w, ']');
    tt_json_close(&w, '}');
}

static void fill_batch(const tt_picture_search *s, batch *b)
{
    size_t bytes = (size_t)b->width * (size_t)b->height * 3;
    for (int32_t i = 0; i < b->n; i++) {
        int32_t tokens;
        const tt_picture_run *r = &s->list[held(&s->seen[i])]->run;
        memcpy(b->rgb + (size_t)i * bytes, s->list[s->show[i]]->rgb, bytes);
        for (int32_t k = 0; k < b->tokens; k++)
            b->id[(int64_t)i * b->tokens + k] =
                r->seq.id[k] == r->seq.mask_id ? -1 : r->seq.id[k];
        b->logprob[i] = sum_of(r, &tokens);
    }
}

static tt_status ask_program(tt_picture_search *s, const tt_scorer *scorer, tt_err *e)
{
    const tt_codec_info *c = &s->run.codec->info;
    size_t n = (size_t)s->n_seen, tokens = (size_t)c->layout.tokens;
    batch *b = calloc(1, sizeof *b);
    if (!b)
        return tt_fail(e, TT_ENOMEM, "no memory for the candidates");
    *b = (batch){.prompt = strdup(s->prompt),
                 .n = (int32_t)n,
                 .tokens = c->layout.tokens,
                 .width = c->width,
                 .height = c->height,
                 .rgb = malloc(n * (size_t)c->width * (size_t)c->height * 3),
                 .id = malloc(n * tokens * sizeof(int32_t)),
                 .logprob = malloc(n * sizeof(float))};
    if (!b->prompt || !b->rgb || !b->id || !b->logprob) {
        batch_drop(b);
        return tt_fail(e, TT_ENOMEM, "no memory for the candidates");
    }
    fill_batch(s, b);
    tt_question q = {batch_write, batch_drop, b};
    return tt_scoring_begin(&s->asked, scorer, &q, (int32_t)n, NULL, NULL, e);
}

/* *waits: the answer is not there yet. */
static tt_status follow_program(tt_picture_search *s, const tt_scorer *scorer, bool *waits,
                                tt_err *e)
{
    int32_t n = s->n_seen;
    tt_status st = s->asked ? TT_OK : ask_program(s, scorer, e);
    *waits = !st && !tt_scoring_done(s->asked);
    if (st || *waits)
        return st;
    st = tt_scoring_take(s->asked, s->score[s->juror], e);
    tt_scoring_end(s->asked);
    s->asked = NULL;
    count(s, &s->report.scored, n);
    s->at = n;
    return st;
}

/* Scores a bounded number of pictures by the jurors that have a say, or at the end by those that
 * have none and are only asked for their opinion of the results. *all: they have seen all. */
static tt_status go_on_scoring(tt_picture_search *s, bool say, bool *all, bool *waits, tt_err *e)
{
    int32_t n = s->n_seen;
    while (s->juror < s->spec.jurors && (s->spec.juror[s->juror].weight > 0) != say)
        s->juror++;
    *all = s->juror == s->spec.jurors || n == 0;
    if (*all)
        return TT_OK;
    int32_t most = s->at_once[s->juror], some = n - s->at < most ? n - s->at : most;
    const tt_scorer *scorer = s->spec.juror[s->juror].scorer;
    tt_status st = scorer ? follow_program(s, scorer, waits, e) : score_some(s, some, e);
    s->at += scorer ? 0 : some;
    if (s->at == n) {
        s->at = 0;
        s->juror++;
    }
    return st;
}

/* --- one after the other --- */

static bool out_of_time(const tt_picture_search *s)
{
    double ms = s->began_ns ? (double)(tt_now_ns() - s->began_ns) * 1e-6 : 0;
    return s->spec.max_ms && ms > (double)s->spec.max_ms;
}

bool tt_picture_search_curtail(tt_picture_search *s, int32_t begun)
{
    tt_search_spec *p = &s->spec.rules;
    if (p->algorithm->by_steps || s->phase != GROW || begun < p->results || begun >= s->pieces ||
        !out_of_time(s))
        return false;
    tt_search *fewer;
    tt_search_spec spec = *p;
    spec.samples = begun;
    if (tt_search_open(&fewer, &spec, NULL))
        return false;
    tt_search_close(s->rules);
    s->rules = fewer;
    p->samples = s->pieces = begun;
    pthread_mutex_lock(&s->lock);
    s->report.candidates = begun;
    s->report.budget = true;
    pthread_mutex_unlock(&s->lock);
    return true;
}

/* Whether the order would go beyond the budget. */
static bool spent(const tt_picture_search *s, const tt_search_work *o)
{
    if (o->kind != TT_ORDER_EXTEND)
        return false;
    if (s->spec.max_forwards && s->report.forwards + cost_of(s, o) > s->spec.max_forwards)
        return true;
    return s->report.stages && out_of_time(s);
}

static tt_status begin_order(tt_picture_search *s, tt_err *e)
{
    const tt_search_work *o = tt_search_order(s->rules);
    const tt_candidate *best;
    if (spent(s, o)) {
        pthread_mutex_lock(&s->lock);
        s->report.budget = true;
        pthread_mutex_unlock(&s->lock);
        tt_search_stop(s->rules);
        o = tt_search_order(s->rules);
    }
    if (o->kind == TT_ORDER_SCORE)
        return show(s, o->sequence, o->sequences, judges_pictures(s, true), SHOW, e);
    if (o->kind == TT_ORDER_EXTEND)
        return splits(s, o) ? make_trunks(s, o, e) : make_rows(s, o, e);
    int32_t n = tt_search_results(s->rules, &best);
    bool wanted = !s->run.picture->tokens_only || judges_pictures(s, false);
    return show(s, best, n, wanted, RESULTS, e);
}

static tt_status report_results(tt_picture_search *s, tt_err *e)
{
    const tt_candidate *best;
    int32_t n = tt_search_results(s->rules, &best);
    tt_search_result *list = calloc((size_t)n + 1, sizeof *list);
    if (!list)
        return tt_fail(e, TT_ENOMEM, "no memory for the results of a search");
    for (int32_t i = 0; i < n; i++) {
        list[i] = (tt_search_result){.index = held(&best[i]), .score = best[i].score};
        for (int k = 0; k < s->spec.jurors; k++)
            list[i].each[k] = s->spec.juror[k].weight > 0 ? s->list[shown(&best[i])]->each[k]
                                                          : s->score[k][i];
    }
    pthread_mutex_lock(&s->lock);
    s->report.result = list;
    s->report.results = (size_t)n;
    s->report.ms = (double)(tt_now_ns() - s->began_ns) * 1e-6;
    pthread_mutex_unlock(&s->lock);
    s->phase = OVER;
    return TT_OK;
}

/* One transition, after the pieces of the phase. */
static tt_status go_on(tt_picture_search *s, bool *again, bool *waits, tt_err *e)
{
    bool all = false;
    tt_status st = TT_OK;
    switch (s->phase) {
    case ORDER:
        return begin_order(s, e);
    case TRUNK:
        return make_rows(s, tt_search_order(s->rules), e);
    case GROW:
        return answer_rows(s, e);
    case SHOW:
        no_pieces(s);
        st = go_on_scoring(s, true, &all, waits, e);
        *again = !st && !all;
        return st || !all ? st : judge(s, e);
    case RESULTS:
        no_pieces(s);
        st = go_on_scoring(s, false, &all, waits, e);
        *again = !st && !all;
        return st || !all ? st : report_results(s, e);
    case OVER:
        break;
    }
    return TT_OK;
}

tt_status tt_picture_search_next(tt_picture_search *s, tt_search_next *next, tt_err *e)
{
    bool again = false, waits = false;
    tt_status st = s->failure.status;
    if (st) {
        *e = s->failure;
        return st;
    }
    do {
        no_pieces(s);
        st = go_on(s, &again, &waits, e);
    } while (!st && !s->pieces && !again && s->phase != OVER);
    *next = s->phase == OVER ? TT_SEARCH_OVER
            : waits          ? TT_SEARCH_WAITS
            : again          ? TT_SEARCH_AGAIN
                             : TT_SEARCH_PIECES;
    return st;
}

const tt_picture_run *tt_picture_search_result(const tt_picture_search *s, int32_t i,
                                               const uint8_t **rgb)
{
    const tt_candidate *best;
    if (s->phase != OVER || i >= tt_search_results(s->rules, &best))
        return NULL;
    const node *n = s->list[shown(&best[i])];
    *rgb = n->rgb;
    return &n->run;
}
