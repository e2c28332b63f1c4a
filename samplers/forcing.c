/* forcing.c - the diffusion-forcing sampler of recurrent-depth models (Geiping, Yang and Su,
 * "Efficient Parallel Samplers for Recurrent-Depth Models and Their Connection to Diffusion
 * Language Models", arXiv 2510.14961, and the code released with it).
 *
 * Instead of running all recurrences of a token before the next one, a step runs a few of them for
 * all open positions at once, guesses the next token and opens its position. Positions to the
 * left are always further along; those whose state stops moving are frozen.
 *
 *   open positions: begin .. begin + rows - 1; position `begin` is normally the last frozen token,
 *   whose state produces the logits of the first that is not.
 *   step: embed the tokens again, blend with the step before; mix noise into the states; recur;
 *         draw every token that is not frozen and one more; freeze; open `headway` positions.
 *
 * semantics `upstream` is the released code to the letter. `fixed` differs: a state is compared
 * with its own past, not with a neighbour's after a freeze; no position is opened behind the
 * canvas; a token is drawn with the same noise every step; and by three switches of their own the
 * embeddings of new positions are not scaled down (blend_history), only a converged prefix is
 * frozen (freeze_prefix), and nothing behind a token that just changed (freeze_unchanged). */
#include <math.h>

#include "samplers/recurrent.h"

enum { NO_CAP = 4096 };

/* Where the wave of a past step was. */
typedef struct {
    int32_t begin, rows;
} wave;

typedef struct {
    int32_t room;   /* columns there is memory for */
    int32_t *token; /* by column: frozen ones and drafts */
    int32_t *from;  /* by open column: whose kept state it begins with; -1: a fresh one */
    int32_t *stable; /* by column: how often it was drawn again as it was */
    int32_t *ran;    /* by column: recurrences of its state */
    int32_t length; /* of token */
    int32_t frozen; /* tokens from the left that stand */
    int32_t begin, rows; /* the wave */
    wave last, older;    /* of the two steps before */
    int32_t past_rows;   /* of the last step, those whose difference was kept; -1: no step yet */
    int32_t steps;
    bool prefilled;
    tt_depth depth;
    float *moved;
} state;

static bool upstream(const tt_seq *q) { return q->params->semantics == TT_SEMANTICS_UPSTREAM; }

static bool fix(const tt_seq *q, const char *name, bool value)
{
    return upstream(q) && !tt_params_given(q->params, name) ? false : value;
}

static int32_t longest_wave(const tt_params *p)
{
    return p->max_wavefront ? p->max_wavefront : NO_CAP;
}

/* Upstream opens positions behind the end of the answer. */
static int32_t forcing_overrun(const tt_params *p)
{
    return p->semantics == TT_SEMANTICS_UPSTREAM ? longest_wave(p) + p->headway : 0;
}

/* --- a step's beginning --- */

static tt_status forcing_open(tt_seq *q, void *memory, tt_err *e)
{
    state *s = memory;
    s->room = q->columns + forcing_overrun(q->params);
    s->token = TT_TAKE(q->arena, s->room, int32_t);
    s->from = TT_TAKE(q->arena, s->room, int32_t);
    s->stable = TT_TAKE(q->arena, s->room, int32_t);
    s->ran = TT_TAKE(q->arena, s->room, int32_t);
    s->moved = TT_TAKE(q->arena, s->room, float);
    if (!s->token || !s->from || !s->stable || !s->ran || !s->moved)
        return tt_fail(e, TT_ENOMEM, "no memory for %d columns", s->room);
    while (s->frozen < q->columns && q->fixed[s->frozen])
        s->frozen++;
    for (int32_t c = 0; c < s->room; c++) {
        s->token[c] = c < q->columns ? q->id[c] : -1;
        s->from[c] = -1;
    }
    s->length = s->rows = s->frozen;
    s->past_rows = -1;
    q->expected = q->columns - s->frozen;
    q->unsettled = q->columns - s->frozen;
    if (!q->params->full_prefill && s->frozen > longest_wave(q->params))
        return tt_fail_param(e, "full_prefill", "invalid_value",
                             "without 'full_prefill' the prompt of %d tokens must fit into the "
                             "wave of %d", s->frozen, longest_wave(q->params));
    return tt_recurrent_check(q, e);
}

static void mix_noise(const tt_params *p, int32_t recurrences, tt_depth_row *row)
{
    double a = p->state_noise_mixing;
    if (p->dampened_state_mixer)
        a /= 1 + recurrences;
    row->noise_keep = (float)(p->sqrt_mixer ? sqrt(a < 1 ? 1 - a : 0) : 1 - a);
    row->noise = (float)(p->sqrt_mixer ? sqrt(a) : a);
}

/* The first step has every position's embedding as its own history. */
static void blend_embeds(const tt_seq *q, const state *s, int32_t column, tt_depth_row *row)
{
    double eta = q->params->ema_embeds;
    bool first = s->past_rows < 0, known = column < s->last.begin + s->last.rows;
    row->embed_old = first || !known ? 0 : (float)eta;
    bool scaled = known || !fix(q, "blend_history", q->params->blend_history);
    row->embed_new = first || !scaled ? 1 : (float)(1 - eta);
}

/* Which of the states that the wave begins with, and which column's kept rows, row j is compared
 * with; -1: none. Upstream numbers the states of past steps from where the wave began then, while
 * they begin where it was frozen up to since. */
static void compare(const tt_seq *q, const state *s, int32_t j, tt_depth_row *row)
{
    int32_t shift = upstream(q) ? s->begin - s->last.begin : 0;
    int32_t column = s->begin + j, end = s->last.begin + s->last.rows;
    row->against = j + shift < s->rows ? j + shift : -1;
    row->before = -1;
    if (s->past_rows < 0)
        return;
    if (!upstream(q)) {
        row->before = column < end ? column : -1;
    } else if (q->params->freeze_strategy == TT_FREEZE_ACCELERATION) {
        row->before = j < s->past_rows ? s->last.begin + j : -1;
    } else {
        int32_t place = column - s->older.begin; /* in the wave of the step before */
        row->before = place < s->last.rows ? s->last.begin + place : -1;
    }
}

static tt_move move_of(const tt_seq *q)
{
    switch ((tt_freeze)q->params->freeze_strategy) {
    case TT_FREEZE_LATENT:
        return TT_MOVE_STATE;
    case TT_FREEZE_ACCELERATION:
        return TT_MOVE_ACCELERATION;
    case TT_FREEZE_CURVATURE:
        return TT_MOVE_CURVATURE;
    case TT_FREEZE_STABLE:
    case TT_FREEZE_FIXED:
        break;
    }
    return TT_MOVE_NONE;
}

static tt_status plan_wave(tt_seq *q, state *s, tt_plan *plan, tt_err *e)
{
    const tt_params *p = q->params;
    int32_t end = s->begin + s->rows, asks = end + 1 - s->frozen;
    if (!upstream(q) && end + 1 > q->columns)
        asks--; /* what follows the canvas is nobody's */
    tt_status st = tt_recurrent_plan(q, &s->depth, s->begin, end, p->inner_recurrence, s->frozen,
                                     asks, plan, e);
    tt_depth_row *row = TT_TAKE(plan->arena, s->rows, tt_depth_row);
    if (!st && !row)
        st = tt_fail(e, TT_ENOMEM, "no step memory for %d columns", s->rows);
    if (st)
        return st;
    for (int32_t j = 0; j < s->rows; j++) {
        int32_t c = s->begin + j;
        row[j] = (tt_depth_row){.from = s->from[c], .noise_keep = 1, .embed_new = 1};
        if (p->state_noise_mixing > 0)
            mix_noise(p, s->ran[c], &row[j]);
        if (p->ema_embeds > 0)
            blend_embeds(q, s, c, &row[j]);
        compare(q, s, j, &row[j]);
    }
    for (int32_t i = 0; i < asks && upstream(q); i++)
        plan->ask[i].draw.step = (uint32_t)s->steps + 1;
    plan->row_id = s->token;
    s->depth.row = row;
    s->depth.step = (uint32_t)s->steps + 1;
    s->depth.move = move_of(q);
    s->depth.moved = s->moved;
    return TT_OK;
}

static tt_status forcing_plan(tt_seq *q, void *memory, tt_plan *plan, tt_err *e)
{
    state *s = memory;
    if (s->prefilled || !q->params->full_prefill)
        return plan_wave(q, s, plan, e);
    tt_status st = tt_recurrent_plan(q, &s->depth, 0, s->frozen, q->params->recurrence, s->frozen,
                                     1, plan, e);
    plan->row_id = s->token;
    return st;
}

/* --- a step's end --- */

/* A token stands. Behind the canvas nobody sees it. */
static void commit(tt_seq *q, const tt_result *r, int32_t column)
{
    int32_t i = column - r->plan->ask[0].column;
    if (column < q->columns && !q->fixed[column])
        tt_seq_commit(q, r, i);
}

/* Of the pass just run, for columns [begin, end). */
static void count_recurrences(tt_seq *q, state *s, int32_t begin, int32_t end)
{
    for (int32_t c = begin; c < end; c++) {
        s->ran[c] += s->depth.ran;
        if (c < q->columns)
            q->recurrences[c] = s->ran[c];
    }
}

static void finish_prefill(tt_seq *q, state *s, const tt_result *r)
{
    int32_t n = s->frozen;
    s->prefilled = true;
    count_recurrences(q, s, 0, upstream(q) ? n + 1 : n); /* upstream takes the next one as run */
    s->token[n] = r->stats[0].drawn;
    commit(q, r, n);
    s->frozen = s->length = n + 1;
    s->begin = n;
    s->rows = 1;
}

/* Drawn tokens take their places; returns the first position whose token is another one than
 * before, among those that had one. */
static int32_t take_tokens(tt_seq *q, state *s, const tt_result *r)
{
    int32_t changed = s->length;
    for (int32_t c = 0; c < s->frozen; c++)
        s->stable[c]++;
    for (int32_t i = 0; i < r->plan->asks; i++) {
        int32_t c = s->frozen + i, id = r->stats[i].drawn;
        bool given = c < q->columns && q->fixed[c];
        id = given ? q->id[c] : id;
        bool same = c < s->length && s->token[c] == id;
        if (c < s->length)
            s->stable[c] += same;
        if (c < s->length && !same && c < changed)
            changed = c;
        if (!same && c < q->columns && !given)
            tt_seq_draft(q, c, id, r->stats[i].logprob,
                         r->top ? r->top + (size_t)i * (size_t)q->n_top : NULL);
        s->token[c] = id;
    }
    return changed;
}

/* Random tokens behind the draft, for positions opened early. */
static int32_t filler(const tt_seq *q, const state *s, int32_t i)
{
    if (q->source)
        return q->source->filler(q->source->arg, i);
    tt_rng_address a = {.seed = q->noise.seed, .sample = q->noise.sample,
                        .step = (uint32_t)s->steps + 1, .position = UINT32_MAX};
    tt_rng_block b = tt_rng_at(a, (uint32_t)i / 4);
    return (int32_t)((uint64_t)b.v[i % 4] * (uint64_t)q->vocab >> 32);
}

/* Opens positions behind the wave; returns how many. */
static int32_t open_positions(tt_seq *q, state *s)
{
    const tt_params *p = q->params;
    int32_t end = s->begin + s->rows, most = longest_wave(p), opened = p->headway;
    int32_t room = (upstream(q) ? s->room : q->columns) - end;
    if (s->rows + opened > most) {
        opened = most - s->rows;
        q->depth.standing++;
    }
    opened = opened < room ? opened : room;
    opened = opened > 0 ? opened : 0;
    bool carries = p->continuous_compute && s->rows >= p->headway;
    for (int32_t i = 0; i < p->headway; i++) {
        int32_t c = end + i;
        if (i && c < s->room)
            s->token[c] = c < q->columns && q->fixed[c] ? q->id[c] : filler(q, s, i - 1);
        if (i < opened)
            s->from[c] = carries ? c - p->headway : -1;
    }
    s->length = end + opened;
    s->rows += opened;
    return opened;
}

/* Last position of the wave that may be kept open as the first one, or -1: by how states moved. */
static int32_t last_converged(const tt_seq *q, int32_t rows, const float *moved)
{
    double threshold = q->params->exit_threshold > 0 ? q->params->exit_threshold : 0.03;
    bool prefix = fix(q, "freeze_prefix", q->params->freeze_prefix);
    int32_t last = -1;
    for (int32_t j = 0; j < rows; j++)
        if (moved[j] < threshold)
            last = j;
        else if (prefix)
            break;
    return last;
}

/* How many positions stand after this step, 0: nothing new is known. `computed` rows ran in it. */
static int32_t freeze_up_to(const tt_seq *q, const state *s, int32_t computed)
{
    const tt_params *p = q->params;
    if (move_of(q)) {
        int32_t last = last_converged(q, computed, s->moved);
        return last < 0 ? 0 : s->begin + last + 1;
    }
    int32_t limit = p->recurrence / p->inner_recurrence, k = 0;
    for (int32_t c = 0; c < s->begin + computed; c++)
        if (s->stable[c] > limit)
            k = c + 1;
    return k;
}

/* The wave begins at the last of k positions that stand. */
static void freeze(const tt_seq *q, state *s, int32_t k)
{
    int32_t end = s->begin + s->rows;
    s->frozen = upstream(q) || k > s->frozen ? k : s->frozen;
    s->begin = k - 1;
    s->rows = end - s->begin;
}

/* Freezing by number of steps: everything moves on by as many positions as were opened. */
static void shift(state *s, int32_t n)
{
    n = n < s->rows - 1 ? n : s->rows - 1;
    s->begin += n;
    s->rows -= n;
    s->frozen += n;
}

/* Which positions stand now. */
static void settle(tt_seq *q, state *s, int32_t computed, int32_t opened, int32_t changed)
{
    const tt_params *p = q->params;
    bool late = !upstream(q) && s->steps >= p->max_diffusion_steps;
    if (p->freeze_strategy == TT_FREEZE_FIXED || late) {
        /* Upstream stands still for good when nothing more can be opened. */
        if (late || s->steps > p->recurrence / p->inner_recurrence)
            shift(s, !upstream(q) && opened < 1 ? 1 : opened);
        return;
    }
    int32_t k = freeze_up_to(q, s, computed);
    if (fix(q, "freeze_unchanged", p->freeze_unchanged) && k > changed + 1)
        k = changed + 1;
    if (k > s->begin)
        freeze(q, s, k);
}

/* Upstream looks for end tokens late, and only among those frozen in the very step. */
static bool upstream_ends(const tt_seq *q, const state *s, int32_t frozen_before)
{
    const tt_params *p = q->params;
    if (!upstream(q))
        return false;
    int32_t from = move_of(q) ? frozen_before : s->frozen - p->headway;
    for (int32_t c = from > 0 ? from : 0; c < s->frozen && s->steps > p->recurrence; c++)
        if (s->token[c] == q->eos_id || s->token[c] == q->eot_id)
            return true;
    return s->steps > p->max_diffusion_steps;
}

static tt_status forcing_apply(tt_seq *q, void *memory, const tt_result *r, bool *done, tt_err *e)
{
    (void)e;
    state *s = memory;
    tt_recurrent_count(q, r);
    if (q->params->full_prefill && !s->prefilled) {
        finish_prefill(q, s, r);
        q->unsettled = q->columns - s->frozen;
        *done = s->frozen >= q->columns;
        return TT_OK;
    }
    int32_t computed = s->rows, begin = s->begin, before = s->frozen;
    count_recurrences(q, s, begin, begin + computed);
    for (int32_t c = begin; c < begin + computed; c++)
        s->from[c] = c;
    int32_t shifted = s->begin - s->last.begin; /* rows of the past step that upstream drops */
    int32_t changed = take_tokens(q, s, r);
    int32_t opened = open_positions(q, s);
    settle(q, s, computed, opened, changed);
    q->depth.cleared += begin + computed - s->begin;
    for (int32_t c = before; c < s->frozen; c++)
        commit(q, r, c);
    s->past_rows = computed - shifted > 0 ? computed - shifted : 0;
    s->older = s->last;
    s->last = (wave){begin, computed};
    q->unsettled = s->frozen < q->columns ? q->columns - s->frozen : 0;
    *done = s->frozen >= q->columns || upstream_ends(q, s, before);
    s->steps++;
    return TT_OK;
}

static void forcing_keeps(const tt_params *p, tt_kv_sharing *kv, tt_latent_size *latents)
{
    *kv = tt_recurrent_sharing(p, 1);
    latents->columns = longest_wave(p) + p->headway;
    latents->embeds = p->ema_embeds > 0;
    latents->past = p->freeze_strategy == TT_FREEZE_ACCELERATION ||
                    p->freeze_strategy == TT_FREEZE_CURVATURE;
}

static const char *const params[] = {
    TT_RECURRENT_PARAMS, "exit_threshold", "continuous_compute", "inner_recurrence", "headway",
    "freeze_strategy", "max_wavefront", "ema_embeds", "state_noise_mixing", "dampened_state_mixer",
    "sqrt_mixer", "full_prefill", "max_diffusion_steps", "semantics", "blend_history",
    "freeze_prefix", "freeze_unchanged", NULL};

extern const tt_sampler tt_sampler_forcing;
const tt_sampler tt_sampler_forcing = {
    .name = "forcing",
    .summary = "recurrent depth: a wave of positions refined together, frozen from left to right",
    .source = "arXiv 2510.14961, released generate_diffusion_style",
    .needs = TT_KIND_CAUSAL | TT_KIND_RECURRENT,
    .keeps = true,
    .revises = true,
    .keeps_depth = forcing_keeps,
    .overrun = forcing_overrun,
    .state_size = sizeof(state),
    .column_size = 5 * sizeof(int32_t),
    .step_column_size = sizeof(tt_depth_row),
    .params = params,
    .open = forcing_open,
    .plan = forcing_plan,
    .apply = forcing_apply,
};
