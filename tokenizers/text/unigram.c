/* unigram.c - see unigram.h. */
#include "tokenizers/text/unigram.h"

#include <float.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/base/utf8.h"

#define UNK_PENALTY 10.0 /* an unknown character costs this much more than the rarest token */

static tt_status read_entry(tt_unigram *u, tt_vocab *vocab, tt_trie_item *item, const tt_doc *d,
                            tt_err *e)
{
    tt_status st = tt_doc_is_array(d, e);
    if (st)
        return st;
    const char *text;
    size_t bytes;
    tt_doc x = tt_doc_first(d);
    if (!x.item)
        return tt_doc_fail(d, TT_EFORMAT, e, "must be a text and a score");
    st = tt_doc_text(&x, &text, &bytes, e);
    if (st)
        return st;
    tt_doc y = tt_doc_next(&x);
    if (!y.item)
        return tt_doc_fail(d, TT_EFORMAT, e, "must be a text and a score");
    if ((st = tt_doc_number(&y, &u->score[d->index], e)) ||
        (st = tt_vocab_add(vocab, d->index, text, bytes, 0, e)) ||
        (st = tt_vocab_index(vocab, d->index, text, bytes, NULL, e)))
        return st;
    *item = (tt_trie_item){vocab->token[d->index].at, bytes, d->index};
    return TT_OK;
}

static tt_status read_entries(tt_unigram *u, tt_vocab *vocab, const tt_doc *list, tt_err *e)
{
    int n = cJSON_GetArraySize(list->item);
    if (n > TT_VOCAB_MAX)
        return tt_doc_fail(list, TT_EFORMAT, e, "%d tokens, at most %d are allowed", n,
                           TT_VOCAB_MAX);
    u->score = malloc(((size_t)n + 1) * sizeof *u->score);
    tt_trie_item *item = malloc(((size_t)n + 1) * sizeof *item);
    tt_status st = u->score && item ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for %d tokens", n);
    size_t items = 0;
    double least = DBL_MAX;
    for (tt_doc d = tt_doc_first(list); d.item && !st; d = tt_doc_next(&d)) {
        st = read_entry(u, vocab, &item[items], &d, e);
        if (st)
            break;
        if (u->score[d.index] < least)
            least = u->score[d.index];
        if (item[items].bytes) /* an empty token covers nothing */
            items++;
    }
    u->unk_score = least - UNK_PENALTY;
    if (!st)
        st = tt_trie_open(&u->trie, tt_buf_text(&vocab->text), item, items, true, e);
    free(item);
    return st;
}

void tt_unigram_index_bytes(tt_unigram *u, const tt_vocab *vocab)
{
    for (unsigned i = 0; i < 256; i++) {
        char code[8];
        int n = snprintf(code, sizeof code, "<0x%02X>", i);
        u->fallback[i] = tt_vocab_find(vocab, code, (size_t)n);
    }
}

tt_status tt_unigram_open(tt_unigram *u, tt_vocab *vocab, const tt_doc *model, tt_err *e)
{
    *u = (tt_unigram){.unk = -1};
    tt_doc list;
    tt_status st = tt_doc_need(model, "vocab", &list, e);
    if (!st)
        st = tt_doc_is_array(&list, e);
    if (!st)
        st = read_entries(u, vocab, &list, e);
    int64_t unk = -1;
    if (!st)
        st = tt_doc_get_int(model, "unk_id", 0, vocab->n - 1, &unk, e);
    if (!st)
        st = tt_doc_get_bool(model, "byte_fallback", &u->byte_fallback, e);
    u->unk = (int32_t)unk;
    tt_unigram_index_bytes(u, vocab);
    return st;
}

void tt_unigram_close(tt_unigram *u)
{
    tt_trie_close(&u->trie);
    tt_trie_close(&u->user);
    free(u->score);
    free(u->junctions);
    *u = (tt_unigram){0};
}

/* The best way to spell the text up to a position: where its last token begins. */
typedef struct {
    double score;
    int32_t from; /* -1: not reached */
    int32_t id;
} best;

static void offer(const tt_unigram *u, best *to, double score, int32_t from, int32_t id)
{
    if (to->from >= 0 && score <= to->score)
        return;
    *to = (best){u->single ? (double)(float)score : score, from, id};
}

/* Fills b[0 .. n] from left to right (Viterbi). */
static void spell(const tt_unigram *u, const char *p, size_t n, best *b)
{
    for (size_t i = 0; i <= n; i++)
        b[i] = (best){0, -1, -1};
    for (size_t at = 0, k; at < n; at += k) {
        k = tt_utf8_length(p + at, n - at);
        k = k ? k : 1;
        bool covered = false;
        int32_t node = 0;
        for (size_t i = at; i < n; i++) {
            node = tt_trie_step(&u->trie, node, (unsigned char)p[i]);
            if (node < 0)
                break;
            int32_t id = u->trie.node[node].value;
            if (id < 0)
                continue;
            offer(u, &b[i + 1], u->score[id] + b[at].score, (int32_t)at, id);
            covered |= i + 1 - at == k;
        }
        double unknown = u->unk_score + b[at].score;
        if (!covered)
            offer(u, &b[at + k], u->single ? (double)(float)unknown : unknown, (int32_t)at, u->unk);
    }
}

tt_status tt_unigram_unknown(const tt_unigram *u, const tt_vocab *vocab, const char *p, size_t n,
                             tt_ids *out, tt_err *e)
{
    int32_t id = tt_vocab_get(vocab, p, n); /* several unknown characters may be a token */
    if (id >= 0 && !u->single)
        return tt_ids_add(out, &id, 1, e);
    bool spelled = u->byte_fallback;
    for (size_t i = 0; i < n && spelled; i++)
        spelled = u->fallback[(unsigned char)p[i]] >= 0;
    if (!spelled)
        return u->unk < 0 ? tt_fail(e, TT_EFORMAT, "model.unk_id is missing, but text needs it")
                          : tt_ids_add(out, &u->unk, 1, e);
    for (size_t i = 0; i < n; i++) {
        tt_status st = tt_ids_add(out, &u->fallback[(unsigned char)p[i]], 1, e);
        if (st)
            return st;
    }
    return TT_OK;
}

/* Turns the chain round: afterwards b[i] holds the token that begins at i, and score where it
 * ends. */
static void turn(best *b, size_t n)
{
    int32_t id = b[n].id;
    for (size_t end = n; end;) {
        size_t from = (size_t)b[end].from;
        int32_t before = b[from].id;
        b[from].id = id;
        b[from].score = (double)end;
        id = before;
        end = from;
    }
}

tt_status tt_unigram_encode(const tt_unigram *u, const tt_vocab *vocab, tt_scratch *s,
                            const char *piece, size_t n, tt_ids *out, tt_err *e)
{
    if (n >= INT32_MAX)
        return tt_fail(e, TT_EINVAL, "a piece of %zu bytes is too long", n);
    best *b = tt_block_need(&s->lattice, n + 1, sizeof *b);
    if (!b)
        return tt_fail(e, TT_ENOMEM, "no memory for a piece of %zu bytes", n);
    spell(u, piece, n, b);
    turn(b, n);
    for (size_t at = 0, end; at < n; at = end) {
        end = (size_t)b[at].score;
        int32_t id = b[at].id;
        tt_status st;
        if (id >= 0 && id != u->unk) {
            st = tt_ids_add(out, &id, 1, e);
        } else { /* unknown neighbours are one unknown */
            while (end < n && b[end].id == id)
                end = (size_t)b[end].score;
            st = tt_unigram_unknown(u, vocab, piece + at, end - at, out, e);
        }
        if (st)
            return st;
    }
    return TT_OK;
}
