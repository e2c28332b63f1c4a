/* options.h - options that several subcommands share, and their environment.
 *
 * Order: environment, then flags. A subcommand lists tt_engine_argp among its argp children and
 * gives it a tt_engine_args as input. */
#ifndef TT_OPTIONS_H
#define TT_OPTIONS_H

#include <argp.h>

#include "models/model.h"
#include "server/engine.h"
#include "server/models_dir.h"

/* --device --threads --weights, with TUTTI_DEVICE and TUTTI_THREADS as their defaults. */
typedef struct {
    const char *device; /* NULL: auto */
    int threads;        /* 0: cores - 1 */
    tt_weights_mode weights;
} tt_engine_args;

extern const struct argp tt_engine_argp;

/* Reads the environment; call before argp_parse(). TT_EINVAL names the variable. */
tt_status tt_engine_args_init(tt_engine_args *a, tt_err *e);

/* A whole number in [min, max], else argp_error() naming the option. */
int64_t tt_option_int(struct argp_state *state, const char *option, const char *text, int64_t min,
                      int64_t max);

/* Finds the model (models_dir.h; NULL: the only or the first that comes with the program), opens
 * an engine and loads it, showing progress on a terminal. *served belongs to the engine. */
tt_status tt_open_served(tt_engine **g, const tt_served **served, const char *model,
                         const tt_engine_args *a, tt_err *e);

#endif
