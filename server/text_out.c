/* text_out.c - see text_out.h. take() decodes one more column; cut_at_stop() and settle() then
 * decide how much of the text is final. */
#include "server/text_out.h"

#include <stdlib.h>
#include <string.h>

static bool is_stop_id(const tt_text_out *o, int32_t id)
{
    for (int i = 0; i < o->stop_ids; i++)
        if (o->stop_id[i] == id)
            return true;
    return false;
}

/* Where the leftmost stop string in the not yet final text begins; false when there is none. */
static bool find_stop(const tt_text_out *o, size_t *at)
{
    const char *best = NULL;
    for (int i = 0; i < o->stops && o->text.size > o->ready; i++) {
        const char *p = memmem(o->text.data + o->ready, o->text.size - o->ready, o->stop[i],
                               strlen(o->stop[i]));
        if (p && (!best || p < best))
            best = p;
    }
    if (best)
        *at = (size_t)(best - o->text.data);
    return best != NULL;
}

/* Bytes at the end of the text that may be the beginning of a stop string. */
static size_t held_back(const tt_text_out *o)
{
    size_t most = 0, loose = o->text.size - o->ready;
    for (int i = 0; i < o->stops; i++) {
        size_t n = strlen(o->stop[i]);
        for (size_t k = n - 1 < loose ? n - 1 : loose; k > most; k--)
            if (!memcmp(o->text.data + o->text.size - k, o->stop[i], k))
                most = k;
    }
    return most;
}

static void cut_at_stop(tt_text_out *o)
{
    size_t at;
    if (o->finish || !find_stop(o, &at))
        return;
    o->text.size = at;
    o->text.data[at] = '\0';
    o->ready = at;
    o->finish = TT_FINISH_STOP;
    o->hit_stop = true;
}

/* Decodes the column's id. Stop strings are looked for after every token, so that the result does
 * not depend on how often views are taken. */
static tt_status take(tt_text_out *o, int32_t id, tt_err *e)
{
    if (o->tokens == o->capacity) {
        int32_t more = o->capacity ? 2 * o->capacity : 16;
        size_t *grown = realloc(o->offset, (size_t)more * sizeof *grown);
        if (!grown)
            return tt_fail(e, TT_ENOMEM, "no memory for the text of %d tokens", more);
        o->offset = grown;
        o->capacity = more;
    }
    size_t *offset = &o->offset[o->tokens++];
    *offset = o->text.size;
    if (!o->tok)
        return TT_OK;
    tt_status s = tt_tok_stream_add(o->tok, &o->stream, id, &o->text, e);
    if (o->stream.has_last) /* its text follows with the next token; only the former's came */
        *offset = o->text.size;
    if (!s && o->text.failed)
        s = tt_fail(e, TT_ENOMEM, "no memory for the answer's text");
    if (s)
        return s;
    cut_at_stop(o);
    if (!o->finish)
        o->ready = o->text.size - held_back(o);
    return TT_OK;
}

/* The text is complete: whatever was held back belongs to it. */
static tt_status settle(tt_text_out *o, tt_finish finish, tt_err *e)
{
    if (o->tok)
        tt_tok_stream_end(o->tok, &o->stream, &o->text);
    if (o->text.failed)
        return tt_fail(e, TT_ENOMEM, "no memory for the answer's text");
    cut_at_stop(o);
    if (!o->finish) {
        o->ready = o->text.size;
        o->finish = finish;
    }
    return TT_OK;
}

tt_status tt_text_out_feed(tt_text_out *o, const tt_view *v, tt_err *e)
{
    if (o->finish)
        return TT_OK;
    if (!o->tokens && !o->stream.started) {
        o->stream.started = o->continues;
        o->stream.skip_special = !o->keep_special;
    }
    int32_t end = o->end < v->columns ? o->end : v->columns;
    int32_t settled = v->finish ? end : v->columns - v->unsettled;
    while (!o->finish && o->begin + o->tokens < (settled < end ? settled : end)) {
        int32_t id = v->id[o->begin + o->tokens];
        if (id < 0)
            break;
        if (is_stop_id(o, id))
            return settle(o, TT_FINISH_STOP, e);
        tt_status s = take(o, id, e);
        if (s)
            return s;
    }
    if (o->finish)
        return TT_OK;
    if (o->begin + o->tokens >= end)
        return settle(o, TT_FINISH_LENGTH, e);
    return v->finish ? settle(o, v->finish, e) : TT_OK;
}

void tt_text_out_free(tt_text_out *o)
{
    tt_buf_free(&o->text);
    free(o->offset);
    o->offset = NULL;
    o->ready = 0;
    o->tokens = o->capacity = 0;
    o->finish = TT_FINISH_NONE;
    o->hit_stop = false;
    memset(&o->stream, 0, sizeof o->stream);
}

int32_t tt_text_out_tokens_before(const tt_text_out *o, size_t limit)
{
    int32_t n = o->tokens;
    while (n > 0 && o->offset[n - 1] >= limit)
        n--;
    return n;
}

/* Appends columns [from, to), all committed, up to the first stop id. */
static tt_status put_run(const tt_text_out *o, const tt_view *v, int32_t from, int32_t to,
                         tt_buf *out, tt_err *e)
{
    int32_t n = 0;
    tt_tok_stream stream = {.started = from > o->begin || o->continues,
                            .skip_special = !o->keep_special};
    while (from + n < to && !is_stop_id(o, v->id[from + n])) {
        tt_status s = tt_tok_stream_add(o->tok, &stream, v->id[from + n], out, e);
        if (s)
            return s;
        n++;
    }
    tt_tok_stream_end(o->tok, &stream, out);
    return out->failed ? tt_fail(e, TT_ENOMEM, "no memory for the draft") : TT_OK;
}

/* First column of [from, end) that is open, or is filled, as asked. */
static int32_t run_end(const tt_view *v, int32_t from, int32_t end, bool open)
{
    while (from < end && (v->id[from] < 0) == open)
        from++;
    return from;
}

tt_status tt_text_out_draft(const tt_text_out *o, const tt_view *v, const char *placeholder,
                            tt_buf *out, tt_err *e)
{
    if (o->finish) {
        if (o->text.size)
            tt_buf_add(out, o->text.data, o->text.size);
        return out->failed ? tt_fail(e, TT_ENOMEM, "no memory for the draft") : TT_OK;
    }
    if (!o->tok)
        return TT_OK;
    int32_t end = o->end < v->columns ? o->end : v->columns;
    for (int32_t c = o->begin; c < end;) {
        int32_t filled = run_end(v, c, end, false);
        tt_status s = put_run(o, v, c, filled, out, e);
        if (s)
            return s;
        c = run_end(v, filled, end, true);
        for (int32_t i = filled; i < c; i++)
            tt_buf_puts(out, placeholder);
    }
    return TT_OK;
}
