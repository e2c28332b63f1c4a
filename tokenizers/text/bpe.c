/* bpe.c - see bpe.h. Encoding; bpe_open.c reads the file. */
#include "tokenizers/text/bpe.h"

#include <string.h>

#include "kernels/base/utf8.h"
#include "tokenizers/text/bpe_merge.h"
#include "tokenizers/text/bytes.h"

enum { SHORT = 48 }; /* characters up to which a linear search beats the heap */

const tt_merge *tt_bpe_merge(const tt_bpe *b, int32_t left, int32_t right)
{
    size_t i = tt_bpe_hash(left, right) & b->mask;
    for (;; i = (i + 1) & b->mask) {
        const tt_merge *m = &b->merge[i];
        if (m->rank < 0)
            return NULL;
        if (m->left == left && m->right == right)
            return m;
    }
}

/* --- joining --- */

/* Joins ids in place; returns how many are left. n <= SHORT. */
static size_t join_short(const tt_bpe *b, int32_t *id, size_t n)
{
    struct {
        int32_t rank, id;
    } pair[SHORT]; /* of id[i] and id[i + 1] */
    for (size_t i = 0; i + 1 < n; i++) {
        const tt_merge *m = tt_bpe_merge(b, id[i], id[i + 1]);
        pair[i].rank = m ? m->rank : INT32_MAX;
        pair[i].id = m ? m->id : -1;
    }
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (pair[i].rank < pair[best].rank)
                best = i;
        if (pair[best].rank == INT32_MAX)
            break;
        id[best] = pair[best].id;
        memmove(id + best + 1, id + best + 2, (n - best - 2) * sizeof *id);
        if (best + 2 < n)
            memmove(pair + best, pair + best + 1, (n - best - 2) * sizeof *pair);
        n--;
        for (size_t i = best ? best - 1 : 0; i <= best && i + 1 < n; i++) {
            const tt_merge *m = tt_bpe_merge(b, id[i], id[i + 1]);
            pair[i].rank = m ? m->rank : INT32_MAX;
            pair[i].id = m ? m->id : -1;
        }
    }
    return n;
}

typedef struct {
    int32_t id; /* -1: joined into one before it */
    int32_t prev, next;
} symbol;

/* Entries are rank << 32 | position: the least is the next merge, leftmost on equal rank. Each
 * join removes one symbol and adds at most two entries, so 3 n entries are enough. */
typedef struct {
    uint64_t *entry;
    size_t n;
} heap;

static void push(heap *h, uint64_t x)
{
    size_t i = h->n++;
    while (i && h->entry[(i - 1) / 2] > x) {
        h->entry[i] = h->entry[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    h->entry[i] = x;
}

static uint64_t pop(heap *h)
{
    uint64_t top = h->entry[0], x = h->entry[--h->n];
    size_t i = 0;
    for (size_t k; (k = 2 * i + 1) < h->n; i = k) {
        if (k + 1 < h->n && h->entry[k + 1] < h->entry[k])
            k++;
        if (h->entry[k] >= x)
            break;
        h->entry[i] = h->entry[k];
    }
    h->entry[i] = x;
    return top;
}

static void push_pair(const tt_bpe *b, heap *h, const symbol *sym, int32_t left)
{
    if (left < 0 || sym[left].next < 0)
        return;
    const tt_merge *m = tt_bpe_merge(b, sym[left].id, sym[sym[left].next].id);
    if (m)
        push(h, (uint64_t)m->rank << 32 | (uint32_t)left);
}

static tt_status join_long(const tt_bpe *b, tt_scratch *s, int32_t *id, size_t *count, tt_err *e)
{
    size_t n = *count;
    if (n > INT32_MAX / 4)
        return tt_fail(e, TT_EINVAL, "a piece of %zu characters is too long", n);
    symbol *sym = tt_block_need(&s->symbols, n, sizeof *sym);
    heap h = {.entry = tt_block_need(&s->heap, 3 * n, sizeof *h.entry)};
    if (!sym || !h.entry)
        return tt_fail(e, TT_ENOMEM, "no memory for a piece of %zu characters", n);
    for (size_t i = 0; i < n; i++)
        sym[i] = (symbol){id[i], (int32_t)i - 1, i + 1 < n ? (int32_t)i + 1 : -1};
    for (size_t i = 0; i + 1 < n; i++)
        push_pair(b, &h, sym, (int32_t)i);
    while (h.n) {
        uint64_t top = pop(&h);
        int32_t left = (int32_t)(uint32_t)top, right = sym[left].next;
        if (sym[left].id < 0 || right < 0)
            continue;
        const tt_merge *m = tt_bpe_merge(b, sym[left].id, sym[right].id);
        if (!m || (uint64_t)m->rank != top >> 32)
            continue; /* a neighbour was joined meanwhile */
        sym[left].id = m->id;
        sym[left].next = sym[right].next;
        sym[right].id = -1;
        if (sym[left].next >= 0)
            sym[sym[left].next].prev = left;
        push_pair(b, &h, sym, sym[left].prev);
        push_pair(b, &h, sym, left);
    }
    *count = 0;
    for (size_t i = 0; i < n; i++)
        if (sym[i].id >= 0)
            id[(*count)++] = sym[i].id;
    return TT_OK;
}

/* --- the characters of a piece --- */

typedef struct {
    const tt_bpe *b;
    const tt_vocab *vocab;
    tt_scratch *s;
    tt_ids *out;
    int32_t unknown; /* an <unk> that may still grow, or -1 */
    tt_err *e;
} speller;

static tt_status spell_unknown(speller *p)
{
    if (!p->b->has_unk)
        return TT_OK; /* the reference drops such characters, too */
    if (p->unknown >= 0 && !p->b->fuse_unk) {
        tt_status st = tt_ids_add(p->out, &p->unknown, 1, p->e);
        if (st)
            return st;
    }
    p->unknown = p->b->unk;
    return p->unknown >= 0 ? TT_OK
                           : tt_fail(p->e, TT_EFORMAT, "model.unk_token is not in the vocabulary");
}

static tt_status spell_bytes(speller *p, const char *text, size_t n, bool *done)
{
    int32_t id[4 + sizeof p->b->prefix + sizeof p->b->suffix];
    *done = false;
    for (size_t i = 0; i < n; i++) {
        id[i] = p->b->fallback[(unsigned char)text[i]];
        if (id[i] < 0)
            return TT_OK;
    }
    *done = true;
    return tt_ids_add(p->out, id, n, p->e);
}

/* One character with its prefix and suffix as the vocabulary's key. */
static const char *decorate(speller *p, const char *c, size_t n, bool first, bool last,
                            size_t *bytes)
{
    tt_buf *key = &p->s->key;
    tt_buf_clear(key);
    if (!first)
        tt_buf_add(key, p->b->prefix, p->b->prefix_bytes);
    tt_buf_add(key, c, n);
    if (last)
        tt_buf_add(key, p->b->suffix, p->b->suffix_bytes);
    *bytes = key->size;
    return tt_buf_text(key);
}

static tt_status spell_one(speller *p, const char *c, size_t n, bool first, bool last)
{
    const tt_bpe *b = p->b;
    bool plain = first || !b->prefix_bytes;
    int32_t id = -1;
    if (n == 1 && plain && (p->vocab->byte_level || !(*c & 0x80))) {
        id = (last ? b->unit_end : b->unit)[(unsigned char)*c];
    } else if (plain && (!last || !b->suffix_bytes)) {
        id = tt_vocab_get(p->vocab, c, n);
    } else {
        size_t bytes;
        const char *key = decorate(p, c, n, first, last, &bytes);
        id = tt_vocab_get(p->vocab, key, bytes);
    }
    if (id >= 0) {
        tt_status st = TT_OK;
        if (p->unknown >= 0)
            st = tt_ids_add(p->out, &p->unknown, 1, p->e);
        p->unknown = -1;
        return st ? st : tt_ids_add(p->out, &id, 1, p->e);
    }
    if (b->byte_fallback) {
        size_t bytes;
        char spelled[4];
        if (p->vocab->byte_level) { /* the character that spells the byte */
            n = tt_utf8_encode(tt_bytes_char((unsigned char)*c), spelled);
            c = spelled;
        }
        const char *key = decorate(p, c, n, first, last, &bytes);
        bool done;
        tt_status st = spell_bytes(p, key, bytes, &done);
        if (st || done)
            return st;
    }
    return spell_unknown(p);
}

/* The usual case: every byte is a token, and words carry no marks. */
static bool spell_plain(speller *p, const char *piece, size_t n)
{
    int32_t id[SHORT];
    if (!p->vocab->byte_level || p->b->prefix_bytes || p->b->suffix_bytes || n > SHORT)
        return false;
    for (size_t i = 0; i < n; i++) {
        id[i] = p->b->unit[(unsigned char)piece[i]];
        if (id[i] < 0)
            return false;
    }
    return tt_ids_add(p->out, id, n, NULL) == TT_OK;
}

static tt_status spell(speller *p, const char *piece, size_t n)
{
    if (spell_plain(p, piece, n))
        return TT_OK;
    for (size_t i = 0, k; i < n; i += k) {
        k = p->vocab->byte_level ? 1 : tt_utf8_length(piece + i, n - i);
        k = k ? k : 1;
        tt_status st = spell_one(p, piece + i, k, i == 0, i + k == n);
        if (st)
            return st;
    }
    return p->unknown >= 0 ? tt_ids_add(p->out, &p->unknown, 1, p->e) : TT_OK;
}

/* The id of the piece taken as one token, or -1. */
static int32_t whole_piece(const tt_bpe *b, const tt_vocab *vocab, tt_scratch *s, const char *piece,
                           size_t n)
{
    if (!b->suffix_bytes)
        return tt_vocab_get(vocab, piece, n);
    tt_buf_clear(&s->key);
    tt_buf_add(&s->key, piece, n);
    tt_buf_add(&s->key, b->suffix, b->suffix_bytes);
    return tt_vocab_get(vocab, tt_buf_text(&s->key), s->key.size);
}

static tt_status encode_part(const tt_bpe *b, const tt_vocab *vocab, tt_scratch *s,
                             const char *piece, size_t n, tt_ids *out, tt_err *e)
{
    int32_t whole = whole_piece(b, vocab, s, piece, n);
    if (whole >= 0 && atomic_load_explicit(&b->whole[whole], memory_order_relaxed) == 1)
        return tt_ids_add(out, &whole, 1, e);

    size_t before = out->count;
    speller p = {.b = b, .vocab = vocab, .s = s, .out = out, .unknown = -1, .e = e};
    tt_status st = spell(&p, piece, n);
    if (st)
        return st;
    size_t count = out->count - before;
    if (count > SHORT)
        st = join_long(b, s, out->id + before, &count, e);
    else if (count > 1)
        count = join_short(b, out->id + before, count);
    if (st)
        return st;
    out->count = before + count;
    if (whole >= 0) {
        bool same = count == 1 && out->id[before] == whole;
        atomic_store_explicit(&b->whole[whole], same ? 1 : 2, memory_order_relaxed);
    }
    return TT_OK;
}

static bool known(const void *vocab, const char *c, size_t n)
{
    return tt_vocab_get(vocab, c, n) >= 0;
}

tt_status tt_bpe_encode(const tt_bpe *b, const tt_vocab *vocab, tt_scratch *s, const char *piece,
                        size_t n, tt_ids *out, tt_err *e)
{
    if (b->ignore_merges) {
        int32_t id = tt_vocab_get(vocab, piece, n);
        if (id >= 0)
            return tt_ids_add(out, &id, 1, e);
    }
    if (!b->junctions)
        return encode_part(b, vocab, s, piece, n, out, e);
    for (size_t at = 0, k; at < n; at += k) {
        k = tt_junction_cut(b->junctions, known, vocab, piece + at, n - at);
        tt_status st = encode_part(b, vocab, s, piece + at, k, out, e);
        if (st)
            return st;
    }
    return TT_OK;
}
