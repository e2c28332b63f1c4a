/* generate_image.c - see generate_image.h. */
#include "server/generate_image.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "kernels/base/clock.h"
#include "server/base64.h"
#include "server/json_read.h"

enum { MAX_FILE = 20 << 20 };

tt_status tt_file_base64(const char *path, tt_buf *out, tt_err *e)
{
    tt_buf bytes = {0};
    char piece[65536];
    FILE *f = strcmp(path, "-") ? fopen(path, "rb") : stdin;
    if (!f)
        return tt_fail(e, TT_EIO, "'%.150s': %s", path, strerror(errno));
    for (size_t n; bytes.size <= MAX_FILE && (n = fread(piece, 1, sizeof piece, f)) > 0;)
        tt_buf_add(&bytes, piece, n);
    bool bad = ferror(f) || bytes.failed, large = bytes.size > MAX_FILE;
    if (f != stdin)
        fclose(f);
    if (!bad && !large)
        tt_base64_put(out, bytes.data, bytes.size);
    tt_buf_free(&bytes);
    if (large)
        return tt_fail(e, TT_EINVAL, "'%.150s' has more than %d MiB", path, MAX_FILE >> 20);
    return bad || out->failed ? tt_fail(e, TT_EIO, "'%.150s' cannot be read", path) : TT_OK;
}

/* "a/b.png", 2 -> "a/b-2.png" */
static void file_name(const char *output, int number, char *out, size_t size)
{
    const char *dot = strrchr(output, '.'), *slash = strrchr(output, '/');
    int stem = dot && (!slash || dot > slash) ? (int)(dot - output) : (int)strlen(output);
    if (number)
        snprintf(out, size, "%.*s-%d%s", stem, output, number, output + stem);
    else
        snprintf(out, size, "%s", output);
}

static tt_status write_file(const char *name, const tt_buf *bytes, tt_err *e)
{
    bool pipe = !strcmp(name, "-");
    FILE *f = pipe ? stdout : fopen(name, "wb");
    bool bad = !f || fwrite(bytes->data, 1, bytes->size, f) != bytes->size;
    if (f && (pipe ? fflush(f) : fclose(f)))
        bad = true;
    if (bad)
        return tt_fail(e, TT_EIO, "'%.150s': %s", name, strerror(errno));
    if (!pipe)
        puts(name);
    return TT_OK;
}

static tt_status write_image(const cJSON *image, const char *output, int number, tt_err *e)
{
    char name[4200];
    tt_buf bytes = {0};
    const cJSON *text = tt_json_get(image, "b64_json");
    tt_status s = TT_OK;
    if (!cJSON_IsString(text) ||
        !tt_base64_take(&bytes, text->valuestring, strlen(text->valuestring)))
        s = tt_fail(e, TT_EFORMAT, "the answer holds no picture");
    file_name(output, number, name, sizeof name);
    if (!s)
        s = write_file(name, &bytes, e);
    tt_buf_free(&bytes);
    return s;
}

/* "8 steps, 412 ms, seed 7" */
static void print_statistics(const cJSON *body)
{
    const cJSON *t = tt_json_get(body, "tutti");
    const cJSON *steps = tt_json_get(t, "steps"), *seed = tt_json_get(t, "seed");
    const cJSON *ms = tt_json_get(tt_json_get(t, "time"), "run_ms");
    if (cJSON_IsNumber(steps) && cJSON_IsNumber(ms) && cJSON_IsNumber(seed))
        fprintf(stderr, "%.0f steps, %.0f ms, seed %.0f\n", steps->valuedouble, ms->valuedouble,
                seed->valuedouble);
}

static tt_status take_answer(const tt_generate_args *a, const tt_reply *r, tt_err *e)
{
    cJSON *body = NULL;
    const cJSON *m;
    tt_status s = tt_json_parse(&body, tt_buf_text(&r->body), r->body.size, e);
    if (s)
        return tt_context(e, s, "the answer");
    const cJSON *error = tt_json_get(tt_json_get(body, "error"), "message");
    const cJSON *data = tt_json_get(body, "data");
    int n = cJSON_GetArraySize(data), i = 0;
    if (error)
        s = tt_fail(e, TT_EINVAL, "%s", cJSON_IsString(error) ? error->valuestring : "failed");
    else if (a->json)
        puts(tt_buf_text(&r->body));
    cJSON_ArrayForEach(m, data)
    {
        if (!s && !a->json)
            s = write_image(m, a->output ? a->output : "image.png", n > 1 ? ++i : 0, e);
    }
    if (!s && !a->json)
        print_statistics(body);
    cJSON_Delete(body);
    return s;
}

tt_status tt_generate_image(tt_local *l, const tt_generate_args *a, const tt_buf *body, tt_err *e)
{
    char allow[64];
    const char *tail, *path = a->image ? "/v1/images/edits" : "/v1/images/generations";
    tt_body whole = {.data = tt_buf_text(body), .bytes = body->size, .arrived_ns = tt_now_ns()};
    tt_work *w = NULL;
    tt_reply reply = {0};
    uint64_t seen = 0;
    if (a->chat || a->infill || a->show)
        return tt_fail(e, TT_EINVAL, "--chat, --infill and --show are for texts; '%s' makes images",
                       l->served->id);
    tt_status s = tt_work_read(&w, &l->api, tt_route_find("POST", path, &tail, allow), &whole, e);
    if (!s)
        s = tt_work_submit(w, tt_local_wake, l, NULL, e);
    if (!s) {
        while (!tt_work_poll(w))
            tt_local_wait(l, &seen, -1);
        tt_work_answer(w, &reply);
        s = take_answer(a, &reply, e);
    }
    tt_buf_free(&reply.body);
    tt_work_free(w);
    return s;
}
