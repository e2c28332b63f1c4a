/* holes.c - see holes.h. */
#include "server/holes.h"

#include <string.h>

/* A number at p, at most TT_HOLE_MAX; returns its digits, 0 when there is none. */
static size_t number(const char *p, int *out)
{
    size_t n = 0;
    *out = 0;
    while (p[n] >= '0' && p[n] <= '9' && *out <= TT_HOLE_MAX)
        *out = *out * 10 + (p[n++] - '0');
    return *out <= TT_HOLE_MAX ? n : 0;
}

/* "8]]" or "2-8]]", "0-8]]" too; returns its length, or 0. */
static size_t lengths(const char *p, tt_hole_part *out)
{
    size_t n = number(p, &out->tokens), more = 0;
    out->min = out->tokens;
    if (n && p[n] == '-') {
        more = number(p + n + 1, &out->tokens);
        n = more ? n + 1 + more : 0;
    }
    bool good = n && out->tokens >= 1 && out->min <= out->tokens && !strncmp(p + n, "]]", 2);
    return good ? n + 2 : 0;
}

/* "a|b]]", none of them empty. */
static size_t choices(const char *p, tt_hole_part *out)
{
    const char *end = strstr(p, "]]"), *open = strstr(p, "[[");
    if (!end || (open && open < end) || !memchr(p, '|', (size_t)(end - p)))
        return 0;
    for (const char *c = p; c <= end; c++)
        if ((c == end || *c == '|') && (c == p || c[-1] == '|'))
            return 0;
    out->choices = true;
    out->text = p;
    out->bytes = (size_t)(end - p);
    return out->bytes + 2;
}

/* Length of a hole's mark at p; 0 when there is none. */
static size_t mark(const char *p, tt_hole_part *out)
{
    *out = (tt_hole_part){0};
    if (strncmp(p, "[[", 2) != 0)
        return 0;
    size_t n = lengths(p + 2, out);
    if (!n) {
        *out = (tt_hole_part){0};
        n = choices(p + 2, out);
    }
    return n ? n + 2 : 0;
}

bool tt_holes_next(const char **at, tt_hole_part *out)
{
    const char *p = *at;
    *out = (tt_hole_part){0};
    if (!*p)
        return false;
    size_t n = mark(p, out);
    if (n) {
        *at = p + n;
        return true;
    }
    tt_hole_part ignored;
    do
        p++;
    while (*p && !mark(p, &ignored));
    *out = (tt_hole_part){.text = *at, .bytes = (size_t)(p - *at)};
    *at = p;
    return true;
}
