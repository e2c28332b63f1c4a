/* spm.c - SentencePiece's normaliser and its BPE, after the released C++ code (0.1.97). */
#include "tokenizers/text/spm.h"

#include <string.h>

#include "kernels/base/utf8.h"
#include "tokenizers/text/model.h"

#define BLANK_SIGN "\xE2\x96\x81"

size_t tt_spm_user(const tt_trie *user, const char *p, size_t n)
{
    size_t longest = 0;
    int32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        node = tt_trie_step(user, node, (unsigned char)p[i]);
        if (node < 0)
            break;
        if (user->node[node].value >= 0)
            longest = i + 1;
    }
    return longest;
}

/* --- normaliser --- */

/* What stands at the beginning of p becomes *to; returns how many bytes of p that uses up. */
static size_t next_part(const tt_spm *s, const char *p, size_t n, const char **to, size_t *bytes)
{
    size_t used = tt_spm_user(s->user, p, n);
    const char *rule = used ? NULL : tt_charsmap_find(&s->map, p, n, true, &used);
    *to = p;
    if (rule) {
        *to = rule;
        *bytes = strlen(rule);
        return used;
    }
    if (!used)
        used = tt_utf8_length(p, n);
    used = used ? used : 1;
    *bytes = used;
    return used;
}

static void put_blank(const tt_spm *s, tt_buf *out)
{
    tt_buf_puts(out, s->escape ? BLANK_SIGN : " ");
}

static void put_part(const tt_spm *s, tt_buf *out, const char *part, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (part[i] == ' ')
            put_blank(s, out);
        else
            tt_buf_putc(out, part[i]);
    }
}

static void drop_blanks_at_end(const tt_spm *s, tt_buf *out, size_t least)
{
    const char *blank = s->escape ? BLANK_SIGN : " ";
    size_t n = strlen(blank);
    while (out->size >= least + n && !memcmp(out->data + out->size - n, blank, n))
        out->data[out->size -= n] = '\0';
}

tt_status tt_spm_normalize(const tt_spm *s, const char *text, size_t n, tt_buf *out, tt_err *e)
{
    const char *part;
    size_t bytes, at = 0, before = out->size;
    while (s->trim && at < n) {
        size_t used = next_part(s, text + at, n - at, &part, &bytes);
        if (bytes != 1 || *part != ' ')
            break;
        at += used;
    }
    if (at == n)
        return TT_OK;
    if (s->dummy_prefix && !s->as_suffix)
        put_blank(s, out);
    bool after_blank = s->trim;
    while (at < n) {
        at += next_part(s, text + at, n - at, &part, &bytes);
        while (after_blank && bytes && *part == ' ') {
            part++;
            bytes--;
        }
        if (!bytes)
            continue;
        put_part(s, out, part, bytes);
        after_blank = s->trim && part[bytes - 1] == ' ';
    }
    if (s->trim && !out->failed)
        drop_blanks_at_end(s, out, before);
    if (s->dummy_prefix && s->as_suffix)
        put_blank(s, out);
    return out->failed ? tt_fail(e, TT_ENOMEM, "no memory for normalising %zu bytes", n) : TT_OK;
}

void tt_spm_close(tt_spm *s)
{
    tt_charsmap_close(&s->map);
    *s = (tt_spm){0};
}

/* --- BPE: the pair whose joined piece has the highest score goes first --- */

typedef struct {
    uint32_t at, bytes; /* bytes 0: joined into one before it */
    int32_t prev, next;
    bool frozen; /* user-defined: joins with nothing */
} symbol;

typedef struct {
    uint64_t key; /* least first: score from high to low, then position */
    uint32_t bytes;
} entry;

typedef struct {
    const tt_unigram *u;
    const tt_vocab *vocab;
    const char *text;
    symbol *sym;
    entry *heap;
    size_t n;
} merger;

/* Floats in their order as unsigned numbers, the greatest first. */
static uint32_t falling(float x)
{
    uint32_t bits;
    x += 0.0f; /* -0 counts as 0 */
    memcpy(&bits, &x, 4);
    return bits >> 31 ? bits : ~bits & 0x7FFFFFFF;
}

static void push(merger *m, entry x)
{
    size_t i = m->n++;
    for (; i && m->heap[(i - 1) / 2].key > x.key; i = (i - 1) / 2)
        m->heap[i] = m->heap[(i - 1) / 2];
    m->heap[i] = x;
}

static entry pop(merger *m)
{
    entry top = m->heap[0], x = m->heap[--m->n];
    size_t i = 0;
    for (size_t k; (k = 2 * i + 1) < m->n; i = k) {
        if (k + 1 < m->n && m->heap[k + 1].key < m->heap[k].key)
            k++;
        if (m->heap[k].key >= x.key)
            break;
        m->heap[i] = m->heap[k];
    }
    m->heap[i] = x;
    return top;
}

static void push_pair(merger *m, int32_t left)
{
    int32_t right = left < 0 ? -1 : m->sym[left].next;
    if (right < 0 || m->sym[left].frozen || m->sym[right].frozen)
        return;
    uint32_t bytes = m->sym[left].bytes + m->sym[right].bytes;
    if (bytes > m->u->trie.longest)
        return;
    int32_t id = tt_vocab_get(m->vocab, m->text + m->sym[left].at, bytes);
    if (id >= 0)
        push(m, (entry){(uint64_t)falling((float)m->u->score[id]) << 32 | (uint32_t)left, bytes});
}

static int32_t cut_symbols(merger *m, size_t n)
{
    int32_t count = 0;
    for (size_t at = 0; at < n; count++) {
        size_t user = tt_spm_user(&m->u->user, m->text + at, n - at);
        size_t k = user ? user : tt_utf8_length(m->text + at, n - at);
        k = k ? k : 1;
        m->sym[count] = (symbol){(uint32_t)at, (uint32_t)k, count - 1, count + 1, user > 0};
        at += k;
    }
    if (count)
        m->sym[count - 1].next = -1;
    return count;
}

static void join(merger *m)
{
    while (m->n) {
        entry top = pop(m);
        int32_t left = (int32_t)(uint32_t)top.key, right = m->sym[left].next;
        symbol *l = &m->sym[left];
        if (!l->bytes || right < 0 || l->bytes + m->sym[right].bytes != top.bytes)
            continue;
        l->bytes = top.bytes;
        l->next = m->sym[right].next;
        m->sym[right].bytes = 0;
        if (l->next >= 0)
            m->sym[l->next].prev = left;
        push_pair(m, l->prev);
        push_pair(m, left);
    }
}

static tt_status encode_part(const tt_text_model *model, tt_scratch *s, const char *piece, size_t n,
                             tt_ids *out, tt_err *e)
{
    if (n > INT32_MAX / 4)
        return tt_fail(e, TT_EINVAL, "a piece of %zu bytes is too long", n);
    merger m = {.u = &model->unigram, .vocab = &model->vocab, .text = piece};
    m.sym = tt_block_need(&s->symbols, n + 1, sizeof *m.sym);
    m.heap = tt_block_need(&s->heap, 3 * n + 1, sizeof *m.heap);
    if (!m.sym || !m.heap)
        return tt_fail(e, TT_ENOMEM, "no memory for a piece of %zu bytes", n);
    int32_t count = cut_symbols(&m, n);
    for (int32_t i = 0; i + 1 < count; i++)
        push_pair(&m, i);
    join(&m);
    tt_status st = TT_OK;
    for (int32_t i = 0; i >= 0 && i < count && !st;) {
        const symbol *x = &m.sym[i];
        int32_t id = tt_vocab_get(m.vocab, piece + x->at, x->bytes), next = x->next;
        size_t end = x->at + x->bytes;
        if (id >= 0) {
            st = tt_ids_add(out, &id, 1, e);
        } else { /* unknown neighbours are one unknown */
            while (next >= 0 &&
                   tt_vocab_get(m.vocab, piece + m.sym[next].at, m.sym[next].bytes) < 0) {
                end += m.sym[next].bytes;
                next = m.sym[next].next;
            }
            st = tt_unigram_unknown(m.u, m.vocab, piece + x->at, end - x->at, out, e);
        }
        i = next;
    }
    return st;
}

static bool known(const void *vocab, const char *c, size_t n)
{
    return tt_vocab_get(vocab, c, n) >= 0;
}

static tt_status encode_bpe(const tt_text_model *m, tt_scratch *s, const char *piece, size_t n,
                            tt_ids *out, tt_err *e)
{
    for (size_t at = 0, k; at < n; at += k) {
        k = tt_junction_cut(m->unigram.junctions, known, &m->vocab, piece + at, n - at);
        tt_status st = encode_part(m, s, piece + at, k, out, e);
        if (st)
            return st;
    }
    return TT_OK;
}

static tt_status encode_unigram(const tt_text_model *m, tt_scratch *s, const char *piece,
                                size_t bytes, tt_ids *out, tt_err *e)
{
    return tt_unigram_encode(&m->unigram, &m->vocab, s, piece, bytes, out, e);
}

static void close_model(tt_text_model *m)
{
    tt_unigram_close(&m->unigram);
}

const tt_text_model_kind tt_text_model_spm_unigram = {
    .name = "SentencePiece unigram",
    .encode = encode_unigram,
    .close = close_model,
};

const tt_text_model_kind tt_text_model_spm_bpe = {
    .name = "SentencePiece BPE",
    .encode = encode_bpe,
    .close = close_model,
};
