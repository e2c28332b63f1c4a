/* recurrent.c - see recurrent.h; and the plain way to sample recurrent depth: one token after the
 * other, each with its own number of recurrences. */
#include "samplers/recurrent.h"

tt_status tt_recurrent_check(const tt_seq *q, tt_err *e)
{
    if (q->columns && q->fixed[0])
        return TT_OK;
    return tt_fail_param(e, "prompt", "invalid_value",
                         "the prompt is empty; a recurrent-depth model begins with a token");
}

tt_draw tt_recurrent_draw(const tt_seq *q, int32_t column, uint32_t step)
{
    const tt_params *p = q->params;
    return (tt_draw){.temperature = (float)p->temperature,
                     .top_p = (float)p->top_p,
                     .top_k = p->top_k,
                     .min_p = (float)p->min_p,
                     .noise = p->temperature > 0 ? TT_NOISE_PHILOX : TT_NOISE_NONE,
                     .seed = q->noise.seed,
                     .sample = q->noise.sample,
                     .step = step,
                     .position = (uint32_t)column,
                     .bias = q->bias,
                     .n_bias = q->n_bias,
                     .limit = q->vocab,
                     .target = -1};
}

tt_status tt_recurrent_plan(const tt_seq *q, tt_depth *depth, int32_t begin, int32_t end,
                            int32_t recurrences, int32_t first, int32_t asks, tt_plan *plan,
                            tt_err *e)
{
    plan->row_begin = begin;
    plan->row_end = plan->see_end = end;
    plan->see = TT_SEE_CAUSAL;
    plan->keep = true;
    plan->ask = TT_TAKE(plan->arena, asks, tt_ask);
    plan->depth = depth;
    if (!plan->ask)
        return tt_fail(e, TT_ENOMEM, "no step memory for %d columns", end - begin);
    for (int32_t i = 0; i < asks; i++)
        plan->ask[i] = (tt_ask){.column = first + i, .draw = tt_recurrent_draw(q, first + i, 0)};
    plan->asks = asks;
    *depth = (tt_depth){.recurrences = recurrences,
                        .seed = q->noise.seed,
                        .sample = q->noise.sample,
                        .init_scale = (float)q->params->init_scale,
                        .draw = q->source ? q->source->state : NULL,
                        .draw_arg = q->source ? q->source->arg : NULL};
    return TT_OK;
}

void tt_recurrent_count(tt_seq *q, const tt_result *r)
{
    const tt_plan *p = r->plan;
    int32_t rows = p->row_end - p->row_begin;
    q->depth.core_passes += p->depth->ran;
    q->depth.core_rows += (int64_t)p->depth->ran * rows;
}

tt_kv_sharing tt_recurrent_sharing(const tt_params *p, int32_t usual)
{
    static const tt_kv_lookup lookup[] = {TT_LOOKUP_LATEST, TT_LOOKUP_PRESENT, TT_LOOKUP_LAST,
                                          TT_LOOKUP_RANDOM};
    int32_t most = p->recurrence > p->inner_recurrence ? p->recurrence : p->inner_recurrence;
    int32_t n = p->kv_entries ? p->kv_entries : usual ? usual : most;
    return (tt_kv_sharing){.entries = n < most ? n : most,
                           .anchored = p->kv_anchor,
                           .lookup = lookup[p->kv_lookup]};
}

/* --- one token after the other --- */

typedef struct {
    int32_t fed; /* columns in the store */
    int32_t next; /* column being decided; columns when none is left */
    tt_depth depth;
    tt_exit_check check[TT_MAX_RECURRENCE];
} state;

static int32_t next_open(const tt_seq *q, int32_t from)
{
    while (from < q->columns && !tt_seq_open_at(q, from))
        from++;
    return from;
}

static tt_status rec_open(tt_seq *q, void *memory, tt_err *e)
{
    state *s = memory;
    const tt_exit_rule *rule = tt_exit_all()[q->params->exit_criterion];
    s->next = next_open(q, 0);
    q->expected = q->columns - q->prompt;
    if (rule->needs & TT_EXIT_LATENT && !(q->kinds & TT_KIND_DECIDES))
        return tt_fail_param(e, "exit_criterion", "unsupported_value",
                             "'exit_criterion' is 'learned', but no decider came with the model "
                             "(tensors exit_decider.*)");
    return tt_recurrent_check(q, e);
}

/* The first row goes on where the column before it ended. */
static tt_status carry_state(const tt_plan *plan, const state *s, tt_err *e)
{
    int32_t rows = plan->row_end - plan->row_begin;
    tt_depth_row *row = TT_TAKE(plan->arena, rows, tt_depth_row);
    if (!row)
        return tt_fail(e, TT_ENOMEM, "no step memory for %d columns", rows);
    for (int32_t i = 0; i < rows; i++)
        row[i] = (tt_depth_row){.from = i || !s->fed ? -1 : s->fed - 1, .noise_keep = 1,
                                .embed_new = 1, .against = -1, .before = -1};
    plan->depth->row = row;
    return TT_OK;
}

static tt_status rec_plan(tt_seq *q, void *memory, tt_plan *plan, tt_err *e)
{
    state *s = memory;
    const tt_params *p = q->params;
    tt_depth *d = &s->depth;
    tt_status st = tt_recurrent_plan(q, d, s->fed, s->next, p->recurrence, s->next, 1, plan, e);
    if (st)
        return st;
    const tt_exit_rule *rule = tt_exit_all()[p->exit_criterion];
    if (rule->value && (s->fed || p->exit_in_prompt)) {
        d->exit = rule;
        d->exit_threshold = p->exit_threshold > 0 ? p->exit_threshold : rule->threshold;
        d->exit_first = p->exit_first;
        d->exit_every = p->exit_every;
        d->check = s->check;
    }
    d->keep_normed = !rule->value;
    return p->continuous_compute ? carry_state(plan, s, e) : TT_OK;
}

static tt_status rec_apply(tt_seq *q, void *memory, const tt_result *r, bool *done, tt_err *e)
{
    (void)e;
    state *s = memory;
    tt_recurrent_count(q, r);
    for (int32_t c = s->fed; c < s->next; c++)
        q->recurrences[c] = r->plan->depth->ran;
    if (tt_seq_open_at(q, s->next))
        tt_seq_commit(q, r, 0);
    s->fed = s->next;
    s->next = next_open(q, s->next);
    *done = s->next == q->columns;
    return TT_OK;
}

static void rec_keeps(const tt_params *p, tt_kv_sharing *kv, tt_latent_size *latents)
{
    *kv = tt_recurrent_sharing(p, 0);
    latents->columns = p->continuous_compute;
}

static const char *const params[] = {
    TT_RECURRENT_PARAMS, "exit_criterion", "exit_threshold", "exit_first", "exit_every",
    "exit_in_prompt", "continuous_compute", NULL};

extern const tt_sampler tt_sampler_recurrent;
const tt_sampler tt_sampler_recurrent = {
    .name = "recurrent",
    .summary = "recurrent depth, one token after the other, each run until its state has settled",
    .source = "arXiv 2502.05171, released generate_minimal and generate_with_adaptive_compute",
    .needs = TT_KIND_CAUSAL | TT_KIND_RECURRENT,
    .keeps = true,
    .keeps_depth = rec_keeps,
    .state_size = sizeof(state),
    .step_column_size = sizeof(tt_depth_row),
    .params = params,
    .open = rec_open,
    .plan = rec_plan,
    .apply = rec_apply,
};
