/* normal.c - see normal.h. */
#include "tokenizers/text/normal.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/utf8.h"
#include "tokenizers/text/bytes.h"

/* for each character cp of k bytes at text + i */
#define EACH_CHAR(text, bytes, i, k, cp) \
    for (size_t i = 0, k; i < (bytes) && (k = next_char((text) + i, (bytes)-i, &(cp))) > 0; i += k)

static size_t next_char(const char *p, size_t n, uint32_t *cp)
{
    size_t k = tt_utf8_decode(p, n, cp);
    return k ? k : 1;
}

/* --- the steps --- */

static tt_status run_form(const tt_normal_step *n, tt_scratch *s, const char *text, size_t bytes,
                          tt_buf *out, tt_err *e)
{
    (void)s;
    return tt_uni_normalize(out, text, bytes, n->form, e);
}

static tt_status run_lower(const tt_normal_step *n, tt_scratch *s, const char *text, size_t bytes,
                           tt_buf *out, tt_err *e)
{
    (void)n, (void)s, (void)e;
    uint32_t cp;
    EACH_CHAR(text, bytes, i, k, cp)
    tt_uni_lower(out, cp);
    return TT_OK;
}

static tt_status run_strip(const tt_normal_step *n, tt_scratch *s, const char *text, size_t bytes,
                           tt_buf *out, tt_err *e)
{
    (void)e;
    uint32_t cp;
    size_t from = bytes, to = 0; /* of what is not blank */
    EACH_CHAR(text, bytes, i, k, cp)
    {
        if (tt_uni_space(cp))
            continue;
        if (!to)
            from = i;
        to = i + k;
    }
    if (!n->left)
        from = 0;
    s->front_cut |= from > 0;
    if (!n->right)
        to = bytes;
    if (from < to)
        tt_buf_add(out, text + from, to - from);
    return TT_OK;
}

static tt_status run_strip_accents(const tt_normal_step *n, tt_scratch *s, const char *text,
                                   size_t bytes, tt_buf *out, tt_err *e)
{
    (void)n, (void)e;
    uint32_t cp;
    EACH_CHAR(text, bytes, i, k, cp)
    {
        if (!tt_uni_mark(cp))
            tt_buf_add(out, text + i, k);
        s->front_cut |= out->size == 0;
    }
    return TT_OK;
}

static tt_status run_replace(const tt_normal_step *n, tt_scratch *s, const char *text, size_t bytes,
                             tt_buf *out, tt_err *e)
{
    tt_regex_scan scan = {.text = text, .bytes = bytes};
    size_t done = 0;
    for (bool found = true; found;) {
        tt_status st = tt_pattern_next(&n->pattern, s, &scan, &found, e);
        if (st)
            return st;
        if (found) {
            tt_buf_add(out, text + done, scan.start - done);
            tt_buf_add(out, n->text, n->bytes);
            done = scan.end;
            s->front_cut |= out->size == 0;
        }
    }
    tt_buf_add(out, text + done, bytes - done);
    return TT_OK;
}

static tt_status run_prepend(const tt_normal_step *n, tt_scratch *s, const char *text, size_t bytes,
                             tt_buf *out, tt_err *e)
{
    (void)s, (void)e;
    if (bytes)
        tt_buf_add(out, n->text, n->bytes);
    tt_buf_add(out, text, bytes);
    return TT_OK;
}

static tt_status run_byte_level(const tt_normal_step *n, tt_scratch *s, const char *text,
                                size_t bytes, tt_buf *out, tt_err *e)
{
    (void)n, (void)s, (void)e;
    tt_bytes_spell(out, text, bytes);
    return TT_OK;
}

/* SentencePiece's "nmt" rules: controls vanish, odd separators become blanks. */
static tt_status run_nmt(const tt_normal_step *n, tt_scratch *s, const char *text, size_t bytes,
                         tt_buf *out, tt_err *e)
{
    (void)n, (void)e;
    uint32_t c;
    EACH_CHAR(text, bytes, i, k, c)
    {
        s->front_cut |= i > 0 && out->size == 0;
        if ((c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F ||
            c == 0x9F)
            continue;
        if (c == '\t' || c == '\n' || c == '\f' || c == '\r' || c == 0x1680 ||
            (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
            c == 0xFEFF || c == 0xFFFD)
            tt_buf_putc(out, ' ');
        else
            tt_buf_add(out, text + i, k);
    }
    return TT_OK;
}

static void clean_char(const tt_normal_step *n, tt_buf *out, const char *p, size_t k, uint32_t c)
{
    if (n->clean) {
        if (c == 0 || c == 0xFFFD || tt_uni_control(c))
            return;
        if (tt_uni_space(c)) {
            tt_buf_putc(out, ' ');
            return;
        }
    }
    bool apart = n->cjk && tt_uni_cjk(c);
    if (apart)
        tt_buf_putc(out, ' ');
    tt_buf_add(out, p, k);
    if (apart)
        tt_buf_putc(out, ' ');
}

/* BERT's: clean, set ideographs apart, strip accents, lower the case, in this order. */
static tt_status run_bert(const tt_normal_step *n, tt_scratch *s, const char *text, size_t bytes,
                          tt_buf *out, tt_err *e)
{
    tt_buf a = {0}, b = {0};
    uint32_t c;
    tt_status st = TT_OK;
    EACH_CHAR(text, bytes, i, k, c)
    {
        clean_char(n, &a, text + i, k, c);
        s->front_cut |= a.size == 0;
    }
    const tt_buf *now = &a;
    if (n->accents) {
        st = tt_uni_normalize(&b, tt_buf_text(&a), a.size, TT_NFD, e);
        now = &b;
    }
    EACH_CHAR(tt_buf_text(now), now->size, i, k, c)
    {
        s->front_cut |= i > 0 && out->size == 0;
        if (n->accents && tt_uni_nonspacing(c))
            continue;
        if (n->lower)
            tt_uni_lower(out, c);
        else
            tt_buf_add(out, tt_buf_text(now) + i, k);
    }
    if (a.failed || b.failed)
        out->failed = true;
    tt_buf_free(&a);
    tt_buf_free(&b);
    return st;
}

/* The reference replaces a short grapheme cluster whole by the rule for its shortest prefix, and
 * otherwise goes character by character. */
static tt_status run_precompiled(const tt_normal_step *n, tt_scratch *s, const char *text,
                                 size_t bytes, tt_buf *out, tt_err *e)
{
    (void)e;
    uint32_t cp;
    size_t covered;
    for (size_t i = 0, g; i < bytes; i += g) {
        s->front_cut |= i > 0 && out->size == 0;
        g = tt_uni_grapheme(text + i, bytes - i);
        const char *rule = g < 6 ? tt_charsmap_find(&n->map, text + i, g, false, &covered) : NULL;
        if (rule) {
            tt_buf_puts(out, rule);
            continue;
        }
        EACH_CHAR(text + i, g, at, k, cp)
        {
            rule = tt_charsmap_find(&n->map, text + i + at, k, false, &covered);
            if (rule)
                tt_buf_puts(out, rule);
            else
                tt_buf_add(out, text + i + at, k);
        }
    }
    return TT_OK;
}

/* --- reading --- */

static tt_status keep_text(tt_normal_step *n, const tt_doc *d, const char *key, tt_err *e)
{
    tt_doc m;
    const char *text;
    tt_status st = tt_doc_need(d, key, &m, e);
    if (!st)
        st = tt_doc_text(&m, &text, &n->bytes, e);
    if (st)
        return st;
    n->text = malloc(n->bytes + 1);
    if (!n->text)
        return tt_fail(e, TT_ENOMEM, "no memory for a normaliser");
    memcpy(n->text, text, n->bytes + 1);
    return TT_OK;
}

static tt_status open_strip(tt_normal_step *n, const tt_doc *d, tt_err *e)
{
    n->left = n->right = true;
    tt_status st = tt_doc_get_bool(d, "strip_left", &n->left, e);
    return st ? st : tt_doc_get_bool(d, "strip_right", &n->right, e);
}

static tt_status open_replace(tt_normal_step *n, const tt_doc *d, tt_err *e)
{
    tt_doc m;
    tt_status st = tt_doc_need(d, "pattern", &m, e);
    if (!st)
        st = tt_pattern_open(&n->pattern, &m, e);
    return st ? st : keep_text(n, d, "content", e);
}

static tt_status open_prepend(tt_normal_step *n, const tt_doc *d, tt_err *e)
{
    return keep_text(n, d, "prepend", e);
}

static tt_status open_bert(tt_normal_step *n, const tt_doc *d, tt_err *e)
{
    n->clean = n->cjk = n->lower = true;
    tt_status st = tt_doc_get_bool(d, "clean_text", &n->clean, e);
    if (!st)
        st = tt_doc_get_bool(d, "handle_chinese_chars", &n->cjk, e);
    if (!st)
        st = tt_doc_get_bool(d, "lowercase", &n->lower, e);
    n->accents = n->lower; /* null follows lowercase */
    return st ? st : tt_doc_get_bool(d, "strip_accents", &n->accents, e);
}

static tt_status open_precompiled(tt_normal_step *n, const tt_doc *d, tt_err *e)
{
    tt_doc m;
    const char *text;
    size_t bytes;
    tt_status st = tt_doc_need(d, "precompiled_charsmap", &m, e);
    if (!st)
        st = tt_doc_text(&m, &text, &bytes, e);
    if (st)
        return st;
    char path[120];
    st = tt_charsmap_open_base64(&n->map, text, bytes, e);
    return st ? tt_context(e, st, "%s", tt_doc_path(&m, path, sizeof path)) : TT_OK;
}

static const struct {
    const char *type;
    tt_normal_fn *run;
    tt_status (*open)(tt_normal_step *n, const tt_doc *d, tt_err *e); /* NULL: no settings */
    tt_uni_form form;
} kinds[] = {
    {"NFC", run_form, NULL, TT_NFC},
    {"NFD", run_form, NULL, TT_NFD},
    {"NFKC", run_form, NULL, TT_NFKC},
    {"NFKD", run_form, NULL, TT_NFKD},
    {"Lowercase", run_lower, NULL, 0},
    {"Strip", run_strip, open_strip, 0},
    {"StripAccents", run_strip_accents, NULL, 0},
    {"Replace", run_replace, open_replace, 0},
    {"Prepend", run_prepend, open_prepend, 0},
    {"BertNormalizer", run_bert, open_bert, 0},
    {"Precompiled", run_precompiled, open_precompiled, 0},
    {"Nmt", run_nmt, NULL, 0},
    {"ByteLevel", run_byte_level, NULL, 0},
};

static tt_status open_step(tt_normal *n, const tt_doc *d, int depth, tt_err *e)
{
    const char *type;
    tt_status st = tt_doc_type(d, &type, e);
    if (st)
        return st;
    if (!strcmp(type, "Sequence")) {
        tt_doc list;
        st = depth < TT_MAX_STEPS ? tt_doc_need(d, "normalizers", &list, e)
                                  : tt_doc_fail(d, TT_EUNSUP, e, "nested too deep");
        if (!st)
            st = tt_doc_is_array(&list, e);
        for (tt_doc x = st ? (tt_doc){0} : tt_doc_first(&list); !st && x.item; x = tt_doc_next(&x))
            st = open_step(n, &x, depth + 1, e);
        return st;
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(type, kinds[i].type))
            continue;
        if (n->steps == TT_MAX_STEPS)
            return tt_doc_fail(d, TT_EUNSUP, e, "more than %d normalisers", TT_MAX_STEPS);
        tt_normal_step *step = &n->step[n->steps++];
        step->run = kinds[i].run;
        step->form = kinds[i].form;
        if (step->run == run_byte_level)
            n->byte_level = true;
        return kinds[i].open ? kinds[i].open(step, d, e) : TT_OK;
    }
    return tt_doc_fail(d, TT_EUNSUP, e, "unknown normaliser '%s'", type);
}

tt_status tt_normal_open(tt_normal *n, const tt_doc *d, tt_err *e)
{
    *n = (tt_normal){0};
    tt_status st = d->item ? open_step(n, d, 0, e) : TT_OK;
    if (st)
        tt_normal_close(n);
    return st;
}

void tt_normal_close(tt_normal *n)
{
    for (int i = 0; i < n->steps; i++) {
        tt_pattern_close(&n->step[i].pattern);
        free(n->step[i].text);
        tt_charsmap_close(&n->step[i].map);
    }
    *n = (tt_normal){0};
}

tt_status tt_normal_run(const tt_normal *n, tt_scratch *s, const char *text, size_t bytes,
                        const char **out, size_t *out_bytes, tt_err *e)
{
    s->front_cut = false;
    for (int i = 0; i < n->steps; i++) {
        const tt_normal_step *step = &n->step[i];
        if (step->run == run_form && tt_uni_is_normal(text, bytes, step->form))
            continue;
        tt_buf *to = text == tt_buf_text(&s->normal[0]) ? &s->normal[1] : &s->normal[0];
        tt_buf_clear(to);
        tt_status st = step->run(step, s, text, bytes, to, e);
        if (st)
            return st;
        if (to->failed)
            return tt_fail(e, TT_ENOMEM, "no memory for normalising %zu bytes", bytes);
        text = tt_buf_text(to);
        bytes = to->size;
    }
    *out = text;
    *out_bytes = bytes;
    return TT_OK;
}
