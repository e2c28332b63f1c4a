/* codecs.c - a codec alone: pictures to tokens and back, in float32 and in the arithmetic that the
 * weights are opened in.
 *
 * A floor is the time of the multiply-adds at the device's measured peak of their type. Codecs that
 * work in steps are measured as they are served: works of one batch go together. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/clock.h"
#include "kernels/base/rng.h"
#include "server/bench/bench.h"
#include "tokenizers/image.h"

enum { MOST_RUNS = 32, LEAST_RUNS = 3, WARM_RUNS = 3 };

typedef struct {
    tt_bench *b;
    tt_codec *codec;
    tt_weights *weights;
    tt_config *config;
    int64_t batch;
    float *pixels;
    int32_t *id;
    tt_codec_work **work;
} run;

/* Seconds of a batch: all steps but the last, and that. */
typedef struct {
    double steps, last;
} outcome;

/* What is measured: reading or painting, in a way or as always (NULL). */
typedef struct {
    const char *name;
    bool paints;
    const tt_painting *painting;
    double floor, pixels_floor; /* seconds a picture; from latents to pixels alone; 0: not known */
} task;

static void close_batch(run *r)
{
    free(r->pixels);
    free(r->id);
    free(r->work);
    r->pixels = NULL;
    r->id = NULL;
    r->work = NULL;
}

static tt_status open_batch(run *r, int64_t batch, tt_err *e)
{
    const tt_codec_info *info = &r->codec->info;
    size_t n = (size_t)batch, numbers = n * 3 * (size_t)info->width * (size_t)info->height;
    r->batch = batch;
    r->pixels = malloc(numbers * sizeof *r->pixels);
    r->id = malloc(n * (size_t)info->layout.tokens * sizeof *r->id);
    r->work = calloc(n, sizeof(tt_codec_work *));
    if (!r->pixels || !r->id || !r->work)
        return tt_fail(e, TT_ENOMEM, "no memory for %lld pictures", (long long)batch);
    for (size_t i = 0; i < numbers; i++)
        r->pixels[i] = (float)(tt_philox(7, (uint32_t)i, 0, 0, 0).v[0] >> 8) * 0x1p-24f;
    uint32_t codes = (uint32_t)info->layout.codes;
    for (size_t i = 0; i < n * (size_t)info->layout.tokens; i++)
        r->id[i] = (int32_t)(tt_philox(8, (uint32_t)i, 0, 0, 0).v[0] % codes);
    return TT_OK;
}

static tt_status begin(run *r, const task *t, tt_err *e)
{
    const tt_codec_info *info = &r->codec->info;
    int64_t pixels = 3 * (int64_t)info->width * info->height;
    tt_status st = TT_OK;
    for (int64_t i = 0; i < r->batch && !st; i++)
        st = t->paints ? tt_codec_paint(&r->work[i], r->codec, r->id + i * info->layout.tokens,
                                          0, t->painting, e)
                         : tt_codec_read(&r->work[i], r->codec, r->pixels + i * pixels, NULL, e);
    return st;
}

/* All works of a batch take equally many steps. */
static tt_status make(run *r, const task *t, outcome *o, tt_err *e)
{
    int64_t since = tt_now_ns();
    tt_status st = begin(r, t, e);
    while (!st && !r->work[0]->done) {
        if (r->work[0]->now + 1 == r->work[0]->of) {
            o->steps = (double)(tt_now_ns() - since) * 1e-9;
            since = tt_now_ns();
        }
        st = tt_codec_step(r->codec, r->work, r->batch, e);
    }
    o->last = (double)(tt_now_ns() - since) * 1e-9;
    for (int64_t i = 0; i < r->batch; i++) {
        tt_codec_drop(r->work[i]);
        r->work[i] = NULL;
    }
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

static tt_status time_batch(run *r, const task *t, outcome *o, tt_err *e)
{
    double steps[MOST_RUNS], last[MOST_RUNS];
    int64_t budget = (int64_t)(r->b->sizes.seconds * 1e9), begun = tt_now_ns();
    tt_status st = TT_OK;
    int n = 0;
    for (int i = 0; i < WARM_RUNS && !st && (!i || tt_now_ns() - begun < budget); i++)
        st = make(r, t, o, e);
    begun = tt_now_ns();
    while (!st && (n < LEAST_RUNS || (n < MOST_RUNS && tt_now_ns() - begun < budget))) {
        st = make(r, t, o, e);
        steps[n] = o->steps;
        last[n++] = o->last;
    }
    if (!st)
        *o = (outcome){median(steps, n), median(last, n)};
    return st;
}

static void print_line(run *r, const task *t, const outcome *o)
{
    double n = (double)r->batch, all = (o->steps + o->last) / n;
    fprintf(r->b->out, "%6lld  %-20s  %9.3f  %9.3f  %9.3f  %9.3f  %9.3f", (long long)r->batch,
            t->name, o->steps / n * 1e3, o->last / n * 1e3, all * 1e3, t->pixels_floor * 1e3,
            t->floor * 1e3);
    if (t->floor > 0)
        fprintf(r->b->out, "  %5.2f", all / t->floor);
    fprintf(r->b->out, "\n");
    fflush(r->b->out);
    tt_json *w = &r->b->json;
    tt_json_open(w, '{');
    tt_json_int_member(w, "batch", r->batch);
    tt_json_text_member(w, "task", t->name);
    tt_json_float_member(w, "steps_ms", o->steps / n * 1e3);
    tt_json_float_member(w, "last_ms", o->last / n * 1e3);
    tt_json_float_member(w, "picture_ms", all * 1e3);
    tt_json_float_member(w, "pixels_floor_ms", t->pixels_floor * 1e3);
    tt_json_float_member(w, "floor_ms", t->floor * 1e3);
    tt_json_close(w, '}');
}

/* Seconds that so many multiply-adds take at least. */
static double floor_of(const run *r, double macs, tt_compute products)
{
    const tt_ceilings *c = &r->b->ceilings;
    double peak = products == TT_COMPUTE_BF16 && c->flops_bf16 > 0 ? c->flops_bf16 : c->flops_f32;
    if (products == TT_COMPUTE_THIRDS)
        peak = c->flops_bf16 / 6; /* products of bfloat16 for one of float32 */
    return peak > 0 ? 2 * macs / peak : 0;
}

static tt_status measure_tasks(run *r, tt_err *e)
{
    const tt_codec_info *info = &r->codec->info;
    tt_painting one = info->painting, usual = info->painting;
    one.steps = 1;
    one.guidance = 0;
    double first = floor_of(r, info->latent_macs, info->products);
    double end = floor_of(r, info->decode_macs, info->products);
    char name[40];
    snprintf(name, sizeof name, "%d guided steps", usual.steps);
    bool steps = usual.steps > 0; /* else latent_macs are a part of decode_macs */
    double call = steps ? first : 0, pixels = steps ? end : end - first;
    const task list[] = {
        {"reading", false, NULL, floor_of(r, info->encode_macs, info->reading), 0},
        {steps ? "1 step" : "decoding", true, steps ? &one : NULL, call + end, pixels},
        {name, true, &usual, 2 * usual.steps * call + end, pixels},
    };
    tt_status st = TT_OK;
    for (int i = 0; i < (steps ? 3 : 2) && !st; i++) {
        outcome o = {0};
        st = time_batch(r, &list[i], &o, e);
        if (!st)
            print_line(r, &list[i], &o);
    }
    return st;
}

static tt_status measure(run *r, tt_err *e)
{
    const tt_bench_list *list = &r->b->sizes.batch;
    fprintf(r->b->out, "\nms a picture\n batch  what                      steps       last        "
            "all   px.floor      floor  ratio\n");
    tt_json_open_member(&r->b->json, "pictures", '[');
    tt_status st = TT_OK;
    for (int i = 0; i < list->n && !st; i++) {
        tt_bench_say(r->b, "batch %lld", (long long)list->v[i]);
        st = open_batch(r, list->v[i], e);
        if (!st)
            st = measure_tasks(r, e);
        tt_bench_say(r->b, NULL);
        close_batch(r);
    }
    tt_json_close(&r->b->json, ']');
    return st;
}

static void print_codec(const run *r, const char *folder, bool random)
{
    char device[256];
    const tt_codec_info *c = &r->codec->info;
    tt_stream *s = r->b->stream;
    s->op.describe(s, device, sizeof device);
    fprintf(r->b->out,
            "device     %s: %s\n"
            "codec      %s%s: %s, %d x %d pixels, %d tokens of %d codes, %.1f M parameters, %s\n",
            s->op.name, device, folder, random ? ", random weights" : "", c->family, c->width,
            c->height, c->layout.tokens, c->layout.codes, (double)c->parameters * 1e-6,
            c->compute);
    tt_json *w = &r->b->json;
    tt_json_text_member(w, "device", device);
    tt_json_text_member(w, "codec", folder);
    tt_json_bool_member(w, "random_weights", random);
    tt_json_int_member(w, "parameters", c->parameters);
    tt_json_text_member(w, "codec_compute", c->compute);
}

tt_status tt_bench_codec(tt_bench *b, const char *folder, const char *device, int threads,
                         tt_weights_mode mode, bool random, tt_err *e)
{
    run r = {.b = b};
    tt_status st = tt_stream_open(&b->stream, device ? device : "auto", threads, e);
    if (st)
        return st;
    st = tt_codec_open(&r.codec, &r.weights, &r.config, b->stream, folder, mode, random, e);
    if (!st) {
        print_codec(&r, folder, random);
        st = tt_bench_ceilings(b, e);
    }
    if (!st)
        st = measure(&r, e);
    tt_codec_close(r.codec);
    tt_weights_close(r.weights);
    tt_config_close(r.config);
    tt_stream_close(b->stream);
    b->stream = NULL;
    return st;
}
