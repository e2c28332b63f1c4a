/* generate_body.c - see generate_body.h. */
#include "server/generate_body.h"

#include <stdio.h>
#include <string.h>

#include "server/generate_image.h"
#include "server/holes.h"
#include "server/json_read.h"
#include "server/json_write.h"

static void write_choices(tt_json *w, const tt_hole_part *p)
{
    tt_json_open_member(w, "choices", '[');
    for (size_t from = 0, to; from <= p->bytes; from = to + 1) {
        for (to = from; to < p->bytes && p->text[to] != '|'; to++) {
        }
        tt_json_put_bytes(w, p->text + from, to - from);
    }
    tt_json_close(w, ']');
}

static void write_segments(tt_json *w, const char *text)
{
    tt_json_open_member(w, "segments", '[');
    for (tt_hole_part p; tt_holes_next(&text, &p);) {
        tt_json_open(w, '{');
        if (p.text && !p.choices) {
            tt_json_key(w, "text");
            tt_json_put_bytes(w, p.text, p.bytes);
        } else {
            tt_json_open_member(w, "hole", '{');
            if (p.choices)
                write_choices(w, &p);
            else
                tt_json_int_member(w, "max", p.tokens);
            if (p.min < p.tokens)
                tt_json_int_member(w, "min", p.min);
            tt_json_close(w, '}');
        }
        tt_json_close(w, '}');
    }
    tt_json_close(w, ']');
}

static void write_message(tt_json *w, const char *role, const char *text)
{
    if (!text)
        return;
    tt_json_open(w, '{');
    tt_json_text_member(w, "role", role);
    tt_json_text_member(w, "content", text);
    tt_json_close(w, '}');
}

static void write_text(tt_json *w, const tt_generate_args *a)
{
    if (a->infill) {
        write_segments(w, a->infill);
    } else if (a->chat) {
        tt_json_open_member(w, "messages", '[');
        write_message(w, "system", a->system);
        write_message(w, "user", a->prompt);
        tt_json_close(w, ']');
    } else {
        tt_json_text_member(w, "prompt", a->prompt ? a->prompt : "");
    }
}

static tt_status write_file(tt_json *w, const char *member, const char *path, tt_err *e)
{
    tt_buf text = {0};
    tt_status s = path ? tt_file_base64(path, &text, e) : TT_OK;
    if (path && !s)
        tt_json_text_member(w, member, tt_buf_text(&text));
    tt_buf_free(&text);
    return s;
}

/* "name=value" with the JSON type the parameter has; the interface checks the rest. */
static tt_status write_set(tt_json *w, const char *set, tt_err *e)
{
    const char *equals = strchr(set, '=');
    char name[64];
    if (!equals || equals == set || (size_t)(equals - set) >= sizeof name)
        return tt_fail(e, TT_EINVAL, "--set is '%.60s', must be NAME=VALUE", set);
    snprintf(name, sizeof name, "%.*s", (int)(equals - set), set);
    const tt_param *p = tt_param_find(name);
    if (!p)
        return tt_fail(e, TT_EINVAL, "there is no parameter '%s'; `tutti inspect --list` names all",
                       name);
    tt_params checked;
    tt_params_default(&checked);
    tt_status s = tt_params_set_text(&checked, p, equals + 1, e);
    if (s)
        return s;
    double v = tt_params_get(&checked, p);
    tt_json_key(w, name);
    if (p->type == TT_PARAM_BOOL)
        tt_json_put_bool(w, v != 0);
    else if (p->type == TT_PARAM_CHOICE)
        tt_json_put_text(w, p->choices[(int)v]);
    else {
        char number[40]; /* what strtod() takes is more than JSON has */
        snprintf(number, sizeof number, "%.17g", v);
        tt_json_put_raw(w, number);
    }
    return TT_OK;
}

/* A schema is put in as it is, once it is known to be JSON. */
static tt_status write_schema(tt_json *w, const char *schema, tt_err *e)
{
    cJSON *parsed;
    tt_status s = tt_json_parse(&parsed, schema, strlen(schema), e);
    if (s)
        return tt_context(e, s, "--json-schema");
    cJSON_Delete(parsed);
    tt_json_key(w, "json_schema");
    tt_json_put_raw(w, schema);
    return TT_OK;
}

static tt_status write_extension(tt_json *w, const tt_generate_args *a, const char *guide,
                                 tt_err *e)
{
    tt_json_open_member(w, "tutti", '{');
    if (a->sampler)
        tt_json_text_member(w, "sampler", a->sampler);
    if (guide)
        tt_json_text_member(w, "guide", guide);
    if (a->special)
        tt_json_bool_member(w, "special_tokens", true);
    if (a->show)
        tt_json_text_member(w, "stream_mode", "delta");
    if (a->regex)
        tt_json_text_member(w, "regex", a->regex);
    tt_status st = a->schema ? write_schema(w, a->schema, e) : TT_OK;
    if (st)
        return st;
    for (int i = 0; i < a->sets; i++) {
        tt_status s = write_set(w, a->set[i], e);
        if (s)
            return s;
    }
    tt_json_close(w, '}');
    return TT_OK;
}

tt_status tt_generate_body(tt_buf *out, const tt_generate_args *a, const char *model,
                           const char *guide, tt_err *e)
{
    tt_json w = {.out = out};
    tt_json_open(&w, '{');
    tt_json_text_member(&w, "model", model);
    write_text(&w, a);
    if (a->max_tokens > 0)
        tt_json_int_member(&w, "max_tokens", a->max_tokens);
    if (a->seed >= 0)
        tt_json_int_member(&w, "seed", a->seed);
    if (a->n > 0)
        tt_json_int_member(&w, "n", a->n);
    if (a->echo)
        tt_json_bool_member(&w, "echo", true);
    if (a->show) {
        tt_json_bool_member(&w, "stream", true);
        tt_json_key(&w, "stream_options");
        tt_json_put_raw(&w, "{\"include_usage\":true}");
    }
    if (a->stops) {
        tt_json_open_member(&w, "stop", '[');
        for (int i = 0; i < a->stops; i++)
            tt_json_put_text(&w, a->stop[i]);
        tt_json_close(&w, ']');
    }
    tt_status s = write_file(&w, "image", a->image, e);
    if (!s)
        s = write_file(&w, "mask", a->mask, e);
    if (!s)
        s = write_extension(&w, a, guide, e);
    tt_json_close(&w, '}');
    if (!s && out->failed)
        s = tt_fail(e, TT_ENOMEM, "no memory for the request");
    return s;
}
