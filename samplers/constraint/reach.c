/* reach.c - what may stand at the columns of a sequence: F and B of constraint.h, kept up to date
 * commit by commit. */
#include <math.h>
#include <string.h>

#include "samplers/constraint/grammar.h"

typedef struct {
    tt_constraint span;
    uint64_t *front, *back; /* F and B: columns + 1 sets of g->words words each */
} reach;

struct tt_reach {
    reach *list;
    int32_t n;
};

/* What the asks before this one were given: asks of the same hole with the same classes and biases
 * get the same list. */
typedef struct {
    const reach *r;
    const uint64_t *set;
    const tt_id_value *bias; /* before */
    const tt_draw *draw;
} given;

enum { ALIGN = 64 };

static size_t set_words(const tt_constraint *s)
{
    return ((size_t)(s->end - s->begin) + 1) * (size_t)s->grammar->words;
}

size_t tt_reach_bytes(const tt_constraint *span, int32_t spans)
{
    size_t bytes = spans ? sizeof(tt_reach) + (size_t)spans * sizeof(reach) + 2 * ALIGN : 0;
    for (int32_t i = 0; i < spans; i++)
        bytes += 2 * (set_words(&span[i]) * sizeof(uint64_t) + ALIGN);
    return bytes;
}

/* An allowed list is used up to two thirds of the vocabulary, banned ids beyond: with 4 and 8
 * bytes an id both take at most this. */
static size_t list_bytes(int32_t vocab, int32_t n_bias)
{
    return ((size_t)vocab / 3 + 2) * sizeof(tt_id_value) +
           (size_t)n_bias * sizeof(tt_id_value) + ALIGN;
}

size_t tt_reach_step_bytes(const tt_constraint *span, int32_t spans, int32_t vocab, int32_t n_bias,
                           int32_t columns)
{
    size_t bytes = 0;
    for (int32_t i = 0; i < spans; i++) {
        size_t n = (size_t)(span[i].end - span[i].begin);
        size_t words = ((size_t)span[i].grammar->classes + 63) / 64;
        bytes += n * (list_bytes(vocab, n_bias) + words * sizeof(uint64_t) + ALIGN);
    }
    /* Samplers may ask for a column twice. */
    return spans ? 2 * bytes + 2 * (size_t)columns * sizeof(given) + ALIGN : 0;
}

static uint64_t *set_at(const reach *r, uint64_t *sets, int32_t column)
{
    return sets + (size_t)(column - r->span.begin) * (size_t)r->span.grammar->words;
}

/* The class of a filled column's token; -1: it is possible nowhere. */
static int32_t class_at(const tt_seq *q, const reach *r, int32_t column)
{
    const tt_grammar *g = r->span.grammar;
    int32_t id = q->id[column];
    return id >= 0 && id < g->vocab ? g->class_of[id] : -1;
}

/* One column's step of F or B. Returns whether the set there changed. */
static bool advance(const tt_seq *q, const reach *r, int32_t column, bool back)
{
    const tt_grammar *g = r->span.grammar;
    uint64_t *sets = back ? r->back : r->front;
    uint64_t *from = set_at(r, sets, back ? column + 1 : column);
    uint64_t *to = set_at(r, sets, back ? column : column + 1);
    uint64_t before[TT_MAX_WORDS];
    size_t bytes = (size_t)g->words * sizeof *to;
    memcpy(before, to, bytes);
    int32_t k = tt_seq_open_at(q, column) ? 0 : class_at(q, r, column);
    if (tt_seq_open_at(q, column)) {
        (back ? tt_step_back : tt_step_forward)(g, from, to);
        return memcmp(before, to, bytes) != 0;
    }
    memset(to, 0, bytes);
    for (int32_t i = k < 0 ? 0 : g->first[k]; k >= 0 && i < g->first[k + 1]; i++) {
        tt_grammar_move m = g->move[i];
        if (tt_bit(from, back ? m.to : m.from))
            tt_bit_set(to, back ? m.from : m.to);
    }
    return memcmp(before, to, bytes) != 0;
}

static void sweep(const tt_seq *q, const reach *r, int32_t column)
{
    int32_t c = column;
    while (c < r->span.end && (advance(q, r, c, false) || c == column))
        c++;
    c = column;
    while (c >= r->span.begin && (advance(q, r, c, true) || c == column))
        c--;
}

static reach *find(const tt_seq *q, int32_t column)
{
    for (int32_t i = 0; q->reach && i < q->reach->n; i++) {
        reach *r = &q->reach->list[i];
        if (r->span.begin <= column && column < r->span.end)
            return r;
    }
    return NULL;
}

static tt_status begin_span(tt_seq *q, reach *r, tt_err *e)
{
    const tt_grammar *g = r->span.grammar;
    r->front = TT_TAKE(q->arena, set_words(&r->span), uint64_t);
    r->back = TT_TAKE(q->arena, set_words(&r->span), uint64_t);
    if (!r->front || !r->back)
        return tt_fail(e, TT_ENOMEM, "no memory for a constraint");
    tt_bit_set(set_at(r, r->front, r->span.begin), g->start);
    uint64_t *last = set_at(r, r->back, r->span.end);
    for (int32_t s = 0; s < g->states; s++)
        if (tt_ends_at(g, s, r->span.ends))
            tt_bit_set(last, s);
    for (int32_t c = r->span.begin; c < r->span.end; c++)
        advance(q, r, c, false);
    for (int32_t c = r->span.end; c-- > r->span.begin;)
        advance(q, r, c, true);
    if (tt_bit(set_at(r, r->back, r->span.begin), g->start))
        return TT_OK;
    return tt_fail_param(e, "regex", "constraint_unsatisfiable",
                         "no text of %d tokens matches the constraint",
                         r->span.end - r->span.begin);
}

tt_status tt_reach_begin(tt_seq *q, const tt_constraint *span, int32_t spans, tt_err *e)
{
    q->reach = spans ? TT_TAKE(q->arena, 1, tt_reach) : NULL;
    if (!spans)
        return TT_OK;
    if (q->reach)
        q->reach->list = TT_TAKE(q->arena, spans, reach);
    if (!q->reach || !q->reach->list)
        return tt_fail(e, TT_ENOMEM, "no memory for %d constraints", spans);
    tt_status s = TT_OK;
    for (int32_t i = 0; i < spans && !s; i++) {
        q->reach->list[i].span = span[i];
        s = begin_span(q, &q->reach->list[i], e);
        q->reach->n++;
    }
    return s;
}

/* True when the class leads from a state that can be there to one that can go on. */
static bool class_fits(const reach *r, int32_t column, int32_t k)
{
    const tt_grammar *g = r->span.grammar;
    const uint64_t *front = set_at(r, r->front, column), *back = set_at(r, r->back, column + 1);
    for (int32_t i = g->first[k]; i < g->first[k + 1]; i++)
        if (tt_bit(front, g->move[i].from) && tt_bit(back, g->move[i].to))
            return true;
    return false;
}

bool tt_reach_admits(const tt_seq *q, int32_t column, int32_t id)
{
    const reach *r = find(q, column);
    if (!r)
        return true;
    int32_t k = id >= 0 && id < r->span.grammar->vocab ? r->span.grammar->class_of[id] : -1;
    return k >= 0 && class_fits(r, column, k);
}

void tt_reach_update(tt_seq *q, int32_t column)
{
    const reach *r = find(q, column);
    if (r)
        sweep(q, r, column);
}

/* --- lists for a step --- */

static size_t class_words(const tt_grammar *g) { return ((size_t)g->classes + 63) / 64; }

/* Classes that fit the column, as bits; how many tokens they have. */
static int64_t fitting(const reach *r, int32_t column, uint64_t *set)
{
    const tt_grammar *g = r->span.grammar;
    int64_t tokens = 0;
    for (int32_t k = 0; k < g->classes; k++)
        if (class_fits(r, column, k)) {
            tt_bit_set(set, k);
            tokens += g->size[k];
        }
    return tokens;
}

/* The draw's biases with all ids banned that are in none of the classes. */
static tt_status ban_others(const tt_grammar *g, const uint64_t *set, int64_t banned, tt_draw *d,
                            tt_arena *arena, tt_err *e)
{
    tt_id_value *list = TT_TAKE(arena, (int64_t)d->n_bias + banned, tt_id_value);
    int32_t n = 0, b = 0;
    if (!list)
        return tt_fail(e, TT_ENOMEM, "no step memory for a constraint");
    for (int32_t id = 0; id < g->vocab; id++) {
        bool out = g->class_of[id] < 0 || !tt_bit(set, g->class_of[id]);
        bool biased = b < d->n_bias && d->bias[b].id == id;
        if (out || biased)
            list[n++] = (tt_id_value){id, out ? -INFINITY : d->bias[b].value};
        b += biased;
    }
    while (b < d->n_bias)
        list[n++] = d->bias[b++];
    d->bias = list;
    d->n_bias = n;
    return TT_OK;
}

static tt_status allow_these(const tt_grammar *g, const uint64_t *set, int64_t tokens, tt_draw *d,
                             tt_arena *arena, tt_err *e)
{
    int32_t *list = TT_TAKE(arena, tokens, int32_t), n = 0;
    if (!list)
        return tt_fail(e, TT_ENOMEM, "no step memory for a constraint");
    for (int32_t id = 0; id < g->vocab; id++)
        if (g->class_of[id] >= 0 && tt_bit(set, g->class_of[id]))
            list[n++] = id;
    d->allow = list;
    d->n_allow = n;
    return TT_OK;
}

static const tt_draw *alike(const given *list, int32_t n, const given *x)
{
    size_t words = class_words(x->r->span.grammar);
    for (int32_t i = n; i-- > 0;)
        if (list[i].r == x->r && list[i].bias == x->bias &&
            !memcmp(list[i].set, x->set, words * sizeof *x->set))
            return list[i].draw;
    return NULL;
}

static tt_status constrain(const reach *r, int32_t column, tt_draw *d, given *list, int32_t *n,
                           tt_arena *arena, tt_err *e)
{
    const tt_grammar *g = r->span.grammar;
    uint64_t *set = TT_TAKE(arena, class_words(g), uint64_t);
    if (!set)
        return tt_fail(e, TT_ENOMEM, "no step memory for a constraint");
    int64_t tokens = fitting(r, column, set);
    given x = {r, set, d->bias, d};
    const tt_draw *same = alike(list, *n, &x);
    if (same) {
        d->bias = same->bias;
        d->n_bias = same->n_bias;
        d->allow = same->allow;
        d->n_allow = same->n_allow;
        return TT_OK;
    }
    list[(*n)++] = x;
    return 3 * tokens > 2 * (int64_t)g->vocab
               ? ban_others(g, set, g->vocab - tokens, d, arena, e)
               : allow_these(g, set, tokens, d, arena, e);
}

tt_status tt_reach_constrain(const tt_seq *q, tt_plan *plan, tt_err *e)
{
    given *list = q->reach ? TT_TAKE(plan->arena, plan->asks, given) : NULL;
    int32_t n = 0;
    tt_status s = TT_OK;
    if (q->reach && !list)
        return tt_fail(e, TT_ENOMEM, "no step memory for a constraint");
    for (int32_t i = 0; q->reach && i < plan->asks && !s; i++) {
        tt_ask *a = &plan->ask[i];
        bool shadow = plan->shadow_begin < plan->shadow_end && a->column >= q->columns;
        int32_t column = shadow ? a->column - q->columns + plan->shadow_begin : a->column;
        const reach *r = find(q, column);
        if (r)
            s = constrain(r, column, &a->draw, list, &n, plan->arena, e);
    }
    return s;
}
