/* junction.h - which two characters can ever be joined?
 *
 * Merging joins a token that ends in one character with a token that begins with another. If no
 * merge of the model has that pair at its seam, text may be cut there and both halves encoded on
 * their own, with the same ids. For models without a pre-tokeniser, where a whole text is one
 * piece, this gives back the words. A false "yes" only costs time, so a hashed set is enough. */
#ifndef TT_TEXT_JUNCTION_H
#define TT_TEXT_JUNCTION_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/utf8.h"

enum { TT_JUNCTION_BITS = 18 };

typedef struct {
    uint64_t set[(1 << TT_JUNCTION_BITS) / 64];
} tt_junctions;

static inline uint32_t tt_junction_hash(uint32_t left, uint32_t right)
{
    uint64_t key = ((uint64_t)left << 21 | right) * 0x9E3779B97F4A7C15u;
    return (uint32_t)(key >> (64 - TT_JUNCTION_BITS));
}

static inline void tt_junction_add(tt_junctions *j, uint32_t left, uint32_t right)
{
    uint32_t h = tt_junction_hash(left, right);
    j->set[h / 64] |= (uint64_t)1 << h % 64;
}

static inline bool tt_junction_has(const tt_junctions *j, uint32_t left, uint32_t right)
{
    uint32_t h = tt_junction_hash(left, right);
    return j->set[h / 64] >> h % 64 & 1;
}

/* The last character of a text; 0 when it is empty. */
static inline uint32_t tt_last_char(const char *text, size_t n)
{
    uint32_t cp = 0;
    size_t k = 1;
    while (k < 4 && k < n && ((unsigned char)text[n - k] & 0xC0) == 0x80)
        k++;
    if (n)
        tt_utf8_decode(text + n - k, k, &cp);
    return cp;
}

/* Tells whether the model knows the character of n bytes at c as a token of its own: next to one
 * it does not know no cut is made, since neighbouring unknown characters may become one token. */
typedef bool tt_junction_known(const void *model, const char *c, size_t n);

/* Bytes from the beginning of text up to the first place where it may be cut; n if none is. */
static inline size_t tt_junction_cut(const tt_junctions *j, tt_junction_known *known,
                                     const void *model, const char *text, size_t n)
{
    uint32_t left, right;
    size_t last = 0, at = tt_utf8_decode(text, n, &left);
    for (size_t k; at && at < n; last = at, at += k, left = right) {
        k = tt_utf8_decode(text + at, n - at, &right);
        if (!k)
            return n;
        if (!tt_junction_has(j, left, right) && known(model, text + last, at - last) &&
            known(model, text + at, k))
            return at;
    }
    return n;
}

#endif
