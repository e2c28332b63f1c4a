/* wordpiece.c - see wordpiece.h. */
#include "tokenizers/text/wordpiece.h"

#include <string.h>

#include "kernels/base/utf8.h"
#include "tokenizers/text/model.h"

static tt_status read_unk(tt_wordpiece *w, const tt_vocab *vocab, const tt_doc *model,
                          const char *usual, tt_err *e)
{
    const char *unk = usual;
    size_t n = strlen(usual);
    tt_status st = tt_doc_get_text(model, "unk_token", &unk, &n, e);
    w->unk = st ? -1 : tt_vocab_find(vocab, unk, n);
    return st;
}

tt_status tt_wordpiece_open(tt_wordpiece *w, tt_vocab *vocab, const tt_doc *model, tt_err *e)
{
    *w = (tt_wordpiece){.unk = -1};
    const char *prefix = "##";
    int64_t most = 100;
    w->prefix_bytes = 2;
    tt_status st = tt_text_model_read_vocab(vocab, model, e);
    if (st || (st = read_unk(w, vocab, model, "[UNK]", e)) ||
        (st = tt_doc_get_text(model, "continuing_subword_prefix", &prefix, &w->prefix_bytes, e)) ||
        (st = tt_doc_get_int(model, "max_input_chars_per_word", 0, INT32_MAX, &most, e)))
        return st;
    if (w->prefix_bytes >= sizeof w->prefix)
        return tt_doc_fail(model, TT_EFORMAT, e, "continuing_subword_prefix is too long");
    memcpy(w->prefix, prefix, w->prefix_bytes);
    w->max_chars = (size_t)most;
    for (int32_t id = 0; id < vocab->n; id++)
        if (vocab->token[id].bytes > w->longest)
            w->longest = vocab->token[id].bytes;
    return TT_OK;
}

static tt_status add_unk(const tt_wordpiece *w, tt_ids *out, tt_err *e)
{
    if (w->unk < 0)
        return tt_fail(e, TT_EFORMAT, "model.unk_token is not in the vocabulary");
    return tt_ids_add(out, &w->unk, 1, e);
}

static bool more_chars(const char *p, size_t n, size_t most)
{
    size_t chars = 0;
    for (size_t i = 0; i < n; i++)
        if (((unsigned char)p[i] & 0xC0) != 0x80 && ++chars > most)
            return true;
    return false;
}

/* The longest token at from, and its end; -1 when none fits. */
static int32_t longest_at(const tt_wordpiece *w, const tt_vocab *vocab, tt_buf *key,
                          const char *piece, size_t n, size_t from, size_t *end)
{
    size_t to = n - from > w->longest ? from + w->longest : n;
    size_t prefix = from ? w->prefix_bytes : 0;
    while (to < n && to > from && ((unsigned char)piece[to] & 0xC0) == 0x80)
        to--;
    tt_buf_clear(key);
    tt_buf_add(key, w->prefix, prefix);
    tt_buf_add(key, piece + from, to - from);
    while (to > from && !key->failed) {
        int32_t id = tt_vocab_get(vocab, tt_buf_text(key), prefix + to - from);
        if (id >= 0) {
            *end = to;
            return id;
        }
        do
            to--;
        while (to > from && ((unsigned char)piece[to] & 0xC0) == 0x80);
    }
    return -1;
}

tt_status tt_wordpiece_encode(const tt_wordpiece *w, const tt_vocab *vocab, tt_scratch *s,
                              const char *piece, size_t n, tt_ids *out, tt_err *e)
{
    if (more_chars(piece, n, w->max_chars))
        return add_unk(w, out, e);
    size_t before = out->count;
    for (size_t from = 0; from < n;) {
        int32_t id = longest_at(w, vocab, &s->key, piece, n, from, &from);
        if (s->key.failed)
            return tt_fail(e, TT_ENOMEM, "no memory for a piece of %zu bytes", n);
        if (id < 0) { /* one part unknown: the whole piece is */
            out->count = before;
            return add_unk(w, out, e);
        }
        tt_status st = tt_ids_add(out, &id, 1, e);
        if (st)
            return st;
    }
    return TT_OK;
}

tt_status tt_wordlevel_open(tt_wordpiece *w, tt_vocab *vocab, const tt_doc *model, tt_err *e)
{
    *w = (tt_wordpiece){.unk = -1};
    tt_status st = tt_text_model_read_vocab(vocab, model, e);
    return st ? st : read_unk(w, vocab, model, "<unk>", e);
}

tt_status tt_wordlevel_encode(const tt_wordpiece *w, const tt_vocab *vocab, const char *piece,
                              size_t n, tt_ids *out, tt_err *e)
{
    int32_t id = tt_vocab_get(vocab, piece, n);
    return id < 0 ? add_unk(w, out, e) : tt_ids_add(out, &id, 1, e);
}
