/* bpe_open.c - reads the BPE model of a tokenizer.json. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizers/text/bpe.h"
#include "tokenizers/text/bpe_merge.h"
#include "tokenizers/text/bytes.h"
#include "tokenizers/text/model.h"

static tt_status read_affix(const tt_doc *model, const char *key, char *out, size_t size,
                            size_t *bytes, tt_err *e)
{
    tt_doc d;
    const char *text;
    *bytes = 0;
    tt_status st = tt_doc_find(model, key, &d, e);
    if (st || !d.item)
        return st;
    st = tt_doc_text(&d, &text, bytes, e);
    if (st)
        return st;
    if (*bytes >= size)
        return tt_doc_fail(&d, TT_EFORMAT, e, "longer than %zu bytes", size - 1);
    memcpy(out, text, *bytes + 1);
    return TT_OK;
}

static tt_status read_settings(tt_bpe *b, const tt_vocab *vocab, const tt_doc *model, tt_err *e)
{
    tt_doc d;
    double dropout = 0;
    tt_status st = tt_doc_find(model, "dropout", &d, e);
    if (!st && d.item)
        st = tt_doc_number(&d, &dropout, e);
    if (st)
        return st;
    if (dropout != 0)
        return tt_doc_fail(&d, TT_EUNSUP, e, "random merges (dropout %g) are not supported",
                           dropout);
    const char *unk = NULL;
    size_t unk_bytes = 0;
    if ((st = tt_doc_get_bool(model, "fuse_unk", &b->fuse_unk, e)) ||
        (st = tt_doc_get_bool(model, "byte_fallback", &b->byte_fallback, e)) ||
        (st = tt_doc_get_bool(model, "ignore_merges", &b->ignore_merges, e)) ||
        (st = tt_doc_get_text(model, "unk_token", &unk, &unk_bytes, e)) ||
        (st = read_affix(model, "continuing_subword_prefix", b->prefix, sizeof b->prefix,
                         &b->prefix_bytes, e)) ||
        (st = read_affix(model, "end_of_word_suffix", b->suffix, sizeof b->suffix, &b->suffix_bytes,
                         e)))
        return st;
    b->has_unk = unk != NULL;
    b->unk = unk ? tt_vocab_find(vocab, unk, unk_bytes) : -1;
    return TT_OK;
}

/* "a b" or ["a", "b"]; the string form is split at its one blank. */
static tt_status merge_parts(const tt_doc *d, const char *part[2], size_t bytes[2], tt_err *e)
{
    if (cJSON_IsString(d->item)) {
        size_t n;
        tt_status st = tt_doc_text(d, &part[0], &n, e);
        const char *blank = st ? NULL : memchr(part[0], ' ', n);
        if (!st && (!blank || memchr(blank + 1, ' ', n - (size_t)(blank + 1 - part[0]))))
            return tt_doc_fail(d, TT_EFORMAT, e, "'%s' is not two tokens with a blank between",
                               part[0]);
        if (st)
            return st;
        part[1] = blank + 1;
        bytes[0] = (size_t)(blank - part[0]);
        bytes[1] = n - bytes[0] - 1;
        return TT_OK;
    }
    tt_status st = tt_doc_is_array(d, e);
    if (st)
        return st;
    tt_doc x = tt_doc_first(d);
    for (int i = 0; i < 2; i++, x = tt_doc_next(&x)) {
        if (!x.item)
            return tt_doc_fail(d, TT_EFORMAT, e, "a merge needs two tokens");
        st = tt_doc_text(&x, &part[i], &bytes[i], e);
        if (st)
            return st;
    }
    return x.item ? tt_doc_fail(d, TT_EFORMAT, e, "a merge of more than two tokens") : TT_OK;
}

static void put_merge(tt_bpe *b, tt_merge m)
{
    size_t i = tt_bpe_hash(m.left, m.right) & b->mask;
    while (b->merge[i].rank >= 0 && (b->merge[i].left != m.left || b->merge[i].right != m.right))
        i = (i + 1) & b->mask;
    b->merge[i] = m; /* a pair listed twice counts where it stands last */
}

static tt_status read_merge(tt_bpe *b, const tt_vocab *vocab, const tt_doc *d, tt_buf *joined,
                            tt_err *e)
{
    const char *part[2];
    size_t bytes[2];
    tt_status st = merge_parts(d, part, bytes, e);
    if (st)
        return st;
    tt_merge m = {.rank = d->index};
    size_t skip = b->prefix_bytes < bytes[1] ? b->prefix_bytes : bytes[1];
    tt_buf_clear(joined);
    tt_buf_add(joined, part[0], bytes[0]);
    tt_buf_add(joined, part[1] + skip, bytes[1] - skip);
    if (joined->failed)
        return tt_fail(e, TT_ENOMEM, "no memory for merges");
    m.left = tt_vocab_find(vocab, part[0], bytes[0]);
    m.right = tt_vocab_find(vocab, part[1], bytes[1]);
    m.id = tt_vocab_find(vocab, tt_buf_text(joined), joined->size);
    if (m.left < 0 || m.right < 0 || m.id < 0) {
        int n = (int)(m.left < 0 ? bytes[0] : m.right < 0 ? bytes[1] : joined->size);
        const char *text = m.left < 0 ? part[0] : m.right < 0 ? part[1] : tt_buf_text(joined);
        return tt_doc_fail(d, TT_EFORMAT, e, "token '%.*s' is not in the vocabulary",
                           n < 80 ? n : 80, text);
    }
    put_merge(b, m);
    return TT_OK;
}

static tt_status read_merges(tt_bpe *b, const tt_vocab *vocab, const tt_doc *model, tt_err *e)
{
    tt_doc list;
    tt_status st = tt_doc_need(model, "merges", &list, e);
    if (!st)
        st = tt_doc_is_array(&list, e);
    if (st)
        return st;
    size_t n = (size_t)cJSON_GetArraySize(list.item), slots = 16;
    while (slots < 2 * n)
        slots *= 2;
    b->mask = slots - 1;
    b->merge = malloc(slots * sizeof *b->merge);
    if (!b->merge)
        return tt_fail(e, TT_ENOMEM, "no memory for %zu merges", n);
    for (size_t i = 0; i < slots; i++)
        b->merge[i] = (tt_merge){.rank = -1};
    tt_buf joined = {0};
    for (tt_doc d = tt_doc_first(&list); !st && d.item; d = tt_doc_next(&d))
        st = read_merge(b, vocab, &d, &joined, e);
    tt_buf_free(&joined);
    return st;
}

/* Notes the seams of all merges. Where unknown text or byte tokens take part in merges, or words
 * carry marks at their ends, cutting could change ids: then there are no junctions. */
static tt_status note_junctions(tt_bpe *b, const tt_vocab *vocab, tt_err *e)
{
    if (vocab->byte_level || b->prefix_bytes || b->suffix_bytes)
        return TT_OK;
    b->junctions = calloc(1, sizeof *b->junctions);
    if (!b->junctions)
        return tt_fail(e, TT_ENOMEM, "no memory for merges");
    for (size_t i = 0; i <= b->mask; i++) {
        const tt_merge *m = &b->merge[i];
        uint32_t right = 0;
        if (m->rank < 0)
            continue;
        const char *l = tt_vocab_text(vocab, m->left), *r = tt_vocab_text(vocab, m->right);
        tt_utf8_decode(r, vocab->token[m->right].bytes, &right);
        tt_junction_add(b->junctions, tt_last_char(l, vocab->token[m->left].bytes), right);
        bool odd = m->left == b->unk || m->right == b->unk;
        for (int k = 0; k < 256 && !odd && b->byte_fallback && (*l == '<' || *r == '<'); k++)
            odd = b->fallback[k] >= 0 && (b->fallback[k] == m->left || b->fallback[k] == m->right);
        if (odd) {
            free(b->junctions);
            b->junctions = NULL;
            return TT_OK;
        }
    }
    return TT_OK;
}

/* What spelling looks up for single bytes, once for all. */
static void index_units(tt_bpe *b, const tt_vocab *vocab)
{
    for (int i = 0; i < 256; i++) {
        char text[1 + sizeof b->suffix] = {(char)i}, code[8];
        bool known = vocab->byte_level || i < 128;
        memcpy(text + 1, b->suffix, b->suffix_bytes);
        b->unit[i] = known ? tt_vocab_get(vocab, text, 1) : -1;
        b->unit_end[i] = known ? tt_vocab_get(vocab, text, 1 + b->suffix_bytes) : -1;
        int n = snprintf(code, sizeof code, "<0x%02X>", (unsigned)i);
        b->fallback[i] = tt_vocab_find(vocab, code, (size_t)n);
    }
}

tt_status tt_bpe_open(tt_bpe *b, tt_vocab *vocab, const tt_doc *model, tt_err *e)
{
    *b = (tt_bpe){.unk = -1};
    tt_status st = tt_text_model_read_vocab(vocab, model, e);
    if (!st)
        st = read_settings(b, vocab, model, e);
    if (!st)
        st = read_merges(b, vocab, model, e);
    if (!st) {
        index_units(b, vocab);
        st = note_junctions(b, vocab, e);
    }
    if (st)
        tt_bpe_close(b);
    return st;
}

tt_status tt_bpe_finish(tt_bpe *b, const tt_vocab *vocab, tt_err *e)
{
    b->whole = calloc((size_t)vocab->n + 1, sizeof *b->whole);
    return b->whole ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for %d tokens", vocab->n);
}

void tt_bpe_close(tt_bpe *b)
{
    free(b->merge);
    free(b->whole);
    free(b->junctions);
    *b = (tt_bpe){0};
}
