/* run.c - see run.h. */
#include "server/run.h"

#include "server/run_rows.h"
#include "server/run_rules.h"

int32_t tt_run_columns(const tt_sampler *s, const tt_params *p, int32_t columns)
{
    int64_t block = s->needs & TT_KIND_BLOCKS && p->block_length > 0 ? p->block_length : 1;
    int64_t n = (columns + block - 1) / block * block + (s->overrun ? s->overrun(p) : 0);
    return n < INT32_MAX ? (int32_t)n : INT32_MAX;
}

/* --- memory --- */

static int32_t open_columns(const tt_run_spec *s)
{
    int32_t n = 0;
    for (int32_t c = 0; c < s->columns; c++)
        n += s->open[c] != 0;
    return n;
}

/* Sizes of the features an encoding run makes. */
static tt_features features_of(const tt_run_spec *s)
{
    tt_features f = {0};
    if (!s->encoding)
        return f;
    f.vectors = s->encoding->pool == TT_POOL_OPEN ? open_columns(s) : 1;
    f.width = s->model->info.width;
    f.terms = s->encoding->terms;
    return f;
}

static size_t life_bytes(const tt_run_spec *s)
{
    tt_features f = features_of(s);
    int32_t room = tt_run_columns(s->sampler, s->params, s->columns);
    return tt_seq_bytes(s->sampler, room, s->n_top, s->n_bias) + tt_features_bytes(&f) +
           tt_reach_bytes(s->constraint, s->constraints);
}

static size_t step_bytes(const tt_run_spec *s)
{
    tt_features f = features_of(s);
    int32_t room = tt_run_columns(s->sampler, s->params, s->columns);
    size_t asks = (size_t)f.vectors * (size_t)(f.terms / TT_MAX_TOP + 2);
    return tt_seq_step_bytes(s->sampler, room, s->n_bias) + asks * sizeof(tt_ask) +
           tt_run_rule_bytes(s) +
           tt_reach_step_bytes(s->constraint, s->constraints, s->vocab,
                               s->n_bias + TT_SPARE_BIASES, room);
}

size_t tt_run_bytes(const tt_run_spec *s) { return life_bytes(s) + step_bytes(s); }

/* --- life --- */

static tt_seq sequence_of(tt_run *r, const tt_run_spec *spec)
{
    const tt_sampler *s = spec->sampler;
    const tt_model_info *info = &spec->model->info;
    return (tt_seq){.columns = spec->columns,
                    .prompt = spec->prompt,
                    .sampler = s,
                    .params = spec->params,
                    .kinds = info->kinds,
                    .noise = spec->noise,
                    .must = s->inserts ? spec->open : NULL,
                    .info = info,
                    .mask_id = info->mask_id,
                    .eos_id = info->eos_id,
                    .eot_id = info->eot_id,
                    .vocab = spec->vocab,
                    .row_shift = info->row_shift,
                    .guide_vocab = spec->guide ? (int32_t)spec->guide->info.vocab : 0,
                    .n_bias = spec->n_bias,
                    .n_top = spec->n_top,
                    .draft = spec->draft,
                    .samples = spec->samples ? spec->samples : 1,
                    .encoding = spec->encoding,
                    .features = features_of(spec),
                    .log = spec->log ? &r->log : NULL,
                    .source = spec->source,
                    .arena = &r->life};
}

tt_status tt_run_open(tt_run *r, const tt_run_spec *spec, tt_err *e)
{
    const tt_sampler *s = spec->sampler;
    const tt_model_info *info = &spec->model->info;
    *r = (tt_run){.sampler = s, .model = spec->model, .guide = spec->guide};
    if (!tt_sampler_fits(s, info->kinds))
        return tt_fail_param(e, "sampler", "unsupported_value",
                             "sampler '%s' does not fit the %s family", s->name, info->family);
    r->live = spec->columns;
    r->negative = spec->negative;
    r->negatives = spec->negatives;
    r->rule = spec->rule;
    r->rules = spec->rules;
    tt_status st = tt_arena_open(&r->life, life_bytes(spec), e);
    if (!st)
        st = tt_arena_open(&r->step, step_bytes(spec), e);
    r->seq = sequence_of(r, spec);
    if (!st)
        st = tt_seq_begin(&r->seq, spec->id, spec->open, spec->bias, e);
    if (!st)
        st = tt_reach_begin(&r->seq, spec->constraint, spec->constraints, e);
    if (!st) {
        r->state = tt_arena_take(&r->life, 1, s->state_size);
        st = r->state ? s->open(&r->seq, r->state, e)
                      : tt_fail(e, TT_ENOMEM, "no memory for sampler '%s'", s->name);
    }
    if (st)
        tt_run_close(r);
    return st;
}

void tt_run_close(tt_run *r)
{
    for (size_t i = 0; i < sizeof r->kv / sizeof *r->kv; i++) {
        tt_kv_close(r->kv[i]);
        r->kv[i] = NULL;
    }
    tt_memo_close(r->memo);
    r->memo = NULL;
    tt_latents_close(r->latents);
    r->latents = NULL;
    tt_arena_close(&r->life);
    tt_arena_close(&r->step);
    tt_buf_free(&r->log);
}

void tt_run_cut(tt_run *r, int32_t end)
{
    tt_seq *q = &r->seq;
    uint8_t *fixed = (uint8_t *)(uintptr_t)q->fixed; /* the arena's: taken by tt_seq_begin() */
    for (int32_t c = end; c < q->columns; c++)
        if (tt_seq_open_at(q, c)) {
            q->id[c] = q->eos_id >= 0 ? q->eos_id : q->id[end - 1];
            fixed[c] = 1;
        }
    r->live = end;
}

tt_model *tt_run_model(const tt_run *r) { return r->plan.guide ? r->guide : r->model; }

/* --- planning --- */

/* A shifted model needs the row left of the first column asked for. */
static void feed_left_neighbour(tt_run *r)
{
    tt_plan *p = &r->plan;
    if (p->feed || p->token)
        return;
    for (int32_t i = 0; i < p->asks; i++) {
        int32_t c = tt_run_source_column(r, &p->ask[i]);
        if (c < p->row_begin)
            p->row_begin = c;
    }
}

/* Columns behind the end of the answer are not fed, except where they complete a block. */
static void leave_out_tail(tt_run *r)
{
    tt_plan *p = &r->plan;
    if (r->live == r->seq.columns || p->see == TT_SEE_BLOCK || p->token)
        return;
    p->row_end = p->row_end < r->live ? p->row_end : r->live;
    p->see_end = p->see_end < r->live ? p->see_end : r->live;
    p->row_begin = p->row_begin < p->row_end ? p->row_begin : p->row_end;
}

/* The states that a run of recurrent depth keeps. */
static tt_status open_latents(tt_run *r, int32_t columns, tt_err *e)
{
    tt_latent_size size = tt_sampler_latents(r->sampler, r->seq.params, columns);
    tt_status s = TT_OK;
    if (!r->latents && size.columns)
        s = tt_latents_open(&r->latents, r->model, &size, e);
    r->plan.depth->latents = r->latents;
    return s;
}

/* Stores and rows that the plan needs and the run does not have yet. */
static tt_status open_stores(tt_run *r, tt_err *e)
{
    const tt_params *p = r->seq.params;
    int32_t columns = tt_run_columns(r->sampler, p, r->seq.columns);
    if (!r->plan.guide)
        columns = tt_sampler_store(r->sampler, p, columns, r->seq.prompt);
    tt_kv_sharing sharing = {.entries = 1};
    if (!r->plan.guide)
        sharing = tt_sampler_sharing(r->sampler, p);
    int stores = !r->plan.keep ? 0 : r->plan.cfg_scale > 0 ? 2 : 1;
    for (int twin = 0; twin < stores; twin++) {
        tt_kv **kv = tt_run_store(r, twin);
        int32_t room = twin ? tt_run_twin_column(r, columns) : columns;
        tt_status s = *kv ? TT_OK : tt_kv_open_shared(kv, tt_run_model(r), room, &sharing, e);
        if (s)
            return s;
    }
    tt_status st = r->plan.depth ? open_latents(r, columns, e) : TT_OK;
    if (st)
        return st;
    bool opens = r->plan.memo && !r->memo;
    return opens ? tt_memo_open(&r->memo, r->model, r->plan.memo, r->seq.columns, e) : TT_OK;
}

void tt_run_plan(tt_run *r)
{
    if (r->planned || r->done || r->failed)
        return;
    tt_arena_rewind(&r->step, 0);
    r->plan = (tt_plan){.arena = &r->step, .n_top = r->seq.n_top};
    r->failed = r->sampler->plan(&r->seq, r->state, &r->plan, &r->error);
    if (!r->failed && r->rules && !r->plan.guide)
        r->failed = tt_run_constrain(r, &r->error);
    if (!r->failed && !r->plan.guide)
        r->failed = tt_reach_constrain(&r->seq, &r->plan, &r->error);
    if (!r->failed)
        r->failed = open_stores(r, &r->error);
    leave_out_tail(r);
    feed_left_neighbour(r);
    r->planned = !r->failed;
}

int32_t tt_run_recurrences(const tt_run *r)
{
    return r->plan.depth ? r->plan.depth->recurrences : 0;
}
