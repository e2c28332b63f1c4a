/* guided.c - guided diffusion ("Accelerating Diffusion Language Model Inference via Efficient KV
 * Caching and Guided Diffusion", arXiv 2505.21467; released code with its faults mended).
 *
 * A turn: one diffusion pass drafts every open column d[c] = argmax; a small causal guide reads
 * the drafts in chunks and accepts a leading run of them; those are committed, at least one. The
 * tokens are always the diffusion model's own, final from left to right. Accepting d under the
 * guide's distribution p:
 *   deterministic   d = argmax p
 *   topk            d among the guide_k most likely
 *   topk_relative   that, and p[d] >= guide_ratio * max p
 *
 * The guide's store holds columns before the last committed one; each turn feeds it from there.
 * With cache = free the diffusion model computes the prompt's columns in the first turn only.
 *
 * The two passes of a turn cannot overlap: the guide reads the drafts of this turn, and the next
 * draft depends on how many of them it accepts. Turns of different requests are independent, and
 * those that wait for the same model share one pass. Running the two models side by side on two
 * streams would need the requests split into halves that take turns, so that every pass has half
 * the rows and each model's weights are read twice as often: at the few rows of such passes that
 * is what their time consists of. */
#include <math.h>
#include <string.h>

#include "samplers/masked/masked.h"

typedef struct {
    tt_rules rules;
    tt_cache cache;
    int32_t *draft;   /* per column */
    float *logprob;   /* of the drafts */
    tt_id_value *top; /* columns x n_top */
    int32_t first;    /* leftmost open column */
    int32_t known;    /* columns the guide's store holds for good */
    int32_t accepted; /* leading drafts accepted so far in this turn */
    bool verifying;
} state;

static tt_status gd_open(tt_seq *q, void *memory, tt_err *e)
{
    state *s = memory;
    tt_status st = tt_rules_begin(&s->rules, q, e);
    if (st)
        return st;
    if (!q->guide_vocab)
        return tt_fail_param(e, "guide", "missing_required_parameter",
                             "sampler 'guided' needs a 'guide' model");
    st = tt_cache_begin(&s->cache, q, e);
    if (st)
        return st;
    while (s->first < q->columns && !tt_seq_open_at(q, s->first))
        s->first++;
    if (s->first == 0 || tt_count_open(q, s->first, q->columns) != q->columns - s->first)
        return tt_fail_param(e, "sampler", "unsupported_value",
                             "sampler 'guided' continues a prompt; it cannot fill holes");
    size_t n = (size_t)q->columns;
    s->draft = TT_TAKE(q->arena, n, int32_t);
    s->logprob = TT_TAKE(q->arena, n, float);
    s->top = q->n_top ? TT_TAKE(q->arena, n * (size_t)q->n_top, tt_id_value) : NULL;
    if (!s->draft || !s->logprob || (q->n_top && !s->top))
        return tt_fail(e, TT_ENOMEM, "no memory for drafts of %d columns", q->columns);
    q->expected = 2 * (q->columns - s->first);
    return TT_OK;
}

static tt_status plan_draft(tt_seq *q, state *s, tt_plan *plan, tt_err *e)
{
    tt_status st = tt_ask_open(q, &s->rules, s->first, q->columns, plan, e);
    if (!st && s->cache.kind == TT_CACHE_FREE) {
        plan->keep = true;
        plan->row_begin = s->cache.filled ? q->prompt : 0;
        s->cache.filled = true;
    }
    return st;
}

/* One past the last column whose draft the present chunk judges. The guide has no embedding for
 * ids beyond its vocabulary, so none of them is fed. */
static int32_t chunk_end(const tt_seq *q, const state *s)
{
    int32_t from = s->first + s->accepted, end = from + q->params->guide_chunk;
    if (end > q->columns)
        end = q->columns;
    for (int32_t c = from; c < end - 1; c++)
        if (s->draft[c] >= q->guide_vocab)
            return c + 1;
    return end;
}

static tt_status plan_verify(tt_seq *q, state *s, tt_plan *plan, tt_err *e)
{
    int32_t from = s->first + s->accepted, end = chunk_end(q, s);
    plan->guide = plan->keep = true;
    plan->n_top = q->params->guide_k;
    plan->row_begin = s->accepted ? from - 1 : s->known;
    plan->row_end = plan->see_end = end - 1;
    plan->see = TT_SEE_CAUSAL;
    plan->row_id = TT_TAKE(plan->arena, q->columns, int32_t);
    plan->ask = TT_TAKE(plan->arena, end - from, tt_ask);
    if (!plan->row_id || !plan->ask)
        return tt_fail(e, TT_ENOMEM, "no step memory for %d columns", end - from);
    for (int32_t c = plan->row_begin; c < plan->row_end; c++)
        plan->row_id[c] = c < s->first ? q->id[c] : s->draft[c];
    for (int32_t c = from; c < end; c++) {
        int32_t target = s->draft[c] < q->guide_vocab ? s->draft[c] : -1;
        plan->ask[plan->asks++] = (tt_ask){.column = c, .draw = {.top_p = 1, .target = target}};
    }
    return TT_OK;
}

static tt_status gd_plan(tt_seq *q, void *memory, tt_plan *plan, tt_err *e)
{
    state *s = memory;
    return s->verifying ? plan_verify(q, s, plan, e) : plan_draft(q, s, plan, e);
}

static void keep_drafts(const tt_seq *q, state *s, const tt_result *r)
{
    size_t n = (size_t)q->n_top;
    for (int32_t i = 0; i < r->plan->asks; i++) {
        int32_t c = r->plan->ask[i].column;
        s->draft[c] = r->stats[i].argmax;
        s->logprob[c] = (float)(r->stats[i].max_logit - r->stats[i].lse);
        if (n)
            memcpy(s->top + (size_t)c * n, r->top + (size_t)i * n, n * sizeof *s->top);
    }
    s->verifying = true;
    s->accepted = 0;
}

static bool accepts(const tt_seq *q, const tt_result *r, int32_t i)
{
    const tt_row_stats *st = &r->stats[i];
    int32_t target = r->plan->ask[i].draw.target, k = r->plan->n_top;
    if (target < 0)
        return false;
    if (q->params->guide_rule == TT_GUIDE_DETERMINISTIC)
        return st->argmax == target;
    const tt_id_value *top = r->top + (size_t)i * (size_t)k;
    bool among = false;
    for (int32_t j = 0; j < k; j++)
        among |= top[j].id == target;
    if (q->params->guide_rule == TT_GUIDE_TOPK)
        return among;
    double share = exp((double)st->target_logprob - ((double)st->max_logit - st->lse));
    return among && share >= q->params->guide_ratio;
}

static bool put(tt_seq *q, const state *s, int32_t c, int32_t id)
{
    return tt_seq_put(q, c, id, s->logprob[c],
                      s->top ? s->top + (size_t)c * (size_t)q->n_top : NULL);
}

/* Commits the accepted drafts, at least one, up to the first that a grammar has no place for; an
 * end token fills the rest. */
static void commit(tt_seq *q, state *s, bool *done)
{
    int32_t end = s->first + (s->accepted > 0 ? s->accepted : 1);
    for (int32_t c = s->first; c < end; c++) {
        if (!put(q, s, c, s->draft[c])) {
            end = c;
            break;
        }
        if (s->draft[c] == q->eos_id) {
            for (int32_t rest = c + 1; rest < q->columns; rest++)
                put(q, s, rest, q->eos_id);
            end = q->columns;
            break;
        }
    }
    s->first = end;
    s->known = end - 1; /* the last committed one is fed again */
    s->verifying = false;
    *done = end == q->columns;
}

static tt_status gd_apply(tt_seq *q, void *memory, const tt_result *r, bool *done, tt_err *e)
{
    (void)e;
    state *s = memory;
    if (!s->verifying) {
        keep_drafts(q, s, r);
        return TT_OK;
    }
    int32_t ok = 0;
    while (ok < r->plan->asks && accepts(q, r, ok))
        ok++;
    s->accepted += ok;
    bool more = ok == r->plan->asks && s->first + s->accepted < q->columns;
    if (!more)
        commit(q, s, done);
    return TT_OK;
}

static const char *const params[] = {"cache", "guide_rule", "guide_k", "guide_ratio",
                                     "guide_chunk", "logits_eos_inf", NULL};

extern const tt_sampler tt_sampler_guided;
const tt_sampler tt_sampler_guided = {
    .name = "guided",
    .summary = "draft all, let a small causal model accept a leading run",
    .source = "FreeCache and Guided Diffusion, arXiv 2505.21467, released code",
    .needs = TT_KIND_BIDIRECTIONAL,
    .needs_guide = true,
    .caches = 1 << TT_CACHE_NONE | 1 << TT_CACHE_FREE,
    .best_cache = TT_CACHE_FREE,
    .state_size = sizeof(state),
    .params = params,
    .open = gd_open,
    .plan = gd_plan,
    .apply = gd_apply,
};
