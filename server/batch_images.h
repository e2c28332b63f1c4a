/* batch_images.h - `tutti batch --per-class`: so many images of each class, as PNG files of a
 * folder or as one NumPy archive (npz.h), for evaluation. */
#ifndef TT_BATCH_IMAGES_H
#define TT_BATCH_IMAGES_H

#include "server/local.h"

enum { TT_BATCH_SETS = 32 };

typedef struct {
    const char *output;  /* ends in .npz: an archive; else a folder */
    const char *classes; /* "0-9,red apple"; NULL: all */
    const char *with;    /* labels of other groups, as in a prompt; NULL: none */
    const char *set[TT_BATCH_SETS];
    int sets;
    int64_t per_class, seed;
    bool resume, force, quiet;
} tt_batch_images_args;

/* The model is l->served. Images depend on it, the arguments and the seed alone: class c's image i
 * is sample i mod 16 of seed + c * 2^20 + i div 16. A run that was interrupted is continued with
 * `resume`; then what was asked for must be the same. */
tt_status tt_batch_images(tt_local *l, const tt_batch_images_args *a, tt_err *e);

#endif
