/* fit.c - see fit.h. */
#include "server/api/fit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "samplers/read.h"
#include "server/api/constrain.h"
#include "server/api/read.h"

struct tt_fit {
    tt_slot *slot;
    int slots;
    bool grows; /* holes find their length while they are filled */
    int at; /* the slot being fitted; slots: all are, and the canvas is made */
    tt_canvas *probe; /* a candidate each */
    int probes;
    tt_view view; /* of one sample at a time */
    int64_t nfe;
};

static tt_status no_memory(tt_err *e) { return tt_fail(e, TT_ENOMEM, "no memory for the request"); }

/* --- the text --- */

tt_status tt_fit_open(tt_gen *g, tt_err *e)
{
    g->fit = calloc(1, sizeof *g->fit);
    if (!g->fit)
        return no_memory(e);
    g->fit->grows = g->sampler->inserts;
    return TT_OK;
}

tt_slot *tt_fit_add(tt_gen *g, tt_err *e)
{
    tt_fit *f = g->fit;
    tt_slot *more = realloc(f->slot, (size_t)(f->slots + 1) * sizeof *more);
    if (!more) {
        no_memory(e);
        return NULL;
    }
    f->slot = more;
    more[f->slots] = (tt_slot){0};
    return &more[f->slots++];
}

static void drop_probes(tt_fit *f)
{
    for (int i = 0; i < f->probes; i++)
        tt_canvas_free(&f->probe[i]);
    free(f->probe);
    f->probe = NULL;
    f->probes = 0;
}

void tt_fit_free(tt_fit *f)
{
    if (!f)
        return;
    for (int i = 0; i < f->slots; i++) {
        tt_slot *s = &f->slot[i];
        for (int k = 0; k < s->choices; k++)
            tt_ids_free(&s->choice_ids[k]);
        free(s->choice_ids);
        free((void *)(uintptr_t)s->choice);
        free(s->score);
        tt_ids_free(&s->ids);
        tt_positions_free(&s->positions);
        tt_ids_free(&s->predicted);
        tt_grammar_close(s->form);
    }
    drop_probes(f);
    tt_view_free(&f->view);
    free(f->slot);
    free(f);
}

const tt_slot *tt_fit_hole(const tt_gen *g, const char *id)
{
    const tt_fit *f = g->fit;
    for (int i = 0; f && i < f->slots; i++)
        if (f->slot[i].hole && !strcmp(f->slot[i].id, id))
            return &f->slot[i];
    return NULL;
}

int64_t tt_fit_nfe(const tt_gen *g) { return g->fit ? g->fit->nfe : 0; }
bool tt_fit_pending(const tt_gen *g) { return g->fit && g->fit->at < g->fit->slots; }

/* --- what is to be fitted --- */

/* The first text behind a slot; NULL when the whole text ends before one comes. */
static const tt_slot *text_behind(const tt_fit *f, int at)
{
    for (int i = at + 1; i < f->slots; i++)
        if (!f->slot[i].hole && f->slot[i].ids.count)
            return &f->slot[i];
    return NULL;
}

static bool to_fit(const tt_fit *f, int at)
{
    const tt_slot *s = &f->slot[at];
    return s->hole && !f->grows && !s->score &&
           (s->choices || (s->min < s->max && text_behind(f, at)));
}

/* True for the hole that ends where the model says so. */
static bool ends_itself(const tt_fit *f, int at)
{
    const tt_slot *s = &f->slot[at];
    return s->hole && !f->grows && !s->choices && s->min < s->max && !text_behind(f, at);
}

static int candidates(const tt_slot *s)
{
    return s->choices ? s->choices : (int)(s->max - s->min + 1);
}

static int64_t longest(const tt_slot *s)
{
    size_t most = 0;
    if (!s->hole || (s->choices && s->score))
        return (int64_t)s->ids.count;
    for (int k = 0; k < s->choices; k++)
        most = s->choice_ids[k].count > most ? s->choice_ids[k].count : most;
    return s->choices ? (int64_t)most : s->max;
}

/* --- a candidate's canvas --- */

static tt_status add_masks(tt_canvas *c, int64_t n, tt_err *e)
{
    static const int32_t nothing = 0;
    for (int64_t i = 0; i < n; i++) {
        tt_status s = tt_ids_add(&c->ids, &nothing, 1, e);
        if (s)
            return s;
        tt_buf_putc(&c->open, 1);
    }
    return c->open.failed ? no_memory(e) : TT_OK;
}

/* The text behind the hole: its first tokens are scored, the rest is given. */
static tt_status add_scored_text(const tt_gen *g, tt_canvas *c, const tt_slot *s, tt_err *e)
{
    size_t n = s->ids.count < TT_FIT_TOKENS ? s->ids.count : TT_FIT_TOKENS;
    tt_status st = tt_canvas_add_target(g, c, s->ids.id, n, "segments", e);
    return st ? st : tt_canvas_add_ids(g, c, s->ids.id + n, s->ids.count - n, "segments", e);
}

static tt_status add_masked(tt_canvas *c, const tt_slot *s, int64_t tokens, tt_err *e)
{
    int32_t begin = (int32_t)c->ids.count;
    tt_status st = add_masks(c, tokens, e);
    return st ? st : tt_positions_apply(&s->positions, c, begin, (int32_t)tokens, e);
}

static tt_status add_slot(const tt_gen *g, tt_canvas *c, int i, int k, tt_err *e)
{
    const tt_fit *f = g->fit;
    const tt_slot *s = &f->slot[i], *hole = &f->slot[f->at];
    if (i == f->at && s->choices)
        return tt_canvas_add_target(g, c, s->choice_ids[k].id, s->choice_ids[k].count, "segments",
                                    e);
    if (i == f->at)
        return add_masked(c, s, s->min + k, e);
    if (!hole->choices && s == text_behind(f, f->at))
        return add_scored_text(g, c, s, e);
    if (!s->hole || (s->choices && s->score))
        return tt_canvas_add_ids(g, c, s->ids.id, s->ids.count, "segments", e);
    return add_masked(c, s, longest(s), e);
}

static tt_status make_probe(tt_gen *g, tt_canvas *c, int k, tt_err *e)
{
    tt_status s = TT_OK;
    for (int i = 0; i < g->fit->slots && !s; i++)
        s = add_slot(g, c, i, k, e);
    if (!s)
        tt_canvas_score(g, c, TT_SCORE_LEFT_TO_RIGHT, 0);
    return s;
}

static tt_status submit_probes(tt_gen *g, bool continues, int64_t *retry_after_ms, tt_err *e)
{
    tt_fit *f = g->fit;
    int n = candidates(&f->slot[f->at]);
    tt_canvas *probe = n > 0 ? calloc((size_t)n, sizeof *probe) : NULL;
    if (!probe)
        return no_memory(e);
    pthread_mutex_lock(&g->lock);
    f->probe = probe;
    f->probes = n;
    pthread_mutex_unlock(&g->lock);
    tt_status s = TT_OK;
    for (int k = 0; k < n && !s; k++) {
        s = make_probe(g, &probe[k], k, e);
        if (!s)
            s = tt_canvas_submit(g, &probe[k], continues || k, retry_after_ms, e);
    }
    if (s)
        tt_gen_cancel(g);
    return s;
}

void tt_fit_cancel(tt_fit *f)
{
    for (int i = 0; f && i < f->probes; i++)
        if (f->probe[i].job)
            tt_job_cancel(f->probe[i].job);
}

/* --- the decision --- */

/* Sum over all samples of a candidate. */
static double score_of(tt_gen *g, const tt_canvas *c, double *sum)
{
    tt_view *v = &g->fit->view;
    *sum = 0;
    for (int32_t i = 0; i < c->samples && !g->failure.status; i++) {
        v->version = 0;
        tt_job_view(c->job, i, v);
        if (v->finish > TT_FINISH_LENGTH)
            tt_gen_fail_by(g, v);
        g->fit->nfe += v->nfe;
        for (int32_t column = 0; column < v->columns; column++)
            if (c->open.data[column] && v->step[column])
                *sum += (double)v->logprob[column];
    }
    return *sum;
}

static tt_status decide(tt_gen *g, tt_err *e)
{
    tt_fit *f = g->fit;
    tt_slot *s = &f->slot[f->at];
    s->candidates = f->probes;
    s->score = f->probes > 0 ? calloc((size_t)f->probes, sizeof *s->score) : NULL;
    if (!s->score)
        return no_memory(e);
    for (int k = 0; k < f->probes && !g->failure.status; k++) {
        score_of(g, &f->probe[k], &s->score[k]);
        if (s->form && !tt_grammar_fits(s->form, (int32_t)s->min + k, false))
            s->score[k] = -INFINITY; /* no text of that length has the form */
        s->best = s->score[k] > s->score[s->best] ? k : s->best;
    }
    s->first = s->min;
    if (!s->choices) {
        s->min = s->max = s->min + s->best;
        return TT_OK;
    }
    s->text = s->choice[s->best];
    return tt_ids_add(&s->ids, s->choice_ids[s->best].id, s->choice_ids[s->best].count, e);
}

/* --- the canvas --- */

static tt_status add_hole(tt_gen *g, tt_canvas *c, int i, tt_err *e)
{
    const tt_slot *s = &g->fit->slot[i];
    int32_t begin = (int32_t)c->ids.count;
    bool itself = ends_itself(g->fit, i);
    tt_status st = tt_canvas_add_hole(g, c, s->max, s->id, "segments", e);
    if (!st)
        st = tt_positions_apply(&s->positions, c, begin, (int32_t)s->max, e);
    if (!st && g->fit->grows)
        tt_canvas_demand(c, begin, (int32_t)s->min);
    if (!st)
        st = tt_canvas_predict(c, &s->predicted, e);
    if (!st && s->form)
        st = tt_canvas_constrain(c, s->form, begin, begin + (int32_t)s->max, itself, s->form_path,
                                 e);
    int64_t from = !itself ? s->max : s->form ? 0 : s->min;
    return st || g->fit->grows
               ? st
               : tt_canvas_ban(c, begin, begin + (int32_t)from,
                              g->model->stop_id, g->model->stop_ids, e);
}

static tt_status add_text(tt_gen *g, tt_canvas *c, const tt_slot *s, tt_err *e)
{
    tt_status st = s->text ? tt_canvas_add_literal(c, s->text, strlen(s->text), e) : TT_OK;
    if (!st && s->hole) {
        c->part[c->parts - 1].id = s->id;
        c->chosen += (int32_t)s->ids.count;
    }
    return st ? st : tt_canvas_add_ids(g, c, s->ids.id, s->ids.count, "segments", e);
}

/* Stop ids are impossible inside holes. Where the last hole ends by itself, rules say so. */
static tt_status make_canvas(tt_gen *g, tt_err *e)
{
    tt_fit *f = g->fit;
    tt_canvas *c = tt_gen_add_canvas(g, e);
    tt_status s = c ? TT_OK : e->status;
    g->stop_early = ends_itself(f, f->slots - 1);
    g->ban_stops = !g->stop_early;
    for (int i = 0; i < f->slots && !s; i++)
        s = f->slot[i].hole && !f->slot[i].choices ? add_hole(g, c, i, e)
                                                  : add_text(g, c, &f->slot[i], e);
    tt_ids none = {0};
    return s || !c->holes ? s : tt_canvas_predict(c, &none, e);
}

/* Nothing is left to fill: the answer is there. */
static void close_at_once(tt_gen *g)
{
    g->submitted = g->canvases;
    for (int i = 0; i < g->choices; i++)
        g->choice[i].finish = TT_FINISH_STOP;
}

static tt_status finish_fit(tt_gen *g, tt_err *e)
{
    tt_status s = make_canvas(g, e);
    if (!s)
        s = tt_gen_open_choices(g, e);
    if (s)
        return s;
    if (g->canvas[0].holes)
        return tt_gen_submit_more(g, NULL, e);
    close_at_once(g);
    return TT_OK;
}

/* Moves to the next slot to fit. */
static void next_slot(tt_fit *f)
{
    while (f->at < f->slots && !to_fit(f, f->at))
        f->at++;
}

tt_status tt_fit_check(const tt_gen *g, const char *path, tt_err *e)
{
    const tt_fit *f = g->fit;
    int64_t all = 0;
    for (int i = 0; i < f->slots; i++)
        all += longest(&f->slot[i]);
    if (all <= g->model->info.context)
        return TT_OK;
    return tt_fail_param(e, path, "context_length_exceeded",
                         "model '%s' has a context of %lld tokens; this text may need %lld",
                         g->model->id, (long long)g->model->info.context, (long long)all);
}

/* Forms that no text of the hole's lengths has. A hole that ends itself cannot end before its
 * least length by a stop token's ban: the form says where it may. */
static tt_status check_forms(const tt_gen *g, tt_err *e)
{
    const tt_fit *f = g->fit;
    tt_status s = TT_OK;
    for (int i = 0; i < f->slots && !s; i++) {
        const tt_slot *slot = &f->slot[i];
        if (!slot->form)
            continue;
        s = tt_constrain_check(slot->form, slot->min, slot->max, slot->form_path, e);
        if (!s && ends_itself(f, i) && slot->min > 1)
            s = tt_fail_param(e, slot->form_path, "unsupported_parameter",
                              "'%s' at the end of a text needs 'min' to be 1", slot->form_path);
    }
    return s;
}

tt_status tt_fit_close(tt_gen *g, tt_err *e)
{
    tt_status s = check_forms(g, e);
    if (s)
        return s;
    next_slot(g->fit);
    if (tt_fit_pending(g))
        return TT_OK;
    return make_canvas(g, e);
}

tt_status tt_fit_submit(tt_gen *g, int64_t *retry_after_ms, tt_err *e)
{
    return submit_probes(g, false, retry_after_ms, e);
}

static bool probes_done(const tt_fit *f)
{
    for (int i = 0; i < f->probes; i++)
        if (!f->probe[i].job || !tt_job_finished(f->probe[i].job))
            return false;
    return true;
}

void tt_fit_advance(tt_gen *g)
{
    tt_fit *f = g->fit;
    tt_err e = {0};
    if (!probes_done(f))
        return;
    tt_status s = decide(g, &e);
    tt_canvas *old = f->probe;
    int n = f->probes;
    pthread_mutex_lock(&g->lock);
    f->probe = NULL;
    f->probes = 0;
    pthread_mutex_unlock(&g->lock);
    for (int i = 0; i < n; i++)
        tt_canvas_free(&old[i]);
    free(old);
    if (!s && !g->failure.status) {
        next_slot(f);
        s = tt_fit_pending(g) ? submit_probes(g, true, NULL, &e) : finish_fit(g, &e);
    }
    if (s)
        tt_gen_fail(g, &e);
}

/* --- the answer --- */

void tt_fit_write(const tt_slot *s, tt_json *w)
{
    double *share = s->score ? calloc((size_t)s->candidates, sizeof *share) : NULL;
    if (!share)
        return;
    tt_score_share(s->score, s->candidates, share);
    tt_json_open_member(w, s->choices ? "choices" : "lengths", '[');
    for (int k = 0; k < s->candidates; k++) {
        tt_json_open(w, '{');
        if (s->choices)
            tt_json_text_member(w, "text", s->choice[k]);
        else
            tt_json_int_member(w, "tokens", s->first + k);
        tt_json_float_member(w, "logprob", s->score[k]);
        tt_json_float_member(w, "probability", share[k]);
        tt_json_close(w, '}');
    }
    tt_json_close(w, ']');
    free(share);
}
