/* job_check.c - what a job may ask of its model: every refusal names the field. */
#include "server/guide.h"
#include "server/job.h"

enum { MAX_READS = 1024, MAX_BIAS = 1 << 20 };

static tt_status check_canvas(const tt_job_spec *s, int64_t max_rows, tt_err *e)
{
    const tt_served *m = s->model;
    int32_t open = 0;
    int32_t columns = tt_run_columns(s->sampler, &s->params, s->columns);
    if (s->columns < 1 || columns > m->info.context)
        return tt_fail_param(e, "max_tokens", "context_length_exceeded",
                             "the canvas has %d columns; model '%s' has a context of %lld",
                             columns, m->id, (long long)m->info.context);
    int64_t twin = (int64_t)s->columns + (s->negatives ? s->negatives - s->prompt : 0);
    int64_t rows = s->params.cfg_scale > 0 ? twin + s->columns : s->columns;
    if (s->sampler->needs & TT_KIND_BLOCKS && !s->sampler->reads)
        rows = 0; /* fed in pieces */
    if (rows > max_rows)
        return tt_fail_param(e, "max_tokens", "context_length_exceeded",
                             "the canvas needs %lld rows per pass; this server takes %lld",
                             (long long)rows, (long long)max_rows);
    if (s->prompt < 0 || s->prompt >= s->columns)
        return tt_fail_param(e, "prompt", "invalid_value", "%d prompt columns of %d", s->prompt,
                             s->columns);
    for (int32_t c = 0; c < s->columns; c++) {
        open += s->open[c] != 0;
        if (!s->open[c] && (s->id[c] < 0 || s->id[c] >= m->info.vocab))
            return tt_fail_param(e, "prompt", "invalid_value",
                                 "token %d at column %d is outside the vocabulary of %lld",
                                 s->id[c], c, (long long)m->info.vocab);
        if (!s->open[c] && s->id[c] == m->info.mask_id)
            return tt_fail_param(e, "prompt", "invalid_value",
                                 "column %d is the mask token; holes must be declared as such", c);
    }
    if (!open && !s->sampler->reads)
        return tt_fail_param(e, "max_tokens", "invalid_value", "nothing is to be filled");
    return s->sampler->reads ? TT_OK
                             : tt_block_check(s->sampler, &s->params, s->columns, s->prompt, e);
}

static tt_status check_ids(const tt_job_spec *s, const int32_t *id, int32_t n, const char *param,
                           tt_err *e)
{
    for (int32_t i = 0; i < n; i++)
        if (id[i] < 0 || id[i] >= s->model->info.vocab || id[i] == s->model->info.mask_id)
            return tt_fail_param(e, param, "invalid_value", "token %d cannot stand there", id[i]);
    return TT_OK;
}

static tt_status check_rules(const tt_job_spec *s, tt_err *e)
{
    if (s->rules && s->sampler->inserts)
        return tt_fail_param(e, "rules", "unsupported_parameter",
                             "rules of columns, and tokens move while sampler '%s' runs",
                             s->sampler->name);
    for (int32_t i = 0; i < s->rules; i++) {
        const tt_column_rule *r = &s->rule[i];
        if (r->begin < 0 || r->end > s->columns || r->begin >= r->end || r->n < 1)
            return tt_fail_param(e, "rules", "invalid_value", "rule %d is of columns %d..%d", i,
                                 r->begin, r->end);
        tt_status st = check_ids(s, r->id, r->n, "rules", e);
        if (st)
            return st;
    }
    return TT_OK;
}

static tt_status check_constraints(const tt_job_spec *s, tt_err *e)
{
    for (int32_t i = 0; i < s->constraints; i++) {
        const tt_constraint *p = &s->constraint[i];
        if (p->begin < 0 || p->end > s->columns || p->begin >= p->end)
            return tt_fail_param(e, "regex", "invalid_value", "constraint %d is of columns %d..%d",
                                 i, p->begin, p->end);
        if (p->ends && s->params.logits_eos_inf)
            return tt_fail_param(e, "logits_eos_inf", "unsupported_value",
                                 "'logits_eos_inf' leaves a constrained answer no end");
    }
    return TT_OK;
}

/* What only some jobs have. */
static tt_status check_extras(const tt_job_spec *s, tt_err *e)
{
    for (int32_t c = 0; s->draft && c < s->columns; c++) {
        tt_status st = s->draft[c] >= 0 ? check_ids(s, &s->draft[c], 1, "prediction", e) : TT_OK;
        if (st)
            return st;
    }
    if (s->draft && !tt_sampler_shares(s->sampler, &s->params))
        return tt_fail_param(e, "prediction", "unsupported_parameter",
                             "sampler '%s' takes no prediction%s", s->sampler->name,
                             s->sampler->needs_guide ? ": its guide makes one"
                                                     : " with these parameters");
    if (!s->negatives)
        return check_rules(s, e);
    if (s->params.cfg_scale <= 0)
        return tt_fail_param(e, "negative_prompt", "invalid_value",
                             "'negative_prompt' needs 'cfg_scale' above 0");
    if (s->prompt < 1)
        return tt_fail_param(e, "negative_prompt", "unsupported_parameter",
                             "a negative prompt needs a prompt that it can stand for");
    int64_t twin = (int64_t)s->columns - s->prompt + s->negatives;
    if (twin > s->model->info.context)
        return tt_fail_param(e, "negative_prompt", "context_length_exceeded",
                             "the negative prompt and the answer have %lld columns; model '%s' has "
                             "a context of %lld", (long long)twin, s->model->id,
                             (long long)s->model->info.context);
    tt_status st = check_ids(s, s->negative, s->negatives, "negative_prompt", e);
    return st ? st : check_rules(s, e);
}

static tt_status check_guide(const tt_job_spec *s, tt_err *e)
{
    if (s->guide->info.context < s->columns)
        return tt_fail_param(e, "guide", "context_length_exceeded",
                             "guide '%.60s' has a context of %lld, the canvas %d columns",
                             s->guide->id, (long long)s->guide->info.context, s->columns);
    return tt_guide_check(s->model, s->guide, e);
}

tt_status tt_job_check(const tt_job_spec *s, int64_t max_rows, tt_err *e)
{
    if (s->picture)
        return tt_job_check_picture(s, e);
    if (s->model->image)
        return tt_fail_param(e, "model", "unsupported_value", "model '%.80s' makes images",
                             s->model->id);
    int32_t most = s->sampler->reads ? MAX_READS : TT_MAX_SAMPLES;
    if (s->samples < 1 || s->samples > most)
        return tt_fail_param(e, "n", "invalid_value", "'n' is %d, must be in 1..%d", s->samples,
                             most);
    if (s->n_top < 0 || s->n_top > TT_MAX_TOP)
        return tt_fail_param(e, "logprobs", "invalid_value", "%d alternatives, at most %d",
                             s->n_top, TT_MAX_TOP);
    if (s->n_bias < 0 || s->n_bias > MAX_BIAS)
        return tt_fail_param(e, "logit_bias", "invalid_value", "%d entries", s->n_bias);
    for (int32_t i = 0; i < s->n_bias; i++)
        if (s->bias[i].id < 0 || s->bias[i].id >= s->model->info.vocab)
            return tt_fail_param(e, "logit_bias", "invalid_value", "token %d is not in the model",
                                 s->bias[i].id);
    size_t count;
    const tt_param *all = tt_param_all(&count);
    for (size_t i = 0; i < count; i++)
        if (tt_params_given_at(&s->params, i) && !tt_sampler_reads(s->sampler, &all[i]))
            return tt_fail_param(e, all[i].name, "unsupported_parameter",
                                 "sampler '%s' does not read '%s'", s->sampler->name, all[i].name);
    if (s->guide) {
        tt_status st = check_guide(s, e);
        if (st)
            return st;
    }
    tt_status st = check_canvas(s, max_rows, e);
    if (!st)
        st = check_constraints(s, e);
    return st ? st : check_extras(s, e);
}
