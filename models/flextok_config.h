/* flextok_config.h - FlexTok's lists of modules, read into what the networks need. */
#ifndef TT_FLEXTOK_CONFIG_H
#define TT_FLEXTOK_CONFIG_H

#include "models/model.h"

/* Names of modules, as tensors are called by; "" where there is none. */
typedef struct {
    char patches[64], patch_places[64], register_places[64], registers[64], trunk[64], head[64];
    char from[64], dropout[64], null[64], time[64];
} tt_flextok_names;

/* One of the two transformers. */
typedef struct {
    tt_flextok_names name;
    int64_t width, layers, head_dim;
    bool gated, head_norms;
    int64_t expansion;            /* sets of modulations; 0: none */
    int32_t channels, patch[2];   /* of latents */
    int32_t grid[2];              /* patches: rows, columns */
    int32_t tokens, dims;
    bool learned_null;            /* else zeros stand where no token counts */
    int64_t waves;                /* numbers of a time before its MLP */
    double longest;               /* max_timestep */
} tt_flextok_side;

/* key: "encoder" or "decoder". TT_EFORMAT naming the key, TT_EUNSUP naming the module. */
tt_status tt_flextok_read(tt_flextok_side *out, tt_config *c, const char *key, tt_err *e);

#endif
