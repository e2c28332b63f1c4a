/* images.c - whole images: tokens in a few steps with guidance, then pixels.
 *
 * All images of a batch begin together, so that a step is one pass; each has a label and a seed of
 * its own. A floor is the sum over steps of the longer of weights read once and products at the
 * device's peak, and the decoder's products at that of its type. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/clock.h"
#include "samplers/image.h"
#include "server/bench/bench.h"
#include "tokenizers/image.h"

enum { STEPS = 8, MAX_RUNS = 64, LEAST_RUNS = 3, WARM_RUNS = 2, MOST_ENCODED = 8 };
static const double guidance = 2.5;

/* The model, and one batch being made. */
typedef struct {
    tt_bench *b;
    tt_generator *g;
    tt_codec *codec;
    tt_weights *weights[2];
    tt_config *config[2];
    tt_params params;
    int64_t batch;
    tt_arena *arena, *step_arena; /* per image */
    tt_err *why;                  /* per image */
    tt_image_seq *seq;
    tt_image_plan *plan;
    tt_generator_state **state;
    tt_generator_call *call;
    tt_row_stats *stats;
    int32_t *id;
    float *pixels;
} run;

/* Seconds of a batch: its states' beginning, planning and choosing on the host, steps of the
 * network, decoding; encoding, which making images takes no part of. */
enum { BEGIN, CHOOSE, STEP, DECODE, ENCODE, STAGES };

typedef struct {
    double stage[STAGES];
    double floor_tokens, floor_latents, floor_pixels; /* latents: of the decoder, before pixels */
} outcome;

/* --- opening --- */

static tt_status open_models(run *r, const char *folder, tt_weights_mode mode, bool random,
                             tt_err *e)
{
    char path[4096];
    tt_stream *s = r->b->stream;
    tt_status st = tt_generator_open(&r->g, &r->weights[0], &r->config[0], s, folder, mode, random,
                                     e);
    if (st)
        return st;
    const char *name = tt_config_text(r->config[0], "codec", "vqgan");
    if (strchr(name, '/') || name[0] == '.')
        return tt_fail(e, TT_EFORMAT, "config key 'codec' is '%.60s', must be a folder's name",
                       name);
    if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) >= sizeof path)
        return tt_fail(e, TT_EINVAL, "path '%.80s...' is too long", folder);
    st = tt_codec_open(&r->codec, &r->weights[1], &r->config[1], s, path, mode, random, e);
    const tt_layout *a = &r->g->info.layout, *c = st ? a : &r->codec->info.layout;
    if (!st && (a->tokens != c->tokens || a->codes != c->codes))
        st = tt_fail(e, TT_EFORMAT,
                     "the generator makes %d tokens of %d codes, its codec has %d of %d", a->tokens,
                     a->codes, c->tokens, c->codes);
    return st;
}

static void close_models(run *r)
{
    tt_generator_close(r->g);
    tt_codec_close(r->codec);
    for (int i = 0; i < 2; i++) {
        tt_weights_close(r->weights[i]);
        tt_config_close(r->config[i]);
    }
}

static void close_batch(run *r)
{
    for (int64_t i = 0; r->state && i < r->batch; i++)
        tt_generator_drop(r->state[i]);
    for (int64_t i = 0; r->arena && r->step_arena && i < r->batch; i++) {
        tt_arena_close(&r->arena[i]);
        tt_arena_close(&r->step_arena[i]);
    }
    free(r->arena);
    free(r->step_arena);
    free(r->why);
    free(r->seq);
    free(r->plan);
    free(r->state);
    free(r->call);
    free(r->stats);
    free(r->id);
    free(r->pixels);
    r->state = NULL;
}

static tt_status open_batch(run *r, int64_t batch, tt_err *e)
{
    size_t n = (size_t)batch, tokens = (size_t)r->g->info.layout.tokens;
    size_t numbers = (size_t)r->codec->info.width * (size_t)r->codec->info.height * 3;
    const tt_planner *p = tt_planner_for(r->g->info.kind);
    r->batch = batch;
    r->seq = calloc(n, sizeof *r->seq);
    r->plan = calloc(n, sizeof *r->plan);
    r->state = calloc(n, sizeof(tt_generator_state *));
    r->call = calloc(n, sizeof *r->call);
    r->stats = calloc(n * tokens, sizeof *r->stats);
    r->id = calloc(n * tokens, sizeof *r->id);
    r->pixels = calloc(n * numbers, sizeof *r->pixels);
    r->arena = calloc(n, sizeof *r->arena);
    r->step_arena = calloc(n, sizeof *r->step_arena);
    r->why = calloc(n, sizeof *r->why);
    if (!r->seq || !r->plan || !r->state || !r->call || !r->stats || !r->id || !r->pixels ||
        !r->arena || !r->step_arena || !r->why)
        return tt_fail(e, TT_ENOMEM, "no memory for %lld images", (long long)batch);
    tt_status st = TT_OK;
    for (size_t i = 0; i < n && !st; i++) {
        st = tt_arena_open(&r->arena[i], tt_image_seq_bytes(p, (int32_t)tokens), e);
        if (!st)
            st = tt_arena_open(&r->step_arena[i], tt_image_step_bytes((int32_t)tokens), e);
    }
    return st;
}

/* --- making a batch --- */

static tt_status begin(run *r, tt_err *e)
{
    const tt_generator_info *info = &r->g->info;
    tt_status st = TT_OK;
    for (int64_t i = 0; i < r->batch && !st; i++) {
        tt_arena_rewind(&r->arena[i], 0);
        tt_condition c = {.label = {-1, -1, -1, -1}};
        for (int32_t k = 0; k < info->groups; k++)
            c.label[k] = (int32_t)(i * 7919 % info->group[k]);
        r->seq[i] = (tt_image_seq){.planner = tt_planner_for(info->kind), .params = &r->params,
                                   .layout = info->layout, .mask_id = info->mask_id,
                                   .seed = (uint64_t)i, .arena = &r->arena[i]};
        st = tt_image_begin(&r->seq[i], NULL, e);
        if (!st)
            st = tt_generator_begin(&r->state[i], r->g, &c, NULL, e);
    }
    return st;
}

static void plan_image(void *arg, int64_t i, int thread)
{
    run *r = arg;
    tt_image_plan *p = &r->plan[i];
    (void)thread;
    tt_arena_rewind(&r->step_arena[i], 0);
    *p = (tt_image_plan){.arena = &r->step_arena[i]};
    r->why[i].status = tt_image_plan_step(&r->seq[i], p, &r->why[i]);
    r->call[i] = (tt_generator_call){.state = r->state[i], .cfg_scale = p->cfg_scale,
                                     .guided = p->guided, .reuse = p->reuse, .wants = p->wants,
                                     .slot = p->slot, .draw = p->draw,
                                     .stats = r->stats + i * r->g->info.layout.tokens};
}

static void apply_image(void *arg, int64_t i, int thread)
{
    run *r = arg;
    tt_image_seq *q = &r->seq[i];
    (void)thread;
    tt_status st = tt_image_apply(q, &r->plan[i], r->call[i].stats, &r->why[i]);
    for (int32_t k = 0; k < q->commits && !st; k++)
        st = tt_generator_commit(r->state[i], &q->commit[k], &q->id[q->commit[k]], 1, &r->why[i]);
    r->why[i].status = st;
}

/* The same of every image, on all host threads. */
static tt_status each_image(run *r, void (*fn)(void *arg, int64_t i, int thread), tt_err *e)
{
    tt_pool_run(r->b->stream->pool, r->batch, fn, r);
    for (int64_t i = 0; i < r->batch; i++)
        if (r->why[i].status) {
            *e = r->why[i];
            return e->status;
        }
    return TT_OK;
}

static double peak(const tt_bench *b, tt_compute products)
{
    bool narrow = products == TT_COMPUTE_BF16 && b->ceilings.flops_bf16 > 0;
    return narrow ? b->ceilings.flops_bf16 : b->ceilings.flops_f32;
}

static tt_status add_floor(run *r, double *seconds, tt_err *e)
{
    tt_generator_work w;
    const tt_bench *b = r->b;
    tt_status st = tt_generator_work_of(r->g, r->call, r->batch, &w, e);
    tt_compute products = r->g->info.act == TT_F32 && !strcmp(r->g->info.compute, "f32")
                              ? TT_COMPUTE_F32
                              : TT_COMPUTE_BF16;
    if (st || !(b->ceilings.bytes_per_s > 0) || !(peak(b, products) > 0))
        return st;
    double memory = w.weight_bytes / b->ceilings.bytes_per_s;
    double arithmetic = 2 * w.macs / peak(b, products);
    *seconds += memory > arithmetic ? memory : arithmetic;
    return TT_OK;
}

/* What has passed since then goes to a stage. */
static void add_time(outcome *o, int stage, int64_t *since)
{
    int64_t now = tt_now_ns();
    o->stage[stage] += (double)(now - *since) * 1e-9;
    *since = now;
}

/* One batch from nothing to pixels. floors: also find the floor of its steps, which takes time. */
static tt_status make(run *r, outcome *o, bool floors, tt_err *e)
{
    int64_t since = tt_now_ns();
    memset(o->stage, 0, sizeof o->stage);
    tt_status st = begin(r, e);
    add_time(o, BEGIN, &since);
    while (!st && !tt_image_done(&r->seq[0])) {
        st = each_image(r, plan_image, e);
        add_time(o, CHOOSE, &since);
        if (!st && floors)
            st = add_floor(r, &o->floor_tokens, e);
        if (!st)
            st = tt_generator_step(r->g, r->call, r->batch, e);
        add_time(o, STEP, &since);
        if (!st)
            st = each_image(r, apply_image, e);
        add_time(o, CHOOSE, &since);
    }
    int64_t tokens = r->g->info.layout.tokens;
    for (int64_t i = 0; i < r->batch; i++) {
        if (!st)
            memcpy(r->id + i * tokens, r->seq[i].id, (size_t)tokens * sizeof *r->id);
        tt_generator_drop(r->state[i]);
        r->state[i] = NULL;
    }
    since = tt_now_ns();
    if (!st)
        st = tt_codec_decode(r->codec, r->pixels, r->id, NULL, r->batch, e);
    add_time(o, DECODE, &since);
    return st;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, ascending);
    return (v[(n - 1) / 2] + v[n / 2]) / 2;
}

/* The pixels of some images that were made, back to ids: it runs in float32. */
static tt_status time_encoder(run *r, outcome *o, tt_err *e)
{
    double seconds[LEAST_RUNS];
    int64_t n = r->batch < MOST_ENCODED ? r->batch : MOST_ENCODED;
    tt_status st = TT_OK;
    for (int i = -1; i < LEAST_RUNS && !st; i++) { /* the first is not counted */
        int64_t since = tt_now_ns();
        st = tt_codec_encode(r->codec, r->id, NULL, NULL, r->pixels, n, e);
        if (i >= 0)
            seconds[i] = (double)(tt_now_ns() - since) * 1e-9 * (double)r->batch / (double)n;
    }
    o->stage[ENCODE] = st ? 0 : median(seconds, LEAST_RUNS);
    return st;
}

static tt_status time_batch(run *r, outcome *out, tt_err *e)
{
    double stage[STAGES][MAX_RUNS];
    int64_t budget = (int64_t)(r->b->sizes.seconds * 1e9), begun = tt_now_ns();
    tt_status st = TT_OK;
    int n = 0;
    *out = (outcome){0};
    for (int i = 0; i < WARM_RUNS && !st && (!i || tt_now_ns() - begun < budget); i++)
        st = make(r, out, i == 0, e);
    begun = tt_now_ns();
    while (!st && (n < LEAST_RUNS || (n < MAX_RUNS && tt_now_ns() - begun < budget))) {
        st = make(r, out, false, e);
        for (int i = 0; i < STAGES; i++)
            stage[i][n] = out->stage[i];
        n++;
    }
    if (st)
        return st;
    for (int i = 0; i < STAGES; i++)
        out->stage[i] = median(stage[i], n);
    st = time_encoder(r, out, e);
    if (st)
        return st;
    double most = peak(r->b, r->codec->info.products);
    if (most > 0) {
        double once = 2 * (double)r->batch / most;
        out->floor_latents = once * r->codec->info.latent_macs;
        out->floor_pixels = once * r->codec->info.decode_macs - out->floor_latents;
    }
    return TT_OK;
}

/* --- telling --- */

static void print_line(run *r, bool reuse, const outcome *o)
{
    double n = (double)r->batch, tokens = 0, ms[STAGES];
    double least = o->floor_tokens + o->floor_latents + o->floor_pixels;
    fprintf(r->b->out, "%6lld  %-5s", (long long)r->batch, reuse ? "yes" : "no");
    for (int i = 0; i < STAGES; i++) {
        ms[i] = o->stage[i] / n * 1e3;
        tokens += i < DECODE ? ms[i] : 0;
        fprintf(r->b->out, "  %8.3f", ms[i]);
    }
    double all = (tokens + ms[DECODE]) / 1e3 * n;
    fprintf(r->b->out, "  %8.3f  %9.3f  %8.3f  %8.3f", all / n * 1e3, o->floor_latents / n * 1e3,
            o->floor_pixels / n * 1e3, least / n * 1e3);
    if (least > 0)
        fprintf(r->b->out, "  %5.2f", all / least);
    fprintf(r->b->out, "\n");
    fflush(r->b->out);
    tt_json *w = &r->b->json;
    tt_json_open(w, '{');
    tt_json_int_member(w, "batch", r->batch);
    tt_json_bool_member(w, "feature_reuse", reuse);
    tt_json_float_member(w, "begin_ms", ms[BEGIN]);
    tt_json_float_member(w, "choose_ms", ms[CHOOSE]);
    tt_json_float_member(w, "steps_ms", ms[STEP]);
    tt_json_float_member(w, "tokens_ms", tokens);
    tt_json_float_member(w, "pixels_ms", ms[DECODE]);
    tt_json_float_member(w, "encode_ms", ms[ENCODE]);
    tt_json_float_member(w, "image_ms", all / n * 1e3);
    tt_json_float_member(w, "floor_ms", least / n * 1e3);
    tt_json_float_member(w, "latents_floor_ms", o->floor_latents / n * 1e3);
    tt_json_float_member(w, "pixels_floor_ms", o->floor_pixels / n * 1e3);
    tt_json_close(w, '}');
}

static void print_models(const run *r, const char *folder, bool random)
{
    char device[256];
    const tt_generator_info *g = &r->g->info;
    const tt_codec_info *c = &r->codec->info;
    tt_stream *s = r->b->stream;
    s->op.describe(s, device, sizeof device);
    fprintf(r->b->out,
            "device     %s: %s\n"
            "model      %s%s: %s, %lld layers of width %lld, %.1f M parameters, %s\n"
            "codec      %s, %d x %d pixels, %d tokens of %d codes, %.1f M parameters, %s\n",
            s->op.name, device, folder, random ? ", random weights" : "", g->family,
            (long long)g->layers, (long long)g->width, (double)g->parameters * 1e-6, g->compute,
            c->family, c->width, c->height, c->layout.tokens, c->layout.codes,
            (double)c->parameters * 1e-6, c->compute);
    tt_json *w = &r->b->json;
    tt_json_text_member(w, "device", device);
    tt_json_text_member(w, "model", folder);
    tt_json_bool_member(w, "random_weights", random);
    tt_json_int_member(w, "parameters", g->parameters + c->parameters);
    tt_json_text_member(w, "compute", g->compute);
    tt_json_text_member(w, "codec_compute", c->compute);
}

static int steps_of(const run *r)
{
    const tt_generator_info *g = &r->g->info;
    return g->kind == TT_GENERATES_MASKED ? STEPS : g->kind == TT_GENERATES_LEVELS
                                                        ? g->layout.levels
                                                        : g->layout.tokens;
}

/* As the families' released settings have them. */
static void set_params(run *r)
{
    tt_params_default(&r->params);
    r->params.steps = STEPS;
    r->params.cfg_scale = guidance;
    r->params.temperature = 6;
    if (r->g->info.kind == TT_GENERATES_MASKED)
        return;
    r->params.guidance_ramp = TT_RAMP_CONSTANT;
    r->params.cfg_scale = 2.75; /* HAR's 3.75, which counts from 1 */
    r->params.temperature = 1;
    r->params.top_p = 0.95;
}

static tt_status measure(run *r, tt_err *e)
{
    static const int64_t usual[] = {1, 8, 64};
    const tt_bench_list *list = &r->b->sizes.batch;
    int n = list->given ? list->n : 3;
    fprintf(r->b->out, "\nimages in %d steps with guidance: ms an image\n"
            " batch  reuse     begin    choose     steps    decode    encode       all  lat.floor"
            "  px.floor     floor  ratio\n"
            "(all: without encode)\n", steps_of(r));
    tt_json_open_member(&r->b->json, "images", '[');
    tt_status st = TT_OK;
    for (int i = 0; i < n && !st; i++)
        for (int reuse = r->g->info.reuses; reuse >= 0 && !st; reuse--) {
            outcome o;
            r->params.feature_reuse = reuse;
            tt_bench_say(r->b, "batch %lld", (long long)(list->given ? list->v[i] : usual[i]));
            st = open_batch(r, list->given ? list->v[i] : usual[i], e);
            if (!st)
                st = time_batch(r, &o, e);
            tt_bench_say(r->b, NULL);
            if (!st)
                print_line(r, reuse, &o);
            close_batch(r);
        }
    tt_json_close(&r->b->json, ']');
    return st;
}

static void print_memory(tt_bench *b)
{
    tt_memory m;
    if (!b->stream->op.memory || b->stream->op.memory(b->stream, &m, NULL))
        return;
    fprintf(b->out, "memory     %.1f MB at most\n", (double)m.peak * 1e-6);
    tt_json_int_member(&b->json, "memory_peak", (int64_t)m.peak);
}

tt_status tt_bench_images(tt_bench *b, const char *folder, const char *device, int threads,
                          tt_weights_mode mode, bool random, tt_err *e)
{
    run r = {.b = b};
    tt_status st = tt_stream_open(&b->stream, device ? device : "auto", threads, e);
    if (st)
        return st;
    st = open_models(&r, folder, mode, random, e);
    if (!st) {
        set_params(&r);
        print_models(&r, folder, random);
        st = tt_bench_ceilings(b, e);
    }
    if (!st)
        st = measure(&r, e);
    if (!st)
        print_memory(b);
    close_models(&r);
    tt_stream_close(b->stream);
    b->stream = NULL;
    return st;
}
