/* image_stream.c - answers about images as events, while they are made: previews, steps, crops and
 * stages of a search; the members are those of whole answers (image_write.c). */
#include <stdio.h>

#include "kernels/base/clock.h"
#include "server/api/image_parts.h"

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
        tt_imaging_put_layout(g, &w);
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
        tt_imaging_put_offset(v->offset[i], &w);
        tt_imaging_put_ids("tokens", v->trail + (size_t)i * (size_t)v->columns, v->columns, &w);
        close_event(&w);
    }
}

static void send_message(tt_imaging *g, tt_shot *s, tt_buf *out)
{
    tt_json w = open_event(g, s, "image_tokens.completed", out);
    tt_imaging_put_message(g, s, &w);
    if (last_open(g, s)) {
        tt_imaging_put_usage(g, &w);
        tt_imaging_put_extras(g, &w);
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
    tt_imaging_put_picture(g, s, &w);
    tt_imaging_put_size(g, &w);
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
        tt_imaging_put_picture(g, s, &w);
    tt_imaging_put_size(g, &w);
    if (tt_imaging_searches(g))
        tt_search_write_result(&g->search, &g->report, (size_t)(s - g->shot), &w);
    if (last_open(g, s)) {
        tt_imaging_put_usage(g, &w);
        tt_imaging_put_extras(g, &w);
    }
    if (g->return_tokens)
        tt_imaging_put_tokens(s, &w);
    close_event(&w);
    s->closed = true;
}

/* The best candidate of a step as other previews are told, the next ones beside it. */
static void put_candidates(const tt_imaging *g, tt_json *w)
{
    const tt_search_report *r = &g->report;
    if (!r->pictures)
        return;
    tt_imaging_put_pixels(g, r->picture, NULL, w);
    tt_json_open_member(w, "others", '[');
    for (size_t i = 1; i < r->pictures; i++) {
        tt_json_open(w, '{');
        tt_json_int_member(w, "index", r->pictured[i]);
        tt_imaging_put_pixels(g, r->picture + i * r->picture_bytes, NULL, w);
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
