/* crops.c - see crops.h. */
#include "tokenizers/image/crops.h"

#include "kernels/base/rng.h"

tt_status tt_crops_open(tt_crop_grid *g, tt_config *c, tt_err *e)
{
    tt_config *own = NULL;
    *g = (tt_crop_grid){256, 96, 80, 3};
    tt_status s = TT_OK;
    if (tt_config_has(c, "tutti_geometry")) {
        s = tt_config_member(&own, c, "tutti_geometry", e);
        if (!s) {
            g->picture = (int32_t)tt_config_need_int(own, "picture", 1, 1 << 13);
            g->crop = (int32_t)tt_config_need_int(own, "crop", 1, 1 << 13);
            g->stride = (int32_t)tt_config_need_int(own, "stride", 1, 1 << 13);
            s = tt_config_status(own, e);
        }
        tt_config_close(own);
    }
    if (s)
        return s;
    int32_t room = g->picture - g->crop;
    g->grid = room >= 0 ? room / g->stride + 1 : 0;
    return room >= 0 && room % g->stride == 0 && g->grid <= 8
               ? TT_OK
               : tt_fail(e, TT_EFORMAT, "config key 'tutti_geometry': crops of %d pixels every %d "
                         "in %d", g->crop, g->stride, g->picture);
}

int32_t tt_crop_side(const tt_crop_grid *g, const tt_crop_policy *how, int32_t crop)
{
    return tt_crop_is_whole(how, crop) ? g->picture : g->crop;
}

void tt_crop_corner(const tt_crop_grid *g, const tt_crop_policy *how, int32_t crop, int32_t at[2])
{
    int32_t local = crop - how->whole;
    at[0] = at[1] = 0;
    if (tt_crop_is_whole(how, crop))
        return;
    at[0] = local % g->grid * g->stride;
    at[1] = local / g->grid * g->stride;
}

void tt_crop_location(const tt_crop_grid *g, const tt_crop_policy *how, int32_t crop, float at[2])
{
    int32_t corner[2];
    at[0] = at[1] = 0;
    if (tt_crop_is_whole(how, crop))
        return;
    tt_crop_corner(g, how, crop, corner);
    for (int i = 0; i < 2; i++)
        at[i] = ((float)corner[i] + (float)g->crop / 2) / ((float)g->picture / 2) - 1;
}

/* A permutation by sorting random numbers; the whole picture stays in front. */
static void shuffle(const tt_crop_policy *how, int32_t *chosen, int32_t all)
{
    uint32_t key[TT_MAX_CROPS + 1];
    for (int32_t i = 0; i < all; i++) {
        tt_rng_address at = {.seed = how->seed, .position = (uint32_t)i};
        key[i] = tt_crop_is_whole(how, i) ? 0 : tt_rng_at(at, 0).v[0] | 1;
        int32_t k = i;
        for (; k > 0 && key[chosen[k - 1]] > key[i]; k--)
            chosen[k] = chosen[k - 1];
        chosen[k] = i;
    }
}

int32_t tt_crops_plan(const tt_crop_grid *g, const tt_crop_policy *how,
                      int32_t chosen[TT_MAX_CROPS + 1])
{
    int32_t all = g->grid * g->grid + how->whole;
    int32_t crops = how->order == TT_CROPS_LIST ? how->listed : all;
    for (int32_t i = 0; i < crops; i++)
        chosen[i] = how->order == TT_CROPS_LIST ? how->list[i] : i;
    if (how->order == TT_CROPS_RANDOM)
        shuffle(how, chosen, all);
    if (how->order == TT_CROPS_ADAPTIVE) /* the middle */
        chosen[0] = how->whole ? 0 : g->grid / 2 * (g->grid + 1);
    return how->crops ? how->crops : crops;
}

void tt_crops_score(const tt_crop_grid *g, float *score, const float *painted,
                    const float *planes)
{
    int64_t side = g->picture;
    for (int32_t k = 0; k < g->grid * g->grid; k++) {
        int64_t left = k % g->grid * g->stride, top = k / g->grid * g->stride;
        double sum = 0;
        for (int64_t ch = 0; ch < 3; ch++)
            for (int64_t y = 0; y < g->crop; y++)
                for (int64_t x = 0; x < g->crop; x++) {
                    int64_t i = (ch * side + top + y) * side + left + x;
                    double d = (double)painted[i] - planes[i];
                    sum += d * d;
                }
        score[k] = (float)(sum / ((double)g->crop * g->crop));
    }
}
