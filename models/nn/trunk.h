/* trunk.h - the pre-norm transformer body that most text families share: embedding, layers of
 * (RMSNorm, rotary attention, RMSNorm, gated MLP), final RMSNorm, head. A family fills in the
 * shape and binds its tensor names; the trunk runs passes.
 *
 *   x = table[id]
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
    bool quantise; /* round float weights to 8 bits while loading */
    int64_t layers, width, heads, kv_heads, head_dim, ff, vocab, half; /* half: rotary width / 2 */
    float eps;

    tt_trunk_layer *layer;
    float *norm;     /* device, [width] */
    float *inv_freq; /* device, [half] */
    tt_matrix *table;
    tt_matrix *head; /* may be the table itself */

    /* Working memory, grown to the largest pass seen. */
    void *space;
    size_t space_bytes;
    int32_t *map; /* host: row -> its place among the rows the head needs, or -1 */
    int64_t map_rows;
} tt_trunk;

/* Picks arithmetic for a weights mode, given how this checkpoint stores its matrices. */
void tt_trunk_choose(tt_trunk *t, tt_weights_mode mode, tt_dtype stored);
/* Fills in what the shape, the definition and the checkpoint tell: all of m->info but the ids, the
 * context, the block length and the row shift. */
void tt_trunk_info(const tt_trunk *t, tt_model *m, const tt_weights *w, tt_dtype stored);

/* Allocates the layer list; the shape must be set. */
tt_status tt_trunk_begin(tt_trunk *t, tt_err *e);
void tt_trunk_close(tt_trunk *t);

/* Loading helpers: a norm vector, a stacked matrix, both by tensor name. */
tt_status tt_trunk_vector(tt_trunk *t, float **out, const tt_weights *w, const char *name,
                          int64_t n, tt_err *e);
typedef struct {
    const char *name;
    int64_t n;
    const char *bias; /* tensor [n], or NULL */
} tt_trunk_part;
tt_status tt_trunk_matrix(tt_trunk *t, tt_matrix **out, const tt_weights *w,
                          const tt_trunk_part *part, int parts, int64_t k, unsigned flags,
                          tt_err *e);
/* inv_freq[i] = theta^(-2 i / rotary), i < rotary / 2. Sets half. */
tt_status tt_trunk_rope(tt_trunk *t, double theta, int64_t rotary, tt_err *e);

tt_status tt_trunk_run(tt_trunk *t, const tt_pass *p, tt_err *e);
size_t tt_trunk_pass_bytes(const tt_trunk *t, int64_t rows, int64_t wants);

#endif
