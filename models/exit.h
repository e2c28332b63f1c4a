/* exit.h - when recurrent depth may stop recurring: rules that look at a sequence after a
 * recurrence (Geiping et al., arXiv 2502.05171, section on per-token adaptive compute).
 *
 * A rule is a const struct in exit.c's table. It turns what it sees into one value and compares it
 * with a threshold; what the check before saw is in its memory. */
#ifndef TT_EXIT_H
#define TT_EXIT_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/ops.h"
#include "models/decider.h"


/* What a rule can ask for. */
enum {
    TT_EXIT_STATES = 1 << 0, /* moved, turned */
    TT_EXIT_LOGITS = 1 << 1, /* logits of the last row */
    TT_EXIT_LATENT = 1 << 2, /* latent: the last row as the coda gets it; and the model's decider */
};

typedef struct {
    double moved;  /* mean over the rows of |s - s'| / |s|, s' the state at the check before, first
                      the initial state */
    double turned; /* 1 - mean cosine(s, s') */
    const float *logits; /* [vocab] */
    int64_t vocab;
    const float *latent; /* [width] */
    const tt_decider *decider;
} tt_exit_sight;

/* A sequence's, from check to check of one pass; zeroed before the first. */
typedef struct {
    int32_t checks, argmax, count;
    double entropy;
    float *row; /* [vocab], for rules with TT_EXIT_LOGITS: theirs to use */
} tt_exit_memory;

typedef struct tt_exit_rule {
    const char *name;    /* as in requests */
    const char *summary;
    double threshold;    /* default */
    uint32_t needs;      /* TT_EXIT_* */
    bool rising;         /* exit when value >= threshold; else when value < threshold */
    double (*value)(tt_exit_memory *m, const tt_exit_sight *s);
} tt_exit_rule;

/* Every rule, NULL-terminated; "none", which never stops, has no value(). */
const tt_exit_rule *const *tt_exit_all(void);
const tt_exit_rule *tt_exit_find(const char *name); /* NULL when unknown */

#endif
