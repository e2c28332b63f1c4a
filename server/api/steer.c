/* steer.c - what a caller may say about the tokens of an answer beyond the sampler's parameters:
 * tokens at positions, the shortest length, a prediction, a prompt to stay away from. */
#include <stdlib.h>
#include <string.h>

#include "server/api/chat.h"
#include "server/api/constrain.h"
#include "server/api/fit.h"

static tt_status no_memory(tt_err *e) { return tt_fail(e, TT_ENOMEM, "no memory for the request"); }

/* --- positions and least length --- */

/* What the text of the hole must match. */
static tt_status read_form(tt_gen *g, tt_canvas *c, const tt_part *hole, const cJSON *body,
                           tt_err *e)
{
    tt_status s = tt_gen_read_format(g, body, e);
    if (!s && g->form)
        s = tt_canvas_constrain(c, g->form, hole->begin, hole->end, g->stop_early, g->form_path,
                                e);
    return s;
}

tt_status tt_gen_steer(tt_gen *g, tt_canvas *c, const cJSON *body, tt_err *e)
{
    const tt_part *hole = c->part + c->parts - 1;
    while (!hole->hole)
        hole--;
    int32_t tokens = hole->end - hole->begin;
    int64_t least = tt_field_int(body, "min_tokens", 0);
    tt_positions p = {0};
    if (least > tokens)
        return tt_fail_param(e, "min_tokens", "invalid_value",
                             "'min_tokens' is %lld; the answer has %d at most", (long long)least,
                             tokens);
    tt_status s = tt_positions_read(g, tt_json_get(body, "tutti"), "tutti", tokens, &p, e);
    if (!s)
        s = tt_positions_apply(&p, c, hole->begin, tokens, e);
    if (!s && g->sampler->inserts)
        tt_canvas_demand(c, hole->begin, (int32_t)least);
    else if (!s && g->stop_early)
        s = tt_canvas_ban(c, hole->begin, hole->begin + (int32_t)least, g->model->stop_id,
                          g->model->stop_ids, e);
    tt_positions_free(&p);
    return s ? s : read_form(g, c, hole, body, e);
}

/* --- prediction --- */

/* The text of the member, joined when it comes in parts. */
static tt_status prediction_text(const cJSON *node, tt_buf *out, tt_err *e)
{
    const char *type = "content";
    const cJSON *m, *kind = tt_json_get(node, "type");
    tt_status s = kind ? tt_json_text(kind, "prediction.type", &type, e) : TT_OK;
    if (!s && strcmp(type, "content"))
        s = tt_fail_param(e, "prediction.type", "unsupported_value",
                          "'prediction.type' is '%.40s', must be content", type);
    cJSON_ArrayForEach(m, node)
    {
        if (!s && strcmp(m->string, "type") && strcmp(m->string, "content"))
            s = tt_fail_param(e, tt_json_member("prediction", m->string).text, "unknown_parameter",
                              "unknown parameter 'prediction.%.40s'", m->string);
    }
    return s ? s : tt_chat_content(node, "prediction", out, e);
}

tt_status tt_gen_read_prediction(tt_gen *g, const cJSON *body, tt_ids *out, tt_err *e)
{
    const cJSON *node = tt_json_get(body, "prediction");
    tt_buf text = {0};
    if (!node)
        return TT_OK;
    if (!g->model->tok)
        return tt_fail_param(e, "prediction", "unsupported_value",
                             "model '%s' has no tokenizer", g->model->id);
    tt_status s = prediction_text(node, &text, e);
    if (!s && text.failed)
        s = no_memory(e);
    if (!s)
        s = tt_tok_encode(g->model->tok, tt_buf_text(&text), text.size, 0, out, e);
    tt_buf_free(&text);
    g->predicted = (int32_t)out->count;
    return s;
}

tt_status tt_canvas_predict(tt_canvas *c, const tt_ids *ids, tt_err *e)
{
    const tt_part *hole = c->part + c->parts - 1;
    static const int32_t none = -1;
    if (!ids->count && !c->draft.size)
        return TT_OK;
    while (!hole->hole)
        hole--;
    while (c->draft.size < c->ids.count * sizeof none && !c->draft.failed)
        tt_buf_add(&c->draft, (const char *)&none, sizeof none);
    if (c->draft.failed)
        return no_memory(e);
    size_t room = (size_t)(hole->end - hole->begin), n = ids->count < room ? ids->count : room;
    if (n)
        memcpy(c->draft.data + (size_t)hole->begin * sizeof none, ids->id, n * sizeof none);
    return TT_OK;
}

int64_t tt_gen_accepted(const tt_gen *g)
{
    int64_t n = 0;
    for (int i = 0; i < g->choices; i++) {
        const tt_choice *c = &g->choice[i];
        for (int k = 0; k < c->canvas->holes && c->canvas->draft.size; k++)
            for (int32_t at = c->out[k].begin; at < c->out[k].begin + c->out[k].tokens; at++) {
                int32_t id;
                memcpy(&id, c->canvas->draft.data + (size_t)at * sizeof id, sizeof id);
                n += id == c->view.id[at];
            }
    }
    return n;
}

/* --- negative prompt --- */

/* In a chat it is a user's message. */
tt_status tt_gen_read_negative(tt_gen *g, const cJSON *body, tt_err *e)
{
    const cJSON *node;
    const char *text = "";
    tt_json_path path = {0};
    tt_status s = tt_extension_find(body, "negative_prompt", &node, &path, e);
    if (!s && node)
        s = tt_json_text(node, path.text, &text, e);
    if (s || !*text)
        return s;
    if (g->params.cfg_scale <= 0)
        return tt_fail_param(e, path.text, "invalid_value",
                             "'%s' needs 'tutti.cfg_scale' above 0", path.text);
    if (!g->model->tok)
        return tt_fail_param(e, path.text, "unsupported_value", "model '%s' has no tokenizer",
                             g->model->id);
    if (g->endpoint->on != TT_ON_CHAT)
        return tt_tok_encode(g->model->tok, text, strlen(text),
                             TT_TOK_ADD_SPECIAL | (g->special_tokens ? TT_TOK_PARSE_SPECIAL : 0),
                             &g->negative, e);
    tt_chat_turn turn = {"user", text, strlen(text)};
    return g->model->chat ? tt_chat_encode(g->model->chat, g->model->tok, &turn, 1, false,
                                           &g->negative, e)
                          : TT_OK; /* the messages will be refused */
}
