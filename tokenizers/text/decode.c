/* decode.c - see decode.h. The steps; decode_open.c reads the file, stream.c joins. */
#include "tokenizers/text/decode_steps.h"

#include <string.h>

#include "kernels/base/utf8.h"
#include "tokenizers/text/bytes.h"

static bool starts(const char *text, size_t n, const char *with, size_t bytes)
{
    return n >= bytes && !memcmp(text, with, bytes);
}

/* Appends text with every old replaced by new. */
static void replace_all(tt_buf *out, const char *text, size_t n, const char *old, size_t old_n,
                        const char *new, size_t new_n)
{
    const char *end = text + n, *hit;
    while (old_n && (hit = memmem(text, (size_t)(end - text), old, old_n))) {
        tt_buf_add(out, text, (size_t)(hit - text));
        tt_buf_add(out, new, new_n);
        text = hit + old_n;
    }
    tt_buf_add(out, text, (size_t)(end - text));
}

/* No decoder at all. */
tt_status tt_decode_blank(tt_decode_place *at, const char *text, size_t n, tt_buf *out)
{
    if (!at->first)
        tt_buf_putc(out, ' ');
    tt_buf_add(out, text, n);
    return TT_OK;
}

tt_status tt_decode_byte_level(tt_decode_place *at, const char *text, size_t n, tt_buf *out)
{
    if (at->flags & TT_TOKEN_ADDED || !tt_bytes_read(out, text, n))
        tt_buf_add(out, text, n);
    return TT_OK;
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 32;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int tt_decode_byte_code(const char *text, size_t n)
{
    if (n != 6 || !starts(text, n, "<0x", 3) || text[5] != '>' || hex(text[3]) < 0 ||
        hex(text[4]) < 0)
        return -1;
    return hex(text[3]) << 4 | hex(text[4]);
}

tt_status tt_decode_byte_fallback(tt_decode_place *at, const char *text, size_t n, tt_buf *out)
{
    int byte = tt_decode_byte_code(text, n);
    if (byte >= 0)
        tt_buf_putc(out, (char)byte);
    else
        tt_buf_add(out, text, n);
    at->done = byte >= 0;
    return TT_OK;
}

tt_status tt_decode_metaspace(tt_decode_place *at, const char *text, size_t n, tt_buf *out)
{
    const tt_decode_step *s = at->step;
    bool drop = at->first && s->drop_first;
    replace_all(out, text, n, s->sign, s->sign_bytes, " ", drop ? 0 : 1);
    return TT_OK;
}

tt_status tt_decode_bpe_suffix(tt_decode_place *at, const char *text, size_t n, tt_buf *out)
{
    replace_all(out, text, n, at->step->text, at->step->bytes, " ", at->last ? 0 : 1);
    return TT_OK;
}

tt_status tt_decode_strip(tt_decode_place *at, const char *text, size_t n, tt_buf *out)
{
    const tt_decode_step *s = at->step;
    for (unsigned i = 0; i < s->start && starts(text, n, s->sign, s->sign_bytes); i++) {
        text += s->sign_bytes;
        n -= s->sign_bytes;
    }
    for (unsigned i = 0; i < s->stop && n >= s->sign_bytes &&
                         !memcmp(text + n - s->sign_bytes, s->sign, s->sign_bytes);
         i++)
        n -= s->sign_bytes;
    tt_buf_add(out, text, n);
    return TT_OK;
}

tt_status tt_decode_replace(tt_decode_place *at, const char *text, size_t n, tt_buf *out)
{
    const tt_decode_step *s = at->step;
    tt_regex_scan scan = {.text = text, .bytes = n};
    size_t done = 0;
    for (bool found = true; found;) {
        tt_status st = tt_pattern_next(&s->pattern, at->scratch, &scan, &found, at->e);
        if (st)
            return st;
        if (found) {
            tt_buf_add(out, text + done, scan.start - done);
            tt_buf_add(out, s->text, s->bytes);
            done = scan.end;
        }
    }
    tt_buf_add(out, text + done, n - done);
    return TT_OK;
}

/* English punctuation as BERT's cleaning up joins it; in this order. */
static void clean_up(tt_buf *out, const char *text, size_t n)
{
    static const char *const rules[][2] = {
        {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
        {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
        {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
    };
    tt_buf a = {0}, b = {0};
    tt_buf_add(&a, text, n);
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        tt_buf_clear(&b);
        replace_all(&b, tt_buf_text(&a), a.size, rules[i][0], strlen(rules[i][0]), rules[i][1],
                    strlen(rules[i][1]));
        tt_buf swap = a;
        a = b;
        b = swap;
    }
    tt_buf_add(out, tt_buf_text(&a), a.size);
    out->failed |= a.failed | b.failed;
    tt_buf_free(&a);
    tt_buf_free(&b);
}

tt_status tt_decode_wordpiece(tt_decode_place *at, const char *text, size_t n, tt_buf *out)
{
    const tt_decode_step *s = at->step;
    tt_buf joined = {0};
    if (!at->first && starts(text, n, s->text, s->bytes)) {
        text += s->bytes;
        n -= s->bytes;
    } else if (!at->first) {
        tt_buf_putc(&joined, ' ');
    }
    tt_buf_add(&joined, text, n);
    if (s->cleanup)
        clean_up(out, tt_buf_text(&joined), joined.size);
    else
        tt_buf_add(out, tt_buf_text(&joined), joined.size);
    out->failed |= joined.failed;
    tt_buf_free(&joined);
    return TT_OK;
}

tt_status tt_decode_spm(tt_decode_place *at, const char *text, size_t n, tt_buf *out)
{
    const tt_decode_step *s = at->step;
    if (at->flags & TT_TOKEN_BYTE)
        return tt_decode_byte_fallback(at, text, n, out);
    if (at->flags & TT_TOKEN_UNKNOWN) {
        tt_buf_add(out, s->text, s->bytes);
        return TT_OK;
    }
    if (at->first && s->drop_first && starts(text, n, s->sign, s->sign_bytes)) {
        text += s->sign_bytes;
        n -= s->sign_bytes;
    }
    replace_all(out, text, n, s->sign, s->sign_bytes, " ", 1);
    return TT_OK;
}

tt_status tt_decoder_token(const tt_decoder *dec, const tt_vocab *vocab, tt_scratch *s, int32_t id,
                           bool first, bool last, tt_buf *out, tt_err *e)
{
    const tt_token *t = &vocab->token[id];
    tt_decode_place at = {.scratch = s, .flags = t->flags, .first = first, .last = last, .e = e};
    const char *text = tt_vocab_text(vocab, id);
    size_t n = t->bytes;
    for (int i = 0; i < dec->steps && !at.done; i++) {
        bool end = i + 1 == dec->steps;
        tt_buf *to = end ? out : &s->normal[i & 1];
        if (!end)
            tt_buf_clear(to);
        at.step = &dec->step[i];
        tt_status st = at.step->run(&at, text, n, to);
        if (st)
            return st;
        if (to->failed)
            return tt_fail(e, TT_ENOMEM, "no memory for a token's text");
        if (end)
            return TT_OK;
        text = tt_buf_text(to);
        n = to->size;
    }
    tt_buf_add(out, text, n);
    return out->failed ? tt_fail(e, TT_ENOMEM, "no memory for a token's text") : TT_OK;
}

tt_status tt_decoder_index(const tt_decoder *dec, tt_vocab *vocab, tt_err *e)
{
    tt_scratch s = {0};
    tt_status st = TT_OK;
    for (int32_t id = 0; id < vocab->n && !st; id++) {
        if (!tt_vocab_has(vocab, id))
            continue;
        size_t at = vocab->piece.size;
        st = tt_decoder_token(dec, vocab, &s, id, false, false, &vocab->piece, e);
        if (!st && vocab->piece.size > UINT32_MAX)
            st = tt_fail(e, TT_EFORMAT, "more than 4 GiB of token texts");
        vocab->token[id].piece_at = (uint32_t)at;
        vocab->token[id].piece_bytes = (uint32_t)(vocab->piece.size - at);
    }
    tt_scratch_free(&s);
    return st;
}
