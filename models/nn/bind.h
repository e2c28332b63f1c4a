/* bind.h - a checkpoint's tensors on the device, for families that are no trunk: vectors in
 * float32, matrices and 3x3 convolutions packed. All fail with TT_EFORMAT naming the tensor. */
#ifndef TT_BIND_H
#define TT_BIND_H

#include "models/model.h"

typedef struct {
    tt_stream *stream;
    const tt_weights *weights;
    tt_compute compute; /* of matrices opened from now on */
} tt_bind;

/* Arithmetic of the matrices for a weights mode: bfloat16 when asked for, or when the checkpoint
 * holds `sample` in a narrow type and the device multiplies those fast. TT_EUNSUP for modes of text
 * models alone. */
tt_status tt_bind_choose(tt_compute *out, tt_stream *s, const tt_weights *w, const char *sample,
                         tt_weights_mode mode, tt_err *e);
/* Arithmetic of matrices and attention before something that is quantised: float32, by matrix units
 * where the device can. */
tt_compute tt_bind_exact(const tt_stream *s);
/* "f32", "bf16", "int8 weights, bf16 products", ... */
const char *tt_bind_text(const tt_weights *w, const char *sample, tt_compute compute);

/* Numbers on the device, to be released. */
tt_status tt_bind_floats(tt_stream *s, float **out, const float *host, int64_t n, tt_err *e);
/* n numbers of a tensor of any rank with so many elements; I8 comes with a scale per row
 * ("NAME_scale"), a row being all that shares the first index. */
tt_status tt_bind_vector(const tt_bind *b, float **out, const char *name, int64_t n, tt_err *e);
/* The same in host memory the caller gives. */
tt_status tt_bind_host(const tt_weights *w, float *out, const char *name, int64_t n, tt_err *e);

/* One tensor [n, k] or [n, k, 1, 1] of a stacked matrix, and its bias [n] or NULL. */
typedef struct {
    const char *name;
    int64_t n;
    const char *bias;
} tt_bind_part;

tt_status tt_bind_matrix(const tt_bind *b, tt_matrix **out, const tt_bind_part *part, int parts,
                         int64_t k, unsigned flags, tt_err *e);
/* [n, channels, 3, 3], for tt_op_conv3x3. */
tt_status tt_bind_conv3x3(const tt_bind *b, tt_matrix **out, const char *name, int64_t n,
                          int64_t channels, const char *bias, tt_err *e);
/* [n, channels, side, side] as a product over patches unfolded by channel, row, column; bias [n] or
 * NULL. */
tt_status tt_bind_patches(const tt_bind *b, tt_matrix **out, const char *name, int64_t n,
                          int64_t channels, int64_t side, const char *bias, tt_err *e);
/* TT_EUNSUP naming the operation when the device lacks one of these, by names of
 * tt_op_NAME. */
#define TT_BIND_NEED(s, op_name, e)                                                       \
    ((s)->op.op_name ? TT_OK                                                              \
                     : tt_fail(e, TT_EUNSUP, "device '%s' has no operation '%s', which this " \
                               "model needs", (s)->op.name, #op_name))

#endif
