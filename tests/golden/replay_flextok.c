/* replay_flextok.c - reference vectors of FlexTok: encoding, the decoder's network, its sampler,
 * prefixes; and the pictures of whole searches. */
#include <cjson/cJSON.h>
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/golden/bench.h"
#include "tests/golden/replay.h"
#include "tokenizers/image/flextok.h"

typedef struct {
    bench b;
    tt_weights *weights;
    tt_config *config;
    tt_codec *base;
    tt_flextok_codec *c;
    int64_t pixels, numbers, tokens; /* of a picture, of a latent, of a message */
} rig;

static bool rig_open(rig *r, const char *folder, const char *device, tt_err *e)
{
    if (!bench_expect(&r->b) || tt_stream_open(&r->b.stream, device, 1, e) ||
        tt_codec_open(&r->base, &r->weights, &r->config, r->b.stream, folder, TT_WEIGHTS_F32, false,
                      e))
        return false;
    const tt_flextok_info *net;
    r->c = (tt_flextok_codec *)r->base;
    net = tt_flextok_about(r->c->net);
    r->numbers = (int64_t)net->channels * net->side * net->side;
    r->pixels = (int64_t)r->base->info.width * r->base->info.height;
    r->tokens = net->tokens;
    return true;
}

static void rig_close(rig *r)
{
    tt_codec_close(r->base);
    tt_weights_close(r->weights);
    tt_config_close(r->config);
}

/* Largest difference relative to the largest number wanted. */
static void near(rig *r, const char *name, const char *as, const float *have)
{
    int64_t n = 0;
    const float *want = expect(&r->b, name, &n);
    double high = 0, far = 0;
    char why[96];
    for (int64_t i = 0; want && i < n; i++) {
        high = fmax(high, fabs(want[i]));
        far = fmax(far, isnan(have[i]) ? INFINITY : fabs((double)have[i] - want[i]));
    }
    snprintf(why, sizeof why, "off by %.3g of %.3g", far, high);
    report(&r->b, as, want && far <= 1e-4 * high, want ? why : "missing");
}

static bool same_ids(rig *r, const char *name, const int32_t *have)
{
    int64_t n = 0;
    const int64_t *want = integers(&r->b, name, &n);
    bool ok = want;
    for (int64_t i = 0; ok && i < n; i++)
        ok = have[i] == want[i];
    return ok;
}

static const uint8_t *bytes(const rig *r, const char *name, int64_t images)
{
    tt_tensor t;
    int64_t side = r->base->info.width;
    return tt_weights_get(r->b.expected, name, 4, (int64_t[]){images, side, side, 3}, &t, NULL)
               ? NULL
               : t.data;
}

static int32_t *ids_of(rig *r, const char *name)
{
    int64_t n = 0;
    const int64_t *from = integers(&r->b, name, &n);
    int32_t *id = calloc((size_t)r->tokens, sizeof *id);
    for (int64_t i = 0; from && i < n && i < r->tokens; i++)
        id[i] = (int32_t)from[i];
    return id;
}

/* --- encoding --- */

static void quantiser(rig *r)
{
    int64_t n = 0;
    const tt_fsq *f = &r->c->fsq;
    const float *z = expect(&r->b, "fsq/z", &n);
    int32_t id[256];
    float code[1024];
    for (int64_t i = 0; z && i < n / f->dims; i++) {
        id[i] = tt_fsq_code(f, z + i * f->dims);
        tt_fsq_lookup(f, code + i * f->dims, id[i]);
    }
    report(&r->b, "fsq/ids", z && same_ids(r, "fsq/ids", id), "another code");
    near(r, "fsq/codes", "fsq/codes", code);
}

/* Both pictures at once, and each alone: the same bits. */
static void encoding(rig *r)
{
    const uint8_t *u = bytes(r, "input/images_u8", 2);
    int64_t dims = r->c->fsq.dims, one = 3 * r->pixels;
    float *pixels = malloc((size_t)(2 * one) * sizeof *pixels);
    float *both = malloc((size_t)(2 * r->tokens * dims) * sizeof *both);
    float *alone = malloc((size_t)(r->tokens * dims) * sizeof *alone);
    int32_t *id = malloc((size_t)(3 * r->tokens) * sizeof *id);
    tt_err e = {0};
    for (int64_t i = 0; u && i < 2 * one; i++)
        pixels[i] = (float)u[i] / 255;
    if (!u || tt_codec_encode(r->base, id, both, NULL, pixels, 2, &e)) {
        report(&r->b, "encode", false, u ? e.text : "no pictures");
        u = NULL;
    }
    for (int i = 0; u && i < 2; i++) {
        char name[64];
        snprintf(name, sizeof name, "encode/%d/latents_pre_fsq", i);
        near(r, name, name, both + i * r->tokens * dims);
        snprintf(name, sizeof name, "encode/%d/ids", i);
        report(&r->b, name, same_ids(r, name, id + i * r->tokens), "another token");
        bool same = !tt_codec_encode(r->base, id + 2 * r->tokens, alone, NULL, pixels + i * one, 1,
                                     &e) &&
                    !memcmp(alone, both + i * r->tokens * dims,
                            (size_t)(r->tokens * dims) * sizeof *alone);
        snprintf(name, sizeof name, "encode/%d (alone)", i);
        report(&r->b, name, same, "other bits beside another picture");
    }
    free(pixels);
    free(both);
    free(alone);
    free(id);
}

/* --- the decoder's network --- */

static void decoder_calls(rig *r)
{
    int64_t n, dims = r->c->fsq.dims;
    const float *x = expect(&r->b, "input/noise", &n), *t = expect(&r->b, "decoder_call/t", &n);
    const int64_t *keep = integers(&r->b, "decoder_call/keep_k", &n);
    float *v = malloc((size_t)(4 * r->numbers) * sizeof *v);
    float *code = malloc((size_t)(2 * r->tokens * dims) * sizeof *code);
    tt_flextok_call call[4];
    tt_err e = {0};
    for (int i = 0; i < 4; i++) {
        char name[64];
        snprintf(name, sizeof name, "encode/%d/ids", i % 2);
        int32_t *id = ids_of(r, name);
        for (int64_t k = 0; k < r->tokens; k++)
            tt_fsq_lookup(&r->c->fsq, code + (i % 2 * r->tokens + k) * dims, id[k]);
        free(id);
        call[i] = (tt_flextok_call){.x = x + i % 2 * r->numbers,
                                    .code = code + i % 2 * r->tokens * dims,
                                    .keep = (int32_t)keep[i % 2],
                                    .unguided = i / 2,
                                    .t = t[i % 2],
                                    .velocity = v + i * r->numbers};
    }
    if (tt_flextok_run(r->c->net, call, 4, &e)) {
        report(&r->b, "decoder_call", false, e.text);
    } else {
        near(r, "decoder_call/cond/velocity", "decoder_call/cond/velocity", v);
        near(r, "decoder_call/uncond/velocity", "decoder_call/uncond/velocity",
             v + 2 * r->numbers);
    }
    free(v);
    free(code);
}

/* --- painting --- */

/* Paints some pictures at once to the end; latent: where their flows end. */
static tt_status paint(rig *r, tt_codec_work **w, int n, float *latent, tt_err *e)
{
    tt_status s = TT_OK;
    while (!w[0]->done && !s)
        s = tt_codec_step(r->base, w, n, e);
    for (int i = 0; i < n && !s && latent; i++)
        memcpy(latent + i * r->numbers, ((const tt_flextok_painting *)w[i])->flow.x,
               (size_t)r->numbers * sizeof *latent);
    return s;
}

static void samplers(rig *r)
{
    static const struct {
        const char *name;
        tt_painting how;
    } cases[] = {{"plain1", {.steps = 1, .guidance = 1}},
                 {"plain3", {.steps = 3, .guidance = 1}},
                 {"cfg3", {.steps = 3, .guidance = 5, .plain = true}},
                 {"apg3", {.steps = 3, .guidance = 5, .momentum = -0.5}}};
    int64_t n;
    const float *noise = expect(&r->b, "input/noise", &n);
    float *latent = malloc((size_t)(2 * r->numbers) * sizeof *latent);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tt_codec_work *w[2] = {NULL};
        tt_err e = {0};
        char name[64];
        tt_status s = TT_OK;
        for (int k = 0; k < 2 && !s; k++) {
            tt_painting how = cases[i].how;
            snprintf(name, sizeof name, "encode/%d/ids", k);
            int32_t *id = ids_of(r, name);
            how.noise = noise + k * r->numbers;
            s = tt_codec_paint(&w[k], r->base, id, k ? 0 : 5, &how, &e);
            free(id);
        }
        if (!s)
            s = paint(r, w, 2, latent, &e);
        snprintf(name, sizeof name, "sampler/%s/latent", cases[i].name);
        if (s)
            report(&r->b, name, false, e.text);
        else
            near(r, name, name, latent);
        tt_codec_drop(w[0]);
        tt_codec_drop(w[1]);
    }
    free(latent);
}

/* Expected planes in about [-1, 1] against clamped pixels. */
static void compare_picture(rig *r, const char *name, const float *pixels)
{
    int64_t n = 0;
    const float *want = expect(&r->b, name, &n);
    double far = 0;
    char why[96];
    for (int64_t i = 0; want && i < n; i++) {
        double v = fmin(fmax(0.5 * want[i] + 0.5, 0), 1);
        far = fmax(far, fabs(pixels[i % r->pixels * 3 + i / r->pixels] - v));
    }
    snprintf(why, sizeof why, "off by %.3g", far);
    report(&r->b, name, want && far <= 1e-4, want ? why : "missing");
}

/* One picture from so many tokens; mixed: another goes along. */
static void prefix(rig *r, int32_t keep, bool mixed)
{
    int64_t n;
    const float *noise = expect(&r->b, "input/noise", &n);
    tt_painting how = {.steps = 4, .guidance = 7.5, .momentum = -0.5, .noise = noise};
    tt_painting other = {.steps = 4, .guidance = 0, .seed = 3};
    int32_t *id = ids_of(r, "encode/0/ids");
    float *latent = malloc((size_t)(2 * r->numbers) * sizeof *latent);
    tt_codec_work *w[2] = {NULL};
    tt_err e = {0};
    char name[64], as[96];
    tt_status s = tt_codec_paint(&w[0], r->base, id, keep, &how, &e);
    if (!s && mixed)
        s = tt_codec_paint(&w[1], r->base, id, 2, &other, &e);
    if (!s)
        s = paint(r, w, mixed ? 2 : 1, latent, &e);
    snprintf(name, sizeof name, "prefix%d/latent", keep);
    snprintf(as, sizeof as, "%s%s", name, mixed ? " (mixed)" : "");
    if (s)
        report(&r->b, as, false, e.text);
    else
        near(r, name, as, latent);
    snprintf(name, sizeof name, "prefix%d/image", keep);
    if (!s && !mixed)
        compare_picture(r, name, w[0]->pixels);
    tt_codec_drop(w[0]);
    tt_codec_drop(w[1]);
    free(id);
    free(latent);
}

int tt_replay_flextok(const char *dir, const char *case_glob, const char *device, int *passed,
                      int *failed)
{
    rig r = {.b = {.dir = dir, .glob = case_glob}};
    static const int32_t keep[] = {1, 2, 5, 16};
    tt_err e = {0};
    bool open = rig_open(&r, dir, device, &e);
    if (open && !fnmatch(case_glob, "parts", 0)) {
        quantiser(&r);
        encoding(&r);
        decoder_calls(&r);
        samplers(&r);
    }
    for (int i = 0; open && i < 8 && !fnmatch(case_glob, "prefixes", 0); i++)
        prefix(&r, keep[i / 2], i % 2);
    if (!open)
        report(&r.b, "codec", false, *e.text ? e.text : "nothing to compare with");
    rig_close(&r);
    bench_close(&r.b);
    *passed += r.b.passed;
    *failed += r.b.failed;
    return open ? 0 : -1;
}

/* --- pictures of searches --- */

/* The pictures of one decoding, at most one step of 255 off: released code truncates. */
static void event_pictures(rig *r, const char *key, const cJSON *how, const float *shared)
{
    char name[96];
    int64_t n = 0, m = 0;
    tt_codec_work *w[64] = {NULL};
    snprintf(name, sizeof name, "%s/tokens", key);
    const int64_t *from = integers(&r->b, name, &n);
    snprintf(name, sizeof name, "%s/noise", key);
    const float *own = tt_weights_has(r->b.expected, name) ? expect(&r->b, name, &m) : NULL;
    tt_tensor shape;
    tt_err e = {0};
    snprintf(name, sizeof name, "%s/tokens", key);
    if (!from || tt_weights_get(r->b.expected, name, 2, (int64_t[]){-1, -1}, &shape, &e) ||
        shape.dim[0] > 64) {
        report(&r->b, key, false, "no tokens");
        return;
    }
    int64_t rows = shape.dim[0], keep = shape.dim[1];
    tt_painting p = {.steps = cJSON_GetObjectItem(how, "timesteps")->valueint,
                     .guidance = cJSON_GetObjectItem(how, "guidance_scale")->valuedouble,
                     .momentum = -0.5};
    tt_status s = TT_OK;
    for (int64_t i = 0; i < rows && !s; i++) {
        int32_t id[256] = {0};
        for (int64_t k = 0; k < keep; k++)
            id[k] = (int32_t)from[i * keep + k];
        p.noise = own ? own + i * r->numbers : shared;
        s = tt_codec_paint(&w[i], r->base, id, (int32_t)keep, &p, &e);
    }
    if (!s)
        s = paint(r, w, (int)rows, NULL, &e);
    snprintf(name, sizeof name, "%s/images_u8", key);
    const uint8_t *want = bytes(r, name, rows);
    int far = 0;
    for (int64_t i = 0; i < rows * 3 * r->pixels && !s && want; i++) {
        const float *mine = w[i / (3 * r->pixels)]->pixels;
        int gap = abs((int)(mine[i % (3 * r->pixels)] * 255) - want[i]);
        far = gap > far ? gap : far;
    }
    report(&r->b, name, !s && want && far <= 1, s ? e.text : want ? "other pixels" : "missing");
    for (int64_t i = 0; i < rows; i++)
        tt_codec_drop(w[i]);
}

void tt_replay_search_pictures(bench *b, const cJSON *trace, const char *device)
{
    char folder[4096];
    rig r = {.b = {.dir = b->dir, .glob = b->glob}};
    tt_err e = {0};
    int64_t n;
    const cJSON *run, *event;
    snprintf(folder, sizeof folder, "%s/../flextok", b->dir);
    bool open = rig_open(&r, folder, device, &e);
    if (!open)
        report(&r.b, "pictures", false, e.text);
    const float *noise = open ? expect(&r.b, "search/caption_noise", &n) : NULL;
    cJSON_ArrayForEach(run, cJSON_GetObjectItem(trace, "runs"))
    {
        if (!open)
            break;
        const cJSON *index = cJSON_GetObjectItem(cJSON_GetObjectItem(run, "call"), "caption_idx");
        int64_t at = cJSON_IsNumber(index) ? index->valueint : 0;
        cJSON_ArrayForEach(event, cJSON_GetObjectItem(run, "events"))
        {
            if (!strcmp(cJSON_GetObjectItem(event, "event")->valuestring, "decode"))
                event_pictures(&r, cJSON_GetObjectItem(event, "key")->valuestring,
                               cJSON_GetObjectItem(trace, "decode_kwargs"),
                               noise + at * r.numbers);
        }
    }
    rig_close(&r);
    bench_close(&r.b);
    b->passed += r.b.passed;
    b->failed += r.b.failed;
}
