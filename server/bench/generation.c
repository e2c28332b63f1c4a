/* generation.c - whole generations through the engine, several at the same time.
 *
 * Every stream fills `tokens` columns behind a prompt of its own. The samplers are chosen so that
 * the work does not depend on what the weights say: masked models commit a fixed number of tokens
 * per step (low_confidence); insertion models fill all the room, one token a step; recurrent depth
 * runs all recurrences of one token after the other (recurrent), and a wave that freezes a token
 * per step whether it has converged or not (forcing).
 */
#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/base/clock.h"
#include "server/bench/bench.h"

/* A way to generate. */
typedef struct {
    const char *sampler;
    tt_status (*set)(const tt_bench_sizes *z, int64_t tokens, tt_params *p, tt_err *e);
    /* Recurrent depth: rows and recurrences of a step that makes a token, by the parameters. */
    void (*step)(const tt_params *p, int64_t *rows, int64_t *recurrences);
} kind;

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

static tt_status set_masked(const tt_bench_sizes *z, int64_t tokens, tt_params *p, tt_err *e)
{
    int64_t blocks = (tokens + z->block - 1) / z->block;
    int64_t steps = (tokens + z->tokens_per_step - 1) / z->tokens_per_step;
    tt_status s =
        tt_params_set(p, tt_param_find("steps"), (double)(steps > blocks ? steps : blocks), e);
    if (!s)
        s = tt_params_set(p, tt_param_find("block_length"), (double)z->block, e);
    return s;
}

static tt_status set_inserting(const tt_bench_sizes *z, int64_t tokens, tt_params *p, tt_err *e)
{
    (void)z, (void)tokens, (void)e;
    p->stopping_threshold = 1; /* to the end of the room */
    return TT_OK;
}

static tt_status set_sequential(const tt_bench_sizes *z, int64_t tokens, tt_params *p, tt_err *e)
{
    (void)z, (void)tokens, (void)p, (void)e;
    return TT_OK;
}

static void sequential_step(const tt_params *p, int64_t *rows, int64_t *recurrences)
{
    *rows = 1;
    *recurrences = p->recurrence;
}

static tt_status set_wave(const tt_bench_sizes *z, int64_t tokens, tt_params *p, tt_err *e)
{
    (void)z, (void)tokens;
    return tt_params_set(p, tt_param_find("freeze_strategy"), TT_FREEZE_FIXED, e);
}

/* A position is open until it has had all recurrences. */
static void wave_step(const tt_params *p, int64_t *rows, int64_t *recurrences)
{
    *rows = p->recurrence / p->inner_recurrence + 2;
    *recurrences = p->inner_recurrence;
}

static const kind masked = {"low_confidence", set_masked, NULL};
static const kind inserting = {"insertion", set_inserting, NULL};
static const kind recurrent[] = {{"recurrent", set_sequential, sequential_step},
                                 {"forcing", set_wave, wave_step}};

static tt_status open_run(run *r, const kind *k, tt_cache_kind cache, int64_t streams,
                          int64_t tokens, tt_err *e)
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
                            .sampler = tt_sampler_find(k->sampler),
                            .params = r->b->served->defaults,
                            .id = r->id,
                            .open = r->open,
                            .columns = (int32_t)columns,
                            .prompt = (int32_t)z->prompt,
                            .samples = 1,
                            .wake = post,
                            .wake_arg = &r->ended};
    tt_status s = k->set(z, tokens, &r->spec.params, e);
    return s || k->step ? s
                        : tt_params_set(&r->spec.params, tt_param_find("cache"), (double)cache, e);
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

static tt_status generate(tt_bench *b, const kind *k, tt_cache_kind cache, int64_t streams,
                          int64_t tokens, const char *what, outcome *out, tt_err *e)
{
    run r = {.b = b};
    tt_engine_stats before, after;
    tt_engine_get_stats(b->engine, &before);
    *out = (outcome){0};
    tt_status s = open_run(&r, k, cache, streams, tokens, e);
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

/* Tokens per second of recurrent depth that weights, keys and values allow at most, once prompts
 * are read: every step makes a token of each stream. 0: not known. */
static double most_per_second(const tt_bench *b, const kind *k, int64_t streams)
{
    const tt_model_info *i = &b->model->info;
    const tt_bench_sizes *z = &b->sizes;
    int64_t rows, recurrences;
    k->step(&b->served->defaults, &rows, &recurrences);
    int64_t outer = i->layer_weights - i->recurrence * i->core_weights;
    double weights = (double)(outer + recurrences * i->core_weights);
    double head = (double)i->vocab * (double)i->width;
    double column = 2.0 * (double)(i->kv_heads * i->head_dim) * (double)tt_dtype_size(i->act) *
                    (double)(i->layers - i->core_layers + recurrences * i->core_layers);
    double bytes = i->bytes_per_weight * (weights + head) +
                   (double)streams * column * ((double)z->prompt + (double)z->tokens / 2);
    double flops = 2 * (weights + head) * (double)(streams * rows);
    tt_bench_floor f = tt_bench_floor_of(b, bytes, flops);
    double seconds = f.memory > f.arithmetic ? f.memory : f.arithmetic;
    return seconds > 0 ? (double)streams / seconds : 0;
}

/* Tokens per second between reading the prompts and the last steps, in which a wave has fewer and
 * fewer open positions: from a run and one of half the tokens, which differ by just that. 0: not
 * known. */
static double steady_per_second(const tt_bench *b, int64_t streams, const outcome *all,
                                const outcome *half)
{
    int64_t more = streams * (b->sizes.tokens - b->sizes.tokens / 2);
    double seconds = all->seconds - half->seconds;
    return half->passes && seconds > 0 ? (double)more / seconds : 0;
}

/* beyond: bytes of memory that are neither model nor stores. */
static void print(tt_bench *b, const kind *k, int64_t streams, const outcome *o,
                  const outcome *half, size_t beyond)
{
    const tt_bench_sizes *z = &b->sizes;
    double tokens = (double)(streams * z->tokens), passes = (double)o->passes;
    tt_bench_say(b, NULL);
    fprintf(b->out, "%10lld %9.3f %10.1f %10.1f %9.1f %8lld %9.3f %9.1f %8.2f %9.1f %9.1f",
            (long long)streams, o->seconds, tokens / o->seconds,
            (double)z->tokens / o->mean_ms * 1e3, o->mean_ms, (long long)o->passes,
            o->pass_seconds * 1e3 / passes, (double)o->rows / passes, (double)z->tokens / o->nfe,
            100 * (1 - o->pass_seconds / o->seconds), (double)beyond * 1e-6);
    double most = k->step ? most_per_second(b, k, streams) : 0;
    double steady = steady_per_second(b, streams, o, half);
    if (most > 0)
        fprintf(b->out, " %10.1f %6.2f", most, most / (tokens / o->seconds));
    if (most > 0 && steady > 0)
        fprintf(b->out, " %10.1f %6.2f", steady, most / steady);
    fprintf(b->out, "\n");
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
    if (most > 0)
        tt_json_float_member(w, "most_tokens_per_s", most);
    if (steady > 0)
        tt_json_float_member(w, "steady_tokens_per_s", steady);
    tt_json_close(w, '}');
}

static tt_status one(tt_bench *b, const kind *k, tt_cache_kind cache, int64_t streams, tt_err *e)
{
    const tt_bench_sizes *z = &b->sizes;
    int64_t warm = z->tokens < z->block ? z->tokens : z->block;
    outcome o, half = {0};
    char what[64];
    snprintf(what, sizeof what, "%lld generations", (long long)streams);
    tt_bench_say(b, "%s", what);
    bool stores = k->step || cache != TT_CACHE_NONE;
    int64_t stored = stores ? streams * (z->prompt + z->tokens) : 0;
    tt_status s = generate(b, k, cache, streams, warm, what, &o, e); /* one block, not counted */
    if (!s && k->step && z->tokens > 1)
        s = generate(b, k, cache, streams, z->tokens / 2, what, &half, e);
    if (!s)
        s = generate(b, k, cache, streams, z->tokens, what, &o, e);
    if (!s)
        print(b, k, streams, &o, &half, tt_bench_note_memory(b, stored));
    return s ? tt_context(e, s, "%s", what) : TT_OK;
}

static tt_status table(tt_bench *b, const kind *k, tt_cache_kind cache, tt_err *e)
{
    const tt_bench_sizes *z = &b->sizes;
    tt_status s = TT_OK;
    fprintf(b->out, "%10s %9s %10s %10s %9s %8s %9s %9s %8s %9s %9s%s\n", "streams", "seconds",
            "tok/s", "a stream", "ms each", "passes", "ms a pass", "rows", "tok/fwd", "between %",
            "MB more", k->step ? "       most  ratio     steady  ratio" : "");
    tt_json_open_member(&b->json, "runs", '[');
    for (int i = 0; i < z->streams.n && !s; i++)
        s = one(b, k, cache, z->streams.v[i], e);
    tt_json_close(&b->json, ']');
    return s;
}

static void put_sizes(tt_bench *b, const kind *k)
{
    tt_json_text_member(&b->json, "sampler", k->sampler);
    tt_json_int_member(&b->json, "prompt", b->sizes.prompt);
    tt_json_int_member(&b->json, "tokens", b->sizes.tokens);
}

static tt_status with_cache(tt_bench *b, tt_cache_kind cache, tt_err *e)
{
    const tt_bench_sizes *z = &b->sizes;
    fprintf(b->out,
            "\ngeneration of %lld tokens behind %lld, blocks of %lld, %lld tokens a step, cache "
            "%s\n", (long long)z->tokens, (long long)z->prompt, (long long)z->block,
            (long long)z->tokens_per_step, tt_cache_names[cache]);
    tt_json_open(&b->json, '{');
    tt_json_text_member(&b->json, "cache", tt_cache_names[cache]);
    tt_status s = table(b, &masked, cache, e);
    tt_json_close(&b->json, '}');
    return s ? tt_context(e, s, "cache %s", tt_cache_names[cache]) : TT_OK;
}

static tt_status measure_masked(tt_bench *b, tt_err *e)
{
    const tt_bench_sizes *z = &b->sizes;
    tt_status s = TT_OK;
    tt_json_open_member(&b->json, "generation", '{');
    put_sizes(b, &masked);
    tt_json_int_member(&b->json, "block", z->block);
    tt_json_int_member(&b->json, "tokens_per_step", z->tokens_per_step);
    tt_json_open_member(&b->json, "caches", '[');
    for (int i = 0; i < z->caches && !s; i++)
        s = with_cache(b, z->cache[i], e);
    tt_json_close(&b->json, ']');
    tt_json_close(&b->json, '}');
    return s;
}

static tt_status measure_inserting(tt_bench *b, tt_err *e)
{
    fprintf(b->out, "\ngeneration of %lld tokens behind %lld, inserted one a step\n",
            (long long)b->sizes.tokens, (long long)b->sizes.prompt);
    tt_json_open_member(&b->json, "generation", '{');
    put_sizes(b, &inserting);
    tt_status s = table(b, &inserting, TT_CACHE_NONE, e);
    tt_json_close(&b->json, '}');
    return s;
}

static tt_status measure_recurrent(tt_bench *b, const kind *k, tt_err *e)
{
    int64_t rows, recurrences;
    k->step(&b->served->defaults, &rows, &recurrences);
    fprintf(b->out,
            "\ngeneration of %lld tokens behind %lld, sampler %s: %lld recurrences of %lld rows "
            "for a token\n", (long long)b->sizes.tokens, (long long)b->sizes.prompt, k->sampler,
            (long long)recurrences, (long long)rows);
    tt_json_open_member(&b->json, k->sampler, '{');
    put_sizes(b, k);
    tt_json_int_member(&b->json, "recurrences", recurrences);
    tt_status s = table(b, k, TT_CACHE_NONE, e);
    tt_json_close(&b->json, '}');
    return s;
}

tt_status tt_bench_generation(tt_bench *b, tt_err *e)
{
    uint32_t kinds = b->served->info.kinds;
    if (kinds & TT_KIND_RECURRENT) {
        tt_status s = measure_recurrent(b, &recurrent[0], e);
        return s ? s : measure_recurrent(b, &recurrent[1], e);
    }
    if (kinds & TT_KIND_INSERTION)
        return measure_inserting(b, e);
    if (tt_sampler_fits(tt_sampler_find(masked.sampler), kinds))
        return measure_masked(b, e);
    fprintf(b->out, "\ngeneration: none, sampler %s does not suit the model\n", masked.sampler);
    return TT_OK;
}
