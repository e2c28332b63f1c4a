/* trie.h - byte strings by prefix: which of them begin here?
 *
 * Built once from a list, then read-only. Walk with tt_trie_step() from the root, one byte at a
 * time; a node's value is the number given with the string that ends there, or -1. */
#ifndef TT_TEXT_TRIE_H
#define TT_TEXT_TRIE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

/* Longer strings are refused: at every place of a text a walk goes up to this deep. */
enum { TT_TRIE_LONGEST = 1024 };

typedef struct {
    uint32_t child;  /* first of them; they are adjacent and sorted by byte */
    uint16_t n;      /* how many */
    unsigned char c; /* the byte that leads here */
    int32_t value;
} tt_trie_node;

typedef struct {
    tt_trie_node *node; /* node 0 is the root; NULL while empty */
    size_t count;
    int32_t first[256]; /* child of the root by byte, or -1 */
    size_t longest;     /* bytes of the longest string */
} tt_trie;

typedef struct {
    size_t at, bytes; /* of the string in text; at least 1 byte */
    int32_t value;    /* not negative */
} tt_trie_item;

/* Sorts item. Of equal strings the one with the greatest value stays when last_wins, else the one
 * with the least. Fails with TT_EUNSUP when one is too long, TT_ENOMEM. */
tt_status tt_trie_open(tt_trie *t, const char *text, tt_trie_item *item, size_t n, bool last_wins,
                       tt_err *e);
void tt_trie_close(tt_trie *t);

/* The node after one more byte, or -1. node 0 is the root. */
static inline int32_t tt_trie_step(const tt_trie *t, int32_t node, unsigned char c)
{
    if (node == 0)
        return t->node ? t->first[c] : -1;
    const tt_trie_node *p = &t->node[node];
    uint32_t lo = p->child, hi = p->child + p->n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (t->node[mid].c < c)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < p->child + p->n && t->node[lo].c == c ? (int32_t)lo : -1;
}

#endif
