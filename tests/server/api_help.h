/* api_help.h - the API over the fake engine, without a network: see api_ask.h. Includes the fake
 * engine itself; one test program includes this once. */
#ifndef TT_API_HELP_H
#define TT_API_HELP_H

#include "tests/server/api_ask.h"
#include "tests/server/fake_engine.c"

static inline int open_api(void **state)
{
    (void)state;
    tt_err e = {0};
    api = (tt_api){.version = "test", .max_samples = 16};
    if (tt_metrics_open(&api.metrics, true, &e) || tt_engine_open(&api.engine, NULL, &e))
        return -1;
    static const char *const ids[] = {"org/fake", "no-chat", "no-tok"};
    for (int i = 0; i < 3; i++)
        if (tt_engine_add_model(api.engine, ids[i], "x", TT_WEIGHTS_AUTO, NULL, NULL, &e)) {
            print_error("%s\n", e.text);
            return -1;
        }
    api.state = TT_API_READY;
    return 0;
}

static inline int close_api(void **state)
{
    (void)state;
    int live = tt_fake_engine.live;
    tt_engine_close(api.engine);
    tt_metrics_close(api.metrics);
    if (live)
        print_error("%d jobs were not released\n", live);
    return live ? -1 : 0;
}

/* Before each test: a script of ten letters, left to right, fast. */
static inline int fresh(void **state)
{
    (void)state;
    tt_fake *f = &tt_fake_engine;
    f->script = "abcdefghij";
    f->step_us = 20;
    f->backwards = f->paused = f->fail = false;
    f->busy = 0;
    return 0;
}

#endif
