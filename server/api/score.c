/* score.c - log-probabilities of texts from scoring jobs: see read.h and samplers/read.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "server/api/read.h"

static const char *const names[] = {"monte_carlo", "left_to_right", "exact"};

const char *tt_score_name(tt_score_method m) { return names[m]; }

static tt_status no_memory(tt_err *e) { return tt_fail(e, TT_ENOMEM, "no memory for scores"); }

/* --- canvases --- */

/* Columns so far that have no draft get none. */
static void pad_draft(tt_canvas *c)
{
    static const int32_t none = -1;
    while (c->draft.size / sizeof none < c->ids.count && !c->draft.failed)
        tt_buf_add(&c->draft, &none, sizeof none);
}

tt_status tt_canvas_add_target(const tt_gen *g, tt_canvas *c, const int32_t *id, size_t n,
                               const char *path, tt_err *e)
{
    /* The first column of a model whose rows predict the next one has nothing to predict it. */
    bool shifted = g->model->info.row_shift || (g->model->info.kinds & TT_KIND_CAUSAL);
    if (n && shifted && !c->ids.count) {
        tt_status s = tt_canvas_add_ids(g, c, id, 1, path, e);
        if (s)
            return s;
        id++;
        n--;
    }
    pad_draft(c);
    for (size_t i = 0; i < n; i++)
        if (id[i] == g->model->info.mask_id)
            return tt_fail_param(e, path, "invalid_value", "'%s' holds the mask token", path);
    tt_status s = tt_ids_add(&c->ids, id, n, e);
    if (s)
        return s;
    for (size_t i = 0; i < n; i++)
        tt_buf_putc(&c->open, 1);
    tt_buf_add(&c->draft, id, n * sizeof *id);
    if (c->open.failed || c->draft.failed)
        return no_memory(e);
    return tt_canvas_room(g, c) < 0
               ? tt_fail_param(e, path, "context_length_exceeded",
                               "model '%s' has a context of %lld tokens; this text needs %zu",
                               g->model->id, (long long)g->model->info.context, c->ids.count)
               : TT_OK;
}

static bool is_target(const tt_canvas *c, size_t column)
{
    int32_t id;
    if (!c->open.data[column])
        return false;
    memcpy(&id, c->draft.data + column * sizeof id, sizeof id);
    return id >= 0;
}

int32_t tt_canvas_targets(const tt_canvas *c)
{
    int32_t n = 0;
    for (size_t i = 0; i < c->ids.count; i++)
        n += is_target(c, i);
    return n;
}

void tt_canvas_score(const tt_gen *g, tt_canvas *c, tt_score_method m, int32_t samples)
{
    bool blocks = g->model->info.kinds & TT_KIND_BLOCKS;
    pad_draft(c);
    c->sampler = m == TT_SCORE_EXACT         ? &tt_score_causal
                 : m == TT_SCORE_MONTE_CARLO ? &tt_score_bound
                 : blocks                    ? &tt_score_chain_blocks
                                             : &tt_score_chain;
    c->samples = m == TT_SCORE_EXACT         ? 1
                 : m == TT_SCORE_MONTE_CARLO ? samples
                                             : tt_canvas_targets(c);
}

/* --- results --- */

/* Samples are systematic: neighbours differ by little but noise, so their differences give the
 * variance of the mean (Wolter, Introduction to Variance Estimation, section 8.2). */
static double standard_error(const double *y, int32_t n)
{
    double sum = 0;
    if (n < 2)
        return NAN;
    for (int32_t i = 1; i < n; i++)
        sum += (y[i] - y[i - 1]) * (y[i] - y[i - 1]);
    return sqrt(sum / (2.0 * n * (n - 1.0)));
}

/* Adds what a sample says to the tokens; returns its estimate of the whole. */
static double add_sample(const tt_canvas *c, const tt_view *v, double weight, double *token)
{
    double all = 0;
    int32_t t = 0;
    for (int32_t i = 0; i < v->columns; i++) {
        if (!is_target(c, (size_t)i))
            continue;
        double y = v->step[i] ? weight * (double)v->logprob[i] : 0;
        token[t++] += y;
        all += y;
    }
    return all;
}

tt_status tt_score_sum(const tt_gen *g, const tt_canvas *c, const tt_choice *sample,
                       tt_score_method m, tt_score *out, tt_err *e)
{
    int32_t n = c->samples, targets = tt_canvas_targets(c);
    double *y = calloc((size_t)n, sizeof *y);
    *out = (tt_score){.tokens = targets, .token = calloc((size_t)targets + 1, sizeof(double))};
    if (!y || !out->token) {
        free(y);
        free(out->token);
        return no_memory(e);
    }
    for (int32_t i = 0; i < n; i++) {
        double weight = 1;
        if (m == TT_SCORE_MONTE_CARLO)
            weight = (double)targets / tt_score_masked((uint64_t)g->seed, i, n, targets) / n;
        y[i] = add_sample(c, &sample[i].view, weight, out->token);
        out->logprob += y[i];
    }
    if (m == TT_SCORE_MONTE_CARLO)
        out->standard_error = n * standard_error(y, n); /* the y are shares of the mean */
    free(y);
    return TT_OK;
}

void tt_score_share(const double *logprob, int n, double *share)
{
    double most = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++)
        most = logprob[i] > most ? logprob[i] : most;
    for (int i = 0; i < n; i++) {
        share[i] = most > -INFINITY ? exp(logprob[i] - most) : 0;
        sum += share[i];
    }
    for (int i = 0; i < n && sum > 0; i++)
        share[i] /= sum;
}

/* --- what reading endpoints share --- */

tt_status tt_read_text_or_ids(const tt_gen *g, const cJSON *node, const char *path,
                              const char **text, tt_ids *ids, tt_err *e)
{
    *text = NULL;
    if (cJSON_IsString(node))
        return tt_json_text(node, path, text, e);
    if (!cJSON_IsArray(node))
        return tt_fail_param(e, path, "invalid_value",
                             "'%s' is %s, must be a string or an array of token ids", path,
                             tt_json_kind(node));
    int i = 0;
    const cJSON *m;
    cJSON_ArrayForEach(m, node)
    {
        int64_t id;
        tt_status s = tt_json_int(m, tt_json_element(path, i++).text, 0,
                                  g->model->info.vocab - 1, &id, e);
        int32_t narrow = s ? 0 : (int32_t)id;
        if (!s)
            s = tt_ids_add(ids, &narrow, 1, e);
        if (s)
            return s;
    }
    return TT_OK;
}

void tt_read_write_end(const tt_gen *g, tt_json *w)
{
    int64_t tokens = 0, nfe = 0;
    double queue = 0, run = 0;
    for (int i = 0; i < g->canvases; i++) {
        tt_job_times t = tt_job_get_times(g->canvas[i].job);
        tokens += (int64_t)g->canvas[i].ids.count;
        queue = t.queue_ms > queue ? t.queue_ms : queue;
        run = t.run_ms > run ? t.run_ms : run;
    }
    for (int i = 0; i < g->choices; i++)
        nfe += g->choice[i].view.nfe;
    tt_json_open_member(w, "usage", '{');
    tt_json_int_member(w, "prompt_tokens", tokens);
    tt_json_int_member(w, "total_tokens", tokens);
    tt_json_close(w, '}');
    tt_json_open_member(w, "tutti", '{');
    tt_json_int_member(w, "nfe", nfe);
    if (g->endpoint->on == TT_ON_LIKELIHOOD)
        tt_json_int_member(w, "seed", g->seed);
    tt_json_open_member(w, "time", '{');
    tt_json_float_member(w, "read_ms", (double)(g->read_ns - g->arrived_ns) * 1e-6);
    tt_json_float_member(w, "queue_ms", queue);
    tt_json_float_member(w, "run_ms", run);
    tt_json_close(w, '}');
    tt_json_close(w, '}');
}
