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
    size_t works = s->codec->def->step ? 4 : 1; /* noise, velocities, planes */
    size_t bytes = (size_t)n * sizeof(int32_t) + tt_codec_bytes(s->codec, 1) +
                   pixels_of(s->codec) * (3 + works * 3 * sizeof(float));
    if (s->picture->task == TT_PICTURE_MAKE)
        bytes += tt_image_seq_bytes(planner_of(s), n) + tt_image_step_bytes(n) +
                 s->generator->info.state_bytes + tt_generator_step_bytes(s->generator, 1);
    return bytes;
}

/* --- life --- */

/* Of images made in order the first tokens stay, whole levels: the last `strength` of them, or
 * more, are made anew. */
static void hide_last(tt_picture_run *r, int32_t mask)
{
    const tt_layout *l = &r->layout;
    int32_t room = (int32_t)((1 - r->spec.picture->strength) * l->tokens), keep = 0;
    for (int32_t i = 0; i < l->levels && keep + l->level[i] <= room; i++)
        keep += l->level[i];
    if (l->levels == 1)
        keep = room < l->tokens ? room : l->tokens - 1;
    for (int32_t i = keep; i < l->tokens; i++)
        r->shown[i] = mask;
}

/* The tokens a making run begins from, in r->shown. */
static tt_status first_tokens(tt_picture_run *r, tt_err *e)
{
    const tt_picture_spec *p = r->spec.picture;
    int32_t mask = r->spec.generator->info.mask_id;
    for (int32_t i = 0; i < r->layout.tokens; i++)
        r->shown[i] = r->spec.id[i] < 0 ? mask : r->spec.id[i];
    if (p->strength > 0 && r->seq.planner->kind != TT_GENERATES_MASKED)
        hide_last(r, mask);
    else if (p->strength > 0)
        return tt_image_hide(r->shown, &r->layout, mask, p->mask, p->strength, r->spec.seed,
                             r->spec.sample, e);
    return TT_OK;
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
    if (!s)
        s = tt_image_begin(&r->seq, r->shown, e);
    if (!s && r->spec.from)
        tt_image_fork(&r->seq, &r->spec.from->seq);
    r->begun = r->seq.step;
    return s;
}

/* The tokens that stand, as far as they are a picture by themselves: the leading ones of images
 * made in order. 0: they are not. */
static int32_t standing(const tt_picture_run *r)
{
    const tt_layout *l = &r->spec.codec->info.layout;
    int32_t known = l->tokens - r->seq.hidden, end = 0;
    if (!r->spec.codec->info.prefix_decodable || r->seq.planner->kind == TT_GENERATES_MASKED)
        return 0;
    if (l->kind == TT_LAYOUT_SEQUENCE)
        return known;
    for (int32_t i = 0; i < l->levels && end + l->level[i] <= known; i++)
        end += l->level[i];
    return end;
}

/* After a step: the last picture, a preview that is due, or the next step. */
static void set_pass(tt_picture_run *r)
{
    const tt_image_seq *q = &r->seq;
    const tt_picture_spec *p = r->spec.picture;
    bool over = tt_image_done(q);
    int32_t due = (int32_t)((int64_t)q->step * (p->previews + 1) / (q->steps > 0 ? q->steps : 1));
    r->pass = TT_PICTURE_PASS_STEP;
    if (r->spec.steps) {
        r->done = over || q->step - r->begun >= r->spec.steps;
    } else if (over && p->tokens_only) {
        r->done = true;
    } else if (over || (due > r->previews && r->previews < p->previews)) {
        tt_image_preview(q, r->shown); /* of a complete image: its tokens */
        r->kept = standing(r);
        r->previews = due;
        r->pass = TT_PICTURE_PASS_DECODE;
    }
}

tt_status tt_picture_run_open(tt_picture_run *r, const tt_picture_run_spec *spec, tt_err *e)
{
    tt_status s = TT_OK;
    *r = (tt_picture_run){.spec = *spec, .layout = spec->codec->info.layout};
    if (spec->picture->task == TT_PICTURE_MAKE) /* its steps are not the codec's levels */
        r->layout = spec->generator->info.layout;
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
        r->kept = spec->keep ? spec->keep : spec->picture->keep;
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
    tt_codec_drop(r->reading);
    tt_codec_drop(r->painting);
    r->state = NULL;
    r->reading = r->painting = NULL;
    tt_arena_close(&r->life);
    tt_arena_close(&r->step);
    free(r->shown);
    free(r->picture);
    r->shown = NULL;
    r->picture = NULL;
}

void tt_picture_run_park(tt_picture_run *r)
{
    tt_arena_close(&r->step);
    free(r->picture);
    r->picture = NULL;
    r->spec.from = NULL;
}

/* --- one pass --- */

static void keep_failure(tt_picture_run *r, tt_status s)
{
    r->failed = s;
    r->error.status = s;
}

tt_status tt_picture_condition(tt_condition *out, const tt_picture_spec *picture, tt_err *e)
{
    tt_prompt *p = picture->prompt;
    *out = picture->condition;
    tt_status s = p ? tt_prompt_encode(p, e) : TT_OK;
    if (s || !p)
        return s;
    out->text = p->row;
    out->text_rows = p->ids;
    out->no_text = p->by->none;
    out->no_text_rows = p->by->none_rows;
    return TT_OK;
}

static tt_status begin(tt_picture_run *r)
{
    tt_condition c;
    tt_status s = tt_picture_condition(&c, r->spec.picture, &r->error);
    return s ? s : tt_generator_begin(&r->state, r->spec.generator, &c, r->seq.id, &r->error);
}

void tt_picture_run_plan(tt_picture_run *r)
{
    if (r->planned || r->failed || r->pass != TT_PICTURE_PASS_STEP)
        return;
    tt_arena_rewind(&r->step, 0);
    r->plan = (tt_image_plan){.arena = &r->step};
    tt_status s = TT_OK;
    const tt_picture_run *from = r->spec.from;
    if (!r->state && from && from->state)
        s = tt_generator_fork(&r->state, from->state, &r->error);
    else if (!r->state)
        s = begin(r);
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

/* Whether the step is the one in which the ways of a search part. */
static bool parts(const tt_picture_run *r)
{
    return r->spec.ways > 1 && r->seq.planner->kind == TT_GENERATES_NEXT &&
           r->seq.step - r->begun == r->spec.steps - 1;
}

static tt_status run_step(tt_picture_run *const *run, int64_t n, tt_err *e)
{
    int64_t wants = 0, at = 0, parting = 0, codes = run[0]->layout.codes;
    for (int64_t i = 0; i < n; i++) {
        wants += run[i]->plan.wants;
        parting += parts(run[i]) ? run[i]->plan.wants : 0;
    }
    tt_generator_call *call = calloc((size_t)n, sizeof *call);
    tt_row_stats *stats = calloc((size_t)wants + 1, sizeof *stats);
    float *logits = calloc((size_t)(parting * codes) + 1, sizeof *logits), *next = logits;
    tt_status s = call && stats && logits ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for a pass");
    for (int64_t i = 0; !s && i < n; i++) {
        const tt_image_plan *p = &run[i]->plan;
        call[i] = (tt_generator_call){.state = run[i]->state,
                                      .cfg_scale = p->cfg_scale,
                                      .guided = p->guided,
                                      .reuse = p->reuse,
                                      .wants = p->wants,
                                      .slot = p->slot,
                                      .draw = p->draw,
                                      .stats = stats + at,
                                      .logits = parts(run[i]) ? next : NULL};
        at += p->wants;
        next += parts(run[i]) ? p->wants * codes : 0;
    }
    if (!s)
        s = tt_generator_step(run[0]->spec.generator, call, n, e);
    for (int64_t i = 0; !s && i < n; i++) {
        tt_picture_run *r = run[i];
        tt_status own = TT_OK;
        if (call[i].logits)
            own = tt_image_take_way(&r->seq, &r->plan, call[i].stats, call[i].logits, r->spec.way,
                                    &r->error);
        if (!own)
            own = apply(r, call[i].stats);
        r->planned = false;
        r->nfe++;
        if (own)
            keep_failure(r, own);
        else
            set_pass(r);
    }
    free(call);
    free(stats);
    free(logits);
    return s;
}

/* --- passes of the codec --- */

enum { PREVIEW_STEPS = 4 };

/* How this run's tokens are painted. Pictures on the way are painted quickly. */
static bool painting_of(const tt_picture_run *r, tt_painting *how)
{
    const tt_picture_spec *p = r->spec.picture;
    const tt_painting *usual = &r->spec.codec->info.painting;
    *how = p->painting.steps ? p->painting : *usual;
    how->seed = r->spec.seed;
    how->sample = r->spec.sample;
    if (p->task == TT_PICTURE_ENCODE) {
        *how = (tt_painting){.steps = 1, .seed = p->crops.seed};
        memcpy(how->offset, r->reading->offset, sizeof how->offset);
    } else if (p->task == TT_PICTURE_MAKE && !tt_image_done(&r->seq)) {
        how->steps = how->steps < PREVIEW_STEPS ? how->steps : PREVIEW_STEPS;
        how->guidance = 0;
    }
    return usual->steps > 0;
}

static tt_status open_work(tt_picture_run *r, tt_err *e)
{
    const tt_picture_spec *p = r->spec.picture;
    tt_painting how;
    if (r->pass == TT_PICTURE_PASS_ENCODE)
        return r->reading ? TT_OK
                          : tt_codec_read(&r->reading, r->spec.codec, p->pixels,
                                          p->by_crops ? &p->crops : NULL, e);
    if (r->painting)
        return TT_OK;
    bool chosen = painting_of(r, &how);
    return tt_codec_paint(&r->painting, r->spec.codec, r->shown, r->kept, chosen ? &how : NULL, e);
}

static void take_picture(tt_picture_run *r)
{
    bool encodes = r->spec.picture->task == TT_PICTURE_ENCODE;
    tt_image_to_bytes(r->picture, r->painting->pixels, pixels_of(r->spec.codec) * 3);
    tt_codec_drop(r->painting);
    r->painting = NULL;
    r->pictures++;
    r->picture_step = encodes ? r->reading->now : r->seq.step;
    r->done = encodes ? r->reading->done
                      : r->spec.picture->task == TT_PICTURE_DECODE || tt_image_done(&r->seq);
    r->pass = encodes ? TT_PICTURE_PASS_ENCODE : TT_PICTURE_PASS_STEP;
}

static void take_tokens(tt_picture_run *r)
{
    memcpy(r->shown, r->reading->id, (size_t)r->layout.tokens * sizeof *r->shown);
    if (r->spec.picture->show)
        r->pass = TT_PICTURE_PASS_DECODE;
    else
        r->done = r->reading->done;
}

/* A step of everyone's reading or painting. */
static tt_status run_codec(tt_picture_run *const *run, int64_t n, tt_err *e)
{
    tt_codec_work **work = calloc((size_t)n, sizeof(tt_codec_work *));
    int64_t works = 0;
    if (!work)
        return tt_fail(e, TT_ENOMEM, "no memory for a pass");
    for (int64_t i = 0; i < n; i++) {
        tt_picture_run *r = run[i];
        tt_status own = open_work(r, &r->error);
        if (own)
            keep_failure(r, own);
        else
            work[works++] = r->pass == TT_PICTURE_PASS_ENCODE ? r->reading : r->painting;
    }
    tt_status s = tt_codec_step(run[0]->spec.codec, work, works, e);
    for (int64_t i = 0; i < n && !s; i++) {
        tt_picture_run *r = run[i];
        if (r->failed)
            continue;
        if (r->pass == TT_PICTURE_PASS_ENCODE)
            take_tokens(r);
        else if (r->painting->done)
            take_picture(r);
    }
    free(work);
    return s;
}

tt_status tt_picture_step(tt_picture_run *const *run, int64_t n, tt_err *e)
{
    return run[0]->pass == TT_PICTURE_PASS_STEP ? run_step(run, n, e) : run_codec(run, n, e);
}
