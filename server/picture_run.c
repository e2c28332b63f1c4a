/* picture_run.c - see picture_run.h. */
#include "server/picture_run.h"

#include <stdlib.h>
#include <string.h>

static size_t pixels_of(const tt_codec *c)
{
    return (size_t)c->info.width * (size_t)c->info.height;
}

static const tt_planner *planner_of(const tt_picture_run_spec *s)
{
    return s->picture->task == TT_PICTURE_MAKE ? tt_planner_for(s->generator->info.kind) : NULL;
}

size_t tt_picture_run_bytes(const tt_picture_run_spec *s)
{
    int32_t n = s->codec->info.layout.tokens;
    size_t bytes = (size_t)n * sizeof(int32_t) + pixels_of(s->codec) * (3 + 3 * sizeof(float)) +
                   tt_codec_bytes(s->codec, 1);
    if (s->picture->task == TT_PICTURE_MAKE)
        bytes += tt_image_seq_bytes(planner_of(s), n) + tt_image_step_bytes(n) +
                 s->generator->info.state_bytes + tt_generator_step_bytes(s->generator, 1);
    return bytes;
}

/* --- life --- */

/* The tokens a making run begins from, in r->shown. */
static tt_status first_tokens(tt_picture_run *r, tt_err *e)
{
    const tt_picture_spec *p = r->spec.picture;
    int32_t mask = r->spec.generator->info.mask_id;
    for (int32_t i = 0; i < r->layout.tokens; i++)
        r->shown[i] = r->spec.id[i] < 0 ? mask : r->spec.id[i];
    return p->strength > 0 ? tt_image_hide(r->shown, &r->layout, mask, p->mask, p->strength,
                                           r->spec.seed, r->spec.sample, e)
                           : TT_OK;
}

static tt_status open_seq(tt_picture_run *r, tt_err *e)
{
    const tt_planner *planner = planner_of(&r->spec);
    tt_status s = tt_arena_open(&r->life, tt_image_seq_bytes(planner, r->layout.tokens), e);
    if (!s)
        s = tt_arena_open(&r->step, tt_image_step_bytes(r->layout.tokens), e);
    if (s)
        return s;
    r->seq = (tt_image_seq){.planner = planner,
                            .params = r->spec.params,
                            .layout = r->layout,
                            .mask_id = r->spec.generator->info.mask_id,
                            .seed = r->spec.seed,
                            .sample = r->spec.sample,
                            .arena = &r->life};
    s = first_tokens(r, e);
    return s ? s : tt_image_begin(&r->seq, r->shown, e);
}

/* After a step: the last picture, a preview that is due, or the next step. */
static void set_pass(tt_picture_run *r)
{
    const tt_image_seq *q = &r->seq;
    const tt_picture_spec *p = r->spec.picture;
    bool over = tt_image_done(q);
    int32_t due = (int32_t)((int64_t)q->step * (p->previews + 1) / (q->steps > 0 ? q->steps : 1));
    r->pass = TT_PICTURE_PASS_STEP;
    if (over && p->tokens_only) {
        r->done = true;
    } else if (over || (due > r->previews && r->previews < p->previews)) {
        tt_image_preview(q, r->shown); /* of a complete image: its tokens */
        r->previews = due;
        r->pass = TT_PICTURE_PASS_DECODE;
    }
}

tt_status tt_picture_run_open(tt_picture_run *r, const tt_picture_run_spec *spec, tt_err *e)
{
    tt_status s = TT_OK;
    *r = (tt_picture_run){.spec = *spec, .layout = spec->codec->info.layout};
    r->shown = calloc((size_t)r->layout.tokens, sizeof *r->shown);
    r->picture = malloc(pixels_of(spec->codec) * 3);
    if (!r->shown || !r->picture) {
        tt_picture_run_close(r);
        return tt_fail(e, TT_ENOMEM, "no memory for an image");
    }
    switch (spec->picture->task) {
    case TT_PICTURE_MAKE:
        s = open_seq(r, e);
        if (!s)
            set_pass(r);
        break;
    case TT_PICTURE_ENCODE:
        r->pass = TT_PICTURE_PASS_ENCODE;
        break;
    case TT_PICTURE_DECODE:
        memcpy(r->shown, spec->id, (size_t)r->layout.tokens * sizeof *r->shown);
        r->pass = TT_PICTURE_PASS_DECODE;
        break;
    }
    if (s)
        tt_picture_run_close(r);
    return s;
}

void tt_picture_run_close(tt_picture_run *r)
{
    tt_generator_drop(r->state);
    r->state = NULL;
    tt_arena_close(&r->life);
    tt_arena_close(&r->step);
    free(r->shown);
    free(r->picture);
    r->shown = NULL;
    r->picture = NULL;
}

/* --- one pass --- */

static void keep_failure(tt_picture_run *r, tt_status s)
{
    r->failed = s;
    r->error.status = s;
}

void tt_picture_run_plan(tt_picture_run *r)
{
    if (r->planned || r->failed || r->pass != TT_PICTURE_PASS_STEP)
        return;
    tt_arena_rewind(&r->step, 0);
    r->plan = (tt_image_plan){.arena = &r->step};
    tt_status s = TT_OK;
    if (!r->state)
        s = tt_generator_begin(&r->state, r->spec.generator, &r->spec.picture->condition, r->seq.id,
                               &r->error);
    if (!s)
        s = tt_image_plan_step(&r->seq, &r->plan, &r->error);
    if (s)
        keep_failure(r, s);
    else
        r->planned = true;
}

const void *tt_picture_run_model(const tt_picture_run *r)
{
    return r->pass == TT_PICTURE_PASS_STEP ? (const void *)r->spec.generator
                                           : (const void *)r->spec.codec;
}

int64_t tt_picture_run_rows(const tt_picture_run *r)
{
    bool twice = r->pass == TT_PICTURE_PASS_STEP && r->plan.guided;
    return (int64_t)r->layout.tokens * (twice ? 2 : 1);
}

static tt_status apply(tt_picture_run *r, const tt_row_stats *stats)
{
    tt_image_seq *q = &r->seq;
    tt_status s = tt_image_apply(q, &r->plan, stats, &r->error);
    int32_t *id = r->shown; /* free until the next picture */
    for (int32_t i = 0; !s && i < q->commits; i++)
        id[i] = q->id[q->commit[i]];
    if (!s && !tt_image_done(q))
        s = tt_generator_commit(r->state, q->commit, id, q->commits, &r->error);
    return s;
}

static tt_status run_step(tt_picture_run *const *run, int64_t n, tt_err *e)
{
    int64_t wants = 0, at = 0;
    for (int64_t i = 0; i < n; i++)
        wants += run[i]->plan.wants;
    tt_generator_call *call = calloc((size_t)n, sizeof *call);
    tt_row_stats *stats = calloc((size_t)wants + 1, sizeof *stats);
    tt_status s = call && stats ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for a pass");
    for (int64_t i = 0; !s && i < n; i++) {
        const tt_image_plan *p = &run[i]->plan;
        call[i] = (tt_generator_call){.state = run[i]->state,
                                      .cfg_scale = p->cfg_scale,
                                      .guided = p->guided,
                                      .reuse = p->reuse,
                                      .wants = p->wants,
                                      .slot = p->slot,
                                      .draw = p->draw,
                                      .stats = stats + at};
        at += p->wants;
    }
    if (!s)
        s = tt_generator_step(run[0]->spec.generator, call, n, e);
    for (int64_t i = 0; !s && i < n; i++) {
        tt_picture_run *r = run[i];
        tt_status own = apply(r, call[i].stats);
        r->planned = false;
        r->nfe++;
        if (own)
            keep_failure(r, own);
        else
            set_pass(r);
    }
    free(call);
    free(stats);
    return s;
}

static void take_picture(tt_picture_run *r, const float *pixels)
{
    tt_image_to_bytes(r->picture, pixels, pixels_of(r->spec.codec) * 3);
    r->pictures++;
    r->picture_step = r->seq.step;
    r->done = r->spec.picture->task == TT_PICTURE_DECODE || tt_image_done(&r->seq);
    r->pass = TT_PICTURE_PASS_STEP;
}

static tt_status run_decode(tt_picture_run *const *run, int64_t n, tt_err *e)
{
    tt_codec *c = run[0]->spec.codec;
    size_t tokens = (size_t)run[0]->layout.tokens, numbers = pixels_of(c) * 3;
    int32_t *id = calloc((size_t)n * tokens, sizeof *id);
    float *pixels = calloc((size_t)n * numbers, sizeof *pixels);
    tt_status s = id && pixels ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for a pass");
    for (int64_t i = 0; !s && i < n; i++)
        memcpy(id + (size_t)i * tokens, run[i]->shown, tokens * sizeof *id);
    if (!s)
        s = tt_codec_decode(c, pixels, id, NULL, n, e);
    for (int64_t i = 0; !s && i < n; i++)
        take_picture(run[i], pixels + (size_t)i * numbers);
    free(id);
    free(pixels);
    return s;
}

static tt_status run_encode(tt_picture_run *const *run, int64_t n, tt_err *e)
{
    tt_codec *c = run[0]->spec.codec;
    size_t tokens = (size_t)run[0]->layout.tokens, numbers = pixels_of(c) * 3;
    int32_t *id = calloc((size_t)n * tokens, sizeof *id);
    float *pixels = calloc((size_t)n * numbers, sizeof *pixels);
    tt_status s = id && pixels ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for a pass");
    for (int64_t i = 0; !s && i < n; i++)
        memcpy(pixels + (size_t)i * numbers, run[i]->spec.picture->pixels,
               numbers * sizeof *pixels);
    if (!s)
        s = tt_codec_encode(c, id, NULL, NULL, pixels, n, e);
    for (int64_t i = 0; !s && i < n; i++) {
        memcpy(run[i]->shown, id + (size_t)i * tokens, tokens * sizeof *id);
        run[i]->done = true;
    }
    free(id);
    free(pixels);
    return s;
}

tt_status tt_picture_step(tt_picture_run *const *run, int64_t n, tt_err *e)
{
    switch (run[0]->pass) {
    case TT_PICTURE_PASS_ENCODE:
        return run_encode(run, n, e);
    case TT_PICTURE_PASS_DECODE:
        return run_decode(run, n, e);
    default:
        return run_step(run, n, e);
    }
}
