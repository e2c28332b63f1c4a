/* table.c - every image codec, once; opening one, and the checks every call goes through. */
#include <math.h>
#include <string.h>

#include "tokenizers/image.h"

#define TT_CODECS(X) \
    X(vqgan)         \
    X(restok)

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

tt_status tt_codec_open(tt_codec **out, tt_weights **weights, tt_config **config, tt_stream *s,
                        const char *folder, tt_weights_mode mode, bool random, tt_err *e)
{
    *out = NULL;
    *weights = NULL;
    tt_status st = tt_config_open(config, folder, e);
    if (st)
        return st;
    const char *name = tt_config_architecture(*config);
    name = *name ? name : tt_config_text(*config, "model_type", "");
    const tt_codec_def *def = tt_codec_find(name);
    if (!def)
        st = tt_fail(e, TT_EUNSUP, "'%.60s' in '%.100s/config.json' is no image codec known", name,
                     folder);
    if (!st)
        st = random ? tt_weights_open_random(weights, e) : tt_weights_open(weights, folder, e);
    if (!st) {
        st = def->open(out, s, *weights, *config, mode, e);
        if (st)
            tt_context(e, st, "'%.100s'", folder);
        tt_weights_rest(*weights);
    }
    if (st) {
        tt_weights_close(*weights);
        tt_config_close(*config);
        *weights = NULL;
        *config = NULL;
    }
    return st;
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

static tt_status check_keep(const tt_codec *c, int32_t keep, tt_err *e)
{
    const tt_layout *l = &c->info.layout;
    int32_t end = 0, i = 0;
    if (keep == l->tokens)
        return TT_OK;
    if (!c->info.prefix_decodable)
        return tt_fail(e, TT_EUNSUP, "%s images cannot be decoded from their first %d tokens of %d",
                       c->info.family, keep, l->tokens);
    while (i < l->levels && end < keep)
        end += l->level[i++];
    return end == keep && keep > 0
               ? TT_OK
               : tt_fail(e, TT_EINVAL, "%d tokens: no level ends there", keep);
}

tt_status tt_codec_encode(tt_codec *c, int32_t *id, float *latent, tt_code_distance *distance,
                          const float *pixels, int64_t images, tt_err *e)
{
    tt_status st = check_images(c, images, e);
    int64_t n = st ? 0 : images * c->info.height * c->info.width * 3;
    for (int64_t i = 0; i < n; i++)
        if (!(pixels[i] >= 0 && pixels[i] <= 1))
            return tt_fail(e, TT_EINVAL, "pixel value %g of image %lld is outside 0..1",
                           (double)pixels[i], (long long)(i / (n / images)));
    return st ? st : c->def->encode(c, id, latent, distance, pixels, images, e);
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

tt_status tt_codec_decode(tt_codec *c, float *pixels, const int32_t *id, const int32_t *keep,
                          int64_t images, tt_err *e)
{
    tt_status st = check_images(c, images, e);
    if (!st)
        st = check_tokens(c, id, images, e);
    for (int64_t i = 0; keep && i < images && !st; i++)
        st = check_keep(c, keep[i], e);
    if (!st)
        st = c->def->decode(c, pixels, id, keep, images, e);
    clamp_job job = {pixels, 3 * (int64_t)c->info.width};
    if (!st)
        tt_pool_run(c->stream->pool, images * c->info.height, clamp_line, &job);
    return st;
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
