/* base64.c - see base64.h. */
#include "server/base64.h"

#include <stdint.h>
#include <string.h>

static const char sign[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void tt_base64_put(tt_buf *out, const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    if (!tt_buf_reserve(out, (n + 2) / 3 * 4))
        return;
    for (; n; p += 3) {
        uint32_t bits =
            (uint32_t)p[0] << 16 | (n > 1 ? (uint32_t)p[1] << 8 : 0) | (n > 2 ? p[2] : 0);
        char four[4] = {sign[bits >> 18], sign[bits >> 12 & 63], n > 1 ? sign[bits >> 6 & 63] : '=',
                        n > 2 ? sign[bits & 63] : '='};
        tt_buf_add(out, four, 4);
        n -= n < 3 ? n : 3;
    }
}

/* 0..63, or -1. */
static int value_of(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool tt_base64_take(tt_buf *out, const char *text, size_t n)
{
    if (n % 4 == 0)
        for (int i = 0; i < 2 && n && text[n - 1] == '='; i++)
            n--;
    if (n % 4 == 1 || !tt_buf_reserve(out, n / 4 * 3 + 3))
        return false;
    uint32_t bits = 0;
    int held = 0;
    for (size_t i = 0; i < n; i++) {
        int v = value_of(text[i]);
        if (v < 0)
            return false;
        bits = bits << 6 | (uint32_t)v;
        held += 6;
        if (held >= 8) {
            held -= 8;
            tt_buf_putc(out, (char)(bits >> held & 255));
        }
    }
    return !out->failed && !(bits & ((1u << held) - 1));
}
