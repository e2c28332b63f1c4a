/* resize.c - the Python Imaging Library's bicubic filter in fixed point. */
#include "tokenizers/resize.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { BITS = 22 };

static double cubic(double x)
{
    x = fabs(x);
    if (x < 1)
        return (1.5 * x - 2.5) * x * x + 1;
    return x < 2 ? -0.5 * (((x - 5) * x + 8) * x - 4) : 0;
}

/* One output pixel: the inputs it reads, [first, first + count), and their weights. */
typedef struct {
    int32_t first, count;
} reach;

typedef struct {
    reach *reach;
    int32_t *weight; /* `most` for each output */
    int32_t most;
} filter;

static void filter_close(filter *f)
{
    free(f->reach);
    free(f->weight);
}

static void fill_output(filter *f, int32_t o, double scale, double wide, int32_t in,
                        double *weight)
{
    double centre = (o + 0.5) * scale, support = 2 * wide, sum = 0, inverse = 1 / wide;
    int32_t low = (int32_t)(centre - support + 0.5), high = (int32_t)(centre + support + 0.5);
    low = low < 0 ? 0 : low;
    high = high > in ? in : high;
    for (int32_t i = low; i < high; i++)
        sum += weight[i - low] = cubic((i - centre + 0.5) * inverse);
    f->reach[o] = (reach){low, high - low};
    for (int32_t i = 0; i < high - low; i++) {
        double w = sum != 0 ? weight[i] * (1 / sum) : weight[i];
        f->weight[(int64_t)o * f->most + i] = (int32_t)(w * (1 << BITS) + (w < 0 ? -0.5 : 0.5));
    }
}

static tt_status filter_open(filter *f, int32_t in, int32_t out, tt_err *e)
{
    double scale = (double)in / out, wide = scale > 1 ? scale : 1;
    f->most = (int32_t)ceil(2 * wide) * 2 + 1;
    f->reach = malloc((size_t)out * sizeof *f->reach);
    f->weight = malloc((size_t)out * (size_t)f->most * sizeof *f->weight);
    double *weight = malloc((size_t)f->most * sizeof *weight);
    bool ok = f->reach && f->weight && weight;
    for (int32_t o = 0; o < out && ok; o++)
        fill_output(f, o, scale, wide, in, weight);
    free(weight);
    return ok ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory to scale a picture");
}

static uint8_t clip(int64_t sum)
{
    sum >>= BITS;
    return sum < 0 ? 0 : sum > 255 ? 255 : (uint8_t)sum;
}

/* One line of `out` pixels, `step` bytes apart, from inputs `step` bytes apart. */
static void apply(const filter *f, uint8_t *to, const uint8_t *from, int32_t out, int64_t step)
{
    for (int32_t o = 0; o < out; o++) {
        const reach *r = &f->reach[o];
        const int32_t *w = &f->weight[(int64_t)o * f->most];
        int64_t sum = 1 << (BITS - 1);
        for (int32_t i = 0; i < r->count; i++)
            sum += (int64_t)w[i] * from[(r->first + i) * step];
        to[o * step] = clip(sum);
    }
}

static tt_status across(uint8_t *to, int32_t to_width, const uint8_t *from, int32_t width,
                        int32_t height, int32_t channels, tt_err *e)
{
    filter f = {0};
    tt_status s = filter_open(&f, width, to_width, e);
    for (int32_t y = 0; y < height && !s; y++)
        for (int32_t c = 0; c < channels; c++)
            apply(&f, to + (int64_t)y * to_width * channels + c,
                  from + (int64_t)y * width * channels + c, to_width, channels);
    filter_close(&f);
    return s;
}

static tt_status down(uint8_t *to, int32_t to_height, const uint8_t *from, int32_t width,
                      int32_t height, int32_t channels, tt_err *e)
{
    filter f = {0};
    int64_t row = (int64_t)width * channels;
    tt_status s = filter_open(&f, height, to_height, e);
    for (int64_t x = 0; x < row && !s; x++)
        apply(&f, to + x, from + x, to_height, row);
    filter_close(&f);
    return s;
}

static bool side_fits(int32_t side)
{
    return side >= 1 && side <= TT_MAX_SIDE;
}

tt_status tt_resize_bicubic(uint8_t *out, int32_t to_width, int32_t to_height, const uint8_t *in,
                            int32_t width, int32_t height, int32_t channels, tt_err *e)
{
    if (!side_fits(to_width) || !side_fits(to_height) || !side_fits(width) || !side_fits(height))
        return tt_fail(e, TT_EINVAL, "picture of %d x %d to %d x %d: sides are 1 to %d pixels",
                       width, height, to_width, to_height, TT_MAX_SIDE);
    if (channels < 1 || channels > 4)
        return tt_fail(e, TT_EINVAL, "picture of %d channels: 1 to 4 are possible", channels);
    if (to_width == width && to_height == height) {
        memcpy(out, in, (size_t)width * (size_t)height * (size_t)channels);
        return TT_OK;
    }
    if (to_height == height)
        return across(out, to_width, in, width, height, channels, e);
    if (to_width == width)
        return down(out, to_height, in, width, height, channels, e);
    uint8_t *middle = malloc((size_t)to_width * (size_t)height * (size_t)channels);
    if (!middle)
        return tt_fail(e, TT_ENOMEM, "no memory to scale a picture");
    tt_status s = across(middle, to_width, in, width, height, channels, e);
    if (!s)
        s = down(out, to_height, middle, to_width, height, channels, e);
    free(middle);
    return s;
}

tt_status tt_resize_crop(uint8_t *out, int32_t side, const uint8_t *in, int32_t width,
                         int32_t height, tt_err *e)
{
    if (!side_fits(side) || !side_fits(width) || !side_fits(height))
        return tt_fail(e, TT_EINVAL, "picture of %d x %d to %d: sides are 1 to %d pixels", width,
                       height, side, TT_MAX_SIDE);
    int32_t shorter = width < height ? width : height;
    int64_t w = (int64_t)side * width / shorter, h = (int64_t)side * height / shorter;
    if (w > TT_MAX_SIDE || h > TT_MAX_SIDE)
        return tt_fail(e, TT_EINVAL, "picture of %d x %d is too long for its height", width,
                       height);
    uint8_t *scaled = malloc((size_t)(w * h) * 3);
    if (!scaled)
        return tt_fail(e, TT_ENOMEM, "no memory to scale a picture");
    tt_status s = tt_resize_bicubic(scaled, (int32_t)w, (int32_t)h, in, width, height, 3, e);
    int64_t left = (int64_t)nearbyint((double)(w - side) / 2); /* halves to even */
    int64_t top = (int64_t)nearbyint((double)(h - side) / 2);
    for (int32_t y = 0; y < side && !s; y++)
        memcpy(out + (int64_t)y * side * 3, scaled + ((top + y) * w + left) * 3, (size_t)side * 3);
    free(scaled);
    return s;
}

void tt_image_normalise(float *out, const uint8_t *in, int64_t pixels, const float mean[3],
                        const float deviation[3])
{
    for (int c = 0; c < 3; c++)
        for (int64_t i = 0; i < pixels; i++)
            out[c * pixels + i] = ((float)in[i * 3 + c] / 255.0f - mean[c]) / deviation[c];
}
