/* infill.c - POST /v1/infill: a text with holes anywhere, filled in one request. The mask token
 * written out in a text is a hole, too: "53..7...." of a model whose mask is a dot. */
#include <stdio.h>
#include <string.h>

#include "server/api/gen_parts.h"

static tt_status refuse(const char *path, const char *why, tt_err *e)
{
    return tt_fail_param(e, path, "unsupported_parameter", "'%s' %s", path, why);
}

/* The hole's length. "tokens" is another name of "max"; "min" is good only when it says the same,
 * because a hole's length is fixed before it is filled. */
static tt_status read_length(const cJSON *hole, const char *path, int64_t *tokens, tt_err *e)
{
    static const char *const names[] = {"max", "tokens", "min"};
    bool given = false;
    for (int i = 0; i < 3; i++) {
        const cJSON *node = tt_json_get(hole, names[i]);
        tt_json_path at = tt_json_member(path, names[i]);
        int64_t v;
        tt_status s = node ? tt_json_int(node, at.text, 1, INT32_MAX, &v, e) : TT_OK;
        if (s)
            return s;
        if (!node)
            continue;
        if (i == 2 && (!given || v != *tokens))
            return refuse(at.text, "must equal 'max': the length of a hole is fixed", e);
        if (i == 1 && given && v != *tokens)
            return tt_fail_param(e, at.text, "invalid_value",
                                 "'%s' and 'max' mean the same and have different values",
                                 at.text);
        *tokens = v;
        given = true;
    }
    tt_json_path at = tt_json_member(path, "max");
    return given ? TT_OK
                 : tt_fail_param(e, at.text, "missing_required_parameter", "'%s' is missing",
                                 at.text);
}

static tt_status check_hole(const cJSON *hole, const char *path, tt_err *e)
{
    static const char *const read[] = {"id", "max", "tokens", "min", NULL};
    static const char *const later[] = {"choices", "regex", "json_schema", NULL};
    tt_status s = tt_json_is_object(hole, path, e);
    const cJSON *m;
    cJSON_ArrayForEach(m, hole)
    {
        int i = 0, k = 0;
        tt_json_path at = tt_json_member(path, m->string);
        while (read[i] && strcmp(read[i], m->string))
            i++;
        while (later[k] && strcmp(later[k], m->string))
            k++;
        if (!s && later[k] && !cJSON_IsNull(m))
            s = refuse(at.text, "is not supported by this server", e);
        if (!s && !read[i] && !later[k])
            s = tt_fail_param(e, at.text, "unknown_parameter", "unknown parameter '%s'", at.text);
    }
    return s;
}

/* Names must differ: they are keys of the answer. id NULL: the hole's number. */
static tt_status name_hole(tt_gen *g, const tt_canvas *c, const char *id, const char *path,
                           const char **out, tt_err *e)
{
    char number[16];
    snprintf(number, sizeof number, "%d", c->holes);
    id = id ? id : number;
    for (int i = 0; i < c->parts; i++)
        if (c->part[i].hole && !strcmp(c->part[i].id, id))
            return tt_fail_param(e, path, "invalid_value", "two holes are called '%.40s'", id);
    *out = tt_gen_keep(g, id, strlen(id));
    return *out ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for the request");
}

static tt_status read_id(tt_gen *g, const tt_canvas *c, const cJSON *hole, const char *path,
                         const char **out, tt_err *e)
{
    const char *id = NULL;
    const cJSON *node = tt_json_get(hole, "id");
    tt_json_path at = tt_json_member(path, "id");
    tt_status s = node ? tt_json_text(node, at.text, &id, e) : TT_OK;
    return s ? s : name_hole(g, c, id, at.text, out, e);
}

static tt_status read_hole(tt_gen *g, tt_canvas *c, const cJSON *hole, const char *path, tt_err *e)
{
    int64_t tokens = 0;
    const char *id = NULL;
    tt_status s = check_hole(hole, path, e);
    if (!s)
        s = read_length(hole, path, &tokens, e);
    if (!s)
        s = read_id(g, c, hole, path, &id, e);
    return s ? s
             : tt_canvas_add_hole(g, c, tokens, id, tt_json_member(path, "max").text, e);
}

static tt_status add_literal(tt_gen *g, tt_canvas *c, const char *text, size_t n, const char *path,
                             tt_err *e)
{
    char *kept = tt_gen_keep(g, text, n);
    tt_status s = kept ? tt_canvas_add_literal(c, kept, n, e)
                       : tt_fail(e, TT_ENOMEM, "no memory for the request");
    unsigned flags = c->ids.count ? 0 : TT_TOK_ADD_SPECIAL;
    return s ? s : tt_canvas_add_text(g, c, kept, flags, path, e);
}

/* How the mask token is written in texts; 0 bytes when it cannot be. */
static size_t written_mask(const tt_gen *g, const char **out)
{
    const tt_tok *tok = g->model->tok;
    int32_t id = g->model->info.mask_id;
    size_t n = 0;
    bool read = tok && id >= 0 && (g->special_tokens || !tt_tok_is_special(tok, id));
    *out = read ? tt_tok_piece(tok, id, &n) : NULL;
    return n;
}

/* Masks in a row are one hole. */
static tt_status read_text(tt_gen *g, tt_canvas *c, const cJSON *node, const char *path, tt_err *e)
{
    const char *text, *mask, *id, *at;
    size_t bytes = written_mask(g, &mask);
    tt_status s = tt_json_text(node, path, &text, e);
    while (!s && bytes && (at = memmem(text, strlen(text), mask, bytes))) {
        if (at > text)
            s = add_literal(g, c, text, (size_t)(at - text), path, e);
        int64_t masks = 0;
        for (text = at; !strncmp(text, mask, bytes); text += bytes)
            masks++;
        if (!s)
            s = name_hole(g, c, NULL, path, &id, e);
        if (!s)
            s = tt_canvas_add_hole(g, c, masks, id, path, e);
    }
    return s ? s : add_literal(g, c, text, strlen(text), path, e);
}

static tt_status read_segment(tt_gen *g, tt_canvas *c, const cJSON *m, const char *path, tt_err *e)
{
    tt_status s = tt_json_is_object(m, path, e);
    const cJSON *text = tt_json_get(m, "text"), *hole = tt_json_get(m, "hole"), *k;
    if (s)
        return s;
    cJSON_ArrayForEach(k, m)
    {
        if (strcmp(k->string, "text") && strcmp(k->string, "hole"))
            return tt_fail_param(e, tt_json_member(path, k->string).text, "unknown_parameter",
                                 "unknown parameter '%s.%.30s'", path, k->string);
    }
    if (!text == !hole)
        return tt_fail_param(e, path, "invalid_value", "'%s' must have either 'text' or 'hole'",
                             path);
    return text ? read_text(g, c, text, tt_json_member(path, "text").text, e)
                : read_hole(g, c, hole, tt_json_member(path, "hole").text, e);
}

static tt_status read_infill(tt_gen *g, const cJSON *body, tt_err *e)
{
    const cJSON *m, *segments = tt_json_get(body, "segments");
    if (!segments || !segments->child)
        return tt_fail_param(e, "segments", "missing_required_parameter", "'segments' is %s",
                             segments ? "empty" : "missing");
    tt_canvas *c = tt_gen_add_canvas(g, e);
    if (!c)
        return e->status;
    g->ban_stops = true;
    int i = 0;
    cJSON_ArrayForEach(m, segments)
    {
        tt_status s = read_segment(g, c, m, tt_json_element("segments", i++).text, e);
        if (s)
            return s;
    }
    return c->holes ? TT_OK
                    : tt_fail_param(e, "segments", "invalid_value", "'segments' has no hole");
}

/* --- writing --- */

static void write_hole(const tt_choice *c, const tt_part *p, const tt_text_out *o, tt_json *w)
{
    double sum = 0;
    for (int32_t i = p->begin; i < p->begin + o->tokens; i++)
        sum += (double)c->view.logprob[i];
    tt_json_open_member(w, p->id, '{');
    tt_json_key(w, "text");
    tt_json_put_bytes(w, tt_buf_text(&o->text), o->ready);
    tt_json_float_member(w, "logprob", sum);
    tt_json_int_member(w, "tokens", o->tokens);
    tt_json_close(w, '}');
}

static void write_holes(const tt_choice *c, tt_json *w)
{
    int k = 0;
    tt_json_open_member(w, "holes", '{');
    for (int i = 0; i < c->canvas->parts; i++)
        if (c->canvas->part[i].hole)
            write_hole(c, &c->canvas->part[i], &c->out[k++], w);
    tt_json_close(w, '}');
}

static void infill_choice(const tt_gen *g, const tt_choice *c, tt_json *w)
{
    (void)g;
    tt_buf text = {0};
    tt_choice_text(c, &text);
    tt_json_key(w, "text");
    tt_json_put_bytes(w, tt_buf_text(&text), text.size);
    tt_buf_free(&text);
    write_holes(c, w);
}

static void infill_delta(const tt_gen *g, const tt_choice *c, const tt_piece *p, tt_json *w)
{
    (void)g;
    tt_json_key(w, "text");
    tt_json_put_bytes(w, p->text, p->bytes);
    if (p->last)
        write_holes(c, w);
}

const tt_endpoint tt_endpoint_infill = {
    .on = TT_ON_INFILL,
    .id_prefix = "infill-",
    .object = "infill",
    .chunk_object = "infill.chunk",
    .read = read_infill,
    .choice = infill_choice,
    .delta = infill_delta,
};
