/* added.c - see added.h. */
#include "tokenizers/text/added.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/utf8.h"

/* --- looking --- */

static bool banned(const tt_added_token *t, const tt_added_scan *s)
{
    if (t->special && !s->special)
        return true;
    for (size_t i = 0; i < s->bans; i++)
        if (s->ban[i] == t->id)
            return true;
    return false;
}

static const tt_added_token *longest_at(const tt_added *a, const tt_trie *trie,
                                        const tt_added_scan *s, size_t at, size_t *end)
{
    const tt_added_token *found = NULL;
    int32_t node = 0;
    for (size_t i = at; i < s->bytes; i++) {
        node = tt_trie_step(trie, node, (unsigned char)s->text[i]);
        if (node < 0)
            break;
        int32_t value = trie->node[node].value;
        if (value >= 0 && !banned(&a->token[value], s)) {
            found = &a->token[value];
            *end = i + 1;
        }
    }
    return found;
}

/* The character that ends at text + at. */
static uint32_t char_before(const char *text, size_t at)
{
    size_t from = at - 1;
    while (from && at - from < 4 && ((unsigned char)text[from] & 0xC0) == 0x80)
        from--;
    uint32_t cp;
    tt_utf8_decode(text + from, at - from, &cp);
    return cp;
}

static bool inside_word(const char *text, size_t bytes, size_t start, size_t end)
{
    uint32_t cp;
    if (start && tt_uni_word(char_before(text, start)))
        return true;
    return end < bytes && tt_utf8_decode(text + end, bytes - end, &cp) && tt_uni_word(cp);
}

static size_t blanks_before(const char *text, size_t least, size_t at)
{
    while (at > least && tt_uni_space(char_before(text, at))) {
        at--;
        while (at > least && ((unsigned char)text[at] & 0xC0) == 0x80)
            at--;
    }
    return at;
}

static size_t blanks_after(const char *text, size_t bytes, size_t at)
{
    uint32_t cp;
    for (size_t k; at < bytes; at += k) {
        k = tt_utf8_decode(text + at, bytes - at, &cp);
        if (!k || !tt_uni_space(cp))
            break;
    }
    return at;
}

bool tt_added_next(const tt_added *a, const tt_trie *trie, tt_added_scan *s)
{
    if (!trie->node)
        return false;
    size_t covered = s->end;
    for (size_t at = s->from, end; at < s->bytes;) {
        bool begins = trie->first[(unsigned char)s->text[at]] >= 0;
        const tt_added_token *t = begins ? longest_at(a, trie, s, at, &end) : NULL;
        if (!t) {
            at++;
            continue;
        }
        if (t->single_word && inside_word(s->text, s->bytes, at, end)) {
            at = end;
            continue;
        }
        s->found = t;
        s->from = end;
        s->start = at;
        s->end = end;
        if (t->rstrip) /* the run of blanks that covered ends is looked through once */
            s->end = end < covered ? covered : blanks_after(s->text, s->bytes, end);
        if (t->lstrip)
            s->start = at < covered ? covered : blanks_before(s->text, covered, at);
        if (s->start >= s->end) { /* white space that the token before took already */
            s->end = covered;
            at = end;
            continue;
        }
        return true;
    }
    return false;
}

/* --- reading --- */

tt_status tt_added_open(tt_added *a, tt_err *e)
{
    *a = (tt_added){0};
    return tt_map_open(&a->by_text, 64, e);
}

void tt_added_close(tt_added *a)
{
    for (size_t i = 0; i < a->count; i++)
        free(a->token[i].text);
    free(a->token);
    tt_map_close(a->by_text);
    tt_trie_close(&a->raw);
    tt_trie_close(&a->normal);
    *a = (tt_added){0};
}

int32_t tt_added_id(const tt_added *a, const char *text, size_t bytes)
{
    int32_t i = tt_map_get(a->by_text, text, bytes);
    return i < 0 ? -1 : a->token[i].id;
}

static tt_status keep(tt_added *a, const tt_added_token *token, tt_err *e)
{
    if (a->count == a->room) {
        size_t room = a->room ? a->room * 2 : 64;
        tt_added_token *list = realloc(a->token, room * sizeof *list);
        if (!list)
            return tt_fail(e, TT_ENOMEM, "no memory for %zu added tokens", room);
        a->token = list;
        a->room = room;
    }
    tt_added_token t = *token;
    t.text = malloc(t.bytes + 1);
    if (!t.text)
        return tt_fail(e, TT_ENOMEM, "no memory for an added token");
    memcpy(t.text, token->text, t.bytes);
    t.text[t.bytes] = '\0';
    a->token[a->count++] = t;
    return tt_map_put(a->by_text, t.text, t.bytes, (int32_t)a->count - 1, NULL, e);
}

/* The id must be free, or belong to the same text. Where the model knows the text, its id counts,
 * whatever the list says: so does the reference. */
tt_status tt_added_add(tt_added *a, tt_vocab *vocab, const tt_added_token *token, tt_err *e)
{
    tt_added_token t = *token;
    if (t.bytes == 0 || tt_added_id(a, t.text, t.bytes) >= 0)
        return TT_OK;
    int32_t in_model = tt_vocab_find(vocab, t.text, t.bytes);
    if (in_model >= 0)
        t.id = in_model;
    bool used = tt_vocab_has(vocab, t.id);
    if (used && (vocab->token[t.id].bytes != t.bytes ||
                 memcmp(tt_vocab_text(vocab, t.id), t.text, t.bytes)))
        return tt_fail(e, TT_EFORMAT, "id %d belongs to another token", t.id);
    uint8_t flags = (uint8_t)(TT_TOKEN_ADDED | (t.special ? TT_TOKEN_SPECIAL : 0));
    tt_status st = TT_OK;
    if (used)
        vocab->token[t.id].flags |= flags;
    else
        st = tt_vocab_add(vocab, t.id, t.text, t.bytes, flags, e);
    return st ? st : keep(a, &t, e);
}

static tt_status read_token(tt_added_token *t, const tt_doc *d, tt_err *e)
{
    tt_doc m;
    const char *text;
    tt_status st = tt_doc_need(d, "content", &m, e);
    if (!st)
        st = tt_doc_text(&m, &text, &t->bytes, e);
    if (st)
        return st;
    if (t->bytes > TT_TRIE_LONGEST)
        return tt_doc_fail(&m, TT_EUNSUP, e, "longer than %d bytes", TT_TRIE_LONGEST);
    t->text = (char *)text;
    if ((st = tt_doc_get_bool(d, "special", &t->special, e)))
        return st;
    t->normalized = !t->special;
    if ((st = tt_doc_get_bool(d, "normalized", &t->normalized, e)) ||
        (st = tt_doc_get_bool(d, "single_word", &t->single_word, e)) ||
        (st = tt_doc_get_bool(d, "lstrip", &t->lstrip, e)))
        return st;
    return tt_doc_get_bool(d, "rstrip", &t->rstrip, e);
}

static tt_status enter(tt_added *a, tt_vocab *vocab, const tt_added_token *t, const tt_doc *d,
                       tt_err *e)
{
    char path[120];
    tt_status st = tt_added_add(a, vocab, t, e);
    return st ? tt_context(e, st, "%s", tt_doc_path(d, path, sizeof path)) : TT_OK;
}

tt_status tt_added_read(tt_added *a, tt_vocab *vocab, const tt_doc *list, tt_err *e)
{
    if (!list->item)
        return TT_OK;
    tt_status st = tt_doc_is_array(list, e);
    if (st)
        return st;
    for (tt_doc d = tt_doc_first(list); d.item; d = tt_doc_next(&d)) {
        tt_added_token t = {0};
        tt_doc m;
        int64_t id = 0;
        if ((st = tt_doc_need(&d, "id", &m, e)) ||
            (st = tt_doc_int(&m, 0, TT_VOCAB_MAX - 1, &id, e)) || (st = read_token(&t, &d, e)))
            return st;
        t.id = (int32_t)id;
        if ((st = enter(a, vocab, &t, &d, e)))
            return st;
    }
    return TT_OK;
}

static tt_status id_of_key(const tt_doc *d, int32_t *id, tt_err *e)
{
    char *end;
    long v = strtol(d->key, &end, 10);
    if (*end || end == d->key || v < 0 || v >= TT_VOCAB_MAX)
        return tt_doc_fail(d, TT_EFORMAT, e, "'%s' is not a token id", d->key);
    *id = (int32_t)v;
    return TT_OK;
}

tt_status tt_added_read_config(tt_added *a, tt_vocab *vocab, const tt_doc *object, tt_err *e)
{
    if (!object->item)
        return TT_OK;
    tt_status st = tt_doc_is_object(object, e);
    if (st)
        return st;
    for (tt_doc d = tt_doc_first(object); d.item; d = tt_doc_next(&d)) {
        tt_added_token t = {0};
        if ((st = id_of_key(&d, &t.id, e)) || (st = read_token(&t, &d, e)) ||
            (st = enter(a, vocab, &t, &d, e)))
            return st;
    }
    return TT_OK;
}

/* --- making them findable --- */

/* Items first hold offsets into text, which moves while it grows. */
static tt_status collect(const tt_added *a, const tt_normal *normal, bool normalized,
                         tt_trie_item *item, size_t *n, tt_buf *text, tt_err *e)
{
    tt_scratch s = {0};
    tt_status st = TT_OK;
    *n = 0;
    for (size_t i = 0; i < a->count && !st; i++) {
        const tt_added_token *t = &a->token[i];
        const char *form = t->text;
        size_t bytes = t->bytes;
        if (t->normalized != normalized)
            continue;
        if (normalized)
            st = tt_normal_run(normal, &s, t->text, t->bytes, &form, &bytes, e);
        if (st || bytes == 0)
            continue;
        item[(*n)++] = (tt_trie_item){.at = text->size, .bytes = bytes, .value = (int32_t)i};
        tt_buf_add(text, form, bytes);
    }
    tt_scratch_free(&s);
    return st || !text->failed ? st : tt_fail(e, TT_ENOMEM, "no memory for added tokens");
}

static tt_status build(tt_added *a, tt_trie *trie, const tt_normal *normal, bool normalized,
                       tt_err *e)
{
    size_t n;
    tt_buf text = {0};
    tt_trie_item *item = malloc((a->count + 1) * sizeof *item);
    if (!item)
        return tt_fail(e, TT_ENOMEM, "no memory for added tokens");
    tt_status st = collect(a, normal, normalized, item, &n, &text, e);
    if (!st)
        st = tt_trie_open(trie, tt_buf_text(&text), item, n, false, e);
    free(item);
    tt_buf_free(&text);
    return st;
}

tt_status tt_added_finish(tt_added *a, const tt_normal *normal, tt_err *e)
{
    tt_status st = build(a, &a->raw, normal, false, e);
    return st ? st : build(a, &a->normal, normal, true, e);
}
