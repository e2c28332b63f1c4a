/* trunk_run.h - what the files that run a pass through the trunk share. */
#ifndef TT_TRUNK_RUN_H
#define TT_TRUNK_RUN_H

#include "models/nn/trunk.h"

/* The MLP is row-wise, so it runs in chunks: its wide intermediate stays in cache and the working
 * memory does not grow with it. Experts want many rows at once: their weights are read once per
 * chunk. */
enum { TT_MLP_CHUNK = 512, TT_GLU_CHUNK = 4096, TT_EXPERT_CHUNK = 1024 };

/* Views into the working memory for one pass. */
typedef struct {
    tt_act *x, *h;           /* rows x width: residual stream, normalised copy */
    tt_act *qkv;             /* rows x (heads + 2 kv_heads) * head_dim */
    tt_act *att;             /* rows x heads * head_dim */
    tt_act *mlp;             /* MLP_CHUNK x 2 ff, or GLU_CHUNK x ff */
    tt_act *last_x, *last_q; /* needed rows alone, for the last layer: width, heads * head_dim */
    float *cos, *sin;        /* rows x half */
    tt_act *want, *uncond;   /* wants x width */
    int32_t *id, *position, *column; /* rows; these and what follows are uploaded in one piece */
    int32_t *need_row;               /* needed: rows the head needs, ascending */
    int32_t *want_row, *uncond_row;  /* wants */
    float *cfg;                      /* wants */
    float *mix;                      /* rows, if expected embeddings are mixed in */
    int32_t *iota;                   /* wants, if rows are kept: 0, 1, 2, ... */
    int32_t *state_row;              /* states */
    int32_t *class_row;              /* rows to classify; next to it their rows of x, what the
                                        classifier makes of them, and its hidden units */
    tt_act *class_x, *class_h, *class_up;
    /* Which modulation each row, needed row, want, unconditional want and state has. */
    int32_t *row_mod, *need_mod, *want_mod, *uncond_mod, *state_mod;
    tt_act *condition; /* conditions x modulation.width */
    tt_act *mod;       /* conditions x (6 layers + 2) width */
    /* Experts, for a chunk of n rows: */
    tt_act *pair_x, *pair_y; /* n top_k x width, 2 expert_ff */
    float *pair_weight;      /* n top_k */
    int32_t *pair_place, *pair_row, *expert_begin;
} tt_trunk_space;

/* The query rows of a layer: all rows of the pass, or in the last layer those that the head
 * needs, packed. */
typedef struct {
    int64_t rows;
    tt_act *x;       /* residual stream of these rows */
    const tt_act *q; /* their queries */
    int64_t ldq;
    const int32_t *map; /* row of the pass -> row here; NULL: the same */
    const int32_t *mod; /* device: their modulations */
} tt_trunk_rows;

static inline tt_act *tt_trunk_at(const tt_trunk *t, const tt_act *p, int64_t elements)
{
    return (char *)(uintptr_t)p + elements * (int64_t)tt_dtype_size(t->act);
}

/* Where in a modulation the shift of a layer's first norm is, in vectors of width; its scale and
 * the gate of what follows the norm come next, then the same three of the second norm. The final
 * norm's shift and scale stand behind all layers. */
static inline int64_t tt_trunk_slot(int64_t layer, int norm)
{
    return 6 * layer + 3 * norm;
}

/* x[rows] += in w, gated by the modulation at this slot when there is one; the rows of spare are
 * written then. */
tt_status tt_trunk_add_product(tt_trunk *t, const tt_trunk_space *v, tt_act *x, const tt_act *in,
                               int64_t ld, int64_t rows, const tt_matrix *w, tt_act *spare,
                               const int32_t *mod, int64_t slot, tt_err *e);
/* x += what the rows find in their sequences' contexts (trunk_cross.c); h, att and the rows of qkv
 * below theirs are overwritten. */
tt_status tt_trunk_cross(tt_trunk *t, const tt_pass *p, const tt_trunk_space *v,
                         const tt_trunk_rows *rows, int64_t layer, tt_err *e);
/* Query rows of one sequence among the packed ones: [*first, *first + count). */
int64_t tt_trunk_packed_range(const tt_pass_seq *q, const int32_t *map, int64_t *first);
/* x += MLP(h) on the query rows: dense, experts, or both (trunk_mlp.c). */
tt_status tt_trunk_mlp(tt_trunk *t, int64_t layer, const tt_trunk_rows *rows,
                       const tt_trunk_space *v, tt_err *e);
/* Classifies rows v->class_row of x: host lists of logits, as tt_pass.classes, and of as many
 * statistics, which nobody needs; both valid after sync (trunk_class.c). */
tt_status tt_trunk_classify(tt_trunk *t, const tt_trunk_space *v, const tt_act *x, int64_t rows,
                            float *logits, tt_row_stats *stats, tt_err *e);
/* Adds expected embeddings to the rows whose weight is not 0 (trunk_memo.c). */
tt_status tt_trunk_mix(tt_trunk *t, const tt_pass *p, const tt_trunk_space *v, tt_err *e);
/* Keeps what wants [from, from + n), whose draws these are, keep for the next pass. */
tt_status tt_trunk_keep(tt_trunk *t, const tt_pass *p, const tt_trunk_space *v, int64_t from,
                        int64_t n, const tt_draw *draw, tt_err *e);
/* n numbers on the device, in the type of activations; to be released. */
tt_status tt_trunk_upload(tt_trunk *t, void **out, const float *host, int64_t n, tt_err *e);
/* Rows of activations to host float32; returns when they are there. */
tt_status tt_trunk_download(tt_trunk *t, const tt_act *x, int64_t rows, float *out, tt_err *e);

#endif
