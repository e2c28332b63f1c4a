/* utf8.c - see utf8.h. The table of second-byte ranges is Unicode's table 3-7. */
#include "kernels/base/utf8.h"

#include <stdbool.h>

/* Bytes after the lead, and the range allowed for the first of them; 0 for a byte that no
 * character starts with. */
static int lead(unsigned char c, unsigned char *lo, unsigned char *hi)
{
    *lo = 0x80;
    *hi = 0xBF;
    if (c < 0xC2)
        return 0;
    if (c < 0xE0)
        return 1;
    if (c < 0xF0) {
        if (c == 0xE0)
            *lo = 0xA0;
        if (c == 0xED)
            *hi = 0x9F;
        return 2;
    }
    if (c == 0xF0)
        *lo = 0x90;
    if (c == 0xF4)
        *hi = 0x8F;
    return c < 0xF5 ? 3 : 0;
}

/* How many bytes at p form a (possibly unfinished) character; *whole tells which. */
static size_t scan(const char *p, size_t n, bool *whole)
{
    const unsigned char *u = (const unsigned char *)p;
    *whole = true;
    if (n == 0)
        return 0;
    if (u[0] < 0x80)
        return 1;
    unsigned char lo, hi;
    size_t more = (size_t)lead(u[0], &lo, &hi);
    *whole = false;
    if (!more)
        return 0;
    for (size_t i = 1; i <= more; i++) {
        if (i >= n || u[i] < lo || u[i] > hi)
            return i;
        lo = 0x80;
        hi = 0xBF;
    }
    *whole = true;
    return more + 1;
}

size_t tt_utf8_length(const char *p, size_t n)
{
    bool whole;
    size_t k = scan(p, n, &whole);
    return whole ? k : 0;
}

size_t tt_utf8_decode(const char *p, size_t n, uint32_t *cp)
{
    const unsigned char *u = (const unsigned char *)p;
    size_t k = tt_utf8_length(p, n);
    static const unsigned char mask[5] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    *cp = 0xFFFD;
    if (!k)
        return 0;
    *cp = u[0] & mask[k];
    for (size_t i = 1; i < k; i++)
        *cp = *cp << 6 | (u[i] & 0x3F);
    return k;
}

size_t tt_utf8_encode(uint32_t cp, char out[4])
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xC0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3F));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xE0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3F));
        out[2] = (char)(0x80 | (cp & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3F));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3F));
    out[3] = (char)(0x80 | (cp & 0x3F));
    return 4;
}

size_t tt_utf8_valid(const char *text, size_t n)
{
    size_t i = 0;
    while (i < n) {
        size_t k = tt_utf8_length(text + i, n - i);
        if (!k)
            return i;
        i += k;
    }
    return n;
}

size_t tt_utf8_bad_length(const char *p, size_t n)
{
    bool whole;
    size_t k = scan(p, n, &whole);
    return k ? k : 1;
}

size_t tt_utf8_complete(const char *text, size_t n)
{
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        unsigned char c = (unsigned char)text[n - back];
        if ((c & 0xC0) == 0x80)
            continue;
        bool whole;
        size_t k = scan(text + n - back, back, &whole);
        return !whole && k == back ? n - back : n;
    }
    return n;
}

void tt_utf8_repair(tt_buf *out, const char *text, size_t n)
{
    size_t i = 0;
    while (i < n) {
        size_t good = tt_utf8_valid(text + i, n - i);
        tt_buf_add(out, text + i, good);
        i += good;
        if (i < n) {
            tt_buf_add(out, "\xEF\xBF\xBD", 3);
            i += tt_utf8_bad_length(text + i, n - i);
        }
    }
}
