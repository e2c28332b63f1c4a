/* table.c - every image codec, once; opening one, and the checks every call goes through. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "models/folder.h"
#include "tokenizers/image.h"

#define TT_CODECS(X) \
    X(vqgan)         \
    X(restok)        \
    X(comit)         \
    X(flextok)

#define DECLARE(id) extern const tt_codec_def tt_codec_##id;
TT_CODECS(DECLARE)

#define ENTRY(id) &tt_codec_##id,
static const tt_codec_def *const table[] = {TT_CODECS(ENTRY) NULL};

const tt_codec_def *const *tt_codec_all(void) { return table; }

const tt_codec_def *tt_codec_find(const char *name)
{
    for (const tt_codec_def *const *c = table; *c; c++)
        for (const char *const *a = (*c)->architectures; *a; a++)
            if (!strcmp(*a, name))
                return *c;
    return NULL;
}

static const tt_codec_def *named_in(tt_config *c, const char **name)
{
    *name = tt_config_family(c);
    if (**name)
        return tt_codec_find(*name);
    for (const tt_codec_def *const *d = table; *d; d++)
        if ((*d)->key && tt_config_has(c, (*d)->key))
            return *d;
    return NULL;
}

const tt_codec_def *tt_codec_in(const char *folder)
{
    tt_config *c;
    const char *name;
    if (tt_config_open(&c, folder, NULL))
        return NULL;
    const tt_codec_def *def = named_in(c, &name);
    tt_config_close(c);
    return def;
}

tt_status tt_codec_open(tt_codec **out, tt_weights **weights, tt_config **config, tt_stream *s,
                        const char *folder, tt_weights_mode mode, bool random, tt_err *e)
{
    *out = NULL;
    *weights = NULL;
    tt_status st = tt_config_open(config, folder, e);
    if (st)
        return st;
    const char *name;
    const tt_codec_def *def = named_in(*config, &name);
    if (!def)
        st = tt_fail(e, TT_EUNSUP, "'%.60s' in '%.100s/config.json' is no image codec known", name,
                     folder);
    if (!st)
        st = tt_folder_weights(weights, folder, random, e);
    if (!st) {
        st = def->open(out, s, *weights, *config, mode, e);
        if (st)
            tt_context(e, st, "'%.100s'", folder);
        tt_weights_rest(*weights);
    }
    return tt_folder_opened(st, weights, config);
}

void tt_codec_close(tt_codec *c)
{
    if (c)
        c->def->close(c);
}

static tt_status check_images(const tt_codec *c, int64_t images, tt_err *e)
{
    int64_t pixels = (int64_t)c->info.width * c->info.height;
    return images >= 0 && images <= INT32_MAX / pixels
               ? TT_OK
               : tt_fail(e, TT_EINVAL, "%lld images of %d x %d", (long long)images, c->info.width,
                         c->info.height);
}

static tt_status check_tokens(const tt_codec *c, const int32_t *id, int64_t images, tt_err *e)
{
    const tt_layout *l = &c->info.layout;
    for (int64_t i = 0; i < images * l->tokens; i++)
        if (id[i] < 0 || id[i] >= l->codes)
            return tt_fail(e, TT_EINVAL, "token %d of image %lld, at %lld, is outside the %d codes",
                           id[i], (long long)(i / l->tokens), (long long)(i % l->tokens), l->codes);
    return TT_OK;
}

tt_status tt_codec_check_keep(const tt_codec *c, int32_t keep, tt_err *e)
{
    const tt_layout *l = &c->info.layout;
    int32_t end = 0, i = 0;
    if (keep == l->tokens)
        return TT_OK;
    if (!c->info.prefix_decodable)
        return tt_fail(e, TT_EUNSUP, "%s images cannot be decoded from their first %d tokens of %d",
                       c->info.family, keep, l->tokens);
    if (l->kind == TT_LAYOUT_SEQUENCE && keep > 0 && keep < l->tokens)
        return TT_OK; /* every token is a level */
    while (i < l->levels && end < keep)
        end += l->level[i++];
    return end == keep && keep > 0
               ? TT_OK
               : tt_fail(e, TT_EINVAL, "%d tokens: no level ends there", keep);
}

static tt_status check_pixels(const tt_codec *c, const float *pixels, int64_t images, tt_err *e)
{
    int64_t one = (int64_t)c->info.height * c->info.width * 3;
    for (int64_t i = 0; i < images * one; i++)
        if (!(pixels[i] >= 0 && pixels[i] <= 1))
            return tt_fail(e, TT_EINVAL, "pixel value %g of image %lld is outside 0..1",
                           (double)pixels[i], (long long)(i / one));
    return TT_OK;
}

typedef struct {
    float *pixels;
    int64_t line; /* numbers of a line */
} clamp_job;

static void clamp_line(void *arg, int64_t i, int thread)
{
    const clamp_job *job = arg;
    (void)thread;
    for (float *p = job->pixels + i * job->line, *end = p + job->line; p < end; p++)
        *p = *p > 0 ? *p < 1 ? *p : 1 : 0; /* NaN becomes 0 */
}

static void clamp(const tt_codec *c, float *pixels, int64_t images)
{
    clamp_job job = {pixels, 3 * (int64_t)c->info.width};
    tt_pool_run(c->stream->pool, images * c->info.height, clamp_line, &job);
}

/* --- works --- */

tt_status tt_codec_check_reading(const tt_codec *c, const tt_crop_policy *how, tt_err *e)
{
    int32_t all = c->info.crops + how->whole, longest = all;
    if (!c->info.crops)
        return tt_fail(e, TT_EUNSUP, "%s pictures are read at once, not by crops",
                       c->info.family);
    if (how->order == TT_CROPS_LIST) {
        longest = how->listed;
        if (how->listed < 1 || how->listed > TT_MAX_CROPS)
            return tt_fail(e, TT_EINVAL, "a list of %d crops; 1 to %d are possible", how->listed,
                           TT_MAX_CROPS);
        for (int32_t i = 0; i < how->listed; i++)
            if (how->list[i] < 0 || how->list[i] >= all)
                return tt_fail(e, TT_EINVAL, "crop %d is not in 0..%d", how->list[i], all - 1);
    }
    if (how->crops < 0 || how->crops > longest)
        return tt_fail(e, TT_EINVAL, "%d crops of %d", how->crops, longest);
    if (how->order == TT_CROPS_ADAPTIVE && !how->crops)
        return tt_fail(e, TT_EINVAL, "an adaptive order needs to be told how many crops");
    return TT_OK;
}

tt_status tt_codec_check_painting(const tt_codec *c, const tt_painting *how, tt_err *e)
{
    if (!c->info.painting.steps)
        return tt_fail(e, TT_EUNSUP, "%s pictures are decoded in one pass: nothing can be chosen",
                       c->info.family);
    if (how->steps < 1 || how->steps > TT_MAX_PAINTING_STEPS)
        return tt_fail(e, TT_EINVAL, "%d steps are not in 1..%d", how->steps,
                       TT_MAX_PAINTING_STEPS);
    if (!(how->guidance >= 0 && how->guidance <= 100))
        return tt_fail(e, TT_EINVAL, "guidance %g is not in 0..100", how->guidance);
    if (!(how->momentum > -1 && how->momentum < 1))
        return tt_fail(e, TT_EINVAL, "momentum %g is not between -1 and 1", how->momentum);
    for (int i = 0; i < 2; i++)
        if (!(how->offset[i] >= -4 && how->offset[i] <= 4))
            return tt_fail(e, TT_EINVAL, "offset %g is not in -4..4", (double)how->offset[i]);
    return TT_OK;
}

static tt_status work_new(tt_codec_work **out, tt_codec *c, bool paints, tt_err *e)
{
    size_t own = paints ? c->def->paint_size : c->def->read_size;
    size_t tokens = (size_t)c->info.layout.tokens;
    tt_codec_work *w = calloc(1, own ? own : sizeof *w);
    *out = w;
    if (!w)
        return tt_fail(e, TT_ENOMEM, "no memory for a picture");
    *w = (tt_codec_work){.codec = c, .paints = paints, .of = 1};
    w->id = calloc(tokens, sizeof *w->id);
    bool ok = w->id;
    if (paints)
        ok = ok && (w->pixels = malloc((size_t)c->info.height * (size_t)c->info.width * 3 *
                                       sizeof *w->pixels));
    else if (c->def->step)
        ok = ok && (w->latent = calloc(tokens * (size_t)c->info.latent, sizeof *w->latent));
    return ok ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for a picture");
}

void tt_codec_drop(tt_codec_work *w)
{
    if (!w)
        return;
    if (w->codec->def->drop)
        w->codec->def->drop(w);
    free(w->id);
    free(w->pixels);
    free(w->latent);
    free(w);
}

tt_status tt_codec_read(tt_codec_work **out, tt_codec *c, const float *pixels,
                        const tt_crop_policy *how, tt_err *e)
{
    static const tt_crop_policy usual = {.order = TT_CROPS_RASTER};
    tt_codec_work *w = NULL;
    *out = NULL;
    tt_status s = check_pixels(c, pixels, 1, e);
    if (!s && how)
        s = tt_codec_check_reading(c, how, e);
    if (!s)
        s = work_new(&w, c, false, e);
    if (!s) {
        w->given = pixels;
        s = c->def->read ? c->def->read(w, how ? how : &usual, e) : TT_OK;
    }
    if (s)
        tt_codec_drop(w);
    else
        *out = w;
    return s;
}

tt_status tt_codec_paint(tt_codec_work **out, tt_codec *c, const int32_t *id, int32_t keep,
                         const tt_painting *how, tt_err *e)
{
    tt_codec_work *w = NULL;
    *out = NULL;
    keep = keep ? keep : c->info.layout.tokens;
    tt_status s = check_tokens(c, id, 1, e);
    if (!s)
        s = tt_codec_check_keep(c, keep, e);
    if (!s && how)
        s = tt_codec_check_painting(c, how, e);
    if (!s)
        s = work_new(&w, c, true, e);
    if (!s) {
        memcpy(w->id, id, (size_t)c->info.layout.tokens * sizeof *id);
        w->keep = keep;
        s = c->def->paint ? c->def->paint(w, how ? how : &c->info.painting, e) : TT_OK;
    }
    if (s)
        tt_codec_drop(w);
    else
        *out = w;
    return s;
}

/* One pass of a codec that needs no more; the works all read or all paint. */
static tt_status pass(tt_codec *c, tt_codec_work *const *w, int64_t n, tt_err *e)
{
    size_t tokens = (size_t)c->info.layout.tokens;
    size_t numbers = (size_t)c->info.width * (size_t)c->info.height * 3;
    int32_t *id = malloc((size_t)n * tokens * sizeof *id);
    int32_t *keep = malloc((size_t)n * sizeof *keep);
    float *pixels = malloc((size_t)n * numbers * sizeof *pixels);
    bool paints = w[0]->paints;
    tt_status s = id && keep && pixels ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for a pass");
    for (int64_t i = 0; i < n && !s; i++) {
        keep[i] = w[i]->keep;
        memcpy(id + (size_t)i * tokens, w[i]->id, tokens * sizeof *id);
        if (!paints)
            memcpy(pixels + (size_t)i * numbers, w[i]->given, numbers * sizeof *pixels);
    }
    if (!s)
        s = paints ? c->def->decode(c, pixels, id, c->info.prefix_decodable ? keep : NULL, n, e)
                   : c->def->encode(c, id, NULL, NULL, pixels, n, e);
    for (int64_t i = 0; i < n && !s; i++) {
        if (paints)
            memcpy(w[i]->pixels, pixels + (size_t)i * numbers, numbers * sizeof *pixels);
        else
            memcpy(w[i]->id, id + (size_t)i * tokens, tokens * sizeof *id);
        w[i]->done = true;
    }
    free(id);
    free(keep);
    free(pixels);
    return s;
}

/* Those that read, then those that paint. */
static tt_status passes(tt_codec *c, tt_codec_work *const *w, int64_t n, tt_err *e)
{
    tt_codec_work **kind = malloc((size_t)n * sizeof(tt_codec_work *));
    tt_status s = kind ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for a pass");
    for (int paints = 0; paints < 2; paints++) {
        int64_t of_kind = 0;
        for (int64_t i = 0; i < n && !s; i++)
            if (w[i]->paints == paints)
                kind[of_kind++] = w[i];
        if (of_kind)
            s = pass(c, kind, of_kind, e);
    }
    free(kind);
    return s;
}

tt_status tt_codec_step(tt_codec *c, tt_codec_work *const *w, int64_t n, tt_err *e)
{
    if (!n)
        return TT_OK;
    tt_status s = c->def->step ? c->def->step(c, w, n, e) : passes(c, w, n, e);
    for (int64_t i = 0; i < n && !s; i++) {
        w[i]->now++;
        if (w[i]->done && w[i]->paints)
            clamp(c, w[i]->pixels, 1);
    }
    return s;
}

enum { WORKS = 16 };

static void drop_all(tt_codec_work **w, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        tt_codec_drop(w[i]);
}

static tt_status finish_all(tt_codec *c, tt_codec_work *const *w, int64_t n, tt_err *e)
{
    tt_codec_work *open[WORKS];
    for (int64_t left = 1; left;) {
        left = 0;
        for (int64_t i = 0; i < n; i++)
            if (!w[i]->done)
                open[left++] = w[i];
        tt_status s = tt_codec_step(c, open, left, e);
        if (s)
            return s;
    }
    return TT_OK;
}

static tt_status encode_works(tt_codec *c, int32_t *id, float *latent, tt_code_distance *distance,
                              const float *pixels, int64_t n, tt_err *e)
{
    tt_codec_work *w[WORKS] = {NULL};
    int64_t one = (int64_t)c->info.height * c->info.width * 3, tokens = c->info.layout.tokens;
    tt_status s = TT_OK;
    for (int64_t i = 0; i < n && !s; i++)
        s = tt_codec_read(&w[i], c, pixels + i * one, NULL, e);
    if (!s)
        s = finish_all(c, w, n, e);
    for (int64_t i = 0; i < n && !s; i++) {
        memcpy(id + i * tokens, w[i]->id, (size_t)tokens * sizeof *id);
        if (latent)
            memcpy(latent + i * tokens * c->info.latent, w[i]->latent,
                   (size_t)(tokens * c->info.latent) * sizeof *latent);
        for (int64_t t = 0; t < tokens && distance; t++)
            distance[i * tokens + t] = c->def->gap(c, w[i]->latent + t * c->info.latent);
    }
    drop_all(w, n);
    return s;
}

static tt_status decode_works(tt_codec *c, float *pixels, const int32_t *id, const int32_t *keep,
                              int64_t n, tt_err *e)
{
    tt_codec_work *w[WORKS] = {NULL};
    int64_t one = (int64_t)c->info.height * c->info.width * 3, tokens = c->info.layout.tokens;
    tt_status s = TT_OK;
    for (int64_t i = 0; i < n && !s; i++)
        s = tt_codec_paint(&w[i], c, id + i * tokens, keep ? keep[i] : 0, NULL, e);
    if (!s)
        s = finish_all(c, w, n, e);
    for (int64_t i = 0; i < n && !s; i++)
        memcpy(pixels + i * one, w[i]->pixels, (size_t)one * sizeof *pixels);
    drop_all(w, n);
    return s;
}

/* --- all at once --- */

static int64_t some(int64_t done, int64_t images)
{
    return images - done < WORKS ? images - done : WORKS;
}

tt_status tt_codec_encode(tt_codec *c, int32_t *id, float *latent, tt_code_distance *distance,
                          const float *pixels, int64_t images, tt_err *e)
{
    int64_t tokens = c->info.layout.tokens, one = (int64_t)c->info.height * c->info.width * 3;
    tt_status s = check_images(c, images, e);
    if (!s)
        s = check_pixels(c, pixels, images, e);
    if (s || c->def->encode)
        return s ? s : c->def->encode(c, id, latent, distance, pixels, images, e);
    for (int64_t i = 0; i < images && !s; i += WORKS)
        s = encode_works(c, id + i * tokens, latent ? latent + i * tokens * c->info.latent : NULL,
                         distance ? distance + i * tokens : NULL, pixels + i * one,
                         some(i, images), e);
    return s;
}

tt_status tt_codec_decode(tt_codec *c, float *pixels, const int32_t *id, const int32_t *keep,
                          int64_t images, tt_err *e)
{
    int64_t tokens = c->info.layout.tokens, one = (int64_t)c->info.height * c->info.width * 3;
    tt_status s = check_images(c, images, e);
    if (!s)
        s = check_tokens(c, id, images, e);
    for (int64_t i = 0; keep && i < images && !s; i++)
        s = tt_codec_check_keep(c, keep[i], e);
    if (!s && c->def->decode)
        s = c->def->decode(c, pixels, id, keep, images, e);
    for (int64_t i = 0; i < images && !s && !c->def->decode; i += WORKS)
        s = decode_works(c, pixels + i * one, id + i * tokens, keep ? keep + i : NULL,
                         some(i, images), e);
    if (!s)
        clamp(c, pixels, images);
    return s;
}

tt_status tt_codec_mix(const tt_codec *c, int32_t *out, const int32_t *a, const int32_t *b,
                       double share, tt_err *e)
{
    if (!c->info.mixes)
        return tt_fail(e, TT_EUNSUP, "%s tokens have nothing between them", c->info.family);
    if (!(share >= 0 && share <= 1))
        return tt_fail(e, TT_EINVAL, "share %g is not in 0..1", share);
    tt_status s = check_tokens(c, a, 1, e);
    if (!s)
        s = check_tokens(c, b, 1, e);
    for (int32_t t = 0; t < c->info.layout.tokens && !s; t++)
        out[t] = c->def->mix(c, a[t], b[t], share);
    return s;
}

tt_status tt_codec_embed(tt_codec *c, float *latent, const int32_t *id, int64_t images, tt_err *e)
{
    tt_status st = check_images(c, images, e);
    if (!st)
        st = check_tokens(c, id, images, e);
    return st ? st : c->def->embed(c, latent, id, images, e);
}

tt_status tt_codec_mask(const tt_codec *c, uint8_t *token, const uint8_t *mask, bool grow,
                        tt_err *e)
{
    const tt_layout *l = &c->info.layout;
    if (!c->info.spatial)
        return tt_fail(e, TT_EUNSUP, "tokens of %s images own no pixels: a mask means nothing",
                       c->info.family);
    int32_t high = c->info.height / l->rows, wide = c->info.width / l->columns;
    int32_t around = grow ? 1 : 0;
    memset(token, 0, (size_t)l->tokens);
    for (int32_t y = 0; y < c->info.height; y++)
        for (int32_t x = 0; x < c->info.width; x++) {
            if (!mask[(int64_t)y * c->info.width + x])
                continue;
            for (int32_t r = y / high - around; r <= y / high + around; r++)
                for (int32_t k = x / wide - around; k <= x / wide + around; k++)
                    if (r >= 0 && r < l->rows && k >= 0 && k < l->columns)
                        token[r * l->columns + k] = 1;
        }
    return TT_OK;
}

size_t tt_codec_bytes(const tt_codec *c, int64_t images)
{
    return c->def->bytes(c, images);
}
