/* regex.c - see automaton.h. A repeated atom is read again for every copy. */
#include <stdlib.h>
#include <string.h>

#include "kernels/base/utf8.h"
#include "samplers/constraint/automaton.h"

enum { LAST = 0x10FFFF, MAX_RANGES = 512, MAX_REPEAT = 1024, MAX_DEPTH = 64 };

typedef struct {
    tt_nfa *n;
    const char *text;
    size_t bytes, at;
    int depth;
    bool full; /* out of nodes or memory */
    tt_err *e;
} parser;

typedef struct {
    int32_t start, end; /* end has no way out yet */
} fragment;

typedef struct {
    uint32_t lo, hi;
} range;

typedef struct {
    range r[MAX_RANGES];
    int n;
} char_set;

static tt_status parse_choice(parser *p, fragment *out);

/* --- nodes --- */

static int32_t new_node(parser *p)
{
    tt_nfa *n = p->n;
    if (n->nodes == n->room && n->room < TT_MAX_NODES) {
        int32_t room = n->room ? 2 * n->room : 256;
        tt_node *more = realloc(n->node, (size_t)room * sizeof *more);
        n->room = more ? room : n->room;
        n->node = more ? more : n->node;
    }
    p->full |= n->nodes == n->room;
    if (p->full)
        return 0; /* noticed before the node is used for anything */
    n->node[n->nodes] = (tt_node){{-1, -1}, -1, 0, 0};
    return n->nodes++;
}

static void link_to(parser *p, int32_t from, int32_t to)
{
    if (p->full)
        return;
    int32_t *eps = p->n->node[from].eps;
    eps[eps[0] >= 0] = to;
}

static fragment empty(parser *p)
{
    int32_t a = new_node(p);
    return (fragment){a, a};
}

static fragment concat(parser *p, fragment a, fragment b)
{
    link_to(p, a.end, b.start);
    return (fragment){a.start, b.end};
}

static fragment either(parser *p, fragment a, fragment b)
{
    fragment f = {new_node(p), new_node(p)};
    link_to(p, f.start, a.start);
    link_to(p, f.start, b.start);
    link_to(p, a.end, f.end);
    link_to(p, b.end, f.end);
    return f;
}

static fragment maybe(parser *p, fragment a) { return either(p, a, empty(p)); }

static fragment star(parser *p, fragment a)
{
    fragment f = {new_node(p), new_node(p)};
    link_to(p, f.start, a.start);
    link_to(p, f.start, f.end);
    link_to(p, a.end, f.start);
    return f;
}

static fragment plus(parser *p, fragment a)
{
    int32_t end = new_node(p);
    link_to(p, a.end, a.start);
    link_to(p, a.end, end);
    return (fragment){a.start, end};
}

/* --- sets of code points as bytes of UTF-8 --- */

static fragment bytes_of(parser *p, uint32_t lo, uint32_t hi)
{
    char a[4], b[4];
    size_t n = tt_utf8_encode(lo, a);
    tt_utf8_encode(hi, b);
    fragment f = empty(p);
    for (size_t i = 0; i < n; i++) {
        int32_t next = new_node(p);
        if (!p->full) {
            tt_node *end = &p->n->node[f.end];
            end->lo = (uint8_t)a[i];
            end->hi = (uint8_t)b[i];
            end->to = next;
        }
        f.end = next;
    }
    return f;
}

/* Cuts a range until each byte of it runs from one value to another independently of the rest. */
static void add_bytes(parser *p, fragment *all, uint32_t lo, uint32_t hi)
{
    static const uint32_t longest[] = {0x7F, 0x7FF, 0xFFFF};
    uint32_t cut = hi;
    if (p->full || lo > hi)
        return;
    for (int i = 0; i < 3; i++)
        if (lo <= longest[i] && longest[i] < cut)
            cut = longest[i];
    for (int i = 1; i < 4 && cut == hi && hi > 0x7F; i++) {
        uint32_t m = ((uint32_t)1 << 6 * i) - 1;
        if ((lo & ~m) == (hi & ~m))
            break;
        if (lo & m)
            cut = lo | m;
        else if ((hi & m) != m)
            cut = (hi & ~m) - 1;
    }
    fragment f = cut == hi ? bytes_of(p, lo, hi) : (fragment){-1, -1};
    if (cut < hi) {
        add_bytes(p, all, lo, cut);
        add_bytes(p, all, cut + 1, hi);
        return;
    }
    *all = all->start < 0 ? f : either(p, *all, f);
}

static int by_start(const void *a, const void *b)
{
    const range *x = a, *y = b;
    return (x->lo > y->lo) - (x->lo < y->lo);
}

/* Sorted and apart, without surrogates; negated: all others. */
static void settle(char_set *s, bool negated)
{
    int n = 0;
    qsort(s->r, (size_t)s->n, sizeof *s->r, by_start);
    for (int i = 0; i < s->n; i++)
        if (n && s->r[i].lo <= s->r[n - 1].hi + 1)
            s->r[n - 1].hi = s->r[i].hi > s->r[n - 1].hi ? s->r[i].hi : s->r[n - 1].hi;
        else
            s->r[n++] = s->r[i];
    s->n = n;
    if (!negated)
        return;
    char_set out = {.n = 0};
    uint32_t from = 0;
    for (int i = 0; i < n; i++) {
        if (s->r[i].lo > from)
            out.r[out.n++] = (range){from, s->r[i].lo - 1};
        from = s->r[i].hi + 1;
    }
    if (from <= LAST)
        out.r[out.n++] = (range){from, LAST};
    *s = out;
}

static fragment of_set(parser *p, const char_set *s)
{
    fragment all = {-1, -1};
    for (int i = 0; i < s->n; i++) {
        uint32_t lo = s->r[i].lo, hi = s->r[i].hi;
        add_bytes(p, &all, lo, hi < 0xD800 ? hi : 0xD7FF);
        add_bytes(p, &all, lo > 0xDFFF ? lo : 0xE000, hi);
    }
    if (all.start < 0) /* nothing matches */
        all = (fragment){new_node(p), new_node(p)};
    return all;
}

/* --- reading --- */

static tt_status wrong(const parser *p, const char *what)
{
    return tt_fail(p->e, TT_EINVAL, "regular expression, byte %zu: %s", p->at, what);
}

static bool more(const parser *p) { return p->at < p->bytes; }
static bool looking_at(const parser *p, char c) { return more(p) && p->text[p->at] == c; }

static bool take(parser *p, char c)
{
    bool is = looking_at(p, c);
    p->at += is;
    return is;
}

static tt_status add_range(parser *p, char_set *s, uint32_t lo, uint32_t hi)
{
    if (s->n >= MAX_RANGES / 2) /* a negated set has one range more */
        return wrong(p, "too many ranges in a class");
    s->r[s->n++] = (range){lo, hi};
    return TT_OK;
}

static tt_status take_code_point(parser *p, uint32_t *out)
{
    size_t n = tt_utf8_decode(p->text + p->at, p->bytes - p->at, out);
    if (!n)
        return wrong(p, "not UTF-8");
    p->at += n;
    return TT_OK;
}

static tt_status take_hex(parser *p, int digits, uint32_t *out)
{
    *out = 0;
    for (int i = 0; i < digits; i++) {
        char c = more(p) ? p->text[p->at] : 0;
        int v = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (v < 0)
            return wrong(p, "a hexadecimal digit is missing");
        *out = *out << 4 | (uint32_t)v;
        p->at++;
    }
    return TT_OK;
}

/* \d and the like into the set; false when the letter names no such set. */
static bool add_named(char_set *s, char c)
{
    static const range digit[] = {{'0', '9'}}, space[] = {{'\t', '\r'}, {' ', ' '}},
                       word[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
    char lower = (char)(c | 0x20);
    const range *r = lower == 'd' ? digit : lower == 's' ? space : lower == 'w' ? word : NULL;
    int n = lower == 'd' ? 1 : lower == 's' ? 2 : 4;
    if (!r || s->n + n + 1 >= MAX_RANGES / 2)
        return false;
    char_set named = {.n = n};
    memcpy(named.r, r, (size_t)n * sizeof *r);
    settle(&named, c != lower);
    memcpy(s->r + s->n, named.r, (size_t)named.n * sizeof *r);
    s->n += named.n;
    return true;
}

/* Behind a backslash: one character. */
static tt_status take_escape(parser *p, uint32_t *out)
{
    static const char names[] = "nrtfv0", values[] = "\n\r\t\f\v";
    const char *at;
    char c = p->text[p->at];
    if (c == 'x' || c == 'u') {
        p->at++;
        return take_hex(p, c == 'x' ? 2 : 4, out);
    }
    if (c && (at = strchr(names, c))) {
        p->at++;
        *out = (uint8_t)values[at - names];
        return TT_OK;
    }
    if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
        return wrong(p, "this escape is not supported");
    return take_code_point(p, out);
}

/* One character of a class, or one of the named sets (*named). */
static tt_status take_member(parser *p, char_set *s, uint32_t *out, bool *named)
{
    *named = false;
    if (!take(p, '\\'))
        return take_code_point(p, out);
    if (!more(p))
        return wrong(p, "nothing follows the backslash");
    *named = add_named(s, p->text[p->at]);
    p->at += *named;
    return *named ? TT_OK : take_escape(p, out);
}

static tt_status parse_class(parser *p, fragment *out)
{
    char_set s = {.n = 0};
    bool negated = take(p, '^'), first = true;
    while (first || !looking_at(p, ']')) {
        uint32_t lo, hi;
        bool named = false, second = false;
        if (!more(p))
            return wrong(p, "the class has no ]");
        tt_status st = take_member(p, &s, &lo, &named);
        hi = lo;
        bool dash = !st && looking_at(p, '-') && p->at + 1 < p->bytes && p->text[p->at + 1] != ']';
        if (dash && !named) {
            p->at++;
            st = take_member(p, &s, &hi, &second);
            if (!st && (second || hi < lo))
                st = wrong(p, "the range runs backwards");
        }
        if (!st && !named)
            st = add_range(p, &s, lo, hi);
        if (st)
            return st;
        first = false;
    }
    p->at++;
    settle(&s, negated);
    *out = of_set(p, &s);
    return TT_OK;
}

static tt_status parse_group(parser *p, fragment *out)
{
    if (looking_at(p, '?') && !(p->at + 1 < p->bytes && p->text[p->at + 1] == ':'))
        return wrong(p, "only (...) and (?:...) groups are supported");
    p->at += looking_at(p, '?') ? 2 : 0;
    if (++p->depth > MAX_DEPTH)
        return wrong(p, "groups are nested too deeply");
    tt_status s = parse_choice(p, out);
    p->depth--;
    if (!s && !take(p, ')'))
        s = wrong(p, "a ) is missing");
    return s;
}

static tt_status parse_atom(parser *p, fragment *out)
{
    char_set s = {.n = 0};
    uint32_t c = 0;
    bool named = false;
    if (take(p, '('))
        return parse_group(p, out);
    if (take(p, '['))
        return parse_class(p, out);
    if (more(p) && strchr("*+?{", p->text[p->at]))
        return wrong(p, "nothing to repeat");
    if (looking_at(p, '^') || looking_at(p, '$'))
        return wrong(p, "an anchor inside the expression");
    tt_status st = TT_OK;
    if (take(p, '.')) {
        s = (char_set){.r = {{'\n', '\n'}}, .n = 1};
        settle(&s, true);
        named = true;
    } else {
        st = take_member(p, &s, &c, &named);
    }
    if (!st && !named)
        st = add_range(p, &s, c, c);
    if (st)
        return st;
    *out = of_set(p, &s);
    return TT_OK;
}

/* The bounds of a quantifier; least = 1 = most when there is none. most < 0: none. */
static tt_status parse_bounds(parser *p, int *least, int *most)
{
    *least = *most = 1;
    if (take(p, '*') || take(p, '+')) {
        *least = p->text[p->at - 1] == '+';
        *most = -1;
    } else if (take(p, '?')) {
        *least = 0;
    } else if (take(p, '{')) {
        int part[2] = {-1, -1}, k = 0;
        for (; more(p) && p->text[p->at] != '}'; p->at++) {
            char c = p->text[p->at];
            if (c == ',' && !k) {
                k = 1;
                continue;
            }
            if (c < '0' || c > '9' || part[k] > MAX_REPEAT)
                return wrong(p, "the bounds are not {m}, {m,} or {m,n} up to 1024");
            part[k] = (part[k] < 0 ? 0 : part[k] * 10) + c - '0';
        }
        if (!take(p, '}') || part[0] < 0 || part[0] > MAX_REPEAT || part[1] > MAX_REPEAT ||
            (part[1] >= 0 && part[1] < part[0]))
            return wrong(p, "the bounds are not {m}, {m,} or {m,n} up to 1024");
        *least = part[0];
        *most = k ? part[1] : part[0];
    } else {
        return TT_OK;
    }
    take(p, '?'); /* lazy: the same texts match */
    if (more(p) && strchr("*+?{", p->text[p->at]))
        return wrong(p, "a quantifier behind a quantifier");
    return TT_OK;
}

/* One more copy of the atom at this place. */
static tt_status copy_atom(parser *p, size_t place, fragment *out)
{
    size_t behind = p->at;
    p->at = place;
    tt_status s = parse_atom(p, out);
    p->at = behind;
    if (!s && p->full)
        s = tt_fail(p->e, TT_EINVAL, "the regular expression is too large");
    return s;
}

static tt_status parse_repeat(parser *p, fragment *out)
{
    size_t place = p->at;
    int least, most;
    fragment atom;
    tt_status s = parse_atom(p, &atom);
    if (!s)
        s = parse_bounds(p, &least, &most);
    if (s || most == 0) {
        *out = s ? atom : empty(p);
        return s;
    }
    int copies = most < 0 ? (least > 1 ? least : 1) : most;
    fragment all = empty(p), optional[MAX_REPEAT + 1];
    int n = 0;
    for (int i = 0; i < copies && !s; i++) {
        if (i)
            s = copy_atom(p, place, &atom);
        if (!s && most < 0 && i == copies - 1)
            atom = least ? plus(p, atom) : star(p, atom);
        if (!s && (most < 0 || i < least))
            all = concat(p, all, atom);
        else if (!s)
            optional[n++] = atom;
    }
    fragment rest = empty(p);
    while (n && !s) /* (a(a(a)?)?)? */
        rest = maybe(p, concat(p, optional[--n], rest));
    *out = s ? all : concat(p, all, rest);
    return s;
}

static tt_status parse_sequence(parser *p, fragment *out)
{
    *out = empty(p);
    while (more(p) && !looking_at(p, '|') && !looking_at(p, ')')) {
        fragment next;
        if (p->depth == 0 && looking_at(p, '$') && p->at + 1 == p->bytes) {
            p->at++;
            break;
        }
        tt_status s = parse_repeat(p, &next);
        if (s)
            return s;
        *out = concat(p, *out, next);
    }
    return TT_OK;
}

static tt_status parse_choice(parser *p, fragment *out)
{
    tt_status s = parse_sequence(p, out);
    while (!s && take(p, '|')) {
        fragment other;
        s = parse_sequence(p, &other);
        *out = s ? *out : either(p, *out, other);
    }
    return s;
}

tt_status tt_nfa_open(tt_nfa *out, const char *regex, size_t bytes, tt_err *e)
{
    *out = (tt_nfa){0};
    parser p = {.n = out, .text = regex, .bytes = bytes, .e = e};
    fragment all = {0, 0};
    take(&p, '^');
    tt_status s = parse_choice(&p, &all);
    if (!s && more(&p))
        s = wrong(&p, "a ) without (");
    if (!s && p.full)
        s = tt_fail(e, TT_EINVAL, "the regular expression is too large");
    out->start = all.start;
    out->accept = all.end;
    if (s)
        tt_nfa_close(out);
    return s;
}

void tt_nfa_close(tt_nfa *n)
{
    free(n->node);
    *n = (tt_nfa){0};
}
