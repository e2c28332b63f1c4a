/* image_write.c - answers about images, in the form of OpenAI's interface; what that has no place
 * for stands in members `tutti`. As events: image_stream.c. */
#include <stdio.h>
#include <string.h>

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

void tt_imaging_put_pixels(const tt_imaging *g, const uint8_t *rgb, const char *text, tt_json *w)
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

void tt_imaging_put_picture(const tt_imaging *g, const tt_shot *s, tt_json *w)
{
    char text[600];
    bool made = g->endpoint->on & TT_ON_MAKE && g->model->image->planner;
    if (g->remade && g->paste && codec_of(g)->layout.kind == TT_LAYOUT_GRID)
        paste(g, s->view.picture);
    describe(g, s, text, sizeof text);
    tt_imaging_put_pixels(g, s->view.picture, made ? text : NULL, w);
}

/* --- members --- */

void tt_imaging_put_size(const tt_imaging *g, tt_json *w)
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

void tt_imaging_put_usage(const tt_imaging *g, tt_json *w)
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
void tt_imaging_put_extras(const tt_imaging *g, tt_json *w)
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

void tt_imaging_put_ids(const char *name, const int32_t *id, int32_t n, tt_json *w)
{
    tt_json_open_member(w, name, '[');
    for (int32_t c = 0; c < n; c++)
        tt_json_put_int(w, id[c]);
    tt_json_close(w, ']');
}

void tt_imaging_put_tokens(const tt_shot *s, tt_json *w)
{
    tt_imaging_put_ids("tokens", s->view.id, s->view.columns, w);
}

void tt_imaging_put_offset(const float offset[2], tt_json *w)
{
    tt_json_open_member(w, "decode_offset", '[');
    for (int i = 0; i < 2; i++)
        tt_json_put_float(w, (double)offset[i]);
    tt_json_close(w, ']');
}

void tt_imaging_put_message(const tt_imaging *g, const tt_shot *s, tt_json *w)
{
    tt_imaging_put_tokens(s, w);
    if (!codec_of(g)->crops)
        return;
    tt_imaging_put_offset(s->view.offset[s->view.looks - 1], w);
    tt_imaging_put_ids("crops", s->view.crop, s->view.looks, w);
}

void tt_imaging_put_layout(const tt_imaging *g, tt_json *w)
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
    tt_imaging_put_layout(g, w);
    tt_imaging_put_tokens(s, w);
    if (g->unit[s->unit].picture.task == TT_PICTURE_DECODE) {
        if (codec_of(g)->crops)
            tt_imaging_put_offset(g->unit[s->unit].picture.painting.offset, w);
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
    tt_imaging_put_layout(g, w);
    tt_json_open_member(w, "data", '[');
    for (int i = 0; i < g->shots; i++) {
        tt_json_open(w, '{');
        tt_json_int_member(w, "index", i);
        tt_imaging_put_message(g, &g->shot[i], w);
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
            tt_imaging_put_picture(g, &g->shot[i], w);
        put_inner(g, &g->shot[i], w);
        tt_json_close(w, '}');
    }
    tt_json_close(w, ']');
    tt_imaging_put_size(g, w);
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
    tt_imaging_put_usage(g, &w);
    tt_imaging_put_extras(g, &w);
    tt_json_close(&w, '}');
    r->status = 200;
}
