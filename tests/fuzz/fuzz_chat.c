/* fuzz_chat.c - chat templates and conversations: the input's first line is the chat_template, the
 * rest is what the user says. No input may put a control token into the user's turn. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizers/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char file[] =
    "{\"added_tokens\":[{\"id\":300,\"content\":\"<|im_start|>\",\"special\":true},"
    "{\"id\":301,\"content\":\"<|im_end|>\",\"special\":true},"
    "{\"id\":302,\"content\":\"<role>\",\"special\":false},"
    "{\"id\":303,\"content\":\"</role>\",\"special\":false},"
    "{\"id\":304,\"content\":\"<|role_end|>\",\"special\":false}],"
    "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
    "\"decoder\":{\"type\":\"ByteLevel\"},"
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}";

static void put_json(tt_buf *out, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] < 32 || p[i] == '"' || p[i] == '\\')
            tt_buf_printf(out, "\\u%04x", p[i] ? p[i] : 1);
        else
            tt_buf_putc(out, (char)p[i]);
    }
}

/* The control tokens of this format alone: those of another are ordinary added tokens. */
static int32_t count_controls(const tt_chat_format *f, const tt_ids *ids)
{
    int32_t n = 0, from = strcmp(tt_chat_name(f), "llada2") ? 300 : 302,
            to = from == 300 ? 301 : 304;
    for (size_t i = 0; i < ids->count; i++)
        n += ids->id[i] >= from && ids->id[i] <= to;
    return n;
}

static void talk(const tt_tok *t, const tt_chat_format *f, const uint8_t *text, size_t n)
{
    tt_ids empty = {0}, full = {0};
    tt_err e;
    tt_chat_turn turn = {"user", "", 0};
    if (!tt_chat_encode(f, t, &turn, 1, false, &empty, &e)) {
        turn = (tt_chat_turn){"user", (const char *)text, n};
        if (tt_chat_encode(f, t, &turn, 1, false, &full, &e) ||
            count_controls(f, &full) != count_controls(f, &empty))
            abort();
    }
    tt_ids_free(&empty);
    tt_ids_free(&full);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = size ? memchr(data, '\n', size) : NULL;
    size_t n = end ? (size_t)(end - data) : size;
    tt_buf config = {0};
    tt_tok *t;
    tt_err e;
    tt_buf_puts(&config, "{\"chat_template\":\"");
    put_json(&config, data, n);
    tt_buf_puts(&config, "\"}");
    if (!tt_tok_open_text(&t, file, sizeof file - 1, tt_buf_text(&config), config.size, &e)) {
        const tt_chat_format *f;
        if (!tt_chat_find(&f, t, NULL, &e) && f)
            talk(t, f, data + n, size - n);
        const char *const names[] = {"chatml", "llada2"};
        for (int i = 0; i < 2; i++)
            if (tt_chat_find(&f, t, names[i], &e))
                abort();
            else
                talk(t, f, data, size);
        tt_tok_close(t);
    }
    tt_buf_free(&config);
    return 0;
}
