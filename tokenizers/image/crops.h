/* crops.h - the places COMiT looks at: equal squares on a grid over the picture, in raster order,
 * behind the whole picture if it is looked at too. No weights. */
#ifndef TT_IMAGE_CROPS_H
#define TT_IMAGE_CROPS_H

#include "tokenizers/image.h"

typedef struct {
    int32_t picture, crop, stride; /* pixels */
    int32_t grid;                  /* crops along a side */
} tt_crop_grid;

/* Key `tutti_geometry` of a config: {"picture", "crop", "stride"}; without it what released models
 * have, 256, 96 and 80 pixels. TT_EFORMAT when the crops do not end at the picture's edge, or there
 * are more than TT_MAX_CROPS. */
tt_status tt_crops_open(tt_crop_grid *g, tt_config *c, tt_err *e);

static inline bool tt_crop_is_whole(const tt_crop_policy *how, int32_t crop)
{
    return how->whole && crop == 0;
}
/* Pixels of a crop's side, and its left upper corner, x and y. */
int32_t tt_crop_side(const tt_crop_grid *g, const tt_crop_policy *how, int32_t crop);
void tt_crop_corner(const tt_crop_grid *g, const tt_crop_policy *how, int32_t crop, int32_t at[2]);
/* Its middle in [-1, 1], x and y; the whole picture's is 0. */
void tt_crop_location(const tt_crop_grid *g, const tt_crop_policy *how, int32_t crop, float at[2]);

/* The crops in the order they are looked at, as far as it is known before; returns how many there
 * will be. how: checked. */
int32_t tt_crops_plan(const tt_crop_grid *g, const tt_crop_policy *how,
                      int32_t chosen[TT_MAX_CROPS + 1]);
/* score[grid x grid]: mean over a crop of the squared distances of two pictures, summed over
 * colours. Planes of 3 x picture x picture. */
void tt_crops_score(const tt_crop_grid *g, float *score, const float *painted,
                    const float *planes);

#endif
