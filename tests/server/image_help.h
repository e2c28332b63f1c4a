/* image_help.h - a small image model with random weights in a folder of its own, and the API over
 * the real engine. One test program includes this once. */
#ifndef TT_IMAGE_HELP_H
#define TT_IMAGE_HELP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/base/clock.h"
#include "kernels/base/log.h"
#include "server/api/jobs.h"
#include "server/api/work.h"
#include "server/base64.h"
#include "server/json_read.h"
#include "server/png.h"

enum { SIDE = 32, GRID = 8, TOKENS = GRID * GRID, WINDOW = SIDE / GRID, CODES = 32, RUNNING = 8 };

static const char vqgan_config[] =
    "{\"architectures\": [\"VQGAN\"], \"ddconfig\": {\"double_z\": false,"
    " \"z_channels\": 16, \"resolution\": 32, \"in_channels\": 3, \"out_ch\": 3,"
    " \"ch\": 32, \"ch_mult\": [1, 1, 1], \"num_res_blocks\": 1,"
    " \"attn_resolutions\": [], \"dropout\": 0.0}, \"n_embed\": 32, \"embed_dim\": 16}";

static char image_folder[64];
static tt_api api;

static inline void write_text(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", image_folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static inline void make_image_folder(void)
{
    char codec[128];
    snprintf(image_folder, sizeof image_folder, "/tmp/test_images.%d", (int)getpid());
    snprintf(codec, sizeof codec, "%s/vqgan", image_folder);
    mkdir(image_folder, 0777);
    mkdir(codec, 0777);
    write_text("config.json",
               "{\"architectures\": [\"ENAT\"], \"model_type\": \"enat\", \"input_size\": 8,"
               " \"hidden_size\": 32, \"num_heads\": 2, \"enc_dec\": [2, 1], \"mlp_ratio\": 4.0,"
               " \"codebook_size\": 32, \"num_classes\": 5, \"label_groups\": [3, 2],"
               " \"codec\": \"vqgan\"}");
    write_text(
        "generation_config.json",
        "{\"steps\": 6, \"cfg_scale\": 1.5, \"temperature\": 1, \"order_temperature\": 1.5}");
    write_text("labels.json",
               "{\"groups\": [{\"name\": \"concept\", \"labels\": [\"red apple\", \"Tree\","
               " \"whale, blue\"]}, {\"name\": \"style\", \"labels\": [\"flat\", \"round\"]}]}");
    write_text("vqgan/config.json", vqgan_config);
}

static inline void remove_image_folder(void)
{
    static const char *const names[] = {
        "config.json", "generation_config.json", "labels.json", "vqgan/config.json", "vqgan", ""};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/%s", image_folder, names[i]);
        remove(path);
    }
}

static size_t memory_for_jobs; /* 0: as much as is usual */

/* The image model "pic", and "text": a text model, random, too. */
static inline int open_api(void **state)
{
    (void)state;
    tt_err e = {0};
    tt_engine_options o = {
        .device = "plain", .threads = 1, .random_weights = true, .max_queue = 64,
                           .max_running = RUNNING, .max_bytes = memory_for_jobs};
    tt_log_set_level(TT_LOG_ERROR);
    make_image_folder();
    api = (tt_api){.version = "test", .max_samples = 64};
    if (tt_metrics_open(&api.metrics, true, &e) || tt_engine_open(&api.engine, &o, &e) ||
        tt_engine_add_model(api.engine, "text", "models/demo/tutti-sudoku", TT_WEIGHTS_AUTO, NULL,
                            NULL, &e) ||
        tt_engine_add_model(api.engine, "pic", image_folder, TT_WEIGHTS_AUTO, NULL, NULL, &e)) {
        print_error("%s\n", e.text);
        return -1;
    }
    tt_jobs_options jobs = {.metrics = api.metrics};
    if (tt_jobs_open(&api.jobs, &jobs, &e))
        return -1;
    api.state = TT_API_READY;
    return 0;
}

static inline int close_api(void **state)
{
    (void)state;
    tt_engine_stats s;
    tt_jobs_close(api.jobs);
    tt_engine_get_stats(api.engine, &s);
    tt_engine_close(api.engine);
    tt_metrics_close(api.metrics);
    remove_image_folder();
    if (s.bytes_used)
        print_error("%lld bytes of jobs are still counted\n", (long long)s.bytes_used);
    return s.bytes_used ? -1 : 0;
}

static inline void nap_ms(int ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000L}, NULL);
}

/* --- requests --- */

static uint64_t who; /* whose key they come with */

static inline const tt_route *route_of(const char *method, const char *path, const char **tail)
{
    char allow[64];
    const tt_route *r = tt_route_find(method, path, tail, allow);
    if (!r)
        fail_msg("no route %s %s", method, path);
    return r;
}

static inline tt_status start_work(tt_work **w, const char *path, const char *type,
                                   const char *data, size_t n, tt_reply *r)
{
    const char *tail;
    tt_err e = {0};
    tt_body body = {.type = type, .data = data, .bytes = n, .arrived_ns = tt_now_ns()};
    tt_status s = tt_work_read(w, &api, route_of("POST", path, &tail), &body, &e);
    if (!s && (*w)->detached) {
        tt_jobs_take(api.jobs, *w, who, r);
        *w = NULL;
        return TT_OK;
    }
    if (!s)
        s = tt_work_submit(*w, NULL, NULL, &r->retry_after_ms, &e);
    if (s) {
        tt_work_free(*w);
        *w = NULL;
        tt_reply_error(r, &e);
    }
    return s;
}

/* The parsed answer; the caller deletes it. */
static inline cJSON *ask_as(const char *path, const char *type, const char *data, size_t n,
                            int *status)
{
    tt_reply r = {0};
    tt_work *w = NULL;
    tt_err e = {0};
    cJSON *tree = NULL;
    if (!start_work(&w, path, type, data, n, &r) && w) {
        while (!tt_work_poll(w))
            nap_ms(1);
        tt_work_answer(w, &r);
        tt_work_free(w);
    }
    if (tt_json_parse(&tree, tt_buf_text(&r.body), r.body.size, &e))
        fail_msg("%s: %s: %.300s", path, e.text, tt_buf_text(&r.body));
    if (status)
        *status = r.status;
    else if (r.status != 200)
        fail_msg("%s %.300s: %d %.300s", path, data, r.status, tt_buf_text(&r.body));
    tt_buf_free(&r.body);
    return tree;
}

static inline cJSON *ask(const char *path, const char *body)
{
    return ask_as(path, NULL, body, strlen(body), NULL);
}

/* An answer of the simple kind. */
static inline cJSON *call(const char *method, const char *path, int *status)
{
    const char *tail;
    tt_reply r = {0};
    cJSON *tree = NULL;
    const tt_route *route = route_of(method, path, &tail);
    tt_call c = {.api = &api, .route = route, .tail = tail, .body = "", .who = who};
    route->answer(&c, &r);
    if (tt_json_parse(&tree, tt_buf_text(&r.body), r.body.size, NULL))
        fail_msg("%s: not JSON: %.300s", path, tt_buf_text(&r.body));
    *status = r.status;
    tt_buf_free(&r.body);
    return tree;
}

/* --- answers --- */

/* A member by path: "data.0.tutti". Fails the test when there is none. */
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
        fail_msg("no '%s' in %.2000s", path, text);
    }
    return node;
}

static inline void tokens_at(const cJSON *t, const char *path, int32_t *out)
{
    const cJSON *list = at(t, path);
    assert_int_equal(cJSON_GetArraySize(list), TOKENS);
    for (int i = 0; i < TOKENS; i++)
        out[i] = (int32_t)cJSON_GetArrayItem(list, i)->valuedouble;
}

/* The picture of b64_json at `path`, of the model's size. */
static inline tt_picture picture_at(const cJSON *t, const char *path)
{
    const char *text = at(t, path)->valuestring;
    tt_buf file = {0};
    tt_picture p;
    tt_err e = {0};
    assert_true(tt_base64_take(&file, text, strlen(text)));
    if (tt_png_decode(&p, file.data, file.size, SIDE, "answer", &e))
        fail_msg("%s", e.text);
    assert_int_equal(p.width, SIDE);
    assert_int_equal(p.height, SIDE);
    tt_buf_free(&file);
    return p;
}

#endif
