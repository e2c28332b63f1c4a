/* Any bytes as the body of a request: the first byte chooses the endpoint, the rest goes through
 * reading, checking and tokenizing, up to where the engine would take it. */
#include <stddef.h>
#include <stdint.h>

#include "server/api/gen.h"
#include "server/json_read.h"
#include "tests/server/fake_engine.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static tt_api api = {.version = "fuzz", .max_samples = 32, .state = TT_API_READY};

static void set_up(void)
{
    tt_err e;
    if (tt_metrics_open(&api.metrics, true, &e) || tt_engine_open(&api.engine, NULL, &e) ||
        tt_engine_add_model(api.engine, "m", "x", TT_WEIGHTS_AUTO, NULL, NULL, &e) ||
        tt_engine_add_model(api.engine, "no-tok", "x", TT_WEIGHTS_AUTO, NULL, NULL, &e))
        __builtin_trap();
}

/* What a refusal says must itself be valid JSON that names status and code. */
static void check_refusal(const tt_err *e)
{
    tt_reply r = {0};
    cJSON *tree;
    tt_reply_error(&r, e);
    if (r.status < 400 || tt_json_parse(&tree, tt_buf_text(&r.body), r.body.size, NULL))
        __builtin_trap();
    cJSON_Delete(tree);
    tt_buf_free(&r.body);
}

static void answer(const tt_route *route, const char *body, size_t n)
{
    tt_call call = {.api = &api, .route = route, .tail = "", .body = body, .body_bytes = n};
    tt_reply r = {0};
    cJSON *tree;
    route->answer(&call, &r);
    if (!r.status || tt_json_parse(&tree, tt_buf_text(&r.body), r.body.size, NULL))
        __builtin_trap();
    cJSON_Delete(tree);
    tt_buf_free(&r.body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!api.engine)
        set_up();
    if (size < 1)
        return 0;
    const tt_route *route = tt_routes();
    const char *body = (const char *)data + 1;
    for (int skip = data[0] % 7; skip || !route->fields; route++)
        skip -= route->fields != 0;
    if (route->answer) {
        answer(route, body, size - 1);
        return 0;
    }
    tt_gen *g;
    tt_err e = {0};
    if (tt_gen_read(&g, &api, route->endpoint, body, size - 1, 0, &e))
        check_refusal(&e);
    tt_gen_free(g);
    return 0;
}
