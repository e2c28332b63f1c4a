/* hf.h - checkpoints with Llama's and Qwen's tensor names and config keys: one shape for masked
 * models adapted from them (Dream) and for the autoregressive originals. */
#ifndef TT_HF_H
#define TT_HF_H

#include "models/nn/trunk_model.h"

/* What a family fixes about its checkpoints. */
typedef struct {
    bool qkv_bias;      /* q, k and v projections have biases */
    bool head_norms;    /* query and key heads are normalised (Qwen3) */
    bool needs_mask;    /* config.json must name mask_token_id */
    int32_t row_shift;
    int32_t block_length; /* 0: no blocks; config.json's block_size wins */
    const char *sampler;  /* default; NULL: as tt_model_info has it */
    double temperature;   /* default */
    int64_t context;    /* columns usable for generation at most; 0: the config's */
    double rope_theta;  /* when the config names none */
} tt_hf_family;

/* To be closed and run as a tt_trunk_model. */
tt_status tt_hf_open(tt_model **out, const tt_model_def *def, const tt_hf_family *family,
                     tt_stream *stream, const tt_weights *w, tt_config *c, tt_weights_mode mode,
                     void (*progress)(void *, double), void *arg, tt_err *e);

#endif
