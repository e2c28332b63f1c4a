/* report.c - what is told about a search over images: every stage that was scored, the best
 * pictures of the last one, the results, and what all that took.
 *
 * The engine's thread writes, whoever asked for the search copies: both under the report's lock. */
#include <stdlib.h>
#include <string.h>

#include "kernels/base/clock.h"
#include "server/copy.h"
#include "server/search/parts.h"

/* --- for whoever asked --- */

void tt_search_report_free(tt_search_report *r)
{
    free(r->stage);
    free(r->entry);
    free(r->result);
    free(r->picture);
    free(r->pictured);
    *r = (tt_search_report){.stage = NULL};
}

bool tt_picture_search_report(tt_picture_search *s, tt_search_report *out)
{
    pthread_mutex_lock(&s->lock);
    const tt_search_report *r = &s->report;
    bool news = r->stages > out->stages || r->results > out->results;
    tt_search_report copy = *r;
    if (news) {
        copy.stage = tt_copy_of(r->stage, r->stages * sizeof *r->stage);
        copy.entry = tt_copy_of(r->entry, r->entries * sizeof *r->entry);
        copy.result = tt_copy_of(r->result, r->results * sizeof *r->result);
        copy.picture = tt_copy_of(r->picture, r->pictures * r->picture_bytes);
        copy.pictured = tt_copy_of(r->pictured, r->pictures * sizeof *r->pictured);
    }
    pthread_mutex_unlock(&s->lock);
    if (!news)
        return false;
    if (!copy.stage || !copy.entry || !copy.result || !copy.picture || !copy.pictured) {
        tt_search_report_free(&copy);
        return false; /* no memory: looked at again with the next news */
    }
    tt_search_report_free(out);
    *out = copy;
    return true;
}

/* --- for the search --- */

double tt_ps_elapsed_ms(const tt_picture_search *s)
{
    return s->began_ns ? (double)(tt_now_ns() - s->began_ns) * 1e-6 : 0;
}

void tt_ps_count(tt_picture_search *s, int64_t *counter, int64_t more)
{
    pthread_mutex_lock(&s->lock);
    *counter += more;
    pthread_mutex_unlock(&s->lock);
}

void tt_ps_tell_budget(tt_picture_search *s)
{
    pthread_mutex_lock(&s->lock);
    s->report.budget = true;
    pthread_mutex_unlock(&s->lock);
}

static bool is_pictured(const tt_search_report *r, int32_t index)
{
    for (size_t k = 0; k < r->pictures; k++)
        if (r->pictured[k] == index)
            return true;
    return false;
}

/* The best that is not in the report's pictures yet, as a place in the stage. */
static int32_t next_best(const tt_search_report *r, const int32_t *index, const float *score,
                         int32_t n)
{
    int32_t best = -1;
    for (int32_t i = 0; i < n; i++)
        if ((best < 0 || score[i] > score[best]) && !is_pictured(r, index[i]))
            best = i;
    return best;
}

/* Previews are not worth a failure: without memory there are none. */
static void keep_pictures(tt_picture_search *s, const int32_t *index, const float *score, int32_t n)
{
    tt_search_report *r = &s->report;
    int32_t wanted = s->run.picture->previews < n ? s->run.picture->previews : n;
    r->pictures = 0;
    r->picture_bytes = tt_ps_picture_bytes(s);
    if (wanted < 1 || !tt_ps_judges_pictures(s, true))
        return;
    uint8_t *picture = realloc(r->picture, (size_t)wanted * r->picture_bytes);
    r->picture = picture ? picture : r->picture;
    int32_t *pictured = realloc(r->pictured, (size_t)wanted * sizeof *pictured);
    r->pictured = pictured ? pictured : r->pictured;
    for (int32_t k = 0; k < wanted && picture && pictured; k++) {
        int32_t i = next_best(r, index, score, n);
        memcpy(r->picture + r->pictures * r->picture_bytes, s->nodes.list[s->show[i]]->rgb,
               r->picture_bytes);
        r->pictured[r->pictures++] = index[i];
    }
}

static tt_status add_stage(tt_picture_search *s, const int32_t *index, const float *score,
                           int32_t n, int32_t step, int32_t tokens, tt_err *e)
{
    tt_search_report *r = &s->report;
    tt_search_stage *stage = realloc(r->stage, (r->stages + 1) * sizeof *stage);
    r->stage = stage ? stage : r->stage;
    tt_search_entry *entry = realloc(r->entry, (r->entries + (size_t)n) * sizeof *entry);
    r->entry = entry ? entry : r->entry;
    if (!stage || !entry)
        return tt_fail(e, TT_ENOMEM, "no memory for the report of a search");
    stage[r->stages++] = (tt_search_stage){step, tokens, r->entries, (size_t)n};
    for (int32_t i = 0; i < n; i++) {
        const tt_node *a = s->nodes.list[index[i]];
        entry[r->entries++] = (tt_search_entry){index[i], a->parent, score[i], a->marked};
    }
    return TT_OK;
}

tt_status tt_ps_tell_stage(tt_picture_search *s, const int32_t *index, const float *score,
                           int32_t n, int32_t step, int32_t tokens, tt_err *e)
{
    pthread_mutex_lock(&s->lock);
    tt_status st = add_stage(s, index, score, n, step, tokens, e);
    keep_pictures(s, index, score, n);
    s->report.ms = tt_ps_elapsed_ms(s);
    pthread_mutex_unlock(&s->lock);
    return st;
}

tt_status tt_ps_tell_results(tt_picture_search *s, tt_err *e)
{
    const tt_candidate *best;
    int32_t n = tt_search_results(s->rules, &best);
    tt_search_result *list = calloc((size_t)n + 1, sizeof *list);
    if (!list)
        return tt_fail(e, TT_ENOMEM, "no memory for the results of a search");
    for (int32_t i = 0; i < n; i++) {
        const tt_node *shown = s->nodes.list[tt_ps_shown(&best[i])];
        list[i] = (tt_search_result){.index = tt_ps_held(&best[i]), .score = best[i].score};
        for (int k = 0; k < s->spec.jurors; k++)
            list[i].each[k] = s->spec.juror[k].weight > 0 ? shown->each[k] : s->score[k][i];
    }
    pthread_mutex_lock(&s->lock);
    s->report.result = list;
    s->report.results = (size_t)n;
    s->report.ms = tt_ps_elapsed_ms(s);
    pthread_mutex_unlock(&s->lock);
    return TT_OK;
}
