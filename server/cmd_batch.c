/* cmd_batch.c - `tutti batch`: answers a file of requests, many at once.
 *
 * Lines are read as room comes free in a window of requests, so the step batch stays full while
 * memory stays bounded; answers are written as they come, each with one flush, so that --resume
 * loses nothing but what was being computed. */
#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/base/clock.h"
#include "kernels/base/log.h"
#include "server/batch_images.h"
#include "server/batch_lines.h"
#include "server/cmd.h"
#include "server/local.h"

enum { MAX_VERIFIERS = 16 };

typedef struct {
    tt_engine_args engine;
    const char *model, *guide, *input, *output;
    const char *verifier[MAX_VERIFIERS];
    int verifiers;
    int window;
    bool resume, force, quiet;
    tt_batch_images_args images; /* per_class > 0: images, and no input */
} batch_args;

enum {
    KEY_GUIDE = 0x300, KEY_RESUME, KEY_FORCE, KEY_WINDOW, KEY_PER_CLASS, KEY_CLASSES, KEY_WITH,
    KEY_VERIFIER,
};

static const struct argp_option options[] = {
    {"model", 'm', "MODEL", 0, "id of a model that comes with the program, or a folder", 1},
    {"guide", KEY_GUIDE, "MODEL", 0, "a causal model that requests may name as their guide", 1},
    {"verifier", KEY_VERIFIER, "MODEL", 0,
     "a verifier that requests may name in their search; may be repeated", 1},
    {"input", 'i', "FILE", 0, "requests, one JSON object a line; - is stdin", 1},
    {"output", 'o', "FILE", 0, "answers, one JSON object a line; - is stdout", 1},
    {"resume", KEY_RESUME, NULL, 0, "continue an output file: answered requests are left out", 2},
    {"force", KEY_FORCE, NULL, 0, "replace an output file", 2},
    {"window", KEY_WINDOW, "N", 0, "requests worked on at the same time (128)", 2},
    {"per-class", KEY_PER_CLASS, "N", 0,
     "instead of an input: so many images of each class of an image model, as PNG files of the "
     "folder --output, or as one NumPy archive if its name ends in .npz", 3},
    {"classes", KEY_CLASSES, "LIST", 0, "names, numbers, ranges of them: 0-9,red apple; all", 3},
    {"with", KEY_WITH, "LABELS", 0, "labels of other groups that go with every class", 3},
    {"seed", 's', "N", 0, "of those images; 0", 3},
    {"set", 'S', "NAME=VALUE", 0, "a parameter of their sampler; may be repeated", 3},
    {"quiet", 'q', NULL, 0, "no progress", 2},
    {0},
};

static error_t end_of_options(const batch_args *a, struct argp_state *state)
{
    if (!a->output || !a->input == !a->images.per_class)
        argp_error(state, "give -o OUTPUT and either -i INPUT or --per-class N");
    if (a->images.per_class && !strcmp(a->output, "-"))
        argp_error(state, "images go to a folder or an archive");
    if (a->resume && a->force)
        argp_error(state, "--resume and --force exclude each other");
    if (a->resume && !strcmp(a->output, "-"))
        argp_error(state, "--resume needs an output file");
    return 0;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    batch_args *a = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &a->engine;
        return 0;
    case 'm':
        a->model = arg;
        return 0;
    case KEY_GUIDE:
        a->guide = arg;
        return 0;
    case KEY_VERIFIER:
        if (a->verifiers == MAX_VERIFIERS)
            argp_error(state, "too many --verifier");
        a->verifier[a->verifiers++] = arg;
        return 0;
    case 'i':
        a->input = arg;
        return 0;
    case 'o':
        a->output = arg;
        return 0;
    case 'q':
        a->quiet = true;
        return 0;
    case KEY_RESUME:
        a->resume = true;
        return 0;
    case KEY_FORCE:
        a->force = true;
        return 0;
    case KEY_PER_CLASS:
        a->images.per_class = tt_option_int(state, "per-class", arg, 1, 1 << 20);
        return 0;
    case KEY_CLASSES:
        a->images.classes = arg;
        return 0;
    case KEY_WITH:
        a->images.with = arg;
        return 0;
    case 's':
        a->images.seed = tt_option_int(state, "seed", arg, 0, TT_JSON_MAX_INT >> 1);
        return 0;
    case 'S':
        if (a->images.sets == TT_BATCH_SETS)
            argp_error(state, "--set is given more than %d times", TT_BATCH_SETS);
        a->images.set[a->images.sets++] = arg;
        return 0;
    case KEY_WINDOW:
        a->window = (int)tt_option_int(state, "window", arg, 1, 4096);
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "'%.60s' is no option; see --help", arg);
        return 0;
    case ARGP_KEY_END:
        return end_of_options(a, state);
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&tt_engine_argp, 0, "Where it runs:", 10}, {0}};
static const struct argp batch_argp = {
    options,
    parse,
    NULL,
    "Answers a file of requests in OpenAI's batch format. The order of the answers is not that of "
    "the requests; custom_id tells which is which. A line that cannot be answered becomes an "
    "answer with an error. Or makes images of each class, for evaluation."
    "\vExamples:\n"
    "  tutti batch -m tutti-text -i requests.jsonl -o answers.jsonl\n"
    "  tutti batch -m tutti-image --per-class 50 -o samples.npz --resume",
    children,
    NULL,
    NULL};

/* --- state --- */

typedef struct {
    tt_batch_line line;
    tt_work *work; /* NULL: the slot is free */
} slot;

typedef struct {
    tt_local local;
    const batch_args *args;
    FILE *in, *out;
    tt_map *seen, *done; /* custom ids read now, and answered by an earlier run */
    slot *slot;
    int window, busy;
    tt_batch_line held; /* read, to be started next; no body: there is none */
    bool exhausted;
    char *text; /* the line being read */
    size_t capacity;
    int64_t lines, total; /* total: 0 when not known */
    int64_t good, bad, before;
    tt_buf answer;
} batch;

/* --- files --- */

static tt_status open_input(batch *b, tt_err *e)
{
    const char *name = b->args->input;
    b->in = strcmp(name, "-") ? fopen(name, "rb") : stdin;
    if (!b->in)
        return tt_fail(e, TT_EIO, "input '%.150s': %s", name, strerror(errno));
    char piece[65536];
    bool ends = true;
    if (b->in == stdin || fseek(b->in, 0, SEEK_END) != 0)
        return TT_OK;
    rewind(b->in);
    for (size_t n; (n = fread(piece, 1, sizeof piece, b->in)) > 0;) {
        for (size_t i = 0; i < n; i++)
            b->total += piece[i] == '\n';
        ends = piece[n - 1] == '\n';
    }
    b->total += !ends;
    if (ferror(b->in))
        return tt_fail(e, TT_EIO, "input '%.150s': %s", name, strerror(errno));
    rewind(b->in);
    return TT_OK;
}

static tt_status resume_output(batch *b, tt_err *e)
{
    const char *name = b->args->output;
    b->out = fopen(name, "r+b");
    if (!b->out && errno == ENOENT)
        b->out = fopen(name, "w+b");
    if (!b->out)
        return tt_fail(e, TT_EIO, "output '%.150s': %s", name, strerror(errno));
    long end;
    tt_status s = tt_batch_read_done(b->out, b->done, &end, &b->before, e);
    if (s)
        return s;
    if (fseek(b->out, end, SEEK_SET) || ftruncate(fileno(b->out), end))
        return tt_fail(e, TT_EIO, "output '%.150s': %s", name, strerror(errno));
    return TT_OK;
}

static tt_status open_output(batch *b, tt_err *e)
{
    const char *name = b->args->output;
    if (b->args->resume)
        return resume_output(b, e);
    b->out = strcmp(name, "-") ? fopen(name, b->args->force ? "wb" : "wbx") : stdout;
    if (!b->out && errno == EEXIST)
        return tt_fail(e, TT_EIO,
                       "output '%.100s' exists: --resume continues it, --force "
                       "replaces it",
                       name);
    if (!b->out)
        return tt_fail(e, TT_EIO, "output '%.150s': %s", name, strerror(errno));
    return TT_OK;
}

static tt_status put_answer(batch *b, tt_err *e)
{
    bool written = !b->answer.failed &&
                   fwrite(b->answer.data, 1, b->answer.size, b->out) == b->answer.size &&
                   fflush(b->out) == 0;
    tt_buf_clear(&b->answer);
    return written ? TT_OK : tt_fail(e, TT_EIO, "writing the output: %s", strerror(errno));
}

static tt_status put_error(batch *b, tt_batch_line *l, const tt_err *why, tt_err *e)
{
    tt_batch_write_error(&b->answer, l, why);
    b->bad++;
    tt_batch_line_free(l);
    return put_answer(b, e);
}

static tt_status put_reply(batch *b, tt_batch_line *l, tt_reply *r, tt_err *e)
{
    tt_batch_write_reply(&b->answer, l, r);
    if (r->status == 200)
        b->good++;
    else
        b->bad++;
    tt_batch_line_free(l);
    tt_buf_free(&r->body);
    return put_answer(b, e);
}

/* --- requests --- */

/* Remembers the custom id. *skip: an earlier run answered it. TT_EINVAL when it came before. */
static tt_status note_id(batch *b, const tt_batch_line *l, bool *skip, tt_err *e)
{
    int32_t old = -1;
    size_t n = strlen(l->custom_id);
    tt_status s = tt_map_put(b->seen, l->custom_id, n, 1, &old, e);
    if (s)
        return s;
    *skip = tt_map_get(b->done, l->custom_id, n) >= 0;
    return old < 0 ? TT_OK
                   : tt_fail_param(e, "custom_id", "invalid_value",
                                   "custom_id '%.60s' was used before", l->custom_id);
}

/* Reads the next request into b->held. A line that is none is answered right here. */
static tt_status read_next(batch *b, tt_err *e)
{
    ssize_t n = getline(&b->text, &b->capacity, b->in);
    if (n <= 0) {
        b->exhausted = true;
        return ferror(b->in) ? tt_fail(e, TT_EIO, "reading the input: %s", strerror(errno)) : TT_OK;
    }
    b->lines++;
    while (n > 0 && strchr("\r\n \t", b->text[n - 1]))
        n--;
    if (n == 0)
        return TT_OK; /* an empty line says nothing */

    tt_err why = {0};
    tt_batch_line line;
    bool skip = false;
    tt_status s = tt_batch_line_read(&line, b->lines, b->text, (size_t)n, &why);
    if (!s)
        s = note_id(b, &line, &skip, &why);
    if (s)
        return put_error(b, &line, &why, e);
    if (skip)
        tt_batch_line_free(&line);
    else
        b->held = line;
    return TT_OK;
}

static slot *free_slot(batch *b)
{
    for (int i = 0; i < b->window; i++)
        if (!b->slot[i].work)
            return &b->slot[i];
    return NULL;
}

/* Hands the held request to the engine; it stays held when the queue is full. */
static tt_status start_held(batch *b, bool *full, tt_err *e)
{
    tt_err why = {0};
    tt_work *w = NULL;
    tt_body body = {.data = b->held.body, .bytes = strlen(b->held.body),
                    .arrived_ns = tt_now_ns()};
    tt_status s = tt_work_read(&w, &b->local.api, b->held.route, &body, &why);
    if (!s)
        s = tt_work_submit(w, tt_local_wake, &b->local, NULL, &why);
    *full = s == TT_EBUSY && b->busy > 0;
    if (s)
        tt_work_free(w);
    if (*full)
        return TT_OK;
    if (s) {
        tt_reply r = {0};
        tt_reply_error(&r, &why);
        return put_reply(b, &b->held, &r, e);
    }
    *free_slot(b) = (slot){.line = b->held, .work = w};
    b->held = (tt_batch_line){0};
    b->busy++;
    return TT_OK;
}

static tt_status fill(batch *b, tt_err *e)
{
    tt_status s = TT_OK;
    bool full = false;
    while (!s && !full && b->busy < b->window && !(b->exhausted && !b->held.body))
        s = b->held.body ? start_held(b, &full, e) : read_next(b, e);
    return s;
}

static tt_status harvest(batch *b, tt_err *e)
{
    tt_status s = TT_OK;
    for (int i = 0; !s && i < b->window; i++) {
        slot *at = &b->slot[i];
        if (!at->work || !tt_work_poll(at->work))
            continue;
        tt_reply r = {0};
        tt_work_answer(at->work, &r);
        tt_work_free(at->work);
        at->work = NULL;
        b->busy--;
        s = put_reply(b, &at->line, &r, e);
    }
    return s;
}

/* --- progress --- */

static void progress(const batch *b, int64_t start_ms, bool last)
{
    if (b->args->quiet || !isatty(STDERR_FILENO))
        return;
    double seconds = (double)(tt_now_ms() - start_ms) / 1000;
    int64_t answered = b->good + b->bad, read = b->lines - b->busy;
    int width = 30, filled = b->total ? (int)(read * width / b->total) : 0;
    fprintf(stderr, "\r\033[K");
    if (b->total) {
        for (int i = 0; i < width; i++)
            fputs(i < filled ? "\xE2\x96\x88" : "\xE2\x96\x91", stderr);
        fprintf(stderr, " %3lld %%  ", (long long)(read * 100 / b->total));
    }
    fprintf(stderr, "%lld answered, %lld failed, %d running, %.1f a second%s", (long long)answered,
            (long long)b->bad, b->busy, seconds > 0 ? (double)answered / seconds : 0,
            last ? "\n" : "");
}

static tt_status work(batch *b, tt_err *e)
{
    uint64_t seen = 0;
    int64_t start_ms = tt_now_ms(), shown_ms = 0;
    tt_status s = TT_OK;
    for (;;) {
        s = fill(b, e);
        if (!s)
            s = harvest(b, e);
        if (s || (b->exhausted && !b->held.body && !b->busy))
            break;
        if (tt_now_ms() - shown_ms >= 100) {
            progress(b, start_ms, false);
            shown_ms = tt_now_ms();
        }
        if (b->busy)
            tt_local_wait(&b->local, &seen, 200);
    }
    progress(b, start_ms, true);
    double seconds = (double)(tt_now_ms() - start_ms) / 1000;
    fprintf(stderr, "%lld answered, %lld of them with an error, in %.1f s",
            (long long)(b->good + b->bad), (long long)b->bad, seconds);
    if (b->args->resume)
        fprintf(stderr, "; %lld were there already", (long long)b->before);
    fputc('\n', stderr);
    return s;
}

/* --- all of it --- */

static tt_status open_all(batch *b, tt_err *e)
{
    b->window = b->args->window;
    b->slot = calloc((size_t)b->window, sizeof *b->slot);
    if (!b->slot)
        return tt_fail(e, TT_ENOMEM, "no memory for a window of %d requests", b->window);
    tt_status s = tt_map_open(&b->seen, 1024, e);
    if (!s)
        s = tt_map_open(&b->done, 1024, e);
    return s ? s : open_input(b, e);
}

static void close_all(batch *b)
{
    for (int i = 0; b->slot && i < b->window; i++) {
        tt_work_free(b->slot[i].work);
        tt_batch_line_free(&b->slot[i].line);
    }
    tt_batch_line_free(&b->held);
    free(b->slot);
    free(b->text);
    tt_buf_free(&b->answer);
    tt_map_close(b->seen);
    tt_map_close(b->done);
    if (b->in && b->in != stdin)
        fclose(b->in);
}

static tt_status close_output(batch *b, tt_err *e)
{
    if (b->out && b->out != stdout && fclose(b->out))
        return tt_fail(e, TT_EIO, "writing the output: %s", strerror(errno));
    return TT_OK;
}

static tt_status load_verifiers(const batch_args *a, tt_local *l, tt_err *e)
{
    tt_model_place place;
    tt_status s = TT_OK;
    for (int i = 0; i < a->verifiers && !s; i++) {
        s = tt_models_dir_find(a->verifier[i], &place, e);
        if (!s)
            s = tt_load_model(l->engine, &place, &a->engine, e);
    }
    return s;
}

static tt_status run(const batch_args *a, int64_t *bad, tt_err *e)
{
    batch b = {.args = a};
    bool opened = false;
    tt_model_place place, guide;
    tt_status s = tt_option_model(a->model, &place, e);
    if (!s && a->guide)
        s = tt_models_dir_find(a->guide, &guide, e);
    if (!s)
        s = open_all(&b, e);
    if (!s) {
        s = tt_local_open(&b.local, &place, a->guide ? &guide : NULL, &a->engine, e);
        opened = true;
    }
    if (!s)
        s = load_verifiers(a, &b.local, e);
    if (!s)
        s = open_output(&b, e); /* last: a run that cannot start leaves no file behind */
    if (!s)
        s = work(&b, e);
    close_all(&b);
    tt_status closed = close_output(&b, s ? NULL : e);
    if (opened)
        tt_local_close(&b.local);
    *bad = b.bad;
    return s ? s : closed;
}

static tt_status run_images(batch_args *a, tt_err *e)
{
    tt_model_place place;
    tt_local local;
    a->images.output = a->output;
    a->images.resume = a->resume;
    a->images.force = a->force;
    a->images.quiet = a->quiet;
    tt_status s = tt_option_model(a->model, &place, e);
    if (s)
        return s;
    s = tt_local_open(&local, &place, NULL, &a->engine, e);
    if (!s)
        s = tt_batch_images(&local, &a->images, e);
    tt_local_close(&local);
    return s;
}

int tt_cmd_batch(int argc, char **argv)
{
    tt_err err = {0};
    int64_t bad = 0;
    batch_args a = {.window = 128};
    tt_status s = tt_engine_args_init(&a.engine, &err);
    if (!s)
        argp_parse(&batch_argp, argc, argv, 0, NULL, &a);
    tt_log_set_level(TT_LOG_WARN);
    if (!s)
        s = a.images.per_class ? run_images(&a, &err) : run(&a, &bad, &err);
    if (s)
        fprintf(stderr, "tutti batch: %s\n", err.text);
    return s || bad ? 1 : 0;
}
