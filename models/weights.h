/* weights.h - tensors of a checkpoint, read in place.
 *
 * A tt_weights maps one or more .safetensors files read-only and indexes them by name. It owns
 * the mappings: every tt_tensor it hands out points into them and stays valid until
 * tt_weights_close(). Opening checks every header (sizes against dtype and shape, offsets,
 * overlaps, gaps, duplicate names) because checkpoints come from strangers; after that a lookup
 * cannot read out of bounds. Safe to use from several threads once open. */
#ifndef TT_WEIGHTS_H
#define TT_WEIGHTS_H

#include "kernels/base/err.h"
#include "kernels/ops.h"
#include "kernels/tensor.h"

typedef struct tt_weights tt_weights;

/* dir: folder with model.safetensors or with model.safetensors.index.json and its shards.
 * Fails with TT_EIO (cannot open), TT_EFORMAT (header refused: names file and tensor). *out is
 * NULL then. */
tt_status tt_weights_open(tt_weights **out, const char *dir, tt_err *e);
/* One .safetensors file by path. */
tt_status tt_weights_open_file(tt_weights **out, const char *path, tt_err *e);
/* Checks and indexes a file image in memory that the caller keeps (fuzzing, tests). */
tt_status tt_weights_open_memory(tt_weights **out, const void *bytes, size_t size, tt_err *e);
/* Seeded random numbers instead of a checkpoint, for measuring a shape: a tensor comes to be, in
 * BF16, with the sizes it is first asked for (tt_weights_get() then needs all of them), and takes
 * memory once for all of its kind (random.h). Vectors not called a bias are near 1. Not
 * thread-safe while tensors come to be. */
tt_status tt_weights_open_random(tt_weights **out, tt_err *e);
void tt_weights_close(tt_weights *w); /* NULL is fine */

/* The tensor called name, which must be of this rank and these sizes; -1 accepts any size.
 * Fails with TT_EFORMAT when absent or of another shape; the message names both shapes. */
tt_status tt_weights_get(const tt_weights *w, const char *name, int rank, const int64_t *dims,
                         tt_tensor *out, tt_err *e);
bool tt_weights_has(const tt_weights *w, const char *name);
/* A matrix [n, k] with its row scales ("NAME_scale", rank 1, when the data is I8). */
tt_status tt_weights_matrix(const tt_weights *w, const char *name, int64_t n, int64_t k,
                            tt_weight *out, tt_err *e);

/* In file order, for listings: NULL past the end. */
const char *tt_weights_name(const tt_weights *w, size_t i, tt_tensor *out);
size_t tt_weights_count(const tt_weights *w);
/* Lets the system drop pages that packing has read; tables still in use are read in again. */
void tt_weights_rest(const tt_weights *w);
int64_t tt_weights_elements(const tt_weights *w); /* parameters, scales left out */
size_t tt_weights_bytes(const tt_weights *w);     /* tensor data mapped */

#endif
