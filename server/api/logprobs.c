/* logprobs.c - log-probabilities of tokens, in the two forms OpenAI has.
 *
 * A token's text need not be whole characters. The legacy object then names the bytes
 * ("bytes:\xe2\x96"); chat's has a byte list beside a repaired string. */
#include <string.h>

#include "kernels/base/utf8.h"
#include "server/api/gen_parts.h"

static const char *piece(const tt_gen *g, int32_t id, size_t *n)
{
    const char *p = g->model->tok ? tt_tok_piece(g->model->tok, id, n) : NULL;
    if (!p)
        *n = 0;
    return p ? p : "";
}

static const tt_id_value *tops(const tt_choice *c, int32_t column)
{
    return c->view.top ? c->view.top + (size_t)column * (size_t)c->view.n_top : NULL;
}

/* --- legacy --- */

/* The token's name in the legacy object, where it is also a key. */
static void token_name(const tt_gen *g, int32_t id, tt_buf *out)
{
    size_t n;
    const char *p = piece(g, id, &n);
    tt_buf_clear(out);
    if (tt_utf8_valid(p, n) == n && !memchr(p, '\0', n)) {
        tt_buf_add(out, p, n);
        return;
    }
    tt_buf_puts(out, "bytes:");
    for (size_t i = 0; i < n; i++)
        tt_buf_printf(out, "\\x%02x", (unsigned char)p[i]);
}

/* The alternatives and the token itself; names may coincide, the likelier one is kept. */
static void legacy_top(const tt_gen *g, const tt_choice *c, int32_t column, tt_json *w)
{
    const tt_id_value *top = tops(c, column);
    tt_buf name = {0}, seen = {0};
    bool own = false;
    tt_json_open(w, '{');
    for (int32_t i = 0; i <= c->view.n_top; i++) {
        bool extra = i == c->view.n_top;
        if (extra ? own : !top || top[i].id < 0)
            continue;
        int32_t id = extra ? c->view.id[column] : top[i].id;
        own |= id == c->view.id[column];
        token_name(g, id, &name);
        tt_buf_putc(&name, '\0');
        if (seen.size && memmem(seen.data, seen.size, name.data, name.size))
            continue;
        tt_buf_add(&seen, name.data, name.size);
        tt_json_float_member(w, tt_buf_text(&name),
                             extra ? (double)c->view.logprob[column] : (double)top[i].value);
    }
    tt_json_close(w, '}');
    tt_buf_free(&name);
    tt_buf_free(&seen);
}

/* Members are column-wise: one pass per member. With echo the prompt's tokens come first; they
 * were given, not predicted, so they have no probability. */
void tt_write_legacy_logprobs(const tt_gen *g, const tt_choice *c, const tt_text_out *o,
                              int32_t from, int32_t to, size_t offset, tt_json *w)
{
    tt_buf name = {0};
    tt_json_open(w, '{');
    tt_json_open_member(w, "tokens", '[');
    for (int32_t i = from; i < to; i++) {
        token_name(g, c->view.id[o->begin + i], &name);
        tt_json_put_bytes(w, tt_buf_text(&name), name.size);
    }
    tt_json_close(w, ']');
    tt_json_open_member(w, "token_logprobs", '[');
    for (int32_t i = from; i < to; i++)
        tt_json_put_float(w, (double)c->view.logprob[o->begin + i]);
    tt_json_close(w, ']');
    tt_json_open_member(w, "top_logprobs", '[');
    for (int32_t i = from; i < to; i++)
        legacy_top(g, c, o->begin + i, w);
    tt_json_close(w, ']');
    tt_json_open_member(w, "text_offset", '[');
    for (int32_t i = from; i < to; i++)
        tt_json_put_int(w, (int64_t)(offset + o->offset[i]));
    tt_json_close(w, ']');
    tt_json_close(w, '}');
    tt_buf_free(&name);
}

/* --- chat --- */

static void chat_token(const tt_gen *g, int32_t id, double logprob, tt_json *w)
{
    size_t n;
    const char *p = piece(g, id, &n);
    tt_json_key(w, "token");
    tt_json_put_bytes(w, p, n);
    tt_json_float_member(w, "logprob", logprob);
    tt_json_open_member(w, "bytes", '[');
    for (size_t i = 0; i < n; i++)
        tt_json_put_int(w, (unsigned char)p[i]);
    tt_json_close(w, ']');
}

void tt_write_chat_logprobs(const tt_gen *g, const tt_choice *c, const tt_text_out *o,
                            int32_t from, int32_t to, tt_json *w)
{
    tt_json_open(w, '{');
    tt_json_open_member(w, "content", '[');
    for (int32_t i = from; i < to; i++) {
        int32_t column = o->begin + i;
        const tt_id_value *top = tops(c, column);
        tt_json_open(w, '{');
        chat_token(g, c->view.id[column], (double)c->view.logprob[column], w);
        tt_json_open_member(w, "top_logprobs", '[');
        for (int32_t k = 0; top && k < c->view.n_top; k++) {
            if (top[k].id < 0)
                continue;
            tt_json_open(w, '{');
            chat_token(g, top[k].id, (double)top[k].value, w);
            tt_json_close(w, '}');
        }
        tt_json_close(w, ']');
        tt_json_close(w, '}');
    }
    tt_json_close(w, ']');
    tt_json_null_member(w, "refusal");
    tt_json_close(w, '}');
}
