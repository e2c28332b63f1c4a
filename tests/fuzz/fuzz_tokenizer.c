/* fuzz_tokenizer.c - tokenizer files from strangers: the input is a tokenizer.json, or whatever
 * else a tokenizer may be opened from. When it opens, texts go through it and back. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizers/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const texts[] = {
    "",
    "Hello, world! 123 it's",
    " \t\n  x\r\n\xC2\xA0\xE3\x80\x80",
    "na\xC3\xAFve e\xCC\x81 \xE4\xBD\xA0\xE5\xA5\xBD \xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x92\xBB",
    "\xFF\xC0\x80 \xE4\xBD <|im_start|><s>[CLS]",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
};

static void must(int ok)
{
    if (!ok)
        abort();
}

/* Decoding the ids in one go and as a stream gives the same. */
static void back(const tt_tok *t, const tt_ids *ids, bool skip)
{
    tt_buf whole = {0}, parts = {0};
    tt_tok_stream s = {.skip_special = skip};
    tt_err e;
    if (!tt_tok_decode(t, ids->id, ids->count, skip, &whole, &e)) {
        for (size_t i = 0; i < ids->count; i++)
            must(!tt_tok_stream_add(t, &s, ids->id[i], &parts, &e));
        tt_tok_stream_end(t, &s, &parts);
        must(whole.size == parts.size &&
             !memcmp(tt_buf_text(&whole), tt_buf_text(&parts), whole.size));
    }
    tt_buf_free(&whole);
    tt_buf_free(&parts);
}

static void all_ids(const tt_tok *t)
{
    tt_ids ids = {0};
    size_t n;
    for (int32_t id = 0; id < tt_tok_vocab(t) && id < 3000; id++)
        if (tt_tok_piece(t, id, &n))
            must(!tt_ids_add(&ids, &id, 1, NULL));
    back(t, &ids, false);
    tt_ids_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tt_tok *t;
    tt_err e;
    if (tt_tok_open_text(&t, (const char *)data, size, NULL, 0, &e)) {
        must(e.status != TT_OK && e.text[0]);
        return 0;
    }
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        tt_ids ids = {0};
        if (!tt_tok_encode(t, texts[i], strlen(texts[i]), i % 4, &ids, &e)) {
            back(t, &ids, false);
            back(t, &ids, true);
        }
        tt_ids_free(&ids);
    }
    all_ids(t);
    tt_tok_close(t);
    return 0;
}
