/* fit.h - a text with holes before its canvas is made, and what must be found out for that.
 *
 * A hole whose length may vary, or that takes one of some texts, is fitted first, from left to
 * right, by the model's own likelihood; nothing is random in it:
 *
 *   choices   every text is put in and scored: the chain rule over its tokens, left to right, with
 *             all other holes masked. The likeliest is taken.
 *   length    with text behind the hole, every length from min to max is tried: the hole masked,
 *             and the first tokens behind it scored likewise. The tokens are the same whatever the
 *             length, so with no preference beforehand the likeliest length is the one under which
 *             they are likeliest. With nothing behind it the hole is not fitted: it is filled at
 *             its greatest length and ends at the model's own end-of-text, not before min.
 *
 * Holes fitted later stand at their greatest length meanwhile. */
#ifndef TT_FIT_H
#define TT_FIT_H

#include "server/api/gen_parts.h"

enum { TT_FIT_TOKENS = 4, TT_FIT_CANDIDATES = 256 };

/* Rules of a hole's positions, counted from its beginning. */
typedef struct {
    tt_column_rule *rule; /* ids live as long as the request */
    int32_t rules;
    int32_t *force; /* pairs of position and id */
    int32_t forces;
} tt_positions;

/* Reads `force`, `ban` and `allow` of an object: {"0": id, "text" or a list of them}, positions
 * below `tokens`. path: of the object. Missing members are fine. */
tt_status tt_positions_read(tt_gen *g, const cJSON *object, const char *path, int64_t tokens,
                            tt_positions *out, tt_err *e);
void tt_positions_free(tt_positions *p);
/* Puts them on columns [begin, begin + tokens) of a canvas. */
tt_status tt_positions_apply(const tt_positions *p, tt_canvas *c, int32_t begin, int32_t tokens,
                             tt_err *e);
/* Bans ids at columns [begin, end). ids must live as long as the request. */
tt_status tt_canvas_ban(tt_canvas *c, int32_t begin, int32_t end, const int32_t *id, int32_t n,
                        tt_err *e);

/* A piece of the text. */
typedef struct {
    bool hole;
    const char *text; /* literal shown in the answer, or NULL: not shown */
    tt_ids ids;       /* its tokens; of a hole with choices: of the one taken */
    const char *id;   /* of the hole */
    int64_t min, max; /* tokens; equal once fitted */
    const char *const *choice; /* the texts, kept for the life of the request */
    tt_ids *choice_ids;
    int choices;
    tt_positions positions;
    tt_grammar *form; /* of a hole: what its text matches, or NULL; the slot's */
    const char *form_path;
    tt_ids predicted; /* of a hole: what it is expected to become */
    double *score; /* of every candidate, when it was fitted */
    int candidates, best;
    int64_t first; /* tokens of candidate 0 */
} tt_slot;

/* Begins a text; g->fit holds it. */
tt_status tt_fit_open(tt_gen *g, tt_err *e);
/* A new slot at the end, to be filled in; NULL with *e set. */
tt_slot *tt_fit_add(tt_gen *g, tt_err *e);
/* Refuses a text that may be too long so far; path: the field to blame. */
tt_status tt_fit_check(const tt_gen *g, const char *path, tt_err *e);
/* The text is complete: makes the canvas at once when nothing is to be fitted. */
tt_status tt_fit_close(tt_gen *g, tt_err *e);

/* The slot of a hole by its id, or NULL. */
const tt_slot *tt_fit_hole(const tt_gen *g, const char *id);
/* Passes spent on fitting. */
int64_t tt_fit_nfe(const tt_gen *g);
/* Members of a hole's answer that tell what was considered. */
void tt_fit_write(const tt_slot *s, tt_json *w);

#endif
