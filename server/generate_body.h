/* generate_body.h - what `tutti generate` was asked for, and the request body that says so. */
#ifndef TT_GENERATE_BODY_H
#define TT_GENERATE_BODY_H

#include "server/options.h"

enum { TT_GENERATE_SETS = 32, TT_GENERATE_STOPS = 4 };

typedef struct {
    tt_engine_args engine;
    const char *model, *prompt, *infill, *system, *sampler, *guide, *regex, *schema;
    const char *output, *image, *mask; /* files, for image models */
    const char *set[TT_GENERATE_SETS], *stop[TT_GENERATE_STOPS];
    int sets, stops;
    int64_t seed, max_tokens, n; /* -1: not given */
    bool chat, echo, special, show, json;
    tt_buf input; /* the prompt when it came from stdin */
} tt_generate_args;

/* Appends the JSON body for the endpoint that the arguments call for. model, guide: ids; guide may
 * be NULL. TT_EINVAL names the option, TT_ENOMEM. */
tt_status tt_generate_body(tt_buf *out, const tt_generate_args *a, const char *model,
                           const char *guide, tt_err *e);

#endif
