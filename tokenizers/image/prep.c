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

/* The most inputs an output is made of. */
static int64_t most_taps(const filter *f, int64_t in, int64_t out)
{
    double scale = (double)in / (double)out;
    return (int64_t)(2 * f->support * (scale > 1 ? scale : 1)) + 2;
}

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

/* A mean of two, as most of a halving is: whole numbers give the same byte. */
static bool is_mean(const taps *t)
{
    return t->count == 2 && t->weight[0] == 0.5 && t->weight[1] == 0.5;
}

/* --- a resized picture, made row after row ---
 *
 * A picture of 4096 x 4096 is halved several times. Each size asks the one before for the rows it
 * needs and keeps the few that its next row is made of, so the picture is read once, from its first
 * row to its last, and no smaller one is ever whole in memory. */

typedef struct picture {
    const uint8_t *rgb; /* all of it; or NULL, and it is made of `from`: */
    struct picture *from;
    const filter *f;
    int64_t w, h;
    taps *across;  /* w of them; the first one's weights are everyone's memory */
    taps down;     /* of the row being made */
    uint8_t *kept; /* `room` rows of `from`, resized to w; row y at y % room */
    int64_t room, next; /* rows below `next` were asked for */
    uint8_t *row;
} picture;

static void picture_close(picture *p)
{
    if (p->across)
        free(p->across[0].weight);
    free(p->across);
    free(p->down.weight);
    free(p->kept);
    free(p->row);
}

/* Closed by the caller whether or not it succeeds. */
static tt_status picture_open(picture *p, picture *from, int64_t w, int64_t h, const filter *f,
                              tt_err *e)
{
    int64_t most = most_taps(f, from->w, w);
    *p = (picture){.from = from, .f = f, .w = w, .h = h, .room = most_taps(f, from->h, h)};
    p->across = calloc((size_t)w, sizeof *p->across);
    double *weight = p->across ? malloc((size_t)(w * most) * sizeof *weight) : NULL;
    if (weight)
        p->across[0].weight = weight;
    p->down.weight = malloc((size_t)p->room * sizeof *weight);
    p->kept = malloc((size_t)(p->room * w * 3));
    p->row = malloc((size_t)(w * 3));
    if (!weight || !p->down.weight || !p->kept || !p->row)
        return tt_fail(e, TT_ENOMEM, "no memory to resize a picture of %lld x %lld",
                       (long long)from->w, (long long)from->h);
    for (int64_t o = 0; o < w; o++) {
        p->across[o].weight = weight + o * most;
        find_taps(&p->across[o], f, from->w, w, o);
    }
    return TT_OK;
}

static void resize_row(const picture *p, uint8_t *out, const uint8_t *in)
{
    for (int64_t o = 0; o < p->w; o++, out += 3) {
        const taps *t = &p->across[o];
        const uint8_t *from = in + t->first * 3;
        if (is_mean(t)) {
            for (int c = 0; c < 3; c++)
                out[c] = (uint8_t)((from[c] + from[c + 3] + 1) >> 1);
            continue;
        }
        double sum[3] = {0};
        for (int64_t i = 0; i < t->count; i++)
            for (int c = 0; c < 3; c++)
                sum[c] += t->weight[i] * from[i * 3 + c];
        for (int c = 0; c < 3; c++)
            out[c] = to_byte(sum[c]);
    }
}

static const uint8_t *kept_row(const picture *p, int64_t i)
{
    return p->kept + (p->down.first + i) % p->room * p->w * 3;
}

static void join_rows(picture *p)
{
    const taps *t = &p->down;
    if (is_mean(t)) {
        const uint8_t *a = kept_row(p, 0), *b = kept_row(p, 1);
        for (int64_t i = 0; i < p->w * 3; i++)
            p->row[i] = (uint8_t)((a[i] + b[i] + 1) >> 1);
        return;
    }
    for (int64_t i = 0; i < p->w * 3; i++) {
        double sum = 0;
        for (int64_t r = 0; r < t->count; r++)
            sum += t->weight[r] * kept_row(p, r)[i];
        p->row[i] = to_byte(sum);
    }
}

/* Row y, good until the next call; y only grows. */
static const uint8_t *picture_row(picture *p, int64_t y)
{
    if (p->rgb)
        return p->rgb + y * p->w * 3;
    find_taps(&p->down, p->f, p->from->h, p->h, y);
    if (p->next < p->down.first)
        p->next = p->down.first;
    for (; p->next < p->down.first + p->down.count; p->next++)
        resize_row(p, p->kept + p->next % p->room * p->w * 3, picture_row(p->from, p->next));
    join_rows(p);
    return p->row;
}

/* --- from any size to a codec's --- */

enum { SIZES = 20 }; /* a side of at most 2^16 is halved less often */

typedef struct {
    picture size[SIZES]; /* as given, halved, ..., the last one */
    int n;
} series;

static tt_status add_size(series *s, int64_t w, int64_t h, const filter *f, tt_err *e)
{
    picture *from = &s->size[s->n - 1];
    return picture_open(&s->size[s->n++], from, w, h, f, e);
}

/* Sizes are rounded half to even, as Python's round() does. */
static tt_status cover(series *s, int64_t width, int64_t height, tt_err *e)
{
    const picture *p = s->size;
    tt_status st = TT_OK;
    for (; p->w >= 2 * width && p->h >= 2 * height && !st; p = &s->size[s->n - 1])
        st = add_size(s, p->w / 2, p->h / 2, &box, e);
    if (st)
        return st;
    double scale = fmax((double)width / (double)p->w, (double)height / (double)p->h);
    int64_t w = (int64_t)nearbyint((double)p->w * scale);
    int64_t h = (int64_t)nearbyint((double)p->h * scale);
    return add_size(s, w < width ? width : w, h < height ? height : h, &cubic, e);
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
    series s = {.size = {{.rgb = rgb, .w = w, .h = h}}, .n = 1};
    tt_status st = w == width && h == height ? TT_OK : cover(&s, width, height, e);
    picture *last = &s.size[s.n - 1];
    int64_t left = (last->w - width) / 2, top = (last->h - height) / 2;
    for (int64_t y = 0; y < height && !st; y++) {
        const uint8_t *row = picture_row(last, top + y) + left * 3;
        for (int64_t i = 0; i < (int64_t)width * 3; i++)
            out[y * width * 3 + i] = (float)row[i] / 255.0f;
    }
    for (int i = 0; i < s.n; i++)
        picture_close(&s.size[i]);
    return st;
}

void tt_image_to_bytes(uint8_t *out, const float *pixels, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = to_byte((double)pixels[i] * 255);
}
