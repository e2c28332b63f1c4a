/* constraint.h - holes whose text must match a regular expression, filled in any order.
 *
 * A grammar is a deterministic automaton over bytes, lifted to a model's tokens: token t leads from
 * state s to the state that its bytes lead to. Tokens that lead from everywhere to the same states
 * form a class, so a step looks at some dozens of classes instead of the vocabulary.
 *
 * A hole of n columns matches if its tokens lead from the start to an accepting state. With some
 * columns filled, F[c] are the states that some tokens left of column c lead to, and B[c] those
 * from which some tokens from c on lead to acceptance (filled columns count with their own token
 * alone). A token may stand at column c iff it leads from a state in F[c] to one in B[c + 1]; then
 * there is a matching text with it. So before each step every open column gets the list of such
 * tokens, and when a step commits several of them, each is looked at again in view of those
 * committed before it; one that does not go with them stays open (samplers/seq.c). The first never
 * fails. So whatever order a sampler fills columns in, a hole always can be, and in the end does
 * match, and what is drawn is drawn from the model's distribution over what is possible there.
 *
 * At the end of an answer (tt_constraint.ends) stop tokens may follow the text: they lead from
 * accepting states to one of their own, and from that to itself. */
#ifndef TT_CONSTRAINT_H
#define TT_CONSTRAINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "samplers/sampler.h"

typedef struct tt_grammar tt_grammar;

/* The tokens of a model. */
typedef struct {
    int32_t vocab;
    /* Bytes that an id adds to a text; NULL: it cannot stand in one. */
    const char *(*piece)(const void *arg, int32_t id, size_t *bytes);
    const void *arg;
    const int32_t *stop; /* ids that end an answer; their pieces play no part */
    int stops;
} tt_alphabet;

/* The text must match as a whole. Syntax: literals, escapes (\d \w \s and capitals, \n \t \r \f \v
 * \0 \xHH \uHHHH, \ before a sign), [classes], ., |, groups, * + ? {m} {m,} {m,n}; ^ and $ at the
 * ends are allowed and mean nothing. Characters are Unicode code points. TT_EINVAL says what is not
 * understood and where, or that the automaton is too large. One reference belongs to the caller. */
tt_status tt_grammar_open(tt_grammar **out, const char *regex, size_t bytes, const tt_alphabet *a,
                          tt_err *e);
/* Another reference; thread-safe, as is all reading. */
tt_grammar *tt_grammar_share(tt_grammar *g);
void tt_grammar_close(tt_grammar *g); /* one reference less; NULL is fine */
/* True when some text of exactly so many tokens matches; with `ends` also a shorter one. */
bool tt_grammar_fits(const tt_grammar *g, int32_t tokens, bool ends);
int32_t tt_grammar_states(const tt_grammar *g);
/* A text token by token: the state before it, the one behind a token (-1: nothing matches any more)
 * and whether a text may end there. */
int32_t tt_grammar_start(const tt_grammar *g);
int32_t tt_grammar_next(const tt_grammar *g, int32_t state, int32_t id);
bool tt_grammar_accepts(const tt_grammar *g, int32_t state);

/* Columns [begin, end) under a grammar. */
typedef struct {
    int32_t begin, end;
    tt_grammar *grammar;
    bool ends; /* stop tokens may stand behind the text */
} tt_constraint;

/* --- one sequence's state --- */

typedef struct tt_reach tt_reach;

/* Bytes of arena for the state of these spans. */
size_t tt_reach_bytes(const tt_constraint *span, int32_t spans);
/* Bytes of step arena for the lists of allowed ids, at most, for a vocabulary and a list of biases
 * of these sizes. */
size_t tt_reach_step_bytes(const tt_constraint *span, int32_t spans, int32_t vocab, int32_t n_bias,
                           int32_t columns);
/* Takes it from q->arena and looks at the canvas as it is. TT_EINVAL when nothing matches. */
tt_status tt_reach_begin(tt_seq *q, const tt_constraint *span, int32_t spans, tt_err *e);
/* True when the id may stand at the column beside all that is filled now, whatever the column
 * itself holds. True outside of spans. */
bool tt_reach_admits(const tt_seq *q, int32_t column, int32_t id);
/* The column was filled, changed or opened. */
void tt_reach_update(tt_seq *q, int32_t column);
/* Puts what may stand at the column of each of the plan's asks into its draw, as a list of ids
 * allowed or, where that is shorter, banned. Lists are of the plan's arena, shared by asks alike. A
 * shadow stands under the rules of its column. */
tt_status tt_reach_constrain(const tt_seq *q, tt_plan *plan, tt_err *e);

#endif
