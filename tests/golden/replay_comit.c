/* replay_comit.c - reference vectors of COMiT: quantiser, autoencoder, network, encoding crop by
 * crop, painting. */
#include <cjson/cJSON.h>
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/golden/bench.h"
#include "tests/golden/replay.h"
#include "tokenizers/image/comit.h"

typedef struct {
    bench b;
    cJSON *trace;
    tt_weights *tensors;
    tt_config *config;
    tt_comit_codec *c, *strict;
    float *planes[2]; /* both pictures in [-1, 1] */
    float *pixels[2]; /* and as codecs take them */
    int64_t numbers;  /* of a latent of the whole picture */
} rig;

static const cJSON *member(const cJSON *o, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(o, key);
}

static double number(const cJSON *o, const char *key, double fallback)
{
    const cJSON *j = member(o, key);
    return cJSON_IsNumber(j) ? j->valuedouble : fallback;
}

static int32_t tokens_of(const rig *r)
{
    return r->c->base.info.layout.tokens;
}

static bool wanted(const rig *r, const char *name)
{
    return !fnmatch(r->b.glob, name, 0);
}

/* Largest difference relative to the largest number wanted. */
static void near(rig *r, const char *name, const float *have)
{
    int64_t n = 0;
    const float *want = expect(&r->b, name, &n);
    double high = 0, far = 0;
    char why[96];
    for (int64_t i = 0; want && i < n; i++) {
        high = fmax(high, fabs(want[i]));
        far = fmax(far, fabs((double)have[i] - want[i]));
        if (isnan(have[i]))
            far = INFINITY;
    }
    snprintf(why, sizeof why, "off by %.3g of %.3g", far, high);
    report(&r->b, name, want && far <= 1e-4 * high, want ? why : "missing");
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

static void exact(rig *r, const char *name, const int32_t *have)
{
    report(&r->b, name, same_ids(r, name, have), "another token");
}

static bool open_pictures(rig *r)
{
    static const char *const names[] = {"input/image_u8", "input/image2_u8"};
    for (int i = 0; i < 2; i++) {
        tt_tensor t;
        tt_err e = {0};
        if (tt_weights_get(r->b.expected, names[i], 3, (int64_t[]){256, 256, 3}, &t, &e)) {
            report(&r->b, names[i], false, e.text);
            return false;
        }
        const uint8_t *u = t.data;
        r->planes[i] = malloc(3 * 65536 * sizeof(float));
        r->pixels[i] = malloc(3 * 65536 * sizeof(float));
        for (int64_t k = 0; k < 3 * 65536; k++)
            r->pixels[i][k] = (float)u[k] / 255;
        for (int64_t k = 0; k < 3 * 65536; k++)
            r->planes[i][k] = (float)u[k % 65536 * 3 + k / 65536] / 127.5f - 1;
    }
    return true;
}

/* --- parts --- */

static void quantiser(rig *r)
{
    int64_t n;
    const tt_fsq *f = &r->c->fsq;
    const float *z = expect(&r->b, "fsq/z", &n);
    int64_t rows = n / f->dims;
    float bounded[1024], codes[1024], loose[1024];
    int32_t id[128];
    for (int64_t i = 0; z && i < rows; i++) {
        tt_fsq_bound(f, bounded + i * f->dims, z + i * f->dims);
        id[i] = tt_fsq_code(f, z + i * f->dims);
        tt_fsq_lookup(f, codes + i * f->dims, id[i]);
        for (int32_t k = 0; k < f->dims; k++)
            loose[i * f->dims + k] = bounded[i * f->dims + k] / (float)(f->level[k] / 2);
    }
    near(r, "fsq/bounded", bounded);
    near(r, "fsq/codes", codes);
    near(r, "fsq/unquantized", loose);
    exact(r, "fsq/ids", id);
    const int64_t *lookup = integers(&r->b, "fsq/lookup_ids", &n);
    for (int64_t i = 0; lookup && i < n; i++)
        tt_fsq_lookup(f, codes + i * f->dims, (int32_t)lookup[i]);
    near(r, "fsq/lookup_codes", codes);
    for (int32_t i = 0; i < tokens_of(r); i++)
        tt_fsq_lookup(f, codes + i * f->dims, r->c->prior[i]);
    near(r, "fsq/prior_message", codes);
}

static void autoencoder(rig *r)
{
    tt_vae *v = r->c->vae;
    float scale = tt_vae_about(v)->scale;
    float *cut = malloc(3 * 96 * 96 * sizeof(float)), *out = malloc(3 * 96 * 96 * sizeof(float));
    float mean[4 * 32 * 32], logvar[4 * 32 * 32], work[4 * 32 * 32];
    tt_err e = {0};
    int64_t n;
    for (int64_t k = 0; k < 3 * 96 * 96; k++)
        cut[k] = r->planes[0][(k / 9216 * 256 + 80 + k / 96 % 96) * 256 + 80 + k % 96];
    if (tt_vae_encode(v, mean, logvar, cut, 1, 96, 96, &e)) {
        report(&r->b, "vae", false, e.text);
    } else {
        const float *eps = expect(&r->b, "vae/crop4/eps", &n);
        near(r, "vae/crop4/mean", mean);
        near(r, "vae/crop4/logvar", logvar);
        for (int i = 0; i < 576; i++)
            work[i] = mean[i] * scale;
        near(r, "vae/crop4/latent_scaled_mean", work);
        for (int i = 0; i < 576; i++)
            work[i] = (mean[i] + expf(0.5f * logvar[i]) * eps[i]) * scale;
        near(r, "vae/crop4/latent_scaled_sample", work);
        if (tt_vae_decode(v, out, mean, 1, 12, 12, &e))
            report(&r->b, "vae/crop4/decoded", false, e.text);
        else
            near(r, "vae/crop4/decoded", out);
    }
    if (tt_vae_encode(v, mean, logvar, r->planes[0], 1, 256, 256, &e)) {
        report(&r->b, "vae/global", false, e.text);
    } else {
        near(r, "vae/global/mean", mean);
        near(r, "vae/global/logvar", logvar);
    }
    free(cut);
    free(out);
}

/* One call of the network on the middle crop's latent, the message that says nothing. */
static void forward_call(rig *r, tt_comit_codec *c, const char *name)
{
    int64_t n;
    char full[64];
    float message[1024], velocity[4096], renewed[1024];
    tt_err e = {0};
    const float *latent = expect(&r->b, "vae/crop4/latent_scaled_mean", &n);
    const float *offset = expect(&r->b, "forward/offset", &n);
    for (int32_t i = 0; i < c->base.info.layout.tokens; i++)
        tt_fsq_lookup(&c->fsq, message + i * c->fsq.dims, c->prior[i]);
    tt_comit_call call = {.latent = latent, .h = 12, .w = 12, .message = message, .t = 1,
                          .offset = {offset[0], offset[1]}, .velocity = velocity,
                          .renewed = renewed};
    if (tt_comit_run(c->net, &call, 1, &e)) {
        report(&r->b, name, false, e.text);
        return;
    }
    snprintf(full, sizeof full, "%s/velocity", name);
    near(r, full, velocity);
    snprintf(full, sizeof full, "%s/message_pre_fsq", name);
    near(r, full, renewed);
}

/* --- encoding --- */

/* A case being encoded: its recorded steps are compared as they happen. */
typedef struct {
    rig *r;
    const char *name;
    const cJSON *chosen;
    char why[160];
} encoding;

static void differs(encoding *x, const char *what, int32_t step)
{
    if (!*x->why)
        snprintf(x->why, sizeof x->why, "step %d: %s", step, what);
}

static bool close_to(rig *r, const char *name, const float *have)
{
    int64_t n;
    const float *want = expect(&r->b, name, &n);
    double high = 0, far = 0;
    for (int64_t i = 0; want && i < n; i++) {
        high = fmax(high, fabs(want[i]));
        far = fmax(far, fabs((double)have[i] - want[i]));
    }
    return want && far <= 1e-4 * fmax(high, 1e-3);
}

/* The last step of a reading. */
static void seen(encoding *x, const tt_comit_reading *w)
{
    char name[96];
    int32_t step = w->base.now - 1;
    const struct {
        const char *what;
        const float *have;
    } tensor[] = {{"latent", w->latent},
                  {"offset", w->call.offset},
                  {"message_pre_fsq", w->base.latent}};
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "%s/step%d/%s", x->name, step, tensor[i].what);
        if (tt_weights_has(x->r->b.expected, name) && !close_to(x->r, name, tensor[i].have))
            differs(x, tensor[i].what, step);
    }
    snprintf(name, sizeof name, "%s/step%d/ids", x->name, step);
    if (tt_weights_has(x->r->b.expected, name) && !same_ids(x->r, name, w->base.id))
        differs(x, "ids", step);
    snprintf(name, sizeof name, "%s/score%d", x->name, step - 1);
    if (w->how.order == TT_CROPS_ADAPTIVE && step && !close_to(x->r, name, w->score))
        differs(x, "scores", step);
    if (x->chosen && cJSON_GetArrayItem(x->chosen, step)->valueint != w->base.crop)
        differs(x, "another crop", step);
}

static void policy_of(const rig *r, const cJSON *o, tt_crop_policy *p)
{
    const cJSON *order = member(o, "order"), *crops = member(o, "num_crops"), *j;
    int64_t n;
    *p = (tt_crop_policy){.whole = cJSON_IsTrue(member(o, "global_crop")),
                      .crops = cJSON_IsNumber(crops) ? crops->valueint : 0,
                      .noise = expect((bench *)(uintptr_t)&r->b, "input/noise", &n)};
    if (cJSON_IsString(order)) {
        p->order = strcmp(order->valuestring, "adaptive") ? TT_CROPS_RASTER : TT_CROPS_ADAPTIVE;
        return;
    }
    p->order = TT_CROPS_LIST;
    cJSON_ArrayForEach(j, order)
    {
        p->list[p->listed++] = j->valueint;
    }
}

/* Reads n pictures at once; the steps of w[watched] are compared. */
static tt_status read_all(encoding *x, tt_codec_work **w, int n, int watched, tt_err *e)
{
    tt_status s = TT_OK;
    for (bool open = true; open && !s;) {
        tt_codec_work *next[2];
        int64_t left = 0;
        bool due = x && !w[watched]->done;
        for (int i = 0; i < n; i++)
            if (!w[i]->done)
                next[left++] = w[i];
        open = left;
        s = tt_codec_step(&x->r->c->base, next, left, e);
        if (!s && due)
            seen(x, (const tt_comit_reading *)w[watched]);
    }
    return s;
}

/* Alone, then beside a picture that looks at more crops. */
static void encode_case(rig *r, const cJSON *o)
{
    for (int mixed = 0; mixed < 2; mixed++) {
        char name[96], final[96];
        tt_crop_policy p, other = {.order = TT_CROPS_RANDOM, .seed = 3};
        tt_codec_work *w[2] = {NULL};
        tt_err e = {0};
        encoding x = {.r = r, .name = o->string, .chosen = member(o, "chosen")};
        snprintf(name, sizeof name, "%s%s", o->string, mixed ? " (mixed)" : "");
        policy_of(r, o, &p);
        tt_status s = tt_codec_read(&w[mixed], &r->c->base, r->pixels[0], &p, &e);
        if (!s && mixed)
            s = tt_codec_read(&w[0], &r->c->base, r->pixels[1], &other, &e);
        if (!s)
            s = read_all(&x, w, 1 + mixed, mixed, &e);
        snprintf(final, sizeof final, "%s/ids", o->string);
        if (!s && !same_ids(r, final, w[mixed]->id))
            differs(&x, "other tokens in the end", -1);
        snprintf(final, sizeof final, "%s/decode_offset", o->string);
        if (!s && tt_weights_has(r->b.expected, final) && !close_to(r, final, w[mixed]->offset))
            differs(&x, "another offset in the end", -1);
        report(&r->b, name, !s && !*x.why, s ? e.text : x.why);
        tt_codec_drop(w[0]);
        tt_codec_drop(w[1]);
    }
}

/* Two pictures with orders of their own: order[i][j] is crop i of picture j. */
static void batch_case(rig *r, const cJSON *o)
{
    const cJSON *order = member(o, "order");
    int32_t id[2 * 256], n = cJSON_GetArraySize(order);
    float offset[4];
    tt_codec_work *w[2] = {NULL};
    tt_err e = {0};
    tt_status s = TT_OK;
    encoding x = {.r = r, .name = "batch without steps"};
    for (int j = 0; j < 2 && !s; j++) {
        tt_crop_policy p = {.order = TT_CROPS_LIST, .listed = n};
        for (int32_t i = 0; i < n; i++)
            p.list[i] = cJSON_GetArrayItem(cJSON_GetArrayItem(order, i), j)->valueint;
        s = tt_codec_read(&w[j], &r->c->base, r->pixels[j], &p, &e);
    }
    if (!s)
        s = read_all(&x, w, 2, 0, &e);
    for (int j = 0; j < 2 && !s; j++) {
        memcpy(id + j * tokens_of(r), w[j]->id, (size_t)tokens_of(r) * sizeof *id);
        memcpy(offset + 2 * j, w[j]->offset, sizeof w[j]->offset);
    }
    report(&r->b, "batch", !s && same_ids(r, "batch/ids", id) &&
                               close_to(r, "batch/decode_offset", offset),
           s ? e.text : "other tokens");
    tt_codec_drop(w[0]);
    tt_codec_drop(w[1]);
}

/* --- painting --- */

/* The last call of a painting. */
static void painted(rig *r, const char *name, const tt_flow *f, char why[160])
{
    char full[96];
    for (int unguided = 0; unguided < (f->guided ? 2 : 1); unguided++) {
        int32_t at = (f->call - 1) * (f->guided ? 2 : 1) + unguided;
        snprintf(full, sizeof full, "%s/call%d/x", name, at);
        if (tt_weights_has(r->b.expected, full) && !close_to(r, full, f->probe) && !*why)
            snprintf(why, 160, "call %d begins elsewhere", at);
        snprintf(full, sizeof full, "%s/call%d/velocity", name, at);
        if (tt_weights_has(r->b.expected, full) && !*why &&
            !close_to(r, full, unguided ? f->u : f->v))
            snprintf(why, 160, "call %d has another velocity", at);
    }
}

/* Paints n pictures at once; latent: where their flows end. */
static tt_status paint_all(rig *r, const char *name, tt_codec_work **w, int n, float *latent,
                           char why[160], tt_err *e)
{
    tt_status s = TT_OK;
    while (!w[0]->done && !s) {
        const tt_flow *f = &((const tt_comit_painting *)w[0])->flow;
        int32_t before = f->call;
        s = tt_codec_step(&r->c->base, w, n, e);
        if (!s && f->call > before)
            painted(r, name, f, why);
    }
    for (int i = 0; i < n && !s; i++)
        memcpy(latent + i * r->numbers, ((const tt_comit_painting *)w[i])->flow.x,
               (size_t)r->numbers * sizeof *latent);
    return s;
}

/* Expected planes in about [-1, 1] against clamped pixels. */
static void compare_picture(rig *r, const char *name, const float *pixels)
{
    int64_t n;
    const float *want = expect(&r->b, name, &n);
    double far = 0;
    char why[96];
    for (int64_t i = 0; want && i < n; i++) {
        double w = fmin(fmax(0.5 * want[i] + 0.5, 0), 1);
        far = fmax(far, fabs(pixels[i % 65536 * 3 + i / 65536] - w));
    }
    snprintf(why, sizeof why, "off by %.3g", far);
    report(&r->b, name, want && far <= 1e-4, want ? why : "missing");
}

/* From the message of the case the trace names, once alone and once with a second picture. */
static void paint_case(rig *r, const cJSON *o, const char *from)
{
    char name[96];
    int64_t n;
    int32_t id[2 * 256];
    float offset[4];
    int images = strstr(o->string, "batch2") ? 2 : 1;
    snprintf(name, sizeof name, "%s/ids", from);
    const int64_t *want = integers(&r->b, images == 2 ? "batch/ids" : name, &n);
    for (int64_t i = 0; want && i < n; i++)
        id[i] = (int32_t)want[i];
    snprintf(name, sizeof name, "%s/decode_offset", from);
    const float *at = expect(&r->b, images == 2 ? "batch/decode_offset" : name, &n);
    for (int64_t i = 0; at && i < n; i++)
        offset[i] = at[i];
    if (!strcmp(o->string, "dec_shifted")) { /* by how much is not in the trace */
        offset[0] += 0.4f;
        offset[1] -= 0.4f;
    }
    const float *noise = expect(&r->b, "input/noise", &n);
    const char *solver = member(o, "odesolver")->valuestring;
    tt_painting how = {.steps = member(o, "num_steps")->valueint,
                       .solver = strcmp(solver, "midpoint") ? TT_FLOW_EULER : TT_FLOW_MIDPOINT,
                       .guidance = number(o, "cfg_weight", 0),
                       .momentum = number(o, "apg_momentum", 0)};
    for (int mixed = 0; mixed < (images == 2 ? 1 : 2); mixed++) {
        char why[160] = "";
        tt_err e = {0};
        tt_codec_work *w[2] = {NULL};
        float *latent = malloc((size_t)(2 * r->numbers) * sizeof *latent);
        tt_status s = TT_OK;
        for (int32_t i = 0; mixed && i < tokens_of(r); i++)
            id[tokens_of(r) + i] = i;
        if (mixed)
            offset[2] = offset[3] = 0.25f;
        for (int i = 0; i < images + mixed && !s; i++) {
            how.noise = noise + i * r->numbers;
            memcpy(how.offset, offset + 2 * i, sizeof how.offset);
            s = tt_codec_paint(&w[i], &r->c->base, id + i * tokens_of(r), 0, &how, &e);
        }
        if (!s)
            s = paint_all(r, o->string, w, images + mixed, latent, why, &e);
        snprintf(name, sizeof name, "%s/latent", o->string);
        if (!s && !close_to(r, name, latent) && !*why)
            snprintf(why, sizeof why, "another latent in the end");
        snprintf(name, sizeof name, "%s%s", o->string, mixed ? " (mixed)" : "");
        report(&r->b, name, !s && !*why, s ? e.text : why);
        snprintf(name, sizeof name, "%s/image", o->string);
        if (!s && !mixed && tt_weights_has(r->b.expected, name))
            compare_picture(r, name, w[0]->pixels);
        free(latent);
        tt_codec_drop(w[0]);
        tt_codec_drop(w[1]);
    }
}

static void guidance(rig *r)
{
    int64_t n = 0;
    float running[1024] = {0}, v[1024];
    expect(&r->b, "apg/cond0", &n);
    for (int i = 0; i < 3; i++) {
        char name[32];
        int64_t one = n / 2; /* two samples */
        snprintf(name, sizeof name, "apg/cond%d", i);
        const float *cond = expect(&r->b, name, &n);
        snprintf(name, sizeof name, "apg/uncond%d", i);
        const float *u = expect(&r->b, name, &n);
        memcpy(v, cond, (size_t)n * sizeof *v);
        for (int k = 0; k < 2; k++)
            tt_apg_guide(&(tt_apg){running + k * one, 7.5, -0.5, 2.5}, v + k * one, u + k * one,
                         one);
        snprintf(name, sizeof name, "apg/guided%d", i);
        near(r, name, v);
    }
}

static void all_cases(rig *r)
{
    const cJSON *o, *from = member(r->trace, "decode_from");
    if (wanted(r, "parts")) {
        quantiser(r);
        autoencoder(r);
        guidance(r);
        forward_call(r, r->c, "forward");
        forward_call(r, r->strict, "forward_strictmask");
    }
    cJSON_ArrayForEach(o, member(r->trace, "cases"))
    {
        if (!wanted(r, o->string))
            continue;
        if (strcmp(o->string, "batch"))
            encode_case(r, o);
        else
            batch_case(r, o);
    }
    cJSON_ArrayForEach(o, member(r->trace, "decode"))
    {
        if (wanted(r, o->string))
            paint_case(r, o, cJSON_IsString(from) ? from->valuestring : "");
    }
}

static tt_status open_codec(rig *r, tt_comit_codec **out, bool strict, tt_err *e)
{
    tt_codec *c;
    tt_status s = tt_comit_codec_open(&c, r->b.stream, r->tensors, r->config, TT_WEIGHTS_F32,
                                      strict, e);
    *out = (tt_comit_codec *)c;
    return s;
}

int tt_replay_comit(const char *dir, const char *case_glob, const char *device, int *passed,
                    int *failed)
{
    rig r = {.b = {.dir = dir, .glob = case_glob}};
    tt_err e = {0};
    r.trace = read_json(&r.b, "trace.json");
    bool open = r.trace && bench_expect(&r.b) && !tt_stream_open(&r.b.stream, device, 1, &e);
    open = open && !tt_config_open(&r.config, dir, &e) && !tt_weights_open(&r.tensors, dir, &e) &&
           !open_codec(&r, &r.c, false, &e) && !open_codec(&r, &r.strict, true, &e) &&
           open_pictures(&r);
    if (open) {
        r.numbers = 4 * 32 * 32;
        all_cases(&r);
    } else {
        report(&r.b, "codec", false, *e.text ? e.text : "trace.json cannot be read");
    }
    tt_codec_close((tt_codec *)r.c);
    tt_codec_close((tt_codec *)r.strict);
    tt_weights_close(r.tensors);
    tt_config_close(r.config);
    for (int i = 0; i < 2; i++) {
        free(r.planes[i]);
        free(r.pixels[i]);
    }
    cJSON_Delete(r.trace);
    bench_close(&r.b);
    *passed += r.b.passed;
    *failed += r.b.failed;
    return open ? 0 : -1;
}
