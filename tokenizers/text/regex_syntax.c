/* regex_syntax.c - rewrites an Oniguruma pattern (Ruby dialect) for PCRE2 10.42.
 *
 * The text is copied with replacements; no tree is built. Two things need memory: where the last
 * atom began in the output (a quantifier on a quantifier wraps it into a group), and the groups
 * that are open (an option set in the middle, "a(?i)b|c", becomes a group up to the end of the one
 * around it). A character class becomes one atom that matches one character: [...] when it is
 * flat, else an alternation and look-aheads over flat ones. */
#include <string.h>

#include "kernels/base/utf8.h"
#include "tokenizers/text/regex.h"

/* Unicode's White_Space. PCRE2's \s has U+180E as well. */
#define SPACES                                                                      \
    "\\t-\\r \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}" \
    "\\x{205f}\\x{3000}"
#define HEX_DIGITS "0-9a-fA-F"
#define WORD       "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
/* Outside a class Oniguruma looks Latin-1 characters up in a table of its own, where superscript
 * digits and fractions are word characters. */
#define WORD_ALONE WORD "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"

enum { MAX_GROUPS = 200, MAX_CLASS_DEPTH = 16 };

typedef struct {
    const char *p, *end, *begin;
    tt_buf *out;
    size_t atom;     /* where in out the last atom begins */
    bool has_atom;   /* something is there to repeat */
    bool quantified; /* and it is repeated already */
    struct {
        size_t start; /* of the group in out */
        int extra;    /* groups that option settings opened inside it */
    } group[MAX_GROUPS];
    int groups;
    tt_err *e;
} translator;

static tt_status refuse(const translator *t, tt_status s, const char *what)
{
    return tt_fail(t->e, s, "pattern, byte %zu: %s", (size_t)(t->p - t->begin), what);
}

/* Frees a buffer whose content went into the output; lack of memory shows there. */
static void drop(translator *t, tt_buf *b)
{
    t->out->failed |= b->failed;
    tt_buf_free(b);
}

static void begin_atom(translator *t)
{
    t->atom = t->out->size;
    t->has_atom = true;
    t->quantified = false;
}

static void insert(tt_buf *b, size_t at, const char *text)
{
    size_t n = strlen(text);
    if (!tt_buf_reserve(b, n))
        return;
    memmove(b->data + at + n, b->data + at, b->size - at + 1);
    memcpy(b->data + at, text, n);
    b->size += n;
}

/* --- properties --- */

/* Names in lower case without blanks, hyphens and underscores; set: the inside of a class. */
static const struct {
    const char *name, *set;
} properties[] = {
    {"alnum", "\\p{Alphabetic}\\p{Nd}"},
    {"alpha", "\\p{Alphabetic}"},
    {"alphabetic", "\\p{Alphabetic}"},
    {"any", "\\x{0}-\\x{10ffff}"},
    {"ascii", "\\x00-\\x7f"},
    {"assigned", "\\P{Cn}"},
    {"blank", "\\p{Zs}\\t"},
    {"cntrl", "\\p{Cc}"},
    {"digit", "\\p{Nd}"},
    {"lower", "\\p{Lowercase}"},
    {"lowercase", "\\p{Lowercase}"},
    {"punct", "\\p{P}"},
    {"posixpunct", "\\p{P}$+<=>\\^`|~"},
    {"space", SPACES},
    {"upper", "\\p{Uppercase}"},
    {"uppercase", "\\p{Uppercase}"},
    {"whitespace", SPACES},
    {"word", WORD},
    {"xdigit", HEX_DIGITS},
    {"emoji", "\\p{Emoji}"},
    {"emojimodifier", "\\p{Emoji_Modifier}"},
    {"emojipresentation", "\\p{Emoji_Presentation}"},
    {"extendedpictographic", "\\p{Extended_Pictographic}"},
    {"ideographic", "\\p{Ideographic}"},
    {"math", "\\p{Math}"},
    {"dash", "\\p{Dash}"},
    {"idstart", "\\p{ID_Start}"},
    {"idcontinue", "\\p{ID_Continue}"},
    {"xidstart", "\\p{XID_Start}"},
    {"xidcontinue", "\\p{XID_Continue}"},
    {"letter", "\\p{L}"},
    {"casedletter", "\\p{Lu}\\p{Ll}\\p{Lt}"},
    {"lc", "\\p{Lu}\\p{Ll}\\p{Lt}"},
    {"uppercaseletter", "\\p{Lu}"},
    {"lowercaseletter", "\\p{Ll}"},
    {"titlecaseletter", "\\p{Lt}"},
    {"modifierletter", "\\p{Lm}"},
    {"otherletter", "\\p{Lo}"},
    {"mark", "\\p{M}"},
    {"combiningmark", "\\p{M}"},
    {"nonspacingmark", "\\p{Mn}"},
    {"spacingmark", "\\p{Mc}"},
    {"enclosingmark", "\\p{Me}"},
    {"number", "\\p{N}"},
    {"decimalnumber", "\\p{Nd}"},
    {"letternumber", "\\p{Nl}"},
    {"othernumber", "\\p{No}"},
    {"punctuation", "\\p{P}"},
    {"connectorpunctuation", "\\p{Pc}"},
    {"dashpunctuation", "\\p{Pd}"},
    {"openpunctuation", "\\p{Ps}"},
    {"closepunctuation", "\\p{Pe}"},
    {"initialpunctuation", "\\p{Pi}"},
    {"finalpunctuation", "\\p{Pf}"},
    {"otherpunctuation", "\\p{Po}"},
    {"symbol", "\\p{S}"},
    {"mathsymbol", "\\p{Sm}"},
    {"currencysymbol", "\\p{Sc}"},
    {"modifiersymbol", "\\p{Sk}"},
    {"othersymbol", "\\p{So}"},
    {"separator", "\\p{Z}"},
    {"spaceseparator", "\\p{Zs}"},
    {"lineseparator", "\\p{Zl}"},
    {"paragraphseparator", "\\p{Zp}"},
    {"other", "\\p{C}"},
    {"control", "\\p{Cc}"},
    {"format", "\\p{Cf}"},
    {"surrogate", "\\p{Cs}"},
    {"privateuse", "\\p{Co}"},
    {"unassigned", "\\p{Cn}"},
};

/* The inside of a class for a property name; one or two letters are a general category, anything
 * else unknown to the table is taken for a script (PCRE2 refuses it if it is not). */
static tt_status property_set(translator *t, const char *name, size_t n, tt_buf *set)
{
    char key[40];
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        char c = name[i];
        if (c == ' ' || c == '_' || c == '-')
            continue;
        if (k + 1 >= sizeof key || !((c | 32) >= 'a' && (c | 32) <= 'z'))
            return refuse(t, TT_EUNSUP, "unknown character property");
        key[k++] = (char)(c | 32);
    }
    key[k] = '\0';
    for (size_t i = 0; i < sizeof properties / sizeof *properties; i++) {
        if (!strcmp(properties[i].name, key)) {
            tt_buf_puts(set, properties[i].set);
            return TT_OK;
        }
    }
    if (k == 0)
        return refuse(t, TT_EFORMAT, "a property without a name");
    if (k <= 2) {
        key[0] = (char)(key[0] - 32);
        tt_buf_printf(set, "\\p{%s}", key);
    } else {
        tt_buf_printf(set, "\\p{sc:%s}", key);
    }
    return TT_OK;
}

/* --- escapes that stand for a set of characters, or for one character --- */

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 32;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* After "\p" or "\P": {Name} or {^Name}. */
static tt_status read_property(translator *t, bool *negated, tt_buf *set)
{
    if (t->p == t->end || *t->p != '{')
        return refuse(t, TT_EFORMAT, "\\p without {name}");
    const char *name = t->p + 1, *close = memchr(name, '}', (size_t)(t->end - name));
    if (!close)
        return refuse(t, TT_EFORMAT, "\\p{ without }");
    if (name < close && *name == '^') {
        *negated = !*negated;
        name++;
    }
    t->p = close + 1;
    return property_set(t, name, (size_t)(close - name), set);
}

/* If the escape letter c means a set, appends its inside and says whether it is negated. */
static tt_status read_set(translator *t, char c, bool in_class, bool *is_set, bool *negated,
                          tt_buf *set)
{
    *is_set = true;
    *negated = c >= 'A' && c <= 'Z';
    switch (c | 32) {
    case 's':
        tt_buf_puts(set, SPACES);
        return TT_OK;
    case 'w':
        tt_buf_puts(set, in_class ? WORD : WORD_ALONE);
        return TT_OK;
    case 'd':
        tt_buf_puts(set, "\\p{Nd}");
        return TT_OK;
    case 'h':
        tt_buf_puts(set, HEX_DIGITS);
        return TT_OK;
    case 'p':
        return read_property(t, negated, set);
    default:
        *is_set = false;
        return TT_OK;
    }
}

/* The character that the escape letter c (already consumed) and what follows it mean. */
static tt_status read_escaped_char(translator *t, char c, uint32_t *cp)
{
    static const char letters[] = "aefnrtv", values[] = "\a\033\f\n\r\t\v";
    const char *l = c ? strchr(letters, c) : NULL;
    if (l) {
        *cp = (unsigned char)values[l - letters];
        return TT_OK;
    }
    if (c == 'u' || c == 'x') {
        bool braces = c == 'x' && t->p < t->end && *t->p == '{';
        int most = braces ? 8 : c == 'u' ? 4 : 2, n = 0;
        t->p += braces;
        for (*cp = 0; n < most && t->p < t->end && hex(*t->p) >= 0; n++)
            *cp = *cp << 4 | (uint32_t)hex(*t->p++);
        bool closed = !braces || (t->p < t->end && *t->p++ == '}');
        if (n == 0 || !closed || (c == 'u' && n < 4) || *cp > 0x10FFFF || *cp >> 11 == 0x1B)
            return refuse(t, TT_EFORMAT, "a malformed character number");
        if (c == 'x' && !braces && *cp > 0x7F)
            return refuse(t, TT_EUNSUP, "\\x above 7f names a byte, not a character");
        return TT_OK;
    }
    if (c == '0') {
        *cp = 0;
        for (int n = 0; n < 2 && t->p < t->end && *t->p >= '0' && *t->p <= '7'; n++)
            *cp = *cp << 3 | (uint32_t)(*t->p++ - '0');
        return TT_OK;
    }
    if ((c | 32) >= 'a' && (c | 32) <= 'z')
        return refuse(t, TT_EUNSUP, "an escape this build does not know");
    t->p--;
    size_t n = tt_utf8_decode(t->p, (size_t)(t->end - t->p), cp);
    t->p += n ? n : 1;
    return TT_OK;
}

static void put_char(tt_buf *b, uint32_t cp)
{
    if ((cp >= '0' && cp <= '9') || ((cp | 32) >= 'a' && (cp | 32) <= 'z'))
        tt_buf_putc(b, (char)cp);
    else
        tt_buf_printf(b, "\\x{%x}", (unsigned)cp);
}

/* --- character classes --- */

typedef struct {
    tt_buf flat;   /* the inside of a [...] */
    tt_buf others; /* "|atom|atom": what cannot stand inside one */
} set_parts;

static tt_status read_class(translator *t, int depth, tt_buf *out);

/* [:name:] and [:^name:]; *is_posix tells whether that is what stands here. */
static tt_status read_posix(translator *t, set_parts *s, bool *is_posix)
{
    *is_posix = false;
    if (t->end - t->p < 4 || t->p[1] != ':')
        return TT_OK;
    const char *name = t->p + 2;
    const char *close = memmem(name, (size_t)(t->end - name), ":]", 2);
    if (!close || memchr(name, ']', (size_t)(close - name)))
        return TT_OK;
    bool negated = *name == '^';
    name += negated;
    size_t n = (size_t)(close - name);
    if ((n == 5 && !memcmp(name, "graph", 5)) || (n == 5 && !memcmp(name, "print", 5)))
        return refuse(t, TT_EUNSUP, "[:graph:] and [:print:]");
    *is_posix = true;
    tt_buf set = {0};
    bool punct = n == 5 && !memcmp(name, "punct", 5); /* wider than \p{Punct}: signs, too */
    tt_status st = punct ? property_set(t, "posixpunct", 10, &set) : property_set(t, name, n, &set);
    if (negated)
        tt_buf_printf(&s->others, "|[^%s]", tt_buf_text(&set));
    else
        tt_buf_puts(&s->flat, tt_buf_text(&set));
    drop(t, &set);
    t->p = close + 2;
    return st;
}

/* One character of a class, plain or escaped; *is_char is false when it was a set instead. */
static tt_status read_class_char(translator *t, set_parts *s, uint32_t *cp, bool *is_char)
{
    *is_char = true;
    if (*t->p != '\\') {
        size_t n = tt_utf8_decode(t->p, (size_t)(t->end - t->p), cp);
        t->p += n ? n : 1;
        return TT_OK;
    }
    if (++t->p == t->end)
        return refuse(t, TT_EFORMAT, "ends in a backslash");
    char c = *t->p++;
    if (c == 'b') {
        *cp = '\b';
        return TT_OK;
    }
    tt_buf set = {0};
    bool is_set, negated;
    tt_status st = read_set(t, c, true, &is_set, &negated, &set);
    if (!st && is_set && negated)
        tt_buf_printf(&s->others, "|[^%s]", tt_buf_text(&set));
    else if (!st && is_set)
        tt_buf_puts(&s->flat, tt_buf_text(&set));
    drop(t, &set);
    if (st || is_set) {
        *is_char = false;
        return st;
    }
    return read_escaped_char(t, c, cp);
}

static tt_status read_class_item(translator *t, set_parts *s)
{
    uint32_t lo, hi;
    bool is_char;
    tt_status st = read_class_char(t, s, &lo, &is_char);
    if (st || !is_char)
        return st;
    bool range = t->end - t->p >= 2 && t->p[0] == '-' && t->p[1] != ']' && t->p[1] != '[' &&
                 !(t->p[1] == '&' && t->end - t->p >= 3 && t->p[2] == '&');
    if (range) {
        const char *dash = t->p++;
        st = read_class_char(t, s, &hi, &is_char);
        if (st)
            return st;
        if (is_char && hi < lo) {
            t->p = dash;
            return refuse(t, TT_EFORMAT, "an empty range");
        }
        if (!is_char)
            return refuse(t, TT_EUNSUP, "a range that ends in a set");
        put_char(&s->flat, lo);
        tt_buf_putc(&s->flat, '-');
        put_char(&s->flat, hi);
        return TT_OK;
    }
    put_char(&s->flat, lo);
    return TT_OK;
}

/* Appends an atom for the union of the parts. */
static void put_union(tt_buf *out, const set_parts *s)
{
    if (!s->others.size)
        tt_buf_printf(out, "[%s]", tt_buf_text(&s->flat));
    else if (s->flat.size)
        tt_buf_printf(out, "(?:[%s]%s)", tt_buf_text(&s->flat), tt_buf_text(&s->others));
    else
        tt_buf_printf(out, "(?:%s)", tt_buf_text(&s->others) + 1);
}

static tt_status read_class_member(translator *t, set_parts *s, int depth)
{
    if (*t->p != '[')
        return read_class_item(t, s);
    bool is_posix;
    tt_status st = read_posix(t, s, &is_posix);
    if (st || is_posix)
        return st;
    tt_buf_putc(&s->others, '|');
    return read_class(t, depth + 1, &s->others);
}

static bool at_and(const translator *t)
{
    return t->end - t->p >= 2 && t->p[0] == '&' && t->p[1] == '&';
}

/* At "[": appends one atom that matches what the class matches. */
static tt_status read_class(translator *t, int depth, tt_buf *out)
{
    if (depth > MAX_CLASS_DEPTH)
        return refuse(t, TT_EUNSUP, "classes nested too deep");
    t->p++;
    bool negated = t->p < t->end && *t->p == '^';
    t->p += negated;
    set_parts s = {0};
    tt_buf guards = {0}; /* (?=operand) for all operands of && but the last */
    tt_status st = TT_OK;
    for (bool first = true; !st; first = false) {
        if (t->p == t->end)
            st = refuse(t, TT_EFORMAT, "a class without ]");
        else if (*t->p == ']' && !first)
            break;
        else if (at_and(t) && !s.flat.size && !s.others.size)
            st = refuse(t, TT_EFORMAT, "&& without a first operand");
        else if (at_and(t)) {
            tt_buf_puts(&guards, "(?=");
            put_union(&guards, &s);
            tt_buf_putc(&guards, ')');
            tt_buf_clear(&s.flat);
            tt_buf_clear(&s.others);
            t->p += 2;
            if (t->p == t->end || *t->p == ']')
                st = refuse(t, TT_EFORMAT, "&& without a second operand");
        } else
            st = read_class_member(t, &s, depth);
    }
    if (!st) {
        t->p++;
        if (!guards.size && !s.others.size) {
            tt_buf_printf(out, "[%s%s]", negated ? "^" : "", tt_buf_text(&s.flat));
        } else {
            tt_buf_puts(out, negated ? "(?:(?!" : "(?:");
            tt_buf_puts(out, tt_buf_text(&guards));
            put_union(out, &s);
            tt_buf_puts(out, negated ? ")(?s:.))" : ")");
        }
    }
    drop(t, &s.flat);
    drop(t, &s.others);
    drop(t, &guards);
    return st;
}

/* --- outside classes --- */

static tt_status read_escape(translator *t)
{
    if (++t->p == t->end)
        return refuse(t, TT_EFORMAT, "ends in a backslash");
    char c = *t->p++;
    if (c == 'b' || c == 'B') {
        t->has_atom = false;
        tt_buf_printf(t->out, "(?:(?<=[%s])(?%c[%s])|(?<![%s])(?%c[%s]))", WORD_ALONE,
                      c == 'b' ? '!' : '=', WORD_ALONE, WORD_ALONE, c == 'b' ? '=' : '!',
                      WORD_ALONE);
        return TT_OK;
    }
    if (c && strchr("AzZG", c)) {
        t->has_atom = false;
        tt_buf_printf(t->out, "\\%c", c);
        return TT_OK;
    }
    begin_atom(t);
    if (c && strchr("RXN", c)) {
        tt_buf_printf(t->out, "\\%c", c);
        return TT_OK;
    }
    if (c == 'O') {
        tt_buf_puts(t->out, "(?s:.)");
        return TT_OK;
    }
    if (c >= '1' && c <= '9') {
        tt_buf_printf(t->out, "\\g{%c", c);
        while (t->p < t->end && *t->p >= '0' && *t->p <= '9')
            tt_buf_putc(t->out, *t->p++);
        tt_buf_putc(t->out, '}');
        return TT_OK;
    }
    tt_buf set = {0};
    bool is_set, negated;
    tt_status st = read_set(t, c, false, &is_set, &negated, &set);
    if (!st && is_set)
        tt_buf_printf(t->out, "[%s%s]", negated ? "^" : "", tt_buf_text(&set));
    drop(t, &set);
    if (st || is_set)
        return st;
    uint32_t cp;
    st = read_escaped_char(t, c, &cp);
    if (!st)
        put_char(t->out, cp);
    return st;
}

static tt_status open_group(translator *t, size_t start)
{
    if (t->groups == MAX_GROUPS)
        return refuse(t, TT_EUNSUP, "groups nested too deep");
    t->group[t->groups].start = start;
    t->group[t->groups++].extra = 0;
    t->has_atom = false;
    return TT_OK;
}

/* After "(?" when letters or "-" follow: (?im-x) and (?im-x:...). */
static tt_status read_options(translator *t, size_t start)
{
    for (; t->p < t->end && *t->p != ')' && *t->p != ':'; t->p++) {
        char c = *t->p;
        if (c != 'i' && c != 'm' && c != 'x' && c != '-')
            return refuse(t, TT_EUNSUP, "a group option this build does not know");
        tt_buf_putc(t->out, c == 'm' ? 's' : c);
    }
    if (t->p == t->end)
        return refuse(t, TT_EFORMAT, "a group without )");
    tt_buf_putc(t->out, ':');
    if (*t->p++ == ':')
        return open_group(t, start);
    /* holds up to the end of the group around it, alternatives included */
    if (t->group[t->groups - 1].extra++ >= MAX_GROUPS)
        return refuse(t, TT_EUNSUP, "groups nested too deep");
    t->has_atom = false;
    return TT_OK;
}

static tt_status read_group(translator *t)
{
    size_t start = t->out->size;
    size_t left = (size_t)(t->end - t->p);
    if (left >= 2 && t->p[1] == '*')
        return refuse(t, TT_EUNSUP, "(* is not known");
    if (left < 3 || t->p[1] != '?') {
        t->p++;
        tt_buf_putc(t->out, '(');
        return open_group(t, start);
    }
    t->p += 2;
    if (*t->p == '#') {
        while (t->p < t->end && *t->p != ')')
            t->p++;
        t->p += t->p < t->end;
        return TT_OK;
    }
    tt_buf_puts(t->out, "(?");
    if (strchr(":=!>", *t->p)) {
        tt_buf_putc(t->out, *t->p++);
        return open_group(t, start);
    }
    if (*t->p == '<') {
        size_t n = 1;
        if (left > 4 && (t->p[1] == '=' || t->p[1] == '!'))
            n = 2;
        else {
            const char *close = memchr(t->p, '>', (size_t)(t->end - t->p));
            if (!close || close - t->p > 32)
                return refuse(t, TT_EFORMAT, "a group name without >");
            n = (size_t)(close - t->p) + 1;
        }
        tt_buf_add(t->out, t->p, n);
        t->p += n;
        return open_group(t, start);
    }
    return read_options(t, start);
}

static tt_status close_group(translator *t)
{
    if (t->groups <= 1)
        return refuse(t, TT_EFORMAT, "a ) without (");
    t->p++;
    t->groups--;
    for (int i = 0; i <= t->group[t->groups].extra; i++)
        tt_buf_putc(t->out, ')');
    t->atom = t->group[t->groups].start;
    t->has_atom = true;
    t->quantified = false;
    return TT_OK;
}

/* {n}, {n,}, {n,m} or {,m} at p; its length, or 0. */
static size_t interval(const char *p, const char *end, int *least, int *most)
{
    const char *q = p + 1;
    int n[2] = {0, -1}, digits[2] = {0, 0};
    bool comma = false;
    for (; q < end && *q != '}'; q++) {
        if (*q == ',' && !comma) {
            comma = true;
        } else if (*q >= '0' && *q <= '9' && digits[comma] < 5) {
            n[comma] = (digits[comma]++ ? n[comma] * 10 : 0) + (*q - '0');
        } else {
            return 0;
        }
    }
    if (q == end || (!digits[0] && !digits[1]))
        return 0;
    *least = n[0];
    *most = comma ? n[1] : n[0];
    return (size_t)(q - p) + 1;
}

/* At * + ? or an interval of length n. */
static tt_status read_quantifier(translator *t, size_t n, int least, int most)
{
    if (!t->has_atom)
        return refuse(t, TT_EFORMAT, "nothing to repeat");
    if (t->quantified) {
        insert(t->out, t->atom, "(?:");
        tt_buf_putc(t->out, ')');
    }
    t->quantified = true;
    char c = *t->p;
    t->p += n;
    char next = t->p < t->end ? *t->p : '\0';
    if (c != '{') {
        tt_buf_putc(t->out, c);
        if (next == '?' || next == '+')
            tt_buf_putc(t->out, *t->p++);
        return TT_OK;
    }
    if (most >= 0 && most < least)
        return refuse(t, TT_EUNSUP, "an interval with its ends swapped");
    tt_buf_printf(t->out, "{%d,", least);
    if (most >= 0)
        tt_buf_printf(t->out, "%d", most);
    tt_buf_putc(t->out, '}');
    if (next == '?' && most != least) { /* {n}? is "n times, or not at all" */
        tt_buf_putc(t->out, '?');
        t->p++;
    }
    return TT_OK;
}

static tt_status read_one(translator *t)
{
    int least = 0, most = 0;
    size_t n;
    switch (*t->p) {
    case '\\':
        return read_escape(t);
    case '[':
        begin_atom(t);
        return read_class(t, 0, t->out);
    case '(':
        return read_group(t);
    case ')':
        return close_group(t);
    case '*':
    case '+':
    case '?':
        return read_quantifier(t, 1, 0, 0);
    case '{':
        n = interval(t->p, t->end, &least, &most);
        if (n)
            return read_quantifier(t, n, least, most);
        begin_atom(t);
        tt_buf_puts(t->out, "\\{");
        t->p++;
        return TT_OK;
    case '|':
    case '^':
    case '$':
        t->has_atom = false;
        tt_buf_putc(t->out, *t->p++);
        return TT_OK;
    default:
        begin_atom(t);
        n = tt_utf8_length(t->p, (size_t)(t->end - t->p));
        tt_buf_add(t->out, t->p, n ? n : 1);
        t->p += n ? n : 1;
        return TT_OK;
    }
}

tt_status tt_regex_translate(tt_buf *out, const char *pattern, size_t bytes, tt_err *e)
{
    translator t = {.p = pattern, .begin = pattern, .end = pattern + bytes, .out = out, .e = e};
    t.groups = 1; /* the pattern itself */
    tt_status st = TT_OK;
    while (!st && t.p < t.end)
        st = read_one(&t);
    if (st)
        return st;
    if (t.groups > 1)
        return refuse(&t, TT_EFORMAT, "a ( without )");
    for (int i = 0; i < t.group[0].extra; i++)
        tt_buf_putc(out, ')');
    return out->failed ? tt_fail(e, TT_ENOMEM, "no memory for a pattern") : TT_OK;
}
