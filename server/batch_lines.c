/* batch_lines.c - see batch_lines.h. */
#include "server/batch_lines.h"

#include <stdlib.h>
#include <string.h>

#include "server/json_write.h"

void tt_batch_line_free(tt_batch_line *l)
{
    free(l->custom_id);
    free(l->body);
    *l = (tt_batch_line){0};
}

/* --- requests --- */

static tt_status need_text(const cJSON *line, const char *key, const char **out, tt_err *e)
{
    const cJSON *node = tt_json_get(line, key);
    if (!node)
        return tt_fail_param(e, key, "missing_required_parameter", "'%s' is missing", key);
    return tt_json_text(node, key, out, e);
}

static tt_status find_route(const cJSON *line, const tt_route **out, tt_err *e)
{
    const char *method = "POST", *url, *tail;
    char allow[64];
    const cJSON *node = tt_json_get(line, "method");
    tt_status s = node ? tt_json_text(node, "method", &method, e) : TT_OK;
    if (!s)
        s = need_text(line, "url", &url, e);
    if (s)
        return s;
    *out = tt_route_find(method, url, &tail, allow);
    if (*out && !(*out)->answer)
        return TT_OK;
    return tt_fail_param(e, "url", "invalid_url",
                         "'%.20s %.60s' cannot be asked in a batch; endpoints that generate or "
                         "read can",
                         method, url);
}

static tt_status check_members(const cJSON *line, tt_err *e)
{
    static const char *const known[] = {"custom_id", "method", "url", "body", NULL};
    const cJSON *m;
    cJSON_ArrayForEach(m, line)
    {
        int i = 0;
        while (known[i] && strcmp(known[i], m->string))
            i++;
        if (!known[i])
            return tt_fail_param(e, m->string, "unknown_parameter", "unknown parameter '%.60s'",
                                 m->string);
    }
    return TT_OK;
}

static tt_status read_body(const cJSON *line, char **out, tt_err *e)
{
    const cJSON *body = tt_json_get(line, "body");
    if (!body)
        return tt_fail_param(e, "body", "missing_required_parameter", "'body' is missing");
    tt_status s = tt_json_is_object(body, "body", e);
    if (s)
        return s;
    if (cJSON_IsTrue(tt_json_get(body, "stream")))
        return tt_fail_param(e, "body.stream", "unsupported_parameter",
                             "'body.stream' is true, but a batch has no streams");
    *out = cJSON_PrintUnformatted(body);
    return *out ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for the request");
}

static tt_status read_line(tt_batch_line *out, const cJSON *line, tt_err *e)
{
    const char *id;
    tt_status s = tt_json_is_object(line, "line", e);
    if (!s)
        s = need_text(line, "custom_id", &id, e);
    if (s)
        return s;
    out->custom_id = strdup(id);
    if (!out->custom_id)
        return tt_fail(e, TT_ENOMEM, "no memory for the request");
    s = check_members(line, e);
    if (!s)
        s = find_route(line, &out->route, e);
    return s ? s : read_body(line, &out->body, e);
}

tt_status tt_batch_line_read(tt_batch_line *out, int64_t number, const char *text, size_t bytes,
                             tt_err *e)
{
    *out = (tt_batch_line){.number = number};
    if (bytes > TT_BATCH_LINE_MAX)
        return tt_fail_param(e, "", "request_too_large", "the line has %zu bytes, at most %d",
                             bytes, TT_BATCH_LINE_MAX);
    cJSON *line = NULL;
    tt_status s = tt_json_parse(&line, text, bytes, e);
    if (!s)
        s = read_line(out, line, e);
    cJSON_Delete(line);
    return s;
}

/* --- answers --- */

static void open_answer(tt_json *w, const tt_batch_line *l)
{
    char id[40];
    snprintf(id, sizeof id, "batch_req_%lld", (long long)l->number);
    tt_json_open(w, '{');
    tt_json_text_member(w, "id", id);
    tt_json_text_member(w, "custom_id", l->custom_id);
}

static void close_answer(tt_json *w)
{
    tt_json_close(w, '}');
    tt_buf_putc(w->out, '\n');
}

void tt_batch_write_reply(tt_buf *out, const tt_batch_line *l, const tt_reply *r)
{
    tt_json w = {.out = out};
    char id[40];
    snprintf(id, sizeof id, "req_%lld", (long long)l->number);
    open_answer(&w, l);
    tt_json_open_member(&w, "response", '{');
    tt_json_int_member(&w, "status_code", r->status);
    tt_json_text_member(&w, "request_id", id);
    tt_json_key(&w, "body");
    tt_json_put_raw(&w, tt_buf_text(&r->body));
    tt_json_close(&w, '}');
    tt_json_null_member(&w, "error");
    close_answer(&w);
}

void tt_batch_write_error(tt_buf *out, const tt_batch_line *l, const tt_err *e)
{
    tt_json w = {.out = out};
    open_answer(&w, l);
    tt_json_null_member(&w, "response");
    tt_json_open_member(&w, "error", '{');
    tt_json_text_member(&w, "code", e->code[0] ? e->code : "invalid_request");
    tt_json_text_member(&w, "message", e->text);
    tt_json_text_member(&w, "param", e->param[0] ? e->param : NULL);
    tt_json_int_member(&w, "line", l->number);
    tt_json_close(&w, '}');
    close_answer(&w);
}

/* --- resuming --- */

/* The custom id of a good answer; NULL for a bad one or one that cannot be read. */
static const char *answered(const cJSON *line)
{
    const cJSON *status = tt_json_get(tt_json_get(line, "response"), "status_code");
    const cJSON *id = tt_json_get(line, "custom_id");
    bool good = cJSON_IsNumber(status) && status->valueint == 200 && cJSON_IsString(id);
    return good ? id->valuestring : NULL;
}

tt_status tt_batch_read_done(FILE *f, tt_map *done, long *end, int64_t *answers, tt_err *e)
{
    char *text = NULL;
    size_t capacity = 0;
    tt_status s = TT_OK;
    *end = 0;
    *answers = 0;
    for (ssize_t n; !s && (n = getline(&text, &capacity, f)) > 0;) {
        if (text[n - 1] != '\n')
            break; /* cut off in the middle: this one is asked again */
        *end += n;
        cJSON *line = NULL;
        if (tt_json_parse(&line, text, (size_t)n, NULL))
            continue;
        const char *id = answered(line);
        if (id) {
            s = tt_map_put(done, id, strlen(id), 1, NULL, e);
            (*answers)++;
        }
        cJSON_Delete(line);
    }
    free(text);
    if (!s && ferror(f))
        s = tt_fail(e, TT_EIO, "reading the earlier output failed");
    return s;
}
