/* depth.h - recurrent depth: what a sequence says about the recurrences of its rows in a pass, and
 * the latent states it keeps between passes.
 *
 * A model with TT_KIND_RECURRENT maps tokens to an input embedding e (prelude), applies a small
 * core to a latent state s again and again, each time reading e, and maps the last state to logits
 * (coda): Geiping et al., arXiv 2502.05171. How often is each sequence's own choice, and so is
 * where its states begin, what they are compared with and what is kept of them. */
#ifndef TT_DEPTH_H
#define TT_DEPTH_H

#include "models/exit.h"
#include "models/model.h"

enum { TT_MAX_RECURRENCE = 512 };

/* --- keys and values of the core --- */

/* Which entry of a core layer a recurrence reads of a column that was run less often than the
 * recurrence needs. Columns that have their own are read there, unless any of the sequence's lacks
 * it and the look-up says otherwise. */
typedef enum {
    TT_LOOKUP_LATEST,  /* the column's last one */
    TT_LOOKUP_PRESENT, /* none: attention leaves the column out */
    TT_LOOKUP_LAST,    /* where any column lacks its own, the last one of every column */
    TT_LOOKUP_RANDOM,  /* any of the column's that is not later, by chance of the seed */
} tt_kv_lookup;

/* The core layers of a store keep `entries` keys and values per column: recurrence t writes entry t
 * mod entries, or, anchored, the last entry from recurrence entries - 1 on. */
typedef struct {
    int32_t entries; /* at least 1 */
    bool anchored;
    tt_kv_lookup lookup;
} tt_kv_sharing;

tt_status tt_kv_open_shared(tt_kv **out, tt_model *m, int32_t columns,
                            const tt_kv_sharing *sharing, tt_err *e);

/* --- states of one sequence (models/latent.c) --- */

/* Planes of rows by column, in device memory; a column's row lies at column mod `columns`. */
typedef enum { TT_LATENT_STATE, TT_LATENT_EMBED, TT_LATENT_PAST, TT_LATENT_PLANES } tt_latent_plane;

typedef struct {
    int32_t columns; /* that can be held at a time; 0: nothing is kept */
    bool embeds;     /* TT_LATENT_EMBED is there */
    bool past;       /* TT_LATENT_PAST is there */
} tt_latent_size;

typedef struct tt_latents tt_latents;
tt_status tt_latents_open(tt_latents **out, tt_model *m, const tt_latent_size *size, tt_err *e);
void tt_latents_close(tt_latents *l); /* NULL is fine */
size_t tt_latents_bytes(const tt_model *m, const tt_latent_size *size);
int32_t tt_latents_columns(const tt_latents *l); /* 0 for NULL */
/* NULL where l is NULL or has no such plane. */
tt_act *tt_latent_row(const tt_latents *l, tt_latent_plane plane, int32_t column);

/* --- a sequence's part of a pass --- */

typedef enum {
    TT_DRAW_INITIAL, /* states that begin here */
    TT_DRAW_NOISE,   /* what is mixed into states before the first recurrence */
} tt_draw_purpose;

/* Takes the place of the random numbers: fills rows x width floats for the columns from `column`
 * on. For replays. */
typedef void tt_draw_state(void *arg, tt_draw_purpose purpose, int32_t column, int64_t rows,
                           float *out);

/* How far a row's state moved, relative to its norm: with s the state after the last recurrence,
 * b(i) the state that the sequence's row i began this pass with (before noise), and p(c) what the
 * past plane holds for column c. */
typedef enum {
    TT_MOVE_NONE,
    TT_MOVE_STATE,        /* |s - b(against)| / |s| */
    TT_MOVE_ACCELERATION, /* |d - p(before)| / |s|, d = s - b(against), which p keeps */
    TT_MOVE_CURVATURE,    /* |s - 2 b(against) + p(before)| / (|s| + 1e-6); p keeps b */
} tt_move;

/* One row. */
typedef struct {
    int32_t from;                 /* column whose kept state it begins with; -1: a fresh one */
    float noise_keep, noise;      /* s = noise_keep s + noise (fresh state) before recurring */
    float embed_new, embed_old;   /* e = embed_new e + embed_old (embedding kept for its column) */
    int32_t against, before;      /* see tt_move; -1: there is none, and its move is infinite */
} tt_depth_row;

typedef struct {
    double value;
    bool exited;
} tt_exit_check;

typedef struct tt_depth {
    int32_t recurrences; /* 1..TT_MAX_RECURRENCE, at most */
    /* After recurrence t >= exit_first with (t - exit_first) mod exit_every = 0 the rule looks at
     * all rows together and may end them. NULL: none does. */
    const tt_exit_rule *exit;
    double exit_threshold;
    int32_t exit_first, exit_every;

    /* Fresh states are truncated normal: (seed, sample) of the sequence, position = column, step 0,
     * so that a column begins the same way however it is decoded; noise has step `step`. */
    uint64_t seed;
    uint32_t sample, step;
    float init_scale; /* times the standard deviation; 0: zeros */
    tt_draw_state *draw;
    void *draw_arg;

    tt_latents *latents;     /* what `from` and `embed_old` read and where rows are kept; or NULL */
    const tt_depth_row *row; /* per row of the sequence; NULL: all fresh, nothing mixed */
    bool keep_normed;        /* keep the normalised states instead of the states themselves */
    tt_move move;

    /* Out; may be NULL but for move. */
    float *moved;          /* per row of the sequence, +inf where there is nothing to compare */
    int32_t ran;           /* recurrences done */
    tt_exit_check *check;  /* room for `recurrences` */
    int32_t checks;
} tt_depth;

#endif
