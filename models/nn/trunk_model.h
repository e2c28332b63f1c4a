/* trunk_model.h - a model that is a trunk and nothing else: what families give and get.
 *
 * A family says how its config and tensors are to be read; opening, running and closing are the
 * same for all. */
#ifndef TT_TRUNK_MODEL_H
#define TT_TRUNK_MODEL_H

#include "models/nn/trunk.h"

typedef struct {
    tt_model base;
    tt_trunk trunk;
    void *own; /* the family's, freed with free(); or NULL */
} tt_trunk_model;

/* What a family's reader fills in besides the trunk's shape and base.info's ids, context, block
 * length and row shift. */
typedef struct {
    tt_trunk_names names;
    tt_rotary rotary;
    bool tied; /* the head is the table */
} tt_trunk_plan;

/* Reads config (and what of the weights it needs besides names); calls tt_trunk_layers() itself
 * if it marks routed layers. TT_EFORMAT or TT_EUNSUP naming the key. */
typedef tt_status tt_trunk_read(tt_trunk_model *m, const tt_weights *w, tt_config *c,
                                const void *arg, tt_trunk_plan *plan, tt_err *e);

typedef struct {
    tt_weights_mode mode;
    void (*progress)(void *arg, double done);
    void *progress_arg;
} tt_trunk_loading;

tt_status tt_trunk_model_open(tt_model **out, const tt_model_def *def, tt_stream *stream,
                              const tt_weights *w, tt_config *c, tt_trunk_read *read,
                              const void *arg, const tt_trunk_loading *loading, tt_err *e);
void tt_trunk_model_close(tt_model *m);
tt_status tt_trunk_model_run(tt_model *m, const tt_pass *p, tt_err *e);
size_t tt_trunk_model_pass_bytes(const tt_model *m, int64_t rows, int64_t wants);

/* --- for readers --- */

/* Heads must be of even width and share the key/value heads (config key kv_key) evenly, and the
 * ids of info must be rows of the table. */
tt_status tt_trunk_check_shape(const tt_trunk_model *m, const char *kv_key, tt_err *e);
/* TT_EUNSUP naming the key when one of these is true. NULL-terminated. */
tt_status tt_trunk_must_be_false(tt_config *c, const char *const *keys, tt_err *e);
/* TT_EUNSUP naming the key when it has another text than this one, which is also its default. */
tt_status tt_trunk_must_be(tt_config *c, const char *key, const char *text, tt_err *e);
/* TT_EFORMAT when the router of a mixture of experts cannot be. */
tt_status tt_trunk_check_router(const tt_trunk *t, tt_err *e);

#endif
