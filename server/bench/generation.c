/* generation.c - whole generations through the engine, several at the same time.
 *
 * Every stream fills `tokens` columns behind a prompt of its own with sampler low_confidence: a
 * fixed number of commits per step, so that the work does not depend on what the weights say. */
#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/base/clock.h"
#include "server/bench/bench.h"

typedef struct {
    tt_bench *b;
    tt_job_spec spec;
    int32_t *id;
    uint8_t *open;
    tt_job **job;
    int64_t streams;
    sem_t ended; /* posted by every job that ends */
} run;

typedef struct {
    double seconds; /* from the first submission to the last end */
    double mean_ms; /* of a stream, waiting included */
    double nfe;     /* forwards a stream took part in, mean */
    int64_t passes, rows;
    double pass_seconds;
} outcome;

static void post(void *arg)
{
    sem_post(arg);
}

static void close_run(run *r)
{
    for (int64_t i = 0; r->job && i < r->streams; i++)
        tt_job_release(r->job[i]);
    free(r->job);
    free(r->id);
    free(r->open);
    sem_destroy(&r->ended);
}

static tt_status set_params(run *r, tt_cache_kind cache, int64_t tokens, tt_err *e)
{
    const tt_bench_sizes *z = &r->b->sizes;
    int64_t blocks = (tokens + z->block - 1) / z->block;
    int64_t steps = (tokens + z->tokens_per_step - 1) / z->tokens_per_step;
    tt_params *p = &r->spec.params;
    tt_params_default(p);
    tt_status s =
        tt_params_set(p, tt_param_find("steps"), (double)(steps > blocks ? steps : blocks), e);
    if (!s)
        s = tt_params_set(p, tt_param_find("block_length"), (double)z->block, e);
    return s ? s : tt_params_set(p, tt_param_find("cache"), (double)cache, e);
}

static tt_status open_run(run *r, tt_cache_kind cache, int64_t streams, int64_t tokens, tt_err *e)
{
    const tt_bench_sizes *z = &r->b->sizes;
    size_t columns = (size_t)(z->prompt + tokens);
    sem_init(&r->ended, 0, 0);
    r->streams = streams;
    r->job = calloc((size_t)streams, sizeof *r->job);
    r->id = calloc(columns, sizeof *r->id);
    r->open = calloc(columns, 1);
    if (!r->job || !r->id || !r->open)
        return tt_fail(e, TT_ENOMEM, "no memory for %lld jobs", (long long)streams);
    memset(r->open + z->prompt, 1, (size_t)tokens);
    r->spec = (tt_job_spec){.model = r->b->served,
                            .sampler = tt_sampler_find("low_confidence"),
                            .id = r->id,
                            .open = r->open,
                            .columns = (int32_t)columns,
                            .prompt = (int32_t)z->prompt,
                            .samples = 1,
                            .wake = post,
                            .wake_arg = &r->ended};
    return set_params(r, cache, tokens, e);
}

static tt_status submit(run *r, int64_t i, tt_err *e)
{
    const tt_model_info *info = &r->b->served->info;
    for (int64_t c = 0; c < r->b->sizes.prompt; c++) {
        r->id[c] = (int32_t)((c * 7919 + i * 104729) % info->vocab);
        if (r->id[c] == info->mask_id)
            r->id[c] = r->id[c] ? 0 : 1;
    }
    r->spec.seed = (uint64_t)i;
    return tt_engine_submit(r->b->engine, &r->spec, &r->job[i], NULL, e);
}

/* Waits until `jobs` have ended, showing how far the engine is. */
static void wait_for(run *r, int64_t jobs, const char *what, int64_t committed, int64_t tokens)
{
    while (jobs) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec++;
        if (!sem_timedwait(&r->ended, &until)) {
            jobs--;
        } else if (errno == ETIMEDOUT) {
            tt_engine_stats now;
            tt_engine_get_stats(r->b->engine, &now);
            tt_bench_say(r->b, "%s: %lld of %lld tokens", what,
                         (long long)(now.committed - committed), (long long)tokens);
        }
    }
}

static tt_status collect(const run *r, outcome *out, tt_err *e)
{
    tt_view v = {0};
    tt_status s = TT_OK;
    for (int64_t i = 0; i < r->streams && !s; i++) {
        tt_job_times t = tt_job_get_times(r->job[i]);
        v.version = UINT64_MAX; /* not what it holds, so that it is copied */
        tt_job_view(r->job[i], 0, &v);
        if (v.finish != TT_FINISH_LENGTH && v.finish != TT_FINISH_STOP)
            s = tt_fail(e, v.error.status ? v.error.status : TT_ECANCEL, "stream %lld: %s",
                        (long long)i, v.error.status ? v.error.text : "did not finish");
        out->mean_ms += (t.queue_ms + t.run_ms) / (double)r->streams;
        out->nfe += (double)v.nfe / (double)r->streams;
    }
    tt_view_free(&v);
    return s;
}

static tt_status generate(tt_bench *b, tt_cache_kind cache, int64_t streams, int64_t tokens,
                          const char *what, outcome *out, tt_err *e)
{
    run r = {.b = b};
    tt_engine_stats before, after;
    tt_engine_get_stats(b->engine, &before);
    *out = (outcome){0};
    tt_status s = open_run(&r, cache, streams, tokens, e);
    int64_t begin = tt_now_ns(), started = 0;
    while (started < streams && !s)
        if (!(s = submit(&r, started, e)))
            started++;
    if (!s)
        wait_for(&r, started, what, before.committed, streams * tokens);
    out->seconds = (double)(tt_now_ns() - begin) * 1e-9;
    if (!s)
        s = collect(&r, out, e);
    close_run(&r);
    tt_engine_get_stats(b->engine, &after);
    out->passes = after.passes - before.passes;
    out->rows = after.rows - before.rows;
    out->pass_seconds = after.pass_seconds - before.pass_seconds;
    return s;
}

/* beyond: bytes of memory that are neither model nor stores. */
static void print(tt_bench *b, int64_t streams, const outcome *o, size_t beyond)
{
    const tt_bench_sizes *z = &b->sizes;
    double tokens = (double)(streams * z->tokens), passes = (double)o->passes;
    tt_bench_say(b, NULL);
    fprintf(b->out, "%10lld %9.3f %10.1f %10.1f %9.1f %8lld %9.3f %9.1f %8.2f %9.1f %9.1f\n",
            (long long)streams, o->seconds, tokens / o->seconds,
            (double)z->tokens / o->mean_ms * 1e3, o->mean_ms, (long long)o->passes,
            o->pass_seconds * 1e3 / passes, (double)o->rows / passes, (double)z->tokens / o->nfe,
            100 * (1 - o->pass_seconds / o->seconds), (double)beyond * 1e-6);
    fflush(b->out);
    tt_json *w = &b->json;
    tt_json_open(w, '{');
    tt_json_int_member(w, "streams", streams);
    tt_json_float_member(w, "seconds", o->seconds);
    tt_json_float_member(w, "tokens_per_s", tokens / o->seconds);
    tt_json_float_member(w, "stream_tokens_per_s", (double)z->tokens / o->mean_ms * 1e3);
    tt_json_float_member(w, "stream_ms", o->mean_ms);
    tt_json_int_member(w, "passes", o->passes);
    tt_json_float_member(w, "pass_ms", o->pass_seconds * 1e3 / passes);
    tt_json_float_member(w, "pass_rows", (double)o->rows / passes);
    tt_json_float_member(w, "tokens_per_forward", (double)z->tokens / o->nfe);
    tt_json_int_member(w, "beyond_bytes", (int64_t)beyond);
    tt_json_close(w, '}');
}

static tt_status one(tt_bench *b, tt_cache_kind cache, int64_t streams, tt_err *e)
{
    const tt_bench_sizes *z = &b->sizes;
    int64_t warm = z->tokens < z->block ? z->tokens : z->block;
    outcome o;
    char what[64];
    snprintf(what, sizeof what, "%lld generations", (long long)streams);
    tt_bench_say(b, "%s", what);
    int64_t stored = cache == TT_CACHE_NONE ? 0 : streams * (z->prompt + z->tokens);
    tt_status s = generate(b, cache, streams, warm, what, &o, e); /* one block, not counted */
    if (!s)
        s = generate(b, cache, streams, z->tokens, what, &o, e);
    if (!s)
        print(b, streams, &o, tt_bench_note_memory(b, stored));
    return s ? tt_context(e, s, "%s", what) : TT_OK;
}

/* All numbers of streams with one cache. */
static tt_status with_cache(tt_bench *b, tt_cache_kind cache, tt_err *e)
{
    const tt_bench_sizes *z = &b->sizes;
    tt_status s = TT_OK;
    fprintf(b->out,
            "\ngeneration of %lld tokens behind %lld, blocks of %lld, %lld tokens a step, cache "
            "%s\n%10s %9s %10s %10s %9s %8s %9s %9s %8s %9s %9s\n",
            (long long)z->tokens, (long long)z->prompt, (long long)z->block,
            (long long)z->tokens_per_step, tt_cache_names[cache], "streams", "seconds", "tok/s",
            "a stream", "ms each", "passes", "ms a pass", "rows", "tok/fwd", "between %",
            "MB more");
    tt_json_open(&b->json, '{');
    tt_json_text_member(&b->json, "cache", tt_cache_names[cache]);
    tt_json_open_member(&b->json, "runs", '[');
    for (int i = 0; i < z->streams.n && !s; i++)
        s = one(b, cache, z->streams.v[i], e);
    tt_json_close(&b->json, ']');
    tt_json_close(&b->json, '}');
    return s ? tt_context(e, s, "cache %s", tt_cache_names[cache]) : TT_OK;
}

tt_status tt_bench_generation(tt_bench *b, tt_err *e)
{
    const tt_bench_sizes *z = &b->sizes;
    tt_status s = TT_OK;
    const tt_sampler *sampler = tt_sampler_find("low_confidence");
    if ((sampler->needs & b->served->info.kinds) != sampler->needs) {
        fprintf(b->out, "\ngeneration: none, sampler low_confidence does not suit the model\n");
        return TT_OK;
    }
    tt_json_open_member(&b->json, "generation", '{');
    tt_json_int_member(&b->json, "prompt", z->prompt);
    tt_json_int_member(&b->json, "tokens", z->tokens);
    tt_json_int_member(&b->json, "block", z->block);
    tt_json_int_member(&b->json, "tokens_per_step", z->tokens_per_step);
    tt_json_open_member(&b->json, "caches", '[');
    for (int i = 0; i < z->caches && !s; i++)
        s = with_cache(b, z->cache[i], e);
    tt_json_close(&b->json, ']');
    tt_json_close(&b->json, '}');
    return s;
}
