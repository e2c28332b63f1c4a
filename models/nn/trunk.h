/* trunk.h - the pre-norm transformer body that most text families share: embedding, layers of
 * (RMSNorm, rotary attention, RMSNorm, gated MLP), final RMSNorm, head. A family fills in the
 * shape and binds its tensor names; the trunk runs passes.
 *
 *   x = table[id]  (+ place_table[position], then turned by no angle)
 *   per layer:  x += out( attention( rope( qkv( norm1 x ) ) ) )
 *               x += down( silu(gate h) * up h ),  h = norm2 x
 *   logits = head( norm x )                           on wanted rows only
 *
 * Variants: query and key heads normalised before they are rotated; only the first channels of a
 * head rotated; layers whose MLP is a mixture of experts (with an MLP for all rows beside it or
 * not); LayerNorm with bias, and no norm before the head (insertion models, which also have a
 * second head that classifies single rows); and the diffusion transformer (DiT, arXiv 2212.09748):
 * LayerNorm, a plain GELU MLP, and norms and residuals modulated by vectors made from the
 * sequence's noise level. */
#ifndef TT_TRUNK_H
#define TT_TRUNK_H

#include "models/model.h"

typedef struct {
    float *norm1, *norm2;   /* device, [width] */
    float *after1, *after2; /* of sandwich blocks: norms of the two sums; else NULL */
    float *norm1_bias, *norm2_bias; /* the norms are LayerNorms then; or NULL */
    tt_matrix *qkv;         /* rows: all q heads, all k heads, all v heads */
    float *q_norm, *k_norm; /* device, [head_dim]; NULL: heads are not normalised */
    tt_matrix *out;
    float *cross_norm, *cross_norm_bias;       /* of trunks that attend to a context */
    tt_matrix *cross_q, *cross_kv, *cross_out; /* cross_kv: rows of keys, then of values */
    int64_t ff;         /* hidden units of the MLP all rows go through; 0: there is none */
    tt_matrix *gate_up; /* rows: gate, then up; up alone when ungated */
    tt_matrix *down;
    bool routed;        /* a mixture of experts; set before tt_trunk_open() */
    tt_matrix *router;  /* [experts, width] */
    float *router_bias; /* device, [experts], or NULL */
    tt_matrix **expert_gate_up, **expert_down; /* of each expert */
} tt_trunk_layer;

/* How a DiT's norms and residuals are modulated. */
typedef struct {
    int64_t width;    /* of the condition; 0: nothing is modulated */
    bool timed;       /* each sequence has its own noise level; else it is 0 for all */
    tt_matrix *table; /* condition to a modulation: 6 vectors a layer, 2 for the final norm */
    /* The condition (host, [width]) of noise level sigma. */
    void (*condition)(const void *arg, float sigma, float *c);
    const void *arg;
} tt_modulation;

/* A head that classifies rows by their residual stream z:
 *   logits = out( z + down( tanh( up( LayerNorm z ) ) ) ) */
typedef struct {
    int32_t classes; /* 0: there is none */
    int64_t hidden;  /* units of up */
    float *norm, *norm_bias; /* device, [width] */
    tt_matrix *up, *down, *out;
} tt_classifier;

typedef struct {
    tt_stream *stream;
    tt_compute compute, layer_compute; /* of the head and attention; of the layers' matrices */
    tt_dtype act;    /* of activations */
    tt_dtype stored; /* how the checkpoint holds its matrices */
    bool quantise;   /* round float weights to 8 bits while loading */
    int64_t layers, width, heads, kv_heads, head_dim, ff, vocab, half; /* half: rotary width / 2 */
    int64_t seen_width; /* of the rows of a context that every layer attends to, between its
                           attention and its MLP; 0: there is none */
    bool pairs;        /* tt_rotary.pairs, undone while loading */
    int64_t more_rows[2]; /* of tables stacked behind the one of the vocabulary: ids that are fed
                             but never predicted */
    int64_t places; /* rows of place_table: positions there are; 0: no limit, rotation instead */
    float eps;
    bool ungated;       /* the MLP is gelu alone */
    bool relu;          /* or relu */
    tt_router router;   /* of routed layers, without bias */
    int64_t expert_ff;  /* hidden units of an expert */
    int64_t shared_ff;  /* of the MLP beside the experts; 0: none */
    tt_modulation modulation;
    tt_classifier classifier; /* classes: set before tt_trunk_open() */

    tt_trunk_layer *layer;
    float *norm;     /* device, [width]; NULL: the head reads the residual stream as it is */
    float *norm_bias;
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
    float *conditions;
    int64_t map_rows, ints_room, conditions_room;
} tt_trunk;

/* A checkpoint's tensor names. Those of layer i follow the prefix with i in its place, those of
 * expert j further follow `expert` with j in its place. Names of what a family has not are NULL. */
typedef struct {
    const char *prefix; /* "model.layers.%lld." */
    const char *norm1, *qkv, *q, *k, *v; /* qkv: all three in one tensor */
    const char *qkv_bias, *q_bias, *k_bias, *v_bias, *q_norm, *k_norm, *out, *norm2;
    const char *gate, *up, *up_bias, *down, *down_bias;
    const char *router, *router_bias;
    const char *expert; /* "mlp.experts.%lld." */
    const char *expert_gate, *expert_up, *expert_down;
    const char *shared_gate, *shared_up, *shared_down;
    const char *modulation, *modulation_bias; /* of a layer */
    const char *cross_norm, *cross_norm_bias, *cross_q, *cross_k, *cross_v, *cross_out;
    const char *table, *norm, *head, *head_bias, *last_modulation, *last_modulation_bias;
    const char *more_tables[2]; /* read when the shape says more_rows */
    const char *place_table; /* read when the shape says places */
    const char *norm1_bias, *norm2_bias, *norm_bias;
    /* of the classifier */
    const char *class_norm, *class_norm_bias, *class_up, *class_up_bias, *class_down,
        *class_down_bias, *class_out;
} tt_trunk_names;

/* Rotary frequencies: theta^(-2 i / width) for i < width / 2. With a factor they are scaled as in
 * Llama 3.1: unchanged for wavelengths below original / high, divided by the factor above
 * original / low, in between a mixture. */
typedef struct {
    double theta;
    int64_t width; /* channels of a head that rotate, even */
    bool pairs;    /* channels 2 i and 2 i + 1 rotate together; else i and i + width / 2 */
    double factor, low, high, original; /* factor 0: not scaled */
} tt_rotary;

/* Frequency i, in double. */
double tt_rotary_frequency(const tt_rotary *r, int64_t i);

/* Room for the layers, zeroed. TT_ENOMEM. */
tt_status tt_trunk_layers(tt_trunk *t, tt_err *e);

/* Binds and packs all weights; the shape, the stream and the layers must be set. The
 * rotation is not read when there are places. tied: the head is
 * the table. progress may be NULL. TT_EUNSUP when the device lacks an operation of TT_SOME_OPS.
 * After a failure tt_trunk_close() is still due. */
tt_status tt_trunk_open(tt_trunk *t, const tt_weights *w, const tt_trunk_names *names,
                        tt_weights_mode mode, const tt_rotary *rotary, bool tied,
                        void (*progress)(void *, double), void *arg, tt_err *e);
void tt_trunk_close(tt_trunk *t);

/* Fills in what the shape, the definition and the checkpoint tell: all of m->info but the ids, the
 * context, the block length and the row shift. */
void tt_trunk_info(const tt_trunk *t, tt_model *m, const tt_weights *w);

/* --- what a sequence attends to besides itself (trunk_cross.c) --- */

/* Keys and values of every layer, made from rows x seen_width numbers (host). */
tt_status tt_trunk_context_open(tt_trunk_context **out, tt_trunk *t, const float *seen,
                                int64_t rows, tt_err *e);
/* One more owner; NULL is fine. */
tt_trunk_context *tt_trunk_context_share(tt_trunk_context *c);
void tt_trunk_context_close(tt_trunk_context *c); /* by every owner; NULL is fine */

/* As tt_model_def.run: all of the pass. */
tt_status tt_trunk_run(tt_trunk *t, const tt_pass *p, tt_err *e);
size_t tt_trunk_pass_bytes(const tt_trunk *t, int64_t rows, int64_t wants);

#endif
