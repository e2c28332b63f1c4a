/* grammar.h - the inside of a tt_grammar, for samplers/constraint alone. */
#ifndef TT_GRAMMAR_H
#define TT_GRAMMAR_H

#include <stdatomic.h>

#include "samplers/constraint.h"
#include "samplers/constraint/automaton.h"

enum { TT_MAX_WORDS = TT_MAX_STATES / 64 + 1 }; /* of a set of states */

/* From a state to a state by any token of a class. */
typedef struct {
    uint16_t from, to;
} tt_grammar_move;

struct tt_grammar {
    int32_t states, start; /* the last state is that behind a stop token */
    int32_t words;         /* of 64 states */
    uint64_t *accept;      /* states where a text may end */
    uint64_t *step;        /* states x words: where any one token leads */
    int32_t classes;
    int32_t *first;  /* classes + 1: the class's moves in move[] */
    tt_grammar_move *move;
    int32_t *size;   /* per class: tokens */
    int32_t vocab;
    int32_t *class_of; /* per id; -1: possible nowhere */
    atomic_int owners;
};

static inline bool tt_bit(const uint64_t *set, int32_t i) { return set[i >> 6] >> (i & 63) & 1; }
static inline void tt_bit_set(uint64_t *set, int32_t i) { set[i >> 6] |= (uint64_t)1 << (i & 63); }

/* States that may end a hole. */
static inline bool tt_ends_at(const tt_grammar *g, int32_t state, bool ends)
{
    return tt_bit(g->accept, state) || (ends && state == g->states - 1);
}

/* to: states that some state of from[] leads to by one token. */
void tt_step_forward(const tt_grammar *g, const uint64_t *from, uint64_t *to);
/* from: states that lead to some state of to[] by one token. */
void tt_step_back(const tt_grammar *g, const uint64_t *to, uint64_t *from);

#endif
