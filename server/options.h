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

/* The model a --model option names (models_dir.h); NULL: the first that comes with the program. */
tt_status tt_option_model(const char *model, tt_model_place *out, tt_err *e);

/* Opens an engine and loads the model, showing progress on a terminal. *served belongs to the
 * engine. */
tt_status tt_open_served(tt_engine **g, const tt_served **served, const tt_model_place *place,
                         const tt_engine_args *a, tt_err *e);
/* Loads a further model into it. */
tt_status tt_load_model(tt_engine *g, const tt_model_place *place, const tt_engine_args *a,
                        tt_err *e);

#endif
