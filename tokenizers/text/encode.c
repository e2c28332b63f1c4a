/* encode.c - text to ids: added tokens, normaliser, pre-tokeniser, model, post-processor. */
#include <stdlib.h>
#include <string.h>

#include "kernels/base/utf8.h"
#include "tokenizers/text/bytes.h"
#include "tokenizers/text/tok.h"

void tt_ids_free(tt_ids *ids)
{
    free(ids->id);
    *ids = (tt_ids){0};
}

tt_status tt_ids_add(tt_ids *ids, const int32_t *id, size_t n, tt_err *e)
{
    if (n > ids->capacity - ids->count) {
        size_t capacity = ids->capacity ? ids->capacity * 2 : 64;
        while (capacity - ids->count < n && capacity <= SIZE_MAX / 2 / sizeof *id)
            capacity *= 2;
        int32_t *list =
            capacity - ids->count < n ? NULL : realloc(ids->id, capacity * sizeof *list);
        if (!list)
            return tt_fail(e, TT_ENOMEM, "no memory for %zu ids", ids->count + n);
        ids->id = list;
        ids->capacity = capacity;
    }
    for (size_t i = 0; i < n; i++)
        ids->id[ids->count++] = id[i];
    return TT_OK;
}

typedef struct {
    const tt_tok *t;
    tt_scratch scratch;
    tt_ids *out;
    bool special;
    const int32_t *ban;
    size_t bans;
    tt_err *e;
} encoder;

/* A piece that the pre-tokeniser left. */
static tt_status piece(void *to, const char *text, size_t bytes, tt_err *e)
{
    encoder *x = to;
    const tt_text_model *m = &x->t->model;
    if (x->t->split.spelled || x->t->normal.byte_level) {
        tt_buf *raw = &x->scratch.raw;
        tt_buf_clear(raw);
        if (!tt_bytes_read(raw, text, bytes))
            return tt_fail(e, TT_EUNSUP, "a step behind ByteLevel leaves its alphabet");
        if (raw->failed)
            return tt_fail(e, TT_ENOMEM, "no memory for a piece of %zu bytes", bytes);
        text = tt_buf_text(raw);
        bytes = raw->size;
    }
    return m->kind->encode(m, &x->scratch, text, bytes, x->out, e);
}

/* Runs through one text: what added tokens leave goes to rest. */
static tt_status around_added(encoder *x, const tt_trie *trie, tt_piece p,
                              tt_status (*rest)(encoder *x, tt_piece p))
{
    tt_added_scan s = {
        .text = p.text, .bytes = p.bytes, .special = x->special, .ban = x->ban, .bans = x->bans};
    size_t done = 0;
    tt_status st = TT_OK;
    while (!st && tt_added_next(&x->t->added, trie, &s)) {
        if (done < s.start)
            st = rest(x, (tt_piece){p.text + done, s.start - done, p.first && done == 0});
        if (!st)
            st = tt_ids_add(x->out, &s.found->id, 1, x->e);
        done = s.end;
    }
    if (!st && done < p.bytes)
        st = rest(x, (tt_piece){p.text + done, p.bytes - done, p.first && done == 0});
    return st;
}

static tt_status normal_rest(encoder *x, tt_piece p)
{
    tt_split_run r = {
        .split = &x->t->split, .scratch = &x->scratch, .fn = piece, .to = x, .e = x->e};
    return tt_split_text(&r, p);
}

static tt_status raw_rest(encoder *x, tt_piece p)
{
    if (x->t->spm.active) {
        tt_buf *normal = &x->scratch.normal[0];
        tt_buf_clear(normal);
        tt_status bad = tt_spm_normalize(&x->t->spm, p.text, p.bytes, normal, x->e);
        if (bad || !normal->size)
            return bad;
        return piece(x, tt_buf_text(normal), normal->size, x->e);
    }
    tt_status st =
        tt_normal_run(&x->t->normal, &x->scratch, p.text, p.bytes, &p.text, &p.bytes, x->e);
    p.first &= !x->scratch.front_cut;
    return st ? st : around_added(x, &x->t->added.normal, p, normal_rest);
}

static bool well_formed(const char *text, size_t n)
{
    for (size_t i = 0; i < n;) {
        i += tt_uni_ascii(text + i, n - i);
        size_t k = i < n ? tt_utf8_length(text + i, n - i) : 0;
        if (i < n && !k)
            return false;
        i += k;
    }
    return true;
}

static tt_status repair(encoder *x, const char **text, size_t *bytes)
{
    if (well_formed(*text, *bytes))
        return TT_OK;
    tt_utf8_repair(&x->scratch.repaired, *text, *bytes);
    if (x->scratch.repaired.failed)
        return tt_fail(x->e, TT_ENOMEM, "no memory for %zu bytes of text", *bytes);
    *text = tt_buf_text(&x->scratch.repaired);
    *bytes = x->scratch.repaired.size;
    return TT_OK;
}

tt_status tt_tok_encode_without(const tt_tok *t, const char *text, size_t bytes, unsigned flags,
                                const int32_t *ban, size_t bans, tt_ids *out, tt_err *e)
{
    encoder x = {.t = t,
                 .out = out,
                 .special = flags & TT_TOK_PARSE_SPECIAL,
                 .ban = ban,
                 .bans = bans,
                 .e = e};
    bool around = flags & TT_TOK_ADD_SPECIAL;
    size_t before = out->count;
    tt_status st = bytes ? repair(&x, &text, &bytes) : TT_OK;
    if (!st && around)
        st = tt_ids_add(out, t->post.before.id, t->post.before.count, e);
    if (!st && bytes)
        st = around_added(&x, &t->added.raw, (tt_piece){text, bytes, true}, raw_rest);
    if (!st && around)
        st = tt_ids_add(out, t->post.after.id, t->post.after.count, e);
    tt_scratch_free(&x.scratch);
    if (st)
        out->count = before;
    return st;
}

tt_status tt_tok_encode(const tt_tok *t, const char *text, size_t bytes, unsigned flags,
                        tt_ids *out, tt_err *e)
{
    return tt_tok_encode_without(t, text, bytes, flags, NULL, 0, out, e);
}
