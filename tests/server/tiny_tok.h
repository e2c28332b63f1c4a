/* tiny_tok.h - a byte-level tokenizer whose ids are the bytes themselves, for tests: id 'a' is
 * "a". Above 255 come the control tokens below. */
#ifndef TT_TINY_TOK_H
#define TT_TINY_TOK_H

#include "kernels/base/utf8.h"
#include "tokenizers/text.h"

enum { TINY_MASK = 256, TINY_END, TINY_START, TINY_STOP, TINY_VOCAB };

/* GPT-2's printable stand-in for a byte. */
static inline uint32_t tiny_stand_in(int byte)
{
    int moved = 0;
    for (int b = 0; b < byte; b++)
        moved += !((b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE);
    bool kept = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    return kept ? (uint32_t)byte : 256u + (uint32_t)moved;
}

static inline void tiny_vocab(tt_buf *b)
{
    for (int i = 0; i < 256; i++) {
        char c[5] = {0};
        c[tt_utf8_encode(tiny_stand_in(i), c)] = '\0';
        tt_buf_printf(b, "%s\"%s%s\":%d", i ? "," : "", *c == '"' || *c == '\\' ? "\\" : "", c, i);
    }
}

static inline tt_status tiny_tok_open(tt_tok **out, tt_err *e)
{
    static const char *const control[] = {"<|mask|>", "<|end|>", "<|im_start|>", "<|im_end|>"};
    tt_buf b = {0};
    tt_buf_puts(&b, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[");
    for (int i = 0; i < 4; i++)
        tt_buf_printf(&b,
                      "%s{\"id\":%d,\"content\":\"%s\",\"single_word\":false,\"lstrip\":false,"
                      "\"rstrip\":false,\"normalized\":false,\"special\":true}",
                      i ? "," : "", TINY_MASK + i, control[i]);
    tt_buf_puts(&b, "],\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\","
                    "\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":true},"
                    "\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\","
                    "\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true},"
                    "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"
                    "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,"
                    "\"fuse_unk\":false,\"byte_fallback\":false,\"vocab\":{");
    tiny_vocab(&b);
    tt_buf_puts(&b, "},\"merges\":[]}}");
    static const char config[] = "{\"eos_token\":\"<|im_end|>\",\"pad_token\":\"<|end|>\"}";
    tt_status s = tt_tok_open_text(out, tt_buf_text(&b), b.size, config, sizeof config - 1, e);
    tt_buf_free(&b);
    return s;
}

#endif
