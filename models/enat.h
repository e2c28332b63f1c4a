/* enat.h - what the files of the ENAT generator share: enat.c opens it and keeps states,
 * enat_step.c runs steps. */
#ifndef TT_ENAT_H
#define TT_ENAT_H

#include "models/generator.h"

typedef struct {
    tt_matrix *own;     /* of the tokens being updated: queries, then keys and values (kv.B) */
    tt_matrix *context; /* keys and values of the tokens beside them (kv.A) */
    tt_matrix *out, *up, *down;
} tt_enat_block;

/* LayerNorm with weight and bias: tt_op_adaln whose shift is the bias and whose scale is 0. */
typedef struct {
    float *weight;
    tt_act *bias;
    float eps;
} tt_enat_norm;

typedef struct {
    tt_generator base;
    tt_compute compute;
    int64_t width, heads, head_dim, ff, tokens;
    int64_t blocks, encoders; /* the first `encoders` blocks update known tokens, the rest hidden */
    tt_enat_block *block;
    tt_matrix *words, *places; /* tables: tokens and the mask; positions */
    tt_matrix *modulation;     /* condition to the 8 vectors of every block */
    tt_matrix *again_up, *again_down; /* prev_proj */
    tt_matrix *head_fc, *head;
    tt_enat_norm embed_norm, again_norm, last_norm, head_norm;
    float *ones;   /* [width]: the blocks' norms have no weight */
    tt_act *zeros; /* [width] */
    float *labels; /* host, [null_label + 1, width] */
    int64_t null_label;

    /* Device memory of the states, by slot: features of known tokens [room][2 branches][tokens]
     * [width], and modulations [1 + room][blocks * 8 * width], the first without a class. */
    tt_act *features, *modulations;
    uint8_t *taken;
    int64_t room;

    tt_act *space; /* working memory of a step, grown to the largest seen */
    size_t space_bytes;
    tt_arena lists; /* host memory of a step */
} tt_enat;

typedef struct {
    tt_generator_state base;
    int64_t slot;
    uint8_t *kept[2]; /* per branch and token: its features of the last step are there */
    float *condition; /* [width]: what its modulations will be made of; NULL once they are */
} tt_enat_state;

enum { TT_ENAT_VECTORS = 8 }; /* of a block's modulation */

static inline tt_act *tt_enat_at(const tt_enat *g, const tt_act *p, int64_t elements)
{
    return (char *)(uintptr_t)p + elements * (int64_t)tt_dtype_size(g->base.info.act);
}

/* The modulations of all states that still wait for them. */
tt_status tt_enat_modulate(tt_enat *g, const tt_generator_call *call, int64_t calls, tt_err *e);
tt_status tt_enat_step(tt_generator *g, const tt_generator_call *call, int64_t calls, tt_err *e);
size_t tt_enat_step_bytes(const tt_generator *g, int64_t calls);
tt_status tt_enat_work(tt_generator *g, const tt_generator_call *call, int64_t calls,
                       tt_generator_work *out, tt_err *e);

#endif
