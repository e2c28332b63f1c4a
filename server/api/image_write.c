/* image_write.c - answers about images, whole and as events, in the form of OpenAI's interface;
 * what that has no place for stands in members `tutti`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/clock.h"
#include "server/api/image_parts.h"
#include "server/base64.h"
#include "server/png.h"

static const tt_codec_info *codec_of(const tt_imaging *g)
{
    return &g->model->image->codec->info;
}

/* --- pictures --- */

/* Puts the source back where no token was made anew. */
static void paste(const tt_imaging *g, uint8_t *rgb)
{
    const tt_codec_info *c = codec_of(g);
    const tt_layout *l = &c->layout;
    int32_t w = c->width / l->columns, h = c->height / l->rows;
    for (int32_t t = 0; t < l->tokens; t++) {
        size_t at = (size_t)(t / l->columns * h) * (size_t)c->width + (size_t)(t % l->columns * w);
        for (int32_t y = 0; y < h && !g->remade[t]; y++, at += (size_t)c->width)
            memcpy(rgb + 3 * at, g->source_rgb + 3 * at, 3 * (size_t)w);
    }
}

/* How the picture came to be, for whoever finds the file. */
static void describe(const tt_imaging *g, const tt_shot *s, char *text, size_t size)
{
    tt_buf caption = {0};
    tt_labels_caption(g->model->image->labels, g->model->image->generator, &g->condition, &caption);
    snprintf(text, size, "model=%s prompt=\"%.200s\" seed=%lld sample=%d steps=%d cfg_scale=%g",
             g->model->id, tt_buf_text(&caption), (long long)g->seed, s->sample, g->params.steps,
             g->params.cfg_scale);
    tt_buf_free(&caption);
}

static void put_pixels(const tt_imaging *g, const uint8_t *rgb, const char *text, tt_json *w)
{
    const tt_codec_info *c = codec_of(g);
    const tt_png_text texts[] = {{"Software", "tutti"}, {"Comment", text}};
    tt_buf png = {0}, base64 = {0};
    w->out->failed |= tt_png_encode(&png, rgb, c->width, c->height, 3, TT_PNG_FAST, texts,
                                    text ? 2 : 1, NULL) != TT_OK;
    tt_base64_put(&base64, png.data, png.size);
    w->out->failed |= base64.failed;
    tt_json_key(w, "b64_json");
    tt_json_put_bytes(w, tt_buf_text(&base64), base64.size);
    tt_buf_free(&png);
    tt_buf_free(&base64);
}

static void put_picture(const tt_imaging *g, const tt_shot *s, tt_json *w)
{
    char text[600];
    bool made = g->endpoint->on & TT_ON_MAKE && g->model->image->planner;
    if (g->remade && g->paste && codec_of(g)->layout.kind == TT_LAYOUT_GRID)
        paste(g, s->view.picture);
    describe(g, s, text, sizeof text);
    put_pixels(g, s->view.picture, made ? text : NULL, w);
}

/* --- members --- */

static void put_size(const tt_imaging *g, tt_json *w)
{
    char size[32];
    snprintf(size, sizeof size, "%dx%d", codec_of(g)->width, codec_of(g)->height);
    tt_json_text_member(w, "background", "opaque");
    tt_json_text_member(w, "output_format", "png");
    tt_json_text_member(w, "quality", *g->quality ? g->quality : "auto");
    tt_json_text_member(w, "size", size);
}

static int64_t made_tokens(const tt_imaging *g)
{
    int64_t n = 0;
    for (int i = 0; i < g->shots; i++)
        for (int32_t c = 0; c < g->shot[i].view.columns; c++)
            n += g->shot[i].view.step[c] > 0;
    return n;
}

static void put_usage(const tt_imaging *g, tt_json *w)
{
    int64_t text = 0, image = g->source.job ? codec_of(g)->layout.tokens : 0;
    int64_t out = made_tokens(g);
    for (int32_t i = 0; i < g->model->image->generator->groups; i++)
        text += g->endpoint->on & TT_ON_MAKE && g->condition.label[i] >= 0;
    text += g->text.ids;
    if (g->endpoint->on & TT_ON_IMAGE_TOKENS)
        image = (int64_t)g->units * codec_of(g)->layout.tokens;
    tt_json_open_member(w, "usage", '{');
    tt_json_int_member(w, "input_tokens", text + image);
    tt_json_int_member(w, "output_tokens", out);
    tt_json_int_member(w, "total_tokens", text + image + out);
    tt_json_open_member(w, "input_tokens_details", '{');
    tt_json_int_member(w, "text_tokens", text);
    tt_json_int_member(w, "image_tokens", image);
    tt_json_close(w, '}');
    tt_json_close(w, '}');
}

static void put_params(const tt_imaging *g, tt_json *w)
{
    size_t n;
    const tt_param *all = tt_param_all(&n);
    const tt_planner *planner = g->model->image->planner;
    tt_json_open_member(w, "parameters", '{');
    for (size_t i = 0; i < n; i++) {
        const tt_param *p = &all[i];
        double v = tt_params_get(&g->params, p);
        if (!tt_planner_reads(planner, p))
            continue;
        if (p->type == TT_PARAM_CHOICE)
            tt_json_text_member(w, p->name, p->choices[(int)v]);
        else if (p->type == TT_PARAM_BOOL)
            tt_json_bool_member(w, p->name, v != 0);
        else
            tt_json_float_member(w, p->name, v);
    }
    tt_json_close(w, '}');
}

static void put_labels(const tt_imaging *g, tt_json *w)
{
    const tt_labels *l = g->model->image->labels;
    tt_json_open_member(w, "labels", '{');
    for (int32_t i = 0; i < g->model->image->generator->groups; i++) {
        int32_t label = g->condition.label[i];
        char number[16];
        snprintf(number, sizeof number, "%d", i);
        if (label < 0)
            continue;
        if (l)
            tt_json_text_member(w, tt_labels_group(l, i), tt_labels_name(l, i, label));
        else
            tt_json_int_member(w, number, label);
    }
    tt_json_close(w, '}');
}

static void put_time(const tt_imaging *g, tt_json *w)
{
    double queue = 0, run = 0;
    for (int i = -1; i < g->submitted; i++) {
        tt_job *j = i < 0 ? g->source.job : g->unit[i].job;
        tt_job_times t = j ? tt_job_get_times(j) : (tt_job_times){0};
        queue = t.queue_ms > queue ? t.queue_ms : queue;
        run = i <= 0 ? run + t.run_ms : t.run_ms > run ? t.run_ms : run;
    }
    tt_json_open_member(w, "time", '{');
    tt_json_float_member(w, "read_ms", (double)(g->read_ns - g->arrived_ns) * 1e-6);
    tt_json_float_member(w, "queue_ms", queue);
    tt_json_float_member(w, "run_ms", run);
    tt_json_close(w, '}');
}

static void put_painting(const tt_painting *p, tt_json *w)
{
    tt_json_open_member(w, "paint", '{');
    tt_json_int_member(w, "steps", p->steps);
    tt_json_text_member(w, "solver", p->solver == TT_FLOW_MIDPOINT ? "midpoint" : "euler");
    tt_json_float_member(w, "guidance", p->guidance);
    tt_json_text_member(w, "guidance_form", p->plain ? "plain" : "projected");
    tt_json_float_member(w, "momentum", p->momentum);
    tt_json_close(w, '}');
}

/* The `tutti` member of a whole answer. */
static void put_extras(const tt_imaging *g, tt_json *w)
{
    int64_t nfe = 0;
    for (int i = 0; i < g->shots; i++)
        nfe += g->shot[i].view.nfe;
    tt_json_open_member(w, "tutti", '{');
    tt_json_text_member(w, "model", g->model->id);
    if (g->painting.steps || g->endpoint->on & TT_ON_MAKE)
        tt_json_int_member(w, "seed", g->seed);
    if (g->painting.steps)
        put_painting(&g->painting, w);
    if (g->endpoint->on & TT_ON_MAKE && g->model->image->planner) {
        tt_json_int_member(w, "nfe", nfe);
        tt_json_int_member(w, "steps", g->shot[0].view.now);
        tt_json_text_member(w, "sampler", g->model->image->planner->name);
        put_labels(g, w);
        put_params(g, w);
    }
    if (tt_imaging_searches(g))
        tt_search_write(&g->search, &g->report, w);
    if (g->remade)
        tt_json_int_member(w, "tokens_made_anew", g->remade_tokens);
    put_time(g, w);
    tt_json_close(w, '}');
}

static void put_ids(const char *name, const int32_t *id, int32_t n, tt_json *w)
{
    tt_json_open_member(w, name, '[');
    for (int32_t c = 0; c < n; c++)
        tt_json_put_int(w, id[c]);
    tt_json_close(w, ']');
}

static void put_tokens(const tt_shot *s, tt_json *w)
{
    put_ids("tokens", s->view.id, s->view.columns, w);
}

static void put_offset(const float offset[2], tt_json *w)
{
    tt_json_open_member(w, "decode_offset", '[');
    for (int i = 0; i < 2; i++)
        tt_json_put_float(w, (double)offset[i]);
    tt_json_close(w, ']');
}

/* What a picture became, and what else is needed to see it again. */
static void put_message(const tt_imaging *g, const tt_shot *s, tt_json *w)
{
    put_tokens(s, w);
    if (!codec_of(g)->crops)
        return;
    put_offset(s->view.offset[s->view.looks - 1], w);
    put_ids("crops", s->view.crop, s->view.looks, w);
}

static void put_layout(const tt_imaging *g, tt_json *w)
{
    const tt_layout *l = &codec_of(g)->layout;
    if (l->kind == TT_LAYOUT_GRID) {
        tt_json_int_member(w, "rows", l->rows);
        tt_json_int_member(w, "columns", l->columns);
    }
}

/* What goes with an image of the answer: its tokens, and the step each came in. */
static void put_inner(const tt_imaging *g, const tt_shot *s, tt_json *w)
{
    if (!g->return_tokens && !tt_imaging_searches(g))
        return;
    tt_json_open_member(w, "tutti", '{');
    if (tt_imaging_searches(g))
        tt_search_write_result(&g->search, &g->report, (size_t)(s - g->shot), w);
    if (!g->return_tokens) {
        tt_json_close(w, '}');
        return;
    }
    put_layout(g, w);
    put_tokens(s, w);
    if (g->unit[s->unit].picture.task == TT_PICTURE_DECODE) {
        if (codec_of(g)->crops)
            put_offset(g->unit[s->unit].picture.painting.offset, w);
        tt_json_close(w, '}');
        return;
    }
    tt_json_open_member(w, "steps", '[');
    for (int32_t c = 0; c < s->view.columns; c++)
        tt_json_put_int(w, s->view.step[c]);
    tt_json_close(w, ']');
    tt_json_close(w, '}');
}

/* --- whole answers --- */

static void put_tokenized(const tt_imaging *g, tt_json *w)
{
    tt_json_text_member(w, "object", "list");
    tt_json_text_member(w, "model", g->model->id);
    tt_json_int_member(w, "count", codec_of(g)->layout.tokens);
    tt_json_int_member(w, "codes", codec_of(g)->layout.codes);
    put_layout(g, w);
    tt_json_open_member(w, "data", '[');
    for (int i = 0; i < g->shots; i++) {
        tt_json_open(w, '{');
        tt_json_int_member(w, "index", i);
        put_message(g, &g->shot[i], w);
        tt_json_close(w, '}');
    }
    tt_json_close(w, ']');
}

static void put_images(const tt_imaging *g, tt_json *w)
{
    tt_json_open_member(w, "data", '[');
    for (int i = 0; i < g->shots; i++) {
        tt_json_open(w, '{');
        if (!g->tokens_only)
            put_picture(g, &g->shot[i], w);
        put_inner(g, &g->shot[i], w);
        tt_json_close(w, '}');
    }
    tt_json_close(w, ']');
    put_size(g, w);
}

void tt_imaging_answer(tt_imaging *g, tt_reply *r)
{
    if (g->failure.status) {
        tt_reply_error(r, &g->failure);
        return;
    }
    tt_json w = {.out = &r->body};
    tt_json_open(&w, '{');
    tt_json_int_member(&w, "created", g->created);
    if (g->endpoint->on & TT_ON_IMAGE_TOKENS)
        put_tokenized(g, &w);
    else
        put_images(g, &w);
    put_usage(g, &w);
    put_extras(g, &w);
    tt_json_close(&w, '}');
    r->status = 200;
}

/* --- streams --- */

static tt_json open_event(const tt_imaging *g, const tt_shot *s, const char *type, tt_buf *out)
{
    tt_buf_printf(out, "event: %s\ndata: ", type);
    tt_json w = {.out = out};
    tt_json_open(&w, '{');
    tt_json_text_member(&w, "type", type);
    tt_json_int_member(&w, "created_at", g->created);
    tt_json_int_member(&w, "index", s - g->shot);
    return w;
}

static void close_event(tt_json *w)
{
    tt_json_close(w, '}');
    tt_buf_puts(w->out, "\n\n");
}

/* The tokens that came to stand since the last event: [place, id, step] of each. */
static void send_step(tt_imaging *g, tt_shot *s, tt_buf *out)
{
    const tt_view *v = &s->view;
    int32_t open = 0;
    tt_json w = open_event(g, s, "tutti.step", out);
    tt_json_int_member(&w, "step", v->now);
    tt_json_int_member(&w, "of", v->of);
    tt_json_open_member(&w, "set", '[');
    for (int32_t c = 0; c < v->columns; c++) {
        open += v->id[c] < 0;
        /* what was given is told with the first event */
        if (v->id[c] < 0 || (v->step[c] <= s->told_step && (s->told_step || v->step[c])))
            continue;
        tt_json_open(&w, '[');
        tt_json_put_int(&w, c);
        tt_json_put_int(&w, v->id[c]);
        tt_json_put_int(&w, v->step[c]);
        tt_json_close(&w, ']');
    }
    tt_json_close(&w, ']');
    tt_json_int_member(&w, "open", open);
    if (!s->told_step)
        put_layout(g, &w);
    close_event(&w);
    s->told_step = v->now;
}

static bool last_open(const tt_imaging *g, const tt_shot *s)
{
    for (int i = 0; i < g->shots; i++)
        if (&g->shot[i] != s && !g->shot[i].closed)
            return false;
    return true;
}

/* A message after every crop since the last event. */
static void send_looks(tt_imaging *g, tt_shot *s, tt_buf *out)
{
    const tt_view *v = &s->view;
    for (; s->told_looks < v->looks; s->told_looks++) {
        int32_t i = s->told_looks;
        tt_json w = open_event(g, s, "image_tokens.crop", out);
        tt_json_int_member(&w, "step", i + 1);
        tt_json_int_member(&w, "of", v->of);
        tt_json_int_member(&w, "crop", v->crop[i]);
        put_offset(v->offset[i], &w);
        put_ids("tokens", v->trail + (size_t)i * (size_t)v->columns, v->columns, &w);
        close_event(&w);
    }
}

static void send_message(tt_imaging *g, tt_shot *s, tt_buf *out)
{
    tt_json w = open_event(g, s, "image_tokens.completed", out);
    put_message(g, s, &w);
    if (last_open(g, s)) {
        put_usage(g, &w);
        put_extras(g, &w);
    }
    close_event(&w);
    s->closed = true;
}

static void send_partial(tt_imaging *g, tt_shot *s, tt_buf *out)
{
    char type[64];
    snprintf(type, sizeof type, "%s.partial_image", g->endpoint->event);
    tt_json w = open_event(g, s, type, out);
    tt_json_int_member(&w, "partial_image_index", s->view.pictures - 1);
    put_picture(g, s, &w);
    put_size(g, &w);
    tt_json_open_member(&w, "tutti", '{');
    tt_json_int_member(&w, "step", s->view.picture_step);
    tt_json_int_member(&w, "of", s->view.of);
    tt_json_close(&w, '}');
    close_event(&w);
    s->told_pictures = s->view.pictures;
}

/* The last one to be completed carries the numbers of the whole request. */
static void send_completed(tt_imaging *g, tt_shot *s, tt_buf *out)
{
    char type[64];
    snprintf(type, sizeof type, "%s.completed", g->endpoint->event);
    tt_json w = open_event(g, s, type, out);
    if (!g->tokens_only)
        put_picture(g, s, &w);
    put_size(g, &w);
    if (tt_imaging_searches(g))
        tt_search_write_result(&g->search, &g->report, (size_t)(s - g->shot), &w);
    if (last_open(g, s)) {
        put_usage(g, &w);
        put_extras(g, &w);
    }
    if (g->return_tokens)
        put_tokens(s, &w);
    close_event(&w);
    s->closed = true;
}

/* The best candidate of a step as other previews are told, the next ones beside it. */
static void put_candidates(const tt_imaging *g, tt_json *w)
{
    const tt_search_report *r = &g->report;
    if (!r->pictures)
        return;
    put_pixels(g, r->picture, NULL, w);
    tt_json_open_member(w, "others", '[');
    for (size_t i = 1; i < r->pictures; i++) {
        tt_json_open(w, '{');
        tt_json_int_member(w, "index", r->pictured[i]);
        put_pixels(g, r->picture + i * r->picture_bytes, NULL, w);
        tt_json_close(w, '}');
    }
    tt_json_close(w, ']');
}

/* Steps of the search that were scored since the last event, the last with its previews. */
static void send_search(tt_imaging *g, tt_buf *out)
{
    char type[64];
    snprintf(type, sizeof type, "%s.search_step", g->endpoint->event);
    for (; g->told_stages < g->report.stages; g->told_stages++) {
        tt_json w = open_event(g, &g->shot[0], type, out);
        bool last = g->told_stages + 1 == g->report.stages;
        tt_search_write_stage(&g->report, g->told_stages, &w);
        if (last)
            put_candidates(g, &w);
        close_event(&w);
    }
}

static void send_news(tt_imaging *g, tt_shot *s, tt_buf *out)
{
    bool finished = tt_shot_update(g, s);
    if (g->failure.status || s->closed)
        return;
    if (g->endpoint->on & TT_ON_IMAGE_TOKENS) {
        send_looks(g, s, out);
        if (g->show && s->view.pictures > s->told_pictures)
            send_partial(g, s, out);
        if (finished)
            send_message(g, s, out);
        return;
    }
    if (g->delta && s->view.now > s->told_step)
        send_step(g, s, out);
    if (tt_imaging_searches(g))
        send_search(g, out);
    if (finished)
        send_completed(g, s, out);
    else if (g->previews && s->view.pictures > s->told_pictures &&
             s->view.picture_step < s->view.of)
        send_partial(g, s, out);
}

bool tt_imaging_frames(tt_imaging *g, int64_t now_ms, tt_buf *out, int64_t *again_ms)
{
    bool over = true;
    (void)now_ms;
    *again_ms = 0;
    tt_imaging_advance(g);
    for (int i = 0; i < g->shots; i++) {
        send_news(g, &g->shot[i], out);
        over &= g->shot[i].closed;
    }
    if (g->failure.status) {
        tt_buf_puts(out, "event: error\ndata: ");
        tt_error_json(out, &g->failure);
        tt_buf_puts(out, "\n\n");
        over = true;
    } else if (over) {
        tt_buf_puts(out, "data: [DONE]\n\n");
    }
    if (over && !g->ended_ns)
        g->ended_ns = tt_now_ns();
    return over;
}
