/* error.c - one place that turns a tt_err into HTTP status, type and code. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "server/api/api.h"
#include "server/json_write.h"

/* Codes that decide the status by themselves; all others follow from tt_status. */
static const struct {
    const char *code;
    int status;
    const char *type;
    bool no_retry;
} codes[] = {
    {"model_not_found", 404, "invalid_request_error", false},
    {"not_found", 404, "invalid_request_error", false},
    {"model_loading", 503, "server_error", false},
    {"draining", 503, "server_error", false},
    {"shutting_down", 503, "server_error", false},
    {"deadline_exceeded", 504, "timeout", true},
    {"verifier_failed", 502, "server_error", false},
};

static const struct {
    int status;
    const char *type, *code;
    bool no_retry;
} statuses[] = {
    [TT_OK] = {500, "server_error", "internal_error", true},
    [TT_EINVAL] = {400, "invalid_request_error", "invalid_value", false},
    [TT_ENOMEM] = {503, "server_error", "overloaded", false},
    [TT_EIO] = {500, "server_error", "internal_error", true},
    [TT_EFORMAT] = {500, "server_error", "internal_error", true},
    [TT_ENODEV] = {500, "server_error", "internal_error", true},
    [TT_EUNSUP] = {400, "invalid_request_error", "unsupported_parameter", false},
    [TT_ECANCEL] = {503, "server_error", "cancelled", false},
    [TT_EBUSY] = {429, "rate_limit_error", "queue_full", false},
};

typedef struct {
    int status;
    const char *type, *code;
    bool no_retry;
} verdict;

static verdict judge(const tt_err *e)
{
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (!strcmp(codes[i].code, e->code))
            return (verdict){codes[i].status, codes[i].type, codes[i].code, codes[i].no_retry};
    size_t known = sizeof statuses / sizeof *statuses;
    size_t s = (size_t)e->status < known ? (size_t)e->status : TT_OK;
    return (verdict){statuses[s].status, statuses[s].type, *e->code ? e->code : statuses[s].code,
                     statuses[s].no_retry};
}

int tt_error_status(const tt_err *e) { return judge(e).status; }

static void put_error(tt_buf *out, const char *message, const char *type, const char *code,
                      const char *param)
{
    tt_json w = {.out = out};
    tt_json_open(&w, '{');
    tt_json_open_member(&w, "error", '{');
    tt_json_text_member(&w, "message", message);
    tt_json_text_member(&w, "type", type);
    tt_json_text_member(&w, "param", param && *param ? param : NULL);
    tt_json_text_member(&w, "code", code);
    tt_json_close(&w, '}');
    tt_json_close(&w, '}');
}

void tt_error_json(tt_buf *out, const tt_err *e)
{
    verdict v = judge(e);
    put_error(out, *e->text ? e->text : tt_status_text(e->status), v.type, v.code, e->param);
}

void tt_reply_error(tt_reply *r, const tt_err *e)
{
    verdict v = judge(e);
    tt_buf_clear(&r->body);
    tt_error_json(&r->body, e);
    r->type = NULL;
    r->status = v.status;
    r->no_retry = v.no_retry;
    if (v.status == 503 && r->retry_after_ms <= 0)
        r->retry_after_ms = 1000;
}

void tt_reply_fail(tt_reply *r, int status, const char *type, const char *code, const char *param,
                   const char *fmt, ...)
{
    char text[300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    tt_buf_clear(&r->body);
    put_error(&r->body, text, type, code, param);
    r->type = NULL;
    r->status = status;
}
