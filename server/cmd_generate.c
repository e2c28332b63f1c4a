/* cmd_generate.c - `tutti generate`: one request from the command line, the text on stdout.
 *
 * The options become the body an HTTP client would send (generate_body.c), which server/api reads;
 * so a seed gives the same text here as over the network. */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/base/clock.h"
#include "kernels/base/log.h"
#include "kernels/base/utf8.h"
#include "server/cmd.h"
#include "server/generate_image.h"
#include "server/local.h"
#include "server/show.h"

enum {
    KEY_CHAT = 0x200,
    KEY_ECHO,
    KEY_GUIDE,
    KEY_IMAGE,
    KEY_INFILL,
    KEY_JSON,
    KEY_MASK,
    KEY_REGEX,
    KEY_SAMPLER,
    KEY_SCHEMA,
    KEY_SHOW,
    KEY_SPECIAL,
    KEY_STOP,
    KEY_SYSTEM
};

static const struct argp_option options[] = {
    {"model", 'm', "MODEL", 0, "id of a model that comes with the program, or a folder", 1},
    {"prompt", 'p', "TEXT", 0,
     "text to continue, the message with --chat, or what an image model shall show; - reads stdin",
     1},
    {"infill", KEY_INFILL, "TEXT", 0,
     "text with holes to fill: [[8]] stands for eight tokens, [[2-8]] for two to eight, [[yes|no]] "
     "for one of these texts; - reads stdin", 1},
    {"chat", KEY_CHAT, NULL, 0, "the prompt is a user's message in the model's chat format", 1},
    {"system", KEY_SYSTEM, "TEXT", 0, "system message for --chat", 1},
    {"output", 'o', "FILE", 0, "where an image goes; default image.png, - is stdout", 1},
    {"image", KEY_IMAGE, "FILE", 0, "a PNG of which a part is made anew: where it, or --mask, is "
     "transparent", 1},
    {"mask", KEY_MASK, "FILE", 0, "a PNG of the same size", 1},
    {"max-tokens", 't', "N", 0, "tokens of the answer's canvas", 2},
    {"seed", 's', "N", 0, "same seed, same text; random when not given", 2},
    {"sampler", KEY_SAMPLER, "NAME", 0, "see `tutti inspect --list`", 2},
    {"guide", KEY_GUIDE, "MODEL", 0, "the causal model that sampler 'guided' asks", 2},
    {"set", 'S', "NAME=VALUE", 0, "a parameter of the sampler; may be repeated", 2},
    {"stop", KEY_STOP, "TEXT", 0, "ends the answer; may be given four times", 2},
    {"regex", KEY_REGEX, "REGEX", 0, "what the whole answer matches", 2},
    {"json-schema", KEY_SCHEMA, "JSON", 0, "the answer is JSON of this schema", 2},
    {"n", 'n', "N", 0, "independent answers, a line --- between them", 2},
    {"special", KEY_SPECIAL, NULL, 0, "special tokens written in the prompt count as such", 2},
    {"echo", KEY_ECHO, NULL, 0, "print the prompt in front of its continuation", 3},
    {"json", KEY_JSON, NULL, 0, "print the whole answer as the REST interface gives it", 3},
    {"show", KEY_SHOW, NULL, 0, "watch the canvas fill in on the terminal", 3},
    {0},
};

static error_t end_of_options(const tt_generate_args *a, struct argp_state *state)
{
    if (!a->prompt && !a->infill && !a->image)
        argp_error(state, "give --prompt TEXT or --infill TEXT");
    if (a->mask && !a->image)
        argp_error(state, "--mask needs --image");
    if (a->prompt && a->infill)
        argp_error(state, "--prompt and --infill exclude each other");
    if (a->infill && a->chat)
        argp_error(state, "--infill and --chat exclude each other");
    if (a->infill && (a->regex || a->schema))
        argp_error(state, "--regex and --json-schema are of answers; --infill has holes");
    if (a->system && !a->chat)
        argp_error(state, "--system needs --chat");
    if (a->show && a->json)
        argp_error(state, "--show and --json exclude each other");
    if (a->show && a->n > 1)
        argp_error(state, "--show shows one answer; leave --n out");
    return 0;
}

static void add(struct argp_state *state, const char *option, const char **list, int *count,
                int max, const char *arg)
{
    if (*count == max)
        argp_error(state, "--%s is given more than %d times", option, max);
    list[(*count)++] = arg;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    tt_generate_args *a = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &a->engine;
        return 0;
    case 'm':
        a->model = arg;
        return 0;
    case 'p':
        a->prompt = arg;
        return 0;
    case 'o':
        a->output = arg;
        return 0;
    case KEY_IMAGE:
        a->image = arg;
        return 0;
    case KEY_MASK:
        a->mask = arg;
        return 0;
    case KEY_INFILL:
        a->infill = arg;
        return 0;
    case KEY_CHAT:
        a->chat = true;
        return 0;
    case KEY_SYSTEM:
        a->system = arg;
        return 0;
    case 't':
        a->max_tokens = tt_option_int(state, "max-tokens", arg, 1, 1 << 20);
        return 0;
    case 's':
        a->seed = tt_option_int(state, "seed", arg, 0, TT_JSON_MAX_INT);
        return 0;
    case 'n':
        a->n = tt_option_int(state, "n", arg, 1, 128);
        return 0;
    case KEY_GUIDE:
        a->guide = arg;
        return 0;
    case KEY_SAMPLER:
        a->sampler = arg;
        return 0;
    case 'S':
        add(state, "set", a->set, &a->sets, TT_GENERATE_SETS, arg);
        return 0;
    case KEY_STOP:
        add(state, "stop", a->stop, &a->stops, TT_GENERATE_STOPS, arg);
        return 0;
    case KEY_REGEX:
        a->regex = arg;
        return 0;
    case KEY_SCHEMA:
        a->schema = arg;
        return 0;
    case KEY_SPECIAL:
        a->special = true;
        return 0;
    case KEY_ECHO:
        a->echo = true;
        return 0;
    case KEY_JSON:
        a->json = true;
        return 0;
    case KEY_SHOW:
        a->show = true;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "'%.60s' is no option; a prompt is given with --prompt", arg);
        return 0;
    case ARGP_KEY_END:
        return end_of_options(a, state);
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&tt_engine_argp, 0, "Where it runs:", 10}, {0}};
static const struct argp generate_argp = {
    options,
    parse,
    NULL,
    "Completes a prompt, answers a message or fills the holes of a text, and prints the text. "
    "With an image model it writes PNG files."
    "\vExamples:\n"
    "  tutti generate --prompt \"roman: 1994 =\" --seed 7\n"
    "  tutti generate --infill \"To be, [[4]] to be\" --show\n"
    "  tutti generate -p - --set threshold=0.8 --sampler threshold < prompt.txt",
    children,
    NULL,
    NULL};

/* --- the answer --- */

/* The text of a choice, wherever the endpoint puts it. */
static const char *choice_text(const cJSON *choice)
{
    const cJSON *text = tt_json_get(choice, "text");
    if (!text)
        text = tt_json_get(tt_json_get(choice, "message"), "content");
    return cJSON_IsString(text) ? text->valuestring : "";
}

static void print_text(const char *text)
{
    size_t n = strlen(text);
    fwrite(text, 1, n, stdout);
    if (n == 0 || text[n - 1] != '\n')
        putchar('\n');
}

/* "9 tokens, 4 forwards, 2.25 tokens a forward, 31 ms" from the extras of an answer. */
static void print_statistics(const cJSON *with_usage, const cJSON *with_extras)
{
    const cJSON *usage = tt_json_get(with_usage, "usage");
    const cJSON *extras = tt_json_get(with_extras, "tutti");
    const cJSON *time = tt_json_get(tt_json_get(extras, "time"), "run_ms");
    const cJSON *tokens = tt_json_get(usage, "completion_tokens");
    const cJSON *nfe = tt_json_get(extras, "nfe"), *seed = tt_json_get(extras, "seed");
    const cJSON *rate = tt_json_get(extras, "tokens_per_forward");
    const char *comma = "";
#define SAY(node, fmt)                                         \
    if (cJSON_IsNumber(node)) {                                \
        fprintf(stderr, "%s" fmt, comma, (node)->valuedouble); \
        comma = ", ";                                          \
    }
    SAY(tokens, "%.0f tokens")
    SAY(nfe, "%.0f forwards")
    SAY(rate, "%.2f tokens a forward")
    SAY(time, "%.0f ms")
    SAY(seed, "seed %.0f")
#undef SAY
    if (*comma)
        fputc('\n', stderr);
}

static tt_status print_answer(const tt_generate_args *a, const tt_reply *r, tt_err *e)
{
    cJSON *body = NULL;
    tt_status s = tt_json_parse(&body, tt_buf_text(&r->body), r->body.size, e);
    if (s)
        return tt_context(e, s, "the answer");
    const cJSON *error = tt_json_get(tt_json_get(body, "error"), "message");
    if (error) {
        s = tt_fail(e, TT_EINVAL, "%s", cJSON_IsString(error) ? error->valuestring : "failed");
    } else if (a->json) {
        print_text(tt_buf_text(&r->body));
    } else {
        const cJSON *choice;
        int i = 0;
        cJSON_ArrayForEach(choice, tt_json_get(body, "choices"))
        {
            if (i++)
                puts("---");
            print_text(choice_text(choice));
        }
        print_statistics(body, body);
    }
    cJSON_Delete(body);
    return s;
}

static tt_status wait_answer(tt_local *l, tt_gen *g, const tt_generate_args *a, tt_err *e)
{
    uint64_t seen = 0;
    while (!tt_gen_poll(g))
        tt_local_wait(l, &seen, -1);
    tt_reply reply = {0};
    tt_gen_answer(g, &reply);
    tt_status s = print_answer(a, &reply, e);
    tt_buf_free(&reply.body);
    return s;
}

/* --- showing it --- */

/* What a streamed answer leaves: its text, and the chunks with extras and with usage. */
typedef struct {
    const char *text; /* in extras */
    cJSON *extras, *usage;
} streamed;

static void keep(cJSON **slot, cJSON *chunk)
{
    cJSON_Delete(*slot);
    *slot = chunk;
}

static tt_status take_chunk(tt_show *show, streamed *out, const char *json, size_t n, tt_err *e)
{
    cJSON *chunk = NULL;
    tt_status s = tt_json_parse(&chunk, json, n, e);
    if (s)
        return tt_context(e, s, "a chunk of the stream");
    const cJSON *error = tt_json_get(tt_json_get(chunk, "error"), "message");
    const cJSON *extras = tt_json_get(chunk, "tutti"), *text = tt_json_get(extras, "text");
    if (error)
        s = tt_fail(e, TT_EINVAL, "%s", cJSON_IsString(error) ? error->valuestring : "failed");
    else
        s = tt_show_add(show, extras, e);
    if (!s && cJSON_IsString(text)) {
        out->text = text->valuestring;
        keep(&out->extras, chunk);
    } else if (!s && tt_json_get(chunk, "usage")) {
        keep(&out->usage, chunk);
    } else {
        cJSON_Delete(chunk);
    }
    return s;
}

/* Server-sent events: "data: {...}\n\n", comments, "data: [DONE]". */
static tt_status take_frames(tt_show *show, streamed *out, const char *text, tt_err *e)
{
    for (const char *end; (end = strstr(text, "\n\n")); text = end + 2) {
        if (strncmp(text, "data: {", 7) != 0)
            continue;
        tt_status s = take_chunk(show, out, text + 6, (size_t)(end - text - 6), e);
        if (s)
            return s;
    }
    return TT_OK;
}

static tt_status play(tt_local *l, tt_gen *g, tt_show *show, streamed *out, tt_err *e)
{
    tt_buf frames = {0};
    tt_status s = TT_OK;
    uint64_t seen = 0;
    bool over = false;
    int64_t next_ms = 0;
    while (!s && (!over || next_ms >= 0)) {
        int64_t again_ms = 0;
        tt_buf_clear(&frames);
        if (!over)
            over = tt_gen_frames(g, tt_now_ms(), &frames, &again_ms);
        s = take_frames(show, out, tt_buf_text(&frames), e);
        next_ms = tt_show_tick(show, tt_now_ms());
        if (!s && (!over || next_ms > 0))
            tt_local_wait(l, &seen, next_ms >= 0 ? next_ms : 1000);
    }
    tt_buf_free(&frames);
    return s;
}

static tt_status show_answer(tt_local *l, tt_gen *g, const tt_generate_args *a, tt_err *e)
{
    tt_show *show = NULL;
    streamed out = {0};
    const char *shown = a->infill ? a->infill : a->chat ? "" : a->prompt;
    tt_status s = tt_show_open(&show, stderr, shown, a->infill != NULL, e);
    if (!s)
        s = play(l, g, show, &out, e);
    tt_show_close(show);
    if (!s) {
        print_text(out.text ? out.text : "");
        print_statistics(out.usage, out.extras);
    }
    cJSON_Delete(out.extras);
    cJSON_Delete(out.usage);
    return s;
}

/* --- all of it --- */

static const tt_endpoint *endpoint(const tt_generate_args *a)
{
    return a->infill ? &tt_endpoint_infill : a->chat ? &tt_endpoint_chat : &tt_endpoint_completions;
}

static tt_status answer(tt_local *l, const tt_generate_args *a, const tt_buf *body, tt_err *e)
{
    tt_gen *g = NULL;
    if (a->output || a->image)
        return tt_fail(e, TT_EINVAL, "--output and --image are for image models; '%s' is none",
                       l->served->id);
    tt_status s =
        tt_gen_read(&g, &l->api, endpoint(a), tt_buf_text(body), body->size, tt_now_ns(), e);
    if (!s)
        s = tt_gen_submit(g, tt_local_wake, l, NULL, e);
    if (!s)
        s = a->show ? show_answer(l, g, a, e) : wait_answer(l, g, a, e);
    tt_gen_free(g);
    return s;
}

/* What can be refused is refused before the model is loaded. */
static tt_status generate(const tt_generate_args *a, tt_err *e)
{
    tt_model_place place, guide;
    tt_buf body = {0};
    tt_status s = tt_option_model(a->model, &place, e);
    if (!s && a->guide)
        s = tt_models_dir_find(a->guide, &guide, e);
    if (!s)
        s = tt_generate_body(&body, a, place.id, a->guide ? guide.id : NULL, e);
    if (!s) {
        tt_local local;
        s = tt_local_open(&local, &place, a->guide ? &guide : NULL, &a->engine, e);
        if (!s)
            s = local.served->image ? tt_generate_image(&local, a, &body, e)
                                    : answer(&local, a, &body, e);
        tt_local_close(&local);
    }
    tt_buf_free(&body);
    return s;
}

static tt_status read_stdin(tt_generate_args *a, tt_err *e)
{
    char piece[4096];
    for (size_t n; (n = fread(piece, 1, sizeof piece, stdin)) > 0;)
        tt_buf_add(&a->input, piece, n);
    if (a->input.failed)
        return tt_fail(e, TT_ENOMEM, "no memory for the prompt");
    if (ferror(stdin))
        return tt_fail(e, TT_EIO, "the prompt could not be read from stdin");
    if (a->input.size && strlen(a->input.data) != a->input.size)
        return tt_fail(e, TT_EINVAL, "the prompt holds a NUL byte");
    return TT_OK;
}

static tt_status check_utf8(const char *option, const char *text, tt_err *e)
{
    size_t n = text ? strlen(text) : 0, good = text ? tt_utf8_valid(text, n) : 0;
    return good == n ? TT_OK
                     : tt_fail(e, TT_EINVAL, "--%s is not UTF-8: byte %zu is wrong", option, good);
}

static tt_status prepare(tt_generate_args *a, tt_err *e)
{
    const char **text = a->infill ? &a->infill : &a->prompt;
    if (*text && !strcmp(*text, "-")) {
        tt_status s = read_stdin(a, e);
        if (s)
            return s;
        *text = tt_buf_text(&a->input);
    }
    tt_status s = check_utf8(a->infill ? "infill" : "prompt", *text, e);
    if (!s)
        s = check_utf8("system", a->system, e);
    if (!s)
        s = check_utf8("regex", a->regex, e);
    for (int i = 0; !s && i < a->stops; i++)
        s = check_utf8("stop", a->stop[i], e);
    if (s)
        return s;
    if (a->show && !isatty(STDERR_FILENO)) {
        fprintf(stderr, "tutti generate: stderr is no terminal, so --show shows nothing\n");
        a->show = false;
    }
    return TT_OK;
}

int tt_cmd_generate(int argc, char **argv)
{
    tt_err err = {0};
    tt_generate_args a = {.seed = -1, .max_tokens = -1, .n = -1};
    tt_status s = tt_engine_args_init(&a.engine, &err);
    if (!s)
        argp_parse(&generate_argp, argc, argv, 0, NULL, &a);
    tt_log_set_level(TT_LOG_WARN);
    if (!s)
        s = prepare(&a, &err);
    if (!s)
        s = generate(&a, &err);
    if (s)
        fprintf(stderr, "tutti generate: %s\n", err.text);
    tt_buf_free(&a.input);
    return s ? 1 : fflush(stdout) ? 1 : 0;
}
