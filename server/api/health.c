/* health.c - is it alive, is it ready, what is it, how is it doing. */
#include "server/api/api.h"
#include "server/json_write.h"

static void put_status(tt_reply *r, const char *status)
{
    tt_json w = {.out = &r->body};
    tt_json_open(&w, '{');
    tt_json_text_member(&w, "status", status);
    tt_json_close(&w, '}');
    r->status = 200;
}

void tt_api_live(const tt_call *c, tt_reply *r)
{
    (void)c;
    put_status(r, "ok");
}

/* 503 while models load and while the server drains: balancers then send requests elsewhere. */
void tt_api_ready(const tt_call *c, tt_reply *r)
{
    switch (atomic_load(&c->api->state)) {
    case TT_API_READY:
        if (!tt_engine_models(c->api->engine))
            tt_reply_fail(r, 503, "server_error", "no_model", NULL, "no model could be loaded: %s",
                          c->api->load_error);
        else
            put_status(r, "ok");
        return;
    case TT_API_LOADING:
        tt_reply_fail(r, 503, "server_error", "model_loading", NULL,
                      "the models are still being loaded");
        r->retry_after_ms = 1000;
        return;
    case TT_API_DRAINING:
        tt_reply_fail(r, 503, "server_error", "draining", NULL, "the server is shutting down");
        r->retry_after_ms = 5000;
        return;
    }
}

void tt_api_health(const tt_call *c, tt_reply *r) { tt_api_ready(c, r); }

void tt_api_version(const tt_call *c, tt_reply *r)
{
    char device[256] = "";
    tt_engine_describe(c->api->engine, device, sizeof device);
    tt_json w = {.out = &r->body};
    tt_json_open(&w, '{');
    tt_json_text_member(&w, "name", "tutti");
    tt_json_text_member(&w, "version", c->api->version);
    tt_json_text_member(&w, "device", device);
    tt_json_close(&w, '}');
    r->status = 200;
}

void tt_api_metrics(const tt_call *c, tt_reply *r)
{
    tt_metrics_write(c->api->metrics, c->api->engine, c->api->version, &r->body);
    r->type = "text/plain; version=0.0.4; charset=utf-8";
    r->status = 200;
}
