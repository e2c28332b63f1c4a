/* picture_search.c - a search over images goes from order to order; see picture_search.h, and
 * search/parts.h for the parts it does that with. */
#include "server/picture_search.h"

#include <stdlib.h>
#include <string.h>

#include "server/search/parts.h"

/* --- opening --- */

/* Room for the widest order. */
static tt_status open_lists(tt_picture_search *s, tt_err *e)
{
    size_t pool = (size_t)tt_ps_pool(&s->spec.rules);
    s->made = calloc(pool + 1, sizeof *s->made);
    s->show = calloc(pool + 1, sizeof *s->show);
    bool bad = !s->made || !s->show;
    for (int i = 0; i < s->spec.jurors; i++) {
        s->score[i] = calloc(pool + 1, sizeof *s->score[i]);
        bad |= !s->score[i];
    }
    return bad ? tt_fail(e, TT_ENOMEM, "no memory for a search") : TT_OK;
}

tt_status tt_picture_search_open(tt_picture_search **out, const tt_picture_search_spec *spec,
                                 const tt_picture_run_spec *run, tt_err *e)
{
    *out = NULL;
    tt_err local = {0};
    e = e ? e : &local;
    tt_picture_search *s = calloc(1, sizeof *s);
    if (!s)
        return tt_fail(e, TT_ENOMEM, "no memory for a search");
    pthread_mutex_init(&s->lock, NULL);
    s->spec = *spec;
    s->run = *run;
    s->greedy = *run->params;
    s->greedy.temperature = s->greedy.order_temperature = 0;
    s->decoding = (tt_picture_spec){.task = TT_PICTURE_DECODE, .painting = run->picture->painting};
    s->prompt = strdup(spec->prompt ? spec->prompt : "");
    tt_status st = s->prompt ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for a search");
    if (!st)
        st = tt_ps_fit(s, e);
    if (!st)
        st = open_lists(s, e);
    tt_search_next next;
    if (!st) /* of a uniform draw there are pieces only when it is to be shown */
        st = tt_picture_search_next(s, &next, e);
    if (st)
        tt_picture_search_close(s);
    else
        *out = s;
    return st;
}

void tt_picture_search_clear(tt_picture_search *s) { tt_nodes_clear(&s->nodes); }

void tt_picture_search_close(tt_picture_search *s)
{
    if (!s)
        return;
    tt_nodes_clear(&s->nodes);
    tt_scoring_end(s->asked);
    tt_search_close(s->rules);
    for (int i = 0; i < TT_MAX_JURY; i++) {
        free(s->prepared[i]);
        free(s->score[i]);
    }
    free(s->nodes.list);
    free(s->pieces.list);
    free(s->made);
    free(s->show);
    free(s->prompt);
    tt_search_report_free(&s->report);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* --- one order after the other --- */

static tt_status begin_order(tt_picture_search *s, tt_err *e)
{
    const tt_search_work *o = tt_search_order(s->rules);
    const tt_candidate *best;
    if (tt_ps_spent(s, o)) {
        tt_ps_tell_budget(s);
        tt_search_stop(s->rules);
        o = tt_search_order(s->rules);
    }
    if (o->kind == TT_ORDER_SCORE)
        return tt_ps_show(s, o->sequence, o->sequences, tt_ps_judges_pictures(s, true), TT_PS_SHOW,
                          e);
    if (o->kind == TT_ORDER_EXTEND)
        return tt_ps_splits(s, o) ? tt_ps_make_trunks(s, o, e) : tt_ps_make_rows(s, o, e);
    int32_t n = tt_search_results(s->rules, &best);
    bool wanted = !s->run.picture->tokens_only || tt_ps_judges_pictures(s, false);
    return tt_ps_show(s, best, n, wanted, TT_PS_RESULTS, e);
}

static tt_status end_with_results(tt_picture_search *s, tt_err *e)
{
    tt_status st = tt_ps_tell_results(s, e);
    if (!st)
        s->phase = TT_PS_OVER;
    return st;
}

/* What is shown is there: the jurors speak, some pictures a turn, then it goes on. */
static tt_status hear_jurors(tt_picture_search *s, bool *again, bool *waits, tt_err *e)
{
    bool all = false, ranks = s->phase == TT_PS_SHOW;
    tt_status st = tt_ps_score(s, ranks, &all, waits, e);
    *again = !st && !all;
    if (st || !all)
        return st;
    return ranks ? tt_ps_judge(s, e) : end_with_results(s, e);
}

/* One transition, after the pieces of the phase. */
static tt_status go_on(tt_picture_search *s, bool *again, bool *waits, tt_err *e)
{
    switch (s->phase) {
    case TT_PS_ORDER:
        return begin_order(s, e);
    case TT_PS_TRUNK:
        return tt_ps_make_rows(s, tt_search_order(s->rules), e);
    case TT_PS_GROW:
        return tt_ps_answer_rows(s, e);
    case TT_PS_SHOW:
    case TT_PS_RESULTS:
        return hear_jurors(s, again, waits, e);
    case TT_PS_OVER:
        break;
    }
    return TT_OK;
}

tt_status tt_picture_search_next(tt_picture_search *s, tt_search_next *next, tt_err *e)
{
    bool again = false, waits = false;
    tt_status st = s->failure.status;
    if (st) {
        *e = s->failure;
        return st;
    }
    do {
        tt_ps_no_pieces(s);
        st = go_on(s, &again, &waits, e);
    } while (!st && !s->pieces.n && !again && s->phase != TT_PS_OVER);
    *next = s->phase == TT_PS_OVER ? TT_SEARCH_OVER
            : waits                ? TT_SEARCH_WAITS
            : again                ? TT_SEARCH_AGAIN
                                   : TT_SEARCH_PIECES;
    return st;
}

const tt_picture_run *tt_picture_search_result(const tt_picture_search *s, int32_t i,
                                               const uint8_t **rgb)
{
    const tt_candidate *best;
    if (s->phase != TT_PS_OVER || i >= tt_search_results(s->rules, &best))
        return NULL;
    const tt_node *n = s->nodes.list[tt_ps_shown(&best[i])];
    *rgb = n->rgb;
    return &n->run;
}
