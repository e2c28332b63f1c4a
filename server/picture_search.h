/* picture_search.h - a search over images in flight: what carries out the orders of
 * samplers/search.h with sequences of the scheduler.
 *
 * An order becomes pieces of work, each an ordinary tt_picture_run: some steps of a candidate that
 * goes on from a copy of its parent's state, or the decoding of what a candidate shows. The
 * scheduler starts pieces as it starts the samples of other jobs, so they share passes with
 * everybody's and wait their turn. Between orders the verifiers score, some pictures a turn; what
 * did not stay in the race is freed at once.
 *
 * Lengths in the search are counted in steps of the generator: tokens of one that gives them
 * singly, levels of one that gives levels, steps of one that unmasks. A candidate is what a decoder
 * makes of the tokens it has: of a prefix where the codec decodes those, of a masked image's most
 * likely tokens where they are still hidden, else of its greedy completion.
 *
 * Candidates of one parent differ in the last step alone, as in the released code; those of masked
 * images from the first on.
 *
 * A candidate's random numbers are those of (seed, its number in the search); its number depends on
 * the scores alone. Of best of N candidate i is the i-th image of an ordinary request.
 *
 * Engine's thread, except open, close and the report. */
#ifndef TT_PICTURE_SEARCH_H
#define TT_PICTURE_SEARCH_H

#include <stdatomic.h>

#include "samplers/search.h"
#include "samplers/verifier.h"
#include "server/picture_run.h"
#include "server/scorer.h"

typedef struct tt_picture_search tt_picture_search;

enum { TT_MAX_JURY = 8, TT_MAX_CANDIDATES = 4096 };

/* One who scores. */
typedef struct {
    char name[64];
    tt_verifier *verifier;   /* a network, or */
    const tt_scorer *scorer; /* a program; neither: the mean log-probability of the tokens so far */
    double weight;           /* 0: has no say; asked at the end what it thinks of the results */
} tt_juror;

typedef struct {
    tt_search_spec rules; /* length and the schedule's list aside, counts in tokens; both lengths of
                             looking ahead in steps */
    bool uniform;         /* tokens come from a uniform draw: the generator only completes */
    tt_juror juror[TT_MAX_JURY];
    int jurors;
    tt_mix_rule mix;              /* of several */
    const char *prompt;           /* for the verifiers */
    int64_t max_forwards, max_ms; /* 0: none */
} tt_picture_search_spec;

/* --- what became of it, for whoever asked --- */

typedef struct {
    int32_t index, parent; /* number of the candidate; -1: of none */
    float score;
    bool kept;
} tt_search_entry;

typedef struct {
    int32_t step, tokens;
    size_t first, entries;
} tt_search_stage;

typedef struct {
    int32_t index;
    float score, each[TT_MAX_JURY]; /* in the order of the jurors */
} tt_search_result;

typedef struct {
    tt_search_stage *stage; /* scored so far */
    size_t stages;
    tt_search_entry *entry;
    size_t entries;
    tt_search_result *result; /* at the end, best first */
    size_t results;
    int64_t forwards;                    /* steps of candidates */
    int64_t decoded, scored, candidates; /* pictures, pictures, sequences made */
    double ms;
    bool budget;   /* it ended because its budget did */
    uint8_t *picture; /* of the last stage, height x width x 3 each: the best, as many as the job
                         wants previews, best first */
    int32_t *pictured; /* their numbers */
    size_t pictures, picture_bytes;
} tt_search_report;

void tt_search_report_free(tt_search_report *r);
/* Copies what is known; true when there are more stages, or results, than *out had. Any thread. */
bool tt_picture_search_report(tt_picture_search *s, tt_search_report *out);

/* --- running it --- */

/* run: of the job; its sample, steps and ways are set here. The spec is copied, the prompt too.
 * TT_EINVAL naming the field ("search.beam_width"). */
tt_status tt_picture_search_open(tt_picture_search **out, const tt_picture_search_spec *spec,
                                 const tt_picture_run_spec *run, tt_err *e);
void tt_picture_search_close(tt_picture_search *s); /* NULL is fine */
/* Frees all candidates; what is left needs no device. */
void tt_picture_search_clear(tt_picture_search *s);
/* Host and device memory of its candidates at most. */
size_t tt_picture_search_bytes(const tt_picture_search *s);
/* No order has more pieces than this. */
int32_t tt_picture_search_widest(const tt_picture_search *s);

/* Pieces of the present order; none is left when as many were taken or lost. */
int32_t tt_picture_search_pieces(const tt_picture_search *s);
bool tt_picture_search_idle(const tt_picture_search *s);
tt_status tt_picture_search_start(tt_picture_search *s, int32_t piece, tt_picture_run *r,
                                  tt_err *e);
/* Takes over what came of the piece; *r is empty afterwards. */
void tt_picture_search_take(tt_picture_search *s, int32_t piece, tt_picture_run *r);
/* A piece failed: so does the search. */
void tt_picture_search_fail(tt_picture_search *s, const tt_err *e);

/* Whole samples that have not begun are left out when the search's time is over and so many pieces,
 * as many as results are wanted, have: true when there are no more than those now. */
bool tt_picture_search_curtail(tt_picture_search *s, int32_t begun);

typedef enum {
    TT_SEARCH_PIECES, /* there are new pieces to run */
    TT_SEARCH_AGAIN,  /* some was scored: ask again at the next turn */
    TT_SEARCH_WAITS,  /* for the answer of a program: ask again in a while */
    TT_SEARCH_OVER,   /* the results are there */
} tt_search_next;

/* When idle, with the device held. */
tt_status tt_picture_search_next(tt_picture_search *s, tt_search_next *next, tt_err *e);

/* The i-th best: its tokens, and its picture unless none was wanted. NULL: there are fewer. */
const tt_picture_run *tt_picture_search_result(const tt_picture_search *s, int32_t i,
                                               const uint8_t **rgb);

/* Candidates whose state is on the device, of all searches: for tests and metrics. */
int64_t tt_picture_search_alive(void);

#endif
