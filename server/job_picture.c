/* job_picture.c - what jobs of image models have of their own. */
#include <stdlib.h>
#include <string.h>

#include "server/copy.h"
#include "server/job.h"
#include "server/served.h"

enum { MAX_PREVIEWS = 64 };

static tt_status check_condition(const tt_job_spec *s, tt_err *e)
{
    const tt_generator_info *g = s->model->image->generator;
    for (int32_t i = 0; i < TT_MAX_LABEL_GROUPS; i++) {
        int32_t label = s->picture->condition.label[i], most = i < g->groups ? g->group[i] : 0;
        if (label < -1 || label >= most)
            return tt_fail_param(e, "class_id", "invalid_value",
                                 "label %d of group %d is not in 0..%d", label, i, most - 1);
    }
    return TT_OK;
}

static tt_status check_tokens(const tt_job_spec *s, tt_err *e)
{
    const tt_layout *l = &s->model->image->codec->info.layout;
    bool make = s->picture->task == TT_PICTURE_MAKE;
    for (int32_t c = 0; c < s->columns; c++)
        if (!(make && s->open[c]) && (s->id[c] < 0 || s->id[c] >= l->codes))
            return tt_fail_param(e, "tokens", "invalid_value",
                                 "token %d at place %d is not in 0..%d", s->id[c], c, l->codes - 1);
    return TT_OK;
}

static tt_status check_params(const tt_job_spec *s, tt_err *e)
{
    size_t count;
    const tt_param *all = tt_param_all(&count);
    const tt_planner *p = s->model->image->planner;
    for (size_t i = 0; i < count; i++)
        if (tt_params_given_at(&s->params, i) && !tt_planner_reads(p, &all[i]))
            return tt_fail_param(e, all[i].name, "unsupported_parameter",
                                 "image model '%s' does not read '%s'", s->model->id, all[i].name);
    return TT_OK;
}

tt_status tt_job_check_picture(const tt_job_spec *s, tt_err *e)
{
    const tt_image_model *m = s->model->image;
    const tt_picture_spec *p = s->picture;
    if (!m)
        return tt_fail_param(e, "model", "unsupported_value", "model '%.80s' makes no images",
                             s->model->id);
    if (s->samples < 1 || s->samples > TT_MAX_SAMPLES)
        return tt_fail_param(e, "n", "invalid_value", "'n' is %d, must be in 1..%d", s->samples,
                             TT_MAX_SAMPLES);
    if (p->previews < 0 || p->previews > MAX_PREVIEWS)
        return tt_fail_param(e, "partial_images", "invalid_value", "%d previews, at most %d",
                             p->previews, MAX_PREVIEWS);
    if (s->columns != m->codec->info.layout.tokens)
        return tt_fail_param(e, "tokens", "invalid_value", "%d tokens; images of '%s' have %d",
                             s->columns, s->model->id, m->codec->info.layout.tokens);
    if (p->task == TT_PICTURE_MAKE && !m->planner)
        return tt_fail_param(e, "model", "unsupported_value",
                             "model '%.80s' turns images into tokens and back; it makes none",
                             s->model->id);
    if (s->search && (p->task != TT_PICTURE_MAKE || s->samples != s->search->rules.results))
        return tt_fail_param(e, "search", "invalid_value",
                             "a search makes as many images as it has results");
    if (p->task == TT_PICTURE_ENCODE)
        return TT_OK;
    if (!(p->strength >= 0 && p->strength <= 1))
        return tt_fail_param(e, "strength", "invalid_value", "'strength' must be in 0..1");
    tt_status st = check_tokens(s, e);
    if (!st && p->task == TT_PICTURE_MAKE && m->text && !p->prompt)
        st = tt_fail_param(e, "prompt", "missing_required_parameter", "'prompt' is missing");
    if (!st && p->task == TT_PICTURE_MAKE)
        st = check_condition(s, e);
    return st || p->task != TT_PICTURE_MAKE ? st : check_params(s, e);
}

tt_status tt_job_copy_picture(tt_job *j, const tt_job_spec *s)
{
    const tt_codec_info *c = &s->model->image->codec->info;
    size_t numbers = (size_t)c->width * (size_t)c->height * 3;
    j->picture = *s->picture;
    if (s->picture->pixels)
        j->pixels = tt_copy_of(s->picture->pixels, numbers * sizeof *j->pixels);
    if (s->picture->mask)
        j->mask = tt_copy_of(s->picture->mask, (size_t)c->layout.tokens);
    if ((s->picture->pixels && !j->pixels) || (s->picture->mask && !j->mask))
        return TT_ENOMEM;
    if (s->picture->prompt && tt_prompt_copy(&j->prompt, s->picture->prompt))
        return TT_ENOMEM;
    j->picture.prompt = s->picture->prompt ? &j->prompt : NULL;
    for (int32_t i = 0; i < s->columns; i++) /* as runs want them */
        j->id[i] = s->open[i] ? -1 : s->id[i];
    j->picture.pixels = j->pixels;
    j->picture.mask = j->mask;
    j->spec.picture = &j->picture;
    return TT_OK;
}

tt_picture_run_spec tt_job_picture_spec(const tt_job *j, int32_t i)
{
    return (tt_picture_run_spec){.generator = tt_served_generator(j->spec.model),
                                 .codec = tt_served_codec(j->spec.model),
                                 .picture = j->spec.picture,
                                 .params = &j->spec.params,
                                 .id = j->id,
                                 .seed = j->spec.seed,
                                 .sample = (uint32_t)i};
}

tt_status tt_job_open_search(tt_job *j, tt_err *e)
{
    tt_picture_run_spec run = tt_job_picture_spec(j, 0);
    tt_status s = tt_picture_search_open(&j->search, j->spec.search, &run, e);
    j->spec.search = NULL; /* the search has its own copy */
    j->units = s ? 0 : tt_picture_search_pieces(j->search);
    return s;
}

size_t tt_job_picture_bytes(const tt_job *j)
{
    const tt_codec_info *c = &j->spec.model->image->codec->info;
    return (size_t)c->width * (size_t)c->height * 3;
}

size_t tt_job_trail_bytes(const tt_job *j)
{
    const tt_codec_info *c = &j->spec.model->image->codec->info;
    bool read = c->crops && j->spec.picture->task == TT_PICTURE_ENCODE;
    return read ? (size_t)(TT_MAX_CROPS + 1) * (size_t)c->layout.tokens * sizeof(int32_t) : 0;
}

tt_status tt_job_picture_room(tt_job *j, int32_t i, tt_err *e)
{
    tt_view *v = &j->sample[i].seen;
    size_t trail_bytes = tt_job_trail_bytes(j);
    uint8_t *picture = calloc(1, tt_job_picture_bytes(j));
    int32_t *trail = trail_bytes ? calloc(1, trail_bytes) : NULL;
    if (!picture || (trail_bytes && !trail)) {
        free(picture);
        free(trail);
        return tt_fail(e, TT_ENOMEM, "no memory for a picture");
    }
    pthread_mutex_lock(&j->lock);
    v->trail = trail;
    v->trail_bytes = trail_bytes;
    v->picture = picture;
    v->picture_bytes = tt_job_picture_bytes(j);
    pthread_mutex_unlock(&j->lock);
    return TT_OK;
}

/* What a picture's reading has come to. */
static void publish_reading(tt_view *v, const tt_codec_work *w)
{
    size_t n = (size_t)v->columns;
    v->now = w->now;
    v->of = w->of;
    if (!v->trail || w->now == v->looks) /* a quick picture came between */
        return;
    v->crop[v->looks] = w->crop;
    memcpy(v->offset[v->looks], w->offset, sizeof w->offset);
    memcpy(v->trail + (size_t)v->looks * n, w->id, n * sizeof *v->trail);
    v->looks++;
}

static void publish_tokens(tt_view *v, const tt_picture_run *r)
{
    const tt_image_seq *q = &r->seq;
    size_t n = (size_t)v->columns;
    if (r->spec.picture->task != TT_PICTURE_MAKE) {
        memcpy(v->id, r->shown, n * sizeof *v->id);
        if (r->reading) {
            publish_reading(v, r->reading);
        } else {
            v->of = r->painting ? r->painting->of : v->of > 0 ? v->of : 1;
            v->now = r->painting ? r->painting->now : v->of;
        }
        return;
    }
    for (size_t i = 0; i < n; i++)
        v->id[i] = q->id[i] == q->mask_id ? -1 : q->id[i];
    memcpy(v->step, q->step_of, n * sizeof *v->step);
    memcpy(v->logprob, q->logprob, n * sizeof *v->logprob);
    v->now = q->step;
    v->of = q->steps;
}

static void publish_result(tt_job *j, int32_t i, const tt_picture_run *r, const uint8_t *rgb,
                           int32_t forwards)
{
    tt_view *v = &j->sample[i].seen;
    pthread_mutex_lock(&j->lock);
    publish_tokens(v, r);
    if (rgb) {
        memcpy(v->picture, rgb, v->picture_bytes);
        v->pictures = 1;
    }
    v->picture_step = v->now;
    v->nfe = forwards;
    v->version++;
    pthread_cond_broadcast(&j->changed);
    pthread_mutex_unlock(&j->lock);
}

/* The forwards of all candidates are the first result's. */
tt_status tt_job_publish_search(tt_job *j, tt_err *e)
{
    tt_search_report report = {.stage = NULL};
    tt_picture_search_report(j->search, &report);
    int64_t forwards = report.forwards < INT32_MAX ? report.forwards : INT32_MAX;
    tt_search_report_free(&report);
    tt_status s = TT_OK;
    for (int32_t i = 0; i < j->spec.samples && !s; i++) {
        const uint8_t *rgb = NULL;
        const tt_picture_run *r = tt_picture_search_result(j->search, i, &rgb);
        s = r ? tt_job_picture_room(j, i, e) : TT_OK;
        if (r && !s)
            publish_result(j, i, r, rgb, i ? 0 : (int32_t)forwards);
    }
    return s;
}

void tt_job_publish_picture(tt_job *j, int32_t i, const tt_picture_run *r)
{
    tt_view *v = &j->sample[i].seen;
    pthread_mutex_lock(&j->lock);
    publish_tokens(v, r);
    if (r->pictures > v->pictures) {
        memcpy(v->picture, r->picture, v->picture_bytes);
        v->pictures = r->pictures;
        v->picture_step = r->picture_step;
    }
    v->nfe = r->nfe;
    v->version++;
    pthread_cond_broadcast(&j->changed);
    pthread_mutex_unlock(&j->lock);
}
