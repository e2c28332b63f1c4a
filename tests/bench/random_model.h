/* random_model.h - a LLaDA-type model of any shape with seeded random bf16 weights, in memory. */
#ifndef TT_RANDOM_MODEL_H
#define TT_RANDOM_MODEL_H

#include "models/model.h"

typedef struct {
    int64_t layers, width, heads, ff, vocab, context;
} tt_random_shape;

typedef struct {
    void *image; /* a safetensors file; must outlive the model */
    tt_weights *weights;
    tt_config *config;
    tt_model *model;
} tt_random_model;

tt_status tt_random_model_open(tt_random_model *out, tt_stream *s, tt_random_shape shape,
                               tt_weights_mode mode, tt_err *e);
void tt_random_model_close(tt_random_model *m);

#endif
