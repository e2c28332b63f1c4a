/* unicode.c - see unicode.h. utf8proc gives properties, decompositions of single characters and
 * composition; the order of marks is ours, because utf8proc sorts them in quadratic time. */
#include "tokenizers/text/unicode.h"

#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "kernels/base/utf8.h"
#include "tokenizers/text/unicode_age.h"

static utf8proc_category_t category(uint32_t cp)
{
    return utf8proc_category((utf8proc_int32_t)cp);
}

/* The questions to which the reference has another answer than utf8proc. */
static unsigned age(uint32_t cp)
{
    const size_t n = sizeof tt_uni_age / sizeof *tt_uni_age;
    if (cp < tt_uni_age[0].first)
        return 0;
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (tt_uni_age[mid].last < cp)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < n && cp >= tt_uni_age[lo].first ? tt_uni_age[lo].other : 0;
}

bool tt_uni_space(uint32_t cp)
{
    if (cp < 0x80)
        return cp == ' ' || (cp >= '\t' && cp <= '\r');
    return cp == 0x85 || cp == 0xA0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200A) ||
           cp == 0x2028 || cp == 0x2029 || cp == 0x202F || cp == 0x205F || cp == 0x3000;
}

bool tt_uni_punctuation(uint32_t cp)
{
    if (cp < 0x80)
        return (cp >= 33 && cp <= 47) || (cp >= 58 && cp <= 64) || (cp >= 91 && cp <= 96) ||
               (cp >= 123 && cp <= 126);
    utf8proc_category_t c = category(cp);
    return (c >= UTF8PROC_CATEGORY_PC && c <= UTF8PROC_CATEGORY_PO) != !!(age(cp) & P);
}

bool tt_uni_numeric(uint32_t cp)
{
    if (cp < 0x80)
        return cp >= '0' && cp <= '9';
    utf8proc_category_t c = category(cp);
    return c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO;
}

bool tt_uni_mark(uint32_t cp)
{
    utf8proc_category_t c = category(cp);
    return (c >= UTF8PROC_CATEGORY_MN && c <= UTF8PROC_CATEGORY_ME) != !!(age(cp) & M);
}

bool tt_uni_nonspacing(uint32_t cp)
{
    return (category(cp) == UTF8PROC_CATEGORY_MN) != !!(age(cp) & N);
}

bool tt_uni_control(uint32_t cp)
{
    if (cp == '\t' || cp == '\n' || cp == '\r')
        return false;
    utf8proc_category_t c = category(cp);
    return (c >= UTF8PROC_CATEGORY_CC && c <= UTF8PROC_CATEGORY_CO) != !!(age(cp) & C);
}

bool tt_uni_word(uint32_t cp)
{
    if (cp < 0x80)
        return (cp >= '0' && cp <= '9') || ((cp | 32) >= 'a' && (cp | 32) <= 'z') || cp == '_';
    utf8proc_category_t c = category(cp);
    return (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_NL) || c == UTF8PROC_CATEGORY_PC ||
           cp == 0x200C || cp == 0x200D ||
           (cp >= 0x24B6 && cp <= 0x24E9) || /* circled and squared letters count as letters */
           (cp >= 0x1F130 && cp <= 0x1F149) || (cp >= 0x1F150 && cp <= 0x1F169) ||
           (cp >= 0x1F170 && cp <= 0x1F189);
}

bool tt_uni_cjk(uint32_t cp)
{
    /* 2B920, not 2B820: so it is in the released code. */
    static const uint32_t block[][2] = {{0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},
                                        {0x20000, 0x2A6DF}, {0x2A700, 0x2B73F}, {0x2B740, 0x2B81F},
                                        {0x2B920, 0x2CEAF}, {0x2F800, 0x2FA1F}};
    for (size_t i = 0; i < sizeof block / sizeof *block; i++)
        if (cp >= block[i][0] && cp <= block[i][1])
            return true;
    return false;
}

static void put(tt_buf *out, uint32_t cp)
{
    char c[4];
    tt_buf_add(out, c, tt_utf8_encode(cp, c));
}

void tt_uni_lower(tt_buf *out, uint32_t cp)
{
    if (cp < 0x80)
        tt_buf_putc(out, cp >= 'A' && cp <= 'Z' ? (char)(cp | 32) : (char)cp);
    else if (cp == 0x130) /* the one character whose lower case is two */
        tt_buf_puts(out, "i\xCC\x87");
    else
        put(out, (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp));
}

size_t tt_uni_grapheme(const char *p, size_t n)
{
    uint32_t last, next;
    utf8proc_int32_t state = 0;
    size_t at = tt_utf8_decode(p, n, &last);
    if (!at)
        return n ? 1 : 0;
    while (at < n) {
        size_t k = tt_utf8_decode(p + at, n - at, &next);
        if (!k || utf8proc_grapheme_break_stateful((utf8proc_int32_t)last, (utf8proc_int32_t)next,
                                                   &state))
            break;
        last = next;
        at += k;
    }
    return at;
}

/* --- normal forms --- */

/* Neither changed by NFC nor composing with, or moving before, a character in front of it. */
static bool inert(uint32_t cp)
{
    if (cp < 0x300)
        return true;
    if (cp >= 0x1160 && cp <= 0x11FF) /* Hangul vowels and finals join to what precedes */
        return false;
    const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t)cp);
    return p->combining_class == 0 && p->decomp_seqindex == UINT16_MAX &&
           !(p->category >= UTF8PROC_CATEGORY_MN && p->category <= UTF8PROC_CATEGORY_ME);
}

size_t tt_uni_ascii(const char *p, size_t n)
{
    size_t i = 0;
    for (uint64_t w; i + 8 <= n; i += 8) {
        memcpy(&w, p + i, 8);
        if (w & 0x8080808080808080u)
            break;
    }
    while (i < n && !(p[i] & 0x80))
        i++;
    return i;
}

/* Bytes at the beginning that the form leaves as they are, whatever follows: a character that may
 * be changed takes the one in front of it along. */
static size_t normal_prefix(const char *text, size_t n, tt_uni_form form)
{
    size_t at = tt_uni_ascii(text, n), last = at ? at - 1 : 0;
    if (form == TT_NFC) {
        while (at < n) {
            uint32_t cp;
            size_t k = tt_utf8_decode(text + at, n - at, &cp);
            if (!inert(cp))
                return last;
            last = at;
            at += k ? k : 1;
        }
        return n;
    }
    return at == n ? n : last;
}

bool tt_uni_is_normal(const char *text, size_t n, tt_uni_form form)
{
    return normal_prefix(text, n, form) == n;
}

typedef struct {
    utf8proc_int32_t *cp, *spare; /* spare: for sorting */
    size_t n, room;
} chars;

static bool make_room(chars *c, size_t more)
{
    if (c->n + more <= c->room)
        return true;
    size_t room = (c->n + more) * 2;
    utf8proc_int32_t *cp = realloc(c->cp, room * sizeof *cp);
    if (cp)
        c->cp = cp;
    utf8proc_int32_t *spare = cp ? realloc(c->spare, room * sizeof *spare) : NULL;
    if (!spare)
        return false;
    c->spare = spare;
    c->room = room;
    return true;
}

static unsigned ccc(utf8proc_int32_t cp)
{
    return (unsigned)utf8proc_get_property(cp)->combining_class & 255;
}

/* Stable sort of n marks by combining class. */
static void order_marks(utf8proc_int32_t *mark, utf8proc_int32_t *spare, size_t n)
{
    if (n < 16) {
        for (size_t i = 1; i < n; i++) {
            utf8proc_int32_t m = mark[i];
            size_t k = i;
            for (; k && ccc(mark[k - 1]) > ccc(m); k--)
                mark[k] = mark[k - 1];
            mark[k] = m;
        }
        return;
    }
    size_t at[257] = {0};
    for (size_t i = 0; i < n; i++)
        at[ccc(mark[i]) + 1]++;
    for (int c = 0; c < 256; c++)
        at[c + 1] += at[c];
    for (size_t i = 0; i < n; i++)
        spare[at[ccc(mark[i])]++] = mark[i];
    memcpy(mark, spare, n * sizeof *mark);
}

static void order_all(chars *c)
{
    for (size_t i = 0; i < c->n; i++) {
        size_t from = i;
        while (i < c->n && ccc(c->cp[i]))
            i++;
        if (i - from > 1)
            order_marks(c->cp + from, c->spare, i - from);
    }
}

static tt_status decompose(chars *c, const char *text, size_t n, tt_uni_form form, tt_err *e)
{
    utf8proc_option_t options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
    bool compat = form == TT_NFKC || form == TT_NFKD;
    if (compat)
        options |= UTF8PROC_COMPAT;
    c->n = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        size_t k = tt_utf8_decode(text + i, n - i, &cp);
        utf8proc_ssize_t made = 0;
        if (age(cp) & (compat ? K : D)) {
            if (!make_room(c, 1))
                return tt_fail(e, TT_ENOMEM, "no memory for normalising %zu bytes", n);
            c->cp[c->n++] = (utf8proc_int32_t)cp;
            i += k;
            continue;
        }
        for (size_t want = 4;; want = (size_t)made) { /* at most 18 (U+FDFA) */
            if (!make_room(c, want))
                return tt_fail(e, TT_ENOMEM, "no memory for normalising %zu bytes", n);
            made = utf8proc_decompose_char((utf8proc_int32_t)cp, c->cp + c->n,
                                           (utf8proc_ssize_t)want, options, NULL);
            if (made < 0 || (size_t)made <= want)
                break;
        }
        if (made > 0)
            c->n += (size_t)made;
        i += k ? k : 1;
    }
    return TT_OK;
}

static tt_status normalize_part(chars *c, tt_buf *out, const char *text, size_t n, tt_uni_form form,
                                tt_err *e)
{
    tt_status st = decompose(c, text, n, form, e);
    if (st)
        return st;
    order_all(c);
    if ((form == TT_NFC || form == TT_NFKC) && c->n) {
        utf8proc_ssize_t left = utf8proc_normalize_utf32(c->cp, (utf8proc_ssize_t)c->n,
                                                         UTF8PROC_COMPOSE | UTF8PROC_STABLE);
        c->n = left > 0 ? (size_t)left : 0;
    }
    for (size_t i = 0; i < c->n; i++)
        put(out, (uint32_t)c->cp[i]);
    return TT_OK;
}

/* End of the part that begins at text and must be normalised together: up to an ASCII character
 * (any form), or for NFC up to one that nothing in front of it can touch. */
static size_t part_end(const char *text, size_t n, tt_uni_form form)
{
    uint32_t cp;
    size_t at = tt_utf8_decode(text, n, &cp);
    for (size_t k; at < n; at += k) {
        k = tt_utf8_decode(text + at, n - at, &cp);
        if (cp < 0x80 || (form == TT_NFC && inert(cp)))
            break;
        k = k ? k : 1;
    }
    return at;
}

tt_status tt_uni_normalize(tt_buf *out, const char *text, size_t n, tt_uni_form form, tt_err *e)
{
    chars c = {0};
    tt_status st = TT_OK;
    for (size_t i = 0; i < n && !st;) {
        size_t same = normal_prefix(text + i, n - i, form);
        tt_buf_add(out, text + i, same);
        i += same;
        if (i == n)
            break;
        size_t part = part_end(text + i, n - i, form);
        st = normalize_part(&c, out, text + i, part, form, e);
        i += part;
    }
    free(c.cp);
    free(c.spare);
    if (!st && out->failed)
        st = tt_fail(e, TT_ENOMEM, "no memory for normalising %zu bytes", n);
    return st;
}
