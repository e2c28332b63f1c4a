/* search.h - test-time search: spend passes on many candidates, keep those a verifier likes.
 *
 * A search grows token sequences coarse to fine. Where the sequence is ordered (any prefix decodes
 * to something that can be scored) bad candidates end early. The search itself runs nothing: it
 * gives orders - extend these sequences, score these - and whoever carries them out gives back
 * what came of it; so candidates are ordinary sequences of the scheduler, and every rule here can
 * be tested on numbers alone.
 *
 *   best_of    N whole sequences, each scored once
 *   beam       at each count of the schedule every beam gets candidates; the best `beams` go on
 *   lookahead  beam, but what is scored is each candidate extended greedily by some tokens
 *
 * Candidates are ordered by score, falling, then by index. (Rules of the search-over-tokens code,
 * 2026; what differs is said where it does.) */
#ifndef TT_SEARCH_H
#define TT_SEARCH_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/err.h"

typedef struct tt_search tt_search;

typedef enum { TT_SCHEDULE_GEOMETRIC, TT_SCHEDULE_LINEAR, TT_SCHEDULE_FIXED } tt_schedule_kind;

enum { TT_MAX_SEARCH_STEPS = 1024, TT_MAX_SEARCH_POOL = 65536 };

/* How many tokens a sequence has after each step: min(floor(base^i), length),
 * min(per_step (i + 1), length) or min(i + 1, length), i = 0 .. steps - 1; or the list, its
 * entries cut to length. */
typedef struct {
    tt_schedule_kind kind;
    double base;       /* geometric, above 1 */
    int32_t per_step;  /* linear, at least 1 */
    int32_t steps;     /* at most TT_MAX_SEARCH_STEPS */
    const int32_t *list; /* not NULL: these counts, ascending; `steps` of them */
} tt_schedule;

/* Writes schedule->steps counts. TT_EINVAL naming the field ("search.schedule.base"). */
tt_status tt_schedule_counts(int32_t *count, const tt_schedule *schedule, int32_t length,
                             tt_err *e);

/* An algorithm of the table. */
typedef struct {
    const char *name, *summary, *source;
    bool by_steps; /* it prunes along a schedule; else whole sequences compete */
    bool ahead;    /* it scores what greedy decoding would make of a candidate */
} tt_search_def;

/* Every algorithm, NULL-terminated; and by name (NULL when unknown). */
const tt_search_def *const *tt_search_all(void);
const tt_search_def *tt_search_find(const char *name);

typedef struct {
    const tt_search_def *algorithm;
    int32_t length;     /* tokens of a whole sequence */
    int32_t samples;    /* best_of: N */
    int32_t beams;      /* sequences that go on after a step */
    int32_t candidates; /* of each beam and step */
    bool fill_first;    /* the first step makes beams x candidates of the one empty sequence */
    tt_schedule schedule;
    int32_t ahead;      /* lookahead: tokens added before scoring; -1: up to the whole length */
    int32_t ahead_steps; /* lookahead at the first so many steps alone; -1: at all */
    int32_t results;    /* sequences wanted in the end, at least 1 */
    bool complete;      /* the results are extended greedily to the whole length, scored again
                           and ordered by the new scores (the released code leaves their order) */
    bool sample;        /* candidates are drawn; else the most probable last tokens */
    const int32_t *given; /* given_rows x givens: beginnings to search from, whose tokens count
                             beside the schedule's; or NULL */
    int32_t givens, given_rows;
} tt_search_spec;

/* A sequence in the search. Its tokens stay where they are until it is dropped. */
typedef struct {
    const int32_t *token;
    int32_t tokens;
    const int32_t *shown; /* what is decoded to be scored: the tokens, or the tokens and those that
                             looking ahead or completing added */
    int32_t showns;
    float logprob; /* of the tokens added by the last extension */
    float score;
} tt_candidate;

typedef enum {
    TT_ORDER_EXTEND, /* every sequence by `add` tokens, in `each` ways that differ at the last;
                        behind what is shown when rollout is set, else behind its tokens */
    TT_ORDER_SCORE,  /* score what every sequence shows */
    TT_ORDER_DONE,   /* the results are final */
} tt_order_kind;

/* What is to be done next. The sequences stay valid until the answer is given. */
typedef struct {
    tt_order_kind kind;
    int32_t step; /* counts from 0; the final scoring has the number of steps */
    const tt_candidate *sequence;
    int32_t sequences;
    int32_t add, each; /* TT_ORDER_EXTEND */
    bool sample;       /* draw tokens; else the most probable ones (the last: the `each` best) */
    bool rollout;      /* extensions that end with the scoring: they must not use up the search's
                          random numbers */
    bool own_noise;    /* TT_ORDER_SCORE: each candidate is decoded with noise of its own; else
                          all with the same */
} tt_search_work;

/* Copies the spec's lists. TT_EINVAL naming the field ("search.beam_width"), TT_ENOMEM. */
tt_status tt_search_open(tt_search **out, const tt_search_spec *spec, tt_err *e);
void tt_search_close(tt_search *s); /* NULL is fine */

/* The order to carry out now; the same until it is answered. */
const tt_search_work *tt_search_order(const tt_search *s);
/* Answers TT_ORDER_EXTEND: `sequences` x `each` rows of `add` tokens and the log-probability of
 * each row's tokens, parent by parent. */
tt_status tt_search_extended(tt_search *s, const int32_t *token, const float *logprob, tt_err *e);
/* Answers TT_ORDER_SCORE. A score that is not a number counts as the lowest. */
tt_status tt_search_scored(tt_search *s, const float *score, tt_err *e);
/* Ends the search early, with what has been scored so far as its results. */
void tt_search_stop(tt_search *s);

/* Best first, at most `results`: of the last pool that was scored. Returns how many. */
int32_t tt_search_results(const tt_search *s, const tt_candidate **out);

#endif
