/* speculate.c - self-speculation: few recurrences draft tokens, all of them verify the drafts in
 * one pass (arXiv 2502.05171, released generate_speculative).
 *
 * A draft is accepted when the verifier draws the same token, or, with accept_ratio below 1, when
 * the verifier finds it at least so many times as likely as its first choice. Where a draft is
 * refused the verifier's own token stands. With states that begin the same way each time (see
 * recurrent.h) the text is that of the plain sampler. */
#include <math.h>

#include "samplers/recurrent.h"

typedef struct {
    int32_t fed;   /* columns in the store with all recurrences */
    int32_t known; /* columns decided from the left */
    int32_t drafts; /* behind those */
    bool verifying;
    int32_t *token; /* by column: what is fed, drafts included */
    tt_depth depth;
} state;

static tt_status spec_open(tt_seq *q, void *memory, tt_err *e)
{
    state *s = memory;
    s->token = TT_TAKE(q->arena, q->columns, int32_t);
    if (!s->token)
        return tt_fail(e, TT_ENOMEM, "no memory for %d columns", q->columns);
    for (int32_t c = 0; c < q->columns; c++)
        s->token[c] = q->id[c];
    while (s->known < q->columns && q->fixed[s->known])
        s->known++;
    q->expected = q->columns - s->known;
    return tt_recurrent_check(q, e);
}

/* Drafts of this round: as many as there is room for. */
static int32_t round_length(const tt_seq *q, const state *s)
{
    int32_t room = q->columns - s->known;
    return q->params->draft_length < room ? q->params->draft_length : room;
}

static tt_status spec_plan(tt_seq *q, void *memory, tt_plan *plan, tt_err *e)
{
    state *s = memory;
    const tt_params *p = q->params;
    int32_t last = s->known + s->drafts;
    tt_status st;
    s->verifying = !s->fed || s->drafts == round_length(q, s);
    if (!s->fed) /* the prompt, with its first token */
        st = tt_recurrent_plan(q, &s->depth, 0, s->known, p->recurrence, s->known, 1, plan, e);
    else if (s->verifying)
        st = tt_recurrent_plan(q, &s->depth, s->fed, last - 1, p->recurrence, s->known, s->drafts,
                               plan, e);
    else
        st = tt_recurrent_plan(q, &s->depth, last - 1, last, p->draft_recurrence, last, 1, plan, e);
    plan->row_id = s->token;
    for (int32_t i = 0; i < plan->asks && !st && s->fed && s->verifying; i++)
        plan->ask[i].draw.target = s->token[s->known + i];
    return st;
}

static bool accepted(const tt_seq *q, const tt_row_stats *stats, int32_t draft)
{
    if (stats->drawn == draft || q->params->accept_ratio >= 1)
        return stats->drawn == draft;
    double best = (double)stats->max_logit - stats->lse;
    return stats->target_logprob >= best + log(q->params->accept_ratio);
}

/* Takes over drafts up to the first that is refused, which the verifier's token replaces. Given
 * tokens stand as they are. */
static void settle(tt_seq *q, state *s, const tt_result *r)
{
    for (int32_t i = 0; i < r->plan->asks; i++) {
        const tt_row_stats *stats = &r->stats[i];
        int32_t c = s->known++, draft = s->token[c];
        bool same = q->fixed[c] || (s->drafts && accepted(q, stats, draft));
        if (!same)
            s->token[c] = stats->drawn;
        if (!q->fixed[c])
            tt_seq_put(q, c, s->token[c], s->token[c] == stats->drawn ? stats->logprob
                                                                     : stats->target_logprob,
                       r->top ? r->top + (size_t)i * (size_t)q->n_top : NULL);
        if (!same)
            break;
    }
    s->fed = s->known - 1;
    q->depth.cleared += r->plan->row_end - s->fed;
    s->drafts = 0;
}

static tt_status spec_apply(tt_seq *q, void *memory, const tt_result *r, bool *done, tt_err *e)
{
    (void)e;
    state *s = memory;
    tt_recurrent_count(q, r);
    for (int32_t c = r->plan->row_begin; c < r->plan->row_end; c++)
        q->recurrences[c] += r->plan->depth->ran;
    if (s->verifying) {
        settle(q, s, r);
    } else {
        int32_t c = s->known + s->drafts++;
        s->token[c] = q->fixed[c] ? q->id[c] : r->stats[0].drawn;
    }
    *done = s->known == q->columns;
    return TT_OK;
}

static void spec_keeps(const tt_params *p, tt_kv_sharing *kv, tt_latent_size *latents)
{
    (void)latents;
    *kv = tt_recurrent_sharing(p, 0);
}

static const char *const params[] = {TT_RECURRENT_PARAMS, "draft_recurrence", "draft_length",
                                     "accept_ratio", NULL};

extern const tt_sampler tt_sampler_self_speculative;
const tt_sampler tt_sampler_self_speculative = {
    .name = "self_speculative",
    .summary = "recurrent depth: few recurrences draft tokens, all of them verify",
    .source = "arXiv 2502.05171, released generate_speculative",
    .needs = TT_KIND_CAUSAL | TT_KIND_RECURRENT,
    .keeps = true,
    .keeps_depth = spec_keeps,
    .state_size = sizeof(state),
    .column_size = sizeof(int32_t),
    .params = params,
    .open = spec_open,
    .plan = spec_plan,
    .apply = spec_apply,
};
