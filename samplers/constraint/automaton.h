/* automaton.h - a regular expression as a deterministic automaton over bytes; inside of
 * samplers/constraint. */
#ifndef TT_AUTOMATON_H
#define TT_AUTOMATON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

enum { TT_MAX_NODES = 1 << 16, TT_MAX_STATES = 2048, TT_NO_STATE = 0xFFFF };

/* --- regex.c: the expression as a nondeterministic automaton (Thompson's construction) --- */

/* Without input to eps[], with a byte in lo..hi to `to`; -1: none. */
typedef struct {
    int32_t eps[2], to;
    uint8_t lo, hi;
} tt_node;

typedef struct {
    tt_node *node;
    int32_t nodes, room, start, accept;
} tt_nfa;

tt_status tt_nfa_open(tt_nfa *out, const char *regex, size_t bytes, tt_err *e);
void tt_nfa_close(tt_nfa *n);

/* --- dfa.c: subsets of its nodes, then as few states as there can be --- */

typedef struct {
    int32_t states, start;
    uint16_t *next;  /* states x 256; TT_NO_STATE where nothing matches any more */
    uint8_t *accept; /* per state */
} tt_dfa;

tt_status tt_dfa_open(tt_dfa *out, const tt_nfa *n, tt_err *e);
void tt_dfa_close(tt_dfa *d);

#endif
