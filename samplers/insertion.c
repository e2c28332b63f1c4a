/* insertion.c - the sampler of insertion language models: one token a step, anywhere.
 *
 * The model reads the tokens that are there and no others, as
 *     [CLS] prompt [BOS] answer            (without a prompt, for holes: [CLS] [BOS] text)
 * and says for every token what could stand right of it, and whether anything is missing at all. A
 * step inserts one token. It may do so where the canvas has room:
 *
 * A run of open columns is a gap, and its length the room. What was inserted into a gap stands at
 * its left end, in order; the columns behind are still open. The token before a gap and all that
 * was inserted into it are open, as long as there is room: others can have nothing right of them.
 * Columns marked in tt_seq.must say how many tokens a gap must get.
 *
 * Two steps (where, then what) or one draw over all places and tokens (joint); the model runs once
 * in either: every row's statistics come back, and where a draw from a row is wanted, one is made
 * for each. top_p is that of the released code: the token with which the sum passes it is dropped,
 * too.
 *
 * A joint draw with top_p alone needs the mass of all tokens above a logit, which only a further
 * pass can tell. The draw is the greatest noisy logit of those top_p keeps. So the greatest of all
 * is tried first; if the mass above it and its own exceed top_p, what is kept lies above it, and
 * the greatest noisy logit up there, which the same pass has drawn, is tried next. Logits closer
 * than EQUAL, relatively, count as equal.
 *
 * Deviations from the released samplers: a forced first step does not exceed the room, and nothing
 * is inserted into sequences that are full. */
#include <math.h>
#include <stdlib.h>

#include "kernels/base/rng.h"
#include "samplers/sampler.h"

static const double EQUAL = 1e-5;

/* A row of the model's input after which something may be inserted. */
typedef struct {
    int32_t row, column; /* where an insertion goes */
    bool lacks;          /* its gap has fewer tokens than it must have */
} place;

/* A step's choice: what is inserted after the row of an ask. */
typedef struct {
    int32_t ask, id;
    float logit;
} choice;

typedef struct {
    int32_t inserted; /* tokens so far: noise is addressed by it */
    bool lists; /* draws of tokens are made here, from each row's best */
    int32_t lacking; /* tokens that gaps of the step's places must still get */
    place *at;       /* per ask of the plan */
    float *score;    /* likewise: room for those of the places, ordered at `order` */
    int32_t *order;
    int32_t rows; /* tokens of the model's input */

    /* A joint draw with top_p, while it takes further passes: */
    bool probing;
    bool lack_alone; /* of the whole draw: only places that lack tokens count */
    choice tried;
    double total; /* log of all mass, at the temperature */
    float *peak;  /* per ask: its greatest logit */
} state;

/* --- the canvas as the model reads it --- */

static bool has_bos(const tt_seq *q)
{
    for (int32_t c = 0; c < q->columns && q->fixed[c]; c++)
        if (q->id[c] == q->info->bos_id)
            return true;
    return false;
}

static bool has_cls(const tt_seq *q) { return q->fixed[0] && q->id[0] == q->info->cls_id; }

static int32_t gap_end(const tt_seq *q, int32_t from)
{
    while (from < q->columns && !q->fixed[from])
        from++;
    return from;
}

/* Tokens inserted into a gap, and those it must get. */
static int32_t count_tokens(const tt_seq *q, int32_t from, int32_t end, int32_t *must)
{
    int32_t n = 0;
    *must = 0;
    for (int32_t c = from; c < end; c++) {
        n += !tt_seq_open_at(q, c);
        *must += q->must && q->must[c] == 2;
    }
    return n;
}

typedef struct {
    state *s;
    int32_t *token;
    int32_t places;
} reading;

static void read_token(reading *r, int32_t id) { r->token[r->s->rows++] = id; }

/* The token read last is open: an insertion after it goes to this column. */
static void read_place(reading *r, int32_t column, bool lacks)
{
    r->s->at[r->places++] = (place){r->s->rows - 1, column, lacks};
}

static int32_t read_gap(const tt_seq *q, reading *r, int32_t from)
{
    int32_t must, end = gap_end(q, from), n = count_tokens(q, from, end, &must);
    r->s->lacking += n < must ? must - n : 0;
    for (int32_t c = from; c <= from + n; c++) {
        if (c > from)
            read_token(r, q->id[c - 1]);
        if (n < end - from)
            read_place(r, c, n < must);
    }
    return end;
}

/* Fills in tokens and places; returns how many places there are. */
static int32_t read_canvas(const tt_seq *q, state *s, int32_t *token)
{
    reading r = {.s = s, .token = token};
    int32_t bos = has_bos(q) ? -1 : q->prompt > has_cls(q) ? q->prompt : has_cls(q);
    s->rows = s->lacking = 0;
    if (!has_cls(q))
        read_token(&r, q->info->cls_id);
    for (int32_t c = 0; c < q->columns;) {
        if (c == bos)
            read_token(&r, q->info->bos_id);
        if (q->fixed[c])
            read_token(&r, q->id[c++]);
        else
            c = read_gap(q, &r, c);
    }
    return r.places;
}

/* --- parameters --- */

static tt_status refuse(const char *name, const char *why, tt_err *e)
{
    return tt_fail_param(e, name, "unsupported_parameter", "'%s' %s", name, why);
}

static tt_status check_params(const tt_seq *q, tt_err *e)
{
    const tt_params *p = q->params;
    static const char *const of_head[] = {"stopping_threshold", "stopping_temperature",
                                          "force_predict_first_step"};
    static const char *const of_places[] = {"position_temperature", "position_top_k",
                                            "position_top_p"};
    for (int i = 0; i < 3; i++) {
        if (!q->info->classes && tt_params_given(p, of_head[i]))
            return refuse(of_head[i], "needs a model with a stopping or length head", e);
        if (p->selection == TT_SELECT_JOINT && tt_params_given(p, of_places[i]))
            return refuse(of_places[i], "needs 'selection' two_step", e);
    }
    if (p->selection == TT_SELECT_JOINT && p->top_k > TT_MAX_TOP)
        return tt_fail_param(e, "top_k", "invalid_value",
                             "'top_k' is %d, at most %d with 'selection' joint", p->top_k,
                             TT_MAX_TOP);
    return TT_OK;
}

static bool joint_nucleus(const tt_seq *q)
{
    const tt_params *p = q->params;
    return p->selection == TT_SELECT_JOINT && p->temperature > 0 && p->top_k == 0 && p->top_p < 1;
}

/* What the canvas demands must be possible within the steps allowed. */
static tt_status check_demands(const tt_seq *q, tt_err *e)
{
    const tt_params *p = q->params;
    int32_t must, there = !has_cls(q) + !has_bos(q);
    for (int32_t c = 0; c < q->columns; c++)
        there += q->fixed[c];
    count_tokens(q, 0, q->columns, &must);
    if (p->max_steps && p->max_steps < must)
        return tt_fail_param(e, "max_steps", "constraint_unsatisfiable",
                             "'max_steps' is %d; the holes must get %d tokens", p->max_steps, must);
    if (p->oracle_length && p->oracle_length < there + must)
        return tt_fail_param(e, "oracle_length", "constraint_unsatisfiable",
                             "'oracle_length' is %d; %d tokens are there and the holes must get %d",
                             p->oracle_length, there, must);
    return TT_OK;
}

static tt_status open_seq(tt_seq *q, void *memory, tt_err *e)
{
    state *s = memory;
    const tt_params *p = q->params;
    tt_status st = check_params(q, e);
    if (!st)
        st = check_demands(q, e);
    if (st)
        return st;
    int32_t room = 0;
    for (int32_t c = 0; c < q->columns; c++)
        room += !q->fixed[c];
    s->peak = TT_TAKE(q->arena, q->columns + 2, float);
    if (!s->peak)
        return tt_fail(e, TT_ENOMEM, "no memory for %d rows", q->columns);
    s->lists = p->temperature > 0 && p->top_k > 0 && p->top_k <= TT_MAX_TOP;
    q->expected = p->max_steps && p->max_steps < room ? p->max_steps : room;
    q->unsettled = q->columns;
    return TT_OK;
}

/* --- a step's rows --- */

/* The noise of a row's own draw is addressed by the row; these draws are of the whole sequence. */
enum { DRAW_PLACE = 0x7FFFFFFF, DRAW_TOKEN = 0x7FFFFFFE };

/* How far apart logits are to differ. */
static double equal(float logit) { return EQUAL * fmax(1, fabs((double)logit)); }

/* What of a row lies above the token that was tried. */
static void keep_above(tt_draw *d, const state *s, int32_t i)
{
    double floor = s->tried.logit + equal(s->tried.logit);
    double share = exp((floor - s->peak[i]) / d->temperature);
    d->min_p = (float)fmin(share, 1);
}

static tt_draw row_draw(const tt_seq *q, const state *s, int32_t i)
{
    const tt_params *p = q->params;
    int32_t row = s->at[i].row;
    tt_draw d = {.top_p = 1,
                 .noise = q->noise.kind,
                 .seed = q->noise.seed,
                 .sample = q->noise.sample,
                 .step = (uint32_t)s->inserted + 1,
                 .position = (uint32_t)row,
                 .bias = q->bias,
                 .n_bias = q->n_bias,
                 .limit = q->vocab,
                 .target = -1};
    if (s->lists || p->temperature == 0)
        d.noise = TT_NOISE_NONE;
    else if (d.noise == TT_NOISE_GIVEN)
        d.gumbel = q->noise.given(q->noise.given_arg, s->inserted, TT_GIVEN_TOKEN, row);
    if (s->lists)
        return d;
    d.temperature = (float)p->temperature;
    if (joint_nucleus(q)) {
        d.confidence_of_kept = true;
        if (s->probing)
            keep_above(&d, s, i);
        return d;
    }
    d.top_k = p->top_k;
    d.top_p = (float)p->top_p;
    d.top_p_within = true;
    return d;
}

static tt_status plan_step(tt_seq *q, void *memory, tt_plan *plan, tt_err *e)
{
    state *s = memory;
    size_t most = (size_t)q->columns + 2;
    int32_t *token = TT_TAKE(plan->arena, most, int32_t);
    s->at = TT_TAKE(plan->arena, most, place);
    s->score = TT_TAKE(plan->arena, most, float);
    s->order = TT_TAKE(plan->arena, most, int32_t);
    plan->ask = TT_TAKE(plan->arena, most, tt_ask);
    if (!token || !s->at || !s->score || !s->order || !plan->ask)
        return tt_fail(e, TT_ENOMEM, "no memory for %zu rows", most);
    plan->asks = read_canvas(q, s, token);
    for (int32_t i = 0; i < plan->asks; i++)
        plan->ask[i] = (tt_ask){.column = s->at[i].row, .draw = row_draw(q, s, i)};
    plan->token = token;
    plan->tokens = plan->row_end = plan->see_end = s->rows;
    plan->classify = q->info->classes > 0;
    if (s->lists && plan->n_top < q->params->top_k)
        plan->n_top = q->params->top_k;
    return TT_OK;
}

/* --- choosing --- */

typedef struct {
    double temperature, top_p;
    int32_t top_k;
    tt_given draw;
    int32_t position, inserted; /* of the noise */
    const place *at;  /* of places: candidates are numbers of this list, noise goes by row */
} rule;

/* Gumbel noise of candidate i of a draw of the whole sequence. */
static float noise_at(const tt_seq *q, const rule *how, int32_t i)
{
    const tt_noise *n = &q->noise;
    if (n->kind == TT_NOISE_GIVEN)
        return n->given(n->given_arg, how->inserted, how->draw, 0)[i];
    tt_rng_address a = {n->seed, n->sample, (uint32_t)how->inserted + 1, (uint32_t)how->position};
    return tt_gumbel(tt_rng_at(a, (uint32_t)i / 4).v[i % 4]);
}

/* How many of the scores, which fall, top_p leaves: those whose sum stays within it, but one at
 * least. */
static int32_t within(const float *score, int32_t n, const rule *how)
{
    double total = 0, sum = 0;
    int32_t keep = 0;
    for (int32_t i = 0; i < n; i++)
        total += exp((double)(score[i] - score[0]) / how->temperature);
    while (keep < n) {
        sum += exp((double)(score[keep] - score[0]) / how->temperature);
        if (keep && sum > how->top_p * total)
            break;
        keep++;
    }
    return keep;
}

/* Draws one of n scores, which fall; of equals the first came first. index: which candidates they
 * are of. Noise goes by rank where top_k asks for sorting, else by candidate. */
static int32_t draw(const tt_seq *q, const float *score, const int32_t *index, int32_t n,
                    const rule *how)
{
    int32_t keep = how->top_k > 0 && how->top_k < n ? how->top_k : n, best = 0;
    float most = -INFINITY;
    if (how->temperature == 0)
        return 0;
    if (how->top_p < 1)
        keep = within(score, keep, how);
    for (int32_t i = 0; i < keep; i++) {
        int32_t of = how->top_k > 0 ? i : how->at ? how->at[index[i]].row : index[i];
        float noise = noise_at(q, how, of);
        float with = fmaf((float)how->temperature, noise, score[i]);
        if (with > most) {
            most = with;
            best = i;
        }
    }
    return best;
}

/* Adds a score to a falling list of at most `most`; a later equal never passes an earlier one. */
static int32_t add_score(float *score, int32_t *index, int32_t n, int32_t most, float x,
                         int32_t at)
{
    if (n == most && x <= score[n - 1])
        return n;
    int32_t i = n < most ? n : n - 1;
    for (; i > 0 && score[i - 1] < x; i--) {
        score[i] = score[i - 1];
        index[i] = index[i - 1];
    }
    score[i] = x;
    index[i] = at;
    return n < most ? n + 1 : n;
}

typedef struct {
    const tt_seq *q;
    state *s;
    const tt_result *r;
} step;

static rule token_rule(const step *t)
{
    const tt_params *p = t->q->params;
    return (rule){p->temperature, p->top_p, p->top_k, TT_GIVEN_TOKEN, DRAW_TOKEN, t->s->inserted,
                  NULL};
}

static bool counts(const step *t, int32_t i) { return !t->s->lack_alone || t->s->at[i].lacks; }

/* The token the row's own draw chose. */
static choice own_draw(const step *t, int32_t i)
{
    const tt_row_stats *st = &t->r->stats[i];
    return (choice){i, st->drawn, st->logprob + st->lse};
}

static const tt_id_value *list_of(const step *t, int32_t i)
{
    return t->r->top + (size_t)i * (size_t)t->r->plan->n_top;
}

/* From the best tokens of one row. */
static choice draw_from_row(const step *t, int32_t i)
{
    float score[TT_MAX_TOP];
    int32_t index[TT_MAX_TOP], n = 0;
    const tt_id_value *list = list_of(t, i);
    rule how = token_rule(t);
    for (; n < how.top_k && list[n].id >= 0; n++) {
        score[n] = list[n].value + t->r->stats[i].lse;
        index[n] = n;
    }
    int32_t k = draw(t->q, score, index, n, &how);
    return (choice){i, list[k].id, score[k]};
}

static choice choose_two_step(const step *t)
{
    const tt_params *p = t->q->params;
    rule how = {p->position_temperature, p->position_top_p, p->position_top_k, TT_GIVEN_PLACE,
                DRAW_PLACE, t->s->inserted, t->s->at};
    int32_t n = 0, most = how.temperature == 0 ? 1 : t->r->plan->asks;
    for (int32_t i = 0; i < t->r->plan->asks; i++)
        if (counts(t, i))
            n = add_score(t->s->score, t->s->order, n, most, t->r->stats[i].lse, i);
    int32_t k = draw(t->q, t->s->score, t->s->order, n, &how), i = t->s->order[k];
    return t->s->lists ? draw_from_row(t, i) : own_draw(t, i);
}

/* From the best of all rows' best. */
static choice draw_from_all(const step *t)
{
    float score[TT_MAX_TOP];
    int32_t index[TT_MAX_TOP], n = 0, per_row = t->r->plan->n_top;
    rule how = token_rule(t);
    for (int32_t i = 0; i < t->r->plan->asks; i++) {
        const tt_id_value *list = list_of(t, i);
        for (int32_t k = 0; counts(t, i) && k < how.top_k && list[k].id >= 0; k++)
            n = add_score(score, index, n, how.top_k, list[k].value + t->r->stats[i].lse,
                          i * per_row + k);
    }
    int32_t k = draw(t->q, score, index, n, &how), i = index[k] / per_row;
    return (choice){i, t->r->top[index[k]].id, score[k]};
}

/* The noise a row's own draw gave to the id it drew. */
static float own_noise(const tt_seq *q, const tt_draw *d, int32_t id)
{
    if (q->params->temperature == 0)
        return 0;
    if (d->noise == TT_NOISE_GIVEN)
        return d->gumbel[id];
    tt_rng_address a = {d->seed, d->sample, d->step, d->position};
    return tt_gumbel(tt_rng_at(a, (uint32_t)id / 4).v[id % 4]);
}

/* The greatest noisy logit of all rows is one of those that won in their row. */
static choice choose_joint(const step *t)
{
    if (t->s->lists)
        return draw_from_all(t);
    choice best = {-1, -1, 0};
    float most = -INFINITY;
    for (int32_t i = 0; i < t->r->plan->asks; i++) {
        choice c = own_draw(t, i);
        float noise = own_noise(t->q, &t->r->plan->ask[i].draw, c.id);
        float score = fmaf((float)t->q->params->temperature, noise, c.logit);
        if (counts(t, i) && (best.ask < 0 || score > most)) {
            most = score;
            best = c;
        }
    }
    return best;
}

/* --- the joint draw with top_p --- */

/* Log of the mass a row kept. */
static double kept_mass(const step *t, int32_t i)
{
    const tt_row_stats *st = &t->r->stats[i];
    return st->max_logit / t->q->params->temperature - log((double)st->prob_argmax);
}

/* Whether the row has anything above the token that was tried. */
static bool reaches(const step *t, int32_t i)
{
    return counts(t, i) && (!t->s->probing || t->r->plan->ask[i].draw.min_p < 1);
}

/* Log of the mass kept by all rows; -inf if none is. */
static double all_mass(const step *t)
{
    double max = -INFINITY, sum = 0;
    for (int32_t i = 0; i < t->r->plan->asks; i++)
        if (reaches(t, i))
            max = fmax(max, kept_mass(t, i));
    for (int32_t i = 0; i < t->r->plan->asks; i++)
        if (reaches(t, i))
            sum += exp(kept_mass(t, i) - max);
    return sum > 0 ? max + log(sum) : -INFINITY;
}

/* The greatest noisy logit of what was kept. */
static choice best_kept(const step *t)
{
    choice best = {-1, -1, 0};
    float most = -INFINITY;
    for (int32_t i = 0; i < t->r->plan->asks; i++) {
        if (!reaches(t, i))
            continue;
        choice c = own_draw(t, i);
        float noise = own_noise(t->q, &t->r->plan->ask[i].draw, c.id);
        float score = fmaf((float)t->q->params->temperature, noise, c.logit);
        if (best.ask < 0 || score > most) {
            most = score;
            best = c;
        }
    }
    return best;
}

/* Whether a step's draw is decided; if not, a pass on what lies above the token tried tells
 * more. */
static bool decide_nucleus(const step *t, choice *out)
{
    state *s = t->s;
    const tt_params *p = t->q->params;
    if (s->probing) {
        double above = exp(all_mass(t) - s->total);
        double own = exp(s->tried.logit / p->temperature - s->total);
        *out = s->tried;
        if (above == 0 || above + own <= p->top_p) {
            s->probing = false;
            return true;
        }
    } else {
        s->total = all_mass(t);
        for (int32_t i = 0; i < t->r->plan->asks; i++)
            s->peak[i] = t->r->stats[i].max_logit;
    }
    s->tried = best_kept(t);
    s->probing = false;
    for (int32_t i = 0; i < t->r->plan->asks; i++)
        s->probing |= counts(t, i) && s->peak[i] > s->tried.logit + equal(s->tried.logit);
    *out = s->tried; /* the greatest logit of all is always kept */
    return !s->probing;
}

/* --- a step's end --- */

/* How sure the model is that nothing is missing. */
static double complete(const tt_seq *q, const float *logit)
{
    double max = logit[0], sum = 0, t = q->params->stopping_temperature;
    for (int32_t i = 1; i < q->info->classes; i++)
        max = logit[i] > max ? logit[i] : max;
    for (int32_t i = 0; i < q->info->classes; i++)
        sum += exp((logit[i] - max) / t);
    return exp((logit[0] - max) / t) / sum;
}

/* Log of the sum of exp over all places and tokens. */
static double log_total(const tt_result *r)
{
    double max = r->stats[0].lse, sum = 0;
    for (int32_t i = 1; i < r->plan->asks; i++)
        max = r->stats[i].lse > max ? r->stats[i].lse : max;
    for (int32_t i = 0; i < r->plan->asks; i++)
        sum += exp(r->stats[i].lse - max);
    return max + log(sum);
}

/* Columns from the first gap on that may still grow are not final. */
static int32_t unsettled(const tt_seq *q)
{
    int32_t c = 0, begin = 0;
    for (; c < q->columns && !tt_seq_open_at(q, c); c++)
        begin = q->fixed[c] ? c + 1 : begin;
    return c < q->columns ? q->columns - begin : 0;
}

/* Probabilities are those of the model over all places and tokens; alternatives are of the place
 * that was chosen. */
static void insert(tt_seq *q, state *s, const tt_result *r, choice c)
{
    double total = log_total(r);
    tt_id_value top[TT_MAX_TOP];
    for (int32_t k = 0; k < q->n_top; k++) {
        top[k] = r->top[(size_t)c.ask * (size_t)r->plan->n_top + (size_t)k];
        if (top[k].id >= 0)
            top[k].value = (float)(top[k].value + r->stats[c.ask].lse - total);
    }
    tt_seq_insert(q, s->at[c.ask].column, c.id, (float)(c.logit - total), top);
    q->unsettled = unsettled(q);
    s->inserted++;
}

/* Insertions there may still be. */
static int32_t steps_left(const tt_params *p, const state *s)
{
    int32_t left = p->max_steps ? p->max_steps - s->inserted : INT32_MAX;
    int32_t oracle = p->oracle_length ? p->oracle_length - s->rows : INT32_MAX;
    return left < oracle ? left : oracle;
}

/* Whether the text is complete. If it is but for gaps that lack tokens, or if those will need all
 * steps that are left, only such gaps are filled. */
static bool ends(tt_seq *q, state *s, const tt_result *r)
{
    const tt_params *p = q->params;
    bool full = p->oracle_length && s->rows >= p->oracle_length;
    bool enough = q->info->classes && p->stopping_threshold < 1 &&
                  complete(q, r->classes) >= p->stopping_threshold;
    if (s->inserted == 0 && p->force_predict_first_step)
        enough = full = false;
    s->lack_alone = s->lacking && (enough || full || steps_left(p, s) <= s->lacking);
    q->complete = (enough || full) && !s->lacking;
    return q->complete;
}

static tt_status apply_step(tt_seq *q, void *memory, const tt_result *r, bool *done, tt_err *e)
{
    (void)e;
    state *s = memory;
    const tt_params *p = q->params;
    const step t = {q, s, r};
    choice c = {0};
    if (!s->probing && (*done = ends(q, s, r)))
        return TT_OK;
    if (!joint_nucleus(q))
        c = p->selection == TT_SELECT_JOINT ? choose_joint(&t) : choose_two_step(&t);
    else if (!decide_nucleus(&t, &c))
        return TT_OK;
    insert(q, s, r, c);
    bool last = (p->max_steps && s->inserted >= p->max_steps) || q->unsettled == 0;
    *done = last || (p->oracle_length && s->rows + 1 >= p->oracle_length && !s->lacking);
    return TT_OK;
}

static const char *const params[] = {"temperature",
                                     "top_k",
                                     "top_p",
                                     "selection",
                                     "position_temperature",
                                     "position_top_k",
                                     "position_top_p",
                                     "stopping_threshold",
                                     "stopping_temperature",
                                     "max_steps",
                                     "force_predict_first_step",
                                     "oracle_length",
                                     NULL};

extern const tt_sampler tt_sampler_insertion;
const tt_sampler tt_sampler_insertion = {
    .name = "insertion",
    .summary = "insert one token a step, anywhere, until the model says that nothing is missing",
    .source = "arXiv 2505.05755 and the released predictors",
    .needs = TT_KIND_INSERTION,
    .inserts = true,
    .state_size = sizeof(state),
    .column_size = sizeof(float),
    .step_column_size = sizeof(place) + 16,
    .params = params,
    .open = open_seq,
    .plan = plan_step,
    .apply = apply_step,
};
