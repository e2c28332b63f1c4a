/* nodes.c - the sequences of a search over images: the tree of its candidates.
 *
 * A node keeps the run that made it, parked: others go on from a copy of its state. What leaves the
 * race is freed at once, so memory follows the candidates alive, not those ever made. */
#include <stdlib.h>

#include "server/search/parts.h"

static _Atomic int64_t alive;

int64_t tt_picture_search_alive(void) { return atomic_load(&alive); }

void *tt_ps_one_more(void *list, int32_t n, int32_t *room, size_t size)
{
    if (n < *room)
        return list;
    int32_t more = *room ? 2 * *room : 64;
    void *p = realloc(list, (size_t)more * size);
    *room = p ? more : *room;
    return p;
}

tt_status tt_nodes_add(tt_nodes *all, int32_t parent, int32_t *number, tt_err *e)
{
    tt_node **list = tt_ps_one_more(all->list, all->n, &all->room, sizeof *list);
    if (!list)
        return tt_fail(e, TT_ENOMEM, "no memory for the candidates of a search");
    all->list = list;
    tt_node *n = calloc(1, sizeof *n);
    if (!n)
        return tt_fail(e, TT_ENOMEM, "no memory for a candidate of a search");
    n->parent = parent;
    *number = all->n;
    list[all->n++] = n;
    return TT_OK;
}

void tt_node_put(tt_node *n, tt_picture_run *r)
{
    n->run = *r;
    *r = (tt_picture_run){.spec = {0}};
    /* What the copies inside lead to moved with them. */
    n->run.seq.arena = &n->run.life;
    n->run.plan.arena = &n->run.step;
    tt_picture_run_park(&n->run);
    if (tt_image_done(&n->run.seq)) { /* nothing goes on from it */
        tt_generator_drop(n->run.state);
        n->run.state = NULL;
    }
    n->there = true;
    alive++;
}

static void drop(tt_nodes *all, int32_t i)
{
    tt_node *n = all->list[i];
    all->list[i] = NULL;
    if (!n)
        return;
    if (n->there) {
        alive--;
        tt_picture_run_close(&n->run);
    }
    free(n->rgb);
    free(n);
}

void tt_nodes_unmark(tt_nodes *all)
{
    for (int32_t i = 0; i < all->n; i++)
        if (all->list[i])
            all->list[i]->marked = false;
}

void tt_nodes_mark(tt_nodes *all, const tt_candidate *c, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        int32_t held = tt_ps_held(&c[i]), shown = tt_ps_shown(&c[i]);
        if (held >= 0)
            all->list[held]->marked = true;
        if (shown >= 0)
            all->list[shown]->marked = true;
    }
}

void tt_nodes_sweep(tt_nodes *all)
{
    for (int32_t i = 0; i < all->n; i++)
        if (all->list[i] && !all->list[i]->marked)
            drop(all, i);
}

void tt_nodes_clear(tt_nodes *all)
{
    for (int32_t i = 0; i < all->n; i++)
        drop(all, i);
}

int32_t tt_node_tokens(const tt_node *n)
{
    const tt_image_seq *q = &n->run.seq;
    int32_t tokens = 0;
    for (int32_t i = 0; i < q->layout.tokens; i++)
        tokens += q->id[i] != q->mask_id;
    return tokens;
}

float tt_node_logprob(const tt_node *n)
{
    const tt_image_seq *q = &n->run.seq;
    double sum = 0;
    for (int32_t i = 0; i < q->layout.tokens; i++)
        if (q->id[i] != q->mask_id)
            sum += q->logprob[i];
    return (float)sum;
}
