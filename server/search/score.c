/* score.c - orders to score, as a search over images carries them out: pictures are decoded, then
 * the jurors speak one after the other, then their numbers become one.
 *
 * A network looks at as many pictures a turn as take about so long, for others' passes come
 * between; a program is asked once for all (program.c). */
#include <stdlib.h>
#include <string.h>

#include "kernels/base/clock.h"
#include "server/search/parts.h"

/* Pictures of a turn. */
enum { FIRST_SCORED = 4, MOST_SCORED = 64 };
static const double scoring_seconds = 0.1;

/* Codecs that paint from noise: candidates of a beam get the same, so that their scores differ by
 * their tokens alone; whole samples each have their own, as images of an ordinary request. */
static uint32_t noise_of(const tt_picture_search *s, int32_t number)
{
    return s->spec.rules.algorithm->by_steps ? 0 : (uint32_t)number;
}

tt_status tt_ps_show(tt_picture_search *s, const tt_candidate *c, int32_t n, bool pictures,
                     tt_ps_phase next, tt_err *e)
{
    tt_status st = TT_OK;
    tt_ps_no_pieces(s);
    s->phase = next;
    s->seen = c;
    s->n_seen = n;
    s->juror = s->at = 0;
    for (int32_t i = 0; i < n && !st; i++) {
        int32_t node = s->show[i] = tt_ps_shown(&c[i]);
        tt_search_piece p = {.node = node, .from = -1, .decode = true, .sample = noise_of(s, node)};
        if (pictures && !s->nodes.list[node]->rgb)
            st = tt_ps_piece_add(s, p, e);
    }
    return st;
}

/* --- the jurors --- */

/* A juror that is no network and no program: the mean log-probability of the tokens so far. */
static void score_likelihood(const tt_picture_search *s, int32_t n, float *score)
{
    for (int32_t i = 0; i < n; i++) {
        const tt_node *a = s->nodes.list[tt_ps_held(&s->seen[s->at + i])];
        int32_t tokens = tt_node_tokens(a);
        score[i] = tt_node_logprob(a) / (float)(tokens ? tokens : 1);
    }
}

static tt_status score_pictures(tt_picture_search *s, const tt_juror *j, int32_t n, float *score,
                                tt_err *e)
{
    const tt_codec_info *c = &s->run.codec->info;
    tt_exhibit x[MOST_SCORED];
    tt_status st = TT_OK;
    for (int32_t i = 0; i < n; i++)
        x[i] = (tt_exhibit){s->nodes.list[s->show[s->at + i]]->rgb, c->width, c->height};
    int64_t begin = tt_now_ns();
    if (!s->prepared[s->juror] && j->verifier->def->reads_prompt)
        st = tt_verifier_prepare(j->verifier, &s->prepared[s->juror], s->prompt, e);
    if (!st)
        st = tt_verifier_score(j->verifier, s->prepared[s->juror], x, n, score, e);
    tt_ps_count(s, &s->report.scored, n);
    double fit = n * scoring_seconds / ((double)(tt_now_ns() - begin) * 1e-9);
    s->at_once[s->juror] = fit < 1 ? 1 : fit < MOST_SCORED ? (int32_t)fit : MOST_SCORED;
    return st ? tt_context(e, st, "verifier '%.60s'", j->name) : TT_OK;
}

/* The next few that are shown, by the juror whose turn it is. */
static tt_status score_some(tt_picture_search *s, const tt_juror *j, tt_err *e)
{
    int32_t known = s->at_once[s->juror], left = s->n_seen - s->at;
    int32_t most = known ? known : FIRST_SCORED, n = left < most ? left : most;
    float *score = s->score[s->juror] + s->at;
    tt_status st = TT_OK;
    if (j->verifier)
        st = score_pictures(s, j, n, score, e);
    else
        score_likelihood(s, n, score);
    s->at += n;
    return st;
}

tt_status tt_ps_score(tt_picture_search *s, bool say, bool *all, bool *waits, tt_err *e)
{
    while (s->juror < s->spec.jurors && (s->spec.juror[s->juror].weight > 0) != say)
        s->juror++;
    *all = s->juror == s->spec.jurors || s->n_seen == 0;
    if (*all)
        return TT_OK;
    const tt_juror *j = &s->spec.juror[s->juror];
    tt_status st = j->scorer ? tt_ps_ask_program(s, j->scorer, waits, e) : score_some(s, j, e);
    if (s->at == s->n_seen) {
        s->at = 0;
        s->juror++;
    }
    return st;
}

/* --- their verdict --- */

/* One number for each from those of the jurors. */
static tt_status mix(tt_picture_search *s, float *out, int32_t n, tt_err *e)
{
    tt_mix_part part[TT_MAX_JURY];
    int say = 0, last = 0;
    for (int i = 0; i < s->spec.jurors; i++) {
        part[i] = (tt_mix_part){s->score[i], s->spec.juror[i].weight};
        say += part[i].weight > 0;
        last = part[i].weight > 0 ? i : last;
    }
    if (say == 1) { /* as it is */
        memcpy(out, s->score[last], (size_t)n * sizeof *out);
        return TT_OK;
    }
    return tt_mix(out, part, s->spec.jurors, n, s->spec.mix, e);
}

static void mark_survivors(tt_picture_search *s)
{
    const tt_candidate *best;
    const tt_search_work *o = tt_search_order(s->rules);
    int32_t n = tt_search_results(s->rules, &best);
    tt_nodes_unmark(&s->nodes);
    tt_nodes_mark(&s->nodes, best, n);
    if (o->kind != TT_ORDER_DONE)
        tt_nodes_mark(&s->nodes, o->sequence, o->sequences);
}

/* Writes each one's node, and keeps the jurors' scores with what is shown of it. Returns the tokens
 * that the last one has: all have as many. */
static int32_t note_scores(tt_picture_search *s, const tt_search_work *o, int32_t *index)
{
    int32_t tokens = 0;
    for (int32_t i = 0; i < o->sequences; i++) {
        index[i] = tt_ps_held(&o->sequence[i]);
        tt_node *shown = s->nodes.list[s->show[i]];
        for (int k = 0; k < s->spec.jurors; k++)
            shown->each[k] = s->score[k][i];
        tokens = tt_node_tokens(s->nodes.list[index[i]]);
    }
    return tokens;
}

tt_status tt_ps_judge(tt_picture_search *s, tt_err *e)
{
    const tt_search_work *o = tt_search_order(s->rules);
    int32_t n = o->sequences, step = o->step, tokens = 0;
    int32_t *index = malloc((size_t)n * sizeof *index);
    float *score = malloc((size_t)n * sizeof *score);
    tt_status st = index && score ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for a search");
    if (!st)
        st = mix(s, score, n, e);
    if (!st) {
        tokens = note_scores(s, o, index);
        st = tt_search_scored(s->rules, score, e); /* the order's sequences end here */
    }
    if (!st) {
        mark_survivors(s);
        st = tt_ps_tell_stage(s, index, score, n, step, tokens, e);
        tt_nodes_sweep(&s->nodes);
    }
    free(index);
    free(score);
    s->phase = TT_PS_ORDER;
    return st;
}
