/* charsmap.c - see charsmap.h. A unit of the double array holds, for a value node (bit 31 set),
 * the value; else the label of the edge that leads to it, whether a value hangs below it (bit 8)
 * and the offset to its children. */
#include "tokenizers/text/charsmap.h"

#include <stdlib.h>
#include <string.h>

static uint32_t u32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

tt_status tt_charsmap_open(tt_charsmap *m, const void *data, size_t bytes, tt_err *e)
{
    *m = (tt_charsmap){0};
    if (bytes == 0)
        return TT_OK;
    const unsigned char *p = data;
    size_t trie = bytes >= 4 ? u32(p) : 0;
    if (bytes < 4 || trie > bytes - 4 || trie % 4 || trie == 0)
        return tt_fail(e, TT_EFORMAT, "a character map of %zu bytes says its trie has %zu", bytes,
                       trie);
    m->units = trie / 4;
    m->text_bytes = bytes - 4 - trie;
    m->unit = malloc(trie);
    m->text = malloc(m->text_bytes + 1);
    if (!m->unit || !m->text) {
        tt_charsmap_close(m);
        return tt_fail(e, TT_ENOMEM, "no memory for a character map of %zu bytes", bytes);
    }
    for (size_t i = 0; i < m->units; i++)
        m->unit[i] = u32(p + 4 + 4 * i);
    memcpy(m->text, p + 4 + trie, m->text_bytes);
    m->text[m->text_bytes] = '\0';
    return TT_OK;
}

static int sextet(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

tt_status tt_charsmap_open_base64(tt_charsmap *m, const char *text, size_t bytes, tt_err *e)
{
    *m = (tt_charsmap){0};
    while (bytes && text[bytes - 1] == '=')
        bytes--;
    unsigned char *data = malloc(bytes / 4 * 3 + 3);
    if (!data)
        return tt_fail(e, TT_ENOMEM, "no memory for a character map");
    size_t n = 0;
    uint32_t bits = 0;
    for (size_t i = 0; i < bytes; i++) {
        int v = sextet(text[i]);
        if (v < 0) {
            free(data);
            return tt_fail(e, TT_EFORMAT, "not base64 at character %zu", i);
        }
        bits = bits << 6 | (uint32_t)v;
        if (i % 4)
            data[n++] = (unsigned char)(bits >> (6 - i % 4 * 2) & 255);
    }
    tt_status st = tt_charsmap_open(m, data, n, e);
    free(data);
    return st;
}

void tt_charsmap_close(tt_charsmap *m)
{
    free(m->unit);
    free(m->text);
    *m = (tt_charsmap){0};
}

const char *tt_charsmap_find(const tt_charsmap *m, const char *p, size_t n, bool longest,
                             size_t *covered)
{
    const char *found = NULL;
    if (!m->unit)
        return NULL;
    size_t at = 0;
    uint32_t unit = m->unit[0];
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        at ^= (size_t)(unit >> 10) << ((unit & 1u << 9) >> 6);
        at ^= c;
        if (c == 0 || at >= m->units)
            break;
        unit = m->unit[at];
        if ((unit & (1u << 31 | 255)) != c)
            break;
        if (!(unit >> 8 & 1))
            continue;
        size_t value = at ^ (size_t)(unit >> 10) << ((unit & 1u << 9) >> 6);
        if (value >= m->units)
            break;
        uint32_t offset = m->unit[value] & ~(1u << 31);
        if (offset > m->text_bytes)
            break;
        found = m->text + offset;
        *covered = i + 1;
        if (!longest)
            break;
    }
    return found;
}
