/* options.c - see options.h. */
#include "server/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_THREADS = 1024 };
enum { KEY_DEVICE = 0x100, KEY_THREADS, KEY_WEIGHTS };

static const char *const weights_names[] = {"auto", "f32", "bf16", "int8", "fp8", NULL};

static const struct argp_option engine_options[] = {
    {"device", KEY_DEVICE, "NAME", 0,
     "auto, cpu, plain (no plug-in), twin (slow reference), cuda or cuda:N (TUTTI_DEVICE)", 10},
    {"threads", KEY_THREADS, "N", 0, "CPU threads; 0: all cores but one (TUTTI_THREADS)", 10},
    {"weights", KEY_WEIGHTS, "MODE", 0, "auto (as stored), f32, bf16, int8 or fp8", 10},
    {0},
};

static bool whole(const char *text, int64_t min, int64_t max, int64_t *out)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (errno || end == text || *end || v < min || v > max)
        return false;
    *out = v;
    return true;
}

int64_t tt_option_int(struct argp_state *state, const char *option, const char *text, int64_t min,
                      int64_t max)
{
    int64_t v = min;
    if (!whole(text, min, max, &v))
        argp_error(state, "--%s is '%.40s', must be a whole number in %lld..%lld", option, text,
                   (long long)min, (long long)max);
    return v;
}

static tt_weights_mode weights_mode(struct argp_state *state, const char *text)
{
    for (int i = 0; weights_names[i]; i++)
        if (!strcmp(weights_names[i], text))
            return (tt_weights_mode)i;
    argp_error(state, "--weights is '%.40s', must be auto, f32, bf16, int8 or fp8", text);
    return TT_WEIGHTS_AUTO;
}

static error_t parse_engine(int key, char *arg, struct argp_state *state)
{
    tt_engine_args *a = state->input;
    switch (key) {
    case KEY_DEVICE:
        a->device = arg;
        return 0;
    case KEY_THREADS:
        a->threads = (int)tt_option_int(state, "threads", arg, 0, MAX_THREADS);
        return 0;
    case KEY_WEIGHTS:
        a->weights = weights_mode(state, arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp tt_engine_argp = {engine_options, parse_engine, NULL, NULL, NULL, NULL, NULL};

tt_status tt_engine_args_init(tt_engine_args *a, tt_err *e)
{
    const char *device = getenv("TUTTI_DEVICE"), *threads = getenv("TUTTI_THREADS");
    *a = (tt_engine_args){.device = device && *device ? device : NULL};
    int64_t n = 0;
    if (threads && *threads && !whole(threads, 0, MAX_THREADS, &n))
        return tt_fail(e, TT_EINVAL, "TUTTI_THREADS is '%.40s', must be a whole number in 0..%d",
                       threads, MAX_THREADS);
    a->threads = (int)n;
    return TT_OK;
}

tt_status tt_option_model(const char *model, tt_model_place *out, tt_err *e)
{
    if (model)
        return tt_models_dir_find(model, out, e);
    tt_model_place *all;
    size_t n;
    tt_status s = tt_models_dir_list(&all, &n, e);
    if (s)
        return s;
    if (n == 0)
        return tt_fail(e, TT_EINVAL,
                       "no model was found: give one with --model FOLDER, or set "
                       "TUTTI_MODELS to a folder of models");
    *out = all[0];
    free(all);
    return TT_OK;
}

/* arg: the model's id. */
static void show_progress(void *arg, double done)
{
    fprintf(stderr, "\rloading %s %3.0f %%", (const char *)arg, done * 100);
}

tt_status tt_load_model(tt_engine *g, const tt_model_place *place, const tt_engine_args *a,
                        tt_err *e)
{
    char id[sizeof place->id];
    snprintf(id, sizeof id, "%s", place->id);
    bool terminal = isatty(STDERR_FILENO);
    tt_status s = tt_engine_add_model(g, id, place->folder, a->weights,
                                      terminal ? show_progress : NULL, id, e);
    if (terminal)
        fputs("\r\033[K", stderr);
    return s;
}

tt_status tt_open_served(tt_engine **g, const tt_served **served, const tt_model_place *place,
                         const tt_engine_args *a, tt_err *e)
{
    *g = NULL;
    tt_engine_options options = {.device = a->device, .threads = a->threads};
    tt_status s = tt_engine_open(g, &options, e);
    if (s)
        return s;
    s = tt_load_model(*g, place, a, e);
    if (s) {
        tt_engine_close(*g);
        *g = NULL;
        return s;
    }
    *served = tt_engine_find(*g, place->id);
    if (!(*served)->verifier)
        return TT_OK;
    tt_engine_close(*g);
    *g = NULL;
    return tt_fail(e, TT_EINVAL,
                   "model '%.80s' is a verifier: it scores what others make, in searches",
                   place->id);
}
