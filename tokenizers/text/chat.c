/* chat.c - a conversation as ids.
 *
 * The reference renders the whole conversation as text and splits it at control tokens; so the
 * text between two of them ("user\n" and what the user wrote) is encoded in one go. Here control
 * tokens never pass through text: they are put in by id, and what looks like one inside a turn
 * stays ordinary text. */
#include <stdio.h>
#include <string.h>

#include "kernels/base/utf8.h"
#include "tokenizers/text/chat.h"
#include "tokenizers/text/tok.h"
#include "tokenizers/text/unicode.h"

enum { MAX_CONTROL = sizeof((tt_chat_format *)0)->control / sizeof(char *) };

typedef struct {
    const tt_chat_format *f;
    const tt_tok *t;
    int32_t control[MAX_CONTROL];
    size_t controls;
    tt_buf text; /* since the last control token */
    tt_ids *out;
    tt_err *e;
} writer;

static tt_status flush(writer *w)
{
    if (w->text.failed)
        return tt_fail(w->e, TT_ENOMEM, "no memory for the conversation");
    tt_status st = tt_tok_encode_without(w->t, tt_buf_text(&w->text), w->text.size, 0, w->control,
                                         w->controls, w->out, w->e);
    tt_buf_clear(&w->text);
    return st;
}

/* Text of the format: control tokens become ids. */
static tt_status put_frame(writer *w, const char *s)
{
    while (s && *s) {
        size_t i = 0, n = 0;
        for (; w->f->control[i]; i++) {
            n = strlen(w->f->control[i]);
            if (!strncmp(s, w->f->control[i], n))
                break;
        }
        if (!w->f->control[i]) {
            tt_buf_putc(&w->text, *s++);
            continue;
        }
        tt_status st = flush(w);
        if (!st)
            st = tt_ids_add(w->out, &w->control[i], 1, w->e);
        if (st)
            return st;
        s += n;
    }
    return TT_OK;
}

static bool blank(uint32_t cp)
{
    return tt_uni_space(cp) || (cp >= 0x1C && cp <= 0x1F);
}

static void trim(const char **text, size_t *bytes)
{
    uint32_t cp;
    size_t from = 0, to = 0, k;
    bool any = false;
    for (size_t i = 0; i < *bytes; i += k) {
        k = tt_utf8_decode(*text + i, *bytes - i, &cp);
        k = k ? k : 1;
        if (blank(cp))
            continue;
        if (!any)
            from = i;
        any = true;
        to = i + k;
    }
    *text += from;
    *bytes = to - from;
}

static tt_status put_turn(writer *w, const tt_chat_wrap *wrap, const char *text, size_t bytes,
                          const char *after, bool open_end)
{
    if (w->f->trim)
        trim(&text, &bytes);
    tt_status st = put_frame(w, wrap->open);
    if (st)
        return st;
    tt_buf_add(&w->text, text, bytes);
    if (open_end)
        return TT_OK;
    if (bytes && after)
        tt_buf_puts(&w->text, after);
    return put_frame(w, wrap->close);
}

static const tt_chat_wrap *wrap_of(const tt_chat_format *f, const char *role)
{
    if (!role)
        return NULL;
    if (!strcmp(role, "system") || !strcmp(role, "developer"))
        return &f->system;
    if (!strcmp(role, "user"))
        return &f->user;
    return strcmp(role, "assistant") ? NULL : &f->assistant;
}

static tt_status find_controls(writer *w)
{
    for (; w->f->control[w->controls]; w->controls++) {
        const char *token = w->f->control[w->controls];
        w->control[w->controls] = tt_tok_id(w->t, token);
        if (w->control[w->controls] < 0)
            return tt_fail(w->e, TT_EUNSUP,
                           "chat format '%s' needs the token '%s', which this tokenizer lacks",
                           w->f->name, token);
    }
    return TT_OK;
}

static tt_status check_roles(const tt_chat_format *f, const tt_chat_turn *turn, size_t turns,
                             tt_err *e)
{
    char param[64];
    if (turns == 0)
        return tt_fail_param(e, "messages", "invalid_value", "there is no message");
    for (size_t i = 0; i < turns; i++) {
        snprintf(param, sizeof param, "messages[%zu].role", i);
        if (!wrap_of(f, turn[i].role))
            return tt_fail_param(e, param, "invalid_value",
                                 "%s is '%.40s', must be system, developer, user or assistant",
                                 param, turn[i].role ? turn[i].role : "");
    }
    return TT_OK;
}

static tt_status write_all(writer *w, const tt_chat_turn *turn, size_t turns, bool continue_last)
{
    const tt_chat_format *f = w->f;
    const tt_chat_wrap *first = f->first_system.open ? &f->first_system : &f->system;
    bool own_system = wrap_of(f, turn[0].role) == &f->system;
    tt_status st = put_frame(w, f->prefix);
    if (!st && !own_system && f->default_system)
        st =
            put_turn(w, first, f->default_system, strlen(f->default_system), f->after_first, false);
    for (size_t i = 0; i < turns && !st; i++) {
        const tt_chat_wrap *wrap = wrap_of(f, turn[i].role);
        bool open_end = continue_last && i + 1 == turns && wrap == &f->assistant;
        bool at_front = i == 0 && own_system;
        st = put_turn(w, at_front ? first : wrap, turn[i].text ? turn[i].text : "", turn[i].bytes,
                      at_front ? f->after_first : NULL, open_end);
        if (!st && open_end)
            return flush(w);
    }
    if (!st)
        st = put_frame(w, f->assistant.open);
    return st ? st : flush(w);
}

tt_status tt_chat_encode(const tt_chat_format *f, const tt_tok *t, const tt_chat_turn *turn,
                         size_t turns, bool continue_last, tt_ids *out, tt_err *e)
{
    writer w = {.f = f, .t = t, .out = out, .e = e};
    size_t before = out->count;
    tt_status st = check_roles(f, turn, turns, e);
    if (!st)
        st = find_controls(&w);
    if (!st)
        st = write_all(&w, turn, turns, continue_last);
    tt_buf_free(&w.text);
    if (st)
        out->count = before;
    return st;
}

size_t tt_chat_stops(const tt_chat_format *f, const tt_tok *t, int32_t *id, size_t cap)
{
    size_t n = 0;
    const size_t named = sizeof f->stop / sizeof *f->stop;
    for (size_t i = 0; i <= named; i++) {
        int32_t stop = i == named ? tt_tok_eos(t) : f->stop[i] ? tt_tok_id(t, f->stop[i]) : -1;
        bool known = stop < 0;
        for (size_t k = 0; k < n && !known; k++)
            known = id[k] == stop;
        if (!known && n < cap)
            id[n++] = stop;
    }
    return n;
}

const char *tt_chat_name(const tt_chat_format *f)
{
    return f->name;
}
