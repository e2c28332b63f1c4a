/* tokenize.c - text to ids and back, as llama-server and vLLM ask for it: the answer has the
 * members of both. */
#include <stdlib.h>
#include <string.h>

#include "kernels/base/utf8.h"
#include "server/api/api.h"
#include "server/api/chat.h"
#include "server/api/fields.h"
#include "server/json_write.h"

static tt_status open_call(const tt_call *c, cJSON **body, const tt_served **m, tt_err *e)
{
    *body = NULL;
    tt_status s = tt_json_parse(body, c->body, c->body_bytes, e);
    if (!s)
        s = tt_fields_check(*body, c->route->fields, c->api->strict, e);
    if (!s)
        s = tt_api_find_model(c->api, tt_field_text(*body, "model", NULL), false, m, e);
    if (!s && !(*m)->tok)
        s = tt_fail_param(e, "model", "unsupported_value", "model '%s' has no tokenizer",
                          (*m)->id);
    return s;
}

static tt_status encode(const tt_served *m, const cJSON *body, tt_ids *out, tt_err *e)
{
    const cJSON *messages = tt_json_get(body, "messages");
    if (messages)
        return tt_chat_read(m, messages, out, e);
    const char *member = tt_json_get(body, "content") ? "content" : "prompt", *text;
    const cJSON *node = tt_json_get(body, member);
    if (!node)
        return tt_fail_param(e, "prompt", "missing_required_parameter",
                             "one of 'prompt', 'content' and 'messages' must be given");
    tt_status s = tt_json_text(node, member, &text, e);
    bool special = tt_field_bool(body, "add_special_tokens",
                                 tt_field_bool(body, "add_special", true));
    unsigned flags = special ? TT_TOK_ADD_SPECIAL : 0;
    if (tt_field_bool(body, "parse_special", false))
        flags |= TT_TOK_PARSE_SPECIAL;
    return s ? s : tt_tok_encode(m->tok, text, strlen(text), flags, out, e);
}

/* As llama-server has it: a string, or the list of bytes when they are not whole characters. */
static void put_piece(const tt_served *m, int32_t id, tt_json *w)
{
    size_t n = 0;
    const char *p = tt_tok_piece(m->tok, id, &n);
    if (!p || tt_utf8_valid(p, n) == n) {
        tt_json_put_bytes(w, p ? p : "", p ? n : 0);
        return;
    }
    tt_json_open(w, '[');
    for (size_t i = 0; i < n; i++)
        tt_json_put_int(w, (unsigned char)p[i]);
    tt_json_close(w, ']');
}

static void write_tokens(const tt_served *m, const tt_ids *ids, bool pieces, bool strings,
                         tt_buf *out)
{
    tt_json w = {.out = out};
    tt_json_open(&w, '{');
    tt_json_int_member(&w, "count", (int64_t)ids->count);
    tt_json_int_member(&w, "max_model_len", m->info.context);
    tt_json_open_member(&w, "tokens", '[');
    for (size_t i = 0; i < ids->count; i++) {
        if (pieces) {
            tt_json_open(&w, '{');
            tt_json_int_member(&w, "id", ids->id[i]);
            tt_json_key(&w, "piece");
            put_piece(m, ids->id[i], &w);
            tt_json_close(&w, '}');
        } else {
            tt_json_put_int(&w, ids->id[i]);
        }
    }
    tt_json_close(&w, ']');
    if (strings) {
        tt_json_open_member(&w, "token_strs", '[');
        for (size_t i = 0; i < ids->count; i++) {
            size_t n = 0;
            const char *p = tt_tok_piece(m->tok, ids->id[i], &n);
            tt_json_put_bytes(&w, p ? p : "", n);
        }
        tt_json_close(&w, ']');
    }
    tt_json_close(&w, '}');
}

void tt_api_tokenize(const tt_call *c, tt_reply *r)
{
    tt_err e = {0};
    cJSON *body;
    const tt_served *m;
    tt_ids ids = {0};
    tt_status s = open_call(c, &body, &m, &e);
    if (!s)
        s = encode(m, body, &ids, &e);
    if (!s) {
        write_tokens(m, &ids, tt_field_bool(body, "with_pieces", false),
                     tt_field_bool(body, "return_token_strs", false), &r->body);
        r->status = 200;
    } else {
        tt_reply_error(r, &e);
    }
    tt_ids_free(&ids);
    cJSON_Delete(body);
}

static tt_status read_ids(const tt_served *m, const cJSON *body, tt_ids *out, tt_err *e)
{
    const cJSON *node, *list = tt_json_get(body, "tokens");
    if (!list)
        return tt_fail_param(e, "tokens", "missing_required_parameter", "'tokens' is missing");
    int i = 0;
    cJSON_ArrayForEach(node, list)
    {
        int64_t id;
        tt_status s = tt_json_int(node, tt_json_element("tokens", i++).text, 0,
                                  tt_tok_vocab(m->tok) - 1, &id, e);
        int32_t narrow = s ? 0 : (int32_t)id;
        if (!s)
            s = tt_ids_add(out, &narrow, 1, e);
        if (s)
            return s;
    }
    return TT_OK;
}

void tt_api_detokenize(const tt_call *c, tt_reply *r)
{
    tt_err e = {0};
    cJSON *body;
    const tt_served *m;
    tt_ids ids = {0};
    tt_buf text = {0};
    tt_status s = open_call(c, &body, &m, &e);
    if (!s)
        s = read_ids(m, body, &ids, &e);
    if (!s)
        s = tt_tok_decode(m->tok, ids.id, ids.count,
                          tt_field_bool(body, "skip_special_tokens", false), &text, &e);
    if (!s) {
        tt_json w = {.out = &r->body};
        tt_json_open(&w, '{');
        tt_json_key(&w, "content");
        tt_json_put_bytes(&w, tt_buf_text(&text), text.size);
        tt_json_key(&w, "prompt");
        tt_json_put_bytes(&w, tt_buf_text(&text), text.size);
        tt_json_close(&w, '}');
        r->status = 200;
    } else {
        tt_reply_error(r, &e);
    }
    tt_ids_free(&ids);
    tt_buf_free(&text);
    cJSON_Delete(body);
}
