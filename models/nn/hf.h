/* hf.h - checkpoints with Llama's and Qwen2's tensor names and config keys: one shape for masked
 * models adapted from them (Dream) and for the autoregressive originals. */
#ifndef TT_HF_H
#define TT_HF_H

#include "models/nn/trunk.h"

typedef struct {
    tt_model base;
    tt_trunk trunk;
} tt_hf_model;

/* What a family fixes about its checkpoints. */
typedef struct {
    bool qkv_bias;      /* q, k and v projections have biases */
    bool needs_mask;    /* config.json must name mask_token_id */
    int32_t row_shift;
    int32_t block_length;
    int64_t context;    /* columns usable for generation at most; 0: the config's */
    double rope_theta;  /* when the config names none */
} tt_hf_family;

tt_status tt_hf_open(tt_model **out, const tt_model_def *def, const tt_hf_family *family,
                     tt_stream *stream, const tt_weights *w, tt_config *c, tt_weights_mode mode,
                     void (*progress)(void *, double), void *arg, tt_err *e);
void tt_hf_close(tt_model *m);
tt_status tt_hf_run(tt_model *m, const tt_pass *p, tt_err *e);
size_t tt_hf_pass_bytes(const tt_model *m, int64_t rows, int64_t wants);

#endif
