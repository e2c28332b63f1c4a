/* api_ask.h - the API over an engine, without a network: send a body, get the parsed answer or the
 * frames. */
#ifndef TT_API_ASK_H
#define TT_API_ASK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "kernels/base/clock.h"
#include "server/api/fields.h"
#include "server/api/gen.h"
#include "server/json_read.h"

static tt_api api;

static inline void nap_ms(int ms) { nanosleep(&(struct timespec){.tv_nsec = ms * 1000000L}, NULL); }

static inline const tt_route *route_of(const char *method, const char *path, const char **tail)
{
    char allow[64];
    const tt_route *r = tt_route_find(method, path, tail, allow);
    if (!r)
        fail_msg("no route %s %s", method, path);
    return r;
}

/* A complete generation that does not stream. */
static inline void generate(const tt_route *route, const char *body, tt_reply *r)
{
    tt_err e = {0};
    tt_gen *g;
    tt_status s = tt_gen_read(&g, &api, route->endpoint, body, strlen(body), tt_now_ns(), &e);
    if (!s) {
        s = tt_gen_submit(g, NULL, NULL, &r->retry_after_ms, &e);
        if (s)
            tt_gen_free(g);
    }
    if (s) {
        tt_reply_error(r, &e);
        return;
    }
    while (!tt_gen_poll(g))
        nap_ms(1);
    tt_gen_answer(g, r);
    tt_gen_free(g);
}

/* Sends the request; the caller frees the tree. *status may be NULL. */
static inline cJSON *ask(const char *method, const char *path, const char *body, int *status)
{
    const char *tail;
    tt_reply r = {0};
    tt_err e = {0};
    cJSON *tree = NULL;
    const tt_route *route = route_of(method, path, &tail);
    tt_call c = {.api = &api, .route = route, .tail = tail, .body = body,
                 .body_bytes = strlen(body)};
    if (route->answer)
        route->answer(&c, &r);
    else
        generate(route, body, &r);
    if (tt_json_parse(&tree, tt_buf_text(&r.body), r.body.size, &e))
        fail_msg("%s: answer is not JSON: %s: %.200s", path, e.text, tt_buf_text(&r.body));
    if (status)
        *status = r.status;
    tt_buf_free(&r.body);
    return tree;
}

static inline cJSON *post(const char *path, const char *body)
{
    int status;
    cJSON *t = ask("POST", path, body, &status);
    if (status != 200) {
        char *text = cJSON_PrintUnformatted(t);
        fail_msg("%s %s: %d %s", path, body, status, text);
    }
    return t;
}

/* A member by path: "choices.0.text". Fails the test when there is none. */
static inline const cJSON *at(const cJSON *t, const char *path)
{
    char key[64];
    const cJSON *node = t;
    for (const char *p = path; *p && node;) {
        size_t n = strcspn(p, ".");
        snprintf(key, sizeof key, "%.*s", (int)n, p);
        node = cJSON_IsArray(node) ? cJSON_GetArrayItem(node, atoi(key))
                                   : cJSON_GetObjectItemCaseSensitive(node, key);
        p += n + (p[n] == '.');
    }
    if (!node) {
        char *text = cJSON_PrintUnformatted(t);
        fail_msg("no '%s' in %s", path, text);
    }
    return node;
}

static inline const char *text_at(const cJSON *t, const char *path)
{
    const cJSON *node = at(t, path);
    if (!cJSON_IsString(node))
        fail_msg("'%s' is not a string", path);
    return node->valuestring;
}

static inline double number_at(const cJSON *t, const char *path)
{
    const cJSON *node = at(t, path);
    if (!cJSON_IsNumber(node))
        fail_msg("'%s' is not a number", path);
    return node->valuedouble;
}

/* --- streams --- */

typedef struct {
    cJSON *frame[600];
    int frames;
    bool done; /* [DONE] was the last line */
    tt_buf raw;
} stream;

static inline void split_frames(stream *s)
{
    for (const char *p = tt_buf_text(&s->raw); *p;) {
        const char *end = strstr(p, "\n\n");
        assert_non_null(end);
        assert_int_equal(strncmp(p, "data: ", 6), 0);
        assert_false(s->done);
        tt_err e = {0};
        if (!strncmp(p, "data: [DONE]\n\n", 14))
            s->done = true;
        else if (tt_json_parse(&s->frame[s->frames++], p + 6, (size_t)(end - p) - 6, &e))
            fail_msg("frame is not JSON: %s: %.*s", e.text, (int)(end - p), p);
        p = end + 2;
    }
}

/* Collects the whole stream. pause_ms: how seldom one looks. */
static inline stream follow(const char *path, const char *body, int pause_ms)
{
    const char *tail;
    tt_err e = {0};
    tt_gen *g;
    stream s = {0};
    const tt_route *route = route_of("POST", path, &tail);
    if (tt_gen_read(&g, &api, route->endpoint, body, strlen(body), tt_now_ns(), &e) ||
        tt_gen_submit(g, NULL, NULL, NULL, &e))
        fail_msg("%s", e.text);
    assert_true(tt_gen_streams(g));
    int64_t again;
    while (!tt_gen_frames(g, tt_now_ms(), &s.raw, &again))
        nap_ms(pause_ms);
    tt_gen_free(g);
    split_frames(&s);
    return s;
}

static inline void stream_free(stream *s)
{
    for (int i = 0; i < s->frames; i++)
        cJSON_Delete(s->frame[i]);
    tt_buf_free(&s->raw);
}

#endif
