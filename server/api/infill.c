/* infill.c - POST /v1/infill: a text with holes anywhere, filled in one request. The mask token
 * written out in a text is a hole, too: "53..7...." of a model whose mask is a dot. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/api/constrain.h"
#include "server/api/fit.h"

static tt_status no_memory(tt_err *e) { return tt_fail(e, TT_ENOMEM, "no memory for the request"); }

static tt_status invalid(const char *path, const char *why, tt_err *e)
{
    return tt_fail_param(e, path, "invalid_value", "'%s' %s", path, why);
}

static tt_status read_count(const cJSON *hole, const char *path, const char *name, int64_t least,
                            int64_t *out, tt_err *e)
{
    const cJSON *node = tt_json_get(hole, name);
    tt_json_path at = tt_json_member(path, name);
    return node ? tt_json_int(node, at.text, least, INT32_MAX, out, e) : TT_OK;
}

/* The hole's length, from min to max; without min it is max. "tokens" is another name of max, but
 * of holes that grow both. Those may also stay empty. */
static tt_status read_length(const cJSON *hole, const char *path, bool grows, tt_slot *slot,
                             tt_err *e)
{
    int64_t max = 0, tokens = 0, min = 0;
    tt_status s = read_count(hole, path, "max", 1, &max, e);
    if (!s)
        s = read_count(hole, path, "tokens", 1, &tokens, e);
    if (!s)
        s = read_count(hole, path, "min", grows ? 0 : 1, &min, e);
    if (s)
        return s;
    if (max && tokens && max != tokens)
        return invalid(tt_json_member(path, "tokens").text,
                       "and 'max' mean the same and have different values", e);
    slot->max = max ? max : tokens;
    slot->min = min || (grows && (!tokens || tt_json_get(hole, "min"))) ? min : slot->max;
    tt_json_path at = tt_json_member(path, "max"), low = tt_json_member(path, "min");
    if (!slot->max)
        return tt_fail_param(e, at.text, "missing_required_parameter", "'%s' is missing", at.text);
    if (slot->min > slot->max)
        return invalid(low.text, "is above 'max'", e);
    if (!grows && slot->max - slot->min >= TT_FIT_CANDIDATES)
        return tt_fail_param(e, low.text, "invalid_value",
                             "'%s' to 'max' are %lld lengths, at most %d can be tried", low.text,
                             (long long)(slot->max - slot->min + 1), TT_FIT_CANDIDATES);
    return TT_OK;
}

static tt_status read_choice(tt_gen *g, tt_slot *slot, const char **kept, const cJSON *m,
                             const char *path, tt_err *e)
{
    const char *text;
    tt_status s = tt_json_text(m, path, &text, e);
    if (s)
        return s;
    *kept = tt_gen_keep(g, text, strlen(text));
    if (!*kept)
        return no_memory(e);
    tt_ids *ids = &slot->choice_ids[slot->choices++];
    s = tt_tok_encode(g->model->tok, text, strlen(text),
                      g->special_tokens ? TT_TOK_PARSE_SPECIAL : 0, ids, e);
    if (!s && !ids->count)
        s = invalid(path, "is empty", e);
    return s;
}

static tt_status read_choices(tt_gen *g, const cJSON *list, const char *path, tt_slot *slot,
                              tt_err *e)
{
    const cJSON *m;
    tt_status s = tt_json_is_array(list, path, e);
    int n = s ? 0 : cJSON_GetArraySize(list), i = 0;
    if (s)
        return s;
    if (!n || n > TT_FIT_CANDIDATES)
        return tt_fail_param(e, path, "invalid_value", "'%s' has %d texts, must have 1 to %d", path,
                             n, TT_FIT_CANDIDATES);
    if (g->sampler->inserts)
        return tt_fail_param(e, path, "unsupported_parameter",
                             "'%s' needs a masked model, which '%s' is not", path, g->model->id);
    if (!g->model->tok)
        return tt_fail_param(e, path, "unsupported_value", "model '%s' has no tokenizer",
                             g->model->id);
    const char **choice = calloc((size_t)n, sizeof *choice);
    slot->choice_ids = calloc((size_t)n, sizeof *slot->choice_ids);
    slot->choice = choice;
    if (!choice || !slot->choice_ids)
        return no_memory(e);
    cJSON_ArrayForEach(m, list)
    {
        if (!s)
            s = read_choice(g, slot, &choice[i], m, tt_json_element(path, i).text, e);
        i++;
    }
    return s;
}

static tt_status check_hole(const cJSON *hole, const char *path, tt_err *e)
{
    static const char *const read[] = {"id",  "choices",    "max",   "tokens",      "min",  "force",
                                       "ban", "allow", "prediction", "regex", "json_schema", NULL};
    bool choices = tt_json_get(hole, "choices");
    tt_status s = tt_json_is_object(hole, path, e);
    const cJSON *m;
    cJSON_ArrayForEach(m, hole)
    {
        int i = 0;
        tt_json_path at = tt_json_member(path, m->string);
        while (read[i] && strcmp(read[i], m->string))
            i++;
        if (!s && !read[i])
            s = tt_fail_param(e, at.text, "unknown_parameter", "unknown parameter '%s'", at.text);
        if (!s && choices && i > 1 && !cJSON_IsNull(m))
            s = invalid(at.text, "and 'choices' exclude each other", e);
    }
    return s;
}

/* Names must differ: they are keys of the answer. id NULL: the hole's number. */
static tt_status name_hole(tt_gen *g, const char *id, int number, const char *path,
                           const char **out, tt_err *e)
{
    char digits[16];
    snprintf(digits, sizeof digits, "%d", number);
    id = id ? id : digits;
    if (tt_fit_hole(g, id))
        return tt_fail_param(e, path, "invalid_value", "two holes are called '%.40s'", id);
    *out = tt_gen_keep(g, id, strlen(id));
    return *out ? TT_OK : no_memory(e);
}

static tt_status read_id(tt_gen *g, const cJSON *hole, const char *path, int number,
                         const char **out, tt_err *e)
{
    const char *id = NULL;
    const cJSON *node = tt_json_get(hole, "id");
    tt_json_path at = tt_json_member(path, "id");
    tt_status s = node ? tt_json_text(node, at.text, &id, e) : TT_OK;
    return s ? s : name_hole(g, id, number, at.text, out, e);
}

static tt_status read_prediction(tt_gen *g, const cJSON *hole, const char *path, tt_slot *slot,
                                 tt_err *e)
{
    const cJSON *node = tt_json_get(hole, "prediction");
    tt_json_path at = tt_json_member(path, "prediction");
    const char *text = NULL;
    tt_status s = node ? tt_json_text(node, at.text, &text, e) : TT_OK;
    if (s || !text)
        return s;
    if (!g->model->tok)
        return tt_fail_param(e, at.text, "unsupported_value", "model '%s' has no tokenizer",
                             g->model->id);
    s = tt_tok_encode(g->model->tok, text, strlen(text), 0, &slot->predicted, e);
    g->predicted += (int32_t)slot->predicted.count;
    return s;
}

static tt_status read_hole(tt_gen *g, const cJSON *hole, const char *path, int number, tt_err *e)
{
    const char *id = NULL;
    tt_status s = check_hole(hole, path, e);
    if (!s)
        s = read_id(g, hole, path, number, &id, e);
    tt_slot *slot = s ? NULL : tt_fit_add(g, e);
    if (!slot)
        return s ? s : TT_ENOMEM;
    slot->hole = true;
    slot->id = id;
    const cJSON *choices = tt_json_get(hole, "choices");
    tt_json_path at = tt_json_member(path, "choices");
    if (choices) {
        s = read_choices(g, choices, at.text, slot, e);
        return s ? s : tt_fit_check(g, at.text, e);
    }
    s = read_length(hole, path, g->sampler->inserts, slot, e);
    if (!s)
        s = tt_fit_check(g, tt_json_member(path, "max").text, e);
    if (!s)
        s = read_prediction(g, hole, path, slot, e);
    if (!s)
        s = tt_hole_read_format(g, hole, path, &slot->form, &slot->form_path, e);
    return s ? s : tt_positions_read(g, hole, path, slot->max, &slot->positions, e);
}

static tt_status add_literal(tt_gen *g, const char *text, size_t n, const char *path, bool first,
                             tt_err *e)
{
    tt_slot *slot = tt_fit_add(g, e);
    if (!slot)
        return TT_ENOMEM;
    slot->text = tt_gen_keep(g, text, n);
    if (!slot->text)
        return no_memory(e);
    if (!g->model->tok)
        return tt_fail_param(e, path, "unsupported_value",
                             "model '%s' has no tokenizer; send token ids", g->model->id);
    unsigned flags = (first ? TT_TOK_ADD_SPECIAL : 0) |
                     (g->special_tokens ? TT_TOK_PARSE_SPECIAL : 0);
    tt_status s = tt_tok_encode(g->model->tok, slot->text, n, flags, &slot->ids, e);
    return s ? s : tt_fit_check(g, path, e);
}

static tt_status add_masks(tt_gen *g, int64_t masks, const char *path, int number, tt_err *e)
{
    const char *id;
    tt_status s = name_hole(g, NULL, number, path, &id, e);
    tt_slot *slot = s ? NULL : tt_fit_add(g, e);
    if (!slot)
        return s ? s : TT_ENOMEM;
    *slot = (tt_slot){.hole = true, .id = id, .min = masks, .max = masks};
    return tt_fit_check(g, path, e);
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
static tt_status read_text(tt_gen *g, const cJSON *node, const char *path, bool first, int *holes,
                           tt_err *e)
{
    const char *text, *mask, *at;
    size_t bytes = written_mask(g, &mask);
    tt_status s = tt_json_text(node, path, &text, e);
    while (!s && bytes && (at = memmem(text, strlen(text), mask, bytes))) {
        if (at > text)
            s = add_literal(g, text, (size_t)(at - text), path, first, e);
        first = false;
        int64_t masks = 0;
        for (text = at; !strncmp(text, mask, bytes); text += bytes)
            masks++;
        if (!s)
            s = add_masks(g, masks, path, (*holes)++, e);
    }
    return s ? s : add_literal(g, text, strlen(text), path, first, e);
}

static tt_status read_segment(tt_gen *g, const cJSON *m, const char *path, bool first, int *holes,
                              tt_err *e)
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
    return text ? read_text(g, text, tt_json_member(path, "text").text, first, holes, e)
                : read_hole(g, hole, tt_json_member(path, "hole").text, (*holes)++, e);
}

static tt_status read_infill(tt_gen *g, const cJSON *body, tt_err *e)
{
    const cJSON *m, *segments = tt_json_get(body, "segments");
    if (!segments || !segments->child)
        return tt_fail_param(e, "segments", "missing_required_parameter", "'segments' is %s",
                             segments ? "empty" : "missing");
    tt_status s = tt_fit_open(g, e);
    int i = 0, holes = 0;
    cJSON_ArrayForEach(m, segments)
    {
        if (!s)
            s = read_segment(g, m, tt_json_element("segments", i).text, !i, &holes, e);
        i++;
    }
    if (!s && !holes)
        s = invalid("segments", "has no hole", e);
    return s ? s : tt_fit_close(g, e);
}

/* --- writing --- */

static void write_filled(const tt_choice *c, const tt_part *p, const tt_text_out *o, tt_json *w)
{
    double sum = 0;
    for (int32_t i = p->begin; i < p->begin + o->tokens; i++)
        sum += (double)c->view.logprob[i];
    tt_json_key(w, "text");
    tt_json_put_bytes(w, tt_buf_text(&o->text), o->ready);
    tt_json_float_member(w, "logprob", sum);
    tt_json_int_member(w, "tokens", o->tokens);
}

static void write_chosen(const tt_slot *s, tt_json *w)
{
    tt_json_text_member(w, "text", s->text);
    tt_json_float_member(w, "logprob", s->score[s->best]);
    tt_json_int_member(w, "tokens", (int64_t)s->ids.count);
}

static void write_holes(const tt_gen *g, const tt_choice *c, tt_json *w)
{
    int k = 0;
    tt_json_open_member(w, "holes", '{');
    for (int i = 0; i < c->canvas->parts; i++) {
        const tt_part *p = &c->canvas->part[i];
        if (!p->id)
            continue;
        const tt_slot *s = tt_fit_hole(g, p->id);
        tt_json_open_member(w, p->id, '{');
        if (p->hole)
            write_filled(c, p, &c->out[k++], w);
        else
            write_chosen(s, w);
        tt_fit_write(s, w);
        tt_json_close(w, '}');
    }
    tt_json_close(w, '}');
}

static void infill_choice(const tt_gen *g, const tt_choice *c, tt_json *w)
{
    tt_buf text = {0};
    tt_choice_text(c, &text);
    tt_json_key(w, "text");
    tt_json_put_bytes(w, tt_buf_text(&text), text.size);
    tt_buf_free(&text);
    write_holes(g, c, w);
}

static void infill_delta(const tt_gen *g, const tt_choice *c, const tt_piece *p, tt_json *w)
{
    tt_json_key(w, "text");
    tt_json_put_bytes(w, p->text, p->bytes);
    if (p->last)
        write_holes(g, c, w);
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
