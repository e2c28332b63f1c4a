/* patches.h - the beginning of a vision transformer: square patches of a picture projected, a class
 * token before them, places added.
 *
 *   x[0] = class + place[0];  x[1 + i] = W patch_i + b + place[1 + i], patches in raster order */
#ifndef TT_PATCHES_H
#define TT_PATCHES_H

#include "models/nn/vit.h"

typedef struct {
    int32_t side, patch; /* pixels of the picture and of a patch */
    int64_t rows;        /* 1 + patches */
    tt_matrix *matrix;   /* [width, 3 patch^2], its bias left out */
    float *place;        /* host: rows x width; class and bias are in it */
} tt_patches;

typedef struct {
    const char *kernel, *bias, *class_token, *place; /* bias may be NULL */
} tt_patch_names;

/* side and patch must be set. TT_EFORMAT naming the tensor. */
tt_status tt_patches_bind(tt_patches *p, const tt_vit *v, const tt_bind *bind,
                          const tt_patch_names *names, tt_err *e);
void tt_patches_close(tt_patches *p, tt_stream *s);

/* x: images x rows x width, allocated here, to be released. planes: images x 3 x side x side. */
tt_status tt_patches_embed(const tt_patches *p, const tt_vit *v, tt_act **x, const float *planes,
                           int64_t images, tt_err *e);

#endif
