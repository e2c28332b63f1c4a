/* grammar.c - an automaton over bytes becomes one over a model's tokens: see constraint.h. */
#include "samplers/constraint/grammar.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/map.h"
#include "samplers/constraint/automaton.h"

/* What is being built. */
typedef struct {
    tt_grammar *g;
    const tt_dfa *d;
    const tt_alphabet *a;
    tt_grammar_move *by_byte; /* of single bytes, those of byte c from begin[c] on */
    int32_t begin[257];
    tt_map *known; /* lists of moves -> classes */
    tt_grammar_move *list; /* scratch: of one token */
    size_t moves, room, class_room;
} builder;

static tt_status no_memory(tt_err *e)
{
    return tt_fail(e, TT_ENOMEM, "no memory for a regular expression");
}

/* Few states go on with any one byte, so tokens begin with the moves of their first. */
static tt_status find_byte_moves(builder *b, tt_err *e)
{
    int32_t states = b->d->states, n = 0;
    b->by_byte = malloc((size_t)states * 256 * sizeof *b->by_byte);
    if (!b->by_byte)
        return no_memory(e);
    for (int c = 0; c < 256; c++) {
        b->begin[c] = n;
        for (int32_t s = 0; s < states; s++) {
            uint16_t to = b->d->next[(size_t)s * 256 + (size_t)c];
            if (to != TT_NO_STATE)
                b->by_byte[n++] = (tt_grammar_move){(uint16_t)s, to};
        }
    }
    b->begin[256] = n;
    return TT_OK;
}

/* Moves of a token's bytes, at least one, from every state. */
static int32_t moves_of(const builder *b, const char *bytes, size_t n)
{
    int32_t count = 0;
    uint8_t first = (uint8_t)bytes[0];
    for (int32_t k = b->begin[first]; k < b->begin[first + 1]; k++) {
        uint16_t at = b->by_byte[k].to;
        for (size_t i = 1; i < n && at != TT_NO_STATE; i++)
            at = b->d->next[(size_t)at * 256 + (uint8_t)bytes[i]];
        if (at != TT_NO_STATE)
            b->list[count++] = (tt_grammar_move){b->by_byte[k].from, at};
    }
    return count;
}

/* A stop token leads from accepting states, and from behind another, behind itself. */
static int32_t moves_of_stop(const builder *b)
{
    int32_t count = 0;
    uint16_t behind = (uint16_t)b->d->states;
    for (int32_t s = 0; s < b->d->states; s++)
        if (b->d->accept[s])
            b->list[count++] = (tt_grammar_move){(uint16_t)s, behind};
    b->list[count++] = (tt_grammar_move){behind, behind};
    return count;
}

static tt_status new_class(builder *b, int32_t n, int32_t *out, tt_err *e)
{
    tt_grammar *g = b->g;
    if (b->moves + (size_t)n > b->room) {
        size_t room = 2 * (b->moves + (size_t)n);
        tt_grammar_move *more = realloc(g->move, room * sizeof *more);
        if (!more)
            return no_memory(e);
        g->move = more;
        b->room = room;
    }
    if ((size_t)g->classes + 1 >= b->class_room) {
        size_t room = 2 * b->class_room + 64;
        int32_t *first = realloc(g->first, room * sizeof *first);
        g->first = first ? first : g->first;
        int32_t *size = realloc(g->size, room * sizeof *size);
        g->size = size ? size : g->size;
        if (!first || !size)
            return no_memory(e);
        b->class_room = room;
    }
    memcpy(g->move + b->moves, b->list, (size_t)n * sizeof *b->list);
    g->first[g->classes] = (int32_t)b->moves;
    b->moves += (size_t)n;
    g->first[g->classes + 1] = (int32_t)b->moves;
    g->size[g->classes] = 0;
    *out = g->classes++;
    for (int32_t i = 0; i < n; i++)
        tt_bit_set(g->step + (size_t)b->list[i].from * (size_t)g->words, b->list[i].to);
    return tt_map_put(b->known, b->list, (size_t)n * sizeof *b->list, *out, NULL, e);
}

static bool is_stop(const tt_alphabet *a, int32_t id)
{
    for (int i = 0; i < a->stops; i++)
        if (a->stop[i] == id)
            return true;
    return false;
}

static tt_status add_token(builder *b, int32_t id, tt_err *e)
{
    size_t n = 0;
    bool stop = is_stop(b->a, id);
    const char *bytes = stop ? NULL : b->a->piece(b->a->arg, id, &n);
    int32_t count = stop ? moves_of_stop(b) : bytes && n ? moves_of(b, bytes, n) : 0, k = -1;
    tt_status s = TT_OK;
    if (count)
        k = tt_map_get(b->known, b->list, (size_t)count * sizeof *b->list);
    if (count && k < 0)
        s = new_class(b, count, &k, e);
    b->g->class_of[id] = k;
    if (!s && k >= 0)
        b->g->size[k]++;
    return s;
}

static tt_status lift(builder *b, tt_err *e)
{
    tt_grammar *g = b->g;
    size_t states = (size_t)b->d->states + 1;
    g->owners = 1;
    g->states = (int32_t)states;
    g->start = b->d->start;
    g->words = (g->states + 63) / 64;
    g->vocab = b->a->vocab;
    g->accept = calloc((size_t)g->words, sizeof *g->accept);
    g->step = calloc(states * (size_t)g->words, sizeof *g->step);
    g->class_of = malloc((size_t)g->vocab * sizeof *g->class_of + 1);
    b->list = malloc(states * sizeof *b->list);
    if (!g->accept || !g->step || !g->class_of || !b->list)
        return no_memory(e);
    for (int32_t s = 0; s < b->d->states; s++)
        if (b->d->accept[s])
            tt_bit_set(g->accept, s);
    tt_status s = tt_map_open(&b->known, 256, e);
    if (!s)
        s = find_byte_moves(b, e);
    for (int32_t id = 0; id < g->vocab && !s; id++)
        s = add_token(b, id, e);
    return s;
}

tt_status tt_grammar_open(tt_grammar **out, const char *regex, size_t bytes, const tt_alphabet *a,
                          tt_err *e)
{
    tt_nfa n = {0};
    tt_dfa d = {0};
    builder b = {.g = calloc(1, sizeof *b.g), .d = &d, .a = a};
    *out = NULL;
    tt_status s = b.g ? tt_nfa_open(&n, regex, bytes, e) : no_memory(e);
    if (!s)
        s = tt_dfa_open(&d, &n, e);
    tt_nfa_close(&n);
    if (!s)
        s = lift(&b, e);
    tt_dfa_close(&d);
    tt_map_close(b.known);
    free(b.list);
    free(b.by_byte);
    if (s)
        tt_grammar_close(b.g);
    else
        *out = b.g;
    return s;
}

tt_grammar *tt_grammar_share(tt_grammar *g)
{
    atomic_fetch_add(&g->owners, 1);
    return g;
}

void tt_grammar_close(tt_grammar *g)
{
    if (!g || atomic_fetch_sub(&g->owners, 1) > 1)
        return;
    free(g->accept);
    free(g->step);
    free(g->first);
    free(g->move);
    free(g->size);
    free(g->class_of);
    free(g);
}

int32_t tt_grammar_states(const tt_grammar *g) { return g->states - 1; }

int32_t tt_grammar_start(const tt_grammar *g)
{
    return g->start;
}

int32_t tt_grammar_next(const tt_grammar *g, int32_t state, int32_t id)
{
    int32_t k = id >= 0 && id < g->vocab ? g->class_of[id] : -1;
    for (int32_t i = k < 0 ? 0 : g->first[k]; k >= 0 && i < g->first[k + 1]; i++)
        if (g->move[i].from == state)
            return g->move[i].to;
    return -1;
}

bool tt_grammar_accepts(const tt_grammar *g, int32_t state)
{
    return tt_bit(g->accept, state);
}

void tt_step_forward(const tt_grammar *g, const uint64_t *from, uint64_t *to)
{
    memset(to, 0, (size_t)g->words * sizeof *to);
    for (int32_t s = 0; s < g->states; s++)
        for (int32_t w = 0; tt_bit(from, s) && w < g->words; w++)
            to[w] |= g->step[(size_t)s * (size_t)g->words + (size_t)w];
}

void tt_step_back(const tt_grammar *g, const uint64_t *to, uint64_t *from)
{
    memset(from, 0, (size_t)g->words * sizeof *from);
    for (int32_t s = 0; s < g->states; s++) {
        uint64_t both = 0;
        for (int32_t w = 0; w < g->words; w++)
            both |= to[w] & g->step[(size_t)s * (size_t)g->words + (size_t)w];
        if (both)
            tt_bit_set(from, s);
    }
}

bool tt_grammar_fits(const tt_grammar *g, int32_t tokens, bool ends)
{
    uint64_t *at = calloc(2 * (size_t)g->words, sizeof *at), *next = at + g->words;
    bool fits = false;
    if (!at)
        return false;
    tt_bit_set(at, g->start);
    for (int32_t i = 0; i < tokens; i++) {
        tt_step_forward(g, at, next);
        memcpy(at, next, (size_t)g->words * sizeof *at);
    }
    for (int32_t s = 0; s < g->states; s++)
        fits |= tt_bit(at, s) && tt_ends_at(g, s, ends);
    free(at);
    return fits;
}
