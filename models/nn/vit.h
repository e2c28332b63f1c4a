/* vit.h - the pre-norm transformer block of vision and text towers (CLIP, BLIP, ResTok):
 *
 *   x += out( attention( qkv( LN1 x ) ) )
 *   x += fc2( act( fc1( LN2 x ) ) )
 *
 * with LayerNorms of weight and bias, and biases everywhere. Optional: queries and keys normalised
 * by head and rotated. Scales of residuals belong to the rows of out and fc2. */
#ifndef TT_VIT_H
#define TT_VIT_H

#include "models/nn/bind.h"

typedef enum { TT_VIT_QUICK_GELU, TT_VIT_GELU_ERF } tt_vit_act;

/* Weight and bias of a LayerNorm; device, [width]. */
typedef struct {
    float *w, *b;
} tt_vit_norm;

typedef struct {
    tt_vit_norm norm1, norm2;
    tt_vit_norm heads; /* [2 width] of all q heads, all k heads; NULL: they are not normalised */
    tt_matrix *qkv, *out, *fc1, *fc2; /* qkv: rows of all q heads, all k heads, all v heads */
} tt_vit_block;

typedef struct {
    tt_stream *stream;
    int64_t width, heads, ff;
    float eps;
    tt_vit_act act;
    tt_compute compute;
    tt_dtype type; /* of activations */
    void *space;   /* grown to the largest call */
    size_t space_bytes;
} tt_vit;

/* A checkpoint's names, to follow a prefix ("vision_model.encoder.layers.0."). qkv, or q, k and v.
 * Weights end in ".weight", biases in ".bias"; for NULL names there is none. */
typedef struct {
    const char *norm1, *norm2, *qkv, *q, *k, *v, *out, *fc1, *fc2;
} tt_vit_names;

/* TT_EFORMAT naming the tensor; TT_EUNSUP naming an operation the device lacks. After a failure
 * closing is still due. */
tt_status tt_vit_bind(tt_vit_block *b, const tt_vit *v, const tt_bind *bind, const char *prefix,
                      const tt_vit_names *names, tt_err *e);
void tt_vit_block_close(tt_vit_block *b, tt_stream *s);
/* A norm called NAME. */
tt_status tt_vit_bind_norm(tt_vit_norm *n, const tt_bind *bind, const char *name, int64_t width,
                           tt_err *e);
void tt_vit_norm_close(tt_vit_norm *n, tt_stream *s);
void tt_vit_close(tt_vit *v);

/* A run of rows [row, row + rows) and what they see: each other, all of them or causally; or when
 * keys is not 0 all of the rows [key_row, key_row + keys). */
typedef struct {
    int64_t row, rows;
    tt_see see;
    int64_t key_row, keys;
} tt_vit_span;

/* Makes room for calls of so many rows, so that none is made while a pass is recorded. */
tt_status tt_vit_reserve(tt_vit *v, int64_t rows, tt_err *e);
/* x: rows x width, in place. cos, sin: rows x head_dim / 2, or NULL. */
tt_status tt_vit_attend(tt_vit *v, const tt_vit_block *b, tt_act *x, int64_t rows,
                        const tt_vit_span *span, int64_t spans, const float *cos, const float *sin,
                        tt_err *e);
tt_status tt_vit_mlp(tt_vit *v, const tt_vit_block *b, tt_act *x, int64_t rows, tt_err *e);
/* Both. */
tt_status tt_vit_run(tt_vit *v, const tt_vit_block *b, tt_act *x, int64_t rows,
                     const tt_vit_span *span, int64_t spans, const float *cos, const float *sin,
                     tt_err *e);
size_t tt_vit_bytes(const tt_vit *v, int64_t rows);

/* Numbers on the device in the type of activations, to be released; and back into float32. */
tt_status tt_vit_upload(const tt_vit *v, tt_act **out, const float *host, int64_t n, tt_err *e);
tt_status tt_vit_put(const tt_vit *v, tt_act *to, const float *host, int64_t n, tt_err *e);
tt_status tt_vit_get(const tt_vit *v, float *host, const tt_act *from, int64_t n, tt_err *e);

#endif
