/* trunk.h - the pre-norm transformer body that most text families share: embedding, layers of
 * (RMSNorm, rotary attention, RMSNorm, gated MLP), final RMSNorm, head. A family fills in the
 * shape and binds its tensor names; the trunk runs passes.
 *
 *   x = table[id]  (+ place_table[position], then turned by no angle)
 *   per layer:  x += out( attention( rope( qkv( norm1 x ) ) ) )
 *               x += down( silu(gate h) * up h ),  h = norm2 x
 *   logits = head( norm x )                           on wanted rows only */
#ifndef TT_TRUNK_H
#define TT_TRUNK_H

#include "models/model.h"

typedef struct {
    float *norm1, *norm2; /* device, [width] */
    tt_matrix *qkv;       /* rows: all q heads, all k heads, all v heads */
    tt_matrix *out;
    tt_matrix *gate_up; /* rows: gate, then up */
    tt_matrix *down;
} tt_trunk_layer;

typedef struct {
    tt_stream *stream;
    tt_compute compute;
    tt_dtype act;    /* of activations */
    tt_dtype stored; /* how the checkpoint holds its matrices */
    bool quantise;   /* round float weights to 8 bits while loading */
    int64_t layers, width, heads, kv_heads, head_dim, ff, vocab, half; /* half: rotary width / 2 */
    int64_t places; /* rows of place_table: positions there are; 0: no limit, rotation instead */
    float eps;

    tt_trunk_layer *layer;
    float *norm;     /* device, [width] */
    float *inv_freq; /* device, [half] */
    tt_matrix *table;
    tt_matrix *place_table;
    tt_matrix *head; /* may be the table itself */

    /* Working memory, grown to the largest pass seen. */
    void *space;
    size_t space_bytes;
    /* Host lists, grown likewise. */
    int32_t *map;  /* row -> its place among the rows the head needs, or -1 */
    int32_t *ints; /* what a pass uploads: see trunk.c */
    int64_t map_rows, ints_room;
} tt_trunk;

/* A checkpoint's tensor names. Those of layer i follow the prefix with i in its place; the biases
 * may be NULL. */
typedef struct {
    const char *prefix; /* "model.layers.%lld." */
    const char *norm1, *q, *k, *v, *q_bias, *k_bias, *v_bias, *out, *norm2, *gate, *up, *down;
    const char *table, *norm, *head;
    const char *place_table; /* read when the shape says places */
} tt_trunk_names;

/* Binds and packs all weights; the shape and the stream must be set. inv_freq[i] =
 * theta^(-2 i / rotary), i < rotary / 2; neither is read when there are places. tied: the head is
 * the table. progress may be NULL.
 * After a failure tt_trunk_close() is still due. */
tt_status tt_trunk_open(tt_trunk *t, const tt_weights *w, const tt_trunk_names *names,
                        tt_weights_mode mode, double theta, int64_t rotary, bool tied,
                        void (*progress)(void *, double), void *arg, tt_err *e);
void tt_trunk_close(tt_trunk *t);

/* Fills in what the shape, the definition and the checkpoint tell: all of m->info but the ids, the
 * context, the block length and the row shift. */
void tt_trunk_info(const tt_trunk *t, tt_model *m, const tt_weights *w);

tt_status tt_trunk_run(tt_trunk *t, const tt_pass *p, tt_err *e);
size_t tt_trunk_pass_bytes(const tt_trunk *t, int64_t rows, int64_t wants);

#endif
