/* prep.c - pictures of any size to a codec's: as ADM's and ENAT's evaluation code prepares
 * photographs, in the arithmetic of Pillow's resize() (two passes, each rounded to 8 bits). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizers/image.h"

typedef struct {
    double support; /* at scale 1 */
    double (*weight)(double x);
} filter;

static double box_weight(double x)
{
    return x > -0.5 && x <= 0.5 ? 1 : 0;
}

/* Keys' cubic with a = -1/2. */
static double cubic_weight(double x)
{
    x = fabs(x);
    if (x < 1)
        return (1.5 * x - 2.5) * x * x + 1;
    return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

static const filter box = {0.5, box_weight}, cubic = {2, cubic_weight};

/* Which inputs make an output, [first, first + count), and how much of each. */
typedef struct {
    int64_t first, count;
    double *weight;
} taps;

static void find_taps(taps *t, const filter *f, int64_t in, int64_t out, int64_t at)
{
    double scale = (double)in / (double)out, wide = scale > 1 ? scale : 1, sum = 0;
    double centre = ((double)at + 0.5) * scale;
    double low = centre - f->support * wide + 0.5, high = centre + f->support * wide + 0.5;
    t->first = low > 0 ? (int64_t)low : 0;
    t->count = (high < (double)in ? (int64_t)high : in) - t->first;
    for (int64_t i = 0; i < t->count; i++)
        sum += t->weight[i] = f->weight(((double)(t->first + i) - centre + 0.5) / wide);
    for (int64_t i = 0; i < t->count && sum != 0; i++)
        t->weight[i] /= sum;
}

static uint8_t to_byte(double v)
{
    return v <= 0 ? 0 : v >= 255 ? 255 : (uint8_t)(v + 0.5);
}

/* Resizes `lines` lines of `in` pixels; pixels of a line are `step` bytes apart, lines `ld`. */
static void resize_lines(uint8_t *out, int64_t n_out, int64_t out_step, int64_t out_ld,
                         const uint8_t *in, int64_t n_in, int64_t in_step, int64_t in_ld,
                         int64_t lines, const filter *f, double *weight)
{
    taps t = {.weight = weight};
    for (int64_t o = 0; o < n_out; o++) {
        find_taps(&t, f, n_in, n_out, o);
        for (int64_t l = 0; l < lines; l++)
            for (int c = 0; c < 3; c++) {
                const uint8_t *from = in + l * in_ld + t.first * in_step + c;
                double sum = 0;
                for (int64_t i = 0; i < t.count; i++)
                    sum += t.weight[i] * from[i * in_step];
                out[l * out_ld + o * out_step + c] = to_byte(sum);
            }
    }
}

typedef struct {
    uint8_t *rgb; /* allocated */
    int64_t w, h;
} picture;

/* Replaces the picture by one of w x h. */
static tt_status resize(picture *p, int64_t w, int64_t h, const filter *f, tt_err *e)
{
    int64_t longest = p->w > p->h ? p->w : p->h;
    uint8_t *flat = malloc((size_t)(w * p->h * 3)), *out = malloc((size_t)(w * h * 3));
    double *weight = malloc((size_t)(longest + 8) * sizeof *weight);
    tt_status st = flat && out && weight
                       ? TT_OK
                       : tt_fail(e, TT_ENOMEM, "no memory to resize a picture of %lld x %lld",
                                 (long long)p->w, (long long)p->h);
    if (!st) {
        resize_lines(flat, w, 3, w * 3, p->rgb, p->w, 3, p->w * 3, p->h, f, weight);
        resize_lines(out, h, w * 3, 3, flat, p->h, w * 3, 3, w, f, weight);
        free(p->rgb);
        *p = (picture){out, w, h};
        out = NULL;
    }
    free(flat);
    free(out);
    free(weight);
    return st;
}

/* Sizes are rounded half to even, as Python's round() does. */
static tt_status cover(picture *p, int64_t width, int64_t height, tt_err *e)
{
    tt_status st = TT_OK;
    while (p->w >= 2 * width && p->h >= 2 * height && !st)
        st = resize(p, p->w / 2, p->h / 2, &box, e);
    if (st)
        return st;
    double scale = fmax((double)width / (double)p->w, (double)height / (double)p->h);
    int64_t w = (int64_t)nearbyint((double)p->w * scale);
    int64_t h = (int64_t)nearbyint((double)p->h * scale);
    w = w < width ? width : w;
    h = h < height ? height : h;
    return resize(p, w, h, &cubic, e);
}

tt_status tt_image_fit(float *out, int32_t width, int32_t height, const uint8_t *rgb, int32_t w,
                       int32_t h, tt_err *e)
{
    enum { MOST = 1 << 16 };
    if (w < 1 || h < 1 || width < 1 || height < 1 || w > MOST || h > MOST || width > MOST ||
        height > MOST)
        return tt_fail(e, TT_EINVAL, "a picture of %d x %d cannot become %d x %d", w, h, width,
                       height);
    /* A strip would have to be enlarged beyond reason before its middle can be cut out. */
    if ((int64_t)w > 64 * (int64_t)h || (int64_t)h > 64 * (int64_t)w)
        return tt_fail(e, TT_EINVAL, "a picture of %d x %d is too narrow", w, h);
    size_t bytes = (size_t)w * (size_t)h * 3;
    picture p = {malloc(bytes), w, h};
    if (!p.rgb)
        return tt_fail(e, TT_ENOMEM, "no memory for a picture of %d x %d", w, h);
    memcpy(p.rgb, rgb, bytes);
    tt_status st = w == width && h == height ? TT_OK : cover(&p, width, height, e);
    int64_t left = (p.w - width) / 2, top = (p.h - height) / 2;
    for (int64_t y = 0; y < height && !st; y++)
        for (int64_t i = 0; i < (int64_t)width * 3; i++)
            out[y * width * 3 + i] = (float)p.rgb[((top + y) * p.w + left) * 3 + i] / 255.0f;
    free(p.rgb);
    return st;
}

void tt_image_to_bytes(uint8_t *out, const float *pixels, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = to_byte((double)pixels[i] * 255);
}
