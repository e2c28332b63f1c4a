/* write.c - answers as JSON: the frame all endpoints share, counts, and the `tutti` object. */
#include <math.h>

#include "server/api/fit.h"
#include "server/api/text_search.h"

const char *tt_finish_text(tt_finish f)
{
    return f == TT_FINISH_STOP ? "stop" : f == TT_FINISH_LENGTH ? "length" : NULL;
}

void tt_choice_text(const tt_choice *c, tt_buf *out)
{
    int k = 0;
    for (int i = 0; i < c->canvas->parts; i++) {
        const tt_part *p = &c->canvas->part[i];
        if (!p->hole) {
            tt_buf_add(out, p->text, p->bytes);
            continue;
        }
        const tt_text_out *o = &c->out[k++];
        if (o->ready)
            tt_buf_add(out, o->text.data, o->ready);
    }
}

static void count(const tt_gen *g, int64_t *given, int64_t *made)
{
    *given = *made = 0;
    for (int i = 0; i < g->canvases; i++)
        *given += g->canvas[i].given - g->canvas[i].chosen;
    for (int i = 0; i < g->choices; i++)
        *made += g->choice[i].canvas->chosen;
    for (int i = 0; i < g->choices; i++)
        for (int k = 0; k < g->choice[i].canvas->holes; k++)
            *made += g->choice[i].out[k].tokens;
}

void tt_gen_write_usage(const tt_gen *g, tt_json *w)
{
    int64_t given, made;
    count(g, &given, &made);
    tt_json_open(w, '{');
    tt_json_int_member(w, "prompt_tokens", given);
    tt_json_int_member(w, "completion_tokens", made);
    tt_json_int_member(w, "total_tokens", given + made);
    if (g->predicted) {
        int64_t accepted = tt_gen_accepted(g), all = (int64_t)g->predicted * g->choices;
        tt_json_open_member(w, "completion_tokens_details", '{');
        tt_json_int_member(w, "accepted_prediction_tokens", accepted);
        tt_json_int_member(w, "rejected_prediction_tokens", all - accepted);
        tt_json_close(w, '}');
    }
    tt_json_close(w, '}');
}

static void write_param(const tt_gen *g, const tt_param *p, tt_json *w)
{
    double v = tt_params_get(&g->params, p);
    if (p->choices == tt_cache_names) /* the one in use: `auto` is not, nor one it cannot do */
        v = tt_sampler_cache(g->sampler, &g->params);
    if (p->type == TT_PARAM_CHOICE)
        tt_json_text_member(w, p->name, p->choices[(int)v]);
    else if (p->type == TT_PARAM_BOOL)
        tt_json_bool_member(w, p->name, v != 0);
    else
        tt_json_float_member(w, p->name, v);
}

static void write_params(const tt_gen *g, tt_json *w)
{
    size_t n;
    const tt_param *all = tt_param_all(&n);
    tt_json_open_member(w, "parameters", '{');
    for (size_t i = 0; i < n; i++)
        if (tt_sampler_reads(g->sampler, &all[i]))
            write_param(g, &all[i], w);
    tt_json_close(w, '}');
}

/* Jobs of one request run side by side: the longest counts. */
static void write_time(const tt_gen *g, tt_json *w)
{
    double queue = 0, run = 0;
    for (int i = 0; i < g->canvases; i++) {
        if (!g->canvas[i].job)
            continue;
        tt_job_times t = tt_job_get_times(g->canvas[i].job);
        queue = t.queue_ms > queue ? t.queue_ms : queue;
        run = t.run_ms > run ? t.run_ms : run;
    }
    tt_json_open_member(w, "time", '{');
    tt_json_float_member(w, "read_ms", (double)(g->read_ns - g->arrived_ns) * 1e-6);
    tt_json_float_member(w, "queue_ms", queue);
    tt_json_float_member(w, "run_ms", run);
    tt_json_close(w, '}');
}

/* Recurrent depth: what all choices cost together. */
static void write_depth(const tt_gen *g, int64_t made, tt_json *w)
{
    tt_depth_counts sum = {0};
    if (!(g->sampler->needs & TT_KIND_RECURRENT))
        return;
    for (int i = 0; i < g->choices; i++) {
        const tt_depth_counts *d = &g->choice[i].view.depth;
        sum.core_passes += d->core_passes;
        sum.core_rows += d->core_rows;
        sum.cleared += d->cleared;
        sum.standing += d->standing;
    }
    tt_json_open_member(w, "depth", '{');
    tt_json_int_member(w, "core_passes", sum.core_passes);
    tt_json_float_member(w, "core_passes_per_token",
                         made ? (double)sum.core_passes / (double)made : 0);
    tt_json_int_member(w, "core_tokens", sum.core_rows);
    tt_json_int_member(w, "recomputed_tokens", sum.cleared);
    tt_json_int_member(w, "standing_waves", sum.standing);
    tt_json_close(w, '}');
}

void tt_choice_write_recurrences(const tt_choice *c, int32_t from, int32_t to, tt_json *w)
{
    tt_json_open_member(w, "recurrences", '[');
    for (int k = 0; k < c->canvas->holes; k++)
        for (int32_t i = c->out[k].begin; i < c->out[k].end; i++) {
            int32_t pos = tt_choice_pos(c, i);
            if (pos >= from && pos < to && i < c->view.end)
                tt_json_put_int(w, c->view.recurrences[i]);
        }
    tt_json_close(w, ']');
}

void tt_gen_write_extras(const tt_gen *g, tt_json *w)
{
    int64_t given, made, nfe = tt_fit_nfe(g);
    int32_t steps = 0, columns = 0;
    count(g, &given, &made);
    for (int i = 0; i < g->choices; i++) {
        const tt_choice *c = &g->choice[i];
        nfe += c->view.nfe;
        steps = c->view.now > steps ? c->view.now : steps;
        int32_t size = (int32_t)c->canvas->ids.count;
        columns = size > columns ? size : columns;
    }
    tt_json_int_member(w, "nfe", nfe);
    tt_json_int_member(w, "steps", steps);
    tt_json_float_member(w, "tokens_per_forward", nfe ? (double)made / (double)nfe : 0);
    write_depth(g, made, w);
    tt_json_int_member(w, "canvas", columns);
    tt_json_int_member(w, "seed", g->seed);
    tt_json_text_member(w, "sampler", g->sampler->name);
    write_params(g, w);
    if (g->search)
        tt_text_search_write(g, w);
    write_time(g, w);
    tt_json_open_member(w, "warnings", '[');
    for (int i = 0; i < g->warnings; i++)
        tt_json_put_text(w, g->warning[i]);
    tt_json_close(w, ']');
}

int32_t tt_choice_pos(const tt_choice *c, int32_t column)
{
    int32_t before = 0; /* columns of the holes passed */
    for (int k = 0; k < c->canvas->holes; k++) {
        const tt_text_out *o = &c->out[k];
        if (column >= o->begin && column < o->end)
            return before + column - o->begin;
        before += o->end - o->begin;
    }
    return -1;
}

/* Of an insertion: which hole, and where among the tokens that the hole had by then. */
static void write_place(const tt_choice *c, int32_t column, tt_json *w)
{
    for (int k = 0; k < c->canvas->holes; k++) {
        const tt_text_out *o = &c->out[k];
        if (column < o->begin || column >= o->end)
            continue;
        tt_json_int_member(w, "hole", k);
        tt_json_int_member(w, "position", column - o->begin);
    }
}

void tt_choice_write_change(const tt_gen *g, const tt_choice *c, const tt_change *x, bool known,
                            tt_json *w)
{
    size_t n = 0;
    bool open = x->id == g->model->info.mask_id;
    const char *text = !open && g->model->tok ? tt_tok_piece(g->model->tok, x->id, &n) : NULL;
    tt_json_open(w, '{');
    tt_json_int_member(w, "pos", tt_choice_pos(c, x->column));
    tt_json_int_member(w, "step", x->step);
    tt_json_text_member(w, "op", x->insert ? "insert" : open ? "mask" : known ? "revise" : "set");
    if (x->insert)
        write_place(c, x->column, w);
    if (!open) {
        tt_json_int_member(w, "id", x->id);
        tt_json_key(w, "text");
        tt_json_put_bytes(w, text ? text : "", n);
        tt_json_bool_member(w, "committed", !x->draft);
        tt_json_float_member(w, "logprob", (double)x->logprob);
    }
    tt_json_close(w, '}');
}

/* Whether the position held another token before change i. */
bool tt_choice_held(const tt_gen *g, const tt_choice *c, size_t i)
{
    const tt_change *all = c->view.change;
    for (size_t k = i; k-- > 0;)
        if (all[k].column == all[i].column)
            return all[k].id != g->model->info.mask_id && all[k].id != all[i].id;
    return false;
}

void tt_choice_write_trace(const tt_gen *g, const tt_choice *c, tt_json *w)
{
    tt_json_open(w, '[');
    for (size_t i = 0; i < c->view.changes; i++)
        tt_choice_write_change(g, c, &c->view.change[i], tt_choice_held(g, c, i), w);
    tt_json_close(w, ']');
}

double tt_choice_likelihood(const tt_choice *c)
{
    double sum = 0;
    int64_t tokens = 0;
    for (int k = 0; k < c->canvas->holes; k++)
        for (int32_t i = c->out[k].begin; i < c->out[k].end && i < c->view.end; i++, tokens++)
            sum += (double)c->view.logprob[i];
    return tokens ? sum / (double)tokens : 0;
}

/* Whether the answers are the best of more, or put in order. */
static bool chooses(const tt_gen *g)
{
    return g->made > g->n || g->search;
}

static double score(const tt_gen *g, const tt_choice *c)
{
    return g->search ? tt_text_search_score(g, c) : tt_choice_likelihood(c);
}

static void write_choice(const tt_gen *g, const tt_choice *c, int index, tt_json *w)
{
    bool best = chooses(g);
    tt_json_open(w, '{');
    tt_json_int_member(w, "index", index);
    g->endpoint->choice(g, c, w);
    tt_json_text_member(w, "finish_reason", tt_finish_text(c->finish));
    if (g->trace || best)
        tt_json_open_member(w, "tutti", '{');
    if (g->search)
        tt_text_search_write_choice(g, c, w);
    else if (best)
        tt_json_float_member(w, "score", score(g, c));
    if (g->trace) {
        tt_json_key(w, "trace");
        tt_choice_write_trace(g, c, w);
        if (c->view.recurrences)
            tt_choice_write_recurrences(c, 0, INT32_MAX, w);
    }
    if (g->trace || best)
        tt_json_close(w, '}');
    tt_json_close(w, '}');
}

static bool better(const tt_gen *g, const tt_choice *a, const tt_choice *b)
{
    double x = score(g, a), y = score(g, b);
    return x > y || (isnan(y) && !isnan(x));
}

/* Best of n: the answers of every prompt that score best, the best first; of equals the first
 * made. What is no number comes last. */
static void write_best(const tt_gen *g, tt_json *w)
{
    for (int first = 0, index = 0; first < g->choices; first += g->made) {
        bool written[128] = {false}; /* as many as best_of may be */
        for (int32_t k = 0; k < g->n; k++, index++) {
            int best = -1;
            for (int i = 0; i < g->made; i++)
                if (!written[i] && (best < 0 || better(g, &g->choice[first + i],
                                                       &g->choice[first + best])))
                    best = i;
            written[best] = true;
            write_choice(g, &g->choice[first + best], index, w);
        }
    }
}

void tt_gen_write_answer(const tt_gen *g, tt_json *w)
{
    if (g->endpoint->answer) {
        g->endpoint->answer(g, w);
        return;
    }
    tt_json_open(w, '{');
    tt_json_text_member(w, "id", g->id);
    tt_json_text_member(w, "object", g->endpoint->object);
    tt_json_int_member(w, "created", g->created);
    tt_json_text_member(w, "model", g->model->id);
    tt_json_open_member(w, "choices", '[');
    if (chooses(g))
        write_best(g, w);
    for (int i = 0; i < g->choices && !chooses(g); i++)
        write_choice(g, &g->choice[i], i, w);
    tt_json_close(w, ']');
    tt_json_key(w, "usage");
    tt_gen_write_usage(g, w);
    tt_json_open_member(w, "tutti", '{');
    tt_gen_write_extras(g, w);
    tt_json_close(w, '}');
    tt_json_close(w, '}');
}
