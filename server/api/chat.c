/* chat.c - POST /v1/chat/completions. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/api/chat.h"
#include "server/api/gen_parts.h"

/* The text of an array of content parts, joined. */
static tt_status join_parts(const cJSON *list, const char *path, tt_buf *out, tt_err *e)
{
    int i = 0;
    const cJSON *m;
    cJSON_ArrayForEach(m, list)
    {
        tt_json_path at = tt_json_element(path, i++);
        const char *type = NULL, *text = NULL;
        tt_status s = tt_json_is_object(m, at.text, e);
        const cJSON *node = tt_json_get(m, "type");
        if (!s && !node)
            s = tt_fail_param(e, tt_json_member(at.text, "type").text,
                              "missing_required_parameter", "'%s.type' is missing", at.text);
        if (!s)
            s = tt_json_text(node, tt_json_member(at.text, "type").text, &type, e);
        if (!s && strcmp(type, "text"))
            s = tt_fail_param(e, tt_json_member(at.text, "type").text, "unsupported_value",
                              "content of type '%.40s' is not supported; only text is", type);
        node = tt_json_get(m, "text");
        if (!s && !node)
            s = tt_fail_param(e, tt_json_member(at.text, "text").text,
                              "missing_required_parameter", "'%s.text' is missing", at.text);
        if (!s)
            s = tt_json_text(node, tt_json_member(at.text, "text").text, &text, e);
        if (s)
            return s;
        tt_buf_puts(out, text);
    }
    return TT_OK;
}

tt_status tt_chat_content(const cJSON *message, const char *path, tt_buf *out, tt_err *e)
{
    const cJSON *content = tt_json_get(message, "content");
    tt_json_path at = tt_json_member(path, "content");
    const char *text;
    if (!content)
        return tt_fail_param(e, at.text, "missing_required_parameter", "'%s' is missing", at.text);
    if (cJSON_IsArray(content))
        return join_parts(content, at.text, out, e);
    tt_status s = tt_json_text(content, at.text, &text, e);
    if (!s)
        tt_buf_puts(out, text);
    return s;
}

static tt_status check_keys(const cJSON *message, const char *path, tt_err *e)
{
    static const char *const known[] = {"role", "content", "name", "refusal", NULL};
    const cJSON *m;
    cJSON_ArrayForEach(m, message)
    {
        int i = 0;
        while (known[i] && strcmp(known[i], m->string))
            i++;
        if (known[i] || cJSON_IsNull(m))
            continue;
        tt_json_path at = tt_json_member(path, m->string);
        bool tool = !strncmp(m->string, "tool_call", 9) || !strcmp(m->string, "function_call") ||
                    !strcmp(m->string, "audio");
        return tt_fail_param(e, at.text, tool ? "unsupported_parameter" : "unknown_parameter",
                             "%s '%s'", tool ? "unsupported" : "unknown parameter", at.text);
    }
    return TT_OK;
}

static tt_status read_role(const cJSON *message, const char *path, const char **role, tt_err *e)
{
    static const char *const known[] = {"system", "developer", "user", "assistant", NULL};
    const cJSON *node = tt_json_get(message, "role");
    tt_json_path at = tt_json_member(path, "role");
    if (!node)
        return tt_fail_param(e, at.text, "missing_required_parameter", "'%s' is missing", at.text);
    tt_status s = tt_json_text(node, at.text, role, e);
    if (s)
        return s;
    for (int i = 0; known[i]; i++)
        if (!strcmp(known[i], *role))
            return TT_OK;
    bool tool = !strcmp(*role, "tool") || !strcmp(*role, "function");
    return tt_fail_param(e, at.text, tool ? "unsupported_value" : "invalid_value",
                         "'%s' is '%.40s', must be system, developer, user or assistant", at.text,
                         *role);
}

/* Texts go one after the other into `texts`; turns get their places there, since the buffer moves
 * while it grows. */
static tt_status read_turns(const cJSON *messages, tt_chat_turn *turn, size_t *start, tt_buf *texts,
                            tt_err *e)
{
    int i = 0;
    const cJSON *m;
    cJSON_ArrayForEach(m, messages)
    {
        tt_json_path path = tt_json_element("messages", i);
        tt_status s = tt_json_is_object(m, path.text, e);
        if (!s)
            s = check_keys(m, path.text, e);
        if (!s)
            s = read_role(m, path.text, &turn[i].role, e);
        start[i] = texts->size;
        if (!s)
            s = tt_chat_content(m, path.text, texts, e);
        if (s)
            return s;
        turn[i].bytes = texts->size - start[i];
        i++;
    }
    for (int k = 0; k < i; k++)
        turn[k].text = tt_buf_text(texts) + start[k];
    return texts->failed ? tt_fail(e, TT_ENOMEM, "no memory for the messages") : TT_OK;
}

tt_status tt_chat_read(const tt_served *model, const cJSON *messages, tt_ids *out, tt_err *e)
{
    if (!messages || !messages->child)
        return tt_fail_param(e, "messages", "missing_required_parameter", "'messages' is %s",
                             messages ? "empty" : "missing");
    if (!model->chat)
        return tt_fail_param(e, "model", "unsupported_value", "model '%s' cannot chat: %s",
                             model->id,
                             model->why_no_chat ? model->why_no_chat : "it has no chat format");
    size_t n = (size_t)cJSON_GetArraySize(messages);
    tt_chat_turn *turn = calloc(n, sizeof *turn);
    size_t *start = calloc(n, sizeof *start);
    tt_buf texts = {0};
    tt_status s = turn && start ? read_turns(messages, turn, start, &texts, e)
                                : tt_fail(e, TT_ENOMEM, "no memory for the messages");
    if (!s)
        s = tt_chat_encode(model->chat, model->tok, turn, n, false, out, e);
    if (s == TT_EINVAL && !*e->code)
        snprintf(e->code, sizeof e->code, "invalid_value");
    tt_buf_free(&texts);
    free(turn);
    free(start);
    return s;
}

/* Columns of the answer: what is asked for, else a default that a prediction fits into. */
static tt_status add_answer(tt_gen *g, tt_canvas *c, const cJSON *body, tt_err *e)
{
    tt_ids predicted = {0};
    tt_status s = tt_gen_read_prediction(g, body, &predicted, e);
    int64_t room = tt_canvas_room(g, c), usual = (int64_t)predicted.count + TT_DEFAULT_FIM;
    usual = usual > TT_DEFAULT_CHAT ? usual : TT_DEFAULT_CHAT;
    int64_t tokens = room < 1 ? 1 : room < usual ? room : usual;
    tokens = tt_field_int(body, "max_tokens", tokens);
    tokens = tt_field_int(body, "max_completion_tokens", tokens);
    bool newer = tt_json_get(body, "max_completion_tokens") != NULL;
    bool given = newer || tt_json_get(body, "max_tokens");
    c->prompt = (int32_t)c->ids.count;
    g->stop_early = true;
    if (!s)
        s = tt_canvas_add_hole(g, c, tokens, NULL,
                               !given  ? "messages"
                               : newer ? "max_completion_tokens"
                                       : "max_tokens", e);
    if (!s)
        s = tt_canvas_predict(c, &predicted, e);
    tt_ids_free(&predicted);
    return s ? s : tt_gen_steer(g, c, body, e);
}

static tt_status read_chat(tt_gen *g, const cJSON *body, tt_err *e)
{
    if (g->special_tokens)
        return tt_fail_param(e, "tutti.special_tokens", "unsupported_parameter",
                             "messages are always read as plain text; use /v1/completions");
    tt_canvas *c = tt_gen_add_canvas(g, e);
    if (!c)
        return e->status;
    tt_ids ids = {0};
    tt_status s = tt_chat_read(g->model, tt_json_get(body, "messages"), &ids, e);
    if (!s)
        s = tt_canvas_add_ids(g, c, ids.id, ids.count, "messages", e);
    tt_ids_free(&ids);
    if (s)
        return s;
    return add_answer(g, c, body, e);
}
static void chat_choice(const tt_gen *g, const tt_choice *c, tt_json *w)
{
    const tt_text_out *o = &c->out[0];
    tt_json_open_member(w, "message", '{');
    tt_json_text_member(w, "role", "assistant");
    tt_json_key(w, "content");
    tt_json_put_bytes(w, tt_buf_text(&o->text), o->ready);
    tt_json_null_member(w, "refusal");
    tt_json_close(w, '}');
    tt_json_key(w, "logprobs");
    if (g->logprobs)
        tt_write_chat_logprobs(g, c, o, 0, tt_text_out_tokens_before(o, o->ready), w);
    else
        tt_json_put_null(w);
}

static void chat_delta(const tt_gen *g, const tt_choice *c, const tt_piece *p, tt_json *w)
{
    tt_json_open_member(w, "delta", '{');
    if (p->first)
        tt_json_text_member(w, "role", "assistant");
    if (!p->last) {
        tt_json_key(w, "content");
        tt_json_put_bytes(w, p->text, p->bytes);
    }
    tt_json_close(w, '}');
    tt_json_key(w, "logprobs");
    if (p->tokens)
        tt_write_chat_logprobs(g, c, p->tokens, p->from, p->to, w);
    else
        tt_json_put_null(w);
}

const tt_endpoint tt_endpoint_chat = {
    .on = TT_ON_CHAT,
    .id_prefix = "chatcmpl-",
    .object = "chat.completion",
    .chunk_object = "chat.completion.chunk",
    .read = read_chat,
    .choice = chat_choice,
    .delta = chat_delta,
};
