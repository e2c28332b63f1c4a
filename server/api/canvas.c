/* canvas.c - building canvases from texts, ids and holes. */
#include <stdlib.h>
#include <string.h>

#include "server/api/gen_parts.h"

static tt_status no_memory(tt_err *e) { return tt_fail(e, TT_ENOMEM, "no memory for the canvas"); }

tt_canvas *tt_gen_add_canvas(tt_gen *g, tt_err *e)
{
    if (g->endpoint->reads && g->canvases == TT_MAX_READ) {
        tt_fail(e, TT_EINVAL, "more than %d texts in one request", TT_MAX_READ);
        return NULL;
    }
    if (!g->endpoint->reads && (int64_t)(g->canvases + 1) * g->made > g->api->max_samples) {
        tt_fail_param(e, g->made > g->n ? "best_of" : "n", "invalid_value",
                      "the request asks for more than %d answers (prompts times n, or best_of)",
                      g->api->max_samples);
        return NULL;
    }
    pthread_mutex_lock(&g->lock);
    tt_canvas *more = realloc(g->canvas, (size_t)(g->canvases + 1) * sizeof *more);
    if (more) {
        g->canvas = more;
        more[g->canvases++] = (tt_canvas){0};
    }
    pthread_mutex_unlock(&g->lock);
    if (!more)
        no_memory(e);
    return more ? &more[g->canvases - 1] : NULL;
}

void tt_canvas_free(tt_canvas *c)
{
    if (c->job)
        tt_job_release(c->job);
    tt_ids_free(&c->ids);
    tt_buf_free(&c->open);
    tt_buf_free(&c->draft);
    free(c->rule);
    for (int32_t i = 0; i < c->constraints; i++)
        tt_grammar_close(c->constraint[i].grammar);
    free(c->constraint);
    free(c->part);
    *c = (tt_canvas){0};
}

int64_t tt_canvas_room(const tt_gen *g, const tt_canvas *c)
{
    return g->model->info.context - (int64_t)c->ids.count;
}

static tt_status too_long(const tt_gen *g, const tt_canvas *c, int64_t more, const char *path,
                          tt_err *e)
{
    int64_t holes = (int64_t)c->open.size - c->given, all = (int64_t)c->ids.count + more;
    return tt_fail_param(e, path, "context_length_exceeded",
                         "model '%s' has a context of %lld tokens; this request needs %lld (%lld "
                         "given, %lld to generate)",
                         g->model->id, (long long)g->model->info.context, (long long)all,
                         (long long)(all - holes - more), (long long)(holes + more));
}

/* Marks the columns that were just added to ids as given. */
static tt_status mark_given(const tt_gen *g, tt_canvas *c, const char *path, tt_err *e)
{
    while (c->open.size < c->ids.count && !c->open.failed) {
        tt_buf_putc(&c->open, 0);
        c->given++;
    }
    if (c->open.failed)
        return no_memory(e);
    return tt_canvas_room(g, c) < 0 ? too_long(g, c, 0, path, e) : TT_OK;
}

tt_status tt_canvas_add_text(const tt_gen *g, tt_canvas *c, const char *text, unsigned flags,
                             const char *path, tt_err *e)
{
    if (!g->model->tok)
        return tt_fail_param(e, path, "unsupported_value",
                             "model '%s' has no tokenizer; send token ids", g->model->id);
    if (g->special_tokens)
        flags |= TT_TOK_PARSE_SPECIAL;
    tt_status s = tt_tok_encode(g->model->tok, text, strlen(text), flags, &c->ids, e);
    return s ? s : mark_given(g, c, path, e);
}

tt_status tt_canvas_add_ids(const tt_gen *g, tt_canvas *c, const int32_t *id, size_t n,
                            const char *path, tt_err *e)
{
    tt_status s = tt_ids_add(&c->ids, id, n, e);
    return s ? s : mark_given(g, c, path, e);
}

static tt_part *add_part(tt_canvas *c, tt_err *e)
{
    tt_part *more = realloc(c->part, (size_t)(c->parts + 1) * sizeof *more);
    if (!more) {
        no_memory(e);
        return NULL;
    }
    c->part = more;
    tt_part *p = &more[c->parts++];
    memset(p, 0, sizeof *p);
    return p;
}

tt_status tt_canvas_add_hole(const tt_gen *g, tt_canvas *c, int64_t tokens, const char *id,
                             const char *path, tt_err *e)
{
    if (tokens > tt_canvas_room(g, c))
        return too_long(g, c, tokens, path, e);
    tt_part *p = add_part(c, e);
    if (!p)
        return TT_ENOMEM;
    *p = (tt_part){.hole = true, .begin = (int32_t)c->ids.count, .id = id};
    p->end = p->begin + (int32_t)tokens;
    c->holes++;
    static const int32_t nothing = 0;
    for (int64_t i = 0; i < tokens; i++) {
        tt_status s = tt_ids_add(&c->ids, &nothing, 1, e);
        if (s)
            return s;
        tt_buf_putc(&c->open, 1);
    }
    return c->open.failed ? no_memory(e) : TT_OK;
}

void tt_canvas_demand(tt_canvas *c, int32_t begin, int32_t tokens)
{
    memset(c->open.data + begin, 2, (size_t)tokens);
}

tt_status tt_canvas_add_literal(tt_canvas *c, const char *text, size_t bytes, tt_err *e)
{
    tt_part *p = add_part(c, e);
    if (!p)
        return TT_ENOMEM;
    *p = (tt_part){.text = text, .bytes = bytes};
    return TT_OK;
}

/* --- prompts --- */

static tt_status read_ids(tt_gen *g, tt_canvas *c, const cJSON *list, const char *path, tt_err *e)
{
    int i = 0;
    const cJSON *m;
    cJSON_ArrayForEach(m, list)
    {
        int64_t id;
        tt_json_path at = tt_json_element(path, i++);
        tt_status s = tt_json_int(m, at.text, 0, g->model->info.vocab - 1, &id, e);
        int32_t narrow = s ? 0 : (int32_t)id;
        if (!s)
            s = tt_canvas_add_ids(g, c, &narrow, 1, path, e);
        if (s)
            return s;
    }
    return TT_OK;
}

/* The text of a canvas that so far holds nothing but a prompt's ids. */
static tt_status echo_ids(tt_gen *g, tt_canvas *c, tt_err *e)
{
    tt_buf text = {0};
    if (g->model->tok) {
        tt_status s = tt_tok_decode(g->model->tok, c->ids.id, c->ids.count, true, &text, e);
        if (s)
            return s;
    }
    char *kept = tt_gen_keep(g, tt_buf_text(&text), text.size);
    size_t bytes = text.size;
    tt_buf_free(&text);
    return kept ? tt_canvas_add_literal(c, kept, bytes, e) : no_memory(e);
}

static tt_status read_prompt(tt_gen *g, const cJSON *prompt, const char *path, bool echo,
                             tt_err *e)
{
    tt_canvas *c = tt_gen_add_canvas(g, e);
    if (!c)
        return e ? e->status : TT_EINVAL;
    if (!cJSON_IsString(prompt)) {
        tt_status s = read_ids(g, c, prompt, path, e);
        return s || !echo ? s : echo_ids(g, c, e);
    }
    size_t n = strlen(prompt->valuestring);
    if (echo) {
        char *kept = tt_gen_keep(g, prompt->valuestring, n);
        tt_status s = kept ? tt_canvas_add_literal(c, kept, n, e) : no_memory(e);
        if (s)
            return s;
    }
    return tt_canvas_add_text(g, c, prompt->valuestring, TT_TOK_ADD_SPECIAL, path, e);
}

static tt_status read_many(tt_gen *g, const cJSON *list, bool echo, tt_err *e)
{
    bool texts = cJSON_IsString(list->child);
    int i = 0;
    const cJSON *m;
    cJSON_ArrayForEach(m, list)
    {
        tt_json_path path = tt_json_element("prompt", i++);
        if (texts ? !cJSON_IsString(m) : !cJSON_IsArray(m))
            return tt_fail_param(e, path.text, "invalid_value", "'%s' is %s, must be %s like '%s'",
                                 path.text, tt_json_kind(m), texts ? "a string" : "an array",
                                 "prompt[0]");
        tt_status s = read_prompt(g, m, path.text, echo, e);
        if (s)
            return s;
    }
    return TT_OK;
}

tt_status tt_gen_read_prompts(tt_gen *g, const cJSON *prompt, bool echo, tt_err *e)
{
    if (!prompt)
        return tt_fail_param(e, "prompt", "missing_required_parameter", "'prompt' is missing");
    if (cJSON_IsString(prompt) || cJSON_IsNumber(prompt->child))
        return read_prompt(g, prompt, "prompt", echo, e);
    if (!cJSON_IsString(prompt->child) && !cJSON_IsArray(prompt->child))
        return tt_fail_param(e, "prompt", "invalid_value",
                             "'prompt' must hold strings, token ids or lists of token ids");
    return read_many(g, prompt, echo, e);
}
