/* dfa.c - see automaton.h. Bytes that no node tells apart are one symbol. */
#include <stdlib.h>
#include <string.h>

#include "kernels/base/map.h"
#include "samplers/constraint/automaton.h"

typedef struct {
    const tt_nfa *n;
    uint8_t symbol[256], sample[256]; /* of a byte; a byte of the symbol */
    int symbols;
    int32_t *set, *stack; /* scratch: nodes */
    uint32_t *mark;       /* per node: round in which it was seen */
    uint32_t round;
    tt_map *known;  /* sets of nodes -> states */
    int32_t **sets; /* per state: length, then nodes ascending */
    int32_t *to;    /* states x symbols; -1: none */
    uint8_t *accept;
    int32_t states;
} builder;

enum { MAX_SUBSETS = 1 << 14 };

static tt_status too_large(tt_err *e)
{
    return tt_fail(e, TT_EINVAL, "the regular expression is too large: more than %d states",
                   TT_MAX_STATES);
}

static tt_status no_memory(tt_err *e)
{
    return tt_fail(e, TT_ENOMEM, "no memory for a regular expression");
}

static void find_symbols(builder *b)
{
    bool begins[257] = {[0] = true};
    for (int32_t i = 0; i < b->n->nodes; i++)
        if (b->n->node[i].to >= 0) {
            begins[b->n->node[i].lo] = true;
            begins[b->n->node[i].hi + 1] = true;
        }
    for (int c = 0; c < 256; c++) {
        if (begins[c])
            b->sample[b->symbols++] = (uint8_t)c;
        b->symbol[c] = (uint8_t)(b->symbols - 1);
    }
}

/* Adds a node and all it reaches without input; nodes that only lead on are left out. */
static int32_t close_over(builder *b, int32_t node, int32_t n)
{
    int32_t top = 0;
    b->stack[top++] = node;
    while (top) {
        int32_t i = b->stack[--top];
        const tt_node *at = &b->n->node[i];
        if (b->mark[i] == b->round)
            continue;
        b->mark[i] = b->round;
        if (at->to >= 0 || i == b->n->accept)
            b->set[n++] = i;
        for (int k = 0; k < 2; k++)
            if (at->eps[k] >= 0 && b->mark[at->eps[k]] != b->round)
                b->stack[top++] = at->eps[k];
    }
    return n;
}

static int ascending(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* The state of the n nodes in b->set; -1: none. */
static tt_status intern(builder *b, int32_t n, int32_t *out, tt_err *e)
{
    *out = -1;
    if (!n)
        return TT_OK;
    qsort(b->set, (size_t)n, sizeof *b->set, ascending);
    *out = tt_map_get(b->known, b->set, (size_t)n * sizeof *b->set);
    if (*out >= 0)
        return TT_OK;
    if (b->states == MAX_SUBSETS)
        return too_large(e);
    int32_t *copy = malloc(((size_t)n + 1) * sizeof *copy);
    if (!copy)
        return no_memory(e);
    copy[0] = n;
    memcpy(copy + 1, b->set, (size_t)n * sizeof *copy);
    for (int32_t i = 0; i < n; i++)
        b->accept[b->states] |= b->set[i] == b->n->accept;
    *out = b->states;
    b->sets[b->states++] = copy;
    return tt_map_put(b->known, copy + 1, (size_t)n * sizeof *copy, *out, NULL, e);
}

static tt_status follow(builder *b, int32_t state, int symbol, tt_err *e)
{
    const int32_t *set = b->sets[state];
    int32_t n = 0;
    b->round++;
    for (int32_t i = 1; i <= set[0]; i++) {
        const tt_node *at = &b->n->node[set[i]];
        uint8_t c = b->sample[symbol];
        if (at->to >= 0 && at->lo <= c && c <= at->hi)
            n = close_over(b, at->to, n);
    }
    return intern(b, n, &b->to[(size_t)state * (size_t)b->symbols + (size_t)symbol], e);
}

static tt_status build(builder *b, tt_err *e)
{
    size_t n = (size_t)b->n->nodes, symbols;
    find_symbols(b);
    symbols = (size_t)b->symbols;
    b->set = malloc(n * sizeof *b->set);
    b->stack = malloc(3 * n * sizeof *b->stack);
    b->mark = calloc(n, sizeof *b->mark);
    b->sets = calloc(MAX_SUBSETS, sizeof *b->sets);
    b->accept = calloc(MAX_SUBSETS, 1);
    b->to = malloc(MAX_SUBSETS * symbols * sizeof *b->to);
    if (!b->set || !b->stack || !b->mark || !b->sets || !b->accept || !b->to)
        return no_memory(e);
    tt_status s = tt_map_open(&b->known, 256, e);
    int32_t first;
    b->round = 1;
    if (!s)
        s = intern(b, close_over(b, b->n->start, 0), &first, e);
    for (int32_t i = 0; i < b->states && !s; i++)
        for (int k = 0; k < b->symbols && !s; k++)
            s = follow(b, i, k, e);
    return s;
}

/* --- as few states as there can be (Moore) --- */

/* Splits states that differ in acceptance or in the parts they lead to, until none do. */
static tt_status partition(const builder *b, int32_t *part, int32_t *parts, tt_err *e)
{
    size_t width = (size_t)b->symbols + 1;
    int32_t *sign = malloc(width * sizeof *sign), *next = malloc((size_t)b->states * sizeof *next);
    tt_status s = sign && next ? TT_OK : no_memory(e);
    int32_t before = 0;
    for (int32_t i = 0; i < b->states && !s; i++)
        part[i] = b->accept[i];
    for (*parts = 1; *parts != before && !s;) {
        tt_map *seen = NULL;
        before = *parts;
        *parts = 0;
        s = tt_map_open(&seen, 256, e);
        for (int32_t i = 0; i < b->states && !s; i++) {
            sign[0] = part[i];
            for (size_t k = 1; k < width; k++) {
                int32_t to = b->to[(size_t)i * (width - 1) + k - 1];
                sign[k] = to < 0 ? -1 : part[to];
            }
            next[i] = tt_map_get(seen, sign, width * sizeof *sign);
            if (next[i] >= 0)
                continue;
            next[i] = (*parts)++;
            s = tt_map_put(seen, sign, width * sizeof *sign, next[i], NULL, e);
        }
        tt_map_close(seen);
        if (!s)
            memcpy(part, next, (size_t)b->states * sizeof *part);
    }
    free(sign);
    free(next);
    return s;
}

/* States from which acceptance can be reached, of the parts; written to live[]. */
static void find_live(const builder *b, const int32_t *part, bool *live)
{
    for (bool grew = true; grew;) {
        grew = false;
        for (int32_t i = 0; i < b->states; i++) {
            bool now = b->accept[i];
            for (int k = 0; k < b->symbols && !now; k++) {
                int32_t to = b->to[(size_t)i * (size_t)b->symbols + (size_t)k];
                now = to >= 0 && live[part[to]];
            }
            grew |= now && !live[part[i]];
            live[part[i]] |= now;
        }
    }
}

static tt_status write_out(const builder *b, const int32_t *part, int32_t parts, tt_dfa *out,
                           tt_err *e)
{
    bool *live = calloc((size_t)parts, sizeof *live);
    out->states = parts;
    out->start = part[0];
    out->next = malloc((size_t)parts * 256 * sizeof *out->next);
    out->accept = calloc((size_t)parts, 1);
    if (!live || !out->next || !out->accept) {
        free(live);
        return no_memory(e);
    }
    find_live(b, part, live);
    for (int32_t i = 0; i < b->states; i++) {
        out->accept[part[i]] = b->accept[i];
        for (int c = 0; c < 256; c++) {
            int32_t to = b->to[(size_t)i * (size_t)b->symbols + b->symbol[c]];
            bool leads = to >= 0 && live[part[to]];
            out->next[(size_t)part[i] * 256 + (size_t)c] = leads ? (uint16_t)part[to] : TT_NO_STATE;
        }
    }
    free(live);
    return TT_OK;
}

static void builder_free(builder *b)
{
    for (int32_t i = 0; i < b->states; i++)
        free(b->sets[i]);
    free(b->sets);
    free(b->set);
    free(b->stack);
    free(b->mark);
    free(b->accept);
    free(b->to);
    tt_map_close(b->known);
}

tt_status tt_dfa_open(tt_dfa *out, const tt_nfa *n, tt_err *e)
{
    builder b = {.n = n};
    int32_t parts = 0, *part = NULL;
    *out = (tt_dfa){0};
    tt_status s = build(&b, e);
    if (!s && !b.states)
        s = tt_fail(e, TT_EINVAL, "the regular expression matches nothing");
    if (!s)
        part = malloc((size_t)b.states * sizeof *part);
    if (!s)
        s = part ? partition(&b, part, &parts, e) : no_memory(e);
    if (!s && parts > TT_MAX_STATES)
        s = too_large(e);
    if (!s)
        s = write_out(&b, part, parts, out, e);
    free(part);
    builder_free(&b);
    if (s)
        tt_dfa_close(out);
    return s;
}

void tt_dfa_close(tt_dfa *d)
{
    free(d->next);
    free(d->accept);
    *d = (tt_dfa){0};
}
