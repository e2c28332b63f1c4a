/* read.h - what the endpoints share that measure texts instead of writing them. */
#ifndef TT_API_READ_H
#define TT_API_READ_H

#include "server/api/gen_parts.h"
#include "samplers/read.h"

/* --- scoring (score.c) --- */

/* "monte_carlo", ... */
const char *tt_score_name(tt_score_method m);
/* Adds columns to be scored, as open columns with a draft. */
tt_status tt_canvas_add_target(const tt_gen *g, tt_canvas *c, const int32_t *id, size_t n,
                               const char *path, tt_err *e);
/* Columns of the canvas to be scored. */
int32_t tt_canvas_targets(const tt_canvas *c);
/* Sets sampler and samples for a canvas that is complete. */
void tt_canvas_score(const tt_gen *g, tt_canvas *c, tt_score_method m, int32_t samples);

typedef struct {
    double logprob, standard_error; /* NaN: one sample tells no error */
    int32_t tokens;
    double *token; /* per target, left to right; sums to logprob. The caller frees it */
} tt_score;

/* From the finished views of all samples of a canvas. */
tt_status tt_score_sum(const tt_gen *g, const tt_canvas *c, const tt_choice *sample,
                       tt_score_method m, tt_score *out, tt_err *e);
/* exp(logprob) of each among all, without overflow. */
void tt_score_share(const double *logprob, int n, double *share);

/* --- encoding (encode.c) --- */

/* Sets g->reading from the body's `tutti`. */
tt_status tt_encode_read(tt_gen *g, const cJSON *body, tt_err *e);
/* One canvas for a text, or for ids when text is NULL. */
tt_status tt_encode_add(tt_gen *g, bool passage, const char *text, const tt_ids *ids,
                        const char *path, tt_err *e);

/* Vectors of a finished choice that count: all, or with k those before the first special token. */
int32_t tt_encode_count(const tt_gen *g, const tt_choice *c);
/* Vector i of the choice, its first `width` numbers, of length 1 unless raw. */
void tt_encode_vector(const tt_choice *c, int32_t i, int64_t width, bool raw, float *out);
/* The one vector of a choice: of several, the mean of those that count, each of length 1. */
void tt_encode_single(const tt_gen *g, const tt_choice *c, int64_t width, bool raw, float *out);
/* Likeness of two texts: the cosine, or with several vectors the sum over those of the query of
 * the greatest product with any of the passage, where that is above 0. NaN: out of memory. */
double tt_encode_likeness(const tt_gen *g, const tt_choice *query, const tt_choice *passage);

/* Ids of the words of a text that a sparse vector may weigh, ascending, none twice: lower-case
 * words without stop words and punctuation, each tokenized by itself. */
tt_status tt_terms(const tt_tok *tok, const char *text, tt_ids *out, tt_err *e);

/* --- both --- */

/* A text or its ids from a body: TT_EINVAL when the node is neither. Exactly one of *text and
 * ids is given afterwards. */
tt_status tt_read_text_or_ids(const tt_gen *g, const cJSON *node, const char *path,
                              const char **text, tt_ids *ids, tt_err *e);
/* Members every answer ends with: usage and `tutti` (nfe, time). */
void tt_read_write_end(const tt_gen *g, tt_json *w);

#endif
