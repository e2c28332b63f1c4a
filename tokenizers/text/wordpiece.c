/* wordpiece.c - see wordpiece.h. */
#include "tokenizers/text/wordpiece.h"

#include <stdlib.h>
#include <string.h>

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

static tt_status build_trie(tt_wordpiece *w, const tt_vocab *vocab, tt_err *e)
{
    tt_trie_item *item = malloc(((size_t)vocab->n + 1) * sizeof *item);
    if (!item)
        return tt_fail(e, TT_ENOMEM, "no memory for %d tokens", vocab->n);
    size_t n = 0;
    for (int32_t id = 0; id < vocab->n; id++)
        if (tt_vocab_has(vocab, id) && vocab->token[id].bytes)
            item[n++] = (tt_trie_item){vocab->token[id].at, vocab->token[id].bytes, id};
    tt_status st = tt_trie_open(&w->trie, tt_buf_text(&vocab->text), item, n, false, e);
    free(item);
    return st;
}

tt_status tt_wordpiece_open(tt_wordpiece *w, tt_vocab *vocab, const tt_doc *model, tt_err *e)
{
    *w = (tt_wordpiece){.unk = -1};
    const char *prefix = "##";
    size_t prefix_bytes = 2;
    int64_t most = 100;
    tt_status st = tt_text_model_read_vocab(vocab, model, e);
    if (st || (st = read_unk(w, vocab, model, "[UNK]", e)) ||
        (st = tt_doc_get_text(model, "continuing_subword_prefix", &prefix, &prefix_bytes, e)) ||
        (st = tt_doc_get_int(model, "max_input_chars_per_word", 0, INT32_MAX, &most, e)) ||
        (st = build_trie(w, vocab, e)))
        return st;
    w->max_chars = (size_t)most;
    for (size_t i = 0; i < prefix_bytes && w->inside >= 0; i++)
        w->inside = tt_trie_step(&w->trie, w->inside, (unsigned char)prefix[i]);
    return TT_OK;
}

void tt_wordpiece_close(tt_wordpiece *w)
{
    tt_trie_close(&w->trie);
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

/* The longest token that begins at from, and its end; -1 when there is none. */
static int32_t longest_at(const tt_wordpiece *w, const char *piece, size_t n, size_t from,
                          size_t *end)
{
    int32_t node = from ? w->inside : 0, found = -1;
    for (size_t i = from; i < n && node >= 0; i++) {
        node = tt_trie_step(&w->trie, node, (unsigned char)piece[i]);
        if (node >= 0 && w->trie.node[node].value >= 0) {
            found = w->trie.node[node].value;
            *end = i + 1;
        }
    }
    return found;
}

tt_status tt_wordpiece_encode(const tt_wordpiece *w, const char *piece, size_t n, tt_ids *out,
                              tt_err *e)
{
    if (more_chars(piece, n, w->max_chars))
        return add_unk(w, out, e);
    size_t before = out->count;
    for (size_t from = 0; from < n;) {
        int32_t id = longest_at(w, piece, n, from, &from);
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
