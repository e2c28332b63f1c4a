/* models_dir.h - where models are: from the name a user gives to a folder.
 *
 * Models that come with the program are found by id in, first match wins: each folder of
 * TUTTI_MODELS (separated by ':'), models/demo of the source tree the program was built in,
 * ../share/tutti/models beside the installed program, models/demo of the working directory. */
#ifndef TT_MODELS_DIR_H
#define TT_MODELS_DIR_H

#include <stddef.h>

#include "kernels/base/err.h"

typedef struct {
    char id[128];      /* for requests */
    char folder[4096]; /* holds config.json */
} tt_model_place;

/* name: the id of a model that comes with the program ("tutti-text"), a folder (anything with a
 * '/', or an existing folder with a config.json; its id is the last part of the path), or
 * ID=FOLDER. Fails with TT_EINVAL naming what was looked for and the ids there are, or TT_EIO. */
tt_status tt_models_dir_find(const char *name, tt_model_place *out, tt_err *e);

/* Of several models that come with the program, the one that is meant when none is named. */
#define TT_DEFAULT_MODEL "tutti-text"

/* Every model that comes with the program: TT_DEFAULT_MODEL if it is there, then the others, sorted
 * by id. *out is freed with free(). */
tt_status tt_models_dir_list(tt_model_place **out, size_t *n, tt_err *e);

#endif
