/* stream.c - a generation as server-sent events.
 *
 * Frames are made when the reader can take them, from the newest state: a slow reader skips
 * states, it never gets a backlog. Three modes:
 *   committed  text deltas that never change; together they are the final text
 *   snapshot   the whole text every time, open positions as placeholders, with diffusion_meta
 *   delta      events per column, with an empty text delta. Where tokens are inserted, an event is
 *              an insertion, and all of them are told, however slow the reader
 * Every choice has a chunk that opens it, and one with finish_reason that closes it. Then usage
 * when asked for, then [DONE]. A failure is one frame with the error, and nothing after it. */
#include <stdlib.h>
#include <string.h>

#include "kernels/base/clock.h"
#include "server/api/gen_parts.h"

typedef struct {
    tt_gen *g;
    tt_buf *out;
    int64_t now_ms, again_ms;
} sender;

/* --- frames --- */

static tt_json open_chunk(sender *s)
{
    const tt_gen *g = s->g;
    tt_buf_puts(s->out, "data: ");
    tt_json w = {.out = s->out};
    tt_json_open(&w, '{');
    tt_json_text_member(&w, "id", g->id);
    tt_json_text_member(&w, "object", g->endpoint->chunk_object);
    tt_json_int_member(&w, "created", g->created);
    tt_json_text_member(&w, "model", g->model->id);
    return w;
}

static void close_chunk(sender *s, tt_json *w)
{
    tt_json_close(w, '}');
    tt_buf_puts(s->out, "\n\n");
}

static void put_choice(sender *s, const tt_choice *c, const tt_piece *p, tt_json *w)
{
    const tt_gen *g = s->g;
    tt_json_open_member(w, "choices", '[');
    tt_json_open(w, '{');
    tt_json_int_member(w, "index", c->index);
    g->endpoint->delta(g, c, p, w);
    tt_json_text_member(w, "finish_reason", p->last ? tt_finish_text(c->finish) : NULL);
    tt_json_close(w, '}');
    tt_json_close(w, ']');
    if (g->include_usage)
        tt_json_null_member(w, "usage");
}

static void send_piece(sender *s, const tt_choice *c, const tt_piece *p)
{
    tt_json w = open_chunk(s);
    put_choice(s, c, p, &w);
    close_chunk(s, &w);
}

/* The chunk that opens a choice: chat's role. Other shapes need none. */
static void send_first(sender *s, tt_choice *c)
{
    c->begun = true;
    if (s->g->endpoint->on & (TT_ON_CHAT | TT_ON_FIM))
        send_piece(s, c, &(tt_piece){.text = "", .first = true});
}

static bool last_open(const tt_gen *g, const tt_choice *c)
{
    for (int i = 0; i < g->choices; i++)
        if (&g->choice[i] != c && !g->choice[i].closed)
            return false;
    return true;
}

static void final_text(const tt_choice *c, tt_json *w)
{
    tt_buf text = {0};
    tt_choice_text(c, &text);
    tt_json_key(w, "text");
    tt_json_put_bytes(w, tt_buf_text(&text), text.size);
    tt_buf_free(&text);
}

/* What became of holes whose length or text was chosen first. */
static void put_holes(const tt_choice *c, tt_json *w)
{
    tt_json_open_member(w, "holes", '[');
    for (int i = 0; i < c->canvas->parts; i++) {
        const tt_part *p = &c->canvas->part[i];
        if (!p->hole && !p->id)
            continue;
        tt_json_open(w, '{');
        if (p->id)
            tt_json_text_member(w, "id", p->id);
        if (p->hole)
            tt_json_int_member(w, "tokens", p->end - p->begin);
        else
            tt_json_text_member(w, "text", p->text);
        tt_json_close(w, '}');
    }
    tt_json_close(w, ']');
}

/* Closes a choice. The last one to close carries the numbers of the whole request. */
static void send_last(sender *s, tt_choice *c)
{
    const tt_gen *g = s->g;
    tt_json w = open_chunk(s);
    put_choice(s, c, &(tt_piece){.text = "", .last = true}, &w);
    tt_json_open_member(&w, "tutti", '{');
    if (last_open(g, c))
        tt_gen_write_extras(g, &w);
    if (g->mode == TT_STREAM_DELTA && !c->shown) /* nothing was to be filled */
        put_holes(c, &w);
    if (g->mode == TT_STREAM_DELTA)
        final_text(c, &w);
    if (g->trace) {
        tt_json_key(&w, "trace");
        tt_choice_write_trace(g, c, &w);
        if (c->view.recurrences)
            tt_choice_write_recurrences(c, 0, INT32_MAX, &w);
    }
    tt_json_close(&w, '}');
    close_chunk(s, &w);
    c->closed = true;
}

/* --- committed --- */

static void note_emission(tt_gen *g, tt_choice *c, int64_t tokens)
{
    int64_t now = tt_now_ns();
    if (g->first_text < 0)
        g->first_text = (double)(now - g->arrived_ns) * 1e-9;
    if (c->emitted_ns)
        tt_metrics_emission(g->api->metrics, g->model->id, (double)(now - c->emitted_ns) * 1e-9,
                            tokens);
    c->emitted_ns = now;
}

/* What part i can send now; *whole: nothing will follow in this part. */
static tt_piece part_piece(const tt_gen *g, tt_choice *c, int i, int hole, bool *whole)
{
    const tt_part *part = &c->canvas->part[i];
    if (!part->hole) {
        *whole = true;
        return (tt_piece){.text = part->text + c->sent, .bytes = part->bytes - c->sent};
    }
    const tt_text_out *o = &c->out[hole];
    *whole = o->finish != TT_FINISH_NONE;
    tt_piece p = {.text = tt_buf_text(&o->text) + c->sent,
                  .bytes = o->ready - c->sent,
                  .from = c->told,
                  .to = tt_text_out_tokens_before(o, o->ready),
                  .offset = c->text_sent - c->sent};
    if (g->logprobs && p.to > p.from)
        p.tokens = o;
    return p;
}

static int hole_number(const tt_choice *c, int part)
{
    int k = 0;
    for (int i = 0; i < part; i++)
        k += c->canvas->part[i].hole;
    return k;
}

static void send_committed(sender *s, tt_choice *c)
{
    while (c->part < c->canvas->parts) {
        bool whole, literal = !c->canvas->part[c->part].hole;
        tt_piece p = part_piece(s->g, c, c->part, hole_number(c, c->part), &whole);
        if (p.bytes || p.tokens) {
            send_piece(s, c, &p);
            if (!literal)
                note_emission(s->g, c, p.to - p.from);
            c->sent += p.bytes;
            c->text_sent += p.bytes;
            c->told = p.to;
        }
        if (!whole)
            return;
        c->part++;
        c->sent = 0;
        c->told = 0;
    }
}

/* --- snapshot --- */

static void draft_text(const tt_gen *g, const tt_choice *c, tt_buf *out)
{
    int k = 0;
    const char *mark = g->sampler->inserts ? "" : g->placeholder; /* room is no token yet */
    for (int i = 0; i < c->canvas->parts; i++) {
        const tt_part *p = &c->canvas->part[i];
        if (p->hole)
            tt_text_out_draft(&c->out[k++], &c->view, mark, out, NULL);
        else
            tt_buf_add(out, p->text, p->bytes);
    }
}

/* Share of the columns to fill that are filled. */
static double progress(const tt_choice *c)
{
    if (c->finish)
        return 1;
    int32_t open = 0, filled = 0;
    for (int k = 0; k < c->canvas->holes; k++)
        for (int32_t i = c->out[k].begin; i < c->out[k].end && i < c->view.columns; i++) {
            open++;
            filled += c->view.id[i] >= 0;
        }
    return open ? (double)filled / open : 0;
}

static void send_snapshot(sender *s, tt_choice *c)
{
    tt_buf text = {0};
    draft_text(s->g, c, &text);
    tt_json w = open_chunk(s);
    put_choice(s, c, &(tt_piece){.text = tt_buf_text(&text), .bytes = text.size}, &w);
    tt_json_open_member(&w, "diffusion_meta", '{');
    tt_json_bool_member(&w, "diffusion_content", true);
    tt_json_float_member(&w, "diffusion_progress", progress(c));
    tt_json_close(&w, '}');
    close_chunk(s, &w);
    tt_buf_free(&text);
    note_emission(s->g, c, 0);
}

/* --- delta: positions count the columns to fill, over all holes of the text --- */

static int32_t open_columns(const tt_choice *c)
{
    int32_t n = 0;
    for (int k = 0; k < c->canvas->holes; k++)
        n += c->out[k].end - c->out[k].begin;
    return n;
}

/* The newest state against what the client knows; steps the reader was too slow for are passed
 * over. */
static void put_news(const tt_gen *g, tt_choice *c, tt_json *w)
{
    int32_t pos = 0;
    for (int k = 0; k < c->canvas->holes; k++)
        for (int32_t i = c->out[k].begin; i < c->out[k].end; i++, pos++) {
            int32_t was = c->shown[pos], is = c->view.id[i];
            if (was == is)
                continue;
            tt_change x = {.step = c->view.step[i],
                           .column = i,
                           .id = is < 0 ? g->model->info.mask_id : is,
                           .logprob = c->view.logprob[i],
                           .draft = c->view.recurrences &&
                                    i >= c->view.columns - c->view.unsettled};
            tt_choice_write_change(g, c, &x, was >= 0, w);
            c->shown[pos] = is;
        }
}

/* Makes room at a position of what the client knows: of its hole, and there up to the next open
 * one. */
static void shift_shown(tt_choice *c, int32_t pos)
{
    int32_t end = pos;
    while (c->shown[end] >= 0)
        end++;
    memmove(c->shown + pos + 1, c->shown + pos, (size_t)(end - pos) * sizeof *c->shown);
}

/* Every change is told, however slow the reader. */
static void put_changes(const tt_gen *g, tt_choice *c, tt_json *w)
{
    for (; c->told_changes < c->view.changes; c->told_changes++) {
        const tt_change *x = &c->view.change[c->told_changes];
        int32_t pos = tt_choice_pos(c, x->column);
        if (pos < 0)
            continue;
        if (x->insert)
            shift_shown(c, pos);
        bool known = c->shown[pos] >= 0 && (x->insert || c->shown[pos] != x->id);
        tt_choice_write_change(g, c, x, known, w);
        c->shown[pos] = x->id == g->model->info.mask_id ? -1 : x->id;
    }
    put_news(g, c, w); /* what was there from the start */
}

static bool prepare_shown(tt_choice *c)
{
    int32_t n = open_columns(c);
    c->shown = malloc((size_t)n * sizeof *c->shown);
    for (int32_t i = 0; c->shown && i < n; i++)
        c->shown[i] = -1;
    return c->shown != NULL;
}

/* Recurrent depth: how many positions stand, and the recurrences behind the states of those that
 * were refined since the client heard of it last. */
static void put_wave(tt_choice *c, tt_json *w)
{
    int32_t end = 0, frozen = 0;
    for (int k = 0; k < c->canvas->holes; k++)
        for (int32_t i = c->out[k].begin; i < c->out[k].end; i++) {
            int32_t pos = tt_choice_pos(c, i) + 1;
            frozen = i < c->view.columns - c->view.unsettled && c->view.id[i] >= 0 ? pos : frozen;
            end = c->view.recurrences[i] ? pos : end;
        }
    int32_t from = c->told_frozen > 0 ? c->told_frozen - 1 : 0;
    c->told_frozen = frozen;
    tt_json_open_member(w, "wave", '{');
    tt_json_int_member(w, "frozen", frozen);
    tt_json_int_member(w, "from", from);
    tt_choice_write_recurrences(c, from, end, w);
    tt_json_close(w, '}');
}

static void send_events(sender *s, tt_choice *c)
{
    bool first = !c->shown;
    if (first && !prepare_shown(c))
        return;
    tt_json w = open_chunk(s);
    put_choice(s, c, &(tt_piece){.text = ""}, &w);
    tt_json_open_member(&w, "tutti", '{');
    tt_json_int_member(&w, "step", c->view.now);
    tt_json_int_member(&w, "of", c->view.of);
    if (first) {
        tt_json_int_member(&w, "canvas", open_columns(c));
        tt_json_bool_member(&w, "grows", s->g->sampler->inserts);
        put_holes(c, &w);
    }
    tt_json_open_member(&w, "events", '[');
    if (s->g->trace || s->g->sampler->inserts)
        put_changes(s->g, c, &w);
    else
        put_news(s->g, c, &w);
    tt_json_close(&w, ']');
    if (c->view.recurrences)
        put_wave(c, &w);
    tt_json_close(&w, '}');
    close_chunk(s, &w);
    note_emission(s->g, c, 0);
}

/* --- all choices --- */

/* True when the choice may send now, by stream_interval_ms. The last state is never held back. */
static bool due(sender *s, tt_choice *c)
{
    if (c->finish || s->now_ms >= c->next_ms)
        return true;
    if (!s->again_ms || c->next_ms < s->again_ms)
        s->again_ms = c->next_ms;
    return false;
}

static void send_choice(sender *s, tt_choice *c)
{
    tt_gen *g = s->g;
    if (!c->begun)
        send_first(s, c);
    tt_choice_update(g, c);
    if (g->failure.status || c->closed || !due(s, c))
        return;
    size_t before = s->out->size;
    bool news = c->view.version != c->shown_version;
    if (g->mode == TT_STREAM_COMMITTED)
        send_committed(s, c);
    else if (news && g->mode == TT_STREAM_SNAPSHOT)
        send_snapshot(s, c);
    else if (news)
        send_events(s, c);
    c->shown_version = c->view.version;
    if (s->out->size > before)
        c->next_ms = s->now_ms + g->interval_ms;
    if (c->finish)
        send_last(s, c);
}

static void send_usage(sender *s)
{
    tt_json w = open_chunk(s);
    tt_json_open_member(&w, "choices", '[');
    tt_json_close(&w, ']');
    tt_json_key(&w, "usage");
    tt_gen_write_usage(s->g, &w);
    close_chunk(s, &w);
}

static bool finish_stream(sender *s)
{
    tt_gen *g = s->g;
    if (g->failure.status) {
        tt_buf_puts(s->out, "data: ");
        tt_error_json(s->out, &g->failure);
        tt_buf_puts(s->out, "\n\n");
        return true;
    }
    if (tt_fit_pending(g))
        return false;
    for (int i = 0; i < g->choices; i++)
        if (!g->choice[i].closed)
            return false;
    if (g->include_usage)
        send_usage(s);
    tt_buf_puts(s->out, "data: [DONE]\n\n");
    g->ended_ns = tt_now_ns();
    return true;
}

bool tt_gen_frames(tt_gen *g, int64_t now_ms, tt_buf *out, int64_t *again_ms)
{
    sender s = {.g = g, .out = out, .now_ms = now_ms};
    tt_gen_advance(g);
    for (int i = 0; i < g->choices && !g->failure.status; i++)
        if (!g->choice[i].closed)
            send_choice(&s, &g->choice[i]);
    bool over = finish_stream(&s);
    *again_ms = over ? 0 : s.again_ms;
    return over;
}
