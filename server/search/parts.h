/* parts.h - the inside of a search over images (picture_search.h), shared by its files.
 *
 * picture_search.c goes from order to order. What it does that with:
 *
 *   fit.c      what the request's rules come to for the model, and what it refuses
 *   budget.c   how many candidates there are at a time, what they take, when it is too much
 *   nodes.c    the sequences made so far
 *   pieces.c   the runs that carry out an order
 *   extend.c   orders to extend: their pieces, and the answer
 *   score.c    orders to score: the pictures, the jurors, the answer
 *   program.c  jurors that are programs
 *   report.c   what is told about the search while it runs
 *
 * Functions of the engine's thread; others read the report alone, under its lock. tt_ps_ stands
 * for a tt_picture_search seen from inside. */
#ifndef TT_SEARCH_PARTS_H
#define TT_SEARCH_PARTS_H

#include <pthread.h>

#include "server/picture_search.h"

/* --- the sequences: nodes.c --- */

/* A sequence of the search: a candidate, what several have in common, or what looking ahead made
 * of a candidate. */
typedef struct {
    int32_t parent;     /* number of the one it goes on from; -1: the empty one */
    tt_picture_run run; /* parked; its arena is empty until it came */
    uint8_t *rgb;       /* its picture, once decoded */
    float each[TT_MAX_JURY]; /* what the jurors thought of that */
    bool there, marked; /* its run came; it stays in the race */
} tt_node;

/* By number. A number is never given twice; what was dropped is NULL. */
typedef struct {
    tt_node **list;
    int32_t n, room;
} tt_nodes;

/* A new one, still empty. TT_ENOMEM. */
tt_status tt_nodes_add(tt_nodes *all, int32_t parent, int32_t *number, tt_err *e);
/* Moves a run that has ended into the node; *r is empty afterwards. */
void tt_node_put(tt_node *n, tt_picture_run *r);
/* Marks none; marks those that n candidates hold or show; frees those that are not marked. */
void tt_nodes_unmark(tt_nodes *all);
void tt_nodes_mark(tt_nodes *all, const tt_candidate *c, int32_t n);
void tt_nodes_sweep(tt_nodes *all);
void tt_nodes_clear(tt_nodes *all);
/* Tokens a sequence has by now, and the sum of their log-probabilities. */
int32_t tt_node_tokens(const tt_node *n);
float tt_node_logprob(const tt_node *n);

/* --- the runs of an order: pieces.c --- */

typedef struct {
    int32_t node, from; /* the node it makes, or decodes; the one it goes on from; -1: none */
    int32_t steps, way, ways; /* as in tt_picture_run_spec */
    uint32_t sample;
    bool greedy, decode;
} tt_search_piece;

typedef struct {
    tt_search_piece *list;
    int32_t n, room;
    int32_t answered; /* taken or lost */
} tt_search_pieces;

typedef enum {
    TT_PS_ORDER,   /* the order is to be read */
    TT_PS_TRUNK,   /* what candidates of one parent have in common is being made */
    TT_PS_GROW,    /* the order's candidates are */
    TT_PS_SHOW,    /* pictures are decoded, then scored */
    TT_PS_RESULTS, /* the same for those who only give their opinion of the results */
    TT_PS_OVER,
} tt_ps_phase;

struct tt_picture_search {
    tt_picture_search_spec spec;
    char *prompt;
    tt_picture_run_spec run;
    tt_params greedy;
    tt_picture_spec decoding;
    int32_t steps; /* of a whole image */
    tt_search *rules;
    tt_ps_phase phase;
    tt_err failure;
    int64_t began_ns; /* first piece; 0: not yet */

    tt_nodes nodes;
    tt_search_pieces pieces;
    int32_t *made; /* nodes of the order being carried out, one per row */
    int32_t trunk; /* number of the first one of the order */

    /* What is shown and scored: of the order, or the results. */
    const tt_candidate *seen;
    int32_t n_seen;
    int32_t *show; /* nodes with their pictures */
    /* Jurors speak one after the other. */
    void *prepared[TT_MAX_JURY];
    float *score[TT_MAX_JURY];
    int juror;
    int32_t at;                   /* scored by this juror */
    int32_t at_once[TT_MAX_JURY]; /* pictures of a turn; 0: not known yet */
    tt_scoring *asked;            /* the program that is being asked, or NULL */

    pthread_mutex_t lock; /* of the report */
    tt_search_report report;
};

/* The list with room for one more behind its n entries of `size` bytes; NULL without memory, the
 * old one stays then. */
void *tt_ps_one_more(void *list, int32_t n, int32_t *room, size_t size);

/* TT_ENOMEM. */
tt_status tt_ps_piece_add(tt_picture_search *s, tt_search_piece p, tt_err *e);
void tt_ps_no_pieces(tt_picture_search *s);
/* How a piece that makes tokens is run. The spec leads into the search. */
tt_picture_run_spec tt_ps_piece_spec(const tt_picture_search *s, const tt_search_piece *p);

/* --- facts --- */

static inline bool tt_ps_masked(const tt_picture_search *s)
{
    return s->run.generator->info.kind == TT_GENERATES_MASKED;
}

/* One token at a time. */
static inline bool tt_ps_single(const tt_picture_search *s)
{
    return s->run.generator->info.kind == TT_GENERATES_NEXT;
}

static inline size_t tt_ps_picture_bytes(const tt_picture_search *s)
{
    const tt_codec_info *c = &s->run.codec->info;
    return (size_t)c->width * (size_t)c->height * 3;
}

/* The number of the node that a candidate's tokens, or what it shows, end in: all their tokens in
 * the rules are numbers of nodes. -1: the empty one. */
static inline int32_t tt_ps_held(const tt_candidate *c)
{
    return c->tokens ? c->token[c->tokens - 1] : -1;
}

static inline int32_t tt_ps_shown(const tt_candidate *c)
{
    return c->showns ? c->shown[c->showns - 1] : -1;
}

/* --- fit.c --- */

/* Fits the rules to the model and opens them. TT_EINVAL naming the field. */
tt_status tt_ps_fit(tt_picture_search *s, tt_err *e);
/* Whether any of those that have a say, or have none, looks at pictures. */
bool tt_ps_judges_pictures(const tt_picture_search *s, bool say);

/* --- budget.c --- */

/* Candidates at a time; and those of the first step: results are never more. */
int64_t tt_ps_pool(const tt_search_spec *p);
int64_t tt_ps_first_pool(const tt_search_spec *p);
/* Whether the candidates of a parent differ in the last step alone, and have the others in common.
 * Of masked images they go their own ways from the first step on: the last one, whose temperature
 * is near 0, would leave them all the same. */
bool tt_ps_splits(const tt_picture_search *s, const tt_search_work *o);
/* As many samples as the budget of forwards allows; before the rules are open. */
tt_status tt_ps_fit_budget(tt_picture_search *s, tt_err *e);
/* Whether the first step fits the budget; once they are. */
tt_status tt_ps_check_budget(const tt_picture_search *s, tt_err *e);
/* Whether the order would go beyond the budget. */
bool tt_ps_spent(const tt_picture_search *s, const tt_search_work *o);

/* --- extend.c --- */

/* Pieces for what the candidates of each parent have in common: all steps but the last. */
tt_status tt_ps_make_trunks(tt_picture_search *s, const tt_search_work *o, tt_err *e);
/* For the last step of every candidate, or for all steps where each parent has one. */
tt_status tt_ps_make_rows(tt_picture_search *s, const tt_search_work *o, tt_err *e);
/* Tells the rules what came of them. */
tt_status tt_ps_answer_rows(tt_picture_search *s, tt_err *e);

/* --- score.c, program.c --- */

/* Pieces for the pictures of n candidates that are not there yet, where they are wanted. */
tt_status tt_ps_show(tt_picture_search *s, const tt_candidate *c, int32_t n, bool pictures,
                     tt_ps_phase next, tt_err *e);
/* Scores a bounded number of pictures by the jurors that have a say, or at the end by those that
 * have none and are only asked for their opinion of the results. *all: they have seen all.
 * *waits: for a program's answer. */
tt_status tt_ps_score(tt_picture_search *s, bool say, bool *all, bool *waits, tt_err *e);
/* Tells the rules, once all jurors have spoken, and frees what did not stay in the race. */
tt_status tt_ps_judge(tt_picture_search *s, tt_err *e);
/* Has the program score all that is shown, in several calls: *waits until its answer is there. */
tt_status tt_ps_ask_program(tt_picture_search *s, const tt_scorer *scorer, bool *waits, tt_err *e);

/* --- report.c --- */

/* Adds to one of the report's counters. */
void tt_ps_count(tt_picture_search *s, int64_t *counter, int64_t more);
/* The search ends, or has fewer candidates, because its budget did. */
void tt_ps_tell_budget(tt_picture_search *s);
/* A stage was scored: of these nodes, marked where they go on. TT_ENOMEM. */
tt_status tt_ps_tell_stage(tt_picture_search *s, const int32_t *index, const float *score,
                           int32_t n, int32_t step, int32_t tokens, tt_err *e);
tt_status tt_ps_tell_results(tt_picture_search *s, tt_err *e);
/* Since the first piece; 0 before. */
double tt_ps_elapsed_ms(const tt_picture_search *s);

#endif
