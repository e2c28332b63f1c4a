/* pictures.c - see pictures.h. */
#include "samplers/verify/pictures.h"

#include <stdlib.h>

#include "tokenizers/resize.h"

float *tt_verify_planes(const tt_exhibit *x, int32_t n, int32_t side, const float mean[3],
                        const float deviation[3], tt_err *e)
{
    size_t pixels = (size_t)side * (size_t)side;
    uint8_t *small = malloc(pixels * 3);
    float *planes = calloc((size_t)n, pixels * 3 * sizeof *planes);
    tt_status s = small && planes ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for %d pictures", n);
    for (int32_t i = 0; i < n && !s; i++) {
        s = tt_resize_crop(small, side, x[i].rgb, x[i].width, x[i].height, e);
        if (!s)
            tt_image_normalise(planes + (size_t)i * pixels * 3, small, (int64_t)pixels, mean,
                               deviation);
    }
    free(small);
    if (!s)
        return planes;
    free(planes);
    return NULL;
}
