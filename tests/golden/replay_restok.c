/* replay_restok.c - reference vectors of ResTok: its codec, and HAR and LlamaGen level by level. */
#include <cjson/cJSON.h>
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/generator.h"
#include "samplers/image/guidance.h"
#include "tests/golden/bench.h"
#include "tests/golden/replay.h"
#include "tokenizers/image.h"

enum { IMAGES = 2, STRANGERS = 1, MOST = 8 };

/* One generator under test. */
typedef struct {
    bench *b;
    const char *name; /* "har" */
    const cJSON *trace, *classes;
    tt_generator *g;
    tt_weights *weights;
    tt_config *config;
    int32_t tokens, codes;
} rig;

/* An image that goes through its calls. */
typedef struct {
    tt_generator_state *st;
    int32_t label, slot[1024];
    tt_draw draw[1024];
    tt_row_stats stats[1024];
    float *logits; /* of the present level */
} image;

static int integer(const cJSON *o, const char *key, int fallback)
{
    const cJSON *j = cJSON_GetObjectItemCaseSensitive(o, key);
    return cJSON_IsNumber(j) ? j->valueint : fallback;
}

static double number(const cJSON *o, const char *key, double fallback)
{
    const cJSON *j = cJSON_GetObjectItemCaseSensitive(o, key);
    return cJSON_IsNumber(j) ? j->valuedouble : fallback;
}

static const char *text(const cJSON *o, const char *key)
{
    const cJSON *j = cJSON_GetObjectItemCaseSensitive(o, key);
    return cJSON_IsString(j) ? j->valuestring : "";
}

static tt_status image_open(image *m, const rig *r, int32_t label, tt_err *e)
{
    memset(m, 0, sizeof *m);
    m->label = label;
    m->logits = malloc((size_t)(r->tokens * r->codes) * sizeof *m->logits);
    tt_condition c = {.label = {label, -1, -1, -1}};
    return m->logits ? tt_generator_begin(&m->st, r->g, &c, NULL, e)
                     : tt_fail(e, TT_ENOMEM, "no memory");
}

static void image_close(image *m)
{
    tt_generator_drop(m->st);
    free(m->logits);
}

/* The next level of the image, all of it wanted; returns its length. */
static int32_t call_of(const rig *r, image *m, double g, const tt_draw *draw,
                       tt_generator_call *out)
{
    int32_t at = m->st->known, level = 0, n = 1;
    if (r->g->info.kind == TT_GENERATES_LEVELS)
        for (int32_t begin = 0; begin <= at; begin += n)
            n = r->g->info.layout.level[level++];
    for (int32_t i = 0; i < n; i++) {
        m->slot[i] = at + i;
        m->draw[i] = *draw;
    }
    *out = (tt_generator_call){.state = m->st,
                               .cfg_scale = (float)(g - 1),
                               .guided = g != 1,
                               .wants = n,
                               .slot = m->slot,
                               .draw = m->draw,
                               .stats = m->stats,
                               .logits = m->logits};
    return n;
}

/* --- teacher forcing --- */

/* Logits of every token given the recorded ones before it. */
static bool forced(const rig *r, int32_t label, const int32_t *token, float *logits, tt_err *e)
{
    image m;
    tt_draw draw = {.top_p = 1, .target = -1};
    tt_status s = image_open(&m, r, label, e);
    for (int32_t at = 0; at < r->tokens && !s;) {
        tt_generator_call c;
        int32_t n = call_of(r, &m, 1, &draw, &c);
        s = tt_generator_step(r->g, &c, 1, e);
        memcpy(logits + (int64_t)at * r->codes, m.logits,
               (size_t)(n * r->codes) * sizeof *logits);
        if (!s)
            s = tt_generator_commit(m.st, m.slot, token + at, n, e);
        at += n;
    }
    image_close(&m);
    return !s;
}

static const int32_t *tokens_of(bench *b, const char *name)
{
    tt_tensor t;
    return tt_weights_get(b->expected, name, 2, (int64_t[]){-1, -1}, &t, NULL) ? NULL : t.data;
}

static void forced_cases(const rig *r)
{
    char name[96];
    tt_err e = {0};
    snprintf(name, sizeof name, "%s.forced.tokens", r->name);
    const int32_t *token = tokens_of(r->b, name);
    size_t n = (size_t)r->tokens * (size_t)r->codes;
    float *logits = calloc(IMAGES * n, sizeof *logits);
    bool ok = token && logits;
    for (int i = 0; i < IMAGES && ok; i++)
        ok = forced(r, cJSON_GetArrayItem(r->classes, i)->valueint, token + i * r->tokens,
                    logits + (size_t)i * n, &e);
    snprintf(name, sizeof name, "%s.forced.cond_logits", r->name);
    if (ok)
        compare(r->b, name, logits);
    else
        report(r->b, name, false, e.text);
    snprintf(name, sizeof name, "%s.forced.uncond_logits", r->name);
    if (ok && forced(r, -1, token, logits, &e))
        compare(r->b, name, logits);
    else
        report(r->b, name, false, e.text);
    free(logits);
}

/* --- generations --- */

/* A recorded run. */
typedef struct {
    const rig *r;
    const cJSON *run, *settings, *calls;
    tt_guidance guidance;
    const float *gumbel; /* of every image and token, or NULL */
    float *guided;       /* logits of both images */
    char why[200];
} play;

static bool read_guidance(play *p)
{
    static const char *const names[] = {"constant", "linear", "linear_re", "linear_constant",
                                        "triangular", "rectangular", "step"};
    const cJSON *kw = cJSON_GetObjectItemCaseSensitive(p->settings, "cfg_schedule_kwargs");
    const char *name = text(p->settings, "schedule");
    p->guidance = (tt_guidance){.peak = number(kw, "peak", 0.5),
                                .begin = number(kw, "window_start", 0.05),
                                .end = number(kw, "window_end", 1),
                                .least = number(kw, "min_cfg_scale", 1)};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(names[i], name)) {
            p->guidance.kind = (tt_guidance_kind)i;
            return true;
        }
    snprintf(p->why, sizeof p->why, "schedule '%.40s' is not known", name);
    return false;
}

/* The guidance of a call; 1 without. */
static double scale_of(const play *p, int call)
{
    double g = number(p->settings, "cfg", 1);
    int calls = cJSON_GetArraySize(p->calls);
    return g > 1 ? tt_guidance_at(&p->guidance, g, call / (double)(calls - 1)) : 1;
}

/* The recorded draw: argmax of log softmax of the kept logits, plus the recorded noise. What is
 * kept is decided here as the operation does it: temperature, top-k, top-p. */
static int32_t draw_with(const play *p, const float *logits, const float *noise)
{
    int32_t codes = p->r->codes, best = -1, top_k = integer(p->settings, "top_k", 0);
    double t = fmax(number(p->settings, "temperature", 1), 1e-5);
    double top_p = number(p->settings, "top_p", 1), total = 0, high = 0;
    for (int32_t i = 0; i < codes; i++) {
        int32_t above = 0;
        for (int32_t j = 0; j < codes; j++)
            above += logits[j] > logits[i];
        total += top_k && above >= top_k ? 0 : exp(logits[i] / t);
    }
    for (int32_t i = 0; i < codes; i++) {
        int32_t above = 0;
        double before = 0;
        for (int32_t j = 0; j < codes; j++)
            if (logits[j] > logits[i] || (logits[j] == logits[i] && j < i)) {
                above++;
                before += exp(logits[j] / t) / total;
            }
        if ((top_k && above >= top_k) || (top_p < 1 && before > top_p))
            continue;
        double value = logits[i] / t + noise[i];
        if (best < 0 || value > high) {
            best = i;
            high = value;
        }
    }
    return best;
}

/* What the call chose against the record, from position `at` on; then it stands. */
static bool settle(play *p, image *m, int which, int call, int32_t n, tt_err *e)
{
    int32_t id[1024], at = m->st->known, codes = p->r->codes;
    const cJSON *out = cJSON_GetArrayItem(
        cJSON_GetObjectItemCaseSensitive(cJSON_GetArrayItem(p->calls, call), "tokens_out"), which);
    for (int32_t i = 0; i < n; i++) {
        const float *row = m->logits + (int64_t)i * codes;
        int64_t k = ((int64_t)which * p->r->tokens + at + i) * codes;
        memcpy(p->guided + k, row, (size_t)codes * sizeof *row);
        id[i] = p->gumbel ? draw_with(p, row, p->gumbel + k) : m->stats[i].drawn;
        if (id[i] != cJSON_GetArrayItem(out, i)->valueint) {
            snprintf(p->why, sizeof p->why, "image %d, call %d, token %d: %d, recorded %d", which,
                     call, at + i, id[i], cJSON_GetArrayItem(out, i)->valueint);
            return false;
        }
    }
    return !tt_generator_commit(m->st, m->slot, id, n, e);
}

/* Both images; among strangers that are a call behind when mixed. */
static bool go(play *p, bool mixed)
{
    const rig *r = p->r;
    image m[IMAGES + STRANGERS];
    tt_err e = {0};
    tt_draw draw = {.top_p = 1, .target = -1}, other = {.temperature = 1, .top_p = 1, .target = -1,
                                                       .noise = TT_NOISE_PHILOX, .seed = 7};
    int images = mixed ? IMAGES + STRANGERS : IMAGES, calls = cJSON_GetArraySize(p->calls);
    bool ok = true;
    for (int i = 0; i < IMAGES + STRANGERS; i++)
        ok &= !image_open(&m[i], r, i < IMAGES ? cJSON_GetArrayItem(r->classes, i)->valueint : 1,
                          &e);
    for (int call = 0; call < calls && ok; call++) {
        tt_generator_call c[MOST];
        int32_t n[MOST];
        int here = 0;
        for (int i = 0; i < images; i++)
            if (i < IMAGES || call) {
                n[i] = call_of(r, &m[i], i < IMAGES ? scale_of(p, call) : 3,
                               i < IMAGES ? &draw : &other, &c[here]);
                here++;
            }
        for (int i = 0; i < here && !mixed && ok; i++)
            ok = !tt_generator_step(r->g, &c[i], 1, &e);
        if (mixed)
            ok = !tt_generator_step(r->g, c, here, &e);
        for (int i = 0; i < IMAGES && ok; i++)
            ok = settle(p, &m[i], i, call, n[i], &e);
        for (int i = IMAGES; i < here && ok; i++) {
            int32_t id[1024];
            for (int32_t j = 0; j < n[i]; j++)
                id[j] = m[i].stats[j].drawn;
            ok = !tt_generator_commit(m[i].st, m[i].slot, id, n[i], &e);
        }
    }
    for (int i = 0; i < IMAGES + STRANGERS; i++)
        image_close(&m[i]);
    if (!ok && !*p->why)
        snprintf(p->why, sizeof p->why, "%.190s", e.text);
    return ok;
}

static void play_run(const rig *r, const cJSON *run)
{
    char name[128];
    int64_t n;
    play p = {.r = r, .run = run, .settings = cJSON_GetObjectItemCaseSensitive(run, "settings"),
              .calls = cJSON_GetObjectItemCaseSensitive(run, "calls")};
    snprintf(name, sizeof name, "%s.%s.gumbel", r->name, run->string);
    if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(p.settings, "noise")))
        p.gumbel = expect(r->b, name, &n);
    p.guided = calloc((size_t)(IMAGES * r->tokens * r->codes), sizeof *p.guided);
    for (int mixed = 0; mixed < 2; mixed++) {
        snprintf(name, sizeof name, "%s.%s%s", r->name, run->string, mixed ? " (mixed)" : "");
        if (fnmatch(r->b->glob, name, 0))
            continue;
        *p.why = '\0';
        bool ok = p.guided && read_guidance(&p) && go(&p, mixed);
        report(r->b, name, ok, p.why);
        snprintf(name, sizeof name, "%s.%s.guided_logits", r->name, run->string);
        if (ok && tt_weights_has(r->b->expected, name))
            compare(r->b, name, p.guided);
    }
    free(p.guided);
}

static void generators(bench *b, const cJSON *trace, const char *name)
{
    char folder[4096];
    tt_err e = {0};
    rig r = {.b = b, .name = name, .trace = cJSON_GetObjectItemCaseSensitive(trace, name),
             .classes = cJSON_GetObjectItemCaseSensitive(trace, "classes")};
    snprintf(folder, sizeof folder, "%s/%s", b->dir, name);
    if (tt_generator_open(&r.g, &r.weights, &r.config, b->stream, folder, TT_WEIGHTS_F32, false,
                          &e)) {
        report(b, name, false, e.text);
        return;
    }
    r.tokens = r.g->info.layout.tokens;
    r.codes = r.g->info.layout.codes;
    forced_cases(&r);
    const cJSON *run;
    cJSON_ArrayForEach(run, r.trace)
    {
        play_run(&r, run);
    }
    tt_generator_close(r.g);
    tt_weights_close(r.weights);
    tt_config_close(r.config);
}

/* --- the codec --- */

/* Planes of the record as the codec's interleaved pixels. */
static void interleave(float *out, const float *planes, int64_t images, int64_t pixels)
{
    for (int64_t i = 0; i < images * pixels * 3; i++)
        out[i] = planes[(i / 3 / pixels * 3 + i % 3) * pixels + i / 3 % pixels];
}

/* Pictures against a recorded one, which is not clamped. */
static void same_picture(bench *b, const char *name, const float *have, int64_t images,
                         int64_t pixels)
{
    int64_t n = 0;
    char why[64];
    const float *want = expect(b, name, &n);
    float *mixed = malloc((size_t)(images * pixels * 3) * sizeof *mixed);
    double far = want && n == images * pixels * 3 ? 0 : INFINITY;
    if (far == 0)
        interleave(mixed, want, images, pixels);
    for (int64_t i = 0; far < INFINITY && i < n; i++)
        far = fmax(far, fabs((double)have[i] - fmin(fmax(mixed[i], 0), 1)));
    snprintf(why, sizeof why, "off by %.3g", far);
    report(b, name, far <= 1e-4, why);
    free(mixed);
}

typedef struct {
    tt_codec *c;
    int64_t pixels, tokens;
    float *in, *out;
} pictures;

static void encode_pictures(bench *b, pictures *x)
{
    int64_t n = 0, codes = x->c->info.layout.codes, latent = x->c->info.latent;
    tt_err e = {0};
    int32_t id[IMAGES * 256], alone[256];
    float z[IMAGES * 256 * 16], turned[IMAGES * 256 * 16], far[IMAGES * 256], near[IMAGES * 256];
    tt_code_distance distance[IMAGES * 256];
    const float *planes = expect(b, "tok.image_in", &n);
    const int32_t *want = tokens_of(b, "tok.indices");
    interleave(x->in, planes, IMAGES, x->pixels);
    if (!want || tt_codec_encode(x->c, id, z, distance, x->in, IMAGES, &e)) {
        report(b, "tok.indices", false, e.text);
        return;
    }
    report(b, "tok.indices", !memcmp(id, want, sizeof *id * (size_t)(IMAGES * x->tokens)),
           "another code");
    for (int64_t i = 0; i < IMAGES * x->tokens * latent; i++) /* recorded channel by channel */
        turned[(i / latent / x->tokens * latent + i % latent) * x->tokens +
               i / latent % x->tokens] = z[i];
    compare(b, "tok.z", turned);
    const float *all = expect(b, "tok.distances", &n);
    bool ok = all;
    for (int64_t i = 0; ok && i < IMAGES * x->tokens; i++) {
        near[i] = far[i] = INFINITY;
        for (int64_t k = 0; k < codes; k++) {
            float d = all[i * codes + k];
            far[i] = d < near[i] ? near[i] : fminf(far[i], d);
            near[i] = fminf(near[i], d);
        }
        ok = fabsf(distance[i].nearest - near[i]) < 1e-4f &&
             fabsf(distance[i].second - far[i]) < 1e-4f;
    }
    report(b, "tok.distances", ok, "other distances");
    ok = !tt_codec_encode(x->c, alone, NULL, NULL, x->in + 3 * x->pixels, 1, &e) &&
         !memcmp(alone, id + x->tokens, (size_t)x->tokens * sizeof *id);
    report(b, "tok.indices (alone)", ok, "a picture alone has other codes");
}

static void decode_pictures(bench *b, pictures *x, const char *name, const char *tokens,
                            int32_t keep)
{
    tt_err e = {0};
    const int32_t keeps[] = {keep, keep};
    const int32_t *id = tokens_of(b, tokens);
    if (!id || tt_codec_decode(x->c, x->out, id, keep ? keeps : NULL, IMAGES, &e))
        report(b, name, false, e.text);
    else
        same_picture(b, name, x->out, IMAGES, x->pixels);
}

static void codec(bench *b)
{
    extern const tt_codec_def tt_codec_restok;
    char folder[4096];
    tt_err e = {0};
    tt_weights *w = NULL;
    tt_config *config = NULL;
    pictures x = {0};
    snprintf(folder, sizeof folder, "%s/tokenizer", b->dir);
    tt_status s = tt_config_open(&config, folder, &e);
    if (!s)
        s = tt_weights_open(&w, folder, &e);
    if (!s)
        s = tt_codec_restok.open(&x.c, b->stream, w, config, TT_WEIGHTS_F32, &e);
    if (s) {
        report(b, "tokenizer", false, e.text);
    } else {
        x.pixels = (int64_t)x.c->info.width * x.c->info.height;
        x.tokens = x.c->info.layout.tokens;
        x.in = malloc((size_t)(IMAGES * x.pixels * 3) * sizeof *x.in);
        x.out = malloc((size_t)(IMAGES * x.pixels * 3) * sizeof *x.out);
        encode_pictures(b, &x);
        decode_pictures(b, &x, "tok.image_out", "tok.indices", 0);
        decode_pictures(b, &x, "tok.image_out_keep8", "tok.indices", 8);
        decode_pictures(b, &x, "tok.image_out_keep1", "tok.indices", 1);
        decode_pictures(b, &x, "tok.random_image", "tok.random_indices", 0);
    }
    free(x.in);
    free(x.out);
    tt_codec_close(x.c);
    tt_weights_close(w);
    tt_config_close(config);
}

int tt_replay_restok(const char *dir, const char *case_glob, const char *device, int *passed,
                     int *failed)
{
    bench b = {.dir = dir, .glob = case_glob};
    tt_err e = {0};
    cJSON *trace = read_json(&b, "trace.json");
    bool open = trace && bench_expect(&b) && !tt_stream_open(&b.stream, device, 1, &e);
    if (open) {
        if (!fnmatch(case_glob, "tokenizer", 0))
            codec(&b);
        generators(&b, trace, "har");
        generators(&b, trace, "vanilla");
    } else {
        report(&b, "restok", false, *e.text ? e.text : "trace.json cannot be read");
    }
    cJSON_Delete(trace);
    bench_close(&b);
    *passed += b.passed;
    *failed += b.failed;
    return open ? 0 : -1;
}
