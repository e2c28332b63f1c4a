/* image.c - operations on images whose pixels are rows: convolution, GroupNorm, pooling, vector
 * quantisation. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

static bool bad_image(const tt_image_shape *p)
{
    const int64_t most = (int64_t)1 << 31;
    return p->images < 0 || p->images > most || p->height < 1 || p->height > most || p->width < 1 ||
           p->width > most || p->channels < 1 || p->channels > most ||
           p->height * p->width > most || p->images * p->height > most / p->width ||
           (p->up && (p->height % 2 || p->width % 2));
}

static tt_status image_error(const char *name, const tt_image_shape *p, int64_t ld, tt_err *e)
{
    return tt_fail(e, TT_EINVAL,
                   "%s: %lld images of %lld x %lld pixels, %lld channels, stride %lld", name,
                   (long long)p->images, (long long)p->height, (long long)p->width,
                   (long long)p->channels, (long long)ld);
}

/* --- convolution: rows of nine neighbouring pixels, then the table's own matrix product --- */

/* Pixels whose neighbours are gathered at a time, so that they stay cached. */
enum { PATCHES = 384 };

typedef struct {
    float *out;
    const float *x;
    int64_t ldx, first;
    const tt_image_shape *shape;
} patch_job;

/* The neighbours of one pixel: three times three runs of channels. */
static void patch(float *out, const patch_job *job, int64_t pixel)
{
    const tt_image_shape *p = job->shape;
    int64_t column = pixel % p->width, row = pixel / p->width % p->height, c = p->channels;
    int64_t image = pixel / p->width / p->height, half = p->up ? 1 : 0;
    int64_t height = p->height >> half, width = p->width >> half;
    for (int u = -1; u <= 1; u++)
        for (int v = -1; v <= 1; v++, out += c) {
            int64_t y = row + u, x = column + v;
            bool inside = y >= 0 && y < p->height && x >= 0 && x < p->width;
            int64_t at = (image * height + (y >> half)) * width + (x >> half);
            if (inside)
                memcpy(out, job->x + at * job->ldx, (size_t)c * sizeof *out);
            else
                memset(out, 0, (size_t)c * sizeof *out);
        }
}

static void patch_rows(void *arg, int64_t first, int64_t count)
{
    const patch_job *job = arg;
    for (int64_t r = first; r < first + count; r++)
        patch(job->out + r * 9 * job->shape->channels, job, job->first + r);
}

tt_status tt_cpu_conv3x3(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                         const tt_image_shape *shape, const tt_matrix *w, bool add, tt_err *e)
{
    int64_t n, k, wide = 9 * shape->channels;
    s->op.matrix_size(w, &n, &k, NULL);
    if (bad_image(shape) || ldx < shape->channels || ldy < n || k != wide)
        return image_error("conv3x3", shape, ldx, e);
    int64_t rows = shape->images * shape->height * shape->width;
    int64_t most = rows < PATCHES ? rows : PATCHES;
    void *scratch; /* not s->scratch, which the product takes */
    tt_status st = tt_cpu_scratch(&s->tile, &scratch, (size_t)(most * wide) * sizeof(float), e);
    for (int64_t r = 0; r < rows && !st; r += most) {
        int64_t count = rows - r < most ? rows - r : most;
        patch_job job = {scratch, x, ldx, r, shape};
        tt_cpu_over_rows(s, count, wide, patch_rows, &job);
        st = s->op.linear(s, (float *)y + r * ldy, ldy, scratch, wide, count, w, add, e);
    }
    return st;
}

/* --- GroupNorm --- */

typedef struct {
    float *y;
    const float *x, *w, *b;
    int64_t ldy, ldx, pixels, channels, groups;
    float eps;
    bool silu;
} group_job;

static void group(const group_job *job, int64_t image, int64_t g)
{
    int64_t c = job->channels / job->groups;
    const float *x = job->x + image * job->pixels * job->ldx + g * c;
    float *y = job->y + image * job->pixels * job->ldy + g * c;
    double mean = 0, variance = 0, n = (double)(job->pixels * c);
    for (int64_t r = 0; r < job->pixels; r++)
        for (int64_t i = 0; i < c; i++)
            mean += x[r * job->ldx + i];
    mean /= n;
    for (int64_t r = 0; r < job->pixels; r++)
        for (int64_t i = 0; i < c; i++)
            variance += (x[r * job->ldx + i] - mean) * (x[r * job->ldx + i] - mean);
    double inv = 1.0 / sqrt(variance / n + job->eps);
    for (int64_t r = 0; r < job->pixels; r++)
        for (int64_t i = 0; i < c; i++) {
            double v = (x[r * job->ldx + i] - mean) * inv * job->w[g * c + i] + job->b[g * c + i];
            y[r * job->ldy + i] = (float)(job->silu ? v / (1.0 + exp(-v)) : v);
        }
}

static void group_rows(void *arg, int64_t first, int64_t count)
{
    const group_job *job = arg;
    for (int64_t i = first; i < first + count; i++)
        group(job, i / job->groups, i % job->groups);
}

tt_status tt_cpu_group_norm_check(int64_t ldy, int64_t ldx, int64_t images, int64_t pixels,
                                  int64_t channels, int64_t groups, tt_err *e)
{
    tt_image_shape shape = {images, 1, pixels, channels, false};
    if (bad_image(&shape) || ldx < channels || ldy < channels || groups < 1 || channels % groups)
        return tt_fail(e, TT_EINVAL, "group_norm: %lld images of %lld pixels, %lld channels in "
                       "%lld groups, stride %lld", (long long)images, (long long)pixels,
                       (long long)channels, (long long)groups, (long long)(ldx < ldy ? ldx : ldy));
    return TT_OK;
}

tt_status tt_cpu_group_norm(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                            const float *w, const float *b, int64_t images, int64_t pixels,
                            int64_t channels, int64_t groups, float eps, bool silu, tt_err *e)
{
    tt_status st = tt_cpu_group_norm_check(ldy, ldx, images, pixels, channels, groups, e);
    if (st)
        return st;
    group_job job = {y, x, w, b, ldy, ldx, pixels, channels, groups, eps, silu};
    tt_cpu_over_rows(s, images * groups, pixels * channels / groups * 4, group_rows, &job);
    return TT_OK;
}

/* --- pooling --- */

typedef struct {
    float *y;
    const float *x;
    int64_t ldy, ldx, width, channels; /* width of y */
} pool_job;

static void pool_rows(void *arg, int64_t first, int64_t count)
{
    const pool_job *job = arg;
    for (int64_t r = first; r < first + count; r++) {
        /* Rows of pixels are numbered through all images; each is made of two. */
        const float *a = job->x + (r / job->width * 4 * job->width + r % job->width * 2) * job->ldx;
        const float *b = a + 2 * job->width * job->ldx;
        float *y = job->y + r * job->ldy;
        for (int64_t i = 0; i < job->channels; i++)
            y[i] = 0.25f * ((a[i] + a[job->ldx + i]) + (b[i] + b[job->ldx + i]));
    }
}

tt_status tt_cpu_average_pool(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                              const tt_image_shape *shape, tt_err *e)
{
    if (bad_image(shape) || shape->up || shape->height % 2 || shape->width % 2 ||
        ldx < shape->channels || ldy < shape->channels)
        return image_error("average_pool", shape, ldx < ldy ? ldx : ldy, e);
    pool_job job = {y, x, ldy, ldx, shape->width / 2, shape->channels};
    int64_t rows = shape->images * shape->height * shape->width / 4;
    tt_cpu_over_rows(s, rows, shape->channels, pool_rows, &job);
    return TT_OK;
}

/* --- vector quantisation --- */

typedef struct {
    int32_t *id;
    float *distance;
    const float *x, *code;
    int64_t ldx, codes, dim;
} nearest_job;

static void nearest_rows(void *arg, int64_t first, int64_t count)
{
    const nearest_job *job = arg;
    for (int64_t r = first; r < first + count; r++) {
        const float *x = job->x + r * job->ldx;
        double best = INFINITY, second = INFINITY;
        int32_t at = 0;
        for (int64_t k = 0; k < job->codes; k++) {
            const float *code = job->code + k * job->dim;
            double sum = 0;
            for (int64_t i = 0; i < job->dim; i++)
                sum += ((double)x[i] - code[i]) * ((double)x[i] - code[i]);
            if (sum < best) {
                second = best;
                best = sum;
                at = (int32_t)k;
            } else if (sum < second) {
                second = sum;
            }
        }
        job->id[r] = at;
        if (job->distance) {
            job->distance[2 * r] = (float)best;
            job->distance[2 * r + 1] = (float)second;
        }
    }
}

tt_status tt_cpu_nearest(tt_stream *s, int32_t *id, float *distance, const tt_act *x, int64_t ldx,
                         int64_t rows, const float *code, int64_t codes, int64_t dim, tt_err *e)
{
    if (tt_cpu_bad_shape(rows, dim, ldx) || codes < 1 || codes > INT32_MAX)
        return tt_fail(e, TT_EINVAL, "nearest: %lld rows of %lld, stride %lld, %lld codes",
                       (long long)rows, (long long)dim, (long long)ldx, (long long)codes);
    nearest_job job = {id, distance, x, code, ldx, codes, dim};
    tt_cpu_over_rows(s, rows, codes * dim, nearest_rows, &job);
    return TT_OK;
}
