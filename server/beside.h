/* beside.h - what a model's config.json names by a path: the codec of a generator, its labels.
 *
 * A name is a file or folder within the model's own folder, or, so that models can share one, a
 * path from there that stays within the folder that holds the model's: "../other/restok". */
#ifndef TT_BESIDE_H
#define TT_BESIDE_H

#include <stddef.h>

#include "kernels/base/err.h"

/* The path of what config key `key` of a model names into out. TT_EFORMAT when it is no such path,
 * or leads out of the folder that holds the model's, through links as well; TT_EIO when a path
 * leads nowhere. */
tt_status tt_beside(char *out, size_t size, const char *model, const char *key, const char *name,
                    tt_err *e);

#endif
