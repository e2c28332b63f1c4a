/* holes.c - see holes.h. */
#include "server/holes.h"

#include <string.h>

/* Length of a hole's mark at p ("[[8]]") and its tokens; 0 when there is none. */
static size_t mark(const char *p, int *tokens)
{
    if (strncmp(p, "[[", 2) != 0)
        return 0;
    size_t n = 2;
    *tokens = 0;
    while (p[n] >= '0' && p[n] <= '9' && *tokens <= TT_HOLE_MAX)
        *tokens = *tokens * 10 + (p[n++] - '0');
    bool good = *tokens >= 1 && *tokens <= TT_HOLE_MAX && !strncmp(p + n, "]]", 2);
    return good ? n + 2 : 0;
}

bool tt_holes_next(const char **at, tt_hole_part *out)
{
    const char *p = *at;
    *out = (tt_hole_part){0};
    if (!*p)
        return false;
    size_t n = mark(p, &out->tokens);
    if (n) {
        *at = p + n;
        return true;
    }
    out->text = p;
    int ignored;
    do
        p++;
    while (*p && !mark(p, &ignored));
    out->bytes = (size_t)(p - out->text);
    out->tokens = 0;
    *at = p;
    return true;
}
