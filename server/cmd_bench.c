/* cmd_bench.c - `tutti bench`: what a model reaches on this device, against what the device could
 * do. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/base/clock.h"
#include "kernels/base/log.h"
#include "models/generator.h"
#include "server/bench/bench.h"
#include "server/cmd.h"
#include "server/options.h"
#include "server/served.h"
#include "tokenizers/image.h"

enum { FORWARDS = 1 << 0, GENERATION = 1 << 1 };

typedef struct {
    tt_engine_args engine;
    const char *model, *shape, *json;
    unsigned parts;
    tt_bench_sizes sizes;
    bool quiet;
} bench_args;

enum {
    KEY_SHAPE = 0x300,
    KEY_ONLY,
    KEY_JSON,
    KEY_SECONDS,
    KEY_ROWS,
    KEY_BLOCK,
    KEY_CACHED,
    KEY_BATCH,
    KEY_STREAMS,
    KEY_PROMPT,
    KEY_TOKENS,
    KEY_PER_STEP,
    KEY_CACHE,
    KEY_MAX_ROWS
};

static const struct argp_option options[] = {
    {"model", 'm', "MODEL", 0, "id of a model that comes with the program, or a folder", 1},
    {"shape", KEY_SHAPE, "FOLDER", 0,
     "instead: a folder with a config.json alone; its weights are random numbers", 1},
    {"only", KEY_ONLY, "PARTS", 0, "forwards or generation; both unless asked", 2},
    {"json", KEY_JSON, "FILE", 0, "figures as JSON; - is stdout, the table then goes to stderr", 2},
    {"quiet", 'q', NULL, 0, "no progress", 2},
    {"seconds", KEY_SECONDS, "S", 0, "for each forward figure, three runs at least (1)", 3},
    {"rows", KEY_ROWS, "LIST", 0, "rows of forwards without stored columns (1,32,128,512,1280)", 3},
    {"block", KEY_BLOCK, "N", 0, "columns of a block (32)", 3},
    {"cached", KEY_CACHED, "N", 0,
     "stored columns that forwards of one block see (1024, or what the context leaves); 0: none",
     3},
    {"batch", KEY_BATCH, "LIST", 0, "sequences in forwards of one block each (1,8)", 3},
    {"streams", KEY_STREAMS, "LIST", 0, "generations at the same time (1,4,8,16,32)", 4},
    {"prompt", KEY_PROMPT, "N", 0, "columns of their prompts (256, or half of the context)", 4},
    {"tokens", KEY_TOKENS, "N", 0, "tokens each generates (256, or half of the context)", 4},
    {"tokens-per-step", KEY_PER_STEP, "N", 0, "tokens committed at each step (3)", 4},
    {"cache", KEY_CACHE, "LIST", 0,
     "keys and values kept: none, prefix, dual, free, dkv, vicinity (dual)", 4},
    {"max-rows", KEY_MAX_ROWS, "N", 0, "token rows in one forward pass (4096)", 4},
    {0},
};

static void read_list(struct argp_state *state, const char *option, const char *text, int64_t max,
                      tt_bench_list *out)
{
    char copy[256], *rest = copy, *word;
    if (strlen(text) >= sizeof copy)
        argp_error(state, "--%s is longer than %zu characters", option, sizeof copy - 1);
    snprintf(copy, sizeof copy, "%s", text);
    *out = (tt_bench_list){.given = true};
    while ((word = strsep(&rest, ","))) {
        if (out->n == TT_BENCH_LIST)
            argp_error(state, "--%s has more than %d numbers", option, TT_BENCH_LIST);
        out->v[out->n++] = tt_option_int(state, option, word, 1, max);
    }
}

static void read_parts(struct argp_state *state, const char *text, unsigned *out)
{
    char copy[64], *rest = copy, *word;
    snprintf(copy, sizeof copy, "%s", text);
    *out = 0;
    while ((word = strsep(&rest, ","))) {
        if (!strcmp(word, "forwards"))
            *out |= FORWARDS;
        else if (!strcmp(word, "generation"))
            *out |= GENERATION;
        else
            argp_error(state, "--only is '%.40s', must name forwards or generation", text);
    }
}

static void read_caches(struct argp_state *state, const char *text, tt_bench_sizes *z)
{
    char copy[64], *rest = copy, *word;
    snprintf(copy, sizeof copy, "%s", text);
    z->caches = 0;
    while ((word = strsep(&rest, ","))) {
        int i = 0;
        while (i < TT_CACHE_AUTO && strcmp(tt_cache_names[i], word))
            i++;
        if (i == TT_CACHE_AUTO || z->caches == TT_BENCH_LIST)
            argp_error(state, "--cache is '%.60s', must name some of none, prefix, dual, free, "
                       "dkv, vicinity", text);
        z->cache[z->caches++] = (tt_cache_kind)i;
    }
}

static double read_seconds(struct argp_state *state, const char *text)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || !(v >= 0 && v <= 3600))
        argp_error(state, "--seconds is '%.40s', must be a number in 0..3600", text);
    return v;
}

static error_t parse_size(int key, char *arg, struct argp_state *state)
{
    tt_bench_sizes *z = &((bench_args *)state->input)->sizes;
    enum { COLUMNS = 1 << 24 };
    switch (key) {
    case KEY_SECONDS:
        z->seconds = read_seconds(state, arg);
        return 0;
    case KEY_ROWS:
        read_list(state, "rows", arg, COLUMNS, &z->rows);
        return 0;
    case KEY_BLOCK:
        z->block = tt_option_int(state, "block", arg, 1, 65536);
        return 0;
    case KEY_CACHED:
        z->cached = tt_option_int(state, "cached", arg, 0, COLUMNS);
        return 0;
    case KEY_BATCH:
        read_list(state, "batch", arg, 4096, &z->batch);
        return 0;
    case KEY_STREAMS:
        read_list(state, "streams", arg, 4096, &z->streams);
        return 0;
    case KEY_PROMPT:
        z->prompt = tt_option_int(state, "prompt", arg, 0, COLUMNS);
        return 0;
    case KEY_TOKENS:
        z->tokens = tt_option_int(state, "tokens", arg, 1, COLUMNS);
        return 0;
    case KEY_PER_STEP:
        z->tokens_per_step = tt_option_int(state, "tokens-per-step", arg, 1, 65536);
        return 0;
    case KEY_CACHE:
        read_caches(state, arg, z);
        return 0;
    case KEY_MAX_ROWS:
        z->max_rows = tt_option_int(state, "max-rows", arg, 1, COLUMNS);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    bench_args *a = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &a->engine;
        return 0;
    case 'm':
        a->model = arg;
        return 0;
    case 'q':
        a->quiet = true;
        return 0;
    case KEY_SHAPE:
        a->shape = arg;
        return 0;
    case KEY_ONLY:
        read_parts(state, arg, &a->parts);
        return 0;
    case KEY_JSON:
        a->json = arg;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "'%.60s' is no option; see --help", arg);
        return 0;
    case ARGP_KEY_END:
        if (a->model && a->shape)
            argp_error(state, "--model and --shape exclude each other");
        return 0;
    default:
        return parse_size(key, arg, state);
    }
}

static const struct argp_child children[] = {{&tt_engine_argp, 0, "Where it runs:", 10}, {0}};
static const struct argp bench_argp = {
    options,
    parse,
    NULL,
    "Measures a model on a device: what the device reaches at most, single forwards against that "
    "floor, whole generations, memory. A floor is the longer of weights and stored columns read at "
    "the measured bandwidth and operations at the measured peak of products; times are medians."
    "\vExample: tutti bench --shape tests/bench/shapes/llada-8b --device cuda --json figures.json",
    children,
    NULL,
    NULL};

/* --- opening --- */

static tt_status find(const bench_args *a, tt_model_place *out, tt_err *e)
{
    if (!a->shape)
        return tt_option_model(a->model, out, e);
    if (strlen(a->shape) >= sizeof out->folder)
        return tt_fail(e, TT_EINVAL, "--shape is a path of %zu characters", strlen(a->shape));
    const char *end = a->shape + strlen(a->shape), *name = end;
    while (end > a->shape + 1 && end[-1] == '/')
        end--;
    for (name = end; name > a->shape && name[-1] != '/';)
        name--;
    snprintf(out->folder, sizeof out->folder, "%s", a->shape);
    snprintf(out->id, sizeof out->id, "%.*s", (int)(end - name), name);
    return TT_OK;
}

static void show_progress(void *arg, double done)
{
    tt_bench_say(arg, "loading %3.0f %%", done * 100);
}

static int64_t most(const tt_bench_list *l)
{
    int64_t v = 1;
    for (int i = 0; i < l->n; i++)
        v = l->v[i] > v ? l->v[i] : v;
    return v;
}

/* Loads the model and tells what it is. */
static tt_status load(tt_bench *b, const bench_args *a, const tt_model_place *place, tt_err *e)
{
    int streams = (int)most(&a->sizes.streams);
    tt_engine_options o = {.device = a->engine.device,
                           .threads = a->engine.threads,
                           .max_running = streams,
                           .max_queue = streams,
                           .max_rows = a->sizes.max_rows,
                           .random_weights = a->shape != NULL};
    char text[256];
    tt_status s = tt_engine_open(&b->engine, &o, e);
    if (s)
        return s;
    tt_engine_describe(b->engine, text, sizeof text);
    int64_t begin = tt_now_ns();
    s = tt_engine_add_model(b->engine, place->id, place->folder, a->engine.weights, show_progress,
                            b, e);
    double seconds = (double)(tt_now_ns() - begin) * 1e-9;
    tt_bench_say(b, NULL);
    if (s)
        return s;
    b->served = tt_engine_find(b->engine, place->id);
    if (b->served->verifier)
        return tt_fail(e, TT_EINVAL, "model '%.80s' is a verifier and makes nothing to be measured",
                       place->id);
    b->model = tt_served_model(b->served);
    b->stream = b->model->stream;
    const tt_model_info *i = &b->served->info;
    double bytes = (double)i->weight_bytes;
    fprintf(b->out,
            "device     %s\n"
            "model      %s%s: %s, %lld layers of width %lld, %.1f M parameters, %s\n"
            "loaded     %.1f MB in %.2f s",
            text, place->id, a->shape ? ", random weights" : "", i->family, (long long)i->layers,
            (long long)i->width, (double)i->parameters * 1e-6, i->compute, bytes * 1e-6, seconds);
    if (!a->shape) /* making numbers up is no speed of loading */
        fprintf(b->out, ", %.2f GB/s", bytes / seconds * 1e-9);
    fprintf(b->out, "\n");
    tt_json *w = &b->json;
    tt_json_text_member(w, "program", "tutti " TT_VERSION);
    tt_json_text_member(w, "device", text);
    tt_json_text_member(w, "model", place->id);
    tt_json_bool_member(w, "random_weights", a->shape != NULL);
    tt_json_int_member(w, "parameters", i->parameters);
    tt_json_text_member(w, "compute", i->compute);
    tt_json_float_member(w, "load_seconds", seconds);
    tt_json_float_member(w, "load_bytes", bytes);
    return TT_OK;
}

static tt_status measure(tt_bench *b, const bench_args *a, tt_err *e)
{
    b->sizes = a->sizes;
    tt_status s = tt_bench_fit(&b->sizes, &b->served->info, e);
    if (s)
        return s;
    s = tt_bench_ceilings(b, e);
    tt_memory m; /* asked for here, what loading and the ceilings needed does not count below */
    tt_stream *stream = b->model->stream;
    if (!s && stream->op.memory && !stream->op.memory(stream, &m, NULL))
        b->loaded_bytes = m.used;
    if (!s && a->parts & FORWARDS)
        s = tt_bench_forwards(b, e);
    if (!s && a->parts & GENERATION)
        s = tt_bench_generation(b, e);
    if (s)
        return s;
    fprintf(b->out, "\n");
    tt_bench_memory(b);
    return TT_OK;
}

static tt_status write_json(const char *name, const tt_buf *text, tt_err *e)
{
    if (text->failed)
        return tt_fail(e, TT_ENOMEM, "no memory for the figures");
    FILE *f = strcmp(name, "-") ? fopen(name, "wb") : stdout;
    bool written = f && fwrite(text->data, 1, text->size, f) == text->size && fputc('\n', f) >= 0;
    if (f)
        written &= (f == stdout ? fflush(f) : fclose(f)) == 0;
    return written ? TT_OK : tt_fail(e, TT_EIO, "'%.150s': %s", name, strerror(errno));
}

static tt_status run(const bench_args *a, tt_err *e)
{
    tt_buf text = {0};
    bool to_stdout = a->json && !strcmp(a->json, "-");
    tt_bench b = {.out = to_stdout ? stderr : stdout,
                  .json = {.out = &text},
                  .progress = !a->quiet && isatty(STDERR_FILENO)};
    tt_json_open(&b.json, '{');
    tt_model_place place;
    tt_status s = find(a, &place, e);
    if (!s && tt_generator_in(place.folder)) {
        b.sizes = a->sizes;
        s = tt_bench_images(&b, place.folder, a->engine.device, a->engine.threads,
                            a->engine.weights, a->shape != NULL, e);
    } else if (!s && tt_codec_in(place.folder)) {
        b.sizes = a->sizes;
        s = tt_bench_codec(&b, place.folder, a->engine.device, a->engine.threads,
                           a->engine.weights, a->shape != NULL, e);
    } else if (!s) {
        s = load(&b, a, &place, e);
        if (!s)
            s = measure(&b, a, e);
    }
    tt_bench_say(&b, NULL);
    tt_json_close(&b.json, '}');
    if (!s && a->json)
        s = write_json(a->json, &text, e);
    tt_buf_free(&text);
    tt_engine_close(b.engine);
    return s;
}

int tt_cmd_bench(int argc, char **argv)
{
    tt_err err = {0};
    bench_args a = {.parts = FORWARDS | GENERATION,
                    .sizes = {.seconds = 1,
                              .rows = {.v = {1, 32, 128, 512, 1280}, .n = 5},
                              .batch = {.v = {1, 8}, .n = 2},
                              .streams = {.v = {1, 4, 8, 16, 32}, .n = 5},
                              .block = 32,
                              .cached = -1,
                              .prompt = -1,
                              .tokens = -1,
                              .tokens_per_step = 3,
                              .cache = {TT_CACHE_DUAL},
                              .caches = 1,
                              .max_rows = 4096}};
    tt_status s = tt_engine_args_init(&a.engine, &err);
    if (!s)
        argp_parse(&bench_argp, argc, argv, 0, NULL, &a);
    tt_log_set_level(TT_LOG_WARN);
    if (!s)
        s = run(&a, &err);
    if (s)
        fprintf(stderr, "tutti bench: %s\n", err.text);
    return s ? 1 : 0;
}
