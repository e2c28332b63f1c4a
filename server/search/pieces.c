/* pieces.c - the runs that carry out an order of a search over images.
 *
 * A piece makes some steps of a node, or decodes one. The scheduler asks for them one by one, runs
 * them among everybody's and gives back what came of each; the order is carried out when all are
 * answered. */
#include <stdlib.h>

#include "kernels/base/clock.h"
#include "server/search/parts.h"

tt_status tt_ps_piece_add(tt_picture_search *s, tt_search_piece p, tt_err *e)
{
    tt_search_pieces *all = &s->pieces;
    tt_search_piece *list = tt_ps_one_more(all->list, all->n, &all->room, sizeof *list);
    if (!list)
        return tt_fail(e, TT_ENOMEM, "no memory for the steps of a search");
    all->list = list;
    list[all->n++] = p;
    return TT_OK;
}

void tt_ps_no_pieces(tt_picture_search *s)
{
    s->pieces.n = s->pieces.answered = 0;
}

int32_t tt_picture_search_pieces(const tt_picture_search *s) { return s->pieces.n; }

bool tt_picture_search_idle(const tt_picture_search *s)
{
    return s->failure.status || s->pieces.answered == s->pieces.n;
}

void tt_picture_search_fail(tt_picture_search *s, const tt_err *e)
{
    if (!s->failure.status)
        s->failure = *e;
    s->pieces.answered++;
}

tt_picture_run_spec tt_ps_piece_spec(const tt_picture_search *s, const tt_search_piece *p)
{
    tt_picture_run_spec r = s->run;
    r.from = p->from >= 0 ? &s->nodes.list[p->from]->run : NULL;
    r.steps = p->steps;
    r.way = p->way;
    r.ways = p->ways;
    r.sample = p->sample;
    r.params = p->greedy ? &s->greedy : s->run.params;
    return r;
}

/* Decodes the tokens a node has; of a masked image also the most likely ones where they are still
 * hidden. */
static tt_status start_decoding(const tt_picture_search *s, const tt_search_piece *p,
                                tt_picture_run *r, tt_err *e)
{
    const tt_image_seq *q = &s->nodes.list[p->node]->run.seq;
    tt_picture_run_spec spec = s->run;
    int32_t *id = malloc((size_t)q->layout.tokens * sizeof *id);
    if (!id)
        return tt_fail(e, TT_ENOMEM, "no memory for a picture");
    tt_image_preview(q, id);
    spec.picture = &s->decoding;
    spec.id = id;
    spec.sample = p->sample;
    spec.keep = q->hidden && !tt_ps_masked(s) ? q->layout.tokens - q->hidden : 0;
    tt_status st = tt_picture_run_open(r, &spec, e);
    r->spec.id = NULL; /* read by now */
    free(id);
    return st;
}

tt_status tt_picture_search_start(tt_picture_search *s, int32_t i, tt_picture_run *r, tt_err *e)
{
    const tt_search_piece *p = &s->pieces.list[i];
    if (s->failure.status)
        return tt_fail(e, s->failure.status, "%s", s->failure.text);
    if (!s->began_ns)
        s->began_ns = tt_now_ns();
    if (p->decode)
        return start_decoding(s, p, r, e);
    tt_picture_run_spec spec = tt_ps_piece_spec(s, p);
    return tt_picture_run_open(r, &spec, e);
}

void tt_picture_search_take(tt_picture_search *s, int32_t i, tt_picture_run *r)
{
    const tt_search_piece *p = &s->pieces.list[i];
    tt_node *n = s->nodes.list[p->node];
    s->pieces.answered++;
    if (p->decode) {
        n->rgb = r->picture;
        r->picture = NULL;
        tt_ps_count(s, &s->report.decoded, 1);
        tt_picture_run_close(r);
        return;
    }
    tt_ps_count(s, &s->report.forwards, r->nfe);
    tt_node_put(n, r);
}
