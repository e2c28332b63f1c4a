/* npz.h - a NumPy archive of images, as evaluation programs read it: arr_0 holds uint8 pixels
 * (images, height, width, 3), arr_1 int64 labels (images). Stored, not compressed, with 64-bit
 * sizes throughout (ZIP64), so that images can be put in any order and number.
 *
 * The archive is made in PATH.part, which another run may continue, and renamed when complete. */
#ifndef TT_NPZ_H
#define TT_NPZ_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/err.h"

typedef struct tt_npz tt_npz;

/* resume: keep what PATH.part holds. TT_EIO names the file. */
tt_status tt_npz_open(tt_npz **out, const char *path, int64_t images, int32_t height,
                      int32_t width, bool resume, tt_err *e);
/* Images [first, first + n). */
tt_status tt_npz_put(tt_npz *z, int64_t first, int64_t n, const uint8_t *pixels, tt_err *e);
/* Labels (one per image) and directory; the archive is then in its place. */
tt_status tt_npz_finish(tt_npz *z, const int64_t *label, tt_err *e);
void tt_npz_close(tt_npz *z); /* NULL is fine; an archive that is not finished stays as .part */

#endif
