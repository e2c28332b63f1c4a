/* replay_enat.c - the image codec's and ENAT's tensors, and whole sampling runs: every image alone,
 * and the images of all runs in one mixed batch that they join at different steps. */
#include <cjson/cJSON.h>
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "samplers/image.h"
#include "tests/golden/bench.h"
#include "tests/golden/replay.h"
#include "tokenizers/image.h"

typedef struct {
    bench b; /* dir, glob, stream, expected, counts */
    tt_codec *codec;
    tt_generator *g;
    tt_weights *weights[2];
    tt_config *config[2];
    cJSON *traces;
    int32_t images, label[8];
} folder;

static bool wanted(const folder *f, const char *name)
{
    return !fnmatch(f->b.glob, name, 0);
}

static void check(folder *f, const char *name, const float *have)
{
    if (wanted(f, name))
        compare(&f->b, name, have);
}

static void check_ids(folder *f, const char *name, const int32_t *have, int64_t n)
{
    int64_t count = 0;
    char why[120] = "is missing in expected.safetensors";
    const int32_t *want = (const int32_t *)(const void *)expect(&f->b, name, &count);
    bool ok = want && count == n;
    for (int64_t i = 0; i < n && ok; i++)
        if (have[i] != want[i]) {
            snprintf(why, sizeof why, "number %lld is %d, not %d", (long long)i, have[i], want[i]);
            ok = false;
        }
    if (wanted(f, name))
        report(&f->b, name, ok, why);
}

static const float *input(folder *f, const char *name)
{
    int64_t n = 0;
    const float *p = expect(&f->b, name, &n);
    if (!p)
        report(&f->b, name, false, "is missing in expected.safetensors");
    return p;
}

static bool fine(folder *f, const char *name, tt_status st, const tt_err *e)
{
    if (st)
        report(&f->b, name, false, e->text);
    return !st;
}

/* --- the codec --- */

/* [image][pixel][channel] from [image][channel][pixel], or back. */
static void turn(float *out, const float *in, int64_t images, int64_t outer, int64_t inner)
{
    for (int64_t i = 0; i < images; i++)
        for (int64_t a = 0; a < outer; a++)
            for (int64_t b = 0; b < inner; b++)
                out[(i * inner + b) * outer + a] = in[(i * outer + a) * inner + b];
}

static int64_t pixels_of(const folder *f)
{
    return (int64_t)f->codec->info.width * f->codec->info.height;
}

/* Each image by itself must have the bits it has among the others. */
static void encode_alone(folder *f, const float *pixels, const float *latents)
{
    int32_t tokens = f->codec->info.layout.tokens, z = f->codec->info.latent;
    float *latent = calloc((size_t)(tokens * z), sizeof *latent);
    int32_t *id = calloc((size_t)tokens, sizeof *id);
    tt_err e = {0};
    bool same = true;
    for (int32_t i = 0; i < f->images && same; i++) {
        tt_status st = tt_codec_encode(f->codec, id, latent, NULL, pixels + i * pixels_of(f) * 3, 1,
                                       &e);
        same = !st && !memcmp(latent, latents + (int64_t)i * tokens * z,
                              (size_t)(tokens * z) * sizeof *latent);
    }
    report(&f->b, "vq alone", same, "an image alone has other latents");
    free(latent);
    free(id);
}

static void codec_cases(folder *f)
{
    const tt_codec_info *info = &f->codec->info;
    int64_t n = f->images, tokens = info->layout.tokens, z = info->latent, pixels = pixels_of(f);
    const float *in = input(f, "vq.image_in");
    if (!in)
        return;
    float *rgb = calloc((size_t)(n * pixels * 3), sizeof *rgb), *image = calloc(
        (size_t)(n * pixels * 3), sizeof *image);
    float *latent = calloc((size_t)(n * tokens * z), sizeof *latent);
    float *planes = calloc((size_t)(n * tokens * z), sizeof *planes);
    int32_t *id = calloc((size_t)(n * tokens), sizeof *id);
    tt_err e = {0};
    turn(rgb, in, n, 3, pixels);
    if (fine(f, "vq.latent", tt_codec_encode(f->codec, id, latent, NULL, rgb, n, &e), &e)) {
        turn(planes, latent, n, tokens, z);
        check(f, "vq.latent", planes);
        check_ids(f, "vq.indices", id, n * tokens);
        encode_alone(f, rgb, latent);
    }
    if (fine(f, "vq.quantized", tt_codec_embed(f->codec, latent, id, n, &e), &e)) {
        turn(planes, latent, n, tokens, z);
        check(f, "vq.quantized", planes);
    }
    /* Decoding without the clamp, which the reference's results do not have. */
    if (fine(f, "vq.image_out", f->codec->def->decode(f->codec, rgb, id, NULL, n, &e), &e)) {
        turn(image, rgb, n, pixels, 3);
        check(f, "vq.image_out", image);
    }
    free(rgb);
    free(image);
    free(latent);
    free(planes);
    free(id);
}

/* --- single passes --- */

static tt_condition label_of(int32_t label)
{
    return (tt_condition){{label, -1, -1, -1}};
}

static tt_draw greedy(void)
{
    return (tt_draw){.top_p = 1, .target = -1};
}

/* Commits what ids knows and the state does not. */
static tt_status reveal(tt_generator_state *st, const int32_t *ids, int32_t tokens, int32_t mask,
                        tt_err *e)
{
    tt_status s = TT_OK;
    for (int32_t i = 0; i < tokens && !s; i++)
        if (ids[i] != mask && st->id[i] == mask)
            s = tt_generator_commit(st, &i, &ids[i], 1, e);
    return s;
}

/* One step of several states with all hidden tokens' logits (zeros elsewhere) and features. */
static tt_status step_all(folder *f, tt_generator_state *const *st, int32_t n, bool reuse,
                          float *logits, float *features, tt_err *e)
{
    const tt_generator_info *info = &f->g->info;
    int32_t tokens = info->layout.tokens, codes = info->layout.codes, total = n * tokens;
    tt_generator_call *call = calloc((size_t)n, sizeof *call);
    tt_draw *draw = calloc((size_t)total, sizeof *draw);
    tt_row_stats *stats = calloc((size_t)total, sizeof *stats);
    int32_t *slot = calloc((size_t)total, sizeof *slot);
    float *rows = calloc((size_t)total * (size_t)codes, sizeof *rows);
    for (int32_t i = 0; i < total; i++)
        draw[i] = greedy();
    for (int32_t i = 0; i < n; i++) {
        call[i] = (tt_generator_call){.state = st[i],
                                      .reuse = reuse,
                                      .slot = slot + i * tokens,
                                      .draw = draw + i * tokens,
                                      .stats = stats + i * tokens,
                                      .logits = rows + (int64_t)i * tokens * codes,
                                      .features = features + i * tokens * info->width};
        for (int32_t k = 0; k < tokens; k++)
            if (st[i]->id[k] == info->mask_id)
                slot[i * tokens + call[i].wants++] = k;
    }
    tt_status s = tt_generator_step(f->g, call, n, e);
    memset(logits, 0, (size_t)total * (size_t)codes * sizeof *logits);
    for (int32_t i = 0; i < n; i++)
        for (int32_t k = 0; k < call[i].wants; k++)
            memcpy(logits + ((int64_t)i * tokens + call[i].slot[k]) * codes,
                   call[i].logits + (int64_t)k * codes, (size_t)codes * sizeof *logits);
    free(call);
    free(draw);
    free(stats);
    free(slot);
    free(rows);
    return s;
}

/* Expected logits with zeros where a token is known, as step_all leaves them. */
static void check_logits(folder *f, const char *name, const float *have, const int32_t *ids)
{
    int64_t n = 0, codes = f->g->info.layout.codes;
    const float *want = expect(&f->b, name, &n);
    double off = 0, norm = 0;
    char why[100];
    for (int64_t i = 0; want && i < n; i++) {
        if (ids[i / codes] != f->g->info.mask_id)
            continue;
        off += ((double)have[i] - want[i]) * ((double)have[i] - want[i]);
        norm += (double)want[i] * want[i];
    }
    double error = want && norm > 0 ? sqrt(off / norm) : INFINITY;
    snprintf(why, sizeof why, "relative L2 error %.3g, allowed 1e-5", error);
    if (wanted(f, name))
        report(&f->b, name, error < 1e-5, why);
}

static void check_reused(folder *f, const char *name, const float *features, const int32_t *before)
{
    int64_t n = 0, d = f->g->info.width, tokens = f->g->info.layout.tokens, at = 0;
    if (!expect(&f->b, name, &n))
        return; /* the first states have none */
    float *rows = calloc((size_t)(f->images * tokens * d), sizeof *rows);
    for (int64_t i = 0; i < f->images * tokens; i++)
        if (before[i] != f->g->info.mask_id)
            memcpy(rows + at++ * d, features + i * d, (size_t)d * sizeof *rows);
    if (at * d == n)
        check(f, name, rows);
    else
        report(&f->b, name, false, "has another number of rows");
    free(rows);
}

static tt_status begin_all(folder *f, tt_generator_state **st, tt_err *e)
{
    tt_status s = TT_OK;
    for (int32_t i = 0; i < f->images && !s; i++) {
        tt_condition c = label_of(f->label[i]);
        s = tt_generator_begin(&st[i], f->g, &c, NULL, e);
    }
    return s;
}

/* The same ids without a state of the step before. */
static void without_reuse(folder *f, char letter, const int32_t *ids, float *logits, float *feat)
{
    tt_generator_state *st[8] = {0};
    char name[40];
    int64_t n;
    tt_err e = {0};
    snprintf(name, sizeof name, "fwd.%c.noreuse.logits", letter);
    if (!expect(&f->b, name, &n))
        return;
    tt_status s = begin_all(f, st, &e);
    for (int32_t i = 0; i < f->images && !s; i++)
        s = reveal(st[i], ids + i * f->g->info.layout.tokens, f->g->info.layout.tokens,
                   f->g->info.mask_id, &e);
    if (!s)
        s = step_all(f, st, f->images, true, logits, feat, &e);
    if (fine(f, name, s, &e)) {
        check_logits(f, name, logits, ids);
        snprintf(name, sizeof name, "fwd.%c.noreuse.feat", letter);
        check(f, name, feat);
    }
    for (int32_t i = 0; i < f->images; i++)
        tt_generator_drop(st[i]);
}

static void pass_cases(folder *f)
{
    const tt_generator_info *info = &f->g->info;
    int64_t rows = (int64_t)f->images * info->layout.tokens, n = 0;
    float *logits = calloc((size_t)(rows * info->layout.codes), sizeof *logits);
    float *feat = calloc((size_t)(rows * info->width), sizeof *feat);
    tt_generator_state *st[8] = {0};
    const int32_t *before = NULL;
    tt_err e = {0};
    bool ok = fine(f, "fwd", begin_all(f, st, &e), &e);
    for (char letter = 'A'; letter <= 'E' && ok; letter++) {
        char name[40];
        snprintf(name, sizeof name, "fwd.%c.ids", letter);
        const int32_t *ids = (const int32_t *)(const void *)expect(&f->b, name, &n);
        tt_status s = ids ? TT_OK : tt_fail(&e, TT_EFORMAT, "is missing in expected.safetensors");
        for (int32_t i = 0; i < f->images && !s; i++)
            s = reveal(st[i], ids + i * info->layout.tokens, info->layout.tokens, info->mask_id,
                       &e);
        if (!s)
            s = step_all(f, st, f->images, true, logits, feat, &e);
        if (!(ok = fine(f, name, s, &e)))
            break;
        snprintf(name, sizeof name, "fwd.%c.logits", letter);
        check_logits(f, name, logits, ids);
        snprintf(name, sizeof name, "fwd.%c.feat", letter);
        check(f, name, feat);
        snprintf(name, sizeof name, "fwd.%c.reused", letter);
        if (before)
            check_reused(f, name, feat, before);
        without_reuse(f, letter, ids, logits, feat);
        before = ids;
    }
    for (int32_t i = 0; i < f->images; i++)
        tt_generator_drop(st[i]);
    free(logits);
    free(feat);
}

/* --- the loss of training, which is the network's forward pass --- */

static double loss_of(const folder *f, const float *logits, const int32_t *ids,
                      const int32_t *target)
{
    int64_t codes = f->g->info.layout.codes, rows = (int64_t)f->images * f->g->info.layout.tokens;
    double loss = 0, hidden = 0;
    for (int64_t r = 0; r < rows; r++) {
        const float *l = logits + r * codes;
        double sum = 0, mean = 0;
        if (ids[r] != f->g->info.mask_id)
            continue;
        for (int64_t k = 0; k < codes; k++)
            sum += exp((double)l[k]);
        for (int64_t k = 0; k < codes; k++)
            mean += (log(sum) - l[k]) / (double)codes;
        loss += 0.9 * (log(sum) - l[target[r]]) + 0.1 * mean;
        hidden++;
    }
    return loss / hidden;
}

/* Tokens whose rank is below the limit, the mask elsewhere. */
static void visible(const folder *f, int32_t *ids, const int32_t *target, const int32_t *rank,
                    int32_t limit)
{
    for (int32_t i = 0; i < f->images * f->g->info.layout.tokens; i++)
        ids[i] = rank[i] < limit ? target[i] : f->g->info.mask_id;
}

static void loss_case(folder *f, const char *name, bool reuse)
{
    const tt_generator_info *info = &f->g->info;
    int64_t rows = (int64_t)f->images * info->layout.tokens, n = 0;
    const int32_t *target = (const int32_t *)(const void *)input(f, "train.target");
    const int32_t *rank = (const int32_t *)(const void *)input(f, "train.visible_rank");
    const float *want = input(f, name);
    float *logits = calloc((size_t)(rows * info->layout.codes), sizeof *logits);
    float *feat = calloc((size_t)(rows * info->width), sizeof *feat);
    int32_t *ids = calloc((size_t)rows, sizeof *ids);
    tt_generator_state *st[8] = {0};
    tt_err e = {0};
    char why[100];
    (void)n;
    tt_status s = target && rank && want ? begin_all(f, st, &e) : TT_EFORMAT;
    for (int round = reuse ? 0 : 1; round < 2 && !s; round++) {
        visible(f, ids, target, rank, info->layout.tokens * (round + 1) / 3);
        for (int32_t i = 0; i < f->images && !s; i++)
            s = reveal(st[i], ids + i * info->layout.tokens, info->layout.tokens, info->mask_id,
                       &e);
        if (!s)
            s = step_all(f, st, f->images, true, logits, feat, &e);
    }
    if (fine(f, name, s, &e) && wanted(f, name)) {
        double loss = loss_of(f, logits, ids, target);
        snprintf(why, sizeof why, "is %.7g, not %.7g", loss, (double)*want);
        report(&f->b, name, fabs(loss - *want) < 1e-5 * fabs(*want), why);
    }
    for (int32_t i = 0; i < f->images; i++)
        tt_generator_drop(st[i]);
    free(logits);
    free(feat);
    free(ids);
}

/* --- sampling runs --- */

enum { MAX_STEPS = 16 };

/* One image of one run. */
typedef struct {
    char name[60], run[40];
    const cJSON *steps;
    int32_t image;  /* of the run's */
    bool recorded;  /* its noise is */
    tt_params params;
    tt_arena arena, step_arena;
    tt_image_seq seq;
    tt_image_plan plan;
    tt_generator_state *state;
    float *logits;                /* of the step */
    tt_row_stats *stats;
    double sum[2][MAX_STEPS];     /* alone and mixed: of the logits, to be the same to the bit */
    int join;                     /* the batch's step at which it enters */
    bool bad;
    char why[160];
} trial;

static double number(const cJSON *o, const char *key)
{
    const cJSON *j = cJSON_GetObjectItemCaseSensitive(o, key);
    return cJSON_IsNumber(j) ? j->valuedouble : 0;
}

static const float *noise_of(folder *f, const trial *t, const char *kind, int64_t size)
{
    char name[80];
    int64_t n = 0;
    snprintf(name, sizeof name, "gen.%s.%s", t->run, kind);
    const float *p = t->recorded ? expect(&f->b, name, &n) : NULL;
    return p ? p + (t->seq.step * f->images + t->image) * size : NULL;
}

static tt_status start(folder *f, trial *t, tt_err *e)
{
    tt_arena_rewind(&t->arena, 0);
    t->seq = (tt_image_seq){.planner = tt_planner_for(f->g->info.kind),
                            .params = &t->params,
                            .layout = f->g->info.layout,
                            .mask_id = f->g->info.mask_id,
                            .arena = &t->arena};
    tt_status s = tt_image_begin(&t->seq, NULL, e);
    tt_condition c = label_of(f->label[t->image]);
    return s ? s : tt_generator_begin(&t->state, f->g, &c, NULL, e);
}

static tt_status plan(folder *f, trial *t, tt_generator_call *call, tt_err *e)
{
    tt_arena_rewind(&t->step_arena, 0);
    t->plan = (tt_image_plan){.arena = &t->step_arena};
    t->seq.order_noise = noise_of(f, t, "conf_gumbel", f->g->info.layout.tokens);
    tt_status s = tt_image_plan_step(&t->seq, &t->plan, e);
    *call = (tt_generator_call){.state = t->state,
                                .cfg_scale = t->plan.cfg_scale,
                                .guided = t->plan.guided,
                                .reuse = t->plan.reuse,
                                .wants = t->plan.wants,
                                .slot = t->plan.slot,
                                .draw = t->plan.draw,
                                .stats = t->stats,
                                .logits = t->logits};
    return s;
}

/* Draws again from the logits with the recorded noise. */
static void redraw(folder *f, trial *t)
{
    int64_t codes = f->g->info.layout.codes;
    const float *noise = noise_of(f, t, "sample_gumbel", codes * f->g->info.layout.tokens);
    for (int32_t i = 0; i < t->plan.wants && noise; i++) {
        const float *l = t->logits + i * codes, *g = noise + t->plan.slot[i] * codes;
        double best = -INFINITY, tau = t->plan.draw[i].temperature;
        for (int32_t k = 0; k < codes; k++) {
            double score = (l[k] - t->stats[i].lse) / tau + g[k];
            if (score > best) {
                best = score;
                t->stats[i].drawn = k;
                t->stats[i].logprob = l[k] - t->stats[i].lse;
            }
        }
    }
}

static void differ(trial *t, const char *what, int32_t at, int32_t have, int32_t want)
{
    t->bad = true;
    snprintf(t->why, sizeof t->why, "step %d: %s %d is %d, not %d", t->seq.step, what, at, have,
             want);
}

static int32_t listed(const cJSON *step, const char *key, int32_t image, int32_t slot)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(step, key);
    const cJSON *j = cJSON_GetArrayItem(cJSON_GetArrayItem(list, image), slot);
    return cJSON_IsNumber(j) ? j->valueint : -1;
}

static tt_status finish_step(folder *f, trial *t, bool mixed, tt_err *e)
{
    const cJSON *step = cJSON_GetArrayItem(t->steps, t->seq.step);
    int32_t tokens = f->g->info.layout.tokens, at = t->seq.step;
    redraw(f, t);
    for (int64_t i = 0; i < (int64_t)t->plan.wants * f->g->info.layout.codes; i++)
        t->sum[mixed][at] += t->logits[i];
    for (int32_t i = 0; i < t->plan.wants && !t->bad; i++) {
        int32_t want = listed(step, "sampled_ids", t->image, t->plan.slot[i]);
        if (t->stats[i].drawn != want)
            differ(t, "token drawn at", t->plan.slot[i], t->stats[i].drawn, want);
    }
    if (!t->bad && fabs(t->plan.cfg_scale - number(step, "cfg_used")) > 1e-6)
        differ(t, "guidance in thousandths of image", t->image,
               (int32_t)(1000 * t->plan.cfg_scale), (int32_t)(1000 * number(step, "cfg_used")));
    tt_status s = tt_image_apply(&t->seq, &t->plan, t->stats, e);
    for (int32_t i = 0; i < tokens && !t->bad; i++) {
        int32_t want = listed(step, "ids_after", t->image, i);
        if (t->seq.id[i] != want)
            differ(t, "token", i, t->seq.id[i], want);
    }
    for (int32_t i = 0; i < t->seq.commits && !s; i++) {
        int32_t slot = t->seq.commit[i];
        s = tt_generator_commit(t->state, &slot, &t->seq.id[slot], 1, e);
    }
    return s;
}

/* All trials, each entering at its step; several at a time when mixed. */
static tt_status run_trials(folder *f, trial *t, int n, bool mixed, tt_err *e)
{
    tt_generator_call *call = calloc((size_t)n, sizeof *call);
    trial **in = calloc((size_t)n, sizeof *in);
    tt_status s = TT_OK;
    bool more = true;
    for (int i = 0; i < n && !s; i++)
        s = start(f, &t[i], e);
    for (int now = 0; more && !s; now++) {
        int calls = 0;
        more = false;
        for (int i = 0; i < n && !s; i++) {
            if (tt_image_done(&t[i].seq) || t[i].bad)
                continue;
            more = true;
            if (mixed && now < t[i].join)
                continue;
            in[calls] = &t[i];
            s = plan(f, &t[i], &call[calls++], e);
        }
        if (!s)
            s = tt_generator_step(f->g, call, calls, e);
        for (int i = 0; i < calls && !s; i++)
            s = finish_step(f, in[i], mixed, e);
    }
    for (int i = 0; i < n; i++) {
        tt_generator_drop(t[i].state);
        t[i].state = NULL;
    }
    free(call);
    free(in);
    return s;
}

static void verdict(folder *f, trial *t, bool mixed)
{
    char name[80];
    snprintf(name, sizeof name, "%s%s", t->name, mixed ? " mixed" : "");
    bool finished = t->seq.step == cJSON_GetArraySize(t->steps);
    if (!t->bad && !finished)
        snprintf(t->why, sizeof t->why, "ended after step %d", t->seq.step);
    bool same = !mixed || !memcmp(t->sum[0], t->sum[1], sizeof t->sum[0]);
    if (!t->bad && finished && !same)
        snprintf(t->why, sizeof t->why, "other logits than alone");
    report(&f->b, name, !t->bad && finished && same, t->why);
}

static void image_case(folder *f, const trial *t, const char *run)
{
    char name[60];
    int64_t pixels = pixels_of(f), tokens = f->codec->info.layout.tokens;
    float *rgb = calloc((size_t)(f->images * pixels * 3), sizeof *rgb);
    float *planes = calloc((size_t)(f->images * pixels * 3), sizeof *planes);
    int32_t *id = calloc((size_t)(f->images * tokens), sizeof *id);
    tt_err e = {0};
    for (int32_t i = 0; i < f->images; i++)
        memcpy(id + i * tokens, t[i].seq.id, (size_t)tokens * sizeof *id);
    snprintf(name, sizeof name, "gen.%s.image", run);
    if (fine(f, name, f->codec->def->decode(f->codec, rgb, id, NULL, f->images, &e), &e)) {
        turn(planes, rgb, f->images, pixels, 3);
        check(f, name, planes);
    }
    free(rgb);
    free(planes);
    free(id);
}

/* Logits of one branch before guidance at one step of a run: the ids of the trace are fed from the
 * beginning, so that the branch has the features it had there. */
static void branch_case(folder *f, const char *run, const cJSON *steps, int32_t step, bool cond)
{
    const tt_generator_info *info = &f->g->info;
    int32_t tokens = info->layout.tokens, rows = f->images * tokens;
    tt_generator_state *st[8] = {0};
    float *logits = calloc((size_t)rows * (size_t)info->layout.codes, sizeof *logits);
    float *feat = calloc((size_t)(rows * info->width), sizeof *feat);
    int32_t *ids = calloc((size_t)rows, sizeof *ids);
    char name[80];
    tt_err e = {0};
    tt_status s = TT_OK;
    snprintf(name, sizeof name, "gen.%s.step%d.%s_logits", run, step, cond ? "cond" : "uncond");
    for (int32_t i = 0; i < f->images && !s; i++) {
        tt_condition c = label_of(cond ? f->label[i] : -1);
        s = tt_generator_begin(&st[i], f->g, &c, NULL, &e);
    }
    for (int32_t t = 0; t <= step && !s; t++) {
        const cJSON *at = cJSON_GetArrayItem(steps, t);
        for (int32_t i = 0; i < rows; i++)
            ids[i] = listed(at, "ids_before", i / tokens, i % tokens);
        for (int32_t i = 0; i < f->images && !s; i++)
            s = reveal(st[i], ids + i * tokens, tokens, info->mask_id, &e);
        if (!s)
            s = step_all(f, st, f->images, true, logits, feat, &e);
    }
    if (fine(f, name, s, &e))
        check_logits(f, name, logits, ids);
    for (int32_t i = 0; i < f->images; i++)
        tt_generator_drop(st[i]);
    free(logits);
    free(feat);
    free(ids);
}

static void branch_cases(folder *f, const char *run, const cJSON *steps)
{
    for (int32_t step = 0; step < cJSON_GetArraySize(steps); step++)
        for (int cond = 0; cond < 2; cond++) {
            char name[80];
            int64_t n;
            snprintf(name, sizeof name, "gen.%s.step%d.%s_logits", run, step,
                     cond ? "cond" : "uncond");
            if (expect(&f->b, name, &n) && wanted(f, name))
                branch_case(f, run, steps, step, cond);
        }
}

static bool open_trial(folder *f, trial *t, const cJSON *run, int32_t image, int join, tt_err *e)
{
    const tt_generator_info *info = &f->g->info;
    const cJSON *settings = cJSON_GetObjectItemCaseSensitive(run, "settings");
    size_t tokens = (size_t)info->layout.tokens;
    snprintf(t->run, sizeof t->run, "%s", run->string);
    snprintf(t->name, sizeof t->name, "%s.%d", run->string, image);
    t->steps = cJSON_GetObjectItemCaseSensitive(run, "steps");
    t->image = image;
    t->join = join;
    t->recorded = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(settings, "noise"));
    tt_params_default(&t->params);
    t->params.steps = (int32_t)number(settings, "steps");
    t->params.temperature = number(settings, "samp_temp");
    t->params.order_temperature = number(settings, "mask_temp");
    t->params.cfg_scale = number(settings, "cfg");
    t->stats = calloc(tokens, sizeof *t->stats);
    t->logits = calloc(tokens * (size_t)info->layout.codes, sizeof *t->logits);
    return cJSON_GetArraySize(t->steps) <= MAX_STEPS && t->stats && t->logits &&
           !tt_arena_open(&t->arena, tt_image_seq_bytes(tt_planner_for(info->kind),
                                                        info->layout.tokens), e) &&
           !tt_arena_open(&t->step_arena, tt_image_step_bytes(info->layout.tokens), e);
}

static void close_trial(trial *t)
{
    tt_arena_close(&t->arena);
    tt_arena_close(&t->step_arena);
    free(t->stats);
    free(t->logits);
}

static void run_cases(folder *f)
{
    const cJSON *runs = cJSON_GetObjectItemCaseSensitive(f->traces, "runs"), *run;
    int n = 0, total = cJSON_GetArraySize(runs) * f->images;
    trial *t = calloc((size_t)total + 1, sizeof *t);
    tt_err e = {0};
    cJSON_ArrayForEach(run, runs)
    {
        if (!wanted(f, run->string))
            continue;
        for (int32_t i = 0; i < f->images; i++, n++)
            if (!open_trial(f, &t[n], run, i, (5 * n) % 7, &e))
                report(&f->b, run->string, false, "cannot be set up");
    }
    for (int mixed = 0; mixed < 2 && n; mixed++) {
        tt_status s = TT_OK;
        if (mixed)
            s = run_trials(f, t, n, true, &e);
        for (int i = 0; i < n && !mixed && !s; i++)
            s = run_trials(f, &t[i], 1, false, &e);
        for (int i = 0; i < n && fine(f, "runs", s, &e); i++)
            verdict(f, &t[i], mixed);
    }
    for (int i = 0; i < n; i += f->images) {
        image_case(f, &t[i], t[i].run);
        branch_cases(f, t[i].run, t[i].steps);
    }
    for (int i = 0; i < n; i++)
        close_trial(&t[i]);
    free(t);
}

/* --- the folder --- */

static bool open_folder(folder *f, const char *device)
{
    char path[4096];
    tt_err e = {0};
    tt_status s = tt_stream_open(&f->b.stream, device, 1, &e);
    snprintf(path, sizeof path, "%s/vqgan", f->b.dir);
    if (!s)
        s = tt_codec_open(&f->codec, &f->weights[0], &f->config[0], f->b.stream, path,
                          TT_WEIGHTS_F32, false, &e);
    snprintf(path, sizeof path, "%s/enat", f->b.dir);
    if (!s)
        s = tt_generator_open(&f->g, &f->weights[1], &f->config[1], f->b.stream, path,
                              TT_WEIGHTS_F32, false, &e);
    if (!fine(f, "models", s, &e) || !bench_expect(&f->b))
        return false;
    f->traces = read_json(&f->b, "trace.json");
    const cJSON *label, *list = cJSON_GetObjectItemCaseSensitive(f->traces, "classes");
    cJSON_ArrayForEach(label, list)
        if (f->images < 8)
            f->label[f->images++] = label->valueint;
    report(&f->b, "trace.json", f->images > 0, "has no classes");
    return f->images > 0;
}

int tt_replay_enat(const char *dir, const char *case_glob, const char *device, int *passed,
                   int *failed)
{
    folder f = {.b = {.dir = dir, .glob = case_glob}};
    bool ok = open_folder(&f, device);
    if (ok) {
        codec_cases(&f);
        pass_cases(&f);
        loss_case(&f, "train.plain.loss", false);
        loss_case(&f, "train.reuse.loss", true);
        run_cases(&f);
    }
    cJSON_Delete(f.traces);
    tt_codec_close(f.codec);
    tt_generator_close(f.g);
    for (int i = 0; i < 2; i++) {
        tt_weights_close(f.weights[i]);
        tt_config_close(f.config[i]);
    }
    tt_weights_close(f.b.expected);
    tt_stream_close(f.b.stream);
    *passed += f.b.passed;
    *failed += f.b.failed;
    return ok ? 0 : -1;
}
