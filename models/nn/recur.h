/* recur.h - the body of recurrent-depth models: prelude, core, coda, each of sandwich blocks.
 *
 *   e = table[id] * sqrt(width);  e = prelude(e)
 *   repeat:  s = core(W_s s + W_e e)           W_e e is the same for all recurrences of a pass
 *   logits = head(norm(coda(norm(s))))
 * A block is x = after1(x + attention(norm1 x)); x = after2(x + mlp(norm2 x)), all norms RMSNorm.
 *
 * A pass runs in pieces: begin (prelude and initial states of all rows), recurrences of the rows
 * whose sequences are not done - packed together whenever one ends -, and finish (coda and head of
 * all rows). */
#ifndef TT_RECUR_H
#define TT_RECUR_H

#include "models/depth.h"
#include "models/kv.h"
#include "models/nn/trunk_run.h"

typedef struct {
    tt_model base;
    tt_trunk trunk; /* shape, ends and layers: prelude, then core, then coda */
    int64_t prelude, core, coda;
    tt_matrix *read_state, *read_embed; /* W_s, W_e: the halves of the adapter */
    tt_decider *decider;                /* or NULL */
    /* Working memory, grown to the largest pass seen; that of keys gathered from many entries. */
    void *space, *keys;
    size_t space_bytes, keys_bytes;
    char *host; /* lists of a pass before they are uploaded */
    size_t host_bytes;
} tt_recur;

/* As tt_model_def.run and pass_bytes. */
tt_status tt_recur_run(tt_model *m, const tt_pass *p, tt_err *e);
size_t tt_recur_pass_bytes(const tt_model *m, int64_t rows, int64_t wants);

/* --- between the files of a pass --- */

/* Lists of a pass: one entry per row unless said otherwise. The same layout on host and device. */
typedef struct {
    tt_rng_address *fresh, *noise;
    tt_act **s_row, **x_row, **h_row; /* rows of working memory */
    tt_act **state_from, **embed_from, **against, **before;
    tt_act **keep_from, **past_from, **state_to, **embed_to, **past_to;
    int32_t *id, *position, *column, *iota;
    int32_t *want_row, *state_row; /* wants; states */
    int32_t *packed_position, *packed_column, *packed_from;
    float *scale, *zero, *one, *minus;
    float *embed_new, *embed_old, *noise_keep, *noise_add, *fresh_scale, *noise_scale;
} tt_recur_lists;

/* Where a sequence's rows are among those of a group. */
typedef struct {
    int64_t seq;
    int64_t row, rows;
} tt_recur_part;

/* Rows that go through blocks together. */
typedef struct {
    int64_t rows, parts;
    tt_recur_part *part;
    const float *cos, *sin;
    const int32_t *column; /* device */
} tt_recur_group;

/* What a sequence's part in the recurrences comes to. */
typedef struct {
    bool done;
    tt_exit_memory memory;
    /* > 0: its keys of this recurrence come from several entries and are gathered: so many, from
     * place key_at on, `earlier` of them of columns before its rows. */
    int64_t keys, key_at, earlier;
} tt_recur_seq;

typedef struct {
    tt_recur *m;
    const tt_pass *p;
    int64_t rows, wants; /* as run: padded where the backend records passes */
    /* What some sequence of the pass asks for. */
    bool blends, noise, sights;
    unsigned moves; /* 1 << TT_MOVE_* */
    tt_act *x, *h, *we, *other_we, *s, *spare, *done; /* rows x width */
    tt_act *begin, *check; /* rows x width, if moves; if sights */
    tt_act *qkv, *att, *mlp, *want; /* att: also differences of states, in the end */
    float *cos, *sin, *packed_cos, *packed_sin;
    int32_t *key_row; /* device: rows of the stores that are gathered */
    tt_recur_lists host, device;
    char *lists; /* device: where the lists begin */
    size_t lists_bytes;
    tt_recur_seq *seq;
    tt_recur_part *all_part, *live_part;
    int32_t *key_list; /* host */
    int64_t keys;      /* gathered in this recurrence */
    float *logits, *latents; /* host: of the last rows of sequences, for exit rules */
    tt_row_products *products;
    int32_t recurrence; /* present one; -1 outside the core */
} tt_recur_pass;

static inline tt_act *tt_recur_at(const tt_recur_pass *r, const tt_act *p, int64_t row)
{
    return tt_trunk_at(&r->m->trunk, p, row * r->m->trunk.width);
}

/* The sequence's depth; what a NULL one means is filled in. */
tt_depth tt_recur_depth(const tt_recur_pass *r, int64_t seq);

/* So many blocks, one after the other, on the group's rows of x (recur_block.c). */
tt_status tt_recur_blocks(tt_recur_pass *r, const tt_recur_group *g, int64_t first, int64_t count,
                          tt_act *x, tt_err *e);
/* Before a recurrence: marks what the group's columns will have, and gathers where each sequence
 * reads. */
tt_status tt_recur_choose_keys(tt_recur_pass *r, const tt_recur_group *g, int32_t recurrence,
                               tt_err *e);

/* Exit rules of a pass (recur_exit.c): room for what they see; after recurrence t, marks the
 * sequences that are done. */
tt_status tt_recur_reserve_exits(tt_recur_pass *r, tt_err *e);
tt_status tt_recur_check_exits(tt_recur_pass *r, const tt_recur_group *live, int32_t t, tt_err *e);

/* States of a pass (recur_states.c): initial ones and noise, what they moved by, what is kept. */
void tt_recur_list_states(tt_recur_pass *r, int64_t seq);
tt_status tt_recur_begin_states(tt_recur_pass *r, tt_err *e);
tt_status tt_recur_measure(tt_recur_pass *r, tt_err *e);
/* Once the products are there: tells the sequences. */
void tt_recur_publish(const tt_recur_pass *r);

#endif
