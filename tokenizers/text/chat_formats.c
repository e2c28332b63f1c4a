/* chat_formats.c - the chat formats known natively, and how a Jinja template is recognised as one
 * of them. Templates are compared by their marks, never run; a ChatML template that puts an
 * unknown default system text in front is refused rather than taken for one that puts none. */
#include <string.h>

#include "tokenizers/text/chat.h"
#include "tokenizers/text/tok.h"

#define CHATML(format_name, system_text)                                                    \
    {                                                                                       \
        .name = (format_name), .prefix = "", .default_system = (system_text),               \
        .system = {"<|im_start|>system\n", "<|im_end|>\n"},                                 \
        .user = {"<|im_start|>user\n", "<|im_end|>\n"},                                     \
        .assistant = {"<|im_start|>assistant\n", "<|im_end|>\n"},                           \
        .control = {"<|im_start|>", "<|im_end|>"}, .stop = {"<|im_end|>", "<|endoftext|>"}, \
    }

#define HEADER(role)                                                     \
    {                                                                    \
        "<|start_header_id|>" role "<|end_header_id|>\n\n", "<|eot_id|>" \
    }
#define HEADERS(format_name, bos, end)                                                    \
    {                                                                                     \
        .name = (format_name), .prefix = (bos), .trim = true, .system = HEADER("system"), \
        .user = HEADER("user"), .assistant = HEADER("assistant"),                         \
        .control = {(bos), "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"},     \
        .stop = {"<|eot_id|>", (end)},                                                    \
    }

#define BETWEEN(role)                                                \
    {                                                                \
        "<|begin_header|>" role "<|end_header|>\n\n", "<|end_turn|>" \
    }

#define QWEN25_SYSTEM "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
#define QWEN2_SYSTEM  "You are a helpful assistant."

#define LLAMA31_CUTOFF "Cutting Knowledge Date: December 2023"
#define LLAMA31_TODAY  "26 Jul 2024"

enum {
    F_CHATML, F_QWEN2, F_QWEN25, F_DREAM, F_LLADA, F_LLADA2, F_LLAMA3, F_LLAMA31, F_HUGINN,
    FORMATS
};

static const tt_chat_format formats[FORMATS] = {
    [F_CHATML] = CHATML("chatml", NULL),
    [F_QWEN2] = CHATML("qwen2", QWEN2_SYSTEM),
    [F_QWEN25] = CHATML("qwen2.5", QWEN25_SYSTEM),
    [F_DREAM] = CHATML("dream", QWEN2_SYSTEM),
    [F_LLADA] = HEADERS("llada", "<|startoftext|>", "<|endoftext|>"),
    [F_LLAMA3] = HEADERS("llama3", "<|begin_of_text|>", "<|end_of_text|>"),
    /* Llama 3.1 to 3.3 (text): a system turn is always there and begins with two dates. The second
     * is the one that the template falls back on: today's would give the same request another
     * answer tomorrow. */
    [F_LLAMA31] =
        {
            .name = "llama3.1",
            .prefix = "<|begin_of_text|>",
            .first_system = {"<|start_header_id|>system<|end_header_id|>\n\n" LLAMA31_CUTOFF
                             "\nToday Date: " LLAMA31_TODAY "\n\n", "<|eot_id|>"},
            .default_system = "",
            .trim = true,
            .system = HEADER("system"),
            .user = HEADER("user"),
            .assistant = HEADER("assistant"),
            .control = {"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
                        "<|eot_id|>"},
            .stop = {"<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"},
        },
    /* LLaDA-MoE, LLaDA2: the system turn is always there and ends in the thinking switch. */
    [F_LLADA2] =
        {
            .name = "llada2",
            .prefix = "",
            .first_system = {"<role>SYSTEM</role>", "detailed thinking off<|role_end|>"},
            .after_first = "\n",
            .default_system = "",
            .system = {"<role>SYSTEM</role>", "<|role_end|>"},
            .user = {"<role>HUMAN</role>", "<|role_end|>"},
            .assistant = {"<role>ASSISTANT</role>", "<|role_end|>"},
            .control = {"<role>", "</role>", "<|role_end|>"},
            .stop = {"<|role_end|>", "<|endoftext|>"},
        },
    /* Huginn: who answers has the model's name. */
    [F_HUGINN] =
        {
            .name = "huginn",
            .prefix = "<|begin_text|>",
            .trim = true,
            .system = BETWEEN("system"),
            .user = BETWEEN("user"),
            .assistant = BETWEEN("Huginn"),
            .control = {"<|begin_text|>", "<|begin_header|>", "<|end_header|>", "<|end_turn|>"},
            .stop = {"<|end_turn|>", "<|end_text|>", "<|begin_text|>"},
        },
};

static const char *const names[FORMATS + 1] = {"chatml", "qwen2",  "qwen2.5",  "dream",  "llada",
                                               "llada2", "llama3", "llama3.1", "huginn", NULL};

const char *const *tt_chat_names(void)
{
    return names;
}

static bool has_all(const char *text, const char *const mark[], size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strstr(text, mark[i]))
            return false;
    return true;
}

static bool has_any(const char *text, const char *const mark[], size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strstr(text, mark[i]))
            return true;
    return false;
}

#define HAS_ALL(text, ...)                              \
    has_all((text), (const char *const[]){__VA_ARGS__}, \
            sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))
#define HAS_ANY(text, ...)                              \
    has_any((text), (const char *const[]){__VA_ARGS__}, \
            sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

/* The text that a ChatML template writes into a system turn by itself, and its length; NULL when
 * it writes none. Either right behind the system mark, or a sentence set apart: "You are ...". The
 * explanation of tools that Qwen's templates carry is no such text. */
static const char *default_system(const char *tpl, size_t *n)
{
    static const char mark[] = "<|im_start|>system";
    for (const char *p = tpl; (p = strstr(p, mark));) {
        p += sizeof mark - 1;
        size_t newline = !strncmp(p, "\\n", 2) ? 2 : *p == '\n' ? 1 : 0;
        if (newline && p[newline] && !strchr("'\"{<", p[newline])) {
            p += newline;
            *n = strcspn(p, "'\"<{\\\n");
            return p;
        }
    }
    for (const char *p = tpl; (p = strstr(p, "You are ")); p++) {
        if (!strncmp(p, "You are provided with", 21))
            continue;
        *n = strcspn(p, "'\"<{\\\n");
        return p;
    }
    return NULL;
}

static tt_status find_chatml(const tt_chat_format **out, const tt_tok *t, const char *tpl,
                             tt_err *e)
{
    if (HAS_ANY(tpl, "bos_token", "| trim", "|trim", "[INST]", "<|start_header_id|>"))
        return tt_fail(e, TT_EUNSUP,
                       "chat_template is a variant of ChatML this build does not know; name a "
                       "format to use one anyway");
    size_t n = 0;
    const char *system = default_system(tpl, &n);
    if (!system)
        *out = &formats[F_CHATML];
    else if (n == strlen(QWEN25_SYSTEM) && !strncmp(system, QWEN25_SYSTEM, n))
        *out = &formats[F_QWEN25];
    else if (n == strlen(QWEN2_SYSTEM) && !strncmp(system, QWEN2_SYSTEM, n))
        *out = &formats[tt_tok_id(t, "<|beginoftext|>") >= 0 ? F_DREAM : F_QWEN2];
    else
        return tt_fail(e, TT_EUNSUP,
                       "chat_template is ChatML with an unknown default system text, '%.*s'",
                       (int)(n < 80 ? n : 80), system);
    return TT_OK;
}

static tt_status recognise(const tt_chat_format **out, const tt_tok *t, tt_err *e)
{
    const char *tpl = t->chat_template;
    if (HAS_ALL(tpl, "<|im_start|>", "<|im_end|>", "assistant"))
        return find_chatml(out, t, tpl, e);
    if (HAS_ALL(tpl, "<role>", "</role>", "<|role_end|>", "HUMAN", "detailed thinking")) {
        *out = &formats[F_LLADA2];
        return TT_OK;
    }
    if (HAS_ALL(tpl, "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "trim",
                LLAMA31_CUTOFF, "Today Date: ", LLAMA31_TODAY) && !HAS_ANY(tpl, "<|image|>")) {
        *out = &formats[F_LLAMA31];
        return TT_OK;
    }
    if (HAS_ALL(tpl, "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "trim") &&
        !HAS_ANY(tpl, "Cutting Knowledge", "<|image|>")) {
        bool llada = tt_tok_id(t, "<|startoftext|>") >= 0;
        *out = &formats[llada ? F_LLADA : F_LLAMA3];
        return TT_OK;
    }
    if (HAS_ALL(tpl, "<|begin_header|>", "<|end_header|>", "<|end_turn|>", "Huginn", "trim")) {
        *out = &formats[F_HUGINN];
        return TT_OK;
    }
    return tt_fail(e, TT_EUNSUP, "chat_template is of no known format; it begins '%.*s'",
                   (int)strcspn(tpl, "\n") < 60 ? (int)strcspn(tpl, "\n") : 60, tpl);
}

static tt_status check_tokens(const tt_chat_format *f, const tt_tok *t, tt_err *e)
{
    for (size_t i = 0; f->control[i]; i++)
        if (tt_tok_id(t, f->control[i]) < 0)
            return tt_fail(e, TT_EUNSUP,
                           "chat format '%s' needs the token '%s', which this tokenizer lacks",
                           f->name, f->control[i]);
    return TT_OK;
}

tt_status tt_chat_find(const tt_chat_format **out, const tt_tok *t, const char *name, tt_err *e)
{
    *out = NULL;
    const tt_chat_format *found = NULL;
    tt_status st = TT_OK;
    if (name) {
        for (int i = 0; i < FORMATS && !found; i++)
            if (!strcmp(formats[i].name, name))
                found = &formats[i];
        if (!found)
            return tt_fail(e, TT_EINVAL, "unknown chat format '%.40s'", name);
    } else if (t->chat_template) {
        st = recognise(&found, t, e);
    }
    if (!st && found)
        st = check_tokens(found, t, e);
    if (!st)
        *out = found;
    return st;
}
